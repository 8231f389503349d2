//! The cases: what the contract promises, one promise each.
//!
//! Invariant: a case assumes a POSIX `/bin/sh` with its usual programs and nothing else about the
//! guest; what is missing fails the case with a clear text.

mod batch;
mod env;
mod exec;
mod files;
mod fork;
mod kill;
mod listing;
mod paths;
mod spawn;
mod streams;
mod tools;

use crate::kit::Case;

/// Every case, in order.
pub fn all() -> impl Iterator<Item = Case> {
    [
        files::CASES,
        batch::CASES,
        listing::CASES,
        paths::CASES,
        exec::CASES,
        streams::CASES,
        env::CASES,
        kill::CASES,
        spawn::CASES,
        fork::CASES,
    ]
    .into_iter()
    .flatten()
    .copied()
}
