//! The conformance kit against the program `sandbox-agent` in its places: on loopback, in a session
//! of a pool of custom containers, and as a tenant's app behind its ingress.
//!
//! By default a part of the cases runs as a tenant's app, the place with the most between client
//! and agent, and a few in a pool; on loopback the kit of `sandbox-remote` runs whole.
//! `SANDBOX_AGENT_WHOLE=1` runs all cases in all places.

#![allow(clippy::expect_used, clippy::unwrap_used)]

#[cfg(target_os = "linux")]
mod placed;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    use placed::{Place, Placed};
    let whole = std::env::var_os("SANDBOX_AGENT_WHOLE").is_some();
    let places: &[Place] = match whole {
        true => &[Place::Loopback, Place::Pool, Place::App],
        false => &[Place::Pool, Place::App],
    };
    let fixtures = places.iter().map(|place| Placed::boxed(*place, whole));
    sandbox_testkit::main(fixtures.collect::<Vec<_>>())
}

#[cfg(not(target_os = "linux"))]
fn main() {}
