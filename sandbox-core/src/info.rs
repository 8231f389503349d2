//! Who a sandbox is: identifier, labels, state.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::GuestPath;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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

/// What is known of a sandbox without asking it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SandboxInfo {
    /// Its identifier.
    pub id: SandboxId,
    /// The backend: "local", "dagger", ….
    pub backend: &'static str,
    /// The sandbox it was forked from.
    pub parent: Option<SandboxId>,
    /// Where relative paths and commands start.
    pub workdir: GuestPath,
    /// Its labels.
    pub labels: Labels,
    /// When it was created.
    pub created: SystemTime,
    /// The timeout of commands that name none.
    pub command_timeout: Option<Duration>,
}

impl SandboxInfo {
    /// A sandbox of this backend, created now.
    pub fn new(id: SandboxId, backend: &'static str, workdir: GuestPath) -> Self {
        Self {
            id,
            backend,
            parent: None,
            workdir,
            labels: Labels::new(),
            created: SystemTime::now(),
            command_timeout: None,
        }
    }

    /// Forked from this sandbox.
    #[must_use]
    pub fn parent(mut self, parent: SandboxId) -> Self {
        self.parent = Some(parent);
        self
    }

    /// With this timeout for commands that name none.
    #[must_use]
    pub fn command_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.command_timeout = timeout;
        self
    }

    /// With these labels.
    #[must_use]
    pub fn labels(mut self, labels: Labels) -> Self {
        self.labels = labels;
        self
    }
}

/// What a snapshot is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Its identifier, for [`Source::Snapshot`](crate::Source::Snapshot).
    pub id: SnapshotId,
    /// Its size in bytes, where known.
    pub size: Option<u64>,
}

impl Snapshot {
    /// A snapshot with this identifier.
    pub fn new(id: SnapshotId) -> Self {
        Self { id, size: None }
    }
}
