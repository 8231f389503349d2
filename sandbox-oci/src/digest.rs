//! Digests of content.
//!
//! Invariant: only SHA-256 is accepted, written as 64 lower-case hexadecimal digits, so that a
//! digest is always a safe name of a file.

use std::fmt;
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

    pub(crate) fn from_hash(hash: Sha256) -> Self {
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
