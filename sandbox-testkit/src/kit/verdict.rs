//! The result of a case, and the failure that it reports.

use std::fmt;
use std::panic::Location;

/// The reason why a case failed, with the place in the kit where it was seen.
#[derive(Debug)]
pub struct Failed(String);

impl Failed {
    /// A failure with this text, seen at the caller's line.
    #[track_caller]
    pub fn new(text: impl fmt::Display) -> Self {
        let at = Location::caller();
        Self(format!("{text}\n  at {}:{}", at.file(), at.line()))
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<sandbox_core::Error> for Failed {
    #[track_caller]
    fn from(error: sandbox_core::Error) -> Self {
        Self::new(format_args!("an unexpected error: {error:?}"))
    }
}

impl From<std::io::Error> for Failed {
    #[track_caller]
    fn from(error: std::io::Error) -> Self {
        Self::new(format_args!("an I/O error on the host: {error}"))
    }
}

impl From<tokio::task::JoinError> for Failed {
    #[track_caller]
    fn from(error: tokio::task::JoinError) -> Self {
        Self::new(format_args!("a task of the case failed: {error}"))
    }
}

/// The result of a case.
pub type Verdict<T = ()> = Result<T, Failed>;
