//! Description of a sandbox: identifier, labels, state.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use crate::GuestPath;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
        pub struct $name(String);

        impl $name {
            /// An identifier that a backend gave out.
            pub fn new(id: impl Into<String>) -> Self {
                Self(id.into())
            }

            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id! {
    /// Names one sandbox within its provider.
    SandboxId
}
id! {
    /// Names a snapshot within its provider.
    SnapshotId
}

/// Free text by key, to find sandboxes by. Keys and values are at most 63 bytes.
pub type Labels = BTreeMap<String, String>;

/// Whether a sandbox is open, and where.
///
/// ```
/// use sandbox_core::SandboxStatus;
/// assert_eq!(SandboxStatus::default(), SandboxStatus::Open);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum SandboxStatus {
    /// Open in this provider, or running in the service behind it.
    #[default]
    Open,
    /// A lasting sandbox that another process, or another provider of this one, has open.
    /// [`attach`](crate::Provider::attach) and [`destroy`](crate::Provider::destroy) are
    /// [`Busy`](crate::ErrorKind::Busy) until that lets go of it.
    OpenElsewhere,
    /// A lasting sandbox that nothing has open: nothing runs in it, and
    /// [`attach`](crate::Provider::attach) starts it again.
    Stopped,
}

impl SandboxStatus {
    /// The name: lower case with hyphens.
    ///
    /// ```
    /// assert_eq!(sandbox_core::SandboxStatus::OpenElsewhere.as_str(), "open-elsewhere");
    /// ```
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::OpenElsewhere => "open-elsewhere",
            Self::Stopped => "stopped",
        }
    }
}

/// Facts about a sandbox that are known without asking it.
///
/// ```
/// use sandbox_core::{GuestPath, SandboxId, SandboxInfo};
/// let info = SandboxInfo::new(SandboxId::new("s1"), "toy", GuestPath::from("/work"));
/// assert_eq!(info.backend, "toy");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub struct SandboxInfo {
    /// Identifier of the sandbox.
    pub id: SandboxId,
    /// The backend: "local", "dagger", ….
    pub backend: Cow<'static, str>,
    /// The sandbox it was forked from.
    pub parent: Option<SandboxId>,
    /// Directory where relative paths and commands start.
    pub workdir: GuestPath,
    /// Labels given at creation.
    pub labels: Labels,
    /// Time of its creation.
    pub created: SystemTime,
    /// The timeout of commands that name none.
    #[cfg_attr(
        feature = "serde",
        serde(default, with = "crate::wire::seconds_or_none")
    )]
    pub command_timeout: Option<Duration>,
    /// Whether it stays when nothing has it open: [`SandboxSpec::lasting`](crate::SandboxSpec::lasting).
    #[cfg_attr(feature = "serde", serde(default))]
    pub lasting: bool,
    /// Whether it is open, and where.
    #[cfg_attr(feature = "serde", serde(default))]
    pub status: SandboxStatus,
    /// Time at which it was last started again, by an attach that found it stopped: no process in it,
    /// no job and no secret variable is older. `None` if it was not since its creation.
    #[cfg_attr(feature = "serde", serde(default))]
    pub restarted: Option<SystemTime>,
}

impl SandboxInfo {
    /// A sandbox of this backend, created now.
    pub fn new(id: SandboxId, backend: impl Into<Cow<'static, str>>, workdir: GuestPath) -> Self {
        Self {
            id,
            backend: backend.into(),
            parent: None,
            workdir,
            labels: Labels::new(),
            created: SystemTime::now(),
            command_timeout: None,
            lasting: false,
            status: SandboxStatus::Open,
            restarted: None,
        }
    }

    crate::setters! {
        /// Stays when nothing has it open.
        lasting: bool,

        /// Is open, or not.
        status: SandboxStatus,

        /// Forked from this sandbox.
        parent: Some(SandboxId),

        /// With this timeout for commands that name none.
        command_timeout: Option<Duration>,

        /// With these labels.
        labels: Labels,
    }
}

/// A snapshot: files kept under a name, from which sandboxes can be created.
///
/// ```
/// use sandbox_core::{Snapshot, SnapshotId, SandboxSpec, Source};
/// let snapshot = Snapshot::new(SnapshotId::new("base"));
/// let spec = SandboxSpec::new().source(Source::Snapshot(snapshot.id));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub struct Snapshot {
    /// Identifier of the snapshot, for [`Source::Snapshot`](crate::Source::Snapshot).
    pub id: SnapshotId,
    /// Size in bytes, where known.
    pub size: Option<u64>,
    /// Labels given at creation.
    pub labels: Labels,
    /// Time at which it was taken, where known.
    pub created: Option<SystemTime>,
}

impl Snapshot {
    /// A snapshot with this identifier.
    pub fn new(id: SnapshotId) -> Self {
        Self {
            id,
            size: None,
            labels: Labels::new(),
            created: None,
        }
    }

    crate::setters! {
        /// Sets the size in bytes.
        size: Some(u64),

        /// Sets the labels.
        labels: Labels,

        /// Sets when it was taken.
        created: Some(SystemTime),
    }
}
