//! Parts of a request that are understood.
//!
//! It must never show what a body holds: it may be secret.

use std::collections::HashMap;
use std::time::Duration;

use axum::http::{HeaderMap, header};
use sandbox_core::{Error, ErrorKind, Operation, Result};
use serde::de::DeserializeOwned;

use super::body::Buffered;
use super::reply::refused;
use super::routes::Action;
use crate::wire::REQUEST_ID;

/// Time that a request waits for its answer if it does not say.
const WAIT: Duration = Duration::from_secs(20);

/// The longest that a request may ask to wait.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A request of a caller that is admitted.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) action: Action,
    pub(super) operation: Operation,
    /// The sandbox, the process or the call that the path names.
    pub(super) subject: String,
    pub(super) query: HashMap<String, String>,
    pub(super) headers: HeaderMap,
}

impl Asked {
    pub(super) fn invalid(&self, why: impl Into<String>) -> Error {
        refused(ErrorKind::InvalidInput, self.operation, why)
    }

    /// The name of the call.
    pub(super) fn name(&self) -> Result<String> {
        let name = self
            .headers
            .get(REQUEST_ID)
            .and_then(|name| name.to_str().ok());
        let name =
            name.ok_or_else(|| self.invalid(format!("the header {REQUEST_ID} is missing")))?;
        let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if !(16..=64).contains(&name.len()) || !name.bytes().all(fits) {
            let why = format!("{REQUEST_ID} must be 16 to 64 letters, digits and hyphens");
            return Err(self.invalid(why));
        }
        Ok(name.to_owned())
    }

    pub(super) fn number(&self, key: &str) -> Result<u64> {
        let number = self.query.get(key).map(|text| text.parse());
        match number {
            Some(Ok(number)) => Ok(number),
            _ => Err(self.invalid(format!("the query needs {key}, a number"))),
        }
    }

    pub(super) fn wait(&self) -> Result<Duration> {
        match self.query.contains_key("wait") {
            true => Ok(Duration::from_secs(self.number("wait")?).min(LONGEST_WAIT)),
            false => Ok(WAIT),
        }
    }

    pub(super) fn length(&self) -> Option<usize> {
        let length = self.headers.get(header::CONTENT_LENGTH)?;
        length.to_str().ok()?.parse().ok()
    }

    pub(super) fn parse<T: DeserializeOwned>(&self, body: &Buffered) -> Result<T> {
        let bytes = match body.bytes.is_empty() {
            true => b"{}",
            false => &body.bytes[..],
        };
        serde_json::from_slice(bytes).map_err(|error| {
            // Where, not what: the body may hold secrets.
            let at = format!("line {} column {}", error.line(), error.column());
            self.invalid(format!("the body is not what this route takes, at {at}"))
        })
    }
}
