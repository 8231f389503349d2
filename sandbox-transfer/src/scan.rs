//! Reading a directory of the host, entry by entry.
//!
//! Invariant: no link is followed, and only regular files are opened, by a name that is looked up
//! in an open directory; a FIFO is not waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use sandbox_core::{
    Error, ErrorKind, FileKind, ImportOptions, Operation, Result, TransferReport, Unreadable,
};

use crate::descent::{DEPTH, Descent, is_gone};
use crate::export::{Attributes, NAMES, skipped};
use crate::filter::{Excludes, IgnoreFiles, MAX_IGNORE_FILE, is_excluded};
use crate::sys::{Dir, Stat, bytes};

/// An entry of a directory that is brought somewhere else.
#[derive(Debug)]
pub struct ScanEntry {
    /// Relative to the directory, with `/` between names; parents come first.
    pub path: Vec<u8>,
    /// Kind of the entry.
    pub kind: ScanKind,
    /// Mode, without setuid, setgid and sticky, and modification time.
    pub attributes: Attributes,
}

/// Kind of an entry, with what belongs to it.
#[derive(Debug)]
pub enum ScanKind {
    /// A directory.
    Directory,
    /// A regular file, open for reading, and the size that it had then.
    File(File, u64),
    /// A symbolic link, and what it says.
    Symlink(Vec<u8>),
}

/// Walk over a host directory, and what it has met.
#[derive(Debug)]
pub struct Scan {
    /// Report of what was brought and skipped.
    pub report: TransferReport,
    /// The attributes of the directory itself.
    pub top: Attributes,
    /// Paths that were brought, and whether each is a directory.
    seen: BTreeMap<Vec<u8>, bool>,
    /// Paths that could not be read: they are not known to be gone.
    unreadable: BTreeSet<Vec<u8>>,
    excludes: Excludes,
    ignore_files: BTreeMap<Vec<u8>, IgnoreFiles>,
}

impl Scan {
    /// Returns what could not be read, by path.
    pub fn unreadable(&self) -> impl Iterator<Item = &[u8]> {
        self.unreadable.iter().map(Vec::as_slice)
    }

    /// Whether an entry of the place that an import is to mirror is neither in the directory nor
    /// excluded, and so to be removed. One that is a directory on one side only is.
    pub fn is_gone(&self, path: &[u8], is_dir: bool) -> bool {
        let ends = path.iter().enumerate().filter(|(_, b)| **b == b'/');
        let above: Vec<&[u8]> = std::iter::once(&b""[..])
            .chain(ends.filter_map(|(end, _)| path.get(..end)))
            .collect();
        let ignored = |path: &[u8], is_dir: bool, above: &[&[u8]]| {
            let files: Vec<_> = above
                .iter()
                .filter_map(|dir| self.ignore_files.get(*dir))
                .collect();
            is_excluded(&self.excludes, &files, path, is_dir)
        };
        for (at, dir) in above.iter().enumerate().skip(1) {
            let outer = above.get(..at).unwrap_or_default();
            if self.unreadable.contains(*dir) || ignored(dir, true, outer) {
                return false;
            }
        }
        !self.unreadable.contains(path)
            && !ignored(path, is_dir, &above)
            && self.seen.get(path) != Some(&is_dir)
    }
}

/// A directory that the scan is in.
struct Level {
    path: Vec<u8>,
    /// Still to come, the first last.
    names: Vec<OsString>,
}

/// The most entries of a tree that untrusted code made.
pub(crate) const ENTRIES: u64 = 4_000_000;

/// Room for the rest of a tree.
struct Room {
    entries: u64,
    names: u64,
    exceeded: Box<dyn Fn(String) -> Error>,
}

impl Room {
    /// The names of a directory, the first last.
    fn sorted(&mut self, dir: &Dir) -> io::Result<Result<Vec<OsString>>> {
        let Some(mut names) = dir.names_within(self.entries)? else {
            return Ok(Err((self.exceeded)(format!("more than {ENTRIES} entries"))));
        };
        self.entries -= names.len() as u64;
        names.sort_by(|a, b| b.cmp(a));
        Ok(Ok(names))
    }

    fn take(&mut self, path: &[u8]) -> Result<()> {
        let left = self.names.checked_sub(path.len() as u64);
        let exceeded = || (self.exceeded)(format!("paths of more than {NAMES} bytes"));
        self.names = left.ok_or_else(exceeded)?;
        Ok(())
    }
}

/// Reads the tree below `from` and hands over what the options let through, sorted by name,
/// parents first. Errors name the operation and the path of the host.
///
/// # Errors
/// [`NotFound`](ErrorKind::NotFound), [`NotADirectory`](ErrorKind::NotADirectory) and
/// [`PermissionDenied`](ErrorKind::PermissionDenied) for the directory itself,
/// [`LimitExceeded`](ErrorKind::LimitExceeded), also for more than 1,000 directories one below the
/// other, and what `each` says.
pub fn scan(
    from: &Path,
    options: &ImportOptions,
    operation: Operation,
    each: impl FnMut(ScanEntry) -> Result<()>,
) -> Result<Scan> {
    scan_within(from, options, operation, (u64::MAX, u64::MAX), each)
}

/// Reads a tree that untrusted code made, as [`scan`] does: of at most four million entries, whose
/// paths have at most 256 MiB in all.
///
/// # Errors
/// Those of [`scan`]; [`LimitExceeded`](ErrorKind::LimitExceeded) beyond that.
pub fn scan_untrusted(
    from: &Path,
    options: &ImportOptions,
    operation: Operation,
    each: impl FnMut(ScanEntry) -> Result<()>,
) -> Result<Scan> {
    scan_within(from, options, operation, (ENTRIES, NAMES), each)
}

fn scan_within(
    from: &Path,
    options: &ImportOptions,
    operation: Operation,
    (entries, names): (u64, u64),
    mut each: impl FnMut(ScanEntry) -> Result<()>,
) -> Result<Scan> {
    let host = |error: io::Error, path: &[u8]| {
        let mut at = PathBuf::from(from);
        at.extend(path.split(|b| *b == b'/').filter_map(crate::sys::name));
        Error::from_io(error, operation).with_host_path(at)
    };
    let at = from.to_owned();
    let exceeded = move |what: String| {
        Error::new(ErrorKind::LimitExceeded, operation)
            .with_message(format!("the tree has {what}"))
            .with_host_path(&at)
            .with_hint("exclude something, or bring a directory further down")
    };
    let mut room = Room {
        entries,
        names,
        exceeded: Box::new(exceeded),
    };
    let top = Dir::open(from).map_err(|error| host(error, b""))?;
    let stat = top.stat_self().map_err(|error| host(error, b""))?;
    let mut scan = Scan {
        report: TransferReport::default(),
        top: attributes(&stat),
        seen: BTreeMap::new(),
        unreadable: BTreeSet::new(),
        excludes: Excludes::new(&options.excludes, operation)?,
        ignore_files: BTreeMap::new(),
    };
    let level = Level {
        names: room.sorted(&top).map_err(|error| host(error, b""))??,
        path: Vec::new(),
    };
    if options.ignore_files {
        heed(&mut scan, &top, b"", &host, operation)?;
    }
    let mut levels = Descent::new(top, level).map_err(|error| host(error, b""))?;
    while let Some(level) = levels.of() {
        let Some(name) = level.names.pop() else {
            levels.pop();
            continue;
        };
        let path = match level.path.is_empty() {
            true => bytes(&name),
            false => [&level.path, &*bytes(&name)].join(&b'/'),
        };
        let unreadable = |scan: &mut Scan, error: io::Error| match options.unreadable {
            Unreadable::Skip if error.kind() == io::ErrorKind::PermissionDenied => {
                scan.report
                    .skip(path.clone(), "can't be read: permission denied");
                scan.unreadable.insert(path.clone());
                Ok(())
            }
            _ => Err(host(error, &path)),
        };
        let depth = levels.depth();
        let dir = match levels.dir() {
            // Taken away meanwhile, with what was in it.
            Err(error) if is_gone(&error) => {
                levels.pop();
                continue;
            }
            dir => dir.map_err(|error| host(error, &path))?,
        };
        let stat = match dir.stat(&name) {
            // Removed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                unreadable(&mut scan, error)?;
                continue;
            }
            Ok(stat) => stat,
        };
        let files: Vec<_> = levels
            .iter()
            .filter_map(|level| scan.ignore_files.get(&level.path))
            .collect();
        if is_excluded(&scan.excludes, &files, &path, stat.is_dir()) {
            continue;
        }
        room.take(&path)?;
        let dir = levels.dir().map_err(|error| host(error, &path))?;
        let mut entered = None;
        let (kind, stat) = match stat.kind {
            FileKind::Directory => {
                if depth >= DEPTH {
                    let what = format!("more than {DEPTH} directories one below the other");
                    return Err((room.exceeded)(what));
                }
                let opened = dir.open_dir(&name);
                match opened.and_then(|dir| Ok((room.sorted(&dir)?, dir))) {
                    Ok((names, dir)) => entered = Some((names?, dir)),
                    Err(error) => {
                        unreadable(&mut scan, error)?;
                        continue;
                    }
                }
                scan.report.directories += 1;
                (ScanKind::Directory, stat)
            }
            FileKind::File => match dir.open_file(&name) {
                Ok(Some((file, stat))) => {
                    scan.report.files += 1;
                    scan.report.bytes = scan.report.bytes.saturating_add(stat.size);
                    if let Some(limit) = options.max_bytes.filter(|most| scan.report.bytes > *most)
                    {
                        return Err(Error::new(ErrorKind::LimitExceeded, operation)
                            .with_message(format!(
                                "the files are larger than the limit of {limit} bytes"
                            ))
                            .with_host_path(from)
                            .with_hint("raise max_bytes, or exclude something"));
                    }
                    (ScanKind::File(file, stat.size), stat)
                }
                Ok(None) => {
                    scan.report.skip(path, "changed at the same time");
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    unreadable(&mut scan, error)?;
                    continue;
                }
            },
            FileKind::Symlink => match dir.read_link(&name) {
                Ok(target) => {
                    scan.report.symlinks += 1;
                    (ScanKind::Symlink(target), stat)
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(host(error, &path)),
            },
            kind => {
                scan.report.skip(path, skipped(kind));
                continue;
            }
        };
        scan.seen.insert(path.clone(), stat.is_dir());
        let is_file = matches!(kind, ScanKind::File(..));
        each(ScanEntry {
            path: path.clone(),
            kind,
            attributes: attributes(&stat),
        })?;
        if let Some(progress) = options.progress.as_ref().filter(|_| is_file) {
            progress.tell(&scan.report);
        }
        if let Some((names, dir)) = entered {
            if options.ignore_files {
                heed(&mut scan, &dir, &path, &host, operation)?;
            }
            levels.push(name, dir, Level { path, names });
        }
    }
    Ok(scan)
}

/// Reads the ignore files of a directory that is entered.
fn heed(
    scan: &mut Scan,
    dir: &Dir,
    path: &[u8],
    host: &dyn Fn(io::Error, &[u8]) -> Error,
    operation: Operation,
) -> Result<()> {
    let files = IgnoreFiles::read(path, operation, |name| {
        let read = || {
            let Some((file, _)) = dir.open_file(name.as_ref())? else {
                return Ok(None);
            };
            let mut text = Vec::new();
            file.take(MAX_IGNORE_FILE + 1).read_to_end(&mut text)?;
            Ok(Some(text))
        };
        match read() {
            // Mostly there is none; a directory that can't be entered gives nothing else either.
            Err(_) if dir.stat(name.as_ref()).is_err() => Ok(None),
            read => read.map_err(|error| {
                let at = [path, b"/", name.as_bytes()].concat();
                IgnoreFiles::unreadable(host(error, &at))
            }),
        }
    });
    scan.ignore_files.insert(path.to_vec(), files?);
    Ok(())
}

fn attributes(stat: &Stat) -> Attributes {
    Attributes {
        mode: stat.mode,
        modified: stat.modified,
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs;

    use super::*;

    fn paths(from: &Path, options: &ImportOptions) -> (Vec<String>, Scan) {
        let mut found = Vec::new();
        let scan = scan(from, options, Operation::ImportDir, |entry| {
            found.push(String::from_utf8(entry.path).unwrap());
            Ok(())
        });
        (found, scan.unwrap())
    }

    #[test]
    fn an_ignore_file_that_is_too_large_is_an_error_and_one_at_the_limit_is_heeded() {
        let host = tempfile::tempdir().unwrap();
        fs::create_dir(host.path().join("d")).unwrap();
        fs::write(host.path().join("d/secret"), "").unwrap();
        let options = ImportOptions::new().ignore_files(true);
        let end = "\nsecret\n";
        let most = usize::try_from(MAX_IGNORE_FILE).unwrap() - end.len();
        fs::write(host.path().join("d/.gitignore"), "#".repeat(most) + end).unwrap();
        assert_eq!(paths(host.path(), &options).0, ["d", "d/.gitignore"]);
        fs::write(host.path().join("d/.gitignore"), "#".repeat(most + 1) + end).unwrap();
        let error = scan(host.path(), &options, Operation::ImportDir, |_| Ok(()));
        let error = error.map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
        assert!(error.to_string().contains("d/.gitignore"), "{error}");
    }

    #[test]
    fn links_and_fifos_are_not_opened_and_parents_come_first() {
        let host = tempfile::tempdir().unwrap();
        let at = |name: &str| host.path().join(name);
        fs::create_dir_all(at("b/c")).unwrap();
        fs::write(at("b/c/f"), "x").unwrap();
        fs::write(at("a"), "x").unwrap();
        std::os::unix::fs::symlink("/etc", at("link")).unwrap();
        let fifo = std::process::Command::new("mkfifo")
            .arg(at("fifo"))
            .status();
        assert!(fifo.unwrap().success());
        let (found, scan) = paths(host.path(), &ImportOptions::new());
        assert_eq!(found, ["a", "b", "b/c", "b/c/f", "link"]);
        assert_eq!(scan.report.skipped_total, 1);
        assert!(scan.is_gone(b"b/other", false) && scan.is_gone(b"a", true));
        assert!(!scan.is_gone(b"b/c", true));
    }

    #[test]
    fn what_is_ignored_is_not_gone() {
        let host = tempfile::tempdir().unwrap();
        fs::create_dir_all(host.path().join("d")).unwrap();
        fs::write(host.path().join("d/.gitignore"), "built\n").unwrap();
        fs::write(host.path().join("d/built"), "x").unwrap();
        let options = ImportOptions::new().ignore_files(true).exclude("/target");
        let (found, scan) = paths(host.path(), &options);
        assert_eq!(found, ["d", "d/.gitignore"]);
        assert!(!scan.is_gone(b"d/built", true) && !scan.is_gone(b"d/built/x", false));
        assert!(!scan.is_gone(b"target/x", false));
        assert!(scan.is_gone(b"built", false) && scan.is_gone(b"d/target", false));
    }
}
