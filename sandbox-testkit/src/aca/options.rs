//! What an emulator is started with: its address and its quirks.
//!
//! Every quirk is off by default: the default is the service on a good day.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::sessions::{FullAs, PoolKind, SessionPool};

/// How an emulator behaves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Where it listens. Default: any free port of 127.0.0.1.
    pub listen: SocketAddr,
    /// Whether it speaks TLS with a certificate of its own making.
    pub tls: bool,
    /// Where the certificate of its authority is written; a temporary directory if `None`.
    pub certificate: Option<PathBuf>,
    /// Audiences that it accepts in tokens.
    pub audiences: Vec<String>,
    /// Whether a sandbox whose egress policy allows everything reaches this host's network.
    /// Otherwise none does, whatever the policy says.
    pub allow_network: bool,
    /// Whether the role assignment is missing: every request is answered with an empty 403.
    pub forbidden: bool,
    /// Whether lists come as `{value, nextLink}` and not as bare arrays.
    pub envelope: bool,
    /// How many entries a page of a list has; all of them if `None`. Needs the envelope.
    pub page: Option<usize>,
    /// How long a sandbox is `Creating` before it is `Running`.
    pub creating: Duration,
    /// How long a new sandbox is answered with 404.
    pub hidden: Duration,
    /// How long a snapshot takes.
    pub snapshot: Duration,
    /// How long a port has no URL.
    pub port_url: Duration,
    /// How long a command may take before the gateway answers 504; the command goes on.
    pub gateway: Duration,
    /// Whether a `stop` without a body hangs.
    pub bodyless_stop_hangs: bool,
    /// Session pools that are there from the start. Default: `python` and `shell`.
    pub pools: Vec<SessionPool>,
    /// How long one execution in a session may take. Default: 220 seconds.
    pub execution_cap: Duration,
    /// The largest upload to a session, in bytes. Default: 128 MiB.
    pub upload_cap: usize,
    /// How the service says that a session pool is full.
    pub full_as: FullAs,
    /// Requests per minute before 429; no limit if `None`.
    pub rate: Option<u32>,
    /// Whether every request is logged to standard error.
    pub log: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            tls: false,
            certificate: None,
            audiences: vec![
                "https://dynamicsessions.io".into(),
                "https://management.azuredevcompute.io".into(),
            ],
            allow_network: false,
            forbidden: false,
            envelope: false,
            page: None,
            creating: Duration::ZERO,
            hidden: Duration::ZERO,
            snapshot: Duration::ZERO,
            port_url: Duration::ZERO,
            gateway: Duration::from_secs(600),
            bodyless_stop_hangs: false,
            pools: vec![
                SessionPool::new("python", PoolKind::PythonLts),
                SessionPool::new("shell", PoolKind::Shell),
            ],
            execution_cap: Duration::from_secs(220),
            upload_cap: 128 << 20,
            full_as: FullAs::default(),
            rate: None,
            log: false,
        }
    }
}
