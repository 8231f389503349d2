//! The vocabulary in which cases state what they expect.
//!
//! Invariant: every expectation of an error checks kind, operation and sandbox together, so that
//! no case can forget one of them.

use std::fmt::Debug;

use sandbox_core::{Error, ErrorKind, GuestPath, Operation, Sandbox};

use crate::kit::{Failed, Verdict};

macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err($crate::kit::Failed::new(format_args!($($text)+)));
        }
    };
}
pub(crate) use ensure;

macro_rules! ensure_eq {
    ($found:expr, $expected:expr, $($text:tt)+) => {
        match (&$found, &$expected) {
            (found, expected) => {
                if found != expected {
                    return Err($crate::kit::Failed::new(format_args!(
                        "{}: expected {expected:?}, found {found:?}",
                        format_args!($($text)+),
                    )));
                }
            }
        }
    };
}
pub(crate) use ensure_eq;

/// The error that an operation is expected to fail with.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// The kind.
    pub kind: ErrorKind,
    /// The operation that it names.
    pub operation: Operation,
}

/// Checks that an operation failed with this kind and names itself and the sandbox.
#[track_caller]
pub fn refused<T: Debug>(
    result: Result<T, Error>,
    sandbox: &dyn Sandbox,
    operation: Operation,
    kind: ErrorKind,
) -> Verdict<Error> {
    let error = match result {
        Err(error) => error,
        Ok(value) => {
            let text: String = format!("{value:?}").chars().take(300).collect();
            return Err(Failed::new(format_args!(
                "{operation} should have failed with {kind:?} and gave {text}"
            )));
        }
    };
    if error.kind() != kind {
        return Err(Failed::new(format_args!(
            "{operation} should have failed with {kind:?}: {error:?}"
        )));
    }
    if error.operation() != operation {
        return Err(Failed::new(format_args!(
            "the error should name the operation {operation}: {error:?}"
        )));
    }
    let id = sandbox.info().id;
    if error.sandbox() != Some(&id) {
        return Err(Failed::new(format_args!(
            "the error should name the sandbox {id}: {error:?}"
        )));
    }
    Ok(error)
}

/// Checks as [`refused`] does, and that the error names this path, as given or resolved.
#[track_caller]
pub fn refused_at<T: Debug>(
    result: Result<T, Error>,
    sandbox: &dyn Sandbox,
    operation: Operation,
    kind: ErrorKind,
    path: impl Into<GuestPath>,
) -> Verdict<Error> {
    let path = path.into();
    let error = refused(result, sandbox, operation, kind)?;
    match error.path() {
        Some(named) if same_path(sandbox, named, &path) => Ok(error),
        _ => Err(Failed::new(format_args!(
            "the error should name the path {path:?}: {error:?}"
        ))),
    }
}

/// Whether two paths are the same one, as given or resolved against the workdir.
pub fn same_path(sandbox: &dyn Sandbox, a: &GuestPath, b: &GuestPath) -> bool {
    let workdir = sandbox.info().workdir;
    let resolve = |path: &GuestPath| path.resolve(&workdir, Operation::Metadata).ok();
    a == b || (resolve(a).is_some() && resolve(a) == resolve(b))
}
