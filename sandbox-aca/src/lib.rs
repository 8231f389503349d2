//! Azure Container Apps as a backend of `sandbox`: microVM sandboxes of a sandbox group.
//!
//! [`AcaSessionProvider`] does the same over the dynamic sessions of a session pool.
//! [`AcaSandboxProvider`] makes sandboxes in a group; what it needs to know is in [`AcaConfig`],
//! and tokens come from a [`Credential`]. [`provision`] makes what they run on: groups, pools,
//! environments, an app for each tenant, jobs. With the feature `agent` a tenant's app, or a
//! session of a pool of custom containers, is a sandbox too (`App::agent`). The guest needs a POSIX
//! shell, GNU coreutils, findutils, tar and util-linux, which the public disk images have.
//!
//! Architecture invariants: a command is never run twice for one call; tokens, identifiers and
//! environment never reach a log; no type of a dependency is in a public signature; a service that
//! can't be reached is an error and never an empty sandbox.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "agent")]
mod agent;
mod auth;
#[cfg(test)]
mod fuzzing;
mod group;
mod guest;
mod http;
pub mod provision;
mod sessions;
mod transfer;

#[cfg(feature = "agent")]
pub use agent::{AgentAccess, AgentToken, EntraToken};
pub use auth::{AccessToken, Credential, DefaultCredential, StaticToken};
pub use group::{
    AcaConfig, AcaHandle, AcaOptions, AcaSandboxProvider, AcaSandboxState, AcaSnapshot, AcaSource,
    AcaState, AcaStats, Access, DiskImage, EgressAction, EgressDecisions, EgressPolicy, EgressRule,
    EgressScheme, Inspection, IpRule, Lifecycle, NewDiskImage, NewPort, Port, PortAuth,
    PortProtocol, Reaped, Usage, Volume, VolumeKind, VolumeMount,
};
pub use sessions::{
    AcaSession, AcaSessionConfig, AcaSessionProvider, CodeOptions, CodeOutput, CodeStatus,
    SessionKind,
};
