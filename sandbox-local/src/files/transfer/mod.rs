//! Directories between host and guest.
//!
//! A [`source`] reads a tree on a thread of its own and hands it over as a stream of events; a
//! [`sink`] writes them. One of the two works with the guest's rights, the other with the host's,
//! and no thread ever has to change between them.
//!
//! Invariant: what crosses is names, permission bits, link targets and open regular files; no path
//! of one side is ever looked up on the other.

mod export;
mod filter;
mod import;
mod layered;
mod prune;
mod sink;
mod source;

pub(super) use layered::Entry;

use std::fs::File;

use rustix::fs::StatxTimestamp;
use sandbox_core::{Error, ErrorKind, Result, TransferReport};

use super::place::Place;
use super::stat::Stat;
use crate::walk::Cancel;

/// Limit of events that are under way: as many files are open at most.
const IN_FLIGHT: usize = 64;

fn check(cancel: &Cancel, place: &Place) -> Result<()> {
    cancel
        .check()
        .map_err(|_| place.error(ErrorKind::Other, b"", "cancelled"))
}

/// A step of a transfer. Names are those of entries in the directory at work.
enum Event {
    /// Go into a directory, which may have to be made.
    Enter { name: Vec<u8>, stat: Stat },
    /// A regular file, open for reading, with the size it had.
    File {
        name: Vec<u8>,
        stat: Stat,
        content: File,
    },
    /// A symbolic link.
    Link {
        name: Vec<u8>,
        target: Vec<u8>,
        modified: StatxTimestamp,
    },
    /// Go back up.
    Leave,
}

/// Runs the source on a thread of its own and the sink on this one, which must not have taken on
/// the guest's rights yet: the new thread inherits what this one has.
fn transfer(
    place: &Place,
    source: impl FnOnce(source::Sender) -> Result<TransferReport> + Send,
    sink: impl FnOnce(source::Receiver) -> Result<TransferReport>,
) -> Result<TransferReport> {
    let (send, receive) = std::sync::mpsc::sync_channel(IN_FLIGHT);
    std::thread::scope(|scope| {
        let reading = std::thread::Builder::new()
            .name("sandbox-transfer".to_owned())
            .spawn_scoped(scope, move || source(send))
            .map_err(|error| {
                place
                    .error(ErrorKind::Other, b"", "no thread can be started")
                    .with_source(error)
            })?;
        let written = sink(receive);
        let read = reading.join().unwrap_or_else(|_| {
            Err(place.error(ErrorKind::Other, b"", "a reading thread ended unexpectedly"))
        });
        // If the sink failed the source only found the receiver gone.
        let mut report = written?;
        let read = read?;
        report.skipped = read.skipped;
        report.skipped_total = read.skipped_total;
        Ok(report)
    })
}

/// More bytes than the caller allows.
fn too_many_bytes(place: &Place, limit: u64) -> Error {
    place
        .error(
            ErrorKind::LimitExceeded,
            b"",
            format!("the files are larger than the limit of {limit} bytes"),
        )
        .with_hint("raise max_bytes, or exclude something")
}
