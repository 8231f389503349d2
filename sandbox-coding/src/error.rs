//! The one error type of environments.

use std::fmt;
use std::sync::Arc;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Kind of what went wrong with an environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A name, preset or option that can't be right; nothing was done.
    InvalidInput,
    /// An environment that does not exist.
    NotFound,
    /// A program that the preset needs is not in the sandbox.
    MissingTool,
    /// A script that installs the agent failed.
    Setup,
    /// Git failed, on the host or in the sandbox.
    Git,
    /// The session could not be had; the source says why.
    Session,
    /// The sandbox failed; the source says how.
    Sandbox,
}

type Source = Arc<dyn std::error::Error + Send + Sync>;

/// The error of every operation on environments.
#[derive(Clone)]
pub struct Error(Box<Facts>);

#[derive(Clone)]
struct Facts {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    source: Option<Source>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Facts {
            kind,
            message: message.into(),
            hint: None,
            source: None,
        }))
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, message)
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    pub(crate) fn with_source(
        mut self,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        self.0.source = Some(Arc::new(source));
        self
    }

    /// Returns the kind of what went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns advice on what to do about the error.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
}

impl From<sandbox_sessions::Error> for Error {
    fn from(error: sandbox_sessions::Error) -> Self {
        let kind = match error.kind() {
            sandbox_sessions::ErrorKind::InvalidInput => ErrorKind::InvalidInput,
            sandbox_sessions::ErrorKind::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::Session,
        };
        Self::new(kind, error.to_string()).with_source(error)
    }
}

impl From<sandbox_core::Error> for Error {
    fn from(error: sandbox_core::Error) -> Self {
        let kind = match error.kind() {
            sandbox_core::ErrorKind::InvalidInput => ErrorKind::InvalidInput,
            _ => ErrorKind::Sandbox,
        };
        Self::new(kind, error.to_string()).with_source(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        match &self.0.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("display", &format_args!("{self}"))
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}
