//! Hostile programs: what a guest tries, and what must come of it. Every attack is also run where
//! nothing holds it back, as a control: an attack that fails there proves nothing here.
#![cfg(target_os = "linux")]

#[path = "../support/mod.rs"]
mod support;

mod calls;
mod escape;
mod files;
mod host;
mod layers;
mod lifetime;
mod neighbours;
mod network;
mod race;
mod resources;
mod secrets;
mod shared;
mod streams;
