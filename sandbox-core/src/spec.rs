//! Specification of a sandbox.

use std::path::PathBuf;
use std::time::Duration;

use crate::{
    Capabilities, Capability, Control, EgressPolicy, Env, Error, ErrorKind, GuestPath, Labels,
    Operation, Result, Secret, SnapshotId,
};

/// Origin of a sandbox's filesystem.
///
/// ```
/// use sandbox_core::{SandboxSpec, Source};
/// let spec = SandboxSpec::new().source(Source::RootDir("/srv/roots/debian".into()));
/// assert_eq!(SandboxSpec::new().source, Source::Default);
/// # let _ = spec;
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Source {
    /// The backend's own default.
    #[default]
    Default,
    /// An image by reference, such as `docker.io/library/alpine:3`.
    Image(String),
    /// A directory of the host as the root; it is only read.
    RootDir(PathBuf),
    /// A snapshot of the same provider.
    Snapshot(SnapshotId),
}

impl Source {
    /// Whether it names a file or a directory of the host that makes the sandbox: a root directory,
    /// or an image in a layout or an archive. A service that takes a spec from a client
    /// refuses these, or checks the path.
    ///
    /// ```
    /// use sandbox_core::Source;
    /// assert!(Source::Image("oci:/srv/images/base".into()).names_host_path());
    /// assert!(!Source::Image("localhost:5000/base:1".into()).names_host_path());
    /// ```
    #[must_use]
    pub fn names_host_path(&self) -> bool {
        // The transports of skopeo that are no registry (containers-transports(5)).
        const LOCAL: [&str; 8] = [
            "oci:",
            "oci-archive:",
            "docker-archive:",
            "docker-daemon:",
            "containers-storage:",
            "dir:",
            "ostree:",
            "sif:",
        ];
        match self {
            Self::RootDir(_) => true,
            Self::Image(image) => {
                let known = LOCAL.iter().any(|start| image.starts_with(start));
                known
                    || image.starts_with(['/', '.', '~'])
                    || image.contains(":/")
                    || image.contains("..")
            }
            Self::Default | Self::Snapshot(_) => false,
        }
    }
}

/// Network that the sandbox may reach.
///
/// ```
/// use sandbox_core::{Network, SandboxSpec};
/// let everywhere = SandboxSpec::new().network(Network::OffWherePossible);
/// assert_eq!(SandboxSpec::new().network, Network::Off);
/// # let _ = everywhere;
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Network {
    /// Nothing but its own loopback (the default).
    #[default]
    Off,
    /// Whatever its host reaches.
    Open,
    /// The hosts of this policy, by name, and nothing else.
    Allow(EgressPolicy),
    /// [`Off`](Network::Off) on a backend that has it, [`Open`](Network::Open) on the others: for
    /// a spec that is to work everywhere.
    ///
    /// Weaker than `Off` where the backend is, which is why it is never a default. The isolation
    /// report says what holds.
    OffWherePossible,
}

impl Network {
    /// Resolves the choice for a backend with these capabilities: `Off`, `Open` or `Allow`. Every
    /// backend puts it in the place of the spec's network before it looks at that.
    ///
    /// ```
    /// use sandbox_core::{Capabilities, Capability, Network};
    /// let plain = Capabilities::none("no isolation").with(Capability::NetworkOpen);
    /// assert_eq!(Network::OffWherePossible.settle(&plain), Network::Open);
    /// assert_eq!(Network::Off.settle(&plain), Network::Off); // and is refused by `require`
    /// ```
    #[must_use]
    pub fn settle(self, capabilities: &Capabilities) -> Self {
        match self {
            Self::OffWherePossible if capabilities.has(Capability::NetworkOff) => Self::Off,
            Self::OffWherePossible => Self::Open,
            named => named,
        }
    }
}

/// Limits on a whole sandbox; `None` sets none.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(default, deny_unknown_fields, rename_all = "kebab-case")
)]
///
/// ```
/// use sandbox_core::Resources;
/// let limits = Resources::new().memory(512 << 20).cpus(1.5).pids(128).disk(1 << 30);
/// assert_eq!(limits.pids, Some(128));
/// ```
#[non_exhaustive]
pub struct Resources {
    /// Memory of all processes together, in bytes.
    pub memory: Option<u64>,
    /// Processor time per time: 1.5 is one and a half cores.
    pub cpus: Option<f64>,
    /// Maximum of processes and threads.
    pub pids: Option<u32>,
    /// Maximum of bytes written to the filesystem.
    pub disk: Option<u64>,
}

impl Resources {
    /// Resources without limits.
    pub fn new() -> Self {
        Self::default()
    }

    crate::setters! {
        /// Limits memory, in bytes.
        memory: Some(u64),

        /// Limits processor time, in cores.
        cpus: Some(f64),

        /// Limits the number of processes and threads.
        pids: Some(u32),

        /// Limits what may be written, in bytes.
        disk: Some(u64),
    }
}

/// Whether what is mounted may be written.
///
/// ```
/// use sandbox_core::{Access, Mount};
/// assert_eq!(Mount::read_write("/srv/cache", "/cache").access, Access::ReadWrite);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum Access {
    /// Reading only.
    ReadOnly,
    /// Written, and the host sees it.
    ReadWrite,
}

/// A directory or file of the host, visible in the sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(deny_unknown_fields, rename_all = "kebab-case")
)]
///
/// ```
/// use sandbox_core::{Access, Mount};
/// let mount = Mount::read_only("/srv/data", "/data");
/// assert_eq!(mount.access, Access::ReadOnly);
/// ```
#[non_exhaustive]
pub struct Mount {
    /// Path on the host.
    pub host: PathBuf,
    /// Path in the sandbox.
    pub guest: GuestPath,
    /// Whether it may be written.
    pub access: Access,
}

impl Mount {
    /// A mount that is only read.
    pub fn read_only(host: impl Into<PathBuf>, guest: impl Into<GuestPath>) -> Self {
        Self {
            host: host.into(),
            guest: guest.into(),
            access: Access::ReadOnly,
        }
    }

    /// A mount through which the sandbox writes to the host.
    pub fn read_write(host: impl Into<PathBuf>, guest: impl Into<GuestPath>) -> Self {
        Self {
            host: host.into(),
            guest: guest.into(),
            access: Access::ReadWrite,
        }
    }
}

/// User that the programs of a sandbox run as, inside it.
///
/// ```
/// use sandbox_core::{GuestUser, SandboxSpec, Source};
/// let spec = SandboxSpec::new()
///     .source(Source::Image("docker.io/library/debian:12".into()))
///     .user(GuestUser::Root);
/// assert_eq!(SandboxSpec::new().user, GuestUser::Default);
/// # let _ = spec;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum GuestUser {
    /// The backend's own choice; the least that it can give, where it can choose.
    #[default]
    Default,
    /// User 0 in the sandbox, for programs that install others: `apt-get install`, `dpkg`, `tar`,
    /// `useradd`. No mode of the sandbox's own files stops them, and changes of owners succeed,
    /// whether the owner is kept or not.
    ///
    /// File operations of the API may be held to what the owner of a file may do: on `local:` one of
    /// mode 000 is read by a command, and [`read`](crate::SandboxExt::read) is
    /// [`PermissionDenied`](crate::ErrorKind::PermissionDenied).
    ///
    /// Root of nothing outside, but weaker than the default: the isolation report says so under
    /// [`Control::Privileges`].
    Root,
}

/// Isolation that must be in force for a sandbox to be created.
///
/// ```
/// use sandbox_core::{Control, RequiredIsolation, SandboxSpec};
/// let only = RequiredIsolation::Only(vec![Control::Filesystem, Control::Network]);
/// let spec = SandboxSpec::new().isolation(only);
/// # let _ = spec;
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum RequiredIsolation {
    /// Everything that the backend is for, and every limit that the spec sets (the default).
    #[default]
    Full,
    /// Only these controls. Limits of the spec that are not among them are applied where the host
    /// grants them; the isolation report tells.
    Only(Vec<Control>),
}

/// Specification of a sandbox: the argument of [`Provider::create`](crate::Provider::create).
///
/// ```
/// use sandbox_core::{Network, Resources, SandboxSpec};
/// let spec = SandboxSpec::new()
///     .resources(Resources::new().memory(512 << 20).pids(128))
///     .label("tenant", "acme");
/// assert_eq!(spec.network, Network::Off);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(default, deny_unknown_fields, rename_all = "kebab-case")
)]
#[non_exhaustive]
pub struct SandboxSpec {
    /// Origin of the filesystem.
    pub source: Source,
    /// Directory where relative paths and commands start; created if missing. Default: the
    /// backend's, usually `/workspace`.
    pub workdir: Option<GuestPath>,
    /// The environment of every command.
    pub env: Env,
    /// Limits.
    pub resources: Resources,
    /// Network that it may reach.
    pub network: Network,
    /// User that commands run as.
    pub user: GuestUser,
    /// Isolation that must be in force.
    pub isolation: RequiredIsolation,
    /// Directories of the host.
    pub mounts: Vec<Mount>,
    /// Labels to find it by.
    pub labels: Labels,
    /// Whether it stays when its last handle is dropped and when its host process ends, however that
    /// ends: its files, environment and workdir, not its processes. [`attach`](crate::Provider::attach)
    /// finds it, in any later process; [`close`](crate::Sandbox::close),
    /// [`destroy`](crate::Provider::destroy) and [`ttl`](Self::ttl) end it. Forks of it don't last.
    ///
    /// Values of secret variables are never kept: a sandbox that was started again lacks them. Default:
    /// no.
    pub lasting: bool,
    /// After this time without use it is closed. Asking for its status does not count as one. Default: never.
    #[cfg_attr(feature = "serde", serde(with = "crate::wire::seconds_or_none"))]
    pub ttl: Option<Duration>,
    /// The timeout of a command that names none. Default: none.
    #[cfg_attr(feature = "serde", serde(with = "crate::wire::seconds_or_none"))]
    pub command_timeout: Option<Duration>,
}

impl SandboxSpec {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    crate::setters! {
        /// Sets the origin of the filesystem; see also [`image`](Self::image).
        source: Source,

        /// Relative paths and commands start here.
        workdir: Some(into GuestPath),
    }

    /// Starts from this image: [`Source::Image`].
    ///
    /// ```
    /// use sandbox_core::{SandboxSpec, Source};
    /// let spec = SandboxSpec::new().image("docker.io/library/alpine:3");
    /// assert_eq!(spec.source, Source::Image("docker.io/library/alpine:3".to_owned()));
    /// ```
    #[must_use]
    pub fn image(mut self, reference: impl Into<String>) -> Self {
        self.source = Source::Image(reference.into());
        self
    }

    /// Sets an environment variable for every command.
    #[must_use]
    pub fn env(mut self, name: impl Into<Vec<u8>>, value: impl Into<Secret>) -> Self {
        self.env = self.env.set(name, value);
        self
    }

    /// Sets a confidential environment variable for every command.
    #[must_use]
    pub fn secret(mut self, name: impl Into<Vec<u8>>, value: impl Into<Secret>) -> Self {
        self.env = self.env.secret(name, value);
        self
    }

    crate::setters! {
        /// Sets limits.
        resources: Resources,

        /// Lets it reach this.
        network: Network,

        /// Runs commands as this user.
        user: GuestUser,

        /// Requires this isolation.
        isolation: RequiredIsolation,
    }

    /// Mounts something of the host.
    #[must_use]
    pub fn mount(mut self, mount: Mount) -> Self {
        self.mounts.push(mount);
        self
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    crate::setters! {
        /// Keeps it when nothing has it open; see the field [`lasting`](Self::lasting).
        ///
        /// ```
        /// # use sandbox_core::{Provider, Result, SandboxExt as _, SandboxSpec};
        /// # async fn example(provider: &dyn Provider, later: &dyn Provider) -> Result<()> {
        /// let spec = SandboxSpec::new().lasting(true).label("user", "ada");
        /// let sandbox = provider.create(spec).await?;
        /// sandbox.write("notes", "to be continued").await?;
        /// let id = sandbox.info().id;
        /// drop(sandbox);
        /// // In this process or in another one:
        /// let sandbox = later.attach(&id).await?;
        /// assert_eq!(sandbox.read_to_string("notes").await?, "to be continued");
        /// # Ok(()) }
        /// ```
        lasting: bool,

        /// Closes it after this time without use.
        ttl: Some(Duration),

        /// Gives commands that name no timeout this one.
        command_timeout: Some(Duration),
    }

    /// Checks what can be checked without a backend.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] that names the field: a relative workdir or mount point, a
    /// relative host path, a limit or time of zero, a label over 63 bytes, an invalid variable, an egress
    /// policy without a meaning.
    pub fn validate(&self) -> Result<()> {
        const OP: Operation = Operation::Create;
        let invalid = |why: String| Error::new(ErrorKind::InvalidInput, OP).with_message(why);
        let absolute = |what: &str, path: &GuestPath| {
            if path.is_absolute() {
                return path.resolve(&GuestPath::root(), OP).map(drop);
            }
            Err(invalid(format!("{what} is relative")).with_path(path))
        };
        if let Some(workdir) = &self.workdir {
            absolute("the workdir", workdir)?;
        }
        for mount in &self.mounts {
            absolute("a mount's place in the sandbox", &mount.guest)?;
            if !mount.host.is_absolute() {
                return Err(
                    invalid("a mount's host path is relative".into()).with_host_path(&mount.host)
                );
            }
        }
        if let Source::RootDir(root) = &self.source
            && !root.is_absolute()
        {
            return Err(
                invalid("the root directory's path is relative".into()).with_host_path(root)
            );
        }
        let limits = &self.resources;
        for (name, zero) in [
            ("memory", limits.memory == Some(0)),
            (
                "cpus",
                limits
                    .cpus
                    .is_some_and(|cpus| !cpus.is_finite() || cpus <= 0.0),
            ),
            ("pids", limits.pids == Some(0)),
            ("disk", limits.disk == Some(0)),
            ("ttl", self.ttl == Some(Duration::ZERO)),
            (
                "command_timeout",
                self.command_timeout == Some(Duration::ZERO),
            ),
        ] {
            if zero {
                return Err(invalid(format!("{name} must be more than zero")));
            }
        }
        for (key, value) in &self.labels {
            if key.is_empty() || key.len() > 63 || value.len() > 63 {
                return Err(invalid(format!("label {key:?} is empty or over 63 bytes")));
            }
        }
        if let Network::Allow(policy) = &self.network {
            policy.validate(OP)?;
        }
        self.env.validate(OP)
    }
}

impl SandboxSpec {
    /// Refuses what a backend with these capabilities does not have: the first step of every
    /// [`create`](crate::Provider::create), after [`validate`](SandboxSpec::validate).
    ///
    /// The workdir, the environment, the command timeout and the required isolation need no
    /// capability. What holds of a backend beyond its capabilities, it checks itself.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] with the operation, the capability and the backend's reason.
    ///
    /// ```
    /// use sandbox_core::{Capabilities, Capability, Operation, Resources, SandboxSpec};
    /// const TOY: Capabilities = Capabilities::none("a toy").with(Capability::NetworkOff);
    /// assert!(SandboxSpec::new().require(&TOY, Operation::Create).is_ok());
    /// let spec = SandboxSpec::new().resources(Resources::new().pids(8));
    /// let error = spec.require(&TOY, Operation::Create).unwrap_err();
    /// assert_eq!(error.to_string(), "create: pids-limit is not supported: a toy");
    /// ```
    pub fn require(&self, capabilities: &Capabilities, operation: Operation) -> Result<()> {
        // Taken apart without `..`: a field that is added here does not compile until it is mapped.
        let Self {
            source,
            workdir: _,
            env: _,
            resources,
            network,
            user,
            isolation: _,
            mounts,
            labels,
            lasting,
            ttl,
            command_timeout: _,
        } = self;
        let Resources {
            memory,
            cpus,
            pids,
            disk,
        } = resources;
        let source = match source {
            Source::Default => None,
            Source::Image(_) => Some(Capability::Image),
            Source::RootDir(_) => Some(Capability::RootDir),
            Source::Snapshot(_) => Some(Capability::Snapshot),
        };
        let settled = network.clone().settle(capabilities);
        let (network, ports, credentials) = match &settled {
            Network::Off => (Capability::NetworkOff, false, false),
            Network::Allow(policy) => (
                Capability::EgressByName,
                policy.has_other_ports(),
                policy.has_credentials(),
            ),
            _ => (Capability::NetworkOpen, false, false),
        };
        let asked = [
            source,
            memory.map(|_| Capability::MemoryLimit),
            cpus.map(|_| Capability::CpuLimit),
            pids.map(|_| Capability::PidsLimit),
            disk.map(|_| Capability::DiskLimit),
            (!mounts.is_empty()).then_some(Capability::Mounts),
            (!labels.is_empty()).then_some(Capability::List),
            ttl.map(|_| Capability::Ttl),
            Some(network),
            ports.then_some(Capability::EgressPorts),
            credentials.then_some(Capability::EgressCredentials),
            (*user == GuestUser::Root).then_some(Capability::GuestRoot),
            lasting.then_some(Capability::Lasting),
        ];
        asked
            .into_iter()
            .flatten()
            .try_for_each(|capability| capabilities.require(capability, operation))
    }
}

/// Options of a fork.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(default, deny_unknown_fields, rename_all = "kebab-case")
)]
///
/// ```
/// use sandbox_core::ForkOptions;
/// let options = ForkOptions::new().label("attempt", "2");
/// assert_eq!(options.labels["attempt"], "2");
/// ```
#[non_exhaustive]
pub struct ForkOptions {
    /// The child's labels; the parent's are not inherited.
    pub labels: Labels,
}

impl ForkOptions {
    /// The defaults: a child without labels.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a label to the child.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }
}

/// Options of a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(default, deny_unknown_fields, rename_all = "kebab-case")
)]
///
/// ```
/// use sandbox_core::SnapshotOptions;
/// let options = SnapshotOptions::new().label("base", "rust-1.88");
/// assert_eq!(options.labels.len(), 1);
/// ```
#[non_exhaustive]
pub struct SnapshotOptions {
    /// The snapshot's labels.
    pub labels: Labels,
}

impl SnapshotOptions {
    /// The defaults: a snapshot without labels.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a label to the snapshot.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_spec_names_the_field() {
        for (spec, word) in [
            (SandboxSpec::new().workdir("here"), "workdir"),
            (
                SandboxSpec::new().mount(Mount::read_only("x", "/x")),
                "host path",
            ),
            (
                SandboxSpec::new().mount(Mount::read_only("/x", "x")),
                "mount",
            ),
            (
                SandboxSpec::new().resources(Resources::new().cpus(f64::NAN)),
                "cpus",
            ),
            (
                SandboxSpec::new().resources(Resources::new().memory(0)),
                "memory",
            ),
            (SandboxSpec::new().label("k", "v".repeat(64)), "label"),
            (SandboxSpec::new().env("A=B", "c"), "variable"),
            (SandboxSpec::new().ttl(Duration::ZERO), "ttl"),
        ] {
            let error = spec.validate().expect_err(word);
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
