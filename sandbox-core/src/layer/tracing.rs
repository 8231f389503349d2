//! A span and an event for every call and every spawned process.
//!
//! It must never record a path, an argument, content or the value of a variable.

use std::sync::Once;
use std::time::Instant;

use async_trait::async_trait;
use tracing::{Instrument, Span};

use super::{Around, Attempt, Call, Target};
use crate::{Exit, Process, ProcessControl, Result, Signal, TerminalSize};

/// Gives every call a `tracing` span `sandbox` with operation, backend and sandbox id, and an event
/// at its end with the time it took in milliseconds and, if it failed, the kind of the error.
///
/// A spawned process has a span `process` of its own, and an event when it was waited for, with
/// its status. Paths, arguments and environment values are never recorded.
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
        let backend = match call.target {
            Target::Sandbox(sandbox) => sandbox.info().backend,
            Target::Provider(provider) => provider.backend().to_owned().into(),
        };
        let id = call.sandbox_id();
        let span = tracing::debug_span!(
            "sandbox",
            operation = call.operation().as_str(),
            id = id.as_ref().map(|id| id.as_str()),
            backend = &*backend,
        );
        async {
            let started = Instant::now();
            let result = attempt().await;
            let ms = milliseconds(started);
            match &result {
                Ok(_) => tracing::debug!(ms, "done"),
                Err(error) => tracing::warn!(ms, kind = ?error.kind(), "failed"),
            }
            result
        }
        .instrument(span)
        .await
    }

    fn process(&self, call: Call<'_>, process: Process) -> Process {
        let id = call.sandbox_id();
        let span = tracing::debug_span!("process", id = id.as_ref().map(|id| id.as_str()));
        process.map_control(|inner| Traced {
            inner,
            span,
            started: Instant::now(),
            told: Once::new(),
        })
    }
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// The control of a process whose end is told once.
#[derive(Debug)]
struct Traced {
    inner: Box<dyn ProcessControl>,
    span: Span,
    started: Instant,
    told: Once,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ProcessControl for Traced {
    async fn wait(&self) -> Result<Exit> {
        let result = self.inner.wait().instrument(self.span.clone()).await;
        self.told.call_once(|| {
            let ms = milliseconds(self.started);
            self.span.in_scope(|| match &result {
                Ok(exit) => tracing::debug!(ms, status = %exit.status, "ended"),
                Err(error) => tracing::warn!(ms, kind = ?error.kind(), "failed"),
            });
        });
        result
    }

    async fn signal(&self, signal: Signal) -> Result<()> {
        self.inner
            .signal(signal)
            .instrument(self.span.clone())
            .await
    }

    async fn kill(&self) -> Result<()> {
        self.inner.kill().instrument(self.span.clone()).await
    }

    async fn resize(&self, size: TerminalSize) -> Result<()> {
        self.inner.resize(size).instrument(self.span.clone()).await
    }
}
