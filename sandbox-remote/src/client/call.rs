//! Calls: what is asked of a server, and the name under which it is found again.
//!
//! Invariant: a call that changes something has a name, so that it is not run twice.

use std::sync::Arc;

use bytes::Bytes;
use reqwest::Method;
use sandbox_core::{Error, ErrorKind, Execution, Operation, Result};
use serde::Serialize;

/// Request that is sent.
#[derive(Clone)]
pub(super) struct Call<'a> {
    pub(super) operation: Operation,
    pub(super) method: Method,
    pub(super) path: Vec<&'a str>,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) body: Sent,
    /// By which it is found again.
    pub(super) name: Option<String>,
    /// Whether it may be given up when its future is dropped.
    pub(super) give_up: bool,
}

/// A body that can be sent again.
#[derive(Clone)]
pub(super) enum Sent {
    Bytes(Bytes),
    /// A head, and a file from its beginning.
    File(Bytes, Arc<std::fs::File>),
}

impl<'a> Call<'a> {
    /// A call that changes nothing, or that may be made twice.
    pub(super) fn read(operation: Operation, method: Method, path: &[&'a str]) -> Self {
        Self {
            operation,
            method,
            path: path.to_vec(),
            query: Vec::new(),
            body: Sent::Bytes(Bytes::new()),
            name: None,
            give_up: false,
        }
    }

    /// A call that changes something.
    pub(super) fn named(operation: Operation, path: &[&'a str]) -> Self {
        Self {
            name: Some(uuid::Uuid::new_v4().simple().to_string()),
            give_up: true,
            ..Self::read(operation, Method::POST, path)
        }
    }

    pub(super) fn json(mut self, value: &impl Serialize) -> Result<Self> {
        let body = serde_json::to_vec(value).map_err(|error| {
            not_started(
                Error::new(ErrorKind::InvalidInput, self.operation)
                    .with_message("this can't be sent to a server")
                    .with_source(error),
            )
        })?;
        self.body = Sent::Bytes(body.into());
        Ok(self)
    }

    pub(super) fn body(mut self, body: Sent) -> Self {
        self.body = body;
        self
    }

    pub(super) fn query(mut self, key: &'static str, value: impl ToString) -> Self {
        self.query.push((key, value.to_string()));
        self
    }

    /// Goes on even if the future is dropped.
    pub(super) fn unstoppable(mut self) -> Self {
        self.give_up = false;
        self
    }

    pub(super) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }
}

/// Whether a command ran is not known.
pub(super) fn unknown(error: Error) -> Error {
    match error.operation() {
        Operation::Exec | Operation::Spawn | Operation::StartJob => {
            error.with_execution(Execution::Unknown)
        }
        _ => error.with_retryable(false),
    }
}

pub(super) fn not_started(error: Error) -> Error {
    match error.operation() {
        Operation::Exec | Operation::Spawn | Operation::StartJob => {
            error.with_execution(Execution::NotStarted)
        }
        _ => error,
    }
}
