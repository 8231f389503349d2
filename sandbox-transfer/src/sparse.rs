//! Copying content without filling holes.
//!
//! Invariant: no more is read or written than is allowed, whatever size a file claims or grows to.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};

/// Why a copy ended early.
#[derive(Debug)]
pub enum CopyError {
    /// The source said so.
    Read(io::Error),
    /// The destination said so.
    Write(io::Error),
    /// More than is allowed.
    TooLarge,
    /// The caller gave it up.
    Cancelled,
}

const CHUNK: usize = 128 << 10;

/// Below this size a file is read in one go, whether or not it has holes.
const SMALL: u64 = 64 << 10;

/// Of zeros, what is worth a hole: a block of the usual filesystems.
const BLOCK: usize = 4096;

/// Copies what `from` gives, at most `allowed` bytes, into an empty file; gives the number of
/// bytes. Whole blocks of zeros become holes.
///
/// # Errors
/// As [`CopyError`] says; what was written until then stays.
pub fn write(from: &mut dyn Read, to: &File, allowed: u64) -> std::result::Result<u64, CopyError> {
    write_by(from, to, allowed, &mut vec![0; CHUNK])
}

fn write_by(
    from: &mut dyn Read,
    mut to: &File,
    allowed: u64,
    buffer: &mut [u8],
) -> std::result::Result<u64, CopyError> {
    let mut total = 0_u64;
    let mut hole = 0_u64;
    loop {
        let filled = fill(from, buffer).map_err(CopyError::Read)?;
        total = total.saturating_add(filled as u64);
        if total > allowed {
            return Err(CopyError::TooLarge);
        }
        for block in buffer.get(..filled).unwrap_or_default().chunks(BLOCK) {
            if is_zero(block) {
                hole += BLOCK as u64;
                continue;
            }
            if hole > 0 {
                let step = i64::try_from(hole).unwrap_or(i64::MAX);
                to.seek(SeekFrom::Current(step)).map_err(CopyError::Write)?;
                hole = 0;
            }
            to.write_all(block).map_err(CopyError::Write)?;
        }
        if filled < buffer.len() {
            break;
        }
    }
    if hole > 0 {
        to.set_len(total).map_err(CopyError::Write)?;
    }
    Ok(total)
}

fn fill(from: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match from.read(rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Whether a whole block is zeros. One comparison of memory, so that it is fast in unoptimised
/// builds too.
fn is_zero(block: &[u8]) -> bool {
    block == [0; BLOCK]
}

/// Copies all of `from`, at most `allowed` bytes, into an empty file; gives the number of bytes,
/// with holes. Parts that the filesystem says are holes are not read, and are holes again.
/// `go_on` is asked between chunks.
///
/// # Errors
/// As [`CopyError`] says; what was written until then stays.
pub fn copy(
    from: &File,
    to: &File,
    allowed: u64,
    go_on: &mut dyn FnMut() -> bool,
) -> std::result::Result<u64, CopyError> {
    let size = from.metadata().map_err(CopyError::Read)?.len();
    if size > allowed {
        return Err(CopyError::TooLarge);
    }
    if size < SMALL {
        if !go_on() {
            return Err(CopyError::Cancelled);
        }
        // A byte more than there is shows the end at once.
        let mut buffer = vec![0; usize::try_from(size).unwrap_or(0) + 1];
        return write_by(&mut &*from, to, allowed, &mut buffer);
    }
    let mut at = 0;
    while let Some((start, end)) = next_data(from, at, size).map_err(CopyError::Read)? {
        seek(from, start).map_err(CopyError::Read)?;
        seek(to, start).map_err(CopyError::Write)?;
        at = copy_range(from, to, start, end, go_on)?;
        if at < end {
            // The file has shrunk.
            break;
        }
    }
    // Down to what there is, or up over a hole at the end.
    let now = from.metadata().map_err(CopyError::Read)?.len();
    let total = size.min(now.max(at));
    to.set_len(total).map_err(CopyError::Write)?;
    Ok(total)
}

/// Copies a range by the kernel where it can (which shares the blocks where the filesystem can);
/// gives where it came to.
fn copy_range(
    mut from: &File,
    mut to: &File,
    start: u64,
    end: u64,
    go_on: &mut dyn FnMut() -> bool,
) -> std::result::Result<u64, CopyError> {
    const STEP: u64 = 16 << 20;
    let mut at = start;
    #[cfg(target_os = "linux")]
    while at < end && end - start >= 256 << 10 {
        if !go_on() {
            return Err(CopyError::Cancelled);
        }
        let step = usize::try_from((end - at).min(STEP)).unwrap_or(CHUNK);
        match rustix::fs::copy_file_range(from, None, to, None, step) {
            Ok(0) => break,
            Ok(step) => at += step as u64,
            Err(rustix::io::Errno::INTR) => {}
            Err(error @ (rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT)) => {
                return Err(CopyError::Write(error.into()));
            }
            // Both files are where they were; reading and writing tells what is wrong, if
            // anything is.
            Err(_) => break,
        }
    }
    let mut buffer = vec![0; CHUNK.min(usize::try_from(end - at).unwrap_or(CHUNK))];
    while at < end {
        if !go_on() {
            return Err(CopyError::Cancelled);
        }
        let wanted = usize::try_from((end - at).min(STEP))
            .unwrap_or(CHUNK)
            .min(buffer.len());
        let part = buffer.get_mut(..wanted).unwrap_or_default();
        match from.read(part) {
            Ok(0) => break,
            Ok(read) => {
                to.write_all(part.get(..read).unwrap_or_default())
                    .map_err(CopyError::Write)?;
                at += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(CopyError::Read(error)),
        }
    }
    Ok(at)
}

fn seek(mut file: &File, to: u64) -> io::Result<u64> {
    file.seek(SeekFrom::Start(to))
}

/// The next part of a file from `at` on that is not a hole, at most to `size`.
#[cfg(any(target_os = "linux", target_vendor = "apple", target_os = "freebsd"))]
pub(crate) fn next_data(file: &File, at: u64, size: u64) -> io::Result<Option<(u64, u64)>> {
    use rustix::fs::SeekFrom as At;
    use rustix::io::Errno;
    if at >= size {
        return Ok(None);
    }
    let start = match rustix::fs::seek(file, At::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        // A filesystem that does not know of holes.
        Err(Errno::INVAL | Errno::NOTSUP | Errno::NOSYS) => return Ok(Some((at, size))),
        Err(error) => return Err(error.into()),
    };
    let end = match rustix::fs::seek(file, At::Hole(start)) {
        Ok(end) => end,
        Err(Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok((start < size).then(|| (start, end.min(size))))
}

/// The next part of a file from `at` on that is not a hole, at most to `size`: all of it, where
/// the platform does not tell.
#[cfg(not(any(target_os = "linux", target_vendor = "apple", target_os = "freebsd")))]
pub(crate) fn next_data(_: &File, at: u64, size: u64) -> io::Result<Option<(u64, u64)>> {
    Ok((at < size).then_some((at, size)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file.rewind().unwrap();
        file
    }

    fn read(mut file: &File) -> Vec<u8> {
        let mut content = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut content).unwrap();
        content
    }

    #[test]
    fn content_is_the_same_and_what_is_allowed_holds() {
        let mut mixed = vec![7; 5000];
        mixed.resize(300_000, 0);
        mixed.extend_from_slice(b"end");
        for content in [&b""[..], b"0123456789", &[0; 4096], &[0; 9000], &mixed] {
            let size = content.len() as u64;
            for allowed in [size, u64::MAX] {
                let (one, other) = (made(b""), made(b""));
                assert_eq!(write(&mut &*content, &one, allowed).unwrap(), size);
                assert_eq!(
                    copy(&made(content), &other, allowed, &mut || true).unwrap(),
                    size
                );
                assert!(read(&one) == content && read(&other) == content);
            }
            if let Some(less) = size.checked_sub(1) {
                let to = made(b"");
                let done = write(&mut &*content, &to, less);
                assert!(matches!(done, Err(CopyError::TooLarge)));
                let done = copy(&made(content), &to, less, &mut || true);
                assert!(matches!(done, Err(CopyError::TooLarge)));
            }
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn holes_stay_holes() {
        use std::os::unix::fs::MetadataExt as _;
        let from = made(b"");
        from.set_len(200 << 30).unwrap();
        seek(&from, 100 << 30).unwrap();
        (&from).write_all(b"in the middle").unwrap();
        let to = made(b"");
        let copied = copy(&from, &to, u64::MAX, &mut || true).unwrap();
        assert_eq!(copied, 200 << 30);
        assert_eq!(to.metadata().unwrap().len(), 200 << 30);
        assert!(
            to.metadata().unwrap().blocks() < 100,
            "the holes were filled"
        );
        let mut found = [0; 13];
        seek(&to, 100 << 30).unwrap();
        (&to).read_exact(&mut found).unwrap();
        assert_eq!(&found, b"in the middle");
        let to = made(b"");
        let zeros = write(&mut io::repeat(0).take(64 << 20), &to, u64::MAX).unwrap();
        assert_eq!(zeros, 64 << 20);
        assert!(to.metadata().unwrap().blocks() < 100, "zeros were written");
    }
}
