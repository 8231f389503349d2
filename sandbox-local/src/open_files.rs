//! Open files of this process: a reserve that new sandboxes leave alone, and errors that say how
//! many are left.
//!
//! Must never open one: it is asked when there are none.

use std::os::fd::{AsFd, AsRawFd};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sandbox_core::{Error, ErrorKind, Operation, Result};

use crate::sys::open_files;

/// Descriptors of an idle sandbox: its control socket, its init, its root directory.
const HELD: u64 = 3;
/// Left for the sandboxes that are there, of a limit of 512 or more: some ten commands at once.
const RESERVE: u64 = 64;
/// Numbers below are given out while most are free, with any usual limit.
const FEW: u64 = 256;

/// Refuses a new sandbox, which has this descriptor, if it would leave too few open files for those
/// that are there.
pub(crate) fn check(newest: impl AsFd, operation: Operation) -> Result<()> {
    let newest = u64::try_from(newest.as_fd().as_raw_fd()).unwrap_or_default();
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let reserve = RESERVE.min(limit / 8);
    // The kernel gives out the lowest number that is free: all that are left are above.
    if newest < FEW || open_files::free(newest..limit, reserve as usize) >= reserve {
        return Ok(());
    }
    Err(Error::new(ErrorKind::LimitExceeded, operation)
        .with_message("too few open files are left for another sandbox")
        .with_hint(advice(left(limit), limit)))
}

fn left(limit: u64) -> u64 {
    open_files::free(0..limit, usize::MAX)
}

/// Says in an error for lack of open files how many are left.
pub(crate) fn told(error: Error) -> Error {
    let is_it = error
        .hint()
        .is_some_and(|hint| hint.contains("`ulimit -n`"));
    if !is_it || error.hint().is_some_and(|hint| hint.contains(" are left")) {
        return error;
    }
    match getrlimit(Resource::Nofile).current {
        Some(limit) => error.with_hint(advice(left(limit), limit)),
        None => error,
    }
}

fn advice(left: u64, limit: u64) -> String {
    format!(
        "{left} of this process's {limit} open files are left, and each idle sandbox holds {HELD}: \
         close sandboxes, or raise the limit (`ulimit -n`, LimitNOFILE= of its service, or \
         LocalConfig::all_open_files)"
    )
}

/// Raises the soft limit to the hard one.
pub(crate) fn raise() -> std::io::Result<()> {
    let own = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: own.maximum,
        ..own
    };
    Ok(setrlimit(Resource::Nofile, raised)?)
}
