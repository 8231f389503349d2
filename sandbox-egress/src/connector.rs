//! Resolving of names and dialling by the host: what an embedder may replace.
//!
//! What comes from here is checked before it is used; it must never be asked for what a rule does
//! not allow.

use std::fmt::Debug;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};

use sandbox_core::async_trait;

/// Resolves names and dials addresses for sandboxes: by the host's resolver and network unless an
/// embedder has another way out, such as a proxy of its own.
///
/// For each connection a name is resolved once, the addresses are checked, and one that passed is
/// dialled.
#[async_trait]
pub trait Connector: Debug + Send + Sync + 'static {
    /// The addresses of a name, in the order in which they are tried. The name is in lower case,
    /// without a dot at its end, and allowed by a rule.
    ///
    /// # Errors
    /// If it can't be resolved; the connection then fails.
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>>;

    /// A connection to an address that was checked. Dropping the future must end the attempt.
    ///
    /// # Errors
    /// If it can't be reached; the next address is tried then.
    async fn dial(&self, to: SocketAddr) -> io::Result<TcpStream>;

    /// Certificates (DER) of authorities that upstreams may have besides those that the host
    /// trusts, where the host itself speaks TLS. Default: none.
    fn authorities(&self) -> Vec<Vec<u8>> {
        Vec::new()
    }
}

/// The host's own resolver and network.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostConnector(());

impl HostConnector {
    /// The host's own.
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl Connector for HostConnector {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        // With a dot at its end no search domain of the host's is tried.
        let found = tokio::net::lookup_host((format!("{name}."), 0)).await?;
        Ok(found.map(|address| address.ip()).collect())
    }

    async fn dial(&self, to: SocketAddr) -> io::Result<TcpStream> {
        tokio::net::TcpStream::connect(to).await?.into_std()
    }
}
