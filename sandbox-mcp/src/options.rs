//! Options of a server: permissions of its operator.

use std::path::PathBuf;
use std::time::Duration;

/// Options of a server: permissions of its operator.
///
/// ```
/// use sandbox_mcp::ServerOptions;
/// let options = ServerOptions::new().tenant("team-a").export_root("/srv/out").allow_network(false);
/// assert!(options.import_roots.is_empty());
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerOptions {
    /// Tenant that owns the sessions. Default: `mcp`.
    pub tenant: String,
    /// The directory of the host below which exports land. Default: none, so that there are no exports.
    pub export_root: Option<PathBuf>,
    /// The directories of the host that imports may read. Default: none.
    pub import_roots: Vec<PathBuf>,
    /// Whether a sandbox may reach the network, and start from an image that is pulled. Default: false.
    pub allow_network: bool,
    /// Time limit of a command that names none. Default: ten minutes.
    pub command_timeout: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            tenant: "mcp".to_owned(),
            export_root: None,
            import_roots: Vec::new(),
            allow_network: false,
            command_timeout: Duration::from_secs(600),
        }
    }
}

impl ServerOptions {
    /// The defaults: no exports, no imports, no network.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the tenant that owns the sessions.
    #[must_use]
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = tenant.into();
        self
    }

    /// Lets exports land below this directory.
    #[must_use]
    pub fn export_root(mut self, root: impl Into<PathBuf>) -> Self {
        self.export_root = Some(root.into());
        self
    }

    /// Lets imports read below this directory.
    #[must_use]
    pub fn import_root(mut self, root: impl Into<PathBuf>) -> Self {
        self.import_roots.push(root.into());
        self
    }

    /// Sets whether a sandbox may reach the network, and start from an image that is pulled.
    #[must_use]
    pub fn allow_network(mut self, allow: bool) -> Self {
        self.allow_network = allow;
        self
    }

    /// Sets how long a command that names no timeout may run.
    #[must_use]
    pub fn command_timeout(mut self, timeout: Duration) -> Self {
        self.command_timeout = timeout;
        self
    }
}
