//! The agent: pid 1 of a sandbox, a freestanding program of a few kilobytes.
//!
//! It plays the host's plan of system calls, says that it is ready, and from then
//! on starts, signals, kills and reaps processes as the host asks. It knows no
//! policy: what a guest may see and do was decided by the host, which compiled the plan.
//! It must never allocate, never wait for a guest without a bound, never outlive
//! its host (the control socket's end is its own end), and never trust a guest.

#![cfg_attr(not(test), no_std, no_main, no_builtins)]
#![deny(unsafe_code)]

#[path = "../src/protocol.rs"]
#[allow(dead_code)] // each side uses its half of the shared layout
mod protocol;

mod freeze;
#[cfg(test)]
mod fuzzing;
mod kill;
mod play;
mod probe;
mod proc;
mod serve;
mod spawn;
#[allow(unsafe_code)]
mod sys;
mod table;
#[cfg(test)]
mod tests;

/// Runs the agent to its end; the return value is its exit code.
pub fn agent() -> i32 {
    if !sys::is_init() {
        return probe::run();
    }
    let Some(memory) = sys::state::take() else {
        return 1;
    };
    if sys::prepare_init().is_err() {
        return 2;
    }
    match play::run() {
        Ok(handles) => serve::run(memory, handles),
        Err(code) => code,
    }
}
