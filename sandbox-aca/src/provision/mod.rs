//! The control plane: what sandboxes of Azure run on, made, watched and deleted by one typed client
//! of Azure Resource Manager.
//!
//! It must never change what belongs to another owner, never send a write twice blindly, and never
//! wait without an end.

mod app;
mod arm;
mod assignment;
mod config;
mod container;
mod environment;
mod group;
mod id;
mod job;
mod logs;
mod managed;
mod operation;
mod owner;
mod plan;
mod plane;
mod pool;
mod query;
mod registry;
mod resource;
mod role;
mod step;
mod usage;
mod word;

pub use app::{
    App, AppProperties, AppSpec, ClientCertificates, ContainerState, Health, Ingress, OwnerAuth,
    Replica, ReplicaContainer, ReplicaProperties, Revision, RevisionHealth, RevisionProperties,
    RevisionState, RunningStatus, SecretSource, Share,
};
pub use assignment::{PrincipalType, RoleAssignment};
pub use config::ControlPlaneConfig;
pub use container::{Container, Probe, ProbeType, Size};
pub use environment::{Environment, EnvironmentProperties, EnvironmentSpec, LogDestination};
pub use group::{SandboxGroup, SandboxGroupProperties, SandboxGroupSpec};
pub use id::{ClientId, PrincipalId, ResourceId};
pub use job::{
    Ended, Execution, ExecutionProperties, ExecutionStatus, Job, JobProperties, JobSpec,
    RUN_VARIABLE,
};
pub use logs::{LogOptions, LogStream};
pub use operation::ProvisioningState;
pub use owner::{Collected, Owned};
pub use plan::{Action, Cost, PRICES_OF, Plan, Planned, Wanted};
pub use plane::ControlPlane;
pub use pool::{CustomPool, PoolProperties, PoolSpec, PoolType, SessionPool};
pub use query::{LogTables, Table};
pub use registry::RegistryLogin;
pub use resource::{OWNER_TAG, Resource, SPEC_TAG};
pub use role::Role;
pub use step::Refusal;
pub use usage::Quota;
