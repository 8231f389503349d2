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
        }
    }

    crate::setters! {
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
