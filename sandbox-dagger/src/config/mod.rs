//! Configuration of a provider: the connection, and what its sandboxes have in common.

pub(crate) mod options;

use std::path::PathBuf;
use std::time::Duration;

use sandbox_core::Secret;

use crate::config::options::{
    Base, CacheMount, ProcessLimits, RegistryLogin, SecretUri, ServiceBinding, Snapshots,
};

/// Default limit of the time for connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(120);

/// Configuration of a [`DaggerProvider`](crate::DaggerProvider).
///
/// ```
/// use std::time::Duration;
/// use sandbox_dagger::{DaggerConfig, ProcessLimits};
/// let config = DaggerConfig::new()
///     .image("debian:stable-slim")
///     .connect_timeout(Duration::from_secs(30))
///     .limits(ProcessLimits::none().open_files(1024));
/// assert!(!config.download);
/// ```
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
    /// Limit of the time for connecting, the start of an engine included. Default: two minutes.
    pub connect_timeout: Duration,
    /// Limit of the time for an operation other than a command. Default: ten minutes, because the
    /// first one pulls the image.
    pub operation_timeout: Duration,
    /// Number of sandboxes created in one session of a CLI before the next ones get a session of
    /// their own. The engine frees what closed sandboxes left when their session has ended, which
    /// it does with the last sandbox in it. Default: 16. Without effect on a session that is given.
    pub session_sandboxes: u32,
    /// Number of bytes handed to the engine, or written to disk by commands, after which the same
    /// happens. Default: 4 GiB. What commands write to disk is what their kernel counts
    /// (`write_bytes` of proc(5)): not what they write to `/dev/shm`.
    pub session_bytes: u64,
    /// The source of sandboxes whose spec names none. Default: `node:20-alpine3.22`.
    pub base: Base,
    /// The user that sandboxes run as, by name or number. Default: the image's.
    pub user: Option<String>,
    /// Caches that every sandbox mounts. Default: none.
    pub caches: Vec<CacheMount>,
    /// Secrets that the engine fetches itself, as variables of every sandbox. Default: none.
    pub secrets: Vec<SecretUri>,
    /// Services that every sandbox reaches by name. Default: none.
    pub services: Vec<ServiceBinding>,
    /// Logins at registries, for images and snapshots. Default: none.
    pub logins: Vec<RegistryLogin>,
    /// Place where snapshots are kept. Default: they go with the provider.
    pub snapshots: Snapshots,
    /// Limits of every process. Default: none.
    pub limits: ProcessLimits,
    /// Time for which the output of a command is still read after its main process has ended and
    /// nothing comes: what the rest of its tree is just writing (`tee` behind a shell's
    /// redirection) is not lost. If something keeps coming, ten times this. A command whose output
    /// nothing else holds open does not wait at all; what still holds it then ends with the command. A
    /// command's timeout counts on meanwhile. Counted in hundredths of a second.
    ///
    /// Default: 100 ms.
    pub output_grace: Duration,
}

impl Default for DaggerConfig {
    fn default() -> Self {
        Self {
            session: None,
            cli: None,
            download: false,
            connect_timeout: CONNECT_TIMEOUT,
            operation_timeout: Duration::from_secs(600),
            session_sandboxes: 16,
            session_bytes: 4 << 30,
            base: Base::Image("node:20-alpine3.22".into()),
            user: None,
            caches: Vec::new(),
            secrets: Vec::new(),
            services: Vec::new(),
            logins: Vec::new(),
            snapshots: Snapshots::default(),
            limits: ProcessLimits::default(),
            output_grace: Duration::from_millis(100),
        }
    }
}

impl DaggerConfig {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Uses the session at this port of loopback.
    #[must_use]
    pub fn session(mut self, port: u16, token: impl Into<Secret>) -> Self {
        self.session = Some((port, token.into()));
        self
    }

    sandbox_core::setters! {
        /// Starts sessions with this CLI.
        cli: Some(into PathBuf),

        /// Lets the CLI be downloaded if there is none.
        download: bool,

        /// Gives connecting this much time.
        connect_timeout: Duration,

        /// Gives operations other than commands this much time.
        operation_timeout: Duration,

        /// Creates this many sandboxes in one session before the next ones get another.
        session_sandboxes: u32,

        /// Hands this many bytes to the engine in one session before the next sandboxes get another.
        session_bytes: u64,
    }

    /// Starts sandboxes from this image unless their spec names a source.
    #[must_use]
    pub fn image(self, image: impl Into<String>) -> Self {
        self.base(Base::Image(image.into()))
    }

    /// Starts sandboxes from the image that the engine builds of this directory's `Dockerfile`,
    /// unless their spec names a source.
    #[must_use]
    pub fn dockerfile(self, context: impl Into<PathBuf>) -> Self {
        self.base(Base::Dockerfile {
            context: context.into(),
            file: "Dockerfile".into(),
        })
    }

    /// Starts sandboxes from this archive of an image, unless their spec names a source.
    #[must_use]
    pub fn tarball(self, archive: impl Into<PathBuf>) -> Self {
        self.base(Base::Tarball(archive.into()))
    }

    sandbox_core::setters! {
        /// Starts sandboxes from this unless their spec names a source.
        base: Base,

        /// Runs sandboxes as this user, by name or number.
        user: Some(into String),
    }

    /// Mounts this cache in every sandbox.
    #[must_use]
    pub fn cache(mut self, cache: CacheMount) -> Self {
        self.caches.push(cache);
        self
    }

    /// Gives every sandbox this secret.
    #[must_use]
    pub fn secret(mut self, secret: SecretUri) -> Self {
        self.secrets.push(secret);
        self
    }

    /// Runs this service for every sandbox.
    #[must_use]
    pub fn service(mut self, service: ServiceBinding) -> Self {
        self.services.push(service);
        self
    }

    /// Adds a login at a registry.
    #[must_use]
    pub fn login(mut self, login: RegistryLogin) -> Self {
        self.logins.push(login);
        self
    }

    sandbox_core::setters! {
        /// Keeps snapshots there.
        snapshots: Snapshots,

        /// Limits every process.
        limits: ProcessLimits,

        /// Reads a command's output for this long after its end if nothing comes: see
        /// [`output_grace`](Self#structfield.output_grace).
        output_grace: Duration,
    }
}
