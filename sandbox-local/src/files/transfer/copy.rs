//! Copying a file's content between two descriptors.
//!
//! Invariant: no more is read than is allowed, whatever size the file claims or grows to.

use std::os::fd::AsFd;

use rustix::fs::copy_file_range;
use rustix::io::Errno;

use super::CancelFlag;

/// From which size on the kernel is asked to copy by itself (which shares the blocks where the
/// filesystem can).
const LARGE: u64 = 256 << 10;

const CHUNK: usize = 256 << 10;

/// Why a copy ended early.
pub(super) enum CopyError {
    Read(Errno),
    Write(Errno),
    /// More than is allowed.
    TooLarge,
    Cancelled,
}

/// Copies files one after another.
#[derive(Debug, Default)]
pub(super) struct Copier {
    buffer: Vec<u8>,
    /// Whether the kernel has said that it can't copy between these two filesystems.
    by_hand: bool,
}

impl Copier {
    /// Copies all of `from`, which is thought to have `size` bytes and may have `allowed`; gives
    /// the number of bytes.
    pub(super) fn copy(
        &mut self,
        from: impl AsFd,
        to: impl AsFd,
        size: u64,
        allowed: u64,
        cancel: &CancelFlag,
    ) -> Result<u64, CopyError> {
        let mut copied = 0;
        if size >= LARGE && !self.by_hand {
            copied = self.by_kernel(&from, &to, size.min(allowed), cancel)?;
        }
        if self.buffer.is_empty() {
            self.buffer.resize(CHUNK, 0);
        }
        loop {
            if cancel.is_cancelled() {
                return Err(CopyError::Cancelled);
            }
            // A byte more than is allowed, to see that there is one.
            let left = allowed.saturating_sub(copied).saturating_add(1);
            let wanted = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let buffer = self.buffer.get_mut(..wanted).unwrap_or_default();
            let read = match rustix::io::read(&from, &mut *buffer) {
                Ok(0) => return Ok(copied),
                Ok(read) => read,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(CopyError::Read(errno)),
            };
            copied += read as u64;
            if copied > allowed {
                return Err(CopyError::TooLarge);
            }
            write_all(&to, buffer.get(..read).unwrap_or_default())?;
            // A short read of a small file that has its size is its end.
            if copied >= size && read < wanted {
                return Ok(copied);
            }
        }
    }

    /// Copies as far as the kernel does it; the rest is for the caller.
    fn by_kernel(
        &mut self,
        from: &impl AsFd,
        to: &impl AsFd,
        size: u64,
        cancel: &CancelFlag,
    ) -> Result<u64, CopyError> {
        const STEP: u64 = 16 << 20;
        let mut copied = 0;
        while copied < size {
            if cancel.is_cancelled() {
                return Err(CopyError::Cancelled);
            }
            let step = usize::try_from((size - copied).min(STEP)).unwrap_or(CHUNK);
            match copy_file_range(from, None, to, None, step) {
                Ok(0) => break,
                Ok(step) => copied += step as u64,
                Err(Errno::INTR) => {}
                Err(errno @ (Errno::NOSPC | Errno::DQUOT)) => return Err(CopyError::Write(errno)),
                // Both files are where they were; reading and writing tells what is wrong, if
                // anything is.
                Err(_) => {
                    self.by_hand = true;
                    break;
                }
            }
        }
        Ok(copied)
    }
}

fn write_all(to: &impl AsFd, mut content: &[u8]) -> Result<(), CopyError> {
    while !content.is_empty() {
        match rustix::io::write(to, content) {
            Ok(0) => return Err(CopyError::Write(Errno::IO)),
            Ok(written) => content = content.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(CopyError::Write(errno)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, Write as _};

    use super::*;

    fn copy(content: &[u8], size: u64, allowed: u64) -> Result<u64, CopyError> {
        let mut from = tempfile::tempfile().unwrap();
        from.write_all(content).unwrap();
        from.rewind().unwrap();
        let to = tempfile::tempfile().unwrap();
        let copied = Copier::default().copy(&from, &to, size, allowed, &CancelFlag::new());
        if let Ok(copied) = copied {
            assert_eq!(to.metadata().unwrap().len(), copied);
        }
        copied
    }

    #[test]
    fn what_is_allowed_holds_whatever_size_is_claimed() {
        let large = vec![1; 600 << 10];
        for claimed in [0, 10, 600 << 10, 1 << 40] {
            assert!(matches!(copy(b"0123456789", claimed, 10), Ok(10)));
            assert!(matches!(
                copy(b"0123456789", claimed, 9),
                Err(CopyError::TooLarge)
            ));
            assert!(matches!(copy(&large, claimed, u64::MAX), Ok(614_400)));
            assert!(matches!(copy(&large, claimed, 614_400), Ok(614_400)));
            assert!(matches!(
                copy(&large, claimed, 614_399),
                Err(CopyError::TooLarge)
            ));
        }
        assert!(matches!(copy(b"", 0, 0), Ok(0)));
    }
}
