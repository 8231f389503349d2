//! Quotas: how much of each there is and is used, as a report.
//!
//! Source: <https://learn.microsoft.com/rest/api/containerapps/usages>

use std::fmt;

use sandbox_core::Result;
use serde::Deserialize;

use super::arm::Call;
use super::environment::{Environment, KIND};
use super::id::ResourceId;
use super::plane::ControlPlane;
use super::role::Role;
use super::step::Step;

/// A quota.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Quota {
    /// Name of what is counted, such as `ManagedEnvironmentCount`.
    pub name: String,
    /// Amount that is used.
    pub used: f64,
    /// Amount that there may be.
    pub limit: f64,
}

impl Quota {
    /// Returns how much there may still be.
    pub fn left(&self) -> f64 {
        (self.limit - self.used).max(0.0)
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} of {}", self.name, self.used, self.limit)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    name: NameWire,
    current_value: f64,
    limit: f64,
}

#[derive(Deserialize)]
struct NameWire {
    value: String,
}

impl From<Wire> for Quota {
    fn from(wire: Wire) -> Self {
        Self {
            name: wire.name.value,
            used: wire.current_value,
            limit: wire.limit,
        }
    }
}

impl ControlPlane {
    /// The quotas of the subscription in the control plane's region.
    ///
    /// # Errors
    /// What the service answers.
    pub async fn quotas(&self) -> Result<Vec<Quota>> {
        let location = &self.config().location;
        let subscription = self.subscription();
        let id = ResourceId::of(&[
            "subscriptions",
            subscription,
            "providers/Microsoft.App/locations",
            location,
            "usages",
        ]);
        let step = Step {
            what: format!("read the quotas of {location}"),
            az: format!("az containerapp list-usages --location {location}"),
            role: Role::READER,
            scope: ResourceId::of(&["subscriptions", subscription]),
        };
        let all: Vec<Wire> = self.pages(&step, Call::get(&id, KIND.version)).await?;
        Ok(all.into_iter().map(Quota::from).collect())
    }
}

impl Environment {
    /// The quotas of the environment, such as its cores.
    ///
    /// # Errors
    /// What the service answers.
    pub async fn quotas(&self) -> Result<Vec<Quota>> {
        let id = self.target.id.child(&["usages"]);
        let step = self.target.step("read the quotas of", "list-usages", "");
        let call = Call::get(&id, KIND.version);
        let all: Vec<Wire> = self.plane.pages(&step, call).await?;
        Ok(all.into_iter().map(Quota::from).collect())
    }
}
