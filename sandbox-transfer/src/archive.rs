//! Archives from a sandbox, read entry by entry.
//!
//! Invariant: an archive is untrusted: memory does not grow with what it claims, a path is handed
//! over as plain names or refused, and whatever is wrong with it is an error, never a panic.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;
use std::time::SystemTime;

use sandbox_core::{Error, ErrorKind, FileKind, Operation, Result};

use crate::export::{Attributes, Export};
use crate::sys::system_time;

const OP: Operation = Operation::ExportDir;

/// Limit of bytes of headers, long names and maps of holes for one entry.
const MAX_HEADERS: u64 = 16 << 20;

/// Kind of an entry of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArchiveKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// Another name of an entry before.
    HardLink,
    /// A FIFO or a device.
    Special(FileKind),
}

/// An entry of an archive.
pub struct ArchiveEntry<'a> {
    /// Names with `/` between them; empty for the top directory.
    pub path: Vec<u8>,
    /// Kind of the entry.
    pub kind: ArchiveKind,
    /// Mode and modification time.
    pub attributes: Attributes,
    /// Target of a link, or the first name of a hard link, as plain names.
    pub link: Vec<u8>,
    /// The content of a file; holes are read as zeros.
    pub content: &'a mut dyn Read,
}

/// Reads an archive and hands over its entries in their order.
///
/// # Errors
/// [`Other`](ErrorKind::Other) for an archive that is not sound; what `each` says.
pub fn read_archive(
    archive: impl Read,
    mut each: impl FnMut(ArchiveEntry<'_>) -> Result<()>,
) -> Result<()> {
    let budget = Rc::new(Budget::default());
    let mut archive = tar::Archive::new(Limited {
        inner: archive,
        budget: budget.clone(),
    });
    let mut entries = archive.entries().map_err(garbled)?;
    // Where the content of the last entry ends.
    let mut end = 0_u64;
    loop {
        budget.limit.set(end.saturating_add(MAX_HEADERS));
        let Some(entry) = entries.next() else {
            return Ok(());
        };
        let mut entry = entry.map_err(garbled)?;
        let kind = entry.header().entry_type();
        let on_disk = match kind.is_gnu_sparse() {
            true => entry.header().entry_size().map_err(garbled)?,
            false => entry.size(),
        };
        end = budget.read.get().saturating_add(on_disk);
        budget.limit.set(end);
        let Some(path) = plain(&entry.path_bytes()) else {
            return Err(unsound("an entry has a name that can't be"));
        };
        let kind = match kind {
            kind if kind.is_dir() => ArchiveKind::Directory,
            kind if kind.is_symlink() => ArchiveKind::Symlink,
            kind if kind.is_hard_link() => ArchiveKind::HardLink,
            kind if kind.is_fifo() => ArchiveKind::Special(FileKind::Fifo),
            kind if kind.is_block_special() || kind.is_character_special() => {
                ArchiveKind::Special(FileKind::Device)
            }
            kind if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() => {
                ArchiveKind::File
            }
            kind if kind.is_pax_global_extensions() => continue,
            _ => return Err(unsound("an entry is of a kind that is not known")),
        };
        let link = match kind {
            ArchiveKind::Symlink | ArchiveKind::HardLink => {
                entry.link_name_bytes().unwrap_or_default().into_owned()
            }
            _ => Vec::new(),
        };
        let link = match kind {
            ArchiveKind::HardLink => {
                plain(&link).ok_or_else(|| unsound("a hard link leads out"))?
            }
            _ => link,
        };
        let attributes = Attributes {
            mode: entry.header().mode().unwrap_or(0o600) & 0o777,
            modified: modified(entry.header()),
        };
        each(ArchiveEntry {
            path,
            kind,
            attributes,
            link,
            content: &mut entry,
        })?;
    }
}

impl Export {
    /// Takes over all entries of an archive of the exported directory; gives the attributes of the
    /// directory itself, if the archive has them. `takes` is asked for each other entry by its
    /// path, and may pass it over.
    ///
    /// # Errors
    /// Those of [`read_archive`] and of the methods for single entries.
    pub fn unpack(
        &mut self,
        archive: impl Read,
        mut takes: impl FnMut(&[u8]) -> bool,
    ) -> Result<Option<Attributes>> {
        let mut top = None;
        read_archive(archive, |entry| {
            let path = &*entry.path;
            match entry.kind {
                ArchiveKind::Directory if path.is_empty() => {
                    top = Some(entry.attributes);
                    Ok(())
                }
                _ if !takes(path) => Ok(()),
                ArchiveKind::Directory => self.directory(path, entry.attributes),
                ArchiveKind::File => self.file(path, entry.attributes, entry.content),
                ArchiveKind::Symlink => self.symlink(path, &entry.link, entry.attributes.modified),
                ArchiveKind::HardLink => self.hard_link(path, &entry.link),
                ArchiveKind::Special(kind) => self.special(path, kind),
            }
        })?;
        Ok(top)
    }
}

/// A name of an archive without `.` and doubled slashes; `None` for one that could leave the
/// directory, and for one that is no name.
fn plain(name: &[u8]) -> Option<Vec<u8>> {
    if name.first() == Some(&b'/') || name.contains(&0) {
        return None;
    }
    let mut parts = Vec::new();
    for part in name.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return None,
            part => parts.push(part),
        }
    }
    Some(parts.join(&b'/'))
}

/// The modification time: octal digits, or a big-endian number behind a byte 0x80, or a negative
/// one behind 0xff, as GNU tar writes times before 1970.
fn modified(header: &tar::Header) -> Option<SystemTime> {
    let field = header.as_old().mtime;
    let [first, .., a, b, c, d, e, f, g, h] = field;
    let number = [a, b, c, d, e, f, g, h];
    let seconds = match first {
        0x80 | 0xff => i64::from_be_bytes(number),
        _ => i64::try_from(header.mtime().ok()?).ok()?,
    };
    system_time(seconds, 0)
}

fn garbled(error: io::Error) -> Error {
    unsound("its archive can't be read").with_source(error)
}

fn unsound(why: &str) -> Error {
    Error::new(ErrorKind::Other, OP)
        .with_message(format!("what the sandbox sent is not sound: {why}"))
}

#[derive(Default)]
struct Budget {
    read: Cell<u64>,
    limit: Cell<u64>,
}

/// Refuses to read further than is due: a header may claim a name of any length, which would be
/// read into memory.
struct Limited<R> {
    inner: R,
    budget: Rc<Budget>,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self
            .budget
            .limit
            .get()
            .saturating_sub(self.budget.read.get());
        if left == 0 && !buffer.is_empty() {
            return Err(io::Error::other("its headers are too large"));
        }
        let most = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let read = self
            .inner
            .read(buffer.get_mut(..most).unwrap_or_default())?;
        self.budget.read.set(self.budget.read.get() + read as u64);
        Ok(read)
    }
}
