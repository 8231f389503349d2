//! Admission of callers: one owner is let in.
//!
//! It must never compare a token in a time that tells how much of it was right, and never print
//! one.

use std::fmt;

use async_trait::async_trait;
use sandbox_core::Secret;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// Facts that a connection shows of the one who calls.
#[derive(Debug)]
#[non_exhaustive]
pub struct Caller {
    /// The token that came with the request.
    pub token: Option<Secret>,
    /// Whether the peer is a process of the server's own user: the kernel says so for Unix sockets.
    pub same_user: bool,
}

/// Decides whether a caller is the server's owner. Asked for every request, before its body is
/// read.
#[async_trait]
pub trait Access: fmt::Debug + Send + Sync + 'static {
    /// Whether the caller is the owner. What can't be decided is a no. Dropping the future must
    /// leave nothing behind.
    async fn admits(&self, caller: &Caller) -> bool;
}

/// Admits who has a token: the same bytes, compared in constant time by their digests.
///
/// ```
/// use sandbox_remote::TokenAccess;
/// let access = TokenAccess::new("0123456789abcdef0123456789abcdef")?;
/// assert_eq!(format!("{access:?}"), "TokenAccess");
/// assert!(TokenAccess::new("short").is_err());
/// # Ok::<(), sandbox_core::Error>(())
/// ```
pub struct TokenAccess([u8; 32]);

impl TokenAccess {
    /// The shortest token that is taken, in bytes.
    pub const MIN: usize = 16;

    /// Access for the holder of this token, which must be random.
    ///
    /// # Errors
    /// [`InvalidInput`](sandbox_core::ErrorKind::InvalidInput) for one that is shorter than
    /// [`MIN`](Self::MIN) or that a header can't carry.
    pub fn new(token: impl Into<Secret>) -> sandbox_core::Result<Self> {
        let token = token.into();
        let bytes = token.expose();
        let invalid = |why: &str, hint: &str| {
            let kind = sandbox_core::ErrorKind::InvalidInput;
            Err(
                sandbox_core::Error::new(kind, sandbox_core::Operation::Connect)
                    .with_message(why)
                    .with_hint(hint),
            )
        };
        if bytes.len() < Self::MIN {
            return invalid(
                "the server's token is too short",
                "make one with: head -c 32 /dev/urandom | base64",
            );
        }
        if !bytes.iter().all(|b| b.is_ascii_graphic()) {
            return invalid(
                "the server's token has bytes that a header can't carry",
                "use letters, digits and punctuation, and no space or line end",
            );
        }
        Ok(Self(Sha256::digest(bytes).into()))
    }

    /// Access for the holder of the token with this SHA-256 digest, as 64 hexadecimal digits: a
    /// server that is itself within reach of what it runs need not hold the token.
    ///
    /// The token must be random and at least [`MIN`](Self::MIN) bytes long, which its digest can't
    /// show.
    ///
    /// ```
    /// use sandbox_remote::TokenAccess;
    /// let digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    /// assert!(TokenAccess::digest(digest).is_ok());
    /// assert!(TokenAccess::digest("9f86").is_err());
    /// ```
    ///
    /// # Errors
    /// [`InvalidInput`](sandbox_core::ErrorKind::InvalidInput) for anything else.
    pub fn digest(digest: &str) -> sandbox_core::Result<Self> {
        let mut bytes = [0; 32];
        let is_hex = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        let pairs = digest.as_bytes().chunks_exact(2);
        for (byte, pair) in bytes.iter_mut().zip(pairs).filter(|_| is_hex) {
            let pair = std::str::from_utf8(pair).unwrap_or_default();
            *byte = u8::from_str_radix(pair, 16).unwrap_or_default();
        }
        match is_hex {
            true => Ok(Self(bytes)),
            false => {
                let kind = sandbox_core::ErrorKind::InvalidInput;
                let operation = sandbox_core::Operation::Connect;
                Err(sandbox_core::Error::new(kind, operation)
                    .with_message("the token's digest is not 64 hexadecimal digits")
                    .with_hint("make it with: printf %s TOKEN | sha256sum"))
            }
        }
    }
}

impl fmt::Debug for TokenAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenAccess")
    }
}

#[async_trait]
impl Access for TokenAccess {
    async fn admits(&self, caller: &Caller) -> bool {
        let given = caller.token.as_ref().map_or(&b""[..], Secret::expose);
        let given: [u8; 32] = Sha256::digest(given).into();
        given.ct_eq(&self.0).into()
    }
}

/// Admits processes of the server's own user and root, over a Unix socket, without a token. Over
/// TCP it admits none.
#[derive(Clone, Copy, Debug, Default)]
pub struct SameUser;

#[async_trait]
impl Access for SameUser {
    async fn admits(&self, caller: &Caller) -> bool {
        caller.same_user
    }
}
