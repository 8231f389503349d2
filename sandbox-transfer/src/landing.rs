//! Landing of an export: the directory in which it is built, and the step to its final name.
//!
//! Invariant: the final name never stands for a part of an export (except, merging, for whole
//! entries of it); no link at or below that name is followed; what was there before is removed
//! only after the export has its name, whichever step fails.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sandbox_core::{Error, ErrorKind, ExistingDir, Operation, Result};

use crate::sys::{Dir, bytes, random};

const OP: Operation = Operation::ExportDir;

/// A directory of its own in which an export is built. Dropped before it has landed, it leaves
/// nothing behind.
///
/// It is made beside the final name, or, for [`ExistingDir::Merge`], within the directory that is
/// there, which may be a mount of its own. Its name says what it is:
/// `.NAME.sandbox-partial-RANDOM`.
#[derive(Debug)]
pub struct Landing {
    /// Directory in which the export is built: the parent, or the directory to merge into.
    beside: Dir,
    partial: OsString,
    /// The final name in `beside`; unused for a merge.
    name: OsString,
    how: How,
    /// Mode of the directory to merge into, whose owner had shut it.
    shut: Option<u32>,
    path: PathBuf,
    to: PathBuf,
}

#[derive(Debug, PartialEq, Eq)]
enum How {
    /// Nothing or an empty directory is at the final name.
    Fresh,
    /// Nothing is at the final name, and nothing may be.
    New,
    Replace,
    Merge,
    Landed,
}

impl Landing {
    /// Looks at what is at the final name and makes a directory to build in.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if the directory above does not exist,
    /// [`AlreadyExists`](ErrorKind::AlreadyExists) if something other than a directory is there
    /// (in every mode), a directory with
    /// [`ExistingDir::MustBeAbsent`], or one that is not empty with [`ExistingDir::MustBeEmpty`].
    pub fn prepare(to: &Path, existing: ExistingDir) -> Result<Self> {
        let host = |error: io::Error| Error::from_io(error, OP).with_host_path(to);
        let full = match to.file_name() {
            Some(_) => std::path::absolute(to).map_err(host)?,
            // "." and "..": the name is that of the directory.
            None => std::fs::canonicalize(to).map_err(host)?,
        };
        let (Some(parent), Some(name)) = (full.parent(), full.file_name()) else {
            return Err(Error::new(ErrorKind::InvalidInput, OP)
                .with_message("the path does not end in a directory's name")
                .with_host_path(to));
        };
        let above = Dir::open(parent).map_err(|error| {
            host(error).with_hint("create the directory above it first, or check the path")
        })?;
        let taken = |message: &str| {
            Error::new(ErrorKind::AlreadyExists, OP)
                .with_message(message)
                .with_host_path(to)
                .with_hint("name another directory, or choose ExistingDir::Merge or Replace")
        };
        let found = match above.stat(name) {
            Ok(stat) if !stat.is_dir() => {
                return Err(Error::new(ErrorKind::AlreadyExists, OP)
                    .with_message("something that is not a directory is there")
                    .with_host_path(to)
                    .with_hint("remove it, or name another directory"));
            }
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(host(error)),
        };
        let how = match (found, existing) {
            (true, ExistingDir::Merge) => How::Merge,
            (true, ExistingDir::Replace) => How::Replace,
            (true, ExistingDir::MustBeAbsent) => return Err(taken("the directory exists")),
            (false, ExistingDir::MustBeAbsent) => How::New,
            (true, _)
                if !above
                    .open_dir(name)
                    .and_then(|dir| dir.is_empty())
                    .map_err(host)? =>
            {
                return Err(taken("the directory exists and is not empty"));
            }
            _ => How::Fresh,
        };
        let partial = sibling(name, "partial");
        let (beside, path) = match how {
            How::Merge => (above.open_dir(name).map_err(host)?, full.join(&partial)),
            _ => (above, parent.join(&partial)),
        };
        let shut = match how {
            How::Merge => beside.open_up().map_err(host)?,
            _ => None,
        };
        if let Err(error) = beside.make_dir(&partial) {
            if let Some(mode) = shut {
                beside.shut(mode).map_err(host)?;
            }
            return Err(host(error));
        }
        Ok(Self {
            beside,
            partial,
            name: name.to_owned(),
            how,
            shut,
            path,
            to: to.to_owned(),
        })
    }

    /// The directory to build in. It is empty, and its owner alone may use it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the directory as a descriptor, for writing by descriptor-relative calls.
    ///
    /// # Errors
    /// What the host says; there may be too many open files.
    #[cfg(unix)]
    pub fn open(&self) -> Result<std::os::fd::OwnedFd> {
        self.dir().map(Dir::into_fd)
    }

    /// Opens the directory as a handle.
    pub(crate) fn dir(&self) -> Result<Dir> {
        let dir = self.beside.open_dir(&self.partial);
        dir.map_err(|error| self.host(error))
    }

    /// Gives the export its final name, with these permission bits and this modification time. A
    /// directory that is merged into keeps its own.
    ///
    /// # Errors
    /// Whatever step fails, what was at the final name before is whole: at that name or, if it
    /// could not be put back either, at the path that the error states. A merge that meets a
    /// directory where it has a file, or the reverse, is refused before anything is moved.
    pub fn land(mut self, mode: u32, modified: Option<SystemTime>) -> Result<()> {
        if self.how != How::Merge {
            let set = self.beside.set_mode_of(&self.partial, mode & 0o777);
            set.map_err(|error| self.host(error))?;
            if let Some(modified) = modified {
                self.beside.set_time_of(&self.partial, modified);
            }
        }
        match self.how {
            How::Fresh => {
                // Of directories only an empty one is replaced by this.
                let named = self.beside.rename(&self.partial, &self.beside, &self.name);
                named.map_err(|error| self.occupied(error))?;
                self.how = How::Landed;
            }
            How::New => {
                let named = self.beside.rename_new(&self.partial, &self.name);
                named.map_err(|error| self.occupied(error))?;
                self.how = How::Landed;
            }
            How::Replace => {
                let old = self.replace()?;
                self.how = How::Landed;
                self.beside.remove_all(&old).map_err(|error| {
                    Error::new(ErrorKind::Other, OP)
                        .with_message(
                            "the export is in place, but what was there before could not be \
                             removed",
                        )
                        .with_host_path(&self.to)
                        .with_hint(format!(
                            "remove {}",
                            self.path.with_file_name(&old).display()
                        ))
                        .with_source(error)
                })?;
            }
            How::Merge => {
                let built = self.dir()?;
                merge_conflict(&built, &self.beside, &mut Vec::new())
                    .and_then(|conflict| match conflict {
                        Some(conflict) => Err(conflict),
                        None => merge(&built, &self.beside, &mut Vec::new()),
                    })
                    .map_err(|stop| stop.told(&self.to))?;
                drop(built);
                let removed = self.beside.remove_all(&self.partial);
                removed.map_err(|error| self.host(error))?;
                self.how = How::Landed;
            }
            How::Landed => {}
        }
        Ok(())
    }

    /// Exchanges what was built with what is there; gives the name that the old one has then.
    fn replace(&mut self) -> Result<OsString> {
        match self.beside.exchange(&self.partial, &self.name) {
            Ok(()) => return Ok(self.partial.clone()),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(error) => return Err(self.occupied(error)),
        }
        // Two renames, with a moment between them in which nothing has the name. The old one has a
        // name of its own that nothing removes by itself.
        let old = sibling(&self.name, "old");
        let aside = self.beside.rename(&self.name, &self.beside, &old);
        aside.map_err(|error| self.occupied(error))?;
        let Err(error) = self.beside.rename(&self.partial, &self.beside, &self.name) else {
            return Ok(old);
        };
        let error = self.occupied(error);
        match self.beside.rename(&old, &self.beside, &self.name) {
            Ok(()) => Err(error),
            Err(_) => {
                let old = self.path.with_file_name(&old);
                Err(error.with_hint(format!(
                    "what was there before is whole at {}; rename it back",
                    old.display()
                )))
            }
        }
    }

    fn host(&self, error: io::Error) -> Error {
        Error::from_io(error, OP).with_host_path(&self.to)
    }

    /// Error for a final name whose entry has changed while the export was built, or can't be
    /// moved.
    fn occupied(&self, error: io::Error) -> Error {
        use io::ErrorKind as Kind;
        match error.kind() {
            Kind::DirectoryNotEmpty | Kind::AlreadyExists | Kind::NotADirectory => {
                Error::new(ErrorKind::AlreadyExists, OP)
                    .with_message("something was put there while the export was built")
                    .with_host_path(&self.to)
                    .with_source(error)
            }
            Kind::ResourceBusy => Error::new(ErrorKind::Busy, OP)
                .with_message("something is mounted there")
                .with_host_path(&self.to)
                .with_hint("choose ExistingDir::Merge to write into it")
                .with_source(error),
            _ => self.host(error),
        }
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        if self.how != How::Landed {
            // There is no caller left to tell; the name says what it is.
            let _ = self.beside.remove_all(&self.partial);
        }
        if let Some(mode) = self.shut {
            let _ = self.beside.shut(mode);
        }
    }
}

/// Removes a directory with everything in it, also what its maker closed to its owner. No link is
/// followed.
///
/// # Errors
/// What the host says.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let full = std::path::absolute(path)?;
    match (full.parent(), full.file_name()) {
        (Some(parent), Some(name)) => Dir::open(parent)?.remove_all(&name.to_owned()),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// A name beside `name` that says where it comes from.
fn sibling(name: &OsStr, what: &str) -> OsString {
    let tail = format!(".sandbox-{what}-{:016x}", random());
    // A name has 255 bytes at most.
    let room = 255 - tail.len() - 1;
    let whole = bytes(name);
    let mut sibling = OsString::from(".");
    match whole.len() <= room {
        true => sibling.push(name),
        false => {
            let text = name.to_string_lossy();
            let cut = (0..=room / 2).rev().find(|at| text.is_char_boundary(*at));
            sibling.push(text.get(..cut.unwrap_or(0)).unwrap_or_default());
        }
    }
    sibling.push(tail);
    sibling
}

/// Why a merge stopped, and at which path below the destination.
struct Stop {
    error: io::Error,
    message: &'static str,
    path: PathBuf,
}

impl Stop {
    fn told(self, to: &Path) -> Error {
        let error = Error::from_io(self.error, OP).with_host_path(to.join(self.path));
        match self.message {
            "" => error,
            message => error.with_message(message).with_hint("remove it first"),
        }
    }
}

fn stop(at: &[OsString]) -> impl Fn(io::Error) -> Stop + '_ {
    |error| Stop {
        error,
        message: "",
        path: at.iter().collect(),
    }
}

/// Finds what is in the way of a merge.
fn merge_conflict(
    from: &Dir,
    to: &Dir,
    at: &mut Vec<OsString>,
) -> std::result::Result<Option<Stop>, Stop> {
    for name in from.names().map_err(stop(at))? {
        let new = from.stat(&name).map_err(stop(at))?;
        at.push(name.clone());
        let there = match to.stat(&name) {
            Ok(there) => there,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                at.pop();
                continue;
            }
            Err(error) => return Err(stop(at)(error)),
        };
        let conflict = match (new.is_dir(), there.is_dir()) {
            (true, true) => {
                let below = from.open_dir(&name).map_err(stop(at))?;
                let target = to.open_dir(&name).map_err(stop(at))?;
                merge_conflict(&below, &target, at)?
            }
            // A link there may lead anywhere, to a directory too: it is not one.
            (true, false) => Some(Stop {
                error: io::ErrorKind::NotADirectory.into(),
                message: "something that is not a directory is there",
                path: at.iter().collect(),
            }),
            (false, true) => Some(Stop {
                error: io::ErrorKind::IsADirectory.into(),
                message: "a directory is there",
                path: at.iter().collect(),
            }),
            (false, false) => None,
        };
        if conflict.is_some() {
            return Ok(conflict);
        }
        at.pop();
    }
    Ok(None)
}

/// Moves each entry of one directory into another, each whole and at once.
fn merge(from: &Dir, to: &Dir, at: &mut Vec<OsString>) -> std::result::Result<(), Stop> {
    for name in from.names().map_err(stop(at))? {
        let new = from.stat(&name).map_err(stop(at))?;
        at.push(name.clone());
        let there = to.stat(&name);
        if new.is_dir() && there.is_ok_and(|there| there.is_dir()) {
            let below = usable(from, &name, new.mode).map_err(stop(at))?;
            let target = to.open_dir(&name).map_err(stop(at))?;
            let shut = target.open_up().map_err(stop(at))?;
            let merged = merge(&below, &target, at);
            if let Some(mode) = shut {
                target.shut(mode).map_err(stop(at))?;
            }
            merged?;
        } else {
            move_entry(from, to, &name, &new).map_err(stop(at))?;
        }
        at.pop();
    }
    Ok(())
}

/// Opens a directory of the export, which the guest may have shut, to move its entries away.
fn usable(from: &Dir, name: &OsStr, mode: u32) -> io::Result<Dir> {
    if mode & 0o700 != 0o700 {
        from.set_mode_of(name, 0o700)?;
    }
    from.open_dir(name)
}

fn move_entry(from: &Dir, to: &Dir, name: &OsStr, new: &crate::sys::Stat) -> io::Result<()> {
    // A directory can only change its parent if its owner may write to it.
    let shut = new.is_dir() && new.mode & 0o200 == 0;
    if shut {
        from.set_mode_of(name, new.mode | 0o700)?;
    }
    from.rename(name, to, name)?;
    if shut {
        to.set_mode_of(name, new.mode)?;
    }
    if new.is_dir()
        && let Some(modified) = new.modified
    {
        to.set_time_of(name, modified);
    }
    Ok(())
}

#[cfg(all(test, unix))]
mod tests;
