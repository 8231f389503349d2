//! Plans: what would be made or changed, and what it costs to keep. Nothing is changed by one.
//!
//! Prices are those of a date, for comparison: the bill decides.
//!
//! Source: <https://learn.microsoft.com/azure/container-apps/billing>

use std::fmt;

use sandbox_core::{ErrorKind, Result};

use super::app::{self, AppSpec};
use super::environment::{self, EnvironmentSpec};
use super::group::{self, SandboxGroupSpec};
use super::id::ResourceId;
use super::job::{self, JobSpec};
use super::operation::Progress;
use super::plane::ControlPlane;
use super::pool::{self, PoolSpec, PoolType};
use super::resource::{Desired, Kind, marked};

/// Month in which the prices were read.
pub const PRICES_OF: &str = "2025-12";

/// Dollars, East US, without the free grants of 180,000 vCPU-seconds and 360,000 GiB-seconds a
/// month.
const VCPU_SECOND: f64 = 0.000_024;
const IDLE_VCPU_SECOND: f64 = 0.000_003;
const GIB_SECOND: f64 = 0.000_003;
const SESSION_HOUR: f64 = 0.03;
const E16_HOUR: f64 = 1.65;
const MONTH: f64 = 730.0 * 3600.0;

/// Cost of keeping a resource.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Cost {
    /// Dollars a month if it is never used.
    pub idle: f64,
    /// Dollars a month if it is always in use.
    pub busy: f64,
    /// Basis of the figures.
    pub basis: String,
}

/// Action that would be taken on a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Creation: it would be made.
    Create,
    /// Update: it would be written.
    Update,
    /// No change: it would be left as it is.
    Keep,
    /// Refusal: it belongs to another owner.
    Refuse,
}

/// One line of a plan.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Planned {
    /// The resource.
    pub id: ResourceId,
    /// Name of its kind as a person says it.
    pub kind: &'static str,
    /// Action that would be taken.
    pub action: Action,
    /// Cost of keeping it.
    pub cost: Cost,
}

/// Actions that would be taken, resource by resource.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Plan {
    /// The resources in the order in which they were named.
    pub lines: Vec<Planned>,
}

impl Plan {
    /// Dollars a month if nothing is ever used.
    pub fn idle(&self) -> f64 {
        self.lines.iter().map(|line| line.cost.idle).sum()
    }

    /// Dollars a month if everything is always in use.
    pub fn busy(&self) -> f64 {
        self.lines.iter().map(|line| line.cost.busy).sum()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            let word = match line.action {
                Action::Create => "create",
                Action::Update => "update",
                Action::Keep => "keep",
                Action::Refuse => "refuse (another owner's)",
            };
            writeln!(
                f,
                "{word} {} {}: ${:.2} to ${:.2} a month ({})",
                line.kind,
                line.id.name(),
                line.cost.idle,
                line.cost.busy,
                line.cost.basis
            )?;
        }
        write!(
            f,
            "in all ${:.2} to ${:.2} a month; list prices of East US, {PRICES_OF}, without free grants",
            self.idle(),
            self.busy()
        )
    }
}

/// Resource that is wanted, by its name.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Wanted {
    /// An environment.
    Environment(String, EnvironmentSpec),
    /// A sandbox group.
    SandboxGroup(String, SandboxGroupSpec),
    /// A session pool.
    SessionPool(String, PoolSpec),
    /// A container app.
    App(String, AppSpec),
    /// A job.
    Job(String, JobSpec),
}

impl Wanted {
    fn kind(&self) -> (&'static Kind, &str) {
        match self {
            Self::Environment(name, _) => (&environment::KIND, name),
            Self::SandboxGroup(name, _) => (&group::KIND, name),
            Self::SessionPool(name, _) => (&pool::KIND, name),
            Self::App(name, _) => (&app::KIND, name),
            Self::Job(name, _) => (&job::KIND, name),
        }
    }

    fn desired(&self, plane: &ControlPlane) -> Result<Desired> {
        match self {
            Self::Environment(_, spec) => plane.desired(&spec.wire(false), &spec.wire(false), None),
            Self::SandboxGroup(_, spec) => plane.desired(&spec.wire(), &spec.wire(), None),
            Self::SessionPool(_, spec) => {
                plane.desired(&spec.wire(), &spec.wire(), spec.identity().as_ref())
            }
            Self::App(_, spec) => spec.desired(plane, false, true),
            Self::Job(_, spec) => {
                let wire = spec.wire(false);
                plane.desired(&wire, &wire, spec.identity().as_ref())
            }
        }
    }

    fn cost(&self) -> Cost {
        let free = |basis: &str| Cost {
            idle: 0.0,
            busy: 0.0,
            basis: basis.to_owned(),
        };
        match self {
            Self::Environment(..) => free(
                "an environment of the Consumption profile is free; its network and logs are not",
            ),
            Self::SandboxGroup(..) => free("its sandboxes are billed, not the group"),
            Self::Job(..) => free("billed while an execution runs, at the active rate"),
            Self::App(_, spec) => {
                let size = spec.container.size;
                let memory = size.memory_gib() * GIB_SECOND;
                Cost {
                    idle: (size.cpu() * IDLE_VCPU_SECOND + memory) * MONTH,
                    busy: (size.cpu() * VCPU_SECOND + memory) * MONTH,
                    basis: format!(
                        "one replica of {} vCPU and {} GiB, idle to active rate; nothing while it is stopped",
                        size.cpu(),
                        size.memory_gib()
                    ),
                }
            }
            Self::SessionPool(_, spec) if spec.kind == PoolType::Custom => Cost {
                idle: E16_HOUR * 730.0,
                busy: E16_HOUR * 730.0,
                basis:
                    "at least one E16 node while sessions are kept ready; more with more sessions"
                        .into(),
            },
            Self::SessionPool(_, spec) => Cost {
                idle: 0.0,
                busy: f64::from(spec.sessions) * SESSION_HOUR * 730.0,
                basis: format!(
                    "by whole session-hours: nothing without sessions, up to {} at once",
                    spec.sessions
                ),
            },
        }
    }
}

impl ControlPlane {
    /// Returns what would be done to make all of this so, and what it costs to keep. Only reads.
    ///
    /// # Errors
    /// What the service answers; [`InvalidInput`](ErrorKind::InvalidInput) for what can't be a name.
    pub async fn plan(&self, wanted: &[Wanted]) -> Result<Plan> {
        let mut lines = Vec::new();
        for one in wanted {
            let (kind, name) = one.kind();
            let target = self.target(kind, name)?;
            let step = target.step("plan", "show", "");
            let action = match self.found(&step, target.get()).await? {
                None => Action::Create,
                Some(found) => {
                    let progress: Progress = super::arm::parse(&step, found.body())?;
                    match self.own(&step, &progress) {
                        Err(error) if error.kind() == ErrorKind::AlreadyExists => Action::Refuse,
                        Err(error) => return Err(error),
                        Ok(()) if marked(&progress, &one.desired(self)?.mark) => Action::Keep,
                        Ok(()) => Action::Update,
                    }
                }
            };
            lines.push(Planned {
                id: target.id,
                kind: kind.noun,
                action,
                cost: one.cost(),
            });
        }
        Ok(Plan { lines })
    }
}
