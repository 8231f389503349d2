#![doc = include_str!("../README.md")]

mod chain;
mod client;
mod config;
mod connect;
mod exec;
mod files;
mod frame;
mod guest;
mod handle;
mod provider;
mod query;
mod run;
mod sandbox;
mod stage;
mod transfer;

pub use config::DaggerConfig;
pub use provider::DaggerProvider;
