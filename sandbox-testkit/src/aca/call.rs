//! A request of the data planes taken apart, and the words of its path and query.
//!
//! It must never decide anything: that is for the router and for what answers.

use std::collections::BTreeMap;

use axum::body::Bytes;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::options::Options;
use super::reply::{Reply, invalid, problem};

/// A request taken apart.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) method: String,
    /// `/subscriptions/…/sandboxGroups/NAME`
    pub(super) group: String,
    /// Rest of the path behind the group.
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
        serde_json::from_slice(&self.body).map_err(|_| invalid("$", "the body is not JSON"))
    }

    /// Whether the request is for the newer version of the sandboxes' data plane.
    pub(super) fn newer(&self) -> bool {
        is_newer(&self.query)
    }

    /// The method that makes things: they are put in the older version, and posted in the newer.
    pub(super) fn writes(&self) -> &'static str {
        match self.newer() {
            true => "POST",
            false => "PUT",
        }
    }

    /// The status that says that something was created.
    pub(super) fn created(&self, options: &Options) -> u16 {
        match self.newer() && !options.plain_created {
            true => 201,
            false => 200,
        }
    }

    /// The answer to a deletion, if the older version and the newer service answer `status`.
    pub(super) fn deleted(&self, options: &Options, status: u16) -> Reply {
        match (self.newer() && options.bare_deleted, status) {
            (true, _) => Reply::empty(204),
            (false, 200) => Reply::json(200, Value::Object(Default::default())),
            (false, status) => Reply::empty(status),
        }
    }
}

/// The older and the newer version of the sandboxes' data plane.
const OLDER: &str = "2026-02-01-preview";
const NEWER: &str = "2026-09-01-preview";

/// Whether this is a version that the data plane's documents know.
pub(super) fn is_version(version: &str) -> bool {
    [OLDER, NEWER].contains(&version)
}

/// Whether a query asks for the newer version.
pub(super) fn is_newer(query: &BTreeMap<String, String>) -> bool {
    query
        .get("api-version")
        .is_some_and(|version| version == NEWER)
}

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
