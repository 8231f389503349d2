//! Digests, and readers that compute one of what passes through.
//!
//! Invariant: only SHA-256 is accepted, written as 64 lower-case hexadecimal digits, so that a
//! digest is always a safe name of a file.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use sandbox_core::{Error, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::fault::ImageFault;

/// A SHA-256 digest of content.
///
/// ```
/// use sandbox_oci::Digest;
/// let digest = Digest::of(b"");
/// assert!(digest.to_string().starts_with("sha256:e3b0c442"));
/// assert_eq!(digest.to_string().parse::<Digest>()?, digest);
/// assert!("sha512:00".parse::<Digest>().is_err());
/// # Ok::<(), sandbox_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// Computes the digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_hash(Sha256::new_with_prefix(bytes))
    }

    fn from_hash(hash: Sha256) -> Self {
        let bytes = hash.finalize();
        Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The digits, without the name of the algorithm.
    pub fn hex(&self) -> &str {
        &self.0
    }

    /// Identifier of a layer on top of others: of what is below, and the layer's own digest.
    pub(crate) fn chain(below: Option<&Self>, diff: &Self) -> Self {
        match below {
            None => diff.clone(),
            Some(below) => Self::of(format!("{below} {diff}").as_bytes()),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        match text.strip_prefix("sha256:") {
            Some(hex) if hex.len() == 64 && hex.bytes().all(is_hex) => Ok(Self(hex.into())),
            _ => {
                let said: String = text.chars().take(80).collect();
                let why = format!("{said:?} is not a SHA-256 digest (sha256: and 64 digits)");
                Err(ImageFault::Malformed { why }.into_error())
            }
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

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
