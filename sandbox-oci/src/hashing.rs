//! A reader and a writer that compute the digest of what passes through.

use std::io::{self, Read, Write};

use sha2::{Digest as _, Sha256};

use crate::digest::Digest;
use crate::fault::ImageFault;

/// Counts and hashes what is read through it, and ends with an error after too many bytes.
pub(crate) struct Hashing<R> {
    inner: R,
    hash: Sha256,
    count: u64,
    most: u64,
    what: &'static str,
}

impl<R: Read> Hashing<R> {
    pub(crate) fn new(inner: R, most: u64, what: &'static str) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            count: 0,
            most,
            what,
        }
    }

    /// Reads to the end; the digest and the number of bytes.
    pub(crate) fn finish(mut self) -> io::Result<(Digest, u64)> {
        io::copy(&mut self, &mut io::sink())?;
        Ok((Digest::from_hash(self.hash), self.count))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count += read as u64;
        if self.count > self.most {
            return Err(io::Error::other(ImageFault::Limit {
                what: self.what,
                limit: self.most,
            }));
        }
        self.hash.update(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}

/// Counts and hashes what is written through it.
#[derive(Debug)]
pub(crate) struct HashingWriter<W> {
    inner: W,
    hash: Sha256,
    count: u64,
}

impl<W: Write> HashingWriter<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            count: 0,
        }
    }

    pub(crate) fn finish(self) -> (W, Digest, u64) {
        (self.inner, Digest::from_hash(self.hash), self.count)
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.count += written as u64;
        self.hash.update(buffer.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
