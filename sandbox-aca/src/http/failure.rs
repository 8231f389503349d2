//! Why a request did not succeed: what the service says, what it means, what to do about it.
//!
//! No URL, body or token is ever part of a failure.

use reqwest::StatusCode;
use sandbox_core::{Error, ErrorKind, Operation};
use serde_json::Value;

use super::Plane;

/// Code of the error for a group that is not there, or not yet.
const NO_GROUP: &str = "SandboxGroupNotFound";

/// Why a request did not succeed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) status: Option<u16>,
    /// The service's name of the error.
    pub(crate) title: String,
    /// Whether it may have been carried out.
    pub(crate) unknown: bool,
    /// Details that the service gives beside the title.
    pub(crate) detail: String,
    /// The service's identifier of the request; empty if it gave none.
    pub(crate) request: String,
}

impl Failure {
    /// Something went wrong before anything was sent.
    pub(crate) fn before(error: Error) -> Self {
        Self {
            error,
            status: None,
            title: String::new(),
            unknown: false,
            detail: String::new(),
            request: String::new(),
        }
    }

    /// Something went wrong when the request may have been carried out.
    pub(crate) fn unknown(error: Error) -> Self {
        Self {
            unknown: true,
            ..Self::before(error)
        }
    }

    /// An answer that can't be understood.
    pub(crate) fn garbled(op: Operation) -> Self {
        let what = "the service's answer can't be understood";
        Self::unknown(Error::new(ErrorKind::Unavailable, op).with_message(what))
    }

    /// Whether what is missing is the whole group, which may be about to arrive.
    pub(crate) fn is_of_group(&self) -> bool {
        self.status == Some(404) && self.title == NO_GROUP
    }

    /// Adds advice on what to do about it.
    pub(crate) fn hint(mut self, hint: &str) -> Self {
        self.error = self.error.with_hint(hint);
        self
    }

    /// A request that got no answer.
    pub(super) fn broke(op: Operation, e: reqwest::Error) -> Self {
        let unknown = !e.is_connect() && !e.is_builder();
        let what = match unknown {
            true => "no answer came from the service",
            false => "the service can't be reached",
        };
        // The URL has identifiers in it.
        let error = match e.is_timeout() {
            true => Error::unanswered(op, what),
            false => Error::new(ErrorKind::Unavailable, op).with_message(what),
        };
        Self {
            unknown,
            ..Self::before(error.with_source(e.without_url()))
        }
    }

    /// A request that was not answered in time.
    pub(super) fn silent(op: Operation) -> Self {
        let what = "no answer came from the service in time";
        Self::unknown(Error::unanswered(op, what))
    }

    /// A successful answer that broke off.
    pub(super) fn cut(op: Operation, request: &str) -> Self {
        let what = format!("the answer broke off (request {request})");
        Self::unknown(Error::new(ErrorKind::Unavailable, op).with_message(what))
    }

    /// A successful answer that is too large.
    pub(super) fn too_large(op: Operation, limit: u64, request: &str) -> Self {
        let what = format!("the answer is over {limit} bytes (request {request})");
        Self {
            status: Some(200),
            ..Self::unknown(Error::new(ErrorKind::LimitExceeded, op).with_message(what))
        }
    }

    /// Failure from an answer of the service.
    pub(super) fn answered(
        op: Operation,
        status: StatusCode,
        body: &[u8],
        request: &str,
        plane: &Plane,
        scope: &str,
    ) -> Self {
        let problem = Problem::parse(body);
        let kind = match status.as_u16() {
            400 => ErrorKind::InvalidInput,
            401 => ErrorKind::Unauthenticated,
            403 => ErrorKind::PermissionDenied,
            404 => ErrorKind::NotFound,
            409 => ErrorKind::Busy,
            413 => ErrorKind::LimitExceeded,
            429 => ErrorKind::RateLimited,
            501 => ErrorKind::Unsupported,
            408 | 500..=599 => ErrorKind::Unavailable,
            _ => ErrorKind::Other,
        };
        let error = Error::new(kind, op).with_message(format!(
            "the service answered {}{}{problem} (request {request})",
            status.as_u16(),
            if problem.is_empty() { "" } else { ", " },
        ));
        let error = match status.as_u16() {
            401 => error.with_hint(format!(
                "the token must be for the scope {scope}; get one with: az account get-access-token --scope {scope}"
            )),
            403 => error.with_hint(format!(
                "the caller needs the role \"{role}\" (new roles take minutes): az role assignment create --role \"{role}\" --assignee CALLER --scope {}",
                plane.resource,
                role = plane.role,
            )),
            404 if problem.title == NO_GROUP => error.with_hint(format!(
                "check the names, and wait: a new group takes minutes to arrive: az resource show --ids {}",
                plane.resource
            )),
            _ => error,
        };
        Self {
            error,
            status: Some(status.as_u16()),
            unknown: status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT,
            title: match problem.code.is_empty() {
                true => problem.title,
                false => problem.code,
            },
            detail: problem.detail,
            request: request.to_owned(),
        }
    }
}

/// Error that the service reports, in any of its forms: problem+json, `{"error":{…}}`, bare.
#[derive(Debug, Default)]
struct Problem {
    title: String,
    code: String,
    detail: String,
}

impl Problem {
    fn parse(body: &[u8]) -> Self {
        let all: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let problem = if all["error"].is_object() {
            &all["error"]
        } else {
            &all
        };
        let text = |key: &str| -> String {
            let text = problem[key].as_str().unwrap_or_default();
            text.chars().take(300).collect()
        };
        let code = match text("errorCode") {
            code if code.is_empty() => text("code"),
            code => code,
        };
        let mut detail = text("detail");
        if detail.is_empty() {
            detail = text("message");
        }
        if detail.is_empty() && problem["errors"].is_object() {
            detail = problem["errors"].to_string().chars().take(300).collect();
        }
        Self {
            title: text("title"),
            code,
            detail,
        }
    }

    fn is_empty(&self) -> bool {
        self.title.is_empty() && self.code.is_empty() && self.detail.is_empty()
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self.title.is_empty() {
            true => &self.code,
            false => &self.title,
        };
        let between = match name.is_empty() || self.detail.is_empty() {
            true => "",
            false => ": ",
        };
        write!(f, "{name}{between}{}", self.detail)
    }
}

/// Reads and tells a problem, for [`crate::fuzzing`].
#[cfg(test)]
pub(crate) fn fuzzed(body: &[u8]) {
    let problem = Problem::parse(body);
    let told = problem.to_string();
    assert_eq!(problem.is_empty(), told.is_empty());
    // It is told, not passed on whole.
    assert!(told.chars().count() <= 602, "{told}");
}
