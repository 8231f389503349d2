//! The result of a call, as far as a layer may look at it.
//!
//! It must never give out content: a layer sees what came of a command, and which sandbox came out.

use std::any::Any;
use std::sync::Arc;

use bytes::Bytes;

use crate::{
    Changes, DirEntry, FileReader, FileWriter, IsolationReport, Job, Metadata, Output, PortStream,
    Process, Sandbox, SandboxId, SandboxInfo, Snapshot, TransferReport,
};

/// The result of a call, for a layer that looks at what came of it.
///
/// Implemented by the results of every operation. Each method has a default for the operations that
/// it does not concern.
///
/// ```
/// use sandbox_core::layer::Answer;
///
/// /// The exit code of a finished `exec`; `None` for every other call.
/// fn exit_code(answer: &impl Answer) -> Option<i32> {
///     answer.output().and_then(|output| output.status.code())
/// }
/// assert_eq!(exit_code(&()), None);
/// ```
pub trait Answer: Send {
    /// Output of the command, for [`exec`](Sandbox::exec).
    fn output(&self) -> Option<&Output> {
        None
    }

    /// The sandbox that came out, for `create`, `attach` and `fork`.
    fn sandbox_id(&self) -> Option<SandboxId> {
        None
    }

    /// The job that was started or found, for `start_job` and `find_job`.
    fn job(&self) -> Option<&Job> {
        None
    }

    /// Number of bytes that were read or transferred, where the operation is about that.
    fn bytes(&self) -> Option<u64> {
        None
    }

    /// Keeps something alive as long as what the call opened is open: the stream of a file, a
    /// connection to a port. Where it opened neither, `held` is dropped at once.
    fn keep_alive(&mut self, held: Arc<dyn Any + Send + Sync>) {
        drop(held);
    }
}

impl Answer for Output {
    fn output(&self) -> Option<&Output> {
        Some(self)
    }
}

impl Answer for Arc<dyn Sandbox> {
    fn sandbox_id(&self) -> Option<SandboxId> {
        Some(self.info().id)
    }
}

impl Answer for Job {
    fn job(&self) -> Option<&Job> {
        Some(self)
    }
}

impl Answer for Bytes {
    fn bytes(&self) -> Option<u64> {
        Some(self.len() as u64)
    }
}

impl Answer for TransferReport {
    fn bytes(&self) -> Option<u64> {
        Some(self.bytes)
    }
}

impl Answer for Changes {
    fn bytes(&self) -> Option<u64> {
        Some(Changes::bytes(self))
    }
}

impl Answer for FileReader {
    fn keep_alive(&mut self, held: Arc<dyn Any + Send + Sync>) {
        self.alive.push(held);
    }
}

impl Answer for FileWriter {
    fn keep_alive(&mut self, held: Arc<dyn Any + Send + Sync>) {
        self.alive.push(held);
    }
}

impl Answer for PortStream {
    fn keep_alive(&mut self, held: Arc<dyn Any + Send + Sync>) {
        self.alive.push(held);
    }
}

macro_rules! nothing_to_see {
    ($($answer:ty),* $(,)?) => {$(impl Answer for $answer {})*};
}
nothing_to_see!(
    (),
    crate::EgressDecisions,
    crate::FileWatch,
    crate::Usage,
    Vec<crate::JobInfo>,
    IsolationReport,
    Metadata,
    Process,
    Snapshot,
    Vec<DirEntry>,
    Vec<SandboxInfo>,
    Vec<Snapshot>,
);
