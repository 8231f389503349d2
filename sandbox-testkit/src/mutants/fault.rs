//! Faults of errors.
//!
//! Must never make an error of a success.

use sandbox_core::{Error, ErrorKind, Operation, Sandbox};

use super::Mutant;

/// The error as a mutant says it.
pub(super) fn said(mutant: Mutant, inner: &dyn Sandbox, error: Error) -> Error {
    match mutant {
        Mutant::ErrorsWithoutPath => rebuilt(&error, false, true),
        Mutant::ErrorsWithoutSandbox => rebuilt(&error, true, false),
        Mutant::ErrorsOfAnotherOperation => {
            let other = Error::new(error.kind(), Operation::Close)
                .with_message(error.message())
                .with_sandbox(inner.info().id);
            match error.path() {
                Some(path) => other.with_path(path),
                None => other,
            }
        }
        Mutant::HintsLeftOut if error.hint().is_some() => rebuilt(&error, true, true),
        Mutant::LostSaysClosed if error.kind() == ErrorKind::Lost => {
            of_kind(&error, ErrorKind::Closed)
        }
        Mutant::ExpiredSaysClosed if error.kind() == ErrorKind::Expired => {
            of_kind(&error, ErrorKind::Closed)
        }
        Mutant::ClosedSaysLost if error.kind() == ErrorKind::Closed => {
            of_kind(&error, ErrorKind::Lost)
        }
        _ => error,
    }
}

/// Rebuilds an error without its path or its sandbox, and in any case without partial output.
fn rebuilt(error: &Error, path: bool, sandbox: bool) -> Error {
    let mut new = of_kind(error, error.kind());
    if !path || !sandbox || error.hint().is_some() {
        new = Error::new(error.kind(), error.operation()).with_message(error.message());
        if let (true, Some(path)) = (path, error.path()) {
            new = new.with_path(path);
        }
        if let (true, Some(sandbox)) = (sandbox, error.sandbox()) {
            new = new.with_sandbox(sandbox.clone());
        }
        if let Some(ran) = error.execution() {
            new = new.with_execution(ran);
        }
    }
    new
}

/// Rebuilds an error of another kind, without partial output.
pub(super) fn of_kind(error: &Error, kind: ErrorKind) -> Error {
    let mut new = Error::new(kind, error.operation()).with_message(error.message());
    if let Some(path) = error.path() {
        new = new.with_path(path);
    }
    if let Some(sandbox) = error.sandbox() {
        new = new.with_sandbox(sandbox.clone());
    }
    if let Some(ran) = error.execution() {
        new = new.with_execution(ran);
    }
    new
}
