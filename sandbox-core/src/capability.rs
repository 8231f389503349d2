//! What a backend can do, said beforehand and tested in both directions.

use std::fmt;

use serde::Serialize;

use crate::{Error, Operation};

macro_rules! capabilities {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Something that not every backend can do.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[non_exhaustive]
        pub enum Capability { $($(#[$doc])* $name,)* }

        impl Capability {
            /// Every capability, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its name in reports: lower case with hyphens.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

capabilities! {
    /// Running programs at all: [`exec`](crate::Sandbox::exec).
    Exec = "exec",
    /// [`spawn`](crate::Sandbox::spawn): output as it comes, backpressure.
    Spawn = "spawn",
    /// Writing to a spawned command's standard input while it runs.
    StdinPipe = "stdin-pipe",
    /// Signals to a spawned command.
    Signals = "signals",
    /// Running a command as another user of the sandbox.
    User = "user",
    /// A kill reaches daemons that left their process group and session.
    KillDaemons = "kill-daemons",
    /// Background processes live on after the command that started them ended.
    Background = "background",
    /// Independent copies of the filesystem: [`fork`](crate::Sandbox::fork).
    Fork = "fork",
    /// Forks that copy memory and running processes.
    ForkMemory = "fork-memory",
    /// [`snapshot`](crate::Sandbox::snapshot) and creating from one.
    Snapshot = "snapshot",
    /// [`Provider::list`](crate::Provider::list) and labels.
    List = "list",
    /// [`Provider::attach`](crate::Provider::attach) by identifier.
    Attach = "attach",
    /// A time to live.
    Ttl = "ttl",
    /// Starting from an image.
    Image = "image",
    /// Starting from a directory of the host.
    RootDir = "root-dir",
    /// Mounts of host directories.
    Mounts = "mounts",
    /// Symbolic links.
    Symlinks = "symlinks",
    /// Permission bits.
    Modes = "modes",
    /// Names that are not UTF-8.
    NonUtf8Names = "non-utf8-names",
    /// Files that the guest's user may not read or write are refused to the file API too.
    FilePermissions = "file-permissions",
    /// No network but loopback.
    NetworkOff = "network-off",
    /// The host's network.
    NetworkOpen = "network-open",
    /// A limit on memory.
    MemoryLimit = "memory-limit",
    /// A limit on processor time.
    CpuLimit = "cpu-limit",
    /// A limit on the number of processes.
    PidsLimit = "pids-limit",
    /// A limit on what may be written.
    DiskLimit = "disk-limit",
    /// Real isolation from the host, as [`isolation`](crate::Sandbox::isolation) reports it.
    Isolation = "isolation",
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether a backend has a capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Support {
    /// It does what the contract says.
    Full,
    /// It does, with this exception; or only where the host grants it.
    Partial(&'static str),
    /// It does not, for this reason; what needs it is
    /// [`Unsupported`](crate::ErrorKind::Unsupported).
    None(&'static str),
}

/// What a backend can do. Known without I/O: a constant of the backend.
///
/// ```
/// use sandbox_core::{Capabilities, Capability, Support};
/// const CAPABILITIES: Capabilities = Capabilities::none("a toy has none")
///     .with(Capability::Exec)
///     .partial(Capability::Fork, "copies every file")
///     .without(Capability::Snapshot, "nothing outlives the process");
/// assert!(CAPABILITIES.has(Capability::Fork));
/// assert!(!CAPABILITIES.has(Capability::Mounts));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    support: [Support; Capability::ALL.len()],
}

impl Capabilities {
    /// No capability, for this reason.
    pub const fn none(reason: &'static str) -> Self {
        Self {
            support: [Support::None(reason); Capability::ALL.len()],
        }
    }

    /// Every capability.
    pub const fn all() -> Self {
        Self {
            support: [Support::Full; Capability::ALL.len()],
        }
    }

    /// With this capability.
    #[must_use]
    pub const fn with(self, capability: Capability) -> Self {
        self.set(capability, Support::Full)
    }

    /// With this capability, except for something.
    #[must_use]
    pub const fn partial(self, capability: Capability, except: &'static str) -> Self {
        self.set(capability, Support::Partial(except))
    }

    /// Without this capability, for a reason.
    #[must_use]
    pub const fn without(self, capability: Capability, reason: &'static str) -> Self {
        self.set(capability, Support::None(reason))
    }

    const fn set(mut self, capability: Capability, support: Support) -> Self {
        self.support[capability as usize] = support;
        self
    }

    /// Whether a capability is there, fully or in part.
    pub fn has(&self, capability: Capability) -> bool {
        !matches!(self.support(capability), Support::None(_))
    }

    /// How a capability is there.
    pub fn support(&self, capability: Capability) -> Support {
        self.support[capability as usize]
    }

    /// Refuses what needs a capability that is not there.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) with the operation and the reason.
    pub fn require(&self, capability: Capability, operation: Operation) -> crate::Result<()> {
        match self.support(capability) {
            Support::None(reason) => Err(Error::unsupported(operation, capability, reason)),
            _ => Ok(()),
        }
    }

    /// Every capability with its support, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Capability, Support)> {
        Capability::ALL
            .iter()
            .map(|capability| (*capability, self.support(*capability)))
    }
}
