//! The cases: what the contract promises, one promise each.
//!
//! Invariant: a case assumes a POSIX `/bin/sh` with its usual programs and nothing else about the
//! guest; what is missing fails the case with a clear text.

mod batch;
mod changes;
mod egress;
mod entries;
mod env;
mod exec;
mod export;
mod file_streams;
mod files;
mod fork;
mod guest_root;
mod host;
mod isolation;
mod jobs;
mod kill;
mod lasting;
mod lifecycle;
mod listing;
mod order;
mod paths;
mod pause;
mod ports;
mod provider;
mod spawn;
mod streams;
mod terminal;
mod tools;
mod transfer;
mod unsupported;
mod watch;

use crate::kit::Case;

/// Every case, in order.
pub fn all() -> impl Iterator<Item = Case> {
    [
        files::CASES,
        entries::CASES,
        batch::CASES,
        listing::CASES,
        paths::CASES,
        exec::CASES,
        streams::CASES,
        env::CASES,
        kill::CASES,
        spawn::CASES,
        jobs::CASES,
        terminal::CASES,
        ports::CASES,
        file_streams::CASES,
        fork::CASES,
        fork::OF_THIS_HOST,
        changes::CASES,
        watch::CASES,
        pause::CASES,
        transfer::CASES,
        export::CASES,
        lifecycle::CASES,
        lifecycle::SABOTAGE,
        lasting::CASES,
        provider::CASES,
        isolation::CASES,
        isolation::OF_THIS_HOST,
        guest_root::CASES,
        host::CASES,
        host::OF_THIS_HOST,
        egress::names::CASES,
        egress::connections::CASES,
        egress::protocols::CASES,
        egress::policies::CASES,
        order::CASES,
        unsupported::CASES,
    ]
    .into_iter()
    .flatten()
    .copied()
}
