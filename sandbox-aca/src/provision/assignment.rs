//! Assignment of roles, and the wait until one has arrived.
//!
//! An assignment's name follows from what it says, so that a repeat is the same assignment.

use std::future::Future;
use std::time::{Duration, Instant};

use reqwest::Method;
use sandbox_core::{Error, ErrorKind, Operation, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::arm::Call;
use super::id::{PrincipalId, ResourceId};
use super::plane::ControlPlane;
use super::role::Role;
use super::step::Step;

/// The version of the authorization provider.
const VERSION: &str = "2022-04-01";

/// Kind of a principal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum PrincipalType {
    /// A service principal or a managed identity.
    #[default]
    ServicePrincipal,
    /// A user.
    User,
    /// A group.
    Group,
}

/// A role assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoleAssignment {
    /// The identifier.
    pub id: ResourceId,
    /// Principal that has the role.
    pub principal: PrincipalId,
    /// The GUID of the role's definition.
    pub role: String,
    /// Resource that it holds for, with everything below.
    pub scope: ResourceId,
}

#[derive(Serialize)]
struct Put {
    properties: PutProperties,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PutProperties {
    role_definition_id: String,
    principal_id: PrincipalId,
    principal_type: PrincipalType,
}

#[derive(Deserialize)]
struct Found {
    id: ResourceId,
    properties: FoundProperties,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FoundProperties {
    role_definition_id: String,
    principal_id: PrincipalId,
    scope: Option<ResourceId>,
}

impl From<Found> for RoleAssignment {
    fn from(found: Found) -> Self {
        let Found { id, properties } = found;
        let role = properties.role_definition_id.rsplit('/').next();
        Self {
            role: role.unwrap_or_default().to_owned(),
            principal: properties.principal_id,
            scope: properties.scope.unwrap_or_else(|| id.clone()),
            id,
        }
    }
}

/// The name of an assignment, from what it says: a GUID of version 8 (RFC 9562), so that the same
/// assignment has the same name wherever it is asked for.
pub(super) fn derived(scope: &ResourceId, principal: &PrincipalId, role: &Role) -> uuid::Uuid {
    let mut hash = Sha256::new();
    for part in [
        &scope.as_str().to_ascii_lowercase(),
        principal.as_str(),
        role.id(),
    ] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.finalize()[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    uuid::Uuid::from_bytes(bytes)
}

impl ControlPlane {
    /// Gives a principal a role. An assignment that is there already is left as it is, whatever its
    /// name. A principal that was made a moment ago is waited for.
    ///
    /// It takes minutes until the role has its effect (13 have been seen, 30 are said): see
    /// [`arrived`](Self::arrived).
    ///
    /// Source: <https://learn.microsoft.com/rest/api/authorization/role-assignments/create>
    ///
    /// # Errors
    /// [`PermissionDenied`](ErrorKind::PermissionDenied) if the caller may not assign roles. Dropping
    /// the future may leave the role assigned; asking again is safe.
    pub async fn assign(
        &self,
        role: &Role,
        principal: &PrincipalId,
        principal_type: PrincipalType,
        scope: &ResourceId,
    ) -> Result<RoleAssignment> {
        let name = derived(scope, principal, role).to_string();
        let id = scope.child(&["providers/Microsoft.Authorization/roleAssignments", &name]);
        let step = assigning(role, principal, scope);
        let body = Put {
            properties: PutProperties {
                role_definition_id: format!(
                    "/subscriptions/{}/providers/Microsoft.Authorization/roleDefinitions/{}",
                    self.subscription(),
                    role.id()
                ),
                principal_id: principal.clone(),
                principal_type,
            },
        };
        let started = Instant::now();
        loop {
            // By its name it is one and the same assignment, however often it is asked for.
            let call = Call::new(Method::PUT, &id, VERSION).body(&body).repeat();
            let failure = match self.send(&step, call).await {
                Ok(answer) => return answer.json::<Found>(&step).map(RoleAssignment::from),
                Err(failure) => failure,
            };
            match failure.title.as_str() {
                "RoleAssignmentExists" => return self.assigned(role, principal, scope).await,
                "PrincipalNotFound" if started.elapsed() < self.config().timeout => {
                    tokio::time::sleep(self.config().poll).await;
                }
                _ => return Err(step.failed(failure)),
            }
        }
    }

    /// The assignment of this role to this principal, under another name than ours.
    async fn assigned(
        &self,
        role: &Role,
        principal: &PrincipalId,
        scope: &ResourceId,
    ) -> Result<RoleAssignment> {
        let all = self.role_assignments(scope).await?;
        let found = all.into_iter().find(|one| {
            one.principal == *principal && one.role == role.id() && one.scope == *scope
        });
        found.ok_or_else(|| {
            let why = "the service says that it is there, and does not list it";
            assigning(role, principal, scope).error(ErrorKind::Other, why)
        })
    }

    /// The role assignments at a resource and above it.
    ///
    /// # Errors
    /// What the service answers.
    pub async fn role_assignments(&self, scope: &ResourceId) -> Result<Vec<RoleAssignment>> {
        let id = scope.child(&["providers/Microsoft.Authorization/roleAssignments"]);
        let step = Step {
            what: format!("list the role assignments of {}", scope.name()),
            az: format!("az role assignment list --scope {scope}"),
            role: Role::READER,
            scope: scope.clone(),
        };
        let found: Vec<Found> = self.pages(&step, Call::get(&id, VERSION)).await?;
        Ok(found.into_iter().map(RoleAssignment::from).collect())
    }

    /// Takes a role away that [`assign`](Self::assign) gave; nothing to do if it is not there.
    ///
    /// # Errors
    /// What the service answers.
    pub async fn unassign(
        &self,
        role: &Role,
        principal: &PrincipalId,
        scope: &ResourceId,
    ) -> Result<()> {
        let name = derived(scope, principal, role).to_string();
        let id = scope.child(&["providers/Microsoft.Authorization/roleAssignments", &name]);
        let step = Step {
            what: format!("take the role \"{}\" away", role.name()),
            az: format!(
                "az role assignment delete --role \"{}\" --assignee {} --scope {scope}",
                role.name(),
                principal.as_str()
            ),
            role: Role::ROLE_ADMINISTRATOR,
            scope: scope.clone(),
        };
        match self
            .send(&step, Call::new(Method::DELETE, &id, VERSION))
            .await
        {
            Ok(_) => Ok(()),
            Err(failure) if failure.status == Some(404) => Ok(()),
            Err(failure) => Err(step.failed(failure)),
        }
    }

    /// Waits until a role has arrived: asks `probe`, which uses it, until it is no longer refused.
    ///
    /// # Errors
    /// What `probe` says, if it is anything but a refusal for the lack of a role; the refusal after
    /// `within`. Dropping the future stops the waiting.
    pub async fn arrived<T, F>(&self, within: Duration, mut probe: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let started = Instant::now();
        loop {
            match probe().await {
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    if started.elapsed() >= within {
                        return Err(late(error, within));
                    }
                    tokio::time::sleep(self.config().poll).await;
                }
                done => return done,
            }
        }
    }
}

fn late(error: Error, within: Duration) -> Error {
    Error::new(ErrorKind::PermissionDenied, Operation::Provision)
        .with_message(format!(
            "the role has not arrived after {} s: {}",
            within.as_secs(),
            error.message()
        ))
        .with_hint("new roles take up to 30 minutes; look at the scope and the principal: az role assignment list --scope SCOPE --assignee PRINCIPAL")
        .with_source(error)
}

fn assigning(role: &Role, principal: &PrincipalId, scope: &ResourceId) -> Step {
    Step {
        what: format!("assign the role \"{}\"", role.name()),
        az: format!(
            "az role assignment create --role \"{}\" --assignee-object-id {} --assignee-principal-type ServicePrincipal --scope {scope}",
            role.name(),
            principal.as_str()
        ),
        role: Role::ROLE_ADMINISTRATOR,
        scope: scope.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_follows_from_what_the_assignment_says() {
        let scope = |text: &str| ResourceId::new(text).expect("a scope");
        let who = PrincipalId::new("11111111-2222-3333-4444-555555555555").expect("a principal");
        let one = derived(
            &scope("/subscriptions/S/resourceGroups/g"),
            &who,
            &Role::ACR_PULL,
        );
        let same = derived(
            &scope("/subscriptions/s/resourceGroups/G"),
            &who,
            &Role::ACR_PULL,
        );
        let other = derived(
            &scope("/subscriptions/s/resourceGroups/g"),
            &who,
            &Role::ACR_PUSH,
        );
        assert_eq!(one, same);
        assert_ne!(one, other);
        assert_eq!(one.get_version_num(), 8);
    }
}
