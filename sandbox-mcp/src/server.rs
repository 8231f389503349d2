//! The server: sessions, what the operator allows, and how it is reached.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rmcp::ServiceExt as _;
use sandbox_core::{Error, ErrorKind, Operation, Result};
use sandbox_sessions::{Session, SessionInfo, Sessions, Tenant};

use crate::outputs::Outputs;
use crate::results::SandboxOut;
use crate::tools::Tools;

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
    /// Whose sessions they are. Default: `mcp`.
    pub tenant: String,
    /// The directory of the host below which exports land. Default: none, so that there are no exports.
    pub export_root: Option<PathBuf>,
    /// The directories of the host that imports may read. Default: none.
    pub import_roots: Vec<PathBuf>,
    /// Whether a sandbox may reach the network. Default: false.
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
    /// No exports, no imports, no network.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets whose sessions they are.
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

    /// Sets whether a sandbox may reach the network.
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

/// A server of sandboxes. A clone serves the same ones.
#[derive(Clone, Debug)]
pub struct Server {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) sessions: Sessions,
    pub(crate) tenant: Tenant,
    pub(crate) options: ServerOptions,
    pub(crate) outputs: Outputs,
}

impl Server {
    /// A server of these sessions.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a tenant that can't be one.
    pub fn new(sessions: Sessions, options: ServerOptions) -> Result<Self> {
        let tenant = Tenant::new(options.tenant.clone()).map_err(|error| {
            Error::new(ErrorKind::InvalidInput, Operation::Connect).with_message(error.to_string())
        })?;
        let shared = Shared {
            sessions,
            tenant,
            options,
            outputs: Outputs::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Serves one client over standard input and output until it hangs up. The sessions stay the
    /// caller's.
    ///
    /// Dropping the future stops serving.
    ///
    /// # Errors
    /// If the client does not speak the protocol.
    pub async fn serve_stdio(self) -> Result<()> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            Error::new(ErrorKind::Other, Operation::Connect)
                .with_message(format!("the client on standard input: {error}"))
        };
        let served = Tools::new(self).serve(rmcp::transport::stdio()).await;
        let service = served.map_err(|error| failed(error.into()))?;
        let ended = service.waiting().await;
        ended.map(drop).map_err(|error| failed(error.into()))
    }
}

impl Shared {
    pub(crate) async fn session(&self, id: &str) -> std::result::Result<Session, String> {
        let found = self.sessions.get(&self.tenant, id).await;
        found.map_err(|error| match error.kind() {
            sandbox_sessions::ErrorKind::NotFound => format!(
                "there is no sandbox {id:?}: it was closed, has expired, or never existed; \
                 sandbox_list has those that there are, sandbox_create makes one"
            ),
            _ => error.to_string(),
        })
    }

    pub(crate) fn describe(&self, info: &SessionInfo, workdir: Option<String>) -> SandboxOut {
        let left = info.expires.and_then(|expires| {
            let now = SystemTime::now();
            expires.at.duration_since(now).ok()
        });
        SandboxOut {
            sandbox_id: info.key.to_string(),
            status: info.status.to_string(),
            workdir,
            expires_in_seconds: left.map(|left| left.as_secs()),
        }
    }
}
