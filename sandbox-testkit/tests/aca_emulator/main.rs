//! The emulator of Azure Container Apps, over its wire, without a client of this project.
#![cfg(target_os = "linux")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests are tests too"
)]

mod arm;
mod auth;
mod client;
mod life;
mod limits;
mod ports;
mod program;
mod quirks;
mod resources;
mod sessions;
mod stream;
