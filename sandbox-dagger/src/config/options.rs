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
}

impl CacheMount {
    /// The cache of this key at this path.
    pub fn new(key: impl Into<String>, path: impl Into<GuestPath>) -> Self {
        Self {
            key: key.into(),
            path: path.into(),
        }
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
