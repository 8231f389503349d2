//! The client: a provider whose sandboxes are behind a server.

mod call;
mod config;
mod connection;
mod http;
mod incoming;
mod job;
mod leaving;
mod process;
mod provider;
mod sandbox;
mod state;
mod stream;
mod token;
mod transfer;
mod watch;

pub use config::RemoteConfig;
pub use provider::RemoteProvider;
pub use token::{TokenFile, TokenSource};
