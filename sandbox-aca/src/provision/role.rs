//! Roles: the built-in ones that this crate's callers need.
//!
//! It must never know how a role is assigned.

/// A role by its identifier.
///
/// Source: <https://learn.microsoft.com/azure/role-based-access-control/built-in-roles>
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    name: &'static str,
    id: &'static str,
}

macro_rules! roles {
    ($($(#[$doc:meta])* $constant:ident = $name:literal, $id:literal;)*) => {
        impl Role {
            $($(#[$doc])* pub const $constant: Self = Self { name: $name, id: $id };)*
        }
    };
}

roles! {
    /// Runs code in the sessions of a pool.
    SESSION_EXECUTOR = "Azure ContainerApps Session Executor", "0fb8eba5-a2bb-4abe-b1c1-49dfad359bb0";
    /// Makes and uses the sandboxes of a group.
    SANDBOX_GROUP_DATA_OWNER = "Container Apps SandboxGroup Data Owner", "c24cf47c-5077-412d-a19c-45202126392c";
    /// Makes, changes and deletes sandbox groups.
    SANDBOX_GROUP_CONTRIBUTOR = "Container Apps SandboxGroup Contributor", "11b23f7a-6229-4518-88db-0576f10dd2a0";
    /// Makes, changes and deletes session pools.
    SESSION_POOL_CONTRIBUTOR = "Container Apps SessionPools Contributor", "f7669afb-68b2-44b4-9c5f-6d2a47fddda0";
    /// Makes, changes and deletes environments.
    ENVIRONMENT_CONTRIBUTOR = "Container Apps ManagedEnvironments Contributor", "57cc5028-e6a7-4284-868d-0611c5923f8d";
    /// Makes, changes and deletes container apps.
    APP_CONTRIBUTOR = "Container Apps Contributor", "358470bc-b998-42bd-ab17-a7e34c199c0f";
    /// Reads container apps, their logs, and runs commands in them.
    APP_OPERATOR = "Container Apps Operator", "f3bd1b5c-91fa-40e7-afe7-0c11d331232c";
    /// Makes, changes and deletes jobs.
    JOB_CONTRIBUTOR = "Container Apps Jobs Contributor", "4e3d2b60-56ae-4dc6-a233-09c8e5a82e68";
    /// Reads, starts and stops jobs.
    JOB_OPERATOR = "Container Apps Jobs Operator", "b9a307c4-5aa3-4b52-ba60-2b17c136cd7b";
    /// Pulls images from a registry.
    ACR_PULL = "AcrPull", "7f951dda-4ed3-4680-a7ca-43fe172d538d";
    /// Pushes images to a registry.
    ACR_PUSH = "AcrPush", "8311e382-0749-4cb8-b61a-304f252e45ec";
    /// Assigns roles.
    ROLE_ADMINISTRATOR = "Role Based Access Control Administrator", "f58310d9-a9f6-439a-9e8d-f62e7b41a168";
    /// Reads everything, and lists resources by their tags.
    READER = "Reader", "acdd72a7-3385-48ef-bd42-f606fba81ae7";
    /// Makes, changes and deletes everything but roles.
    CONTRIBUTOR = "Contributor", "b24988ac-6180-42a0-ab88-20f7382dd24c";
    /// Queries the logs of a workspace.
    LOG_READER = "Log Analytics Reader", "73c42c96-874c-492b-b04d-ab87f138a893";
}

impl Role {
    /// Another role, by the GUID of its definition.
    pub const fn new(name: &'static str, id: &'static str) -> Self {
        Self { name, id }
    }

    /// The role's name, as `az` takes it.
    pub fn name(&self) -> &str {
        self.name
    }

    /// The GUID of the role's definition.
    pub fn id(&self) -> &str {
        self.id
    }
}
