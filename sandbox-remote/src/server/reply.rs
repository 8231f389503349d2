//! Answers: JSON, bytes, and errors with the status that other clients understand.
//!
//! It must never answer with anything that a caller who was not admitted could learn from.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use sandbox_core::{Error, ErrorKind, Execution, Operation, Result};
use serde::Serialize;

use crate::wire::{Failed, PROTOCOL, PROTOCOL_HEADER, Problem};

/// An answer that can be given again.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
    pub(super) json: bool,
}

impl Reply {
    /// A value as JSON.
    pub(super) fn json(value: &impl Serialize, operation: Operation) -> Result<Self> {
        let body = serde_json::to_vec(value).map_err(|error| {
            Error::new(ErrorKind::Other, operation)
                .with_message("the answer can't be written")
                .with_source(error)
        })?;
        Ok(Self {
            status: StatusCode::OK,
            body: body.into(),
            json: true,
        })
    }

    /// Bytes as they are.
    pub(super) fn bytes(body: Bytes) -> Self {
        Self {
            status: StatusCode::OK,
            body,
            json: false,
        }
    }

    /// An error of a call.
    pub(super) fn error(error: Error) -> Self {
        let status = status(error.kind());
        let body = serde_json::to_vec(&Failed {
            error: Problem::new(error),
        });
        Self {
            status,
            body: body.unwrap_or_default().into(),
            json: true,
        }
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let kind = match self.json {
            true => "application/json",
            false => "application/octet-stream",
        };
        respond(self.status, kind, Body::from(self.body))
    }
}

impl From<Result<Reply>> for Reply {
    fn from(result: Result<Reply>) -> Self {
        result.unwrap_or_else(Reply::error)
    }
}

/// An answer, or that there is none yet.
pub(super) fn answered(reply: Option<Reply>) -> Response<Body> {
    match reply {
        Some(reply) => reply.into_response(),
        None => {
            let body = Body::from(r#"{"state":"running"}"#);
            respond(StatusCode::ACCEPTED, "application/json", body)
        }
    }
}

/// An answer of this protocol.
pub(super) fn respond(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(PROTOCOL_HEADER, HeaderValue::from_static(PROTOCOL));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let nosniff = HeaderValue::from_static("nosniff");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

/// The status that says the same as a kind, for clients that look at nothing else. None of 408 and
/// 504 for the deadline of a command: clients and proxies send such a request again.
fn status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::InvalidInput => StatusCode::BAD_REQUEST,
        ErrorKind::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorKind::PermissionDenied => StatusCode::FORBIDDEN,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::AlreadyExists | ErrorKind::Busy => StatusCode::CONFLICT,
        ErrorKind::Closed | ErrorKind::Expired | ErrorKind::Lost => StatusCode::GONE,
        ErrorKind::LimitExceeded => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    }
}

/// A refusal before anything was started.
pub(super) fn refused(kind: ErrorKind, operation: Operation, why: impl Into<String>) -> Error {
    let error = Error::new(kind, operation).with_message(why);
    match operation {
        Operation::Exec | Operation::Spawn | Operation::StartJob => {
            error.with_execution(Execution::NotStarted)
        }
        _ => error,
    }
}
