//! Errors as the service of sessions words them, and what every answer of it has.
//!
//! An identifier must never be in a message.

use axum::http::HeaderName;
use serde_json::json;

use crate::aca::reply::Reply;

/// An error in its envelope, with its code in a header.
pub(super) fn error(status: u16, code: &str, message: &str) -> Reply {
    let body = json!({"error": {
        "code": code, "message": message, "target": null, "details": [], "innererror": null,
    }});
    coded(Reply::json(status, body), code)
}

/// Answer of a pool that is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FullAs {
    /// 429 with the error in its envelope, as production does.
    #[default]
    TooManyRequests,
    /// 404 with the error in its envelope, as the documents say.
    NotFound,
    /// 429 with an error that has no envelope.
    Bare,
}

pub(super) fn full(how: FullAs, max: usize) -> Reply {
    const CODE: &str = "SessionsCountExceedsLimit";
    let message = format!("the pool has its maximum of {max} sessions");
    match how {
        FullAs::TooManyRequests => error(429, CODE, &message),
        FullAs::NotFound => error(404, CODE, &message),
        FullAs::Bare => {
            let body = json!({"code": CODE, "message": message});
            coded(Reply::json(429, body), CODE)
        }
    }
}

fn coded(reply: Reply, code: &str) -> Reply {
    reply.with(HeaderName::from_static("x-ms-error-code"), code)
}

/// Marks an answer for which a session was made.
pub(super) fn allocated(reply: Reply, fresh: bool) -> Reply {
    match fresh {
        true => reply.with(HeaderName::from_static("x-ms-new-allocation"), "true"),
        false => reply,
    }
}
