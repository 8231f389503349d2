//! Why a query gave no data, and what that proves about the command that it was to run.
//!
//! Invariant: a command is said not to have started only with proof: nothing was sent, the engine
//! refused the request before it began, or the container that the command needs could not be named.
//! Everything else is unknown, and is never sent again. Text that a guest may have written (the
//! output of a command) proves nothing.

use std::error::Error as StdError;
use std::time::Duration;

use sandbox_core::{Error, ErrorKind, Execution, Operation};
use serde_json::Value;

/// Limit of output lines in the error of a failed build.
const ERROR_LINES: usize = 20;

/// Messages of an engine that was asked to end.
const ENDING: [&str; 2] = ["engine is shutting down", "session is closing"];

/// The cause of a failed connection.
type Source = Box<dyn StdError + Send + Sync>;

/// Why a query gave no data.
#[derive(Debug)]
pub(crate) enum Failed {
    /// Nothing was sent: the runtime that polls the caller lacks something.
    NoRuntime(Error),
    /// Nothing was sent.
    NotSent(Source),
    /// The CLI answered that it can't reach the engine, so that the engine got nothing.
    NoEngine(String),
    /// The connection broke after the query was sent.
    Broken(Source),
    /// No answer in time.
    Late(Duration),
    /// The answer is larger than the caller's bound.
    TooLarge(u64),
    /// The token was refused.
    Refused,
    /// The engine, asked to end, did not begin this query (status 503).
    NotBegun(String),
    /// The engine, asked to end, broke off work that it had begun (status 200).
    Ending(String),
    /// An answer with a status of failure that is not the engine's.
    Status(u16, String),
    /// An answer that can't be read.
    Garbage(String),
    /// The engine does not know this session's client any more. It may say so after it began.
    Stale(String),
    /// The session was found to be lost before; nothing was sent.
    SessionLost,
    /// The engine forgot an id of the query.
    Gone {
        message: String,
        /// Whether it is the id that everything else in the query starts from.
        first: bool,
    },
    /// The image does not exist.
    NoImage(String),
    /// The engine does not reach the image's registry.
    NoRegistry(String),
    /// The user of the container is unknown, and no process was started.
    NoUser(String),
    /// The engine's store is full.
    Full(String),
    /// The engine does not show what a command writes before its end.
    NoLogs,
    /// Any other error of the engine.
    Engine(String),
}

/// The failure that an error of a GraphQL answer stands for.
pub(crate) fn classify(error: &Value) -> Failed {
    let message = error.get("message").and_then(Value::as_str);
    let mut message = message.unwrap_or("an error without a message").to_owned();
    let code = error
        .pointer("/extensions/exitCode")
        .and_then(Value::as_i64);
    if let Some(code) = code {
        // -1: the engine could not start a process. Any other code is that of one which ran.
        if code == -1 && message.contains("no matching entries in passwd file") {
            return Failed::NoUser(message);
        }
        let stderr = error.pointer("/extensions/stderr").and_then(Value::as_str);
        let lines: Vec<_> = stderr.unwrap_or_default().trim().lines().collect();
        for line in &lines[lines.len().saturating_sub(ERROR_LINES)..] {
            message.push('\n');
            message.push_str(line);
        }
        return Failed::Engine(message);
    }
    if ENDING.iter().any(|text| message.contains(text)) {
        return Failed::Ending(message);
    }
    if message.contains("client session attachables") {
        return Failed::Stale(message);
    }
    // An id is the number of a result in the engine's memory. The first field of the answer can't
    // be found: nothing that is selected below it was looked at.
    if message.contains("missing shared result") {
        let path = error.get("path").and_then(Value::as_array);
        let first = path.is_some_and(|path| path.len() == 1 && path[0] == "node");
        return Failed::Gone { message, first };
    }
    if message.contains("no space left on device") {
        return Failed::Full(message);
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

/// The failure that a status of failure stands for.
pub(crate) fn classify_status(status: u16, text: &str) -> Failed {
    let text = text.trim().to_owned();
    if status == 401 {
        return Failed::Refused;
    }
    if status == 503 && ENDING.iter().any(|ending| text.contains(ending)) {
        return Failed::NotBegun(text);
    }
    // The CLI's own HTTP client says that it could not connect.
    if status == 502 && text.contains("connect: connection refused") {
        return Failed::NoEngine(text);
    }
    Failed::Status(status, text)
}

impl Failed {
    /// Whether it is proven that the engine began nothing.
    pub(crate) fn nothing_begun(&self) -> bool {
        match self {
            Self::NoRuntime(_)
            | Self::NotSent(_)
            | Self::NoEngine(_)
            | Self::Refused
            | Self::NotBegun(_)
            | Self::SessionLost
            | Self::NoLogs
            | Self::NoUser(_) => true,
            Self::Gone { first, .. } => *first,
            Self::Broken(_)
            | Self::Late(_)
            | Self::TooLarge(_)
            | Self::Ending(_)
            | Self::Status(..)
            | Self::Garbage(_)
            | Self::Stale(_)
            | Self::NoImage(_)
            | Self::NoRegistry(_)
            | Self::Full(_)
            | Self::Engine(_) => false,
        }
    }

    /// Whether the failure is the session's, so that another session may do better.
    pub(crate) fn is_of_the_session(&self) -> bool {
        matches!(
            self,
            Self::NotSent(_)
                | Self::NoEngine(_)
                | Self::NotBegun(_)
                | Self::Ending(_)
                | Self::Stale(_)
                | Self::SessionLost
                | Self::Broken(_)
                | Self::Status(..)
        )
    }

    /// The error of an operation. That of a command says whether it ran, as far as that is proven.
    pub(crate) fn error(self, operation: Operation) -> Error {
        let ran = match self.nothing_begun() {
            true => Execution::NotStarted,
            false => Execution::Unknown,
        };
        let command = matches!(operation, Operation::Exec | Operation::Spawn);
        let new = |kind, message: String| {
            let error = Error::new(kind, operation).with_message(message);
            match command {
                // Only what was not begun, and what may be different soon, is worth another try.
                true => {
                    let retryable = error.is_retryable() && ran == Execution::NotStarted;
                    error.with_execution(ran).with_retryable(retryable)
                }
                false => error,
            }
        };
        match self {
            Self::NoRuntime(error) => {
                let hint = error.hint().unwrap_or_default().to_owned();
                new(error.kind(), error.message().to_owned())
                    .with_hint(hint)
                    .with_source(error)
            }
            Self::NotSent(error) => new(
                ErrorKind::Unavailable,
                "the Dagger session can't be reached".into(),
            )
            .with_hint("is the engine running? the next create connects anew")
            .with_source(error),
            Self::NoEngine(text) => new(
                ErrorKind::Unavailable,
                format!("the Dagger CLI can't reach its engine: {text}"),
            )
            .with_hint("is the engine running? the next create connects anew"),
            Self::Broken(error) => new(
                ErrorKind::Unavailable,
                "the Dagger session broke off".into(),
            )
            .with_source(error),
            Self::Late(after) => new(
                ErrorKind::Unavailable,
                format!("the Dagger engine did not answer within {after:?}"),
            )
            .with_retryable(false),
            Self::TooLarge(largest) => new(
                ErrorKind::LimitExceeded,
                format!("the engine's answer is larger than {largest} bytes"),
            ),
            Self::Refused => new(
                ErrorKind::Unauthenticated,
                "the Dagger session refuses the token".into(),
            )
            .with_hint("check DAGGER_SESSION_TOKEN"),
            Self::NotBegun(text) | Self::Ending(text) => new(
                ErrorKind::Unavailable,
                format!("the Dagger engine is being stopped: {text}"),
            )
            .with_hint("create the sandbox anew when the engine runs again"),
            Self::Status(status, text) => new(
                ErrorKind::Unavailable,
                format!("HTTP {status} instead of an answer: {text}"),
            ),
            Self::Garbage(text) => new(
                ErrorKind::Other,
                format!("the answer can't be read: {:?}", text.trim()),
            )
            .with_retryable(false),
            Self::Stale(text) => new(
                ErrorKind::Lost,
                format!("the Dagger engine has lost this session: {text}"),
            )
            .with_hint(LOST),
            Self::SessionLost => new(
                ErrorKind::Lost,
                "the Dagger engine has lost this session".into(),
            )
            .with_hint(LOST),
            Self::Gone { message, .. } => new(
                ErrorKind::Lost,
                format!("the Dagger engine has lost this sandbox: {message}"),
            )
            .with_hint(LOST),
            Self::NoImage(text) => new(ErrorKind::NotFound, text)
                .with_hint("check the reference, and the login of its registry"),
            Self::NoRegistry(text) => new(ErrorKind::Unavailable, text)
                .with_hint("the engine itself asks the registry: check its network and proxy"),
            Self::NoUser(text) => new(ErrorKind::NotFound, text),
            Self::NoLogs => new(
                ErrorKind::Unsupported,
                "this Dagger engine does not show what a command writes before its end (it has no \
                 /v1/logs)"
                    .into(),
            )
            .with_hint("use exec, or an engine of version 0.21"),
            Self::Full(text) => new(
                ErrorKind::StorageFull,
                format!("the store of the Dagger engine is full: {text}"),
            )
            .with_hint(
                "the engine frees what a session made when the session ends: close sandboxes, then \
                 call DaggerProvider::shutdown; or prune the engine's cache (dagger core engine \
                 local-cache prune)",
            ),
            Self::Engine(text) => new(ErrorKind::Other, text).with_retryable(false),
        }
    }
}

/// Advice for a lost sandbox.
const LOST: &str = "the engine was stopped or restarted, or has pruned its cache: create the \
                    sandbox anew, from a snapshot if there is one";

/// Why there is no container.
#[derive(Debug)]
pub(crate) enum NotMade {
    /// Refused before the engine was asked.
    Refused(Error),
    /// The engine failed.
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
    /// The error of an operation.
    pub(crate) fn error(self, operation: Operation) -> Error {
        match self {
            Self::Refused(error) => error,
            Self::Failed(failed) => failed.error(operation),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_guest_wrote_proves_nothing() {
        for text in [
            "no matching entries in passwd file",
            "engine is shutting down",
            "resolve result 7: missing shared result",
            "failed to resolve image: not found",
            "no space left on device",
        ] {
            let failed = classify(&json!({
                "message": "exit code: 137",
                "extensions": {"_type": "EXEC_ERROR", "exitCode": 137, "stderr": text},
            }));
            let error = failed.error(Operation::Exec);
            assert_eq!(
                (error.kind(), error.execution(), error.is_retryable()),
                (ErrorKind::Other, Some(Execution::Unknown), false),
                "{text}"
            );
        }
    }

    #[test]
    fn a_forgotten_id_proves_something_only_if_all_starts_from_it() {
        let gone = |path: Value| {
            let message = "resolve result 7: missing shared result";
            let failed = classify(&json!({"message": message, "path": path}));
            failed.error(Operation::Exec)
        };
        for (path, ran) in [
            (json!(["node"]), Execution::NotStarted),
            (json!(["node", "withExec", "stdout"]), Execution::Unknown),
            (json!([]), Execution::Unknown),
            (Value::Null, Execution::Unknown),
        ] {
            let error = gone(path);
            assert_eq!(
                (error.kind(), error.execution()),
                (ErrorKind::Lost, Some(ran))
            );
            assert!(!error.is_retryable());
        }
    }
}
