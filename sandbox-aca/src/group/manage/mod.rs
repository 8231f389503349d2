//! Operations of the service beyond the trait: for one sandbox, [`AcaHandle`]; for the group,
//! methods of [`AcaSandboxProvider`](crate::AcaSandboxProvider).
//!
//! Nothing here resumes, keeps or deletes what the caller did not name.

mod egress;
mod group;
mod handle;
mod port;

use std::time::Duration;

use sandbox_core::{Labels, SnapshotId};
use serde_json::{Value, json};

pub use egress::{
    EgressAction, EgressDecisions, EgressPolicy, EgressRule, EgressScheme, Inspection,
};
pub use group::{AcaSnapshot, DiskImage, NewDiskImage, Reaped, Volume, VolumeKind};
pub use handle::{AcaHandle, AcaSandboxState, AcaState, AcaStats, Usage};
pub use port::{Access, IpRule, NewPort, Port, PortAuth, PortProtocol};

/// Times after which the service suspends and deletes a sandbox by itself. Replaces the whole policy.
///
/// The service deletes what is *suspended*, so that a sandbox which is never suspended is never
/// deleted. Outbound traffic is not activity: an idle sandbox with a live outbound connection is
/// suspended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lifecycle {
    /// After so long without a request it is suspended, in whole seconds; never if `None`.
    pub suspend_after: Option<Duration>,
    /// Whether its memory is kept when it is suspended; otherwise only its files are, which the
    /// service demands of one with a data disk. Default: yes.
    pub keep_memory: bool,
    /// Time from the suspension to the deletion, in whole seconds; never if `None`. Some versions
    /// of the service may count from its creation or its last use instead: none says so.
    pub delete_after: Option<Duration>,
}

impl Lifecycle {
    /// Suspended after this time without a request, and deleted when the same time has passed
    /// again; without a time, neither.
    pub fn new(time: Option<Duration>) -> Self {
        Self {
            suspend_after: time,
            keep_memory: true,
            delete_after: time,
        }
    }

    sandbox_core::setters! {
        /// Suspended after this time.
        suspend_after: Some(Duration),

        /// Suspended without its memory: what runs in it ends then.
        keep_memory: bool,
    }

    pub(crate) fn body(&self) -> Value {
        let suspend = match self.suspend_after {
            Some(after) => {
                let mode = if self.keep_memory { "Memory" } else { "Disk" };
                json!({"enabled": true, "interval": after.as_secs().max(1), "mode": mode})
            }
            None => json!({"enabled": false}),
        };
        let delete = match self.delete_after {
            Some(after) => {
                json!({"enabled": true, "deleteIntervalInSeconds": after.as_secs().max(1)})
            }
            None => json!({"enabled": false}),
        };
        json!({"autoSuspendPolicy": suspend, "autoDeletePolicy": delete})
    }
}

/// Origin of a sandbox, where a [`Source`](sandbox_core::Source) can't say it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AcaSource {
    /// A public disk image, by name.
    PublicImage(String),
    /// A disk image of the group, by identifier.
    DiskImage(String),
    /// One of the service's presets, by name.
    Preset(String),
    /// A snapshot. Its environment, resources and processes are inherited; the processes are ended.
    Snapshot(SnapshotId),
}

/// A volume within a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VolumeMount {
    /// The group's volume.
    pub volume: String,
    /// Absolute path in the guest.
    pub mount_point: String,
    /// Whether it can't be written.
    pub read_only: bool,
}

impl VolumeMount {
    /// Mount of this volume, writable, at this absolute path.
    pub fn new(volume: impl Into<String>, mount_point: impl Into<String>) -> Self {
        Self {
            volume: volume.into(),
            mount_point: mount_point.into(),
            read_only: false,
        }
    }

    sandbox_core::setters! {
        /// Not to be written.
        read_only: bool,
    }

    fn body(&self) -> Value {
        json!({
            "volumeName": self.volume,
            "mountpoint": self.mount_point,
            "readOnly": self.read_only,
        })
    }
}

/// Options of [`AcaSandboxProvider::create_with`](crate::AcaSandboxProvider::create_with): what it
/// asks of the service beyond the spec. What is `None` is as the provider's configuration says.
///
/// ```
/// use std::time::Duration;
/// use sandbox_aca::{AcaOptions, Lifecycle, NewPort};
/// let options = AcaOptions::new()
///     .memory("4096Mi")
///     .lifecycle(Lifecycle::new(Some(Duration::from_secs(600))))
///     .port(NewPort::new(8080));
/// assert_eq!(options.ports.len(), 1);
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct AcaOptions {
    /// Origin of the sandbox; the spec's source if `None`.
    pub source: Option<AcaSource>,
    /// Processors, such as `500m`. Not for presets and snapshots.
    pub cpu: Option<String>,
    /// Memory, such as `1024Mi`. Not for presets and snapshots.
    pub memory: Option<String>,
    /// Disk, such as `20Gi`. Not for presets and snapshots.
    pub disk: Option<String>,
    /// Times after which the service suspends and deletes it.
    pub lifecycle: Option<Lifecycle>,
    /// Egress policy, instead of what the spec's network says.
    pub egress: Option<EgressPolicy>,
    /// Ports that are open from the beginning.
    pub ports: Vec<NewPort>,
    /// Volumes that are mounted from the beginning. Not for snapshots.
    pub volumes: Vec<VolumeMount>,
}

macro_rules! with {
    ($($(#[$doc:meta])* $name:ident, $field:ident: $type:ty;)*) => {
        impl AcaOptions {
            /// The defaults: nothing beyond the spec.
            pub fn new() -> Self {
                Self::default()
            }

            $($(#[$doc])*
            #[must_use]
            pub fn $name(mut self, $field: $type) -> Self {
                self.$field = Some($field.into());
                self
            })*

            /// Adds a port.
            #[must_use]
            pub fn port(mut self, port: NewPort) -> Self {
                self.ports.push(port);
                self
            }

            /// Mounts a volume.
            #[must_use]
            pub fn volume(mut self, volume: VolumeMount) -> Self {
                self.volumes.push(volume);
                self
            }
        }
    };
}

with! {
    /// Made from this.
    source, source: AcaSource;
    /// With so many processors, such as `500m`.
    cpu, cpu: impl Into<String>;
    /// With so much memory, such as `1024Mi`.
    memory, memory: impl Into<String>;
    /// With so much disk, such as `20Gi`.
    disk, disk: impl Into<String>;
    /// Suspended and deleted like this.
    lifecycle, lifecycle: Lifecycle;
    /// May reach this.
    egress, egress: EgressPolicy;
}

impl AcaOptions {
    /// The body of a creation, without what the environment and the spec's network say.
    pub(crate) fn volumes_body(&self) -> Value {
        self.volumes.iter().map(VolumeMount::body).collect()
    }
}

/// Labels of a resource.
fn labels(of: &Value) -> Labels {
    let pairs = of["labels"].as_object().into_iter().flatten();
    pairs
        .filter(|(key, _)| *key != crate::group::create_once::CREATE_LABEL)
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

/// A text field; empty if it is not there.
fn text(of: &Value, key: &str) -> String {
    of[key].as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifecycle_says_what_is_kept_and_what_is_off() {
        let minute = Duration::from_secs(60);
        let never = Lifecycle::new(None).body();
        assert_eq!(never["autoSuspendPolicy"], json!({"enabled": false}));
        assert_eq!(never["autoDeletePolicy"], json!({"enabled": false}));
        let life = Lifecycle::new(Some(minute));
        let delete = json!({"enabled": true, "deleteIntervalInSeconds": 60});
        assert_eq!(life.body()["autoDeletePolicy"], delete);
        let suspend = |life: &Lifecycle| life.body()["autoSuspendPolicy"].clone();
        let memory = json!({"enabled": true, "interval": 60, "mode": "Memory"});
        assert_eq!(suspend(&life), memory);
        assert_eq!(suspend(&life.keep_memory(false))["mode"], "Disk");
    }
}
