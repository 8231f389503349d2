//! Sandbox groups: what the sandboxes of [`AcaSandboxProvider`](crate::AcaSandboxProvider) are in.
//!
//! Source: <https://learn.microsoft.com/rest/api/containerapps/sandbox-groups>

use sandbox_core::Result;
use serde::{Deserialize, Serialize};

use super::assignment::{PrincipalType, RoleAssignment};
use super::id::{PrincipalId, ResourceId, name};
use super::managed::managed;
use super::operation::ProvisioningState;
use super::plane::ControlPlane;
use super::resource::{Kind, Resource, Target};
use super::role::Role;
use crate::group::AcaConfig;

pub(super) const KIND: Kind = Kind {
    path: "sandboxGroups",
    version: "2026-07-01",
    role: Role::SANDBOX_GROUP_CONTRIBUTOR,
    noun: "sandbox group",
    az: "az sandboxgroup",
    checked: name,
};

/// Specification of a sandbox group.
///
/// ```
/// use sandbox_aca::provision::SandboxGroupSpec;
/// assert!(SandboxGroupSpec::new().environment.is_none());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SandboxGroupSpec {
    /// The environment that it is in. It may be given later, and can't be changed then.
    pub environment: Option<ResourceId>,
}

impl SandboxGroupSpec {
    /// A group outside of any environment.
    pub fn new() -> Self {
        Self::default()
    }

    sandbox_core::setters! {
        /// A group in this environment.
        environment: Some(ResourceId),
    }

    pub(super) fn wire(&self) -> Wire {
        Wire {
            environment_id: self.environment.clone(),
        }
    }
}

/// A sandbox group as it is sent.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Wire {
    #[serde(skip_serializing_if = "Option::is_none")]
    environment_id: Option<ResourceId>,
}

/// Properties that the service shows of a sandbox group.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SandboxGroupProperties {
    /// Progress of the service with it.
    pub provisioning_state: Option<ProvisioningState>,
    /// The environment that it is in.
    pub environment_id: Option<ResourceId>,
    /// The data plane, where the service shows it: stable versions do not.
    pub management_endpoint: Option<String>,
}

/// A sandbox group, which may not be there yet.
#[derive(Clone, Debug)]
pub struct SandboxGroup {
    plane: ControlPlane,
    target: Target,
}

managed! {
    /// The sandbox group of this name, which may not be there yet.
    ///
    /// # Errors
    /// [`InvalidInput`](sandbox_core::ErrorKind::InvalidInput) if it can't be a name.
    sandbox_group -> SandboxGroup, of KIND;

    /// The sandbox groups of the resource group, of every owner.
    ///
    /// # Errors
    /// What the service answers.
    sandbox_groups;

    /// Makes it what `spec` says, or leaves it if it was asked for so already.
    ///
    /// # Errors
    /// What the service answers; [`AlreadyExists`](sandbox_core::ErrorKind::AlreadyExists) if it is
    /// another owner's. Dropping the future leaves the service at work; asking again takes it up.
    ensure(SandboxGroupSpec) -> SandboxGroupProperties;

    /// Deletes it with everything in it, and waits until it is gone.
    ///
    /// # Errors
    /// What the service answers.
    delete;
}

impl SandboxGroup {
    async fn put(
        &self,
        spec: &SandboxGroupSpec,
        anyway: bool,
    ) -> Result<Resource<SandboxGroupProperties>> {
        let mut step = self.target.step("create", "create", "");
        step.az = format!(
            "az resource create --id {} --api-version {} --location {} --properties '{{}}'",
            self.target.id,
            KIND.version,
            self.plane.config().location
        );
        let wire = spec.wire();
        let desired = self.plane.desired(&wire, &wire, None)?;
        let _lock = self.plane.lock(&self.target.id).await;
        let put = self.plane.put(&step, &self.target, &desired, anyway);
        put.await?.json(&step)
    }

    /// Lets a principal make and use its sandboxes.
    ///
    /// # Errors
    /// Those of [`ControlPlane::assign`].
    pub async fn grant(
        &self,
        principal: &PrincipalId,
        principal_type: PrincipalType,
    ) -> Result<RoleAssignment> {
        let role = &Role::SANDBOX_GROUP_DATA_OWNER;
        self.plane
            .assign(role, principal, principal_type, &self.target.id)
            .await
    }

    /// Returns the config for a provider of its sandboxes: the endpoint that the service shows, or
    /// else that of the region.
    ///
    /// # Errors
    /// What the service answers; [`NotFound`](sandbox_core::ErrorKind::NotFound) if there is no such
    /// group.
    pub async fn config(&self) -> Result<AcaConfig> {
        let step = self.target.step("show", "show", "");
        let found = self.show().await?.ok_or_else(|| {
            step.error(sandbox_core::ErrorKind::NotFound, "there is no such group")
        })?;
        let location = found.location.as_deref().unwrap_or_default();
        let location = location.replace(' ', "").to_ascii_lowercase();
        let endpoint = found
            .properties
            .management_endpoint
            .unwrap_or_else(|| format!("https://management.{location}.azuredevcompute.io"));
        let config = self.plane.config();
        Ok(AcaConfig::new(
            endpoint,
            &config.subscription,
            &config.resource_group,
            self.target.id.name(),
        ))
    }
}
