//! Writing a batch of files: all of it or none of it.
//!
//! First every target is looked at ([`plan`]), then every file is written under a name of its own
//! beside its target ([`stage`]), then all are renamed into place ([`commit`]); what a rename
//! replaces is kept aside until the last one has succeeded.
//!
//! What is missing of a path is staged as a whole directory, which one rename puts in place.
//! Staging happens in the target's own directory: nowhere else is it certain to be on the same
//! mount, writable by the guest's user, and to pass on the same group and ACL.
//!
//! Invariant: until the batch is in place no target has changed, and if it fails none has.

mod commit;
mod plan;
mod stage;

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::os::fd::AsFd as _;

use std::sync::PoisonError;

use rustix::fs::StatVfsMountFlags;
use sandbox_core::{Error, ErrorKind, FileWrite, GuestPath, Operation, Result};

use super::GuestRoot;
use super::resolve::DIR_PATH;
use crate::layers::Record;

pub(super) use stage::{Modes, create_file};

impl GuestRoot {
    /// See [`Sandbox::write_files`](sandbox_core::Sandbox::write_files). The paths are those of
    /// [`FileBatch::resolve`](sandbox_core::FileBatch::resolve).
    ///
    /// Something else than a regular file, link or directory at a target (a FIFO, socket or
    /// device) is refused rather than replaced.
    pub(crate) fn write(&self, files: &[(GuestPath, &FileWrite)]) -> Result<()> {
        // One batch after the other: two that meet at a target would each see it change.
        let _alone = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        // Dropped after the guest's rights are.
        let mut _records = Vec::new();
        let mut _guest = self.as_guest(Operation::WriteFiles)?;
        let plan = plan::Plan::new(self, files).map_err(|error| self.read_only(error))?;
        if self.writes_to_host() {
            drop(_guest);
            _records = self.record(&plan)?;
            _guest = self.as_guest(Operation::WriteFiles)?;
        }
        let outcome = stage::stage(self, &plan).and_then(|()| commit::commit(self, &plan));
        if outcome.is_err() {
            stage::clean_up(self, &plan);
        }
        outcome.map_err(|error| self.read_only(error))
    }

    /// Stages the one file of a batch, has `fill` write it, and puts it in place if that says so;
    /// otherwise nothing of it is left. The guest's rights are not held while it is filled.
    pub(super) fn write_with(
        &self,
        files: &[(GuestPath, &FileWrite)],
        fill: impl FnOnce(&std::os::fd::OwnedFd) -> Result<bool>,
    ) -> Result<()> {
        const OP: Operation = Operation::WriteFiles;
        let alone = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        // Dropped after the guest's rights are.
        let mut _records = Vec::new();
        let mut guest = self.as_guest(OP)?;
        let plan = plan::Plan::new(self, files).map_err(|error| self.read_only(error))?;
        if self.writes_to_host() {
            drop(guest);
            _records = self.record(&plan)?;
            guest = self.as_guest(OP)?;
        }
        let staged = stage::stage_one(self, &plan);
        drop(guest);
        drop(alone);
        let filled = staged.and_then(|file| fill(&file));
        // The kernel executes nothing that is open for writing somewhere.
        crate::sys::launch::let_go();
        let _alone = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        let _guest = self.as_guest(OP)?;
        let outcome = match filled {
            Ok(true) => commit::commit(self, &plan),
            Ok(false) => {
                stage::clean_up(self, &plan);
                return Ok(());
            }
            Err(error) => Err(error),
        };
        if outcome.is_err() {
            stage::clean_up(self, &plan);
        }
        outcome.map_err(|error| self.read_only(error))
    }

    /// Writes down what of a batch is staged in directories of the host.
    fn record(&self, plan: &plan::Plan<'_>) -> Result<Vec<Record>> {
        let groups = plan.groups.iter().map(|group| &group.dir);
        let anchors = plan.trees.iter().map(|tree| &tree.anchor);
        let mut records = Vec::new();
        for dir in groups.chain(anchors) {
            records.extend(self.record_staged(dir.open(self)?.as_fd(), &plan.prefix)?);
        }
        Ok(records)
    }

    /// The kernel looks at the permissions of a file before it looks at its mount; that the place
    /// is read-only says more.
    fn read_only(&self, error: Error) -> Error {
        let place = error
            .path()
            .filter(|_| error.kind() == ErrorKind::PermissionDenied);
        let Some(dir) = place.and_then(GuestPath::parent) else {
            return error;
        };
        let flags = self
            .open(&dir, DIR_PATH)
            .and_then(rustix::fs::fstatvfs)
            .map_or(StatVfsMountFlags::empty(), |found| found.f_flag);
        if !flags.contains(StatVfsMountFlags::RDONLY) {
            return error;
        }
        let path = error.path().cloned().unwrap_or_else(GuestPath::root);
        Error::new(ErrorKind::ReadOnly, Operation::WriteFiles)
            .with_message("the place is read-only")
            .with_path(path)
            .with_source(error)
    }
}

/// Beginning of the names under which a batch is written before it is put in place.
pub(super) const STAGED: &[u8] = b".sandbox-stage-";

/// A prefix for staged names that the guest can't guess and no other batch has.
pub(super) fn staged_prefix() -> String {
    format!(".sandbox-stage-{:016x}-", random())
}

/// A number that can't be guessed.
pub(super) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
