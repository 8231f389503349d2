//! What goes into a guest: a directory of the host as one tar in a temporary file.
//!
//! It must never follow a link of the host, and never open a FIFO, socket or device. Memory does not
//! grow with the directory's bytes.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Seek as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use ignore::WalkBuilder;
use sandbox_core::{
    DirEntry, Error, ErrorKind, FileKind, GuestPath, ImportOptions, Operation, Result,
    TransferReport,
};

use super::{patterns, skipped};

const OP: Operation = Operation::ImportDir;

/// A packed directory.
#[derive(Debug)]
pub(crate) struct Gathered {
    /// The tar, at its beginning.
    pub(crate) tar: File,
    pub(crate) report: TransferReport,
    /// Everything that was brought, and whether it is a directory.
    brought: BTreeSet<(PathBuf, bool)>,
}

impl Gathered {
    /// What the guest's directory has and the host's does not, as `rm` takes it: children behind
    /// their parents.
    pub(crate) fn gone(
        &self,
        from: &Path,
        options: &ImportOptions,
        there: Vec<DirEntry>,
    ) -> Result<Vec<Vec<u8>>> {
        let rules = patterns(from, &options.excludes, OP)?;
        let mut gone = Vec::new();
        for entry in there {
            let relative = PathBuf::from(OsStr::from_bytes(entry.path.as_bytes()));
            let is_dir = entry.metadata.is_dir();
            let kept = rules
                .matched_path_or_any_parents(&relative, is_dir)
                .is_ignore();
            if !kept && !self.brought.contains(&(relative, is_dir)) {
                // `./` in front: a name may begin with a hyphen.
                gone.push([b"./", entry.path.as_bytes()].concat());
            }
        }
        gone.sort();
        Ok(gone)
    }
}

/// Packs a directory. Blocks.
pub(crate) fn gather(from: &Path, options: &ImportOptions) -> Result<Gathered> {
    let host = |e: io::Error, path: &Path| Error::from_io(e, OP).with_host_path(path);
    fs::read_dir(from).map_err(|e| host(e, from))?;
    let top = fs::canonicalize(from).map_err(|e| host(e, from))?;
    let rules = patterns(&top, &options.excludes, OP)?;
    let walker = WalkBuilder::new(&top)
        .standard_filters(false)
        .ignore(options.ignore_files)
        .git_ignore(options.ignore_files)
        .require_git(false)
        .sort_by_file_name(OsStr::cmp)
        .filter_entry(move |entry| {
            let is_dir = entry.file_type().is_some_and(|kind| kind.is_dir());
            entry.depth() == 0 || !rules.matched(entry.path(), is_dir).is_ignore()
        })
        .build();
    let mut report = TransferReport::default();
    let mut brought = BTreeSet::new();
    let file = tempfile::tempfile().map_err(|e| Error::from_io(e, OP))?;
    let mut tar = tar::Builder::new(io::BufWriter::new(file));
    tar.follow_symlinks(false);
    for entry in walker {
        let entry = entry.map_err(|e| {
            let kind = e.io_error().map_or(io::ErrorKind::Other, io::Error::kind);
            host(kind.into(), from).with_source(e)
        })?;
        let path = entry.path();
        let relative = path.strip_prefix(&top).unwrap_or(path).to_owned();
        if relative.as_os_str().is_empty() {
            continue;
        }
        let meta = fs::symlink_metadata(path).map_err(|e| host(e, path))?;
        let mut header = tar::Header::new_gnu();
        header.set_mode(meta.permissions().mode() & 0o777);
        let modified = meta.modified().ok();
        let modified = modified.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        header.set_mtime(modified.map_or(0, |since| since.as_secs()));
        let kind = meta.file_type();
        let added = if kind.is_dir() {
            report.directories += 1;
            header.set_entry_type(tar::EntryType::Directory);
            header.set_size(0);
            tar.append_data(&mut header, &relative, io::empty())
        } else if kind.is_symlink() {
            report.symlinks += 1;
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            fs::read_link(path).and_then(|target| tar.append_link(&mut header, &relative, target))
        } else if kind.is_file() {
            let content = Whole::open(path).map_err(|e| host(e, path))?;
            report.files += 1;
            report.bytes += content.left;
            if let Some(limit) = options.max_bytes.filter(|limit| report.bytes > *limit) {
                return Err(Error::new(ErrorKind::LimitExceeded, OP)
                    .with_message(format!("more than {limit} bytes"))
                    .with_host_path(from));
            }
            header.set_size(content.left);
            tar.append_data(&mut header, &relative, content)
        } else {
            let kind = match kind {
                kind if kind.is_fifo() => FileKind::Fifo,
                kind if kind.is_socket() => FileKind::Socket,
                _ => FileKind::Device,
            };
            report.skip(
                GuestPath::new(relative.as_os_str().as_bytes()),
                skipped(kind),
            );
            continue;
        };
        added.map_err(|e| host(e, path))?;
        brought.insert((relative, kind.is_dir()));
    }
    let packed = tar.into_inner().and_then(|tar| {
        let mut tar = tar.into_inner().map_err(io::IntoInnerError::into_error)?;
        tar.rewind()?;
        Ok(tar)
    });
    let tar = packed.map_err(|e| Error::from_io(e, OP))?;
    Ok(Gathered {
        tar,
        report,
        brought,
    })
}

/// A file of a size that was told before: one that shrinks meanwhile is an error, what it grows by
/// is left out.
struct Whole {
    file: File,
    left: u64,
}

impl Whole {
    /// A file that turned into something else in between is not waited for.
    fn open(path: &Path) -> io::Result<Self> {
        const NONBLOCK_NOFOLLOW: i32 = 0o4000 | 0o400_000;
        let mut options = fs::OpenOptions::new();
        let options = options.read(true).custom_flags(NONBLOCK_NOFOLLOW);
        let file = options.open(path)?;
        let meta = file.metadata()?;
        match meta.is_file() {
            true => Ok(Self {
                file,
                left: meta.len(),
            }),
            false => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

impl Read for Whole {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = buffer
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if room == 0 {
            return Ok(0);
        }
        match self.file.read(&mut buffer[..room])? {
            0 => Err(io::Error::other("the file shrank while it was read")),
            n => {
                self.left -= n as u64;
                Ok(n)
            }
        }
    }
}
