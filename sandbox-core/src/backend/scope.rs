//! The operation, path and sandbox that all errors of one call carry.

use crate::{Error, ErrorKind, GuestPath, Operation, Result, SandboxId};

/// One call on one sandbox: adds the sandbox and the path to errors that do not name them.
///
/// ```
/// use sandbox_core::{Error, ErrorKind, GuestPath, Operation, SandboxId, backend::Scope};
/// let id = SandboxId::new("s1");
/// let path = GuestPath::from("/a");
/// let scope = Scope::new(Operation::ReadFile, &id).path(&path);
/// let error = scope.error(ErrorKind::NotFound, "no such file");
/// assert_eq!(error.to_string(), "read_file: no such file: /a (sandbox s1)");
/// assert!(scope.open(true).is_err());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    operation: Operation,
    sandbox: &'a SandboxId,
    path: Option<&'a GuestPath>,
}

impl<'a> Scope<'a> {
    /// A call of this operation on this sandbox.
    pub fn new(operation: Operation, sandbox: &'a SandboxId) -> Self {
        Self {
            operation,
            sandbox,
            path: None,
        }
    }

    /// Sets the path that the call is about.
    #[must_use]
    pub fn path(mut self, path: &'a GuestPath) -> Self {
        self.path = Some(path);
        self
    }

    /// A new error of this call.
    pub fn error(&self, kind: ErrorKind, message: impl Into<String>) -> Error {
        self.name(Error::new(kind, self.operation).with_message(message))
    }

    /// Adds the sandbox and the path to an error that does not name them.
    pub fn name(&self, mut error: Error) -> Error {
        if error.sandbox().is_none() {
            error = error.with_sandbox(self.sandbox.clone());
        }
        match self.path {
            Some(path) if error.path().is_none() && error.host_path().is_none() => {
                error.with_path(path)
            }
            _ => error,
        }
    }

    /// Refuses the call on a closed sandbox.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] if `closed`.
    pub fn open(&self, closed: bool) -> Result<()> {
        match closed {
            true => Err(Error::closed(self.operation, self.sandbox)),
            false => Ok(()),
        }
    }
}
