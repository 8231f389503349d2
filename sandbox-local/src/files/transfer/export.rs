//! Bringing a directory of the guest to the host.
//!
//! Invariant: the guest's directory is read with the guest's rights by its own thread; on the host
//! nothing is written but below a directory of our own making, or, merging, below the destination
//! without following a link.

use std::path::Path;

use rustix::fs::OFlags;
use sandbox_core::{ExportOptions, GuestPath, Operation, Result, TransferReport};
use sandbox_transfer::{Excludes, Landing};

use super::super::GuestRoot;
use super::super::place::Place;
use super::super::resolve::{DIR_READ, reopen};
use super::super::stat::stat_fd;
use super::sink::{Destination, receive};
use super::source::{Rules, send};
use super::{check, transfer};
use crate::walk::Cancel;

impl GuestRoot {
    /// See [`Sandbox::export_dir`](sandbox_core::Sandbox::export_dir).
    ///
    /// Setting the flag ends it soon; what was written so far is then removed.
    pub(crate) fn export(
        &self,
        from: &GuestPath,
        to: &Path,
        options: &ExportOptions,
        cancel: &Cancel,
    ) -> Result<TransferReport> {
        const OP: Operation = Operation::ExportDir;
        let source = Place::guest(OP, from).bounded(self.limits, Cancel::default());
        let target = Place::host(OP, to);
        let excludes = Excludes::new(&options.excludes, OP)?;
        let (guest, top) = {
            let _guest = self.as_guest(OP)?;
            let handle = self
                .open(from, OFlags::PATH | OFlags::DIRECTORY)
                .map_err(source.failed())?;
            let stat = stat_fd(&handle).map_err(source.failed())?;
            let dir = reopen(&handle, DIR_READ).map_err(source.failed())?;
            (dir, stat)
        };
        let rules = Rules {
            excludes: &excludes,
            ignore_files: false,
            confine_links: true,
            refuse_mounts: false,
            max_bytes: Some(options.max_bytes),
            max_entries: Some(options.max_entries),
            unreadable: options.unreadable,
            cancel,
        };
        let landing = Landing::prepare(to, options.existing)?;
        let _record = self.record_partial(landing.path())?;
        let report = transfer(
            &source,
            |events| {
                let _guest = self.as_guest(OP)?;
                send(&guest, &source, &rules, events)
            },
            |events| {
                let destination = Destination {
                    place: &target,
                    source: &source,
                    keep_times: true,
                    unseen: true,
                    max_bytes: Some(options.max_bytes),
                    prefix: String::new(),
                    cancel,
                    progress: options.progress.as_ref(),
                };
                receive(landing.open()?, &destination, events)
            },
        )?;
        check(cancel, &target)?;
        landing.land(top.permissions(), top.metadata().modified)?;
        Ok(report)
    }
}
