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

use sandbox_core::{FileWrite, GuestPath, Operation, Result};

use super::GuestRoot;

pub(super) use stage::create_file;

impl GuestRoot {
    /// See [`Sandbox::write_files`](sandbox_core::Sandbox::write_files). The paths are those of
    /// [`FileBatch::resolve`](sandbox_core::FileBatch::resolve).
    ///
    /// Something else than a regular file, link or directory at a target (a FIFO, socket or
    /// device) is refused rather than replaced.
    pub(crate) fn write(&self, files: &[(GuestPath, &FileWrite)]) -> Result<()> {
        let _guest = self.as_guest(Operation::WriteFiles)?;
        let plan = plan::Plan::new(self, files)?;
        let outcome = stage::stage(self, &plan).and_then(|()| commit::commit(self, &plan));
        if outcome.is_err() {
            stage::clean_up(self, &plan);
        }
        outcome
    }
}

/// A prefix for staged names that the guest can't guess and no other batch has.
pub(super) fn staged_prefix() -> String {
    format!(".sandbox-stage-{:016x}-", random())
}

/// A number that nobody can guess.
pub(super) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
