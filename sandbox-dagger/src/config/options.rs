//! Settings of sandboxes beyond a spec: the containers they start from, caches, logins,
//! where snapshots are kept, limits of each process.

use std::path::PathBuf;

use sandbox_core::{GuestPath, Secret};

/// The source of sandboxes whose spec names none.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Base {
    /// An image by reference.
    Image(String),
    /// A directory of the host with a Dockerfile in it, built by the engine.
    Dockerfile {
        /// The directory: the context of the build.
        context: PathBuf,
        /// The Dockerfile's path in it.
        file: String,
    },
    /// An archive of an image on the host, as OCI layout or as Docker saves it.
    Tarball(PathBuf),
}

/// A directory that outlives sandboxes: the engine keeps one for each key and shares it between
/// all sandboxes that mount it, forks included.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheMount {
    /// Names the cache in the engine.
    pub key: String,
    /// Path in the sandboxes; absolute.
    pub path: GuestPath,
    /// Sharing between commands that use it at the same time. Default: one directory for all.
    pub sharing: CacheSharing,
    /// The user that the cache's directory belongs to, by name or number. Default: the sandbox's.
    pub owner: Option<String>,
}

impl CacheMount {
    /// The cache of this key at this path.
    pub fn new(key: impl Into<String>, path: impl Into<GuestPath>) -> Self {
        Self {
            key: key.into(),
            path: path.into(),
            sharing: CacheSharing::default(),
            owner: None,
        }
    }

    sandbox_core::setters! {
        /// Shares it like this between commands that use it at the same time.
        sharing: CacheSharing,

        /// Gives its directory to this user.
        owner: Some(into String),
    }
}

/// Sharing of a cache between commands that use it at the same time (`CacheSharingMode` of the
/// engine).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CacheSharing {
    /// All write to one directory.
    #[default]
    Shared,
    /// One waits until the other has ended.
    Locked,
    /// Each has a directory of its own while another uses the cache.
    Private,
}

impl CacheSharing {
    /// The name in the engine's schema.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Shared => "SHARED",
            Self::Locked => "LOCKED",
            Self::Private => "PRIVATE",
        }
    }
}

/// A secret that the engine's client fetches, so that its value never passes through this program.
///
/// ```
/// use sandbox_dagger::{DaggerConfig, SecretUri};
/// let config = DaggerConfig::new().secret(SecretUri::new("NPM_TOKEN", "env://NPM_TOKEN"));
/// # let _ = config;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SecretUri {
    /// The variable that commands find it in: letters, digits and underscores.
    pub variable: String,
    /// Place of the secret: `env://NAME` and `file://PATH` on the host of the Dagger CLI, `cmd://COMMAND`
    /// there, `vault://…`, `op://…` and what else the engine knows.
    pub uri: String,
}

impl SecretUri {
    /// The secret at this URI in this variable.
    ///
    /// The engine replaces the value by `***` in what it shows of a command, and this backend's
    /// own answers among it: a value of fewer than eight characters may spoil them.
    pub fn new(variable: impl Into<String>, uri: impl Into<String>) -> Self {
        Self {
            variable: variable.into(),
            uri: uri.into(),
        }
    }
}

/// A server in a container of its own, which commands of sandboxes reach by a name: a database for
/// tests, say.
///
/// The engine starts it for the first command that needs it, and ends it some time after the last.
/// Sandboxes of one session share it.
///
/// ```
/// use sandbox_dagger::{DaggerConfig, ServiceBinding};
/// let database = ServiceBinding::new("db", "postgres:17-alpine", 5432)
///     .env("POSTGRES_PASSWORD", "for-tests-only");
/// let config = DaggerConfig::new().service(database);
/// # let _ = config;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServiceBinding {
    /// Name by which sandboxes reach it.
    pub alias: String,
    /// Image that it runs.
    pub image: String,
    /// TCP port that it listens on.
    pub port: u16,
    /// Program and arguments. Default: the image's.
    pub args: Vec<String>,
    /// Variables, in this order. Nothing confidential: they are part of queries.
    pub env: Vec<(String, String)>,
}

impl ServiceBinding {
    /// An image that listens on a port, under a name.
    pub fn new(alias: impl Into<String>, image: impl Into<String>, port: u16) -> Self {
        Self {
            alias: alias.into(),
            image: image.into(),
            port,
            args: Vec::new(),
            env: Vec::new(),
        }
    }

    /// Runs this program with these arguments in place of the image's.
    #[must_use]
    pub fn args<A: Into<String>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args = args.into_iter().map(Into::into).collect();
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }
}

/// A login at a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegistryLogin {
    /// The registry's host, with its port if it has one: `ghcr.io`, `localhost:5000`.
    pub registry: String,
    /// The user.
    pub user: String,
    /// The password or token. It travels through the engine's secret store only.
    pub password: Secret,
}

impl RegistryLogin {
    /// Login of a user at a registry.
    pub fn new(
        registry: impl Into<String>,
        user: impl Into<String>,
        password: impl Into<Secret>,
    ) -> Self {
        Self {
            registry: registry.into(),
            user: user.into(),
            password: password.into(),
        }
    }
}

/// Place where snapshots are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Snapshots {
    /// Archives in a temporary directory that goes with the provider (the default).
    #[default]
    Temporary,
    /// Archives in this directory of the host, for as long as the embedder leaves them there.
    Tarballs(PathBuf),
    /// Published to this repository, such as `ghcr.io/acme/snapshots`, each under a tag of its own.
    Registry(String),
}

/// Limits that the supervisor sets on every process of a command (`ulimit`).
///
/// They bound each process, not their sum, and a process with the rights to do so may raise them:
/// they stop accidents. A limit that the guest's shell can't set keeps the command from starting.
///
/// ```
/// use sandbox_dagger::ProcessLimits;
/// let limits = ProcessLimits::none().file_size(1 << 30).cpu_seconds(60);
/// assert_eq!(limits.open_files, None);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessLimits {
    /// Limit of a file's size, in bytes (rounded up to 512).
    pub file_size: Option<u64>,
    /// Limit of open files.
    pub open_files: Option<u64>,
    /// Address space, in bytes (rounded up to 1024). Node.js reserves several GiB.
    pub address_space: Option<u64>,
    /// Processor time, in seconds.
    pub cpu_seconds: Option<u64>,
}

impl ProcessLimits {
    /// No limits.
    pub fn none() -> Self {
        Self::default()
    }

    sandbox_core::setters! {
        /// Limits the size of files, in bytes.
        file_size: Some(u64),

        /// Limits the number of open files.
        open_files: Some(u64),

        /// Limits address space, in bytes.
        address_space: Some(u64),

        /// Limits processor time, in seconds.
        cpu_seconds: Some(u64),
    }

    /// The shell's words for it; `:` if there are none.
    pub(crate) fn script(&self) -> String {
        let limits = [
            ("-f", self.file_size.map(|bytes| bytes.div_ceil(512))),
            ("-n", self.open_files),
            ("-v", self.address_space.map(|bytes| bytes.div_ceil(1024))),
            ("-t", self.cpu_seconds),
        ];
        let words = limits
            .iter()
            .filter_map(|(flag, limit)| limit.map(|limit| format!("ulimit {flag} {limit}")));
        let script = words.collect::<Vec<_>>().join(" && ");
        if script.is_empty() {
            ":".into()
        } else {
            script
        }
    }
}
