//! Runs the agent once more as a guest among guests, to try system calls from
//! inside. Must go the way of every other command: a probe with rights of its own
//! would prove nothing.

use std::time::Duration;

use rustix::io::Errno;
use tokio::io::AsyncReadExt;

use super::client::Engine;
use super::error::{ExitError, Lost, PlanError, SpawnError};
use super::plan::{Data, Plan, Slot};
use super::process::Running;
use super::request::{SpawnRequest, Stdin};
use super::{image, wire};
use crate::protocol::MAX_SLOTS;

/// More than a probe ever writes.
const LARGEST: u64 = 1 << 20;

/// Longest that a probe may take; it is a few dozen system calls.
const LONGEST: Duration = Duration::from_secs(10);

/// A probe that could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    /// The plan cannot be laid out.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The host could not provide the plan or the program.
    #[error("lay out the probe: {0}")]
    Host(Errno),
    /// The probe did not start.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// The probe did not end.
    #[error(transparent)]
    Exit(#[from] ExitError),
    /// The probe did not end in time.
    #[error("the probe did not end within {LONGEST:?}")]
    TooLong,
    /// The probe ended otherwise than by finishing.
    #[error("the probe ended with code {0:?}, signal {1:?}")]
    Failed(Option<i32>, Option<i32>),
    /// The probe ended without a report.
    #[error("the probe gave no answer")]
    Silent,
}

impl ProbeError {
    /// The kernel's reason, if the host could not do its part.
    pub(crate) fn errno(&self) -> Option<Errno> {
        match self {
            Self::Host(errno) | Self::Spawn(SpawnError::Host { errno, .. }) => Some(*errno),
            _ => None,
        }
    }

    /// Why the sandbox is gone, if it is.
    pub(crate) fn lost(&self) -> Option<Lost> {
        match self {
            Self::Spawn(SpawnError::Lost(why)) | Self::Exit(ExitError::Lost(why)) => Some(*why),
            _ => None,
        }
    }
}

/// Findings of a probe.
#[derive(Debug)]
pub(crate) struct Findings {
    bytes: Vec<u8>,
}

impl Findings {
    /// Return value of a call.
    pub(crate) fn result(&self, slot: Slot) -> Result<u64, Errno> {
        let at = 8 * slot.result_index();
        let value = self
            .bytes
            .get(at..at + 8)
            .and_then(|bytes| bytes.try_into().ok());
        let value = value.map_or(-i64::from(libc::EIO), i64::from_ne_bytes);
        u64::try_from(value).map_err(|_| wire::errno(value.unsigned_abs()))
    }

    /// Bytes that calls have written to `data`, `length` of them.
    pub(crate) fn data(&self, data: Data, length: usize) -> &[u8] {
        let from = 8 * MAX_SLOTS + data.offset();
        self.bytes.get(from..from + length).unwrap_or_default()
    }
}

impl Engine {
    /// Tries every call of a plan that inherits nothing, as a guest.
    pub(crate) async fn probe(&self, plan: Plan) -> Result<Findings, ProbeError> {
        let plan = plan.compile()?;
        let memory = wire::sealed("sandbox-probe", &[&plan.bytes]).map_err(ProbeError::Host)?;
        let request = SpawnRequest {
            program: Some(image::private().map_err(ProbeError::Host)?),
            argv: vec![b"sandbox-probe".to_vec()],
            cwd: b"/".to_vec(),
            stdin: Stdin::Given(memory),
            ..SpawnRequest::default()
        };
        let Running {
            tree, stdout, exit, ..
        } = self.spawn(request).await?;
        let mut bytes = Vec::new();
        let mut output = stdout.take(LARGEST);
        let found = async {
            let read = output.read_to_end(&mut bytes).await;
            exit.await.map(|exit| (read, exit))
        };
        let Ok(found) = tokio::time::timeout(LONGEST, found).await else {
            tree.kill_detached();
            return Err(ProbeError::TooLong);
        };
        let (read, exit) = found?;
        if exit.code != Some(0) {
            return Err(ProbeError::Failed(exit.code, exit.signal));
        }
        if read.is_err() || bytes.len() < 8 * MAX_SLOTS {
            return Err(ProbeError::Silent);
        }
        Ok(Findings { bytes })
    }
}
