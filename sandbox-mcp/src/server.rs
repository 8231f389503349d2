//! The server: sessions for the clients of the protocol, over standard input and output.

use std::sync::Arc;

use rmcp::ServiceExt as _;
use sandbox_core::{Error, ErrorKind, Operation, Result};
use sandbox_sessions::{Sessions, Tenant};

use crate::ServerOptions;
use crate::outputs::Outputs;
use crate::shared::Shared;
use crate::tools::Tools;

/// A server of sandboxes. A clone serves the same ones.
#[derive(Clone, Debug)]
pub struct Server {
    pub(crate) shared: Arc<Shared>,
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
        let served = Tools::new(self.shared)
            .serve(rmcp::transport::stdio())
            .await;
        let service = served.map_err(|error| failed(error.into()))?;
        let ended = service.waiting().await;
        ended.map(drop).map_err(|error| failed(error.into()))
    }
}
