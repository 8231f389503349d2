//! Revisions of an app and their replicas, as the service shows them.
//!
//! Source: <https://learn.microsoft.com/rest/api/containerapps/container-apps-revisions>

use serde::Deserialize;

use super::super::plane::nullable;
use super::super::word::words;

words! {
    /// What the service's probes say of a revision.
    pub enum RevisionHealth {
        /// All is well.
        Healthy = "Healthy",
        /// A probe fails, or a container does not run.
        Unhealthy = "Unhealthy",
        /// Nothing is known yet.
        None = "None",
    }
}

words! {
    /// What a revision does.
    pub enum RevisionState {
        /// It runs.
        Running = "Running",
        /// It is being started or stopped.
        Processing = "Processing",
        /// It has no replicas.
        Stopped = "Stopped",
        /// A part of it runs.
        Degraded = "Degraded",
        /// It can't be started.
        Failed = "Failed",
        /// The service does not know.
        Unknown = "Unknown",
    }
}

words! {
    /// What a container of a replica does.
    pub enum ContainerState {
        /// It runs.
        Running = "Running",
        /// It has ended.
        Terminated = "Terminated",
        /// It is about to be started.
        Waiting = "Waiting",
    }
}

/// A revision: a container that the app has or had.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct Revision {
    /// The name, which begins with the app's.
    pub name: String,
    /// What is known of it.
    pub properties: RevisionProperties,
}

/// What the service shows of a revision.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct RevisionProperties {
    /// Whether it may have replicas.
    #[serde(default, deserialize_with = "nullable")]
    pub active: bool,
    /// How many replicas it has.
    #[serde(default, deserialize_with = "nullable")]
    pub replicas: u32,
    /// The share of the requests, in percent.
    #[serde(default, deserialize_with = "nullable")]
    pub traffic_weight: u32,
    /// What the probes say.
    pub health_state: Option<RevisionHealth>,
    /// What it does.
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
    /// What is known of it.
    pub properties: ReplicaProperties,
}

/// What the service shows of a replica.
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
    /// How often it was started again.
    #[serde(default, deserialize_with = "nullable")]
    pub restart_count: u32,
    /// What it does.
    pub running_state: Option<ContainerState>,
    /// More about it, such as `CrashLoopBackOff`.
    pub running_state_details: Option<String>,
    pub(in super::super) log_stream_endpoint: Option<String>,
}
