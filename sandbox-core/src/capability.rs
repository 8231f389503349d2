//! Capabilities: what a backend can do, declared beforehand and tested in both directions.
//!
//! Invariant: what a backend does not declare, it does not have.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use crate::{Error, Operation};

macro_rules! capabilities {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A feature that not every backend has.
        ///
        /// ```
        /// use sandbox_core::Capability;
        /// assert_eq!(Capability::NetworkOff.to_string(), "network-off");
        /// ```
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
        #[non_exhaustive]
        pub enum Capability { $($(#[$doc])* $name,)* }

        impl Capability {
            /// Every capability, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name in reports: lower case with hyphens.
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
    /// [`Provider::list_snapshots`](crate::Provider::list_snapshots).
    SnapshotList = "snapshot-list",
    /// [`Provider::delete_snapshot`](crate::Provider::delete_snapshot).
    SnapshotDelete = "snapshot-delete",
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
    /// Hosts by name, everything else denied: [`Network::Allow`](crate::Network::Allow),
    /// [`egress_decisions`](crate::Sandbox::egress_decisions) and
    /// [`restrict_egress`](crate::Sandbox::restrict_egress).
    EgressByName = "egress-by-name",
    /// Rules for raw TCP and for other ports than 80 and 443.
    EgressPorts = "egress-ports",
    /// Rules whose headers or upstream the host adds, so that the sandbox never has them.
    EgressCredentials = "egress-credentials",
    /// A terminal instead of pipes: [`Command::terminal`](crate::Command::terminal).
    Terminal = "terminal",
    /// Commands that are found again by a key: [`start_job`](crate::Sandbox::start_job).
    Jobs = "jobs",
    /// Connections to what listens in the sandbox:
    /// [`connect_port`](crate::Sandbox::connect_port).
    Ports = "ports",
    /// One file as a stream: [`open_read`](crate::Sandbox::open_read) and
    /// [`open_write`](crate::Sandbox::open_write).
    FileStreams = "file-streams",
    /// Difference from the files that it began with: [`changes`](crate::Sandbox::changes).
    Changes = "changes",
    /// Figures of its use at the moment: [`usage`](crate::Sandbox::usage).
    Usage = "usage",
    /// Standing still: [`pause`](crate::Sandbox::pause) and [`resume`](crate::Sandbox::resume).
    Pause = "pause",
    /// Programs that run as root of the sandbox's own files:
    /// [`GuestUser::Root`](crate::GuestUser::Root).
    GuestRoot = "guest-root",
    /// Sandboxes that stay when nothing has them open:
    /// [`SandboxSpec::lasting`](crate::SandboxSpec::lasting).
    Lasting = "lasting",
    /// Events of what changes below a directory: [`watch`](crate::Sandbox::watch).
    Watch = "watch",
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether a backend has a capability.
///
/// The reasons are texts that a backend knows at compile time or learns from a remote service.
///
/// ```
/// use sandbox_core::{Capabilities, Capability, Support};
/// let capabilities = Capabilities::none("a toy").partial(Capability::Fork, "copies every file");
/// assert_eq!(
///     capabilities.support(Capability::Fork),
///     Support::Partial("copies every file".into()),
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum Support {
    /// Supported as the contract says.
    Full,
    /// Supported with this exception, or only where the host grants it.
    Partial(Cow<'static, str>),
    /// Not supported, for this reason; an operation that needs it fails with
    /// [`Unsupported`](crate::ErrorKind::Unsupported).
    None(Cow<'static, str>),
}

impl Support {
    /// The exception or the reason; empty for full support.
    pub fn reason(&self) -> &str {
        match self {
            Self::Full => "",
            Self::Partial(reason) | Self::None(reason) => reason,
        }
    }
}

/// A support that a constant can hold.
#[derive(Clone, Copy, Debug)]
enum Slot {
    Full,
    Partial(&'static str),
    None(&'static str),
    /// Said at run time: it stands in the map.
    Said,
}

/// The capabilities of a backend: known without I/O, and closed by default.
///
/// Everything starts as not supported, and a backend lists what it supports. So a capability that
/// a later version of this crate adds is never claimed by a backend that does not know it.
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
#[derive(Clone)]
pub struct Capabilities {
    slots: [Slot; Capability::ALL.len()],
    said: BTreeMap<Capability, Support>,
}

impl Capabilities {
    /// No capability, for this reason.
    pub const fn none(reason: &'static str) -> Self {
        Self {
            slots: [Slot::None(reason); Capability::ALL.len()],
            said: BTreeMap::new(),
        }
    }

    /// Adds a capability.
    #[must_use]
    pub const fn with(self, capability: Capability) -> Self {
        self.put(capability, Slot::Full)
    }

    /// Adds several capabilities.
    ///
    /// ```
    /// use sandbox_core::{Capabilities, Capability};
    /// const FILES: Capabilities = Capabilities::none("only files")
    ///     .with_each(&[Capability::Symlinks, Capability::Modes]);
    /// assert!(FILES.has(Capability::Modes));
    /// ```
    #[must_use]
    pub const fn with_each(mut self, capabilities: &[Capability]) -> Self {
        let mut next = 0;
        while next < capabilities.len() {
            self.slots[capabilities[next] as usize] = Slot::Full;
            next += 1;
        }
        self
    }

    /// Adds a capability with an exception.
    #[must_use]
    pub const fn partial(self, capability: Capability, except: &'static str) -> Self {
        self.put(capability, Slot::Partial(except))
    }

    /// Removes a capability, for a reason.
    #[must_use]
    pub const fn without(self, capability: Capability, reason: &'static str) -> Self {
        self.put(capability, Slot::None(reason))
    }

    const fn put(mut self, capability: Capability, slot: Slot) -> Self {
        self.slots[capability as usize] = slot;
        self
    }

    /// Sets how a capability is supported, with a reason that is known only at run time: what a
    /// remote service says of itself.
    ///
    /// ```
    /// use sandbox_core::{Capabilities, Capability, Support};
    /// let tier = "tier S";
    /// let mut capabilities = Capabilities::none("the service does not say");
    /// capabilities.set(Capability::Fork, Support::None(format!("not in {tier}").into()));
    /// assert_eq!(
    ///     capabilities.support(Capability::Fork),
    ///     Support::None("not in tier S".into()),
    /// );
    /// ```
    pub fn set(&mut self, capability: Capability, support: Support) {
        self.slots[capability as usize] = Slot::Said;
        self.said.insert(capability, support);
    }

    /// Whether a capability is supported, fully or in part.
    pub fn has(&self, capability: Capability) -> bool {
        !matches!(self.support(capability), Support::None(_))
    }

    /// The support of one capability.
    pub fn support(&self, capability: Capability) -> Support {
        match self.slots[capability as usize] {
            Slot::Full => Support::Full,
            Slot::Partial(except) => Support::Partial(Cow::Borrowed(except)),
            Slot::None(reason) => Support::None(Cow::Borrowed(reason)),
            Slot::Said => match self.said.get(&capability) {
                Some(support) => support.clone(),
                None => Support::None(Cow::Borrowed("the backend does not say")),
            },
        }
    }

    /// Refuses an operation that needs a capability which is not supported.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) with the operation and the reason.
    ///
    /// ```
    /// use sandbox_core::{Capabilities, Capability, ErrorKind, Operation};
    /// let toy = Capabilities::none("a toy");
    /// let error = toy.require(Capability::Fork, Operation::Fork).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Unsupported);
    /// assert_eq!(error.to_string(), "fork: fork is not supported: a toy");
    /// ```
    pub fn require(&self, capability: Capability, operation: Operation) -> crate::Result<()> {
        match self.support(capability) {
            Support::None(reason) => Err(Error::unsupported(operation, capability, &reason)),
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

impl PartialEq for Capabilities {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Capabilities {}

impl fmt::Debug for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Capabilities {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Capabilities {
    /// A capability that the text does not name is not supported.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let said =
            <BTreeMap<Capability, Support> as serde::Deserialize>::deserialize(deserializer)?;
        let mut capabilities = Self::none("the text does not name it");
        for (capability, support) in said {
            capabilities.set(capability, support);
        }
        Ok(capabilities)
    }
}

/// The error of a method that a backend did not write.
pub(crate) fn refuse(
    capabilities: &Capabilities,
    needs: Capability,
    operation: Operation,
) -> crate::Error {
    match capabilities.require(needs, operation) {
        Err(error) => error,
        Ok(()) => crate::Error::unsupported(operation, needs, "declared but not implemented"),
    }
}
