//! Address of a server, and how long it is waited for.
//!
//! It must never send a token in the clear to another machine.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use sandbox_core::{Error, ErrorKind, Operation, Result, Secret};

use super::token::TokenSource;

/// Address of a server and the way it is called: the argument of
/// [`RemoteProvider::connect`](super::RemoteProvider::connect).
///
/// ```
/// use sandbox_remote::{RemoteConfig, TokenFile};
/// let config = RemoteConfig::new("https://agent.example.com")?
///     .token(TokenFile::new("/run/secrets/sandbox-token"));
/// assert!(RemoteConfig::new("http://agent.example.com").is_err()); // the token would be seen
/// # Ok::<(), sandbox_core::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RemoteConfig {
    pub(super) base: Url,
    pub(super) socket: Option<PathBuf>,
    pub(super) dial: Option<SocketAddr>,
    pub(super) token: Option<Arc<dyn TokenSource>>,
    pub(super) front_token: Option<Arc<dyn TokenSource>>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) horizon: Duration,
    pub(super) keep: bool,
}

impl RemoteConfig {
    /// A server at this address: `https://HOST[:PORT][/PATH][?QUERY]`, `http://` for loopback only,
    /// or `unix:/PATH`. Path and query are kept and stand in every request: a pool of custom
    /// containers needs its `?identifier=`.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for anything else.
    pub fn new(address: &str) -> Result<Self> {
        let invalid = |why: &str| {
            Error::new(ErrorKind::InvalidInput, Operation::Connect)
                .with_message(format!("{why}: {address:?}"))
                .with_hint("write https://HOST:PORT, http://127.0.0.1:PORT or unix:/PATH")
        };
        let (base, socket) = match address.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => ("http://localhost/", Some(PathBuf::from(path))),
            Some(_) => return Err(invalid("the socket's path must be absolute")),
            None => (address, None),
        };
        let base = Url::parse(base).map_err(|_| invalid("the address can't be read"))?;
        if !base.username().is_empty() || base.password().is_some() {
            let why = "an address must not hold a name or password";
            return Err(Error::new(ErrorKind::InvalidInput, Operation::Connect).with_message(why));
        }
        let is_loopback = match base.host_str() {
            Some("localhost") => true,
            Some(host) => {
                let host = host.trim_start_matches('[').trim_end_matches(']');
                host.parse::<std::net::IpAddr>()
                    .is_ok_and(|address| address.is_loopback())
            }
            None => return Err(invalid("the address has no host")),
        };
        match base.scheme() {
            "https" => {}
            "http" if is_loopback => {}
            "http" => {
                return Err(invalid("http would show the token to the network"));
            }
            _ => return Err(invalid("the scheme is not known")),
        }
        Ok(Self {
            base,
            socket,
            dial: None,
            token: None,
            front_token: None,
            ca_file: None,
            horizon: Duration::from_secs(10),
            keep: false,
        })
    }

    /// Sets where the token comes from. Without one only a Unix socket is of use.
    #[must_use]
    pub fn token(mut self, source: impl TokenSource) -> Self {
        self.token = Some(Arc::new(source));
        self
    }

    /// Sets the token as it is.
    #[must_use]
    pub fn secret(self, token: impl Into<Secret>) -> Self {
        self.token(token.into())
    }

    /// Sets the token of what stands before the server and takes the header `authorization` for
    /// itself: a session pool, an authenticating proxy. The server's own then goes in
    /// `sandbox-authorization`.
    #[must_use]
    pub fn front_token(mut self, source: impl TokenSource) -> Self {
        self.front_token = Some(Arc::new(source));
        self
    }

    sandbox_core::setters! {
        /// Connects to this address in place of those that the host's name has: for a name that
        /// only a private network's resolver knows. Name and certificate stay the host's.
        dial: Some(SocketAddr),

        /// Trusts the certificates of this file (PEM) besides the system's.
        ca_file: Some(into PathBuf),

        /// Sets for how long an answer that was lost is asked for again. Less than the server's grace,
        /// or what it finds may have ended. Default: 10 s.
        horizon: Duration,

        /// Lets sandboxes live on when their last handle is dropped, to be attached to later: the
        /// server closes those that nothing uses. By default a sandbox that this provider created is
        /// closed with its last handle.
        keep: bool,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_sent_in_the_clear() {
        for address in [
            "https://a.example",
            "https://a.example/p/?identifier=x",
            "http://127.0.0.1:80",
            "http://[::1]:80",
            "http://localhost:1",
            "unix:/run/s",
        ] {
            RemoteConfig::new(address).unwrap();
        }
        for address in [
            "http://a.example",
            "http://127.0.0.1.a.example",
            "http://localhost.a.example",
            "http://10.0.0.1",
            "ftp://127.0.0.1",
            "unix:s",
            "127.0.0.1:80",
            "",
        ] {
            let error = RemoteConfig::new(address).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{address}");
        }
        let error = RemoteConfig::new("https://me:s3cret@a.example").unwrap_err();
        assert!(!format!("{error:?}").contains("s3cret"));
        let config = RemoteConfig::new("unix:/s").unwrap().secret("s3cret");
        assert!(!format!("{config:?}").contains("s3cret"));
    }
}
