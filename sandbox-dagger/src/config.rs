//! What the embedder may set about the connection. Nothing here is about one sandbox.

use std::path::PathBuf;
use std::time::Duration;

use sandbox_core::Secret;

/// Configuration of a [`DaggerProvider`](crate::DaggerProvider).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DaggerConfig {
    /// A session that is there already: its port on loopback and its token. Default: the variables
    /// `DAGGER_SESSION_PORT` and `DAGGER_SESSION_TOKEN`, if they are set.
    pub session: Option<(u16, Secret)>,
    /// The Dagger CLI that starts a session where none is given. Default:
    /// `_EXPERIMENTAL_DAGGER_CLI_BIN`, then `dagger` in `PATH`.
    pub cli: Option<PathBuf>,
    /// Whether the CLI may be downloaded if there is none. Default: no.
    pub download: bool,
    /// How long connecting may take, the start of an engine included. Default: two minutes.
    pub connect_timeout: Duration,
    /// How long an operation other than a command may take. Default: ten minutes, because the first
    /// one pulls the image.
    pub operation_timeout: Duration,
    /// The image of sandboxes whose spec names none. Default: `node:20-alpine3.22`.
    pub image: String,
}

impl Default for DaggerConfig {
    fn default() -> Self {
        Self {
            session: None,
            cli: None,
            download: false,
            connect_timeout: crate::connect::CONNECT_TIMEOUT,
            operation_timeout: Duration::from_secs(600),
            image: "node:20-alpine3.22".into(),
        }
    }
}

impl DaggerConfig {
    /// Uses the session at this port of loopback.
    #[must_use]
    pub fn with_session(mut self, port: u16, token: impl Into<Secret>) -> Self {
        self.session = Some((port, token.into()));
        self
    }

    /// Starts sessions with this CLI.
    #[must_use]
    pub fn with_cli(mut self, program: impl Into<PathBuf>) -> Self {
        self.cli = Some(program.into());
        self
    }

    /// Lets the CLI be downloaded if there is none.
    #[must_use]
    pub fn with_download(mut self) -> Self {
        self.download = true;
        self
    }

    /// Gives connecting this much time.
    #[must_use]
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Gives operations other than commands this much time.
    #[must_use]
    pub fn with_operation_timeout(mut self, timeout: Duration) -> Self {
        self.operation_timeout = timeout;
        self
    }

    /// Starts sandboxes from this image unless their spec names another.
    #[must_use]
    pub fn with_image(mut self, image: impl Into<String>) -> Self {
        self.image = image.into();
        self
    }
}
