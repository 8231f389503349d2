//! Why a query gave no data, and what that proves about the command that it was to run.
//!
//! Invariant: a command is told not to have started only where this was proven: nothing was sent,
//! or the engine refused before it began. Everything else is unknown, and never sent again.

use std::error::Error as StdError;
use std::time::Duration;

use sandbox_core::{Error, ErrorKind, Operation, Ran};
use serde_json::Value;

/// How many lines of a failed build an error has.
const ERROR_LINES: usize = 20;

/// What the connection says of itself.
type Source = Box<dyn StdError + Send + Sync>;

/// Why a query gave no data.
#[derive(Debug)]
pub(crate) enum Failed {
    /// Nothing was sent.
    NotSent(Source),
    /// The connection broke after the query went out: nobody knows what was done.
    Broken(Source),
    /// The time was up.
    Late(Duration),
    /// The answer is larger than was asked for.
    TooLarge(u64),
    /// The token was refused: nothing was done.
    Refused,
    /// Something else than the engine answered.
    Status(u16, String),
    /// The answer can't be read.
    Garbage(String),
    /// The session's client is gone: nothing was done.
    Stale(String),
    /// The engine no longer knows what the query starts from.
    Gone(String),
    /// There is no such image.
    NoImage(String),
    /// The engine does not reach the image's registry.
    NoRegistry(String),
    /// There is no such user.
    NoUser(String),
    /// The engine says no.
    Engine(String),
}

pub(crate) fn classify(mut message: String, stderr: Option<&Value>) -> Failed {
    // Of a command that the engine itself judges: those that build images.
    if let Some(stderr) = stderr.and_then(Value::as_str) {
        let lines: Vec<_> = stderr.trim().lines().rev().take(ERROR_LINES).collect();
        for line in lines.into_iter().rev() {
            message.push('\n');
            message.push_str(line);
        }
    }
    // The last two are said, with status 503, of a query that was not begun.
    let stale = [
        "client session attachables",
        "engine is shutting down",
        "session is closing",
    ];
    if stale.iter().any(|text| message.contains(text)) {
        return Failed::Stale(message);
    }
    // An id is the number of a result in the engine's memory.
    if message.contains("missing shared result") {
        return Failed::Gone(message);
    }
    if message.contains("no matching entries in passwd file") {
        return Failed::NoUser(message);
    }
    let resolving = message.contains("failed to resolve image");
    if resolving && message.contains("not found") {
        return Failed::NoImage(message);
    }
    if resolving && message.contains("failed to do request") {
        return Failed::NoRegistry(message);
    }
    Failed::Engine(message)
}

impl Failed {
    /// Whether the engine can't have started anything.
    pub(crate) fn nothing_done(&self) -> bool {
        matches!(
            self,
            Self::NotSent(_)
                | Self::Refused
                | Self::Stale(_)
                | Self::Gone(_)
                | Self::NoImage(_)
                | Self::NoRegistry(_)
                | Self::NoUser(_)
        )
    }

    /// The error of an operation. For a command, `ran` says what this failure can say.
    pub(crate) fn error(self, operation: Operation) -> Error {
        let ran = if self.nothing_done() {
            Ran::NotStarted
        } else {
            Ran::Unknown
        };
        let command = matches!(operation, Operation::Exec);
        let new = |kind, message: String| {
            let error = Error::new(kind, operation).with_message(message);
            match command {
                true => error.with_ran(ran).with_retryable(ran == Ran::NotStarted),
                false => error,
            }
        };
        match self {
            Self::NotSent(error) => new(
                ErrorKind::Unavailable,
                "the Dagger session can't be reached".into(),
            )
            .with_hint("is the engine running? the next create connects anew")
            .with_source(error),
            Self::Broken(error) => new(
                ErrorKind::Unavailable,
                "the Dagger session broke off".into(),
            )
            .with_source(error),
            Self::Late(after) => new(
                ErrorKind::Timeout,
                format!("the Dagger engine did not answer within {after:?}"),
            ),
            Self::TooLarge(largest) => new(
                ErrorKind::LimitExceeded,
                format!("the engine's answer is larger than {largest} bytes"),
            ),
            Self::Refused => new(
                ErrorKind::Unauthenticated,
                "the Dagger session refuses the token".into(),
            )
            .with_hint("check DAGGER_SESSION_TOKEN"),
            Self::Status(status, text) => new(
                ErrorKind::Unavailable,
                format!("HTTP {status} instead of an answer: {}", text.trim()),
            ),
            Self::Garbage(text) => new(
                ErrorKind::Other,
                format!("the answer can't be read: {:?}", text.trim()),
            )
            .with_retryable(false),
            Self::Stale(text) => new(ErrorKind::Unavailable, text)
                .with_hint("the session's client is gone; connect again"),
            Self::Gone(text) => new(ErrorKind::Lost, text),
            Self::NoImage(text) => new(ErrorKind::NotFound, text)
                .with_hint("check the reference, and the login of its registry"),
            Self::NoRegistry(text) => new(ErrorKind::Unavailable, text)
                .with_hint("the engine itself asks the registry: has it a network, and a proxy?"),
            Self::NoUser(text) => new(ErrorKind::NotFound, text).with_retryable(false),
            Self::Engine(text) => new(ErrorKind::Other, text).with_retryable(false),
        }
    }
}

/// Why there is no container.
#[derive(Debug)]
pub(crate) enum NotMade {
    Refused(Error),
    Failed(Failed),
}

impl From<Error> for NotMade {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<Failed> for NotMade {
    fn from(failed: Failed) -> Self {
        Self::Failed(failed)
    }
}

impl NotMade {
    pub(crate) fn error(self, operation: Operation) -> Error {
        match self {
            Self::Refused(error) => error,
            Self::Failed(failed) => failed.error(operation),
        }
    }
}
