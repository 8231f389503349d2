//! Place of an operation, so that every error names the operation and the path.
//!
//! Invariant: an error about the guest carries a guest path, one about the host a host path.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use sandbox_core::{Error, ErrorKind, GuestPath, Operation, Result};

use crate::walk::{Cancel, Limits};

/// An operation and the directory or file that it works on.
#[derive(Clone, Debug)]
pub(super) struct Place {
    operation: Operation,
    base: Base,
    limits: Limits,
    cancel: Cancel,
}

#[derive(Clone, Debug)]
enum Base {
    Guest(GuestPath),
    Host(PathBuf),
}

impl Place {
    pub(super) fn guest(operation: Operation, path: &GuestPath) -> Self {
        Self {
            operation,
            base: Base::Guest(path.clone()),
            limits: Limits::DEFAULT,
            cancel: Cancel::default(),
        }
    }

    pub(super) fn operation(&self) -> Operation {
        self.operation
    }

    pub(super) fn host(operation: Operation, path: &Path) -> Self {
        Self {
            operation,
            base: Base::Host(path.to_path_buf()),
            limits: Limits::DEFAULT,
            cancel: Cancel::default(),
        }
    }

    /// Sets what a walk below it may cost, and what ends it early.
    pub(super) fn bounded(self, limits: Limits, cancel: Cancel) -> Self {
        Self {
            limits,
            cancel,
            ..self
        }
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    pub(super) fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// # Errors
    /// The caller no longer waits for the result.
    pub(super) fn check_cancel(&self) -> Result<()> {
        let cancelled = |_| self.error(ErrorKind::Other, b"", "cancelled");
        self.cancel.check().map_err(cancelled)
    }

    /// Whether this is in the guest, where permissions are those of its user.
    pub(super) fn is_guest(&self) -> bool {
        matches!(self.base, Base::Guest(_))
    }

    /// Length of a path below this for which the whole is one that the kernel takes.
    pub(super) fn room(&self) -> usize {
        const PATH_MAX: usize = 4095;
        let used = match &self.base {
            Base::Guest(path) => path.as_bytes().len(),
            // Host paths are only ever used relative to a descriptor.
            Base::Host(_) => 0,
        };
        PATH_MAX.saturating_sub(used + 1)
    }

    /// An error at `rel` below this place (at itself if that is empty).
    pub(super) fn error(&self, kind: ErrorKind, rel: &[u8], message: impl Into<String>) -> Error {
        self.at(rel, Error::new(kind, self.operation).with_message(message))
    }

    /// Error for the kernel's answer about `rel` below this place.
    pub(super) fn fail(&self, errno: Errno, rel: &[u8]) -> Error {
        let new = |kind, message: &str| {
            Error::new(kind, self.operation)
                .with_message(message)
                .with_source(std::io::Error::from(errno))
        };
        let error = match errno {
            Errno::LOOP => new(
                ErrorKind::InvalidInput,
                "too many symbolic links, or one of the kind that /proc has",
            ),
            Errno::NAMETOOLONG => new(ErrorKind::InvalidInput, "the name is too long"),
            Errno::XDEV => new(ErrorKind::InvalidInput, "this would cross a mount"),
            Errno::AGAIN => new(
                ErrorKind::Busy,
                "directories were renamed all the time while the path was looked up",
            )
            .with_retryable(true),
            Errno::BUSY | Errno::TXTBSY => new(ErrorKind::Busy, "in use"),
            _ => Error::from_io(std::io::Error::from(errno), self.operation),
        };
        self.at(rel, error)
    }

    /// For `map_err` on the place itself.
    pub(super) fn failed(&self) -> impl Fn(Errno) -> Error + '_ {
        |errno| self.fail(errno, b"")
    }

    /// Something is mounted at `rel`.
    pub(super) fn mounted(&self, rel: &[u8]) -> Error {
        self.error(ErrorKind::Busy, rel, "something is mounted there")
    }

    /// Error for an entry that changed too often while it was worked on.
    pub(super) fn changed(&self, rel: &[u8]) -> Error {
        self.error(ErrorKind::Busy, rel, "changed at the same time")
            .with_retryable(true)
    }

    fn at(&self, rel: &[u8], error: Error) -> Error {
        match &self.base {
            Base::Guest(base) if rel.is_empty() => error.with_path(base),
            Base::Guest(base) => error.with_path(base.join(rel)),
            Base::Host(base) if rel.is_empty() => error.with_host_path(base),
            Base::Host(base) => error.with_host_path(base.join(OsStr::from_bytes(rel))),
        }
    }
}
