//! Journal of what a provider makes outside of its own directory, written before it is made, so
//! that the next start can remove it should this process die.
//!
//! An entry is a link `KIND-NUMBER` to what it is about: it is there whole or not at all. Must
//! never have anything removed that does not bear a name of ours.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::group;
use crate::walk::{self, At, Cancel, Cursor, Limits, Modes, Stop, Visitor};

/// Time that the processes of a control group get to end, which were killed with their host.
const DYING: Duration = Duration::from_secs(5);

/// Kind of something outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A control group, without processes once the sandbox is dead.
    Cgroup,
    /// A directory that was being written beside its final place.
    Partial,
    /// Entries of one directory whose names begin with the last part of this path.
    Staged,
    /// Entries of one directory and all below it whose names begin with the last part of this path.
    StagedBelow,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Cgroup, Self::Partial, Self::StagedBelow, Self::Staged];

    const fn name(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::Partial => "partial",
            Self::Staged => "staged",
            Self::StagedBelow => "below",
        }
    }

    /// Text that every name of this kind has in it.
    const fn mark(self) -> &'static [u8] {
        match self {
            Self::Cgroup => b"sandbox-",
            Self::Partial => b".sandbox-partial-",
            Self::Staged | Self::StagedBelow => b".sandbox-stage-",
        }
    }
}

/// The entries of one provider.
#[derive(Debug)]
pub(crate) struct Journal {
    dir: PathBuf,
    next: AtomicU64,
}

impl Journal {
    /// Makes the directory of an empty journal.
    pub(super) fn make(dir: &Path) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(dir)
    }

    /// The journal in this directory.
    pub(crate) fn at(dir: PathBuf) -> Self {
        Self {
            dir,
            next: AtomicU64::new(0),
        }
    }

    /// Writes down what is about to be made; `path` is absolute. Drop the result when it is gone
    /// again, or is to stay.
    pub(crate) fn record(&self, kind: Kind, path: &Path) -> io::Result<Record> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let entry = self.dir.join(format!("{}-{number}", kind.name()));
        symlink(path, &entry)?;
        Ok(Record { entry })
    }
}

/// An entry; dropping it takes it out.
#[derive(Debug)]
pub(crate) struct Record {
    entry: PathBuf,
}

impl Drop for Record {
    fn drop(&mut self) {
        // What stays names something that is not there any more.
        let _ = fs::remove_file(&self.entry);
    }
}

/// Removes what a dead provider's journal names.
///
/// # Errors
/// Something is left; its entry stays.
pub(super) fn collect(dir: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    // As root, a guest's user owns the directory above.
    let own = rustix::process::geteuid().as_raw();
    if !found.is_dir() || found.uid() != own || found.mode() & 0o077 != 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "the journal is not this user's own",
        ));
    }
    let mut left = Ok(());
    for entry in fs::read_dir(dir)? {
        let entry = entry?.path();
        match collect_entry(&entry).and_then(|()| fs::remove_file(&entry)) {
            Ok(()) => {}
            // Taken out meanwhile: what it named is gone.
            Err(_) if fs::symlink_metadata(&entry).is_err() => {}
            Err(error) => {
                tracing::warn!(entry = %entry.display(), %error, "could not be collected");
                left = Err(error);
            }
        }
    }
    left
}

fn collect_entry(entry: &Path) -> io::Result<()> {
    let name = entry.file_name().unwrap_or_default().as_bytes();
    let of = |kind: &Kind| name.starts_with(kind.name().as_bytes());
    let Some(kind) = Kind::ALL.into_iter().find(of) else {
        return Ok(());
    };
    let path = fs::read_link(entry)?;
    let last = path.file_name().unwrap_or_default().as_bytes();
    let mark = kind.mark();
    let is_ours = path.is_absolute() && last.windows(mark.len()).any(|part| part == mark);
    if !is_ours {
        return Ok(());
    }
    match kind {
        Kind::Partial => walk::remove(&path, None, None).map(drop),
        Kind::Staged => remove_staged(&path),
        Kind::StagedBelow => remove_staged_below(&path),
        Kind::Cgroup => remove_cgroup(&path),
    }
}

/// Removes the entries beside a path whose names begin with its last part.
fn remove_staged(prefix: &Path) -> io::Result<()> {
    let (Some(dir), Some(name)) = (prefix.parent(), prefix.file_name()) else {
        return Ok(());
    };
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().as_bytes().starts_with(name.as_bytes()) {
            walk::remove(&entry.path(), None, None)?;
        }
    }
    Ok(())
}

/// Removes the same in the directory of a path and in all directories below it, which a guest may
/// have filled: by the walk that follows no link.
fn remove_staged_below(prefix: &Path) -> io::Result<()> {
    let (Some(dir), Some(name)) = (prefix.parent(), prefix.file_name()) else {
        return Ok(());
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = match rustix::fs::open(dir, flags, Mode::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        top => top?,
    };
    let mut sweep = Sweep {
        prefix: name.as_bytes(),
    };
    let mut cursor = Cursor::layer(&top, Modes::Keep)?;
    let swept = walk::walk(&mut cursor, Limits::DEFAULT, &Cancel::default(), &mut sweep);
    swept.map_err(io::Error::other)
}

struct Sweep<'a> {
    prefix: &'a [u8],
}

impl Visitor for Sweep<'_> {
    type Error = Stop;

    fn stopped(&self, stop: Stop) -> Stop {
        stop
    }

    fn entry(&mut self, at: &At<'_>) -> Result<bool, Stop> {
        let stat = match walk::stat_at(at.dir, at.name) {
            Err(Errno::NOENT) => return Ok(false),
            stat => stat?,
        };
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if !at.name.to_bytes().starts_with(self.prefix) {
            return Ok(is_dir);
        }
        if is_dir {
            walk::remove_in(at.dir, at.name)?;
        } else if let Err(errno) = rustix::fs::unlinkat(at.dir, at.name, AtFlags::empty())
            && errno != Errno::NOENT
        {
            return Err(errno.into());
        }
        Ok(false)
    }

    /// Passes over what can't be looked into: nothing was staged there.
    fn closed(&mut self, _cursor: &Cursor, _name: &[u8], _errno: Errno) -> Result<(), Stop> {
        Ok(())
    }
}

/// Removes a control group once it is empty, which it is a moment after its processes were killed.
fn remove_cgroup(path: &Path) -> io::Result<()> {
    let deadline = Instant::now() + DYING;
    loop {
        match group::remove(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error)
                if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline =>
            {
                thread::sleep(Duration::from_millis(10));
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_is_taken_out_meanwhile_was_collected() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("outside");
        Journal::make(&path).unwrap();
        let journal = Journal::at(path.clone());
        for _ in 0..20 {
            let record = |_| journal.record(Kind::Partial, &dir.path().join(".sandbox-partial-x"));
            let records: Vec<_> = (0..200).map(record).collect();
            thread::scope(|scope| {
                scope.spawn(|| drop(records));
                collect(&path).unwrap();
            });
        }
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    }

    #[test]
    fn what_was_staged_below_a_directory_is_collected_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let journal = dir.path().join("outside");
        Journal::make(&journal).unwrap();
        let host = dir.path().join("host");
        let aside = dir.path().join("aside");
        for path in [
            "host/a/b/.sandbox-stage-7-1",
            "host/.sandbox-stage-7-2/in/it",
            "host/a/.sandbox-stage-8-1",
            "aside/.sandbox-stage-7-3",
        ] {
            fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        fs::write(host.join("a/b/.sandbox-stage-7-4"), "x").unwrap();
        fs::write(host.join("a/b/kept"), "x").unwrap();
        // A link out, as a guest could have put it there.
        symlink(&aside, host.join("a/out")).unwrap();
        symlink(&aside, host.join("a/.sandbox-stage-7-5")).unwrap();
        let record = Journal::at(journal.clone())
            .record(Kind::StagedBelow, &host.join(".sandbox-stage-7-"))
            .unwrap();
        std::mem::forget(record);
        collect(&journal).unwrap();
        let names = |at: &str| -> Vec<String> {
            let entries = fs::read_dir(dir.path().join(at)).unwrap().flatten();
            let mut names: Vec<_> = entries
                .map(|entry| entry.file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        assert_eq!(names("host"), ["a"]);
        assert_eq!(names("host/a"), [".sandbox-stage-8-1", "b", "out"]);
        assert_eq!(names("host/a/b"), ["kept"]);
        assert_eq!(names("aside"), [".sandbox-stage-7-3"]);
        assert_eq!(names("outside"), [] as [&str; 0]);
    }
}
