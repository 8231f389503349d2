#![doc = include_str!("../README.md")]

mod config;
#[cfg(test)]
mod fuzzing;
mod guest;
mod provider;
mod sandbox;
mod session;

pub use config::DaggerConfig;
pub use config::options::{
    Base, CacheMount, CacheSharing, ProcessLimits, RegistryLogin, SecretUri, ServiceBinding,
    Snapshots,
};
pub use provider::DaggerProvider;
pub use provider::disk::DiskUse;
pub use provider::image::ImageBuild;
pub use provider::service::Service;
