//! The one error type of sessions.
//!
//! What a backend said is kept as it was; no dependency's type appears here.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use crate::{Key, Tenant};

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Kind of what went wrong with a session, in terms that an application can act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A name, option or specification that can't be right; nothing was done.
    InvalidInput,
    /// The session exists with another specification.
    Conflict,
    /// A limit is reached; [`Error::full`] says which.
    Full,
    /// A session that does not exist.
    NotFound,
    /// The session is in use, or another call makes or ends it.
    Busy,
    /// [`Sessions::shutdown`](crate::Sessions::shutdown) has begun.
    ShutDown,
    /// Another process has the journal.
    Locked,
    /// The journal can't be read or written.
    Journal,
    /// The backend failed; [`Error::sandbox`] has what it said.
    Sandbox,
}

/// The limit that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// The sessions of the tenant.
    Tenant,
    /// The sessions of all tenants.
    Total,
    /// The callers that wait for a place.
    Queue,
}

/// A limit that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Full {
    /// The limit.
    pub scope: Scope,
    /// Number that the limit allows.
    pub limit: usize,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Why {
    /// A call that closed the session.
    Closed,
    /// No use of the session for its idle timeout.
    Idle,
    /// End of the session's maximum life.
    MaxLife,
    /// [`Sessions::shutdown`](crate::Sessions::shutdown) closed it.
    ShutDown,
    /// Loss of the session's sandbox: killed, expired or collected behind its handle.
    Lost,
    /// The process that had asked for it ended before it was there.
    HalfMade,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "it was closed",
            Self::Idle => "it was not used for its idle timeout",
            Self::MaxLife => "its maximum life was over",
            Self::ShutDown => "the sessions were shut down",
            Self::Lost => "its sandbox went away",
            Self::HalfMade => "the process that asked for it ended before it was there",
        })
    }
}

/// Time and cause of a session's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Expired {
    /// Time of the end.
    pub at: SystemTime,
    /// Cause of the end.
    pub why: Why,
}

/// The error of every operation on sessions.
///
/// It says what happened, to which session, what to do about it, and what the backend said.
#[derive(Clone)]
pub struct Error(Box<Facts>);

#[derive(Clone)]
struct Facts {
    kind: ErrorKind,
    message: String,
    name: Option<(Tenant, Key)>,
    hint: Option<String>,
    full: Option<Full>,
    sandbox: Option<sandbox_core::Error>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind) -> Self {
        Self(Box::new(Facts {
            kind,
            message: String::new(),
            name: None,
            hint: None,
            full: None,
            sandbox: None,
            source: None,
        }))
    }

    pub(crate) fn with_message(mut self, message: impl Into<String>) -> Self {
        self.0.message = message.into();
        self
    }

    pub(crate) fn with_name(mut self, tenant: &Tenant, key: &Key) -> Self {
        self.0.name = Some((tenant.clone(), key.clone()));
        self
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

    pub(crate) fn full_of(scope: Scope, limit: usize) -> Self {
        let what = match scope {
            Scope::Tenant => "the tenant has as many sessions as it may have",
            Scope::Total => "there are as many sessions as there may be",
            Scope::Queue => "as many callers wait for a session as may wait",
        };
        let mut error = Self::new(ErrorKind::Full)
            .with_message(format!("{what}: {limit}"))
            .with_hint("close a session, or try again later");
        error.0.full = Some(Full { scope, limit });
        error
    }

    pub(crate) fn shut_down() -> Self {
        Self::new(ErrorKind::ShutDown).with_message("the sessions are being shut down")
    }

    pub(crate) fn journal(message: impl Into<String>, source: std::io::Error) -> Self {
        Self::new(ErrorKind::Journal)
            .with_message(message)
            .with_source(source)
    }

    /// Returns the kind of what went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The limit that is reached, for [`ErrorKind::Full`].
    pub fn full(&self) -> Option<Full> {
        self.0.full
    }

    /// Returns what the backend said, for [`ErrorKind::Sandbox`].
    pub fn sandbox(&self) -> Option<&sandbox_core::Error> {
        self.0.sandbox.as_ref()
    }

    /// The tenant and key, where there is one session that the error is about.
    pub fn name(&self) -> Option<(&Tenant, &Key)> {
        self.0.name.as_ref().map(|(tenant, key)| (tenant, key))
    }

    /// Returns advice on what to do about the error.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self.0.kind {
            ErrorKind::Full | ErrorKind::Busy => true,
            ErrorKind::Sandbox => self.0.sandbox.as_ref().is_some_and(|e| e.is_retryable()),
            _ => false,
        }
    }
}

impl From<sandbox_core::Error> for Error {
    fn from(error: sandbox_core::Error) -> Self {
        let kind = match error.kind() {
            sandbox_core::ErrorKind::InvalidInput => ErrorKind::InvalidInput,
            _ => ErrorKind::Sandbox,
        };
        let mut said = Self::new(kind).with_message(error.to_string());
        said.0.sandbox = Some(error);
        said
    }
}

impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        if let Some((tenant, key)) = &inner.name {
            write!(f, "session {tenant}/{key}: ")?;
        }
        f.write_str(&inner.message)?;
        match &inner.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        let mut out = f.debug_struct("Error");
        out.field("kind", &inner.kind)
            .field("display", &format_args!("{self}"));
        if let Some(source) = &inner.source {
            out.field("source", source);
        }
        out.finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match (&self.0.sandbox, &self.0.source) {
            (Some(sandbox), _) => Some(sandbox),
            (None, Some(source)) => Some(&**source),
            (None, None) => None,
        }
    }
}
