//! Sandboxes of a sandbox group: microVMs, each with its own lifecycle, egress policy and ports.
//!
//! It brings the transport that [`guest`](crate::guest) runs on, creation and deletion, and what
//! only this service can do. It must never know of session pools.

mod capability;
mod config;
mod connect;
mod create_once;
mod delete_on_drop;
mod hold;
mod manage;
mod protocol;
mod provider;
mod sandbox;
mod service;
mod shared;
mod spawn;
mod spec;
mod transport;

pub use config::AcaConfig;
pub use manage::{
    AcaHandle, AcaOptions, AcaSandboxState, AcaSnapshot, AcaSource, AcaState, AcaStats, Access,
    DiskImage, EgressAction, EgressDecisions, EgressPolicy, EgressRule, EgressScheme, Inspection,
    IpRule, Lifecycle, NewDiskImage, NewPort, Port, PortAuth, PortProtocol, Reaped, Usage, Volume,
    VolumeKind, VolumeMount,
};
pub use provider::AcaSandboxProvider;
#[cfg(test)]
pub(crate) use spawn::fuzzed;
