//! The emulator of Azure Container Apps, over its wire, without a client of this project.
#![cfg(target_os = "linux")]

mod arm;
mod auth;
mod client;
mod life;
mod limits;
mod ports;
mod program;
mod quirks;
mod resources;
mod stream;
