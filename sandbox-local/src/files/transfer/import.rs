//! Bringing a directory of the host into the guest.
//!
//! Invariant: the host's directory is read with the host's rights and the guest's is written with
//! the guest's, each by its own thread.

use std::path::Path;

use sandbox_core::{GuestPath, ImportOptions, Operation, Result, TransferReport};
use sandbox_transfer::Excludes;

use super::super::GuestRoot;
use super::super::create::PARENT_MODE;
use super::super::place::Place;
use super::super::resolve::DIR_READ;
use super::super::write::staged_prefix;
use super::sink::{Destination, receive};
use super::source::{Rules, send, take_inventory};
use super::{prune, transfer};
use crate::sys::launch;
use crate::walk::Cancel;

impl GuestRoot {
    /// See [`Sandbox::import_dir`](sandbox_core::Sandbox::import_dir).
    ///
    /// Below `to` no link is followed. A file whose place a directory has is an error, and the
    /// reverse, unless mirroring takes away what is in the way. Mirroring removes before it
    /// brings.
    pub(crate) fn import(
        &self,
        from: &Path,
        to: &GuestPath,
        options: &ImportOptions,
    ) -> Result<TransferReport> {
        const OP: Operation = Operation::ImportDir;
        let source = Place::host(OP, from);
        let target = Place::guest(OP, to);
        let excludes = Excludes::new(&options.excludes, OP)?;
        let cancel = Cancel::default();
        let rules = Rules {
            excludes: &excludes,
            ignore_files: options.ignore_files,
            confine_links: false,
            refuse_mounts: false,
            max_bytes: options.max_bytes,
            max_entries: None,
            unreadable: options.unreadable,
            cancel: &cancel,
        };
        let flags = DIR_READ | rustix::fs::OFlags::CLOEXEC;
        let host =
            rustix::fs::open(from, flags, rustix::fs::Mode::empty()).map_err(source.failed())?;
        let inventory = options
            .mirror
            .then(|| take_inventory(&host, &source, &rules))
            .transpose()?;
        let mut removed = 0;
        let prefix = staged_prefix();
        let mut report = transfer(
            &source,
            |events| send(&host, &source, &rules, events),
            |events| {
                let _records = self.record_staged_below(to, &prefix)?;
                let _guest = self.as_guest(OP)?;
                let top = self.create_all(to, PARENT_MODE, &target)?;
                if let Some(inventory) = &inventory {
                    let readable = self.open(to, DIR_READ).map_err(target.failed())?;
                    removed = prune::prune(&readable, &target, inventory, &excludes)?;
                }
                let destination = Destination {
                    place: &target,
                    source: &source,
                    keep_times: true,
                    unseen: false,
                    max_bytes: options.max_bytes,
                    prefix: prefix.clone(),
                    cancel: &cancel,
                    progress: options.progress.as_ref(),
                };
                receive(top, &destination, events)
            },
        )?;
        report.removed = removed;
        // What was written may be executed.
        launch::let_go();
        Ok(report)
    }
}
