//! Archives for a sandbox, packed from a directory of the host.
//!
//! Invariant: memory does not grow with the directory's bytes; a file that changes while it is
//! read does not break the archive; holes are not written out.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::SystemTime;

use sandbox_core::{Error, ImportOptions, Operation, Result};

use crate::scan::{Scan, ScanEntry, ScanKind, scan};
use crate::since_epoch;
use crate::sparse::next_data;

const OP: Operation = Operation::ImportDir;

/// Packs what the options let through of a directory into a tar archive, with names relative to
/// the directory, GNU extensions where names are long, and no owner.
///
/// A file whose holes have `holes_from` bytes or more is written as a GNU sparse entry, which not
/// every archiver can read; smaller holes are zeros.
///
/// The second value says whether there is such an entry.
///
/// # Errors
/// Those of [`scan`], and what the archive's filesystem says.
pub fn pack(
    from: &Path,
    options: &ImportOptions,
    archive: &File,
    holes_from: u64,
) -> Result<(Scan, bool)> {
    let broken = |error| {
        Error::from_io(error, OP).with_message("the archive for the sandbox can't be written")
    };
    let mut packer = Packer::new(BufWriter::new(archive), holes_from);
    let mut sparse = false;
    let scan = scan(from, options, OP, |entry| {
        let ScanEntry {
            path,
            attributes,
            kind,
        } = entry;
        let kind = match &kind {
            ScanKind::Directory => PackKind::Directory,
            ScanKind::Symlink(target) => PackKind::Symlink(target),
            ScanKind::File(content, size) => PackKind::File(content, *size),
        };
        let entry = PackEntry {
            path: &path,
            mode: attributes.mode,
            modified: attributes.modified,
            xattrs: &[],
            kind,
        };
        sparse |= packer.add(entry).map_err(broken)?;
        Ok(())
    })?;
    let finish = || packer.finish()?.flush();
    finish().map_err(broken)?;
    Ok((scan, sparse))
}

/// Entry of an archive that is written.
pub struct PackEntry<'a> {
    /// Names with `/` between them, relative to the archive's top.
    pub path: &'a [u8],
    /// Permission bits, with the set-user-ID, set-group-ID and sticky bits.
    pub mode: u32,
    /// The modification time, in whole seconds.
    pub modified: Option<SystemTime>,
    /// Extended attributes: names and values.
    pub xattrs: &'a [(Vec<u8>, Vec<u8>)],
    /// Kind of the entry, with its content.
    pub kind: PackKind<'a>,
}

/// Kind of an entry of an archive that is written.
#[non_exhaustive]
pub enum PackKind<'a> {
    /// A directory.
    Directory,
    /// A regular file of this size, read from its start.
    File(&'a File, u64),
    /// A regular file without content.
    Empty,
    /// A symbolic link, with its target.
    Symlink(&'a [u8]),
    /// Another name of an entry before, by its path.
    HardLink(&'a [u8]),
    /// A FIFO.
    Fifo,
}

/// An archive that is written entry by entry, without owners.
pub struct Packer<W: io::Write> {
    tar: tar::Builder<W>,
    holes_from: u64,
}

impl<W: io::Write> Packer<W> {
    /// An empty archive; see [`pack`] for `holes_from`.
    pub fn new(out: W, holes_from: u64) -> Self {
        Self {
            tar: tar::Builder::new(out),
            holes_from,
        }
    }

    /// Adds an entry; says whether as a sparse one.
    ///
    /// # Errors
    /// The file can't be read, or the archive not be written.
    pub fn add(&mut self, entry: PackEntry<'_>) -> io::Result<bool> {
        let tar = &mut self.tar;
        let mut header = tar::Header::new_gnu();
        header.set_mode(entry.mode);
        header.set_uid(0);
        header.set_gid(0);
        set_time(&mut header, entry.modified);
        header.set_size(0);
        if !entry.xattrs.is_empty() {
            let named = entry.xattrs.iter().filter_map(|(name, value)| {
                let name = std::str::from_utf8(name).ok()?;
                Some((format!("SCHILY.xattr.{name}"), &value[..]))
            });
            let named: Vec<_> = named.collect();
            tar.append_pax_extensions(named.iter().map(|(name, value)| (&name[..], *value)))?;
        }
        let path = host_path(entry.path);
        match entry.kind {
            PackKind::Directory => {
                header.set_entry_type(tar::EntryType::Directory);
                tar.append_data(&mut header, path, io::empty())?;
            }
            PackKind::Empty => tar.append_data(&mut header, path, io::empty())?,
            PackKind::Fifo => {
                header.set_entry_type(tar::EntryType::Fifo);
                tar.append_data(&mut header, path, io::empty())?;
            }
            PackKind::Symlink(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                tar.append_link(&mut header, path, host_path(target))?;
            }
            PackKind::HardLink(first) => {
                header.set_entry_type(tar::EntryType::Link);
                tar.append_link(&mut header, path, host_path(first))?;
            }
            PackKind::File(mut content, size) => {
                let data = extents(content, size)?;
                let kept: u64 = data.iter().map(|(start, end)| end - start).sum();
                if size - kept >= self.holes_from {
                    append_sparse(tar, header, &path, content, size, &data)?;
                    return Ok(true);
                }
                header.set_size(size);
                content.seek(SeekFrom::Start(0))?;
                // What a file grows by meanwhile is left out; one that shrinks is padded.
                let content = content.chain(io::repeat(0)).take(size);
                tar.append_data(&mut header, path, content)?;
            }
        }
        Ok(false)
    }

    /// Ends the archive, and gives back what it was written to.
    ///
    /// # Errors
    /// Its end can't be written.
    pub fn finish(self) -> io::Result<W> {
        self.tar.into_inner()
    }
}

/// The parts of a file that are not holes, from multiples of a block of the archive on.
fn extents(file: &File, size: u64) -> io::Result<Vec<(u64, u64)>> {
    const BLOCK: u64 = 512;
    /// More parts than this are not worth a map of them.
    const MANY: usize = 100_000;
    let mut found: Vec<(u64, u64)> = Vec::new();
    let mut at = 0;
    while let Some((start, end)) = next_data(file, at, size)? {
        let start = start / BLOCK * BLOCK;
        let end = end.next_multiple_of(BLOCK).min(size);
        let many = found.len() >= MANY;
        match found.last_mut() {
            Some(last) if last.1 >= start => last.1 = end,
            _ if many => return Ok(vec![(0, size)]),
            _ => found.push((start, end)),
        }
        at = end;
    }
    Ok(found)
}

/// Writes a GNU sparse entry: a map of the parts with content, then these.
fn append_sparse(
    tar: &mut tar::Builder<impl io::Write>,
    mut header: tar::Header,
    path: &Path,
    content: &File,
    size: u64,
    data: &[(u64, u64)],
) -> io::Result<()> {
    let mut map: Vec<(u64, u64)> = data
        .iter()
        .map(|(start, end)| (*start, end - start))
        .collect();
    // The map ends where the file does.
    if data.last().is_none_or(|(_, end)| *end < size) {
        map.push((size, 0));
    }
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.set_size(data.iter().map(|(start, end)| end - start).sum());
    let gnu = header
        .as_gnu_mut()
        .ok_or_else(|| io::Error::other("not a GNU header"))?;
    gnu.set_real_size(size);
    let own = gnu.sparse.len();
    for (field, (offset, length)) in gnu.sparse.iter_mut().zip(&map) {
        field.set_offset(*offset);
        field.set_length(*length);
    }
    let more = map.get(own..).unwrap_or_default();
    gnu.set_is_extended(!more.is_empty());
    let mut blocks = Vec::new();
    let fields = tar::GnuExtSparseHeader::new().sparse.len();
    let mut parts = more.chunks(fields).peekable();
    while let Some(part) = parts.next() {
        let mut block = tar::GnuExtSparseHeader::new();
        for (field, (offset, length)) in block.sparse.iter_mut().zip(part) {
            field.set_offset(*offset);
            field.set_length(*length);
        }
        block.set_is_extended(parts.peek().is_some());
        blocks.extend_from_slice(block.as_bytes());
    }
    let parts = Parts {
        file: content,
        left: data.iter().rev().copied().collect(),
    };
    tar.append_data(&mut header, path, blocks.as_slice().chain(parts))
}

/// The content of parts of a file, one after another, each of its whole length.
struct Parts<'a> {
    file: &'a File,
    /// The first last.
    left: Vec<(u64, u64)>,
}

impl Read for Parts<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some((start, end)) = self.left.last_mut() else {
            return Ok(0);
        };
        let most = usize::try_from(*end - *start)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let part = buffer.get_mut(..most).unwrap_or_default();
        self.file.seek(SeekFrom::Start(*start))?;
        let mut read = self.file.read(part)?;
        if read == 0 {
            // Shrunk meanwhile.
            part.fill(0);
            read = most;
        }
        *start += read as u64;
        if start == end {
            self.left.pop();
        }
        Ok(read)
    }
}

/// Writes a modification time: beyond what octal digits can say, as GNU tar does.
fn set_time(header: &mut tar::Header, modified: Option<SystemTime>) {
    let Some(modified) = modified else {
        return header.set_mtime(0);
    };
    let (seconds, _) = since_epoch(modified);
    match u64::try_from(seconds) {
        Ok(seconds) => header.set_mtime(seconds),
        Err(_) => {
            let mut field = [0xff; 12];
            if let Some(low) = field.last_chunk_mut() {
                *low = seconds.to_be_bytes();
            }
            header.as_old_mut().mtime = field;
        }
    }
}

#[cfg(unix)]
fn host_path(bytes: &[u8]) -> std::path::PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    std::ffi::OsStr::from_bytes(bytes).into()
}

#[cfg(not(unix))]
fn host_path(bytes: &[u8]) -> std::path::PathBuf {
    String::from_utf8_lossy(bytes).into_owned().into()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;
    use std::process::Command;
    use std::time::{Duration, UNIX_EPOCH};

    use sandbox_core::ExportOptions;

    use super::*;
    use crate::export::{Attributes, Export};

    /// Packs a tree with holes, long names and odd times, for the host's own tar and for this
    /// crate to unpack.
    #[test]
    fn the_hosts_tar_and_this_crate_read_what_is_packed() {
        let from = tempfile::tempdir().unwrap();
        let at = |name: &str| from.path().join(name);
        let long = "n".repeat(200);
        fs::create_dir_all(at("d").join(&long)).unwrap();
        fs::write(at("d").join(&long).join("f"), "deep").unwrap();
        std::os::unix::fs::symlink("t".repeat(150), at("link")).unwrap();
        let sparse = File::create_new(at("sparse")).unwrap();
        for part in 0..30 {
            (&sparse).seek(SeekFrom::Start(part << 23)).unwrap();
            (&sparse).write_all(b"some").unwrap();
        }
        sparse.set_len(2 << 30).unwrap();
        let old = UNIX_EPOCH - Duration::from_secs(1_000_000_000);
        let late = UNIX_EPOCH + Duration::from_secs(10_000_000_000);
        fs::write(at("old"), "x").unwrap();
        File::open(at("old")).unwrap().set_modified(old).unwrap();
        fs::write(at("late"), "x").unwrap();
        File::open(at("late")).unwrap().set_modified(late).unwrap();
        let mut archive = tempfile::NamedTempFile::new().unwrap();
        let (scan, sparse_entry) =
            pack(from.path(), &ImportOptions::new(), archive.as_file(), 1).unwrap();
        assert!(sparse_entry);
        assert_eq!((scan.report.files, scan.report.symlinks), (4, 1));
        assert!(
            archive.as_file().metadata().unwrap().len() < 2 << 20,
            "holes were written"
        );
        let by_tar = tempfile::tempdir().unwrap();
        let mut tar = Command::new("tar");
        tar.arg("-xpf")
            .arg(archive.path())
            .arg("-C")
            .arg(by_tar.path());
        let tar = tar.status().unwrap();
        assert!(tar.success());
        archive.rewind().unwrap();
        let host = tempfile::tempdir().unwrap();
        let to = host.path().join("out");
        let options = ExportOptions::new().max_bytes(u64::MAX);
        let mut export = Export::new(&to, &options).unwrap();
        export
            .unpack(io::BufReader::new(&archive), |_| true)
            .unwrap();
        export
            .finish(Attributes {
                mode: 0o755,
                modified: None,
            })
            .unwrap();
        for top in [by_tar.path(), &to] {
            let found = fs::metadata(top.join("sparse")).unwrap();
            assert_eq!(found.len(), 2 << 30);
            assert!(found.blocks() < 4000, "{top:?}: {} blocks", found.blocks());
            let mut part = [0; 8];
            let file = File::open(top.join("sparse")).unwrap();
            (&file).seek(SeekFrom::Start(29 << 23)).unwrap();
            (&file).read_exact(&mut part).unwrap();
            assert_eq!(&part, b"some\0\0\0\0");
            let deep = fs::read_to_string(top.join("d").join(&long).join("f"));
            assert_eq!(deep.unwrap(), "deep");
            assert_eq!(
                fs::metadata(top.join("old")).unwrap().modified().unwrap(),
                old
            );
            assert_eq!(
                fs::metadata(top.join("late")).unwrap().modified().unwrap(),
                late
            );
            assert_eq!(
                fs::read_link(top.join("link")).unwrap().as_os_str().len(),
                150
            );
        }
    }
}
