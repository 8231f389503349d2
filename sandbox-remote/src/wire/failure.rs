//! Errors, whole: what failed, on what, whether a command ran, and what it had written.

use sandbox_core::{Error, ErrorKind, Execution, GuestPath, Operation, PartialOutput, SandboxId};
use serde::de::IntoDeserializer as _;
use serde::de::value::{Error as ValueError, StrDeserializer};
use serde::{Deserialize, Serialize};

use super::command::Streams;

/// An error as it travels.
#[derive(Serialize, Deserialize)]
pub(crate) struct Problem {
    kind: String,
    operation: Operation,
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<GuestPath>,
    /// On the server's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host_path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sandbox: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    execution: Option<Execution>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    partial: Option<Streams>,
    retryable: bool,
    /// Causes beneath the error, outermost first, as text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    causes: Vec<String>,
}

/// Cause beneath an error on the server.
#[derive(Debug)]
struct Cause {
    text: String,
    source: Option<Box<Cause>>,
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Cause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// A chain of causes longer than this is cut.
const CAUSES: usize = 8;

// Methods and no conversions: with one more `From` for the core's error, `?` in programs that link
// this crate would not know what it converts.
impl Problem {
    pub(crate) fn new(error: Error) -> Self {
        let mut causes = Vec::new();
        let mut next = std::error::Error::source(&error);
        while let Some(cause) = next.filter(|_| causes.len() < CAUSES) {
            causes.push(cause.to_string());
            next = cause.source();
        }
        let kind = serde_json::to_value(error.kind()).ok();
        let kind = kind.and_then(|kind| kind.as_str().map(str::to_owned));
        Self {
            kind: kind.unwrap_or_else(|| "other".into()),
            operation: error.operation(),
            message: error.message().to_owned(),
            path: error.path().cloned(),
            host_path: error.host_path().map(|path| path.display().to_string()),
            sandbox: error.sandbox().map(|id| id.as_str().to_owned()),
            hint: error.hint().map(str::to_owned),
            execution: error.execution(),
            retryable: error.is_retryable(),
            causes,
            partial: error.into_partial_output().map(Streams::from),
        }
    }
}

impl Problem {
    pub(crate) fn into_error(self) -> Error {
        let problem = self;
        let named: StrDeserializer<'_, ValueError> = problem.kind.as_str().into_deserializer();
        // A kind that this version does not know is none that it could act on.
        let kind = ErrorKind::deserialize(named).unwrap_or(ErrorKind::Other);
        let mut error = Error::new(kind, problem.operation)
            .with_message(problem.message)
            .with_retryable(problem.retryable);
        if let Some(path) = problem.path {
            error = error.with_path(path);
        }
        if let Some(path) = problem.host_path {
            error = error.with_host_path(path);
        }
        if let Some(sandbox) = problem.sandbox {
            error = error.with_sandbox(SandboxId::new(sandbox));
        }
        if let Some(hint) = problem.hint {
            error = error.with_hint(hint);
        }
        if let Some(partial) = problem.partial {
            error = error.with_partial_output(PartialOutput::from(partial));
        }
        if let Some(execution) = problem.execution {
            error = error.with_execution(execution);
        }
        let cause = problem
            .causes
            .into_iter()
            .rev()
            .fold(None, |source, text| Some(Box::new(Cause { text, source })));
        match cause {
            Some(cause) => error.with_source(cause as Box<dyn std::error::Error + Send + Sync>),
            None => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sandbox_core::CapturedStream;

    use super::*;

    #[test]
    fn an_error_travels_whole() {
        let io = std::io::Error::other("beneath");
        let streams = PartialOutput::new(
            CapturedStream::new(&b"\xffout"[..], 9),
            CapturedStream::default(),
            Duration::from_millis(1500),
        );
        let sent = Error::new(ErrorKind::Timeout, Operation::Exec)
            .with_message("cut")
            .with_path(&b"/\xff"[..])
            .with_sandbox(SandboxId::new("s1"))
            .with_hint("wait")
            .with_retryable(true)
            .with_partial_output(streams.clone())
            .with_source(io);
        let text = serde_json::to_string(&Problem::new(sent.clone())).unwrap();
        let back = serde_json::from_str::<Problem>(&text).unwrap().into_error();
        assert_eq!(back.to_string(), sent.to_string());
        assert_eq!(back.kind(), sent.kind());
        assert_eq!(back.path(), sent.path());
        assert_eq!(back.execution(), Some(Execution::Interrupted));
        assert!(back.is_retryable());
        let source = std::error::Error::source(&back).unwrap();
        assert_eq!(source.to_string(), "beneath");
        assert_eq!(back.into_partial_output(), Some(streams));
    }

    #[test]
    fn a_kind_of_a_newer_version_is_other() {
        let text = r#"{"kind":"on-fire","operation":"exec","message":"m","retryable":false}"#;
        let back = serde_json::from_str::<Problem>(text).unwrap().into_error();
        assert_eq!(back.kind(), ErrorKind::Other);
    }
}
