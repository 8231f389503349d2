//! A request of the data planes taken apart, and the words of its path and query.
//!
//! It must never decide anything: that is for the router and for what answers.

use std::collections::BTreeMap;

use axum::body::Bytes;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::reply::{Reply, invalid, problem};

/// A request taken apart.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) method: String,
    /// `/subscriptions/…/sandboxGroups/NAME`
    pub(super) group: String,
    /// What stands behind the group.
    pub(super) rest: Vec<String>,
    pub(super) query: BTreeMap<String, String>,
    pub(super) body: Bytes,
}

impl Call {
    /// The body as JSON; an empty one is an empty object.
    pub(super) fn json(&self) -> Result<Value, Reply> {
        if self.body.is_empty() {
            return Ok(Value::Object(Default::default()));
        }
        serde_json::from_slice(&self.body).map_err(|_| invalid("$", "the body is no JSON"))
    }

    /// The method that makes things in the version that the request is for.
    pub(super) fn writes(&self) -> &'static str {
        let version = self.query.get("api-version").map(String::as_str);
        let known = VERSIONS.iter().find(|(known, _)| Some(*known) == version);
        known.map_or("PUT", |(_, method)| method)
    }
}

/// Versions of the data plane: what is made is put in the older one, and posted in the newer.
pub(super) const VERSIONS: &[(&str, &str)] = &[
    ("2026-02-01-preview", "PUT"),
    ("2026-09-01-preview", "POST"),
];

/// The answer for a path that the service does not have.
pub(super) fn not_found() -> Reply {
    problem(404, "NotFound", "the service has no such path")
}

/// A part of a path or query without its percent-encoding.
pub(super) fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// The pairs of a query, or of a form.
pub(super) fn query(text: &str) -> BTreeMap<String, String> {
    text.split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (decode(key), decode(&value.replace('+', " "))))
        .collect()
}
