//! Building an export on the host, entry by entry, from an untrusted source.
//!
//! Invariant: every path is taken apart into names and walked by handle without following a link,
//! so that nothing is written outside of the directory that is built, in whatever order entries
//! come; no device, FIFO, socket or setuid bit is ever made.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sandbox_core::{
    Error, ErrorKind, ExportOptions, FileKind, GuestPath, Operation, Result, TransferProgress,
    TransferReport,
};

use crate::filter::Excludes;
use crate::landing::Landing;
use crate::link::leads_out;
use crate::sparse;
use crate::sys::{self, Dir};

const OP: Operation = Operation::ExportDir;

/// The most bytes of paths that are kept of a tree that untrusted code made.
pub(crate) const NAMES: u64 = if cfg!(test) { 20 << 20 } else { 256 << 20 };

/// An export that is being built. Dropped before [`finish`](Self::finish), it leaves nothing.
///
/// Paths are relative to the exported directory, in bytes, with `/` between names. Entries that
/// the options exclude are passed over; those that the host cannot have are reported as skipped.
#[derive(Debug)]
pub struct Export {
    landing: Landing,
    top: Dir,
    to: PathBuf,
    excludes: Excludes,
    max_bytes: u64,
    max_entries: u64,
    entries: u64,
    /// Bytes of the paths of directories that may still be kept.
    names: u64,
    every_link: bool,
    report: TransferReport,
    /// Directories get modes and times last: one that may not be written would refuse its
    /// entries.
    directories: Vec<Directory>,
    /// The directory that the last entry was put in.
    last: Option<(Vec<u8>, Dir)>,
    progress: Option<TransferProgress>,
}

#[derive(Debug)]
struct Directory {
    path: Vec<u8>,
    mode: u32,
    modified: Option<SystemTime>,
}

/// Permission bits and modification time of an entry.
#[derive(Clone, Copy, Debug)]
pub struct Attributes {
    /// Only the lower nine bits count.
    pub mode: u32,
    /// Modification time; what the host can't keep is clamped or left.
    pub modified: Option<SystemTime>,
}

impl Export {
    /// Checks the options and what is at the final name, and makes a directory to build in.
    ///
    /// # Errors
    /// Those of [`Landing::prepare`] and [`Excludes::new`].
    pub fn new(to: &Path, options: &ExportOptions) -> Result<Self> {
        let excludes = Excludes::new(&options.excludes, OP)?;
        let landing = Landing::prepare(to, options.existing)?;
        Ok(Self {
            top: landing.dir()?,
            landing,
            to: to.to_owned(),
            excludes,
            max_bytes: options.max_bytes,
            max_entries: options.max_entries,
            entries: 0,
            names: NAMES,
            every_link: false,
            report: TransferReport::default(),
            directories: Vec::new(),
            last: None,
            progress: options.progress.clone(),
        })
    }

    /// Brings links wherever they lead: only for a tree that is packed or imported again, where no
    /// link is followed.
    #[must_use]
    pub fn every_link(mut self) -> Self {
        self.every_link = true;
        self
    }

    /// Report of what has been brought and skipped so far.
    pub fn report(&mut self) -> &mut TransferReport {
        &mut self.report
    }

    /// Whether the entry is to be brought; counts it if so.
    ///
    /// # Errors
    /// [`LimitExceeded`](ErrorKind::LimitExceeded) for one entry more than the options allow.
    fn takes(&mut self, path: &[u8], is_dir: bool) -> Result<bool> {
        if path.is_empty() || self.excludes.excludes(path, is_dir) {
            return Ok(false);
        }
        self.entries += 1;
        if self.entries > self.max_entries {
            return Err(too_many_entries(self.max_entries));
        }
        Ok(true)
    }

    /// Makes a directory. One that was made for an entry below it gets its attributes.
    ///
    /// # Errors
    /// The limits, a path that is not one, and what the host says.
    pub fn directory(&mut self, path: &[u8], attributes: Attributes) -> Result<()> {
        if !self.takes(path, true)? {
            return Ok(());
        }
        let Some((parent, name)) = self.place(path)? else {
            return Ok(());
        };
        match parent.make_dir(&name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                parent
                    .open_dir(&name)
                    .map_err(|_| garbled("an entry is named twice", path))?;
            }
            made => made.map_err(|error| self.host(error, path))?,
        }
        let left = self.names.checked_sub(path.len() as u64);
        self.names = left.ok_or_else(too_many_names)?;
        self.directories.push(Directory {
            path: path.to_vec(),
            mode: attributes.mode,
            modified: attributes.modified,
        });
        self.report.directories += 1;
        Ok(())
    }

    /// Writes a regular file from `content`. Blocks of zeros become holes.
    ///
    /// # Errors
    /// The limits, a path that is not one, and what the content and the host say.
    pub fn file(
        &mut self,
        path: &[u8],
        attributes: Attributes,
        content: &mut dyn Read,
    ) -> Result<()> {
        self.write(path, attributes, |to, allowed| {
            sparse::write(content, to, allowed)
        })
    }

    /// Writes a regular file from an open one. Holes stay holes.
    ///
    /// # Errors
    /// The limits, a path that is not one, and what the file and the host say.
    pub fn copy(&mut self, path: &[u8], attributes: Attributes, content: &File) -> Result<()> {
        self.write(path, attributes, |to, allowed| {
            sparse::copy(content, to, allowed, &mut || true)
        })
    }

    fn write(
        &mut self,
        path: &[u8],
        attributes: Attributes,
        write: impl FnOnce(&File, u64) -> std::result::Result<u64, sparse::CopyError>,
    ) -> Result<()> {
        if !self.takes(path, false)? {
            return Ok(());
        }
        let Some((parent, name)) = self.place(path)? else {
            return Ok(());
        };
        let file = parent
            .create_file(&name)
            .map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => garbled("an entry is named twice", path),
                _ => self.host(error, path),
            })?;
        let allowed = self.max_bytes.saturating_sub(self.report.bytes);
        let copied = write(&file, allowed).map_err(|error| match error {
            sparse::CopyError::Read(error) => Error::from_io(error, OP)
                .with_message("the content can't be read")
                .with_path(path),
            sparse::CopyError::Write(error) => self.host(error, path),
            sparse::CopyError::TooLarge => too_many_bytes(self.max_bytes),
            sparse::CopyError::Cancelled => Error::new(ErrorKind::Other, OP),
        })?;
        sys::finish_file(&file, attributes.mode, attributes.modified)
            .map_err(|error| self.host(error, path))?;
        self.report.bytes += copied;
        self.report.files += 1;
        if let Some(progress) = &self.progress {
            progress.tell(&self.report);
        }
        Ok(())
    }

    /// Makes a symbolic link, or reports it as skipped if it could lead out; see [`leads_out`].
    ///
    /// # Errors
    /// The limits, a path that is not one, and what the host says.
    pub fn symlink(
        &mut self,
        path: &[u8],
        target: &[u8],
        modified: Option<SystemTime>,
    ) -> Result<()> {
        if !self.takes(path, false)? {
            return Ok(());
        }
        if let Some(reason) = leads_out(path, target).filter(|_| !self.every_link) {
            self.report.skip(path, reason);
            return Ok(());
        }
        let Some((parent, name)) = self.place(path)? else {
            return Ok(());
        };
        match parent.symlink(target, &name) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                self.report
                    .skip(path, "a link, which the host does not have");
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(garbled("an entry is named twice", path));
            }
            made => made.map_err(|error| self.host(error, path))?,
        }
        if let Some(modified) = modified {
            parent.set_time_of(&name, modified);
        }
        self.report.symlinks += 1;
        Ok(())
    }

    /// Brings another name of a file that was brought before, as a file of its own: the same bytes
    /// and attributes. One whose first name was left out is reported as skipped.
    ///
    /// # Errors
    /// As for [`file`](Self::file).
    pub fn hard_link(&mut self, path: &[u8], first: &[u8]) -> Result<()> {
        let found = match self.place(first)? {
            Some((parent, name)) => parent.open_file(&name).ok().flatten(),
            None => None,
        };
        match found {
            Some((content, stat)) => {
                let attributes = Attributes {
                    mode: stat.mode,
                    modified: stat.modified,
                };
                self.copy(path, attributes, &content)
            }
            None if self.excludes.excludes(path, false) => Ok(()),
            None => self.skip(path, "another name of a file that is left out"),
        }
    }

    /// Reports an entry of a kind that is never brought to the host.
    ///
    /// # Errors
    /// The limit of entries: what is skipped counts, too.
    pub fn special(&mut self, path: &[u8], kind: FileKind) -> Result<()> {
        self.skip(path, skipped(kind))
    }

    /// Reports an entry as skipped, for a reason.
    ///
    /// # Errors
    /// The limit of entries: what is skipped counts, too.
    pub fn skip(&mut self, path: &[u8], reason: &str) -> Result<()> {
        if self.takes(path, false)? {
            self.report.skip(path, reason);
        }
        Ok(())
    }

    /// Gives the export its final name; the top directory gets these attributes, unless it is
    /// merged into.
    ///
    /// # Errors
    /// Those of [`Landing::land`].
    pub fn finish(mut self, top: Attributes) -> Result<TransferReport> {
        self.last = None;
        // Deeper ones first: setting a time or a mode changes neither the parent's time nor, as
        // long as that still has its own mode, the right to do it.
        self.directories.sort_by(|a, b| b.path.cmp(&a.path));
        for dir in std::mem::take(&mut self.directories) {
            let Some((parent, name)) = self.place(&dir.path)? else {
                continue;
            };
            if let Some(modified) = dir.modified {
                parent.set_time_of(&name, modified);
            }
            parent
                .set_mode_of(&name, dir.mode & 0o777)
                .map_err(|error| self.host(error, &dir.path))?;
            self.last = None;
        }
        self.landing.land(top.mode, top.modified)?;
        Ok(self.report)
    }

    /// The directory that an entry goes to, made as far as it is missing, and its name there.
    /// `None` if the host cannot have such a name, which is then reported.
    fn place(&mut self, path: &[u8]) -> Result<Option<(Dir, OsString)>> {
        let split = path.iter().rposition(|b| *b == b'/');
        let (above, last) = match split {
            Some(at) => (
                path.get(..at).unwrap_or_default(),
                path.get(at + 1..).unwrap_or_default(),
            ),
            None => (&b""[..], path),
        };
        if path.first() == Some(&b'/') || path.split(|b| *b == b'/').any(unsound) {
            return Err(garbled("an entry has a name that can't be", path));
        }
        let Some(name) = sys::name(last) else {
            self.report.skip(path, "a name that the host can't have");
            return Ok(None);
        };
        if let Some((known, dir)) = &self.last
            && known == above
        {
            let dir = dir.try_clone().map_err(|error| self.host(error, path))?;
            return Ok(Some((dir, name)));
        }
        // Down from the last one, so that a deep tree costs no more than its directories.
        let below = self.last.as_ref().and_then(|(known, dir)| {
            let rest = above.strip_prefix(known.as_slice())?;
            rest.starts_with(b"/").then_some((dir, rest))
        });
        let (from, rest) = below.unwrap_or((&self.top, above));
        let mut dir = from.try_clone().map_err(|error| self.host(error, path))?;
        for part in rest.split(|b| *b == b'/').filter(|part| !part.is_empty()) {
            let Some(part) = sys::name(part) else {
                self.report.skip(path, "a name that the host can't have");
                return Ok(None);
            };
            dir = match dir.open_dir(&part) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    // It costs as much as one that is named.
                    self.entries += 1;
                    if self.entries > self.max_entries {
                        return Err(too_many_entries(self.max_entries));
                    }
                    dir.make_dir(&part)
                        .map_err(|error| self.host(error, path))?;
                    dir.open_dir(&part)
                }
                opened => opened,
            }
            .map_err(|error| match error.kind() {
                // A file or a link: an archive that names both is not from an honest archiver.
                io::ErrorKind::NotADirectory => {
                    garbled("an entry is below something that is not a directory", path)
                }
                _ if dir.stat(&part).is_ok_and(|stat| !stat.is_dir()) => {
                    garbled("an entry is below something that is not a directory", path)
                }
                _ => self.host(error, path),
            })?;
        }
        let again = dir.try_clone().map_err(|error| self.host(error, path))?;
        self.last = Some((above.to_vec(), again));
        Ok(Some((dir, name)))
    }

    fn host(&self, error: io::Error, path: &[u8]) -> Error {
        let mut at = self.to.clone();
        at.extend(path.split(|b| *b == b'/').filter_map(sys::name));
        Error::from_io(error, OP).with_host_path(at)
    }
}

/// Why an entry of this kind is left behind.
pub fn skipped(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Fifo => "a FIFO",
        FileKind::Socket => "a socket",
        FileKind::Device => "a device",
        FileKind::Symlink => "a link, which the host does not have",
        _ => "of no kind that can be moved",
    }
}

fn unsound(part: &[u8]) -> bool {
    matches!(part, b"" | b"." | b"..") || part.contains(&0)
}

fn garbled(why: &str, path: &[u8]) -> Error {
    Error::new(ErrorKind::Other, OP)
        .with_message(format!("what the sandbox sent is not sound: {why}"))
        .with_path(GuestPath::new(path))
}

fn too_many_entries(limit: u64) -> Error {
    Error::new(ErrorKind::LimitExceeded, OP)
        .with_message(format!("more than the limit of {limit} entries"))
        .with_hint("raise max_entries, or exclude something")
}

fn too_many_names() -> Error {
    Error::new(ErrorKind::LimitExceeded, OP)
        .with_message(format!(
            "the paths of its directories have more than {NAMES} bytes"
        ))
        .with_hint("exclude something, or bring a directory further down")
}

fn too_many_bytes(limit: u64) -> Error {
    Error::new(ErrorKind::LimitExceeded, OP)
        .with_message(format!(
            "the files are larger than the limit of {limit} bytes"
        ))
        .with_hint("raise max_bytes, or exclude something")
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    const PLAIN: Attributes = Attributes {
        mode: 0o755,
        modified: None,
    };

    fn export(to: &Path, entries: u64) -> Export {
        Export::new(to, &ExportOptions::new().max_entries(entries)).unwrap()
    }

    fn is_refused(done: Result<()>) -> bool {
        done.is_err_and(|error| error.kind() == ErrorKind::LimitExceeded)
    }

    /// A guest writes the archive: what it only implies is made on the host too.
    #[test]
    fn directories_that_no_entry_names_count() {
        let dir = tempfile::tempdir().unwrap();
        let mut export = export(&dir.path().join("out"), 100);
        export.file(b"a/b/c/f", PLAIN, &mut &b"x"[..]).unwrap();
        assert_eq!(export.entries, 4);
        let deep = ["d"; 200].join("/");
        assert!(is_refused(export.file(
            deep.as_bytes(),
            PLAIN,
            &mut &b"x"[..]
        )));
    }

    #[test]
    fn the_paths_of_directories_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let mut export = export(&dir.path().join("out"), 10_000);
        let above = ["n".repeat(250).as_str(); 60].join("/");
        let mut made = 0;
        while export
            .directory(format!("{above}/{made}").as_bytes(), PLAIN)
            .is_ok()
        {
            made += 1;
            assert!(made < 3_000, "all were kept");
        }
        assert!(is_refused(
            export.directory(format!("{above}/x").as_bytes(), PLAIN)
        ));
    }
}
