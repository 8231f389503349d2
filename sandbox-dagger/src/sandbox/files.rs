//! Reads the answers of the file scripts.
//!
//! Invariant: entries are described by the guest's kernel, not guessed from names.

use sandbox_core::{
    DirEntry, Error, ErrorKind, FileKind, GuestPath, Metadata, Mode, Operation, Result,
};

use crate::guest::frame::{Broken, Frame};

/// Opens the answer of a file script; what it refuses is an error about `path`.
pub(crate) fn open<'a>(
    answer: &'a str,
    nonce: &str,
    operation: Operation,
    path: &GuestPath,
) -> Result<Frame<'a>> {
    let opened = (|| {
        let mut frame = Frame::parse(answer, nonce)?;
        let first = frame.line()?;
        match first.strip_prefix("no ") {
            None => Ok(Ok(frame)),
            Some(why) => {
                let named = frame.bytes()?;
                let named = if named.is_empty() {
                    path.clone()
                } else {
                    GuestPath::new(named)
                };
                Ok(Err(refusal(why, operation).with_path(named)))
            }
        }
    })();
    opened.unwrap_or_else(|problem| Err(broken(problem, operation)))
}

/// The error for an answer that can't be read.
pub(crate) fn broken(Broken(why): Broken, operation: Operation) -> Error {
    Error::new(ErrorKind::Other, operation)
        .with_message(why)
        .with_hint("does the image have a POSIX shell with find, stat and base64?")
}

fn refusal(why: &str, operation: Operation) -> Error {
    let (kind, message) = match why {
        "not-found" => (ErrorKind::NotFound, "no such file or directory"),
        "not-a-directory" => (ErrorKind::NotADirectory, "not a directory"),
        "loop" => (ErrorKind::InvalidInput, "links lead in a circle"),
        "is-a-directory" => (ErrorKind::IsADirectory, "a directory"),
        "not-a-regular-file" => (ErrorKind::NotARegularFile, "not a regular file"),
        "not-empty" => (ErrorKind::DirectoryNotEmpty, "the directory is not empty"),
        "exists" => (ErrorKind::AlreadyExists, "already exists"),
        "denied" => (ErrorKind::PermissionDenied, "permission denied"),
        "read-only" => (ErrorKind::ReadOnly, "the file system is read-only"),
        "storage-full" => (ErrorKind::StorageFull, "no space left"),
        "busy" => (ErrorKind::Busy, "in use"),
        "limit" => (ErrorKind::LimitExceeded, "larger than the limit"),
        "into-itself" => (
            ErrorKind::InvalidInput,
            "a directory can't be moved into itself",
        ),
        "name-too-long" => (ErrorKind::InvalidInput, "the name is too long"),
        "no-holes" => (
            ErrorKind::Unsupported,
            "the image's tar can't read the archive of a file with large holes",
        ),
        "archiver" => (ErrorKind::Other, "the image's tar failed"),
        "nowhere" => (
            ErrorKind::PermissionDenied,
            "the sandbox's user can write neither /, /tmp, /var/tmp nor its home for the archive",
        ),
        _ => (ErrorKind::Other, "the guest refused without a reason"),
    };
    Error::new(kind, operation).with_message(message)
}

/// The entries of a description: paths, then what they are, then where links lead.
pub(crate) fn entries(frame: &mut Frame<'_>) -> std::result::Result<Vec<DirEntry>, Broken> {
    let paths = frame.bytes()?;
    let described = frame.lines()?;
    let targets = frame.bytes()?;
    let mut targets = targets.split(|byte| *byte == 0);
    let paths = paths
        .split(|byte| *byte == 0)
        .filter(|path| !path.is_empty());
    let mut entries = Vec::with_capacity(described.len());
    let mut lines = described.iter();
    for path in paths {
        let line = lines.next().ok_or(Broken("an entry is not described"))?;
        let mut numbers = line.split(' ');
        let mut next = || numbers.next().ok_or(Broken("an entry is half described"));
        let bits = u32::from_str_radix(next()?, 16).map_err(|_| Broken("no mode"))?;
        let size = next()?.parse().map_err(|_| Broken("no size"))?;
        let seconds: i64 = next()?.parse().map_err(|_| Broken("no time"))?;
        let mut id = || next().and_then(|id| id.parse().map_err(|_| Broken("no owner")));
        let (uid, gid) = (id()?, id()?);
        let kind = kind(bits);
        let mut metadata = Metadata::new(kind, size, Mode::new(bits)).owner(uid, gid);
        if let Some(time) = sandbox_transfer::from_epoch(seconds, 0) {
            metadata = metadata.modified(time);
        }
        if kind == FileKind::Symlink {
            let target = targets.next().ok_or(Broken("a link leads nowhere"))?;
            metadata = metadata.link_target(target);
        }
        let path = path.strip_prefix(b"./").unwrap_or(path);
        entries.push(DirEntry::new(path, metadata));
    }
    Ok(entries)
}

fn kind(bits: u32) -> FileKind {
    match bits & 0o170_000 {
        0o040_000 => FileKind::Directory,
        0o120_000 => FileKind::Symlink,
        0o010_000 => FileKind::Fifo,
        0o140_000 => FileKind::Socket,
        0o020_000 | 0o060_000 => FileKind::Device,
        _ => FileKind::File,
    }
}
