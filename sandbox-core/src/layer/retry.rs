//! Trying again, where that is safe.
//!
//! It must never make a call again that may have had an effect which a second one would repeat.

use std::time::Duration;

use super::{Around, Attempt, Call, Request};
use crate::backend::require_time;
use crate::{Error, Execution, Result, WriteMode};

/// Makes a call again when its error is [retryable](Error::is_retryable), with a wait that doubles.
///
/// Which calls are made again:
///
/// | Call | Again |
/// |---|---|
/// | `exec`, `spawn` | only if the error says [`Execution::NotStarted`] |
/// | `start_job`, `find_job`, `list_jobs` | yes: a key is started once |
/// | `connect_port`, `open_read`, `open_write`, `watch` | yes: what is not handed out has no effect |
/// | reading, listing, `metadata`, `isolation`, `changes`, `usage`, `egress_decisions`, `attach`, `list`, `list_snapshots` | yes |
/// | `write_files` | yes, unless a file of the batch must be new |
/// | `create_dir` | yes, unless it must not exist yet |
/// | `import_dir`, `export_dir`, `set_workdir`, `set_env`, `restrict_egress`, `pause`, `resume` | yes: a second one gives the same |
/// | `remove`, `rename`, `delete_snapshot` | no: after one that worked a second would fail |
/// | `create`, `fork`, `snapshot` | no: a second one could leave a first behind |
/// | `close`, `destroy` | no: bounded and idempotent by contract |
#[derive(Clone, Debug)]
pub struct Retry {
    attempts: u32,
    wait: Duration,
}

impl Retry {
    /// A layer that makes at most this many attempts in all, the first wait being 100 ms.
    pub fn new(attempts: u32) -> Self {
        Self {
            attempts,
            wait: Duration::from_millis(100),
        }
    }

    crate::setters! {
        /// Waits this long before the second attempt; each later one waits twice as long, 10 s at most.
        wait: Duration,
    }
}

fn is_safe(call: &Call<'_>, error: &Error) -> bool {
    error.is_retryable()
        && match call.request {
            Request::Exec(_) | Request::Spawn(_) => {
                error.execution() == Some(Execution::NotStarted)
            }
            Request::WriteFiles(batch) => batch
                .files()
                .iter()
                .all(|file| file.write_mode != WriteMode::CreateNew),
            Request::CreateDir(_, options) => options.recursive,
            Request::StartJob(..)
            | Request::FindJob(_)
            | Request::ListJobs
            | Request::ConnectPort(_)
            | Request::OpenRead(..)
            | Request::OpenWrite(..)
            | Request::Attach(_)
            | Request::List(_)
            | Request::ListSnapshots(_)
            | Request::Isolation
            | Request::Changes(..)
            | Request::Usage
            | Request::Watch(..)
            | Request::Pause
            | Request::Resume
            | Request::ReadFile(..)
            | Request::ListDir(..)
            | Request::Metadata(..)
            | Request::ImportDir(..)
            | Request::ExportDir(..)
            | Request::SetWorkdir(_)
            | Request::SetEnv(_)
            | Request::EgressDecisions(_)
            | Request::RestrictEgress(_) => true,
            Request::Create(_)
            | Request::Fork(_)
            | Request::Snapshot(_)
            | Request::Remove(..)
            | Request::Rename(..)
            | Request::Close
            | Request::Destroy(_)
            | Request::DeleteSnapshot(_) => false,
        }
}

impl Around for Retry {
    async fn around<T: Send>(&self, call: Call<'_>, attempt: Attempt<'_, T>) -> Result<T> {
        const LONGEST: Duration = Duration::from_secs(10);
        let mut wait = self.wait;
        let mut made = 1;
        loop {
            match attempt().await {
                // Outside of a runtime nothing can be waited for.
                Err(error)
                    if made < self.attempts
                        && is_safe(&call, &error)
                        && require_time(call.operation()).is_ok() =>
                {
                    tokio::time::sleep(wait).await;
                    wait = wait.saturating_mul(2).min(LONGEST);
                    made += 1;
                }
                result => return result,
            }
        }
    }
}
