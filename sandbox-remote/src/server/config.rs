//! Settings of a server's operator: limits, and what of the host a client may name.

use std::time::Duration;

use sandbox_core::{Capabilities, Capability};

/// Capabilities in the protocol. One that the core gains later is not served before it is in there.
const CARRIED: &[Capability] = &[
    Capability::Exec,
    Capability::Spawn,
    Capability::StdinPipe,
    Capability::Signals,
    Capability::User,
    Capability::KillDaemons,
    Capability::Background,
    Capability::Fork,
    Capability::ForkMemory,
    Capability::Snapshot,
    Capability::SnapshotList,
    Capability::SnapshotDelete,
    Capability::List,
    Capability::Attach,
    Capability::Ttl,
    Capability::Image,
    Capability::RootDir,
    Capability::Mounts,
    Capability::Symlinks,
    Capability::Modes,
    Capability::NonUtf8Names,
    Capability::FilePermissions,
    Capability::NetworkOff,
    Capability::NetworkOpen,
    Capability::MemoryLimit,
    Capability::CpuLimit,
    Capability::PidsLimit,
    Capability::DiskLimit,
    Capability::Isolation,
    Capability::Terminal,
    Capability::Changes,
    Capability::Usage,
    Capability::Pause,
    Capability::GuestRoot,
    Capability::EgressByName,
    Capability::EgressPorts,
    Capability::Jobs,
    Capability::Ports,
    Capability::FileStreams,
    Capability::Watch,
    Capability::Lasting,
];

/// Limits of a [`Server`](super::Server). Each has a default that suits one owner.
///
/// ```
/// use std::time::Duration;
/// use sandbox_remote::ServerConfig;
/// let config = ServerConfig::new().max_commands(16).idle(Duration::from_secs(600));
/// assert!(!config.host_paths);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerConfig {
    /// Connections at the same time; more wait to be accepted. Default: 512.
    pub max_connections: usize,
    /// Calls at the same time, those whose client has gone included. Default: 1024.
    pub max_calls: usize,
    /// Commands at the same time, with the connections, files and watches that are open. Default: 256.
    pub max_commands: usize,
    /// Open sandboxes that this server holds. Default: 256.
    pub max_sandboxes: usize,
    /// Bytes of one request's body, an archive excepted. Default: 96 MiB, which holds 64 MiB of
    /// files or input in base64.
    pub max_body: usize,
    /// Bytes of request bodies that all calls together hold in memory. Default: 256 MiB.
    pub max_buffered: usize,
    /// Bytes of one archive that is imported or exported. Default: 4 GiB.
    pub max_archive: u64,
    /// Bytes of one file that is read whole. Default: 256 MiB.
    pub max_read: u64,
    /// The time in which the head of a request must have come; a connection without a request is
    /// closed after the same time. Default: 15 s.
    pub header_time: Duration,
    /// The time in which a client must send or take something of a body. Default: 30 s.
    pub idle_time: Duration,
    /// The time for which a call or a process lives on after its client was last heard of. A client
    /// that lost its connection finds it again in this time; then it is killed. Default: 20 s.
    pub grace: Duration,
    /// The time after which a sandbox without calls and commands is closed, or let go of if it lasts.
    /// Default: one hour.
    pub idle: Option<Duration>,
    /// Whether a spec may name directories and files of the server's host, as mounts, as a root and
    /// as an image. Default: no; images of registries are pulled by the server. A client that may is as powerful on the host as the server's user.
    pub host_paths: bool,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            max_connections: 512,
            max_calls: 1024,
            max_commands: 256,
            max_sandboxes: 256,
            max_body: 96 << 20,
            max_buffered: 256 << 20,
            max_archive: 4 << 30,
            max_read: 256 << 20,
            header_time: Duration::from_secs(15),
            idle_time: Duration::from_secs(30),
            grace: Duration::from_secs(20),
            idle: Some(Duration::from_secs(3600)),
            host_paths: false,
        }
    }
}

impl ServerConfig {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    sandbox_core::setters! {
        /// Sets the number of connections.
        max_connections: usize,

        /// Sets the number of calls.
        max_calls: usize,

        /// Sets the number of commands.
        max_commands: usize,

        /// Sets the number of open sandboxes.
        max_sandboxes: usize,

        /// Sets the largest body, in bytes.
        max_body: usize,

        /// Sets how many bytes of bodies are held in memory.
        max_buffered: usize,

        /// Sets the largest archive, in bytes.
        max_archive: u64,

        /// Sets the largest file that is read whole, in bytes.
        max_read: u64,

        /// Sets the time for the head of a request.
        header_time: Duration,

        /// Sets the time for some progress of a body.
        idle_time: Duration,

        /// Sets how long a call lives on without its client.
        grace: Duration,

        /// Sets after which time an unused sandbox is closed.
        idle: Some(Duration),

        /// Lets a spec name directories of the server's host.
        host_paths: bool,
    }

    /// Returns what a client may count on, of what the provider has.
    ///
    /// ```
    /// use sandbox_core::{Capabilities, Capability};
    /// use sandbox_remote::ServerConfig;
    /// let backend = Capabilities::none("no").with_each(&[Capability::Exec, Capability::Mounts]);
    /// let served = ServerConfig::new().serves(backend);
    /// assert!(served.has(Capability::Exec) && !served.has(Capability::Mounts));
    /// ```
    #[must_use]
    pub fn serves(&self, mut capabilities: Capabilities) -> Capabilities {
        for capability in Capability::ALL {
            if !CARRIED.contains(capability) && capabilities.has(*capability) {
                let why = "the protocol of remote sandboxes does not carry it";
                capabilities = capabilities.without(*capability, why);
            }
        }
        if !self.host_paths {
            for capability in [Capability::Mounts, Capability::RootDir] {
                if capabilities.has(capability) {
                    let why = "this server shows none of its host's directories";
                    capabilities = capabilities.without(capability, why);
                }
            }
        }
        capabilities
    }
}
