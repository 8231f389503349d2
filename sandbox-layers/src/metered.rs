//! Durations, bytes and counts, through the `metrics` facade.
//!
//! A label must never hold an identifier, a path, an argument or a host: only what has few values.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use metrics::{counter, gauge, histogram};
use sandbox_core::layer::{Answer, Around, Attempt, Call, Request, Target};
use sandbox_core::{
    Error, ErrorKind, Execution, Exit, Process, ProcessControl, Result, SandboxId, Signal,
    TerminalSize, async_trait,
};

/// Measures every call through the `metrics` facade; an application installs the recorder of its
/// choice (Prometheus, OpenTelemetry, …). Without one the layer costs almost nothing.
///
/// | Name | Kind | Labels |
/// |---|---|---|
/// | `sandbox.operation.duration` | histogram, seconds | `operation`, `backend`, `ran`, `error.type` |
/// | `sandbox.command.duration` | histogram, seconds: of `exec` and of spawned processes that were waited for | `backend` |
/// | `sandbox.output.bytes` | counter: what `exec` read, kept or not | `backend`, `stream` |
/// | `sandbox.commands.cut` | counter: commands that a timeout or a lost sandbox ended | `backend` |
/// | `sandbox.live` | gauge: sandboxes given out and not yet closed, destroyed or found to be gone | `backend` |
///
/// `ran` is `yes`, `not_started`, `interrupted`, `unknown`, or `none` for an operation that runs no
/// command. `error.type` is the kind of the error as [`ErrorKind`]'s `Debug` has it, or `none`.
///
/// Two more are counted elsewhere, with or without this layer: `sandbox.egress.decisions` by
/// `sandbox-egress` where it decides (label `decision`: `allowed`, `denied`, `failed`), and the jobs
/// that run by the statistics of `sandbox-sessions`.
#[derive(Clone, Debug, Default)]
pub struct Metered {
    live: Arc<Mutex<HashSet<SandboxId>>>,
}

impl Metered {
    /// The layer. Its clones count the same sandboxes.
    pub fn new() -> Self {
        Self::default()
    }

    fn live(&self) -> MutexGuard<'_, HashSet<SandboxId>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn came(&self, id: SandboxId, backend: &str) {
        if self.live().insert(id) {
            gauge!("sandbox.live", "backend" => backend.to_owned()).increment(1.0);
        }
    }

    fn went(&self, id: &SandboxId, backend: &str) {
        if self.live().remove(id) {
            gauge!("sandbox.live", "backend" => backend.to_owned()).decrement(1.0);
        }
    }
}

fn backend_of(call: &Call<'_>) -> String {
    match call.target {
        Target::Sandbox(sandbox) => sandbox.info().backend.into_owned(),
        Target::Provider(provider) => provider.backend().to_owned(),
        _ => "unknown".to_owned(),
    }
}

fn ran(command: bool, error: Option<&Error>) -> &'static str {
    match (command, error.map(Error::execution)) {
        (false, _) => "none",
        (true, None) => "yes",
        (true, Some(Some(Execution::NotStarted))) => "not_started",
        (true, Some(Some(Execution::Interrupted))) => "interrupted",
        (true, Some(_)) => "unknown",
    }
}

fn error_type(error: Option<&Error>) -> String {
    error.map_or_else(|| "none".to_owned(), |error| format!("{:?}", error.kind()))
}

impl Around for Metered {
    async fn around<T: Answer>(&self, call: Call<'_>, attempt: Attempt<'_, T>) -> Result<T> {
        let started = Instant::now();
        let result = attempt().await;
        let seconds = started.elapsed().as_secs_f64();
        let backend = backend_of(&call);
        let error = result.as_ref().err();
        histogram!(
            "sandbox.operation.duration",
            "operation" => call.operation().as_str(),
            "backend" => backend.clone(),
            "ran" => ran(call.command().is_some(), error),
            "error.type" => error_type(error),
        )
        .record(seconds);
        match &result {
            Ok(answer) => {
                if let Some(output) = answer.output() {
                    histogram!("sandbox.command.duration", "backend" => backend.clone())
                        .record(output.duration.as_secs_f64());
                    for (stream, total) in [
                        ("stdout", output.stdout.total),
                        ("stderr", output.stderr.total),
                    ] {
                        counter!("sandbox.output.bytes", "backend" => backend.clone(), "stream" => stream)
                            .increment(total);
                    }
                }
                if let Some(id) = answer.sandbox_id() {
                    self.came(id, &backend);
                }
            }
            Err(error) => {
                if error.execution() == Some(Execution::Interrupted) {
                    counter!("sandbox.commands.cut", "backend" => backend.clone()).increment(1);
                }
            }
        }
        let gone = match (&call.request, error.map(Error::kind)) {
            (Request::Close | Request::Destroy(_), None) => true,
            (Request::Attach(_) | Request::Destroy(_), Some(ErrorKind::NotFound)) => true,
            (_, Some(kind)) => matches!(
                kind,
                ErrorKind::Lost | ErrorKind::Expired | ErrorKind::Closed
            ),
            (_, None) => false,
        };
        if gone && let Some(id) = call.sandbox_id() {
            self.went(&id, &backend);
        }
        result
    }

    fn process(&self, call: Call<'_>, process: Process) -> Process {
        let backend = backend_of(&call);
        process.map_control(|inner| Measured {
            inner,
            backend,
            started: Mutex::new(Some(Instant::now())),
        })
    }
}

/// The control of a process whose duration is recorded once.
#[derive(Debug)]
struct Measured {
    inner: Box<dyn ProcessControl>,
    backend: String,
    started: Mutex<Option<Instant>>,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ProcessControl for Measured {
    async fn wait(&self) -> Result<Exit> {
        let exit = self.inner.wait().await;
        let started = {
            let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
            started.take()
        };
        if let Some(started) = started {
            histogram!("sandbox.command.duration", "backend" => self.backend.clone())
                .record(started.elapsed().as_secs_f64());
            if exit
                .as_ref()
                .is_err_and(|error| matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Lost))
            {
                counter!("sandbox.commands.cut", "backend" => self.backend.clone()).increment(1);
            }
        }
        exit
    }

    async fn signal(&self, signal: Signal) -> Result<()> {
        self.inner.signal(signal).await
    }

    async fn resize(&self, size: TerminalSize) -> Result<()> {
        self.inner.resize(size).await
    }

    async fn kill(&self) -> Result<()> {
        self.inner.kill().await
    }
}
