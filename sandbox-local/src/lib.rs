//! The embedded backend of `sandbox`: real Linux isolation without a daemon, as any user.
//!
//! [`LocalProvider`] makes sandboxes out of namespaces, an overlay root and a small init that this
//! crate carries with it; nothing has to be installed and nothing has to be called from `main`.
//! [`LandlockProvider`] isolates less, where a host grants no user namespaces, and
//! [`PlainProvider`] runs ordinary processes without any isolation, for hosts that can't isolate;
//! each is used only where it is named.
//!
//! How it works, and what it leaves out, is in `ARCHITECTURE.md`; what it defends against is in
//! `SECURITY.md`.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod config;
#[cfg(target_os = "linux")]
mod egress;
#[cfg(target_os = "linux")]
mod engine;
#[cfg(target_os = "linux")]
mod file_operations;
#[cfg(target_os = "linux")]
mod files;
#[cfg(all(target_os = "linux", test))]
mod fuzzing;
#[cfg(target_os = "linux")]
mod guest_user;
#[cfg(target_os = "linux")]
mod images;
#[cfg(target_os = "linux")]
mod isolation;
#[cfg(target_os = "linux")]
mod landlock;
#[cfg(target_os = "linux")]
mod lasting;
mod later;
#[cfg(target_os = "linux")]
mod layers;
#[cfg(target_os = "linux")]
mod mutation;
#[cfg(target_os = "linux")]
mod open_files;
mod plain;
#[cfg(target_os = "linux")]
#[allow(
    dead_code,
    reason = "the agent includes the same file; each side uses its half of it"
)]
mod protocol;
#[cfg(target_os = "linux")]
mod provider;
#[cfg(target_os = "linux")]
mod random;
mod runtime;
#[cfg(target_os = "linux")]
mod sandbox;
#[cfg(target_os = "linux")]
mod snapshots;
#[cfg(target_os = "linux")]
mod start;
#[cfg(target_os = "linux")]
mod store;
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
mod sys;
#[cfg(target_os = "linux")]
mod walk;
#[cfg(target_os = "linux")]
mod watching;

pub use config::LocalConfig;
#[cfg(target_os = "linux")]
pub use landlock::{LandlockConfig, LandlockProvider};
pub use plain::{PlainConfig, PlainProvider};
#[cfg(target_os = "linux")]
pub use provider::LocalProvider;
#[cfg(target_os = "linux")]
pub use sandbox_egress::{Connector, HostConnector};
#[cfg(target_os = "linux")]
#[cfg(all(feature = "registry", target_os = "linux"))]
pub use sandbox_oci::Registries;
#[cfg(target_os = "linux")]
pub use sandbox_oci::{
    Event as ImageEvent, ImageFault, Limits as ImageLimits, Progress as ImageProgress,
};
#[cfg(target_os = "linux")]
pub use store::{LocalStore, Removed, StoredImage};
