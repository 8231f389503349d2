#![doc = include_str!("../README.md")]

mod base;
mod batch;
mod chain;
mod client;
mod config;
mod connect;
mod create;
mod exec;
mod files;
mod frame;
mod guest;
mod handle;
mod image;
mod options;
mod provider;
mod query;
mod run;
mod sandbox;
mod service;
mod snapshot;
mod stage;
mod transfer;

pub use config::DaggerConfig;
pub use image::ImageBuild;
pub use options::{Base, CacheMount, ProcessLimits, RegistryLogin, Snapshots};
pub use provider::DaggerProvider;
pub use service::Service;
