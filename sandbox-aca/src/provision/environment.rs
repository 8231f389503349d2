//! Environments: the networks that container apps and jobs stand in.
//!
//! Source: <https://learn.microsoft.com/rest/api/containerapps/managed-environments>

use sandbox_core::{Result, Secret};
use serde::{Deserialize, Serialize};

use super::id::{ResourceId, name};
use super::managed::managed;
use super::operation::ProvisioningState;
use super::plane::ControlPlane;
use super::resource::{Kind, Resource, Target};
use super::role::Role;

pub(super) const KIND: Kind = Kind {
    path: "managedEnvironments",
    version: "2026-07-01",
    role: Role::ENVIRONMENT_CONTRIBUTOR,
    noun: "environment",
    az: "az containerapp env",
    checked: name,
};

/// Destination of the logs of an environment's apps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogDestination {
    /// Nowhere: only the stream has them.
    #[default]
    None,
    /// Azure Monitor, by the diagnostic settings of the environment.
    AzureMonitor,
    /// A Log Analytics workspace, by its customer id and shared key. The service calls this way
    /// legacy since 2026-08-18.
    LogAnalytics(String, Secret),
}

/// Specification of an environment. Default: no access from outside, Consumption profile, no logs.
///
/// ```
/// use sandbox_aca::provision::{EnvironmentSpec, LogDestination};
/// let spec = EnvironmentSpec::new().logs(LogDestination::AzureMonitor).peer_tls(true);
/// assert!(!spec.internal);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EnvironmentSpec {
    /// Whether its apps can be reached from its network only. Needs a subnet.
    pub internal: bool,
    /// The subnet that its apps are in; a network of the service's own if `None`.
    pub subnet: Option<ResourceId>,
    /// Destination of logs.
    pub logs: LogDestination,
    /// Whether apps prove who they are to each other by certificates of the environment.
    pub peer_tls: bool,
}

impl Default for EnvironmentSpec {
    fn default() -> Self {
        Self::new()
    }
}

impl EnvironmentSpec {
    /// An environment in a network of the service's own.
    pub fn new() -> Self {
        Self {
            internal: false,
            subnet: None,
            logs: LogDestination::None,
            peer_tls: false,
        }
    }

    /// Stands in this subnet and can be reached from its network only.
    #[must_use]
    pub fn internal(mut self, subnet: ResourceId) -> Self {
        self.internal = true;
        self.subnet = Some(subnet);
        self
    }

    sandbox_core::setters! {
        /// Stands in this subnet, and may have external apps.
        subnet: Some(ResourceId),

        /// Sends logs there.
        logs: LogDestination,

        /// Sets whether apps prove who they are to each other.
        peer_tls: bool,
    }

    pub(super) fn wire(&self, secrets: bool) -> Wire {
        Wire {
            workload_profiles: vec![WorkloadProfile {
                name: CONSUMPTION,
                workload_profile_type: CONSUMPTION,
            }],
            vnet_configuration: self.subnet.as_ref().map(|subnet| Vnet {
                internal: self.internal,
                infrastructure_subnet_id: subnet.clone(),
            }),
            app_logs_configuration: match &self.logs {
                LogDestination::None => None,
                LogDestination::AzureMonitor => Some(AppLogs {
                    destination: "azure-monitor",
                    log_analytics_configuration: None,
                }),
                LogDestination::LogAnalytics(customer_id, key) => Some(AppLogs {
                    destination: "log-analytics",
                    log_analytics_configuration: Some(LogAnalytics {
                        customer_id: customer_id.clone(),
                        shared_key: secrets
                            .then(|| String::from_utf8_lossy(key.expose()).into_owned()),
                    }),
                }),
            },
            peer_authentication: self.peer_tls.then_some(Peer {
                mtls: Enabled { enabled: true },
            }),
        }
    }
}

const CONSUMPTION: &str = "Consumption";

/// An environment as it is sent.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Wire {
    workload_profiles: Vec<WorkloadProfile>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vnet_configuration: Option<Vnet>,
    #[serde(skip_serializing_if = "Option::is_none")]
    app_logs_configuration: Option<AppLogs>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_authentication: Option<Peer>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WorkloadProfile {
    name: &'static str,
    workload_profile_type: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Vnet {
    internal: bool,
    infrastructure_subnet_id: ResourceId,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AppLogs {
    destination: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_analytics_configuration: Option<LogAnalytics>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LogAnalytics {
    customer_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    shared_key: Option<String>,
}

#[derive(Serialize)]
struct Peer {
    mtls: Enabled,
}

#[derive(Serialize)]
struct Enabled {
    enabled: bool,
}

/// Properties that the service shows of an environment.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct EnvironmentProperties {
    /// Progress of the service with it.
    pub provisioning_state: Option<ProvisioningState>,
    /// The domain of its apps.
    pub default_domain: Option<String>,
    /// The address of its ingress.
    pub static_ip: Option<String>,
}

/// An environment, which may not be there yet.
#[derive(Clone, Debug)]
pub struct Environment {
    pub(super) plane: ControlPlane,
    pub(super) target: Target,
}

managed! {
    /// The environment of this name, which may not be there yet.
    ///
    /// # Errors
    /// [`InvalidInput`](sandbox_core::ErrorKind::InvalidInput) if it can't be a name.
    environment -> Environment, of KIND;

    /// The environments of the resource group, of every owner.
    ///
    /// # Errors
    /// What the service answers.
    environments;

    /// Makes it what `spec` says, or leaves it if it was asked for so already.
    ///
    /// # Errors
    /// What the service answers; [`AlreadyExists`](sandbox_core::ErrorKind::AlreadyExists) if it is
    /// another owner's; [`Unavailable`](sandbox_core::ErrorKind::Unavailable) with what the service
    /// last said, if that took too long.
    /// Dropping the future leaves the service at work; asking again takes it up.
    ensure(EnvironmentSpec) -> EnvironmentProperties;

    /// Deletes it and waits until it is gone; nothing to do if it is not there.
    ///
    /// # Errors
    /// What the service answers: it may refuse to delete one that has apps.
    delete;
}

impl Environment {
    async fn put(
        &self,
        spec: &EnvironmentSpec,
        anyway: bool,
    ) -> Result<Resource<EnvironmentProperties>> {
        let location = format!(" --location {}", self.plane.config().location);
        let step = self.target.step("create", "create", &location);
        let desired = self
            .plane
            .desired(&spec.wire(true), &spec.wire(false), None)?;
        let _lock = self.plane.lock(&self.target.id).await;
        let put = self.plane.put(&step, &self.target, &desired, anyway);
        put.await?.json(&step)
    }
}
