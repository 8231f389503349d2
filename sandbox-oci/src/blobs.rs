//! Files of an image where it lies: in a directory, or in a tar file.
//!
//! Must never follow a link out of either, open anything but a regular file, or read more into
//! memory than is allowed.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use sandbox_core::{Error, Operation, Result};

use crate::digest::Digest;
use crate::fault::{ImageFault, io, malformed};
use crate::hashing::Hashing;

/// The most files of a tar file; an image has a few for each of its layers.
const FILES: usize = 10_000;
/// The most bytes of headers between two files of it.
const HEADERS: u64 = 1 << 20;
/// The largest index, manifest or configuration, in bytes.
pub(crate) const DOCUMENT: u64 = 4 << 20;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) enum Blobs {
    Directory(OwnedFd),
    Archive {
        file: Arc<File>,
        /// Start of the content of each file, and its length.
        files: HashMap<Vec<u8>, (u64, u64)>,
    },
}

impl Blobs {
    pub(crate) fn directory(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(dir) => Ok(Self::Directory(dir)),
            Err(errno) => Err(unusable(errno.into(), path)),
        }
    }

    pub(crate) fn archive(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::empty());
        let file = File::from(file.map_err(|errno| unusable(errno.into(), path))?);
        let found = file.metadata().map_err(|error| unusable(error, path))?;
        if !found.is_file() {
            return Err(malformed("it is not a file").with_host_path(path));
        }
        let mut start = [0; 2];
        if file.read_exact_at(&mut start, 0).is_ok() && start == [0x1f, 0x8b] {
            return Err(malformed("the archive is compressed as a whole")
                .with_host_path(path)
                .with_hint("uncompress it with `gunzip` first"));
        }
        let files = list(&file).map_err(|error| {
            io(error, "the archive of the image can't be read").with_host_path(path)
        })?;
        Ok(Self::Archive {
            file: Arc::new(file),
            files,
        })
    }

    /// Opens a file; with its size.
    pub(crate) fn open(&self, name: &str) -> Result<(Box<dyn Read + Send>, u64)> {
        let missing = || {
            let what = format!("the file {name} of the image");
            ImageFault::NotFound { what }.into_error()
        };
        match self {
            Self::Directory(dir) => {
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
                    Ok(file) => File::from(file),
                    Err(rustix::io::Errno::NOENT) => return Err(missing()),
                    Err(errno) => return Err(io(errno.into(), &format!("open {name}"))),
                };
                let found = file.metadata().map_err(|error| io(error, name))?;
                if !found.is_file() {
                    return Err(malformed(format!("{name} is not a regular file")));
                }
                Ok((Box::new(file), found.len()))
            }
            Self::Archive { file, files } => {
                let (at, length) = *files.get(name.as_bytes()).ok_or_else(missing)?;
                let part = Part {
                    file: file.clone(),
                    at,
                    left: length,
                };
                Ok((Box::new(part), length))
            }
        }
    }

    /// Reads a document, which must have this digest and size if they are given.
    pub(crate) fn document(
        &self,
        name: &str,
        expected: Option<(&Digest, Option<u64>)>,
    ) -> Result<Vec<u8>> {
        let (file, _) = self.open(name)?;
        let mut reader = Hashing::new(file, DOCUMENT, "bytes in one document");
        let mut bytes = Vec::new();
        let read = reader.read_to_end(&mut bytes);
        read.map_err(|error| io(error, &format!("read {name} of the image")))?;
        if let Some((digest, size)) = expected {
            verify(name, digest, size, &Digest::of(&bytes), bytes.len() as u64)?;
        }
        Ok(bytes)
    }
}

/// Compares what was read with what was asked for.
pub(crate) fn verify(
    what: &str,
    expected: &Digest,
    size: Option<u64>,
    found: &Digest,
    bytes: u64,
) -> Result<()> {
    let what = what.to_owned();
    if let Some(size) = size
        && size != bytes
    {
        return Err(ImageFault::Size {
            what,
            expected: size,
            found: bytes,
        }
        .into_error());
    }
    if expected != found {
        return Err(ImageFault::Digest {
            what,
            expected: expected.clone(),
            found: found.clone(),
        }
        .into_error());
    }
    Ok(())
}

fn unusable(error: io::Error, path: &Path) -> Error {
    let message = format!("the image can't be opened: {error}");
    Error::from_io(error, Operation::Create)
        .with_message(message)
        .with_host_path(path)
}

/// Lists the files of a tar file without reading their content.
fn list(file: &File) -> io::Result<HashMap<Vec<u8>, (u64, u64)>> {
    let mut files = HashMap::new();
    let mut links = Vec::new();
    let mut archive = tar::Archive::new(Bounded { file, read: 0 });
    let mut count = 0;
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        count += 1;
        if count > FILES {
            return Err(io::Error::other(ImageFault::Limit {
                what: "files in its archive",
                limit: FILES as u64,
            }));
        }
        let Some(name) = beneath(&[], &entry.path_bytes()) else {
            continue;
        };
        let kind = entry.header().entry_type();
        if kind.is_file() {
            files.insert(name, (entry.raw_file_position(), entry.size()));
        } else if (kind.is_symlink() || kind.is_hard_link())
            && let Some(target) = entry.link_name_bytes()
        {
            // Older versions of Docker link layers that two images share.
            let parent = match kind.is_symlink() {
                true => name.rsplitn(2, |b| *b == b'/').nth(1).unwrap_or_default(),
                false => &[],
            };
            links.extend(beneath(parent, &target).map(|target| (name.clone(), target)));
        }
    }
    for (name, target) in links {
        if let Some(found) = files.get(&target).copied() {
            files.entry(name).or_insert(found);
        }
    }
    Ok(files)
}

/// A name from a directory, without `.` and `..`; `None` if it leads out.
fn beneath(dir: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in dir.split(|b| *b == b'/').chain(name.split(|b| *b == b'/')) {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join(&b'/'))
}

/// A file that is read only a bounded way between two jumps: a header may claim a name of any
/// length, which would be read into memory.
struct Bounded<'a> {
    file: &'a File,
    read: u64,
}

impl Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(HEADERS - self.read).unwrap_or(usize::MAX);
        if most == 0 && !buffer.is_empty() {
            return Err(io::Error::other("its headers are too large"));
        }
        let most = most.min(buffer.len());
        let read = self.file.read(buffer.get_mut(..most).unwrap_or_default())?;
        self.read += read as u64;
        Ok(read)
    }
}

impl Seek for Bounded<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.read = 0;
        self.file.seek(to)
    }
}

/// A part of a file.
struct Part {
    file: Arc<File>,
    at: u64,
    left: u64,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let most = most.min(buffer.len());
        let read = self
            .file
            .read_at(buffer.get_mut(..most).unwrap_or_default(), self.at)?;
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}
