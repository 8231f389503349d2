//! Revisions of an app and their replicas, as the service shows them.
//!
//! Source: <https://learn.microsoft.com/rest/api/containerapps/container-apps-revisions>

use serde::Deserialize;

use super::super::resource::nullable;
use super::super::word::words;

words! {
    /// Health of a revision, as the service's probes say.
    pub enum RevisionHealth {
        /// All its replicas are healthy.
        Healthy = "Healthy",
        /// A probe fails, or a container does not run.
        Unhealthy = "Unhealthy",
        /// Nothing is known yet.
        None = "None",
    }
}

words! {
    /// Running state of a revision.
    pub enum RevisionState {
        /// Running.
        Running = "Running",
        /// Being started or stopped.
        Processing = "Processing",
        /// Without replicas.
        Stopped = "Stopped",
        /// A part of it runs.
        Degraded = "Degraded",
        /// Unable to be started.
        Failed = "Failed",
        /// The service does not know.
        Unknown = "Unknown",
    }
}

words! {
    /// Running state of a container of a replica.
    pub enum ContainerState {
        /// Running.
        Running = "Running",
        /// Ended.
        Terminated = "Terminated",
        /// About to be started.
        Waiting = "Waiting",
    }
}

/// A revision: a container that the app has or had.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct Revision {
    /// The name, which begins with the app's.
    pub name: String,
    /// Properties that are known.
    pub properties: RevisionProperties,
}

/// Properties that the service shows of a revision.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct RevisionProperties {
    /// Whether it may have replicas.
    #[serde(default, deserialize_with = "nullable")]
    pub active: bool,
    /// Number of its replicas.
    #[serde(default, deserialize_with = "nullable")]
    pub replicas: u32,
    /// The share of the requests, in percent.
    #[serde(default, deserialize_with = "nullable")]
    pub traffic_weight: u32,
    /// Health, as the probes say.
    pub health_state: Option<RevisionHealth>,
    /// Running state.
    pub running_state: Option<RevisionState>,
    /// `Provisioning`, `Provisioned`, `Failed`, `Deprovisioning` or `Deprovisioned`.
    pub provisioning_state: Option<String>,
    /// Why it could not be made.
    pub provisioning_error: Option<String>,
    /// The labels, where the service shows them.
    #[serde(default, deserialize_with = "nullable")]
    pub labels: Vec<String>,
}

/// A replica of a revision.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct Replica {
    /// The name.
    pub name: String,
    /// Properties that are known.
    pub properties: ReplicaProperties,
}

/// Properties that the service shows of a replica.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ReplicaProperties {
    /// `Running`, `NotRunning` or `Unknown`.
    pub running_state: Option<String>,
    /// More about it.
    pub running_state_details: Option<String>,
    /// The containers.
    #[serde(default, deserialize_with = "nullable")]
    pub containers: Vec<ReplicaContainer>,
}

/// A container of a replica.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ReplicaContainer {
    /// The name.
    pub name: String,
    /// Whether it gets requests.
    #[serde(default, deserialize_with = "nullable")]
    pub ready: bool,
    /// Whether it has started.
    #[serde(default, deserialize_with = "nullable")]
    pub started: bool,
    /// Number of times that it was started again.
    #[serde(default, deserialize_with = "nullable")]
    pub restart_count: u32,
    /// Running state.
    pub running_state: Option<ContainerState>,
    /// More about it, such as `CrashLoopBackOff`.
    pub running_state_details: Option<String>,
    pub(in super::super) log_stream_endpoint: Option<String>,
}
