//! Changes put in place in a directory of the host.
//!
//! Everything is compared before anything is written, and each entry once more at the moment when
//! it is replaced: what is there is exchanged with what comes, looked at, and given back if it is
//! not what was expected. No link is followed below the directory.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use sandbox_core::{
    Change, Changes, Error, ErrorKind, FileKind, FileVersion, Mode, Operation, Result,
};

use super::plan::{ApplyOptions, ApplyReport, Cleared, Found, Plan, is_of_interest, mode_of, same};
use crate::sys::{Dir, bytes, finish_file, name, random};

const OP: Operation = Operation::ApplyChanges;

/// Puts changes in place in a directory of the host, which must exist. It blocks.
///
/// Of each change three sides are compared: what it began with, what it became, and what the
/// directory has. A directory that has the former gets the latter; what it has already is left; all
/// else is a conflict, and then nothing is written. Each entry is replaced at once; what is to go
/// goes last. After an error or a crash some changes are in place and others not, none by half;
/// doing it again does the rest.
///
/// Hooks, CI definitions and the like are left out unless asked for
/// ([`ApplyOptions::automation`]); links that lead out of the directory, FIFOs and devices always.
/// A directory that is to go and has something else in it stays.
///
/// ```
/// use sandbox_core::{Change, Changes, FileKind, FileVersion, Mode};
/// use sandbox_transfer::changes::{ApplyOptions, apply_to_dir};
/// let dir = tempfile::tempdir()?;
/// let new = FileVersion::new(FileKind::File, Mode::FILE, 2).content("hi");
/// let changes = Changes::new("/w").entries(vec![Change::new("a", None, Some(new))]);
/// let report = apply_to_dir(&changes, dir.path(), &ApplyOptions::new())?;
/// assert!(report.conflicts.is_empty());
/// assert_eq!(std::fs::read(dir.path().join("a"))?, b"hi");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// With the host path: what the host's filesystem says;
/// [`Busy`](ErrorKind::Busy) if something changed between the comparison and the writing.
pub fn apply_to_dir(
    changes: &Changes,
    directory: &Path,
    options: &ApplyOptions,
) -> Result<ApplyReport> {
    let host = |error: io::Error| Error::from_io(error, OP).with_host_path(directory);
    let target = Target {
        top: Dir::open(directory).map_err(host)?,
    };
    let mut plan = Plan::new(changes);
    for change in &changes.entries {
        if !plan.admits(change, options) {
            continue;
        }
        if !change.path.components().all(|part| name(part).is_some()) {
            plan.leave(change, "a name that this host can't have");
            continue;
        }
        let found = target
            .find(change)
            .map_err(|error| host(error).with_path(change.path.clone()))?;
        plan.judge(change, found);
    }
    let mut entries = Vec::new();
    for change in plan.emptied() {
        let names = target.names(change);
        let names = names.map_err(|error| host(error).with_path(change.path.clone()))?;
        let path = |name: OsString| change.path.join(bytes(&name));
        entries.push((change, names.into_iter().map(path).collect()));
    }
    plan.keep_unless_emptied(entries);
    if options.dry_run || !plan.report.conflicts.is_empty() || plan.take.is_empty() {
        return Ok(plan.report);
    }
    let mut writer = Writer::new(&target).map_err(host)?;
    let written = writer.write(&plan.take);
    let tidied = writer.tidy();
    written.map_err(|(path, error)| {
        let changed = error.kind() == io::ErrorKind::Other;
        let hint = "some changes may be in place, none by half; apply them again for the rest";
        let error = match changed {
            true => Error::new(ErrorKind::Busy, OP).with_message("it was changed meanwhile"),
            false => Error::from_io(error, OP),
        };
        error.with_host_path(directory.join(&path)).with_hint(hint)
    })?;
    tidied.map_err(host)?;
    Ok(plan.report)
}

/// The directory that gets the changes.
struct Target {
    top: Dir,
}

/// A directory on the way to an entry.
enum Way {
    Open(Dir, OsString),
    Missing,
    Blocked,
}

impl Target {
    /// Opens the directory of an entry, following no link.
    fn way(&self, change: &Change) -> io::Result<Way> {
        let mut names: Vec<OsString> = change.path.components().filter_map(name).collect();
        let Some(last) = names.pop() else {
            return Ok(Way::Blocked);
        };
        let mut dir = self.top.try_clone()?;
        for name in &names {
            match dir.stat(name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Way::Missing),
                Ok(stat) if !stat.is_dir() => return Ok(Way::Blocked),
                found => found?,
            };
            dir = dir.open_dir(name)?;
        }
        Ok(Way::Open(dir, last))
    }

    fn find(&self, change: &Change) -> io::Result<Found> {
        Ok(match self.way(change)? {
            Way::Missing => Found::NoParent,
            Way::Blocked => Found::Blocked,
            Way::Open(dir, name) => Found::Entry(version(&dir, &name, change)?),
        })
    }

    /// The names in a directory.
    fn names(&self, change: &Change) -> io::Result<Vec<OsString>> {
        let (dir, name) = self.at(change)?;
        dir.open_dir(&name)?.names()
    }

    /// The directory of an entry that is about to be changed.
    fn at(&self, change: &Change) -> io::Result<(Dir, OsString)> {
        match self.way(change)? {
            Way::Open(dir, name) => Ok((dir, name)),
            Way::Missing | Way::Blocked => Err(changed()),
        }
    }
}

/// Describes the entry at a name. The content of a file is read only if it could be that of a side.
fn version(dir: &Dir, name: &OsStr, change: &Change) -> io::Result<Option<FileVersion>> {
    let stat = match dir.stat(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        stat => stat?,
    };
    let mut version = FileVersion::new(stat.kind, Mode::new(stat.mode), 0);
    match stat.kind {
        FileKind::File => {
            version.size = stat.size;
            if is_of_interest(change, stat.size)
                && let Some((mut file, stat)) = dir.open_file(name)?
            {
                let mut content = Vec::new();
                (&mut file)
                    .take(stat.size.saturating_add(1))
                    .read_to_end(&mut content)?;
                version.size = content.len() as u64;
                version.content = Some(content.into());
            }
        }
        FileKind::Symlink => version.link_target = Some(dir.read_link(name)?.into()),
        _ => {}
    }
    Ok(Some(version))
}

/// Something is not as it was compared.
fn changed() -> io::Error {
    io::Error::other("changed")
}

/// Puts changes in place by way of a directory of its own.
struct Writer<'a> {
    target: &'a Target,
    stage: Dir,
    name: OsString,
    next: u64,
}

type Written = std::result::Result<(), (std::path::PathBuf, io::Error)>;

impl<'a> Writer<'a> {
    fn new(target: &'a Target) -> io::Result<Self> {
        let name = OsString::from(format!(".sandbox-apply-{:016x}", random()));
        target.top.make_dir(&name)?;
        let stage = target.top.open_dir(&name)?;
        Ok(Self {
            target,
            stage,
            name,
            next: 0,
        })
    }

    fn fresh(&mut self) -> OsString {
        self.next += 1;
        OsString::from(self.next.to_string())
    }

    fn write(&mut self, take: &[&Change]) -> Written {
        let at = |change: &Change| {
            let names: std::path::PathBuf = change.path.components().filter_map(name).collect();
            move |error: io::Error| (names, error)
        };
        // All contents first: a full disk shows before anything has changed.
        let mut staged = Vec::new();
        for change in take {
            staged.push(self.stage(change).map_err(at(change))?);
        }
        let cleared = Cleared::of(take);
        // What is in the way of another kind goes first, from the inside out.
        for change in take.iter().rev() {
            if cleared.has(change) || change.after.is_none() && cleared.is_below(change) {
                self.remove(change).map_err(at(change))?;
            }
        }
        for (change, staged) in take.iter().zip(&staged) {
            let done = match (&change.after, staged) {
                (None, _) => Ok(()),
                (Some(after), _) if after.kind == FileKind::Directory => self.directory(change),
                (Some(_), Some(staged)) => self.place(change, staged, cleared.has(change)),
                (Some(_), None) => Ok(()),
            };
            done.map_err(at(change))?;
        }
        for change in take.iter().rev() {
            if change.after.is_none() && !cleared.is_below(change) {
                self.remove(change).map_err(at(change))?;
            }
        }
        // Last: a directory that becomes read-only takes nothing more.
        for change in take.iter().rev() {
            if let Some(after) = &change.after
                && after.kind == FileKind::Directory
                && after.mode
                    != change
                        .before
                        .as_ref()
                        .map_or(Mode::new(0), |before| before.mode)
            {
                let (dir, name) = self.target.at(change).map_err(at(change))?;
                dir.set_mode_of(&name, after.mode.bits() & 0o777)
                    .map_err(at(change))?;
            }
        }
        Ok(())
    }

    /// Writes the content of a change aside.
    fn stage(&mut self, change: &Change) -> io::Result<Option<OsString>> {
        let Some(after) = &change.after else {
            return Ok(None);
        };
        let staged = self.fresh();
        match after.kind {
            FileKind::File => {
                let old = match self.target.way(change)? {
                    Way::Open(dir, name) => dir.stat(&name).ok(),
                    _ => None,
                };
                let old = old
                    .filter(|old| old.kind == FileKind::File)
                    .map(|old| old.mode);
                let mut file = self.stage.create_file(&staged)?;
                file.write_all(after.content.as_deref().unwrap_or_default())?;
                finish_file(&file, mode_of(change, old), None)?;
            }
            FileKind::Symlink => {
                let target = after.link_target.as_ref();
                let target = target.map(|target| target.as_bytes()).unwrap_or_default();
                self.stage.symlink(target, &staged)?;
            }
            _ => return Ok(None),
        }
        Ok(Some(staged))
    }

    fn directory(&self, change: &Change) -> io::Result<()> {
        let (dir, name) = self.target.at(change)?;
        match dir.stat(&name) {
            Ok(stat) if stat.is_dir() => return Ok(()),
            _ => dir.make_dir(&name)?,
        }
        // Usable until everything is in it.
        dir.set_mode_of(&name, 0o755)
    }

    /// Gives what was written aside its name.
    fn place(&mut self, change: &Change, staged: &OsStr, fresh: bool) -> io::Result<()> {
        let (dir, name) = self.target.at(change)?;
        if change.before.is_none() || fresh {
            return self
                .stage
                .rename_new_to(staged, &dir, &name)
                .map_err(|error| match error.kind() {
                    io::ErrorKind::AlreadyExists => changed(),
                    _ => error,
                });
        }
        match self.stage.exchange_with(staged, &dir, &name) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(changed()),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                let now = version(&dir, &name, change)?;
                if !same(now.as_ref(), change.before.as_ref()) {
                    return Err(changed());
                }
                return self.stage.rename(staged, &dir, &name);
            }
            Err(error) => return Err(error),
        }
        let was = version(&self.stage, staged, change)?;
        if same(was.as_ref(), change.before.as_ref()) {
            return Ok(());
        }
        self.stage.exchange_with(staged, &dir, &name)?;
        Err(changed())
    }

    /// Takes an entry away: a file or link by way of the stage, where it is looked at again.
    fn remove(&mut self, change: &Change) -> io::Result<()> {
        let (dir, name) = match self.target.way(change)? {
            Way::Open(dir, name) => (dir, name),
            Way::Missing | Way::Blocked => return Ok(()),
        };
        let Some(before) = &change.before else {
            return Ok(());
        };
        if before.kind == FileKind::Directory {
            return match dir.remove_dir(&name) {
                // What else is in it is not the change's.
                Err(error)
                    if error.kind() == io::ErrorKind::DirectoryNotEmpty
                        && change.after.is_none() =>
                {
                    Ok(())
                }
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Err(changed()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            };
        }
        let aside = self.fresh();
        match dir.rename(&name, &self.stage, &aside) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            moved => moved?,
        }
        let was = version(&self.stage, &aside, change)?;
        if same(was.as_ref(), Some(before)) {
            return Ok(());
        }
        self.stage.rename_new_to(&aside, &dir, &name)?;
        Err(changed())
    }

    fn tidy(self) -> io::Result<()> {
        self.target.top.remove_all(&self.name)
    }
}
