//! Hostile programs: what a guest tries, and what must come of it. Every attack is also run where
//! nothing holds it back, as a control: an attack that fails there proves nothing here.
#![cfg(target_os = "linux")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, helpers too"
)]

#[path = "../support/mod.rs"]
mod support;

mod attempts;
mod calls;
mod escape;
mod files;
mod host;
mod layers;
mod lifetime;
mod machine;
mod neighbours;
mod network;
mod objects;
mod race;
mod resources;
mod secrets;
mod shared;
mod state;
mod still;
mod streams;
