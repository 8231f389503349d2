//! Use of a sandbox at the moment: processor time, memory, processes, disk, network.
//!
//! A figure that is not known must never be shown as zero.

use std::time::Duration;

/// Usage of a sandbox when it was asked: everything in it, background processes included.
///
/// ```
/// use sandbox_core::Usage;
/// let usage = Usage::new().memory(3 << 20).processes(2);
/// assert_eq!((usage.memory, usage.cpu), (Some(3 << 20), None));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, rename_all = "kebab-case"))]
#[non_exhaustive]
pub struct Usage {
    /// Processor time of all its processes so far, those that have ended included.
    #[cfg_attr(feature = "serde", serde(with = "crate::wire::seconds_or_none"))]
    pub cpu: Option<Duration>,
    /// Memory that it holds now, in bytes; whether caches count is the backend's to say.
    pub memory: Option<u64>,
    /// The most memory that it has held, in bytes.
    pub memory_peak: Option<u64>,
    /// Number of processes now.
    pub processes: Option<u64>,
    /// Bytes on disk, or in memory for one with a limit on disk, of what it wrote and did not
    /// remove.
    pub disk: Option<u64>,
    /// Bytes sent to the network, where the backend carries them.
    pub network_sent: Option<u64>,
    /// Bytes received from the network, where the backend carries them.
    pub network_received: Option<u64>,
}

impl Usage {
    /// Usage of which nothing is known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the processor time.
    #[must_use]
    pub fn cpu(mut self, cpu: Duration) -> Self {
        self.cpu = Some(cpu);
        self
    }

    /// Sets the memory that is held now, in bytes.
    #[must_use]
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = Some(bytes);
        self
    }

    /// Sets the number of processes.
    #[must_use]
    pub fn processes(mut self, processes: u64) -> Self {
        self.processes = Some(processes);
        self
    }
}
