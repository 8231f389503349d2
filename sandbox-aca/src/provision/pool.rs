//! Session pools: what dynamic sessions are in, of code interpreters and of custom containers.
//!
//! Source: <https://learn.microsoft.com/rest/api/containerapps/container-apps-session-pools>

use std::time::Duration;

use reqwest::Method;
use sandbox_core::{ErrorKind, Result, Secret};
use serde::{Deserialize, Serialize};

use super::arm::Call;
use super::assignment::{PrincipalType, RoleAssignment};
use super::container::{Container, Wire as ContainerWire};
use super::id::{PrincipalId, ResourceId, name};
use super::managed::managed;
use super::operation::ProvisioningState;
use super::plane::ControlPlane;
use super::resource::{Identity, Kind, Resource, Target};
use super::role::Role;
use super::word::words;

pub(super) const KIND: Kind = Kind {
    path: "sessionPools",
    // The newest that has Shell, Node and MCP.
    version: "2025-10-02-preview",
    role: Role::SESSION_POOL_CONTRIBUTOR,
    noun: "session pool",
    az: "az containerapp sessionpool",
    checked: name,
};

words! {
    /// Type of a pool: what its sessions run.
    pub enum PoolType {
        /// Python code.
        Python = "PythonLTS",
        /// A shell's commands.
        Shell = "Shell",
        /// JavaScript code.
        Node = "NodeLTS",
        /// A container of one's own.
        Custom = "CustomContainer",
    }
}

/// Setup of a pool of custom containers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CustomPool {
    /// The environment that it is in.
    pub environment: ResourceId,
    /// The container of each session.
    pub container: Container,
    /// The port that requests to a session go to.
    pub port: u16,
    /// The registry's server and the identity that pulls from it. The code in the sessions does not
    /// see the identity.
    pub registry: Option<(String, ResourceId)>,
    /// Number of sessions that are kept ready, each billed. Default: 1.
    pub ready: u32,
}

impl CustomPool {
    /// A pool of this container, whose sessions listen at this port.
    pub fn new(environment: ResourceId, container: Container, port: u16) -> Self {
        Self {
            environment,
            container,
            port,
            registry: None,
            ready: 1,
        }
    }

    /// Pulls from this registry as this identity, which the code never sees.
    #[must_use]
    pub fn registry(mut self, server: impl Into<String>, identity: ResourceId) -> Self {
        self.registry = Some((server.into(), identity));
        self
    }

    sandbox_core::setters! {
        /// Keeps so many sessions ready.
        ready: u32,
    }
}

/// Specification of a session pool.
///
/// ```
/// use std::time::Duration;
/// use sandbox_aca::provision::PoolSpec;
/// let spec = PoolSpec::python().sessions(20).cooldown(Duration::from_secs(600));
/// assert!(!spec.egress);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolSpec {
    /// Type of the pool: what its sessions run.
    pub kind: PoolType,
    /// The container, of a pool of custom ones.
    pub custom: Option<CustomPool>,
    /// Number of sessions that there may be at once. Default: 100.
    pub sessions: u32,
    /// After this time without use a session ends: 300 to 3,600 s. Default: 300 s.
    pub cooldown: Duration,
    /// Whether sessions reach the network. Default: no.
    pub egress: bool,
    /// Whether the pool is a server of the Model Context Protocol. Default: no.
    pub mcp: bool,
}

impl PoolSpec {
    fn new(kind: PoolType) -> Self {
        Self {
            kind,
            custom: None,
            sessions: 100,
            cooldown: Duration::from_secs(300),
            egress: false,
            mcp: false,
        }
    }

    /// A pool of Python interpreters.
    pub fn python() -> Self {
        Self::new(PoolType::Python)
    }

    /// A pool of shells.
    pub fn shell() -> Self {
        Self::new(PoolType::Shell)
    }

    /// A pool of Node.js interpreters.
    pub fn node() -> Self {
        Self::new(PoolType::Node)
    }

    /// A pool of custom containers.
    pub fn custom(pool: CustomPool) -> Self {
        Self {
            custom: Some(pool),
            ..Self::new(PoolType::Custom)
        }
    }

    sandbox_core::setters! {
        /// Allows at most so many sessions at once.
        sessions: u32,

        /// Ends a session after so long without use.
        cooldown: Duration,

        /// Lets sessions reach the network.
        egress: bool,

        /// Makes it a server of the Model Context Protocol, whose endpoint
        /// [`PoolProperties::mcp_endpoint`] has then.
        mcp: bool,
    }

    pub(super) fn wire(&self) -> Wire {
        let custom = self.custom.as_ref();
        let registry = custom.and_then(|custom| custom.registry.as_ref());
        Wire {
            environment_id: custom.map(|custom| custom.environment.clone()),
            pool_management_type: "Dynamic",
            container_type: self.kind.clone(),
            scale_configuration: Scale {
                max_concurrent_sessions: self.sessions,
                ready_session_instances: custom.map(|custom| custom.ready),
            },
            dynamic_pool_configuration: DynamicPool {
                lifecycle_configuration: Lifecycle {
                    lifecycle_type: "Timed",
                    cooldown_period_in_seconds: self.cooldown.as_secs(),
                },
            },
            session_network_configuration: Network {
                status: match self.egress {
                    true => "EgressEnabled",
                    false => "EgressDisabled",
                },
            },
            custom_container_template: custom.map(|custom| Template {
                containers: vec![custom.container.wire()],
                ingress: Ingress {
                    target_port: custom.port,
                },
                registry_credentials: registry.map(|(server, identity)| Registry {
                    server: server.clone(),
                    identity: identity.clone(),
                }),
            }),
            managed_identity_settings: registry.map(|(_, identity)| {
                vec![IdentitySetting {
                    identity: identity.clone(),
                    lifecycle: "None",
                }]
            }),
            mcp_server_settings: self.mcp.then_some(McpSettings {
                is_mcp_server_enabled: true,
            }),
        }
    }

    pub(super) fn identity(&self) -> Option<Identity> {
        let registry = self.custom.as_ref()?.registry.as_ref()?;
        Identity::assigned([&registry.1])
    }
}

/// A session pool as it is sent.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Wire {
    #[serde(skip_serializing_if = "Option::is_none")]
    environment_id: Option<ResourceId>,
    pool_management_type: &'static str,
    container_type: PoolType,
    scale_configuration: Scale,
    dynamic_pool_configuration: DynamicPool,
    session_network_configuration: Network,
    #[serde(skip_serializing_if = "Option::is_none")]
    custom_container_template: Option<Template>,
    #[serde(skip_serializing_if = "Option::is_none")]
    managed_identity_settings: Option<Vec<IdentitySetting>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mcp_server_settings: Option<McpSettings>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Scale {
    max_concurrent_sessions: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    ready_session_instances: Option<u32>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DynamicPool {
    lifecycle_configuration: Lifecycle,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Lifecycle {
    lifecycle_type: &'static str,
    cooldown_period_in_seconds: u64,
}

#[derive(Serialize)]
struct Network {
    status: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Template {
    containers: Vec<ContainerWire>,
    ingress: Ingress,
    #[serde(skip_serializing_if = "Option::is_none")]
    registry_credentials: Option<Registry>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Ingress {
    target_port: u16,
}

#[derive(Serialize)]
struct Registry {
    server: String,
    identity: ResourceId,
}

#[derive(Serialize)]
struct IdentitySetting {
    identity: ResourceId,
    lifecycle: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct McpSettings {
    is_mcp_server_enabled: bool,
}

/// Properties that the service shows of a session pool.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PoolProperties {
    /// Progress of the service with it.
    pub provisioning_state: Option<ProvisioningState>,
    /// Type of the pool: what its sessions run.
    pub container_type: Option<PoolType>,
    /// Place where its sessions are used: the endpoint of
    /// [`AcaSessionConfig`](crate::AcaSessionConfig).
    pub pool_management_endpoint: Option<String>,
    mcp_server_settings: Option<McpShown>,
}

#[derive(Clone, Debug, Deserialize)]
struct McpShown {
    // Both spellings have been seen.
    #[serde(default, alias = "mcpServerEndpoint", alias = "MCPServerEndpoint")]
    endpoint: Option<String>,
}

impl PoolProperties {
    /// Returns where the pool is a server of the Model Context Protocol, if it is one.
    pub fn mcp_endpoint(&self) -> Option<&str> {
        self.mcp_server_settings.as_ref()?.endpoint.as_deref()
    }
}

/// A session pool, which may not be there yet.
#[derive(Clone, Debug)]
pub struct SessionPool {
    plane: ControlPlane,
    target: Target,
}

managed! {
    /// The session pool of this name, which may not be there yet.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if it can't be a name.
    session_pool -> SessionPool, of KIND;

    /// The session pools of the resource group, of every owner.
    ///
    /// # Errors
    /// What the service answers.
    session_pools;

    /// Makes it what `spec` says, or leaves it if it was asked for so already.
    ///
    /// # Errors
    /// What the service answers; [`Unsupported`](ErrorKind::Unsupported) if it was to be a server of
    /// the Model Context Protocol and the service has dropped that in silence, as it does for custom
    /// containers; [`AlreadyExists`](ErrorKind::AlreadyExists) if it is another owner's. Dropping the
    /// future leaves the service at work; asking again takes it up.
    ensure(PoolSpec) -> PoolProperties;

    /// Deletes it with its sessions, and waits until it is gone.
    ///
    /// # Errors
    /// What the service answers.
    delete;
}

impl SessionPool {
    /// Source of the tokens that it is managed with.
    #[cfg(feature = "agent")]
    pub(crate) fn credential(&self) -> std::sync::Arc<dyn crate::Credential> {
        std::sync::Arc::clone(&self.plane.config().credential)
    }

    async fn put(&self, spec: &PoolSpec, anyway: bool) -> Result<Resource<PoolProperties>> {
        let options = format!(
            " --location {} --container-type {} --max-sessions {} --cooldown-period {}",
            self.plane.config().location,
            spec.kind,
            spec.sessions,
            spec.cooldown.as_secs()
        );
        let step = self.target.step("create", "create", &options);
        let wire = spec.wire();
        let desired = self.plane.desired(&wire, &wire, spec.identity().as_ref())?;
        let _lock = self.plane.lock(&self.target.id).await;
        let put = self.plane.put(&step, &self.target, &desired, anyway);
        let found: Resource<PoolProperties> = put.await?.json(&step)?;
        if spec.mcp && found.properties.mcp_endpoint().is_none() {
            let why = "it is there, but the service has left out that it is a server of the Model Context Protocol";
            let hint = "pools of custom containers do not get it: use a Shell or Python pool";
            return Err(step.error(ErrorKind::Unsupported, why).with_hint(hint));
        }
        Ok(found)
    }

    /// Lets a principal run code in its sessions.
    ///
    /// # Errors
    /// Those of [`ControlPlane::assign`].
    pub async fn grant(
        &self,
        principal: &PrincipalId,
        principal_type: PrincipalType,
    ) -> Result<RoleAssignment> {
        let role = &Role::SESSION_EXECUTOR;
        self.plane
            .assign(role, principal, principal_type, &self.target.id)
            .await
    }

    /// The key for the pool's server of the Model Context Protocol (`x-ms-apikey`).
    ///
    /// # Errors
    /// What the service answers; [`InvalidInput`](ErrorKind::InvalidInput) if it is another kind of pool.
    pub async fn mcp_key(&self) -> Result<Secret> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Credentials {
            api_key: String,
        }
        let mut step = self.target.step("get the key of", "show", "");
        let path = self.target.id.child(&["fetchMCPServerCredentials"]);
        step.az = format!(
            "az rest --method post --url {path}?api-version={}",
            KIND.version
        );
        let call = Call::new(Method::POST, &path, KIND.version).repeat();
        let answer = self.plane.sent(&step, call).await?;
        Ok(answer.json::<Credentials>(&step)?.api_key.into())
    }
}
