//! Source of a client's token.
//!
//! It must never print one.

use std::fmt;
use std::path::PathBuf;

use async_trait::async_trait;
use sandbox_core::{Error, ErrorKind, Operation, Result, Secret};

/// Gives the token of a request. Asked for every request: a source that has to fetch one keeps it
/// as long as it is good.
#[async_trait]
pub trait TokenSource: fmt::Debug + Send + Sync + 'static {
    /// The token. Dropping the future must leave nothing behind.
    ///
    /// # Errors
    /// Why there is none; the request is not sent then.
    async fn token(&self) -> Result<Secret>;
}

/// Gives the same token for every request.
#[async_trait]
impl TokenSource for Secret {
    async fn token(&self) -> Result<Secret> {
        Ok(self.clone())
    }
}

/// A file that holds the token, read for each request: one that is renewed there is used at once.
///
/// ```no_run
/// use sandbox_remote::TokenFile;
/// let source = TokenFile::new("/run/secrets/sandbox-token");
/// ```
#[derive(Clone, Debug)]
pub struct TokenFile(PathBuf);

impl TokenFile {
    /// A source that reads this file. White space around the token does not count.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }
}

#[async_trait]
impl TokenSource for TokenFile {
    async fn token(&self) -> Result<Secret> {
        let read = tokio::fs::read(&self.0).await;
        let read = read.map_err(|error| {
            Error::from_io(error, Operation::Connect)
                .with_message("the token's file can't be read")
                .with_host_path(&self.0)
        })?;
        let token = read.trim_ascii();
        if token.is_empty() {
            return Err(Error::new(ErrorKind::Unauthenticated, Operation::Connect)
                .with_message("the token's file is empty")
                .with_host_path(&self.0));
        }
        Ok(Secret::new(token))
    }
}
