//! The local backend beside every other sandbox that is installed: the same work, in one run, a
//! round of each in turn.
//!
//! `cargo bench --bench peers`; `-- --quick` for fewer rounds, `-- fork` for one kind of work only.
//! Prints Markdown, writes `target/sandbox-bench/peers.json`, and with `-- --html` `peers.html`, one
//! page with bars and distributions. As root all of them run; as an
//! ordinary user those that may. The `hakoniwa` crate is in a package of its own, outside of the
//! workspace's graph for its licence (LGPL):
//! `cargo build --release --manifest-path bench-peers/Cargo.toml`.
//!
//! It must never leave a peer out silently: one that is missing or fails has a line that says so.

#[cfg(target_os = "linux")]
mod command;
#[cfg(target_os = "linux")]
mod containers;
#[cfg(target_os = "linux")]
mod hakoniwa;
#[cfg(target_os = "linux")]
mod isolation;
#[cfg(target_os = "linux")]
mod launchers;
#[cfg(target_os = "linux")]
mod ours;
#[cfg(target_os = "linux")]
mod page;
#[cfg(target_os = "linux")]
mod peer;
#[cfg(target_os = "linux")]
#[path = "../support/mod.rs"]
mod support;
#[cfg(target_os = "linux")]
mod table;

#[cfg(target_os = "linux")]
fn main() -> support::Outcome<()> {
    table::print(support::Effort::from_args())
}

#[cfg(not(target_os = "linux"))]
fn main() {}
