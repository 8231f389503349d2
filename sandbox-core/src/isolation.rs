//! Report of the isolation in force, as probed.

use std::collections::BTreeMap;
use std::fmt;

macro_rules! controls {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// One way in which a sandbox is kept apart from its host.
        ///
        /// ```
        /// use sandbox_core::Control;
        /// assert_eq!(Control::SystemCalls.to_string(), "system-calls");
        /// ```
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
        #[non_exhaustive]
        pub enum Control { $($(#[$doc])* $name,)* }

        impl Control {
            /// Every control, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name in reports.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

controls! {
    /// The host's files are not there, or only read.
    Filesystem = "filesystem",
    /// The host's processes can be neither seen nor signalled.
    Processes = "processes",
    /// No network but the sandbox's own loopback.
    Network = "network",
    /// The host's shared memory, queues and abstract sockets are not there.
    Ipc = "ipc",
    /// No capability, no way to gain one, no other user's rights.
    Privileges = "privileges",
    /// System calls that only an attacker needs are refused.
    SystemCalls = "system-calls",
    /// A limit on memory.
    Memory = "memory",
    /// A limit on processor time.
    Cpu = "cpu",
    /// A limit on the number of processes.
    Pids = "pids",
    /// A limit on what may be written.
    Disk = "disk",
}

impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Degree to which a control is in force.
///
/// ```
/// use sandbox_core::Enforcement;
/// let memory = Enforcement::absent("no delegated cgroup");
/// assert_eq!(memory.to_string(), "absent: no delegated cgroup");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Enforcement {
    /// In force, by this means.
    Enforced {
        /// By what: "user and mount namespaces", ….
        by: String,
    },
    /// In force with a gap.
    Partial {
        /// By what.
        by: String,
        /// Description of the gap.
        why: String,
    },
    /// Not in force.
    Absent {
        /// Why not.
        why: String,
    },
}

impl Enforcement {
    /// In force, by this means.
    pub fn enforced(by: impl Into<String>) -> Self {
        Self::Enforced { by: by.into() }
    }

    /// In force by this means, with this gap.
    pub fn partial(by: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Partial {
            by: by.into(),
            why: why.into(),
        }
    }

    /// Not in force, for this reason.
    pub fn absent(why: impl Into<String>) -> Self {
        Self::Absent { why: why.into() }
    }

    /// Whether it is in force without a gap.
    pub fn is_enforced(&self) -> bool {
        matches!(self, Self::Enforced { .. })
    }
}

impl fmt::Display for Enforcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enforced { by } => write!(f, "enforced by {by}"),
            Self::Partial { by, why } => write!(f, "partial: {by}, but {why}"),
            Self::Absent { why } => write!(f, "absent: {why}"),
        }
    }
}

/// The isolation in force, per control. A control that is not named is absent.
///
/// `Display` prints a line for each control.
///
/// ```
/// use sandbox_core::{Control, Enforcement, IsolationReport};
/// let report = IsolationReport::new()
///     .with(Control::Network, Enforcement::enforced("a network namespace"));
/// assert!(report.is_enforced(Control::Network));
/// assert!(!report.is_enforced(Control::Memory));
/// assert_eq!(report.to_string(), "network       enforced by a network namespace\n");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub struct IsolationReport {
    controls: BTreeMap<Control, Enforcement>,
}

impl IsolationReport {
    /// A report that says nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a control.
    #[must_use]
    pub fn with(mut self, control: Control, enforcement: Enforcement) -> Self {
        self.controls.insert(control, enforcement);
        self
    }

    /// Degree to which a control is in force.
    pub fn get(&self, control: Control) -> Option<&Enforcement> {
        self.controls.get(&control)
    }

    /// Whether a control is in force without a gap.
    pub fn is_enforced(&self, control: Control) -> bool {
        self.get(control).is_some_and(Enforcement::is_enforced)
    }

    /// The controls that the report speaks of, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Control, &Enforcement)> {
        self.controls
            .iter()
            .map(|(control, enforcement)| (*control, enforcement))
    }
}

impl fmt::Display for IsolationReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (control, enforcement) in self.iter() {
            writeln!(f, "{:<14}{enforcement}", control.as_str())?;
        }
        Ok(())
    }
}
