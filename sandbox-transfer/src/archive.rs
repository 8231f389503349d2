//! Archives from a sandbox, and layers of images, read entry by entry.
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

/// Limit of bytes of headers, long names and maps of holes for one entry.
const MAX_HEADERS: u64 = 16 << 20;

/// The longest path of an entry, in bytes: more than any program can use.
const MAX_PATH: usize = 64 << 10;

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
    /// User and group, as the archive numbers them.
    pub owner: (u64, u64),
    /// The mode with its set-user-ID, set-group-ID and sticky bits.
    pub mode: u32,
    /// Extended attributes: names and values.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
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
    each: impl FnMut(ArchiveEntry<'_>) -> Result<()>,
) -> Result<()> {
    read(archive, Origin::Sandbox, each)
}

/// Reads a layer of an image as [`read_archive`] does; a name that begins with `/` is meant from the
/// image's root.
///
/// # Errors
/// [`InvalidInput`](ErrorKind::InvalidInput) for a layer that is not sound; what `each` says.
pub fn read_layer(
    layer: impl Read,
    each: impl FnMut(ArchiveEntry<'_>) -> Result<()>,
) -> Result<()> {
    read(layer, Origin::Layer, each)
}

/// Origin of an archive.
#[derive(Clone, Copy)]
enum Origin {
    Sandbox,
    Layer,
}

impl Origin {
    fn unsound(self, why: &str) -> Error {
        let (kind, operation, what) = match self {
            Self::Sandbox => (
                ErrorKind::Other,
                Operation::ExportDir,
                "what the sandbox sent",
            ),
            Self::Layer => (
                ErrorKind::InvalidInput,
                Operation::Create,
                "a layer of the image",
            ),
        };
        Error::new(kind, operation).with_message(format!("{what} is not sound: {why}"))
    }

    fn garbled(self, error: io::Error) -> Error {
        // What the reader below says of a layer: a full budget, a broken compression.
        let why = match self {
            Self::Sandbox => "its archive can't be read".into(),
            Self::Layer => format!("its archive can't be read: {error}"),
        };
        self.unsound(&why).with_source(error)
    }

    fn plain(self, name: &[u8]) -> Option<Vec<u8>> {
        let rooted = matches!(self, Self::Layer);
        let from = name.iter().position(|b| *b != b'/').unwrap_or(name.len());
        plain(if rooted { name.get(from..)? } else { name })
    }
}

fn read(
    archive: impl Read,
    origin: Origin,
    mut each: impl FnMut(ArchiveEntry<'_>) -> Result<()>,
) -> Result<()> {
    let garbled = |error| origin.garbled(error);
    let unsound = |why| origin.unsound(why);
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
        if entry.path_bytes().len() > MAX_PATH {
            return Err(unsound("an entry has a path of more than 65,536 bytes"));
        }
        let Some(path) = origin.plain(&entry.path_bytes()) else {
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
            ArchiveKind::HardLink => origin
                .plain(&link)
                .ok_or_else(|| unsound("a hard link leads out"))?,
            _ => link,
        };
        let mode = entry.header().mode().unwrap_or(0o600) & 0o7777;
        let header = entry.header();
        let mut attributes = Attributes {
            mode: mode & 0o777,
            modified: modified(header),
        };
        let mut owner = (header.uid().unwrap_or(0), header.gid().unwrap_or(0));
        let mut xattrs = Vec::new();
        if let Some(extensions) = entry.pax_extensions().map_err(garbled)? {
            for extension in extensions {
                let extension = extension.map_err(garbled)?;
                let value = extension.value_bytes();
                let text = || std::str::from_utf8(value).unwrap_or_default();
                match extension.key_bytes() {
                    b"mtime" => attributes.modified = pax_time(text()).or(attributes.modified),
                    b"uid" => owner.0 = text().parse().unwrap_or(owner.0),
                    b"gid" => owner.1 = text().parse().unwrap_or(owner.1),
                    key => {
                        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                            xattrs.push((name.to_vec(), value.to_vec()));
                        }
                    }
                }
            }
        }
        each(ArchiveEntry {
            path,
            kind,
            attributes,
            owner,
            mode,
            xattrs,
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
/// directory, and for one that can't be a name.
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

/// A time of a PAX header: seconds with a fraction.
fn pax_time(text: &str) -> Option<SystemTime> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let nanoseconds: u32 = digits.parse().ok()?;
    match whole.starts_with('-') && nanoseconds > 0 {
        true => system_time(seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds),
        false => system_time(seconds, nanoseconds),
    }
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
