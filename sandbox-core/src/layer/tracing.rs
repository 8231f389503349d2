//! A span and an event for every call.

use std::time::Instant;

use tracing::Instrument;

use super::{Around, Attempt, Call};
use crate::Result;

/// Gives every call a `tracing` span `sandbox` with operation and sandbox id, and an event at its
/// end with the time it took in milliseconds and, if it failed, the kind of the error.
///
/// Paths, arguments and environment values are never recorded.
#[derive(Clone, Debug, Default)]
pub struct Tracing(());

impl Tracing {
    /// The layer.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Around for Tracing {
    async fn around<T: Send>(&self, call: Call<'_>, attempt: Attempt<'_, T>) -> Result<T> {
        let info = call.sandbox.info();
        let span = tracing::debug_span!(
            "sandbox",
            operation = call.operation.as_str(),
            id = info.id.as_str(),
            backend = info.backend,
        );
        async {
            let started = Instant::now();
            let result = attempt().await;
            let ms = started.elapsed().as_secs_f64() * 1e3;
            match &result {
                Ok(_) => tracing::debug!(ms, "done"),
                Err(error) => tracing::warn!(ms, kind = ?error.kind(), "failed"),
            }
            result
        }
        .instrument(span)
        .await
    }
}
