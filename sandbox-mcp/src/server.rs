//! The server: sessions for the clients of the protocol, over standard input and output.

use std::future::Future;
use std::sync::Arc;

use rmcp::ServiceExt as _;
use sandbox_core::{Error, ErrorKind, Operation, Result};
use sandbox_sessions::{Sessions, Tenant};

use crate::ServerOptions;
use crate::opening::Opening;
use crate::outputs::Outputs;
use crate::shared::Shared;
use crate::tools::Tools;
use crate::turns::Turns;

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
        Self::of(Opening::done(sessions), options)
    }

    /// A server of sessions that are opened when they are first needed: clients are answered before
    /// the provider is. A call that needs a sandbox waits for it; what the provider says if it can't
    /// be reached is the call's error, and the next call tries again. Callers at the same time wait
    /// for the same opening.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use sandbox_mcp::{Server, ServerOptions};
    /// use sandbox_core::{Error, ErrorKind, Operation};
    /// use sandbox_sessions::{Sessions, SessionsConfig, ShutdownOptions};
    /// use sandbox_testkit::model::ModelProvider;
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let open = || async {
    ///     let opened = Sessions::open(Arc::new(ModelProvider::new()), SessionsConfig::new()).await;
    ///     opened.map_err(|error| {
    ///         Error::new(ErrorKind::Unavailable, Operation::Connect).with_source(error)
    ///     })
    /// };
    /// let server = Server::opening(open, ServerOptions::new())?;
    /// // server.clone().serve_stdio().await?;
    /// if let Some(sessions) = server.end().await {
    ///     sessions.shutdown(ShutdownOptions::new()).await?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a tenant that can't be one.
    pub fn opening<F, O>(open: F, options: ServerOptions) -> Result<Self>
    where
        F: Fn() -> O + Send + Sync + 'static,
        O: Future<Output = Result<Sessions>> + Send + 'static,
    {
        Self::of(Opening::new(open), options)
    }

    /// Opens the sessions now, instead of at the first call that needs them, and gives them.
    ///
    /// Dropping the future gives up an opening that it began; the next call begins anew.
    ///
    /// # Errors
    /// What the opening says; [`ErrorKind::Closed`] after [`end`](Server::end).
    pub async fn open(&self) -> Result<Sessions> {
        self.shared.opening.get().await
    }

    /// Ends the opening, if it is under way, and gives the sessions that were opened, for their
    /// shutdown. None are opened later.
    ///
    /// Dropping the future has no effect beyond that.
    pub async fn end(&self) -> Option<Sessions> {
        self.shared.opening.end().await
    }

    fn of(opening: Opening, options: ServerOptions) -> Result<Self> {
        let tenant = Tenant::new(options.tenant.clone()).map_err(|error| {
            Error::new(ErrorKind::InvalidInput, Operation::Connect).with_message(error.to_string())
        })?;
        let shared = Shared {
            opening,
            tenant,
            options,
            outputs: Outputs::default(),
            turns: Turns::default(),
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
