//! A dynamic session as a [`Sandbox`].
//!
//! It must never answer for a session that is another one than it was.

use std::sync::Arc;
use std::time::Duration;

use sandbox_core::{
    Capabilities, Capability, Command, Error, Execution, ForkOptions, IsolationReport, Operation,
    Process, Result, Sandbox, Snapshot, SnapshotOptions,
};

use super::capability::{CLOSED, OPEN, report};
use super::client::Session;
use super::shared::Shared;
use crate::guest::handle::Guest;
use crate::guest::sandbox::sandbox_over_guest;

/// A sandbox that is a dynamic session; made by
/// [`create_session`](crate::AcaSessionProvider::create_session).
#[derive(Debug)]
pub struct AcaSession {
    pub(super) guest: Arc<Guest<Session>>,
    pub(super) shared: Arc<Shared>,
}

impl AcaSession {
    pub(super) fn new(guest: Arc<Guest<Session>>, shared: Arc<Shared>) -> Arc<Self> {
        Arc::new(Self { guest, shared })
    }

    fn lacks(&self, capability: Capability, op: Operation) -> Error {
        let lacks = self.capabilities().require(capability, op).err();
        self.guest
            .named(lacks.unwrap_or_else(|| Error::unsupported(op, capability, "there is none")))
    }
}

sandbox_over_guest! {
    impl Sandbox for AcaSession {
        fn capabilities(&self) -> Capabilities {
            match self.shared.config.egress {
                true => OPEN,
                false => CLOSED,
            }
        }

        async fn isolation(&self) -> Result<IsolationReport> {
            const OP: Operation = Operation::Isolation;
            self.guest.open(OP)?;
            // Whether it is still there is asked all the same.
            let (minute, session) = (Duration::from_secs(60), &self.guest.transport);
            let there = session.line(OP, ":", true, minute).await;
            there.map_err(|failure| self.guest.failed(failure))?;
            Ok(report(self.shared.config.egress))
        }

        async fn spawn(&self, _: Command) -> Result<Process> {
            const OP: Operation = Operation::Spawn;
            let error = match self.guest.open(OP) {
                Err(closed) => closed,
                Ok(()) => self.lacks(Capability::Spawn, OP),
            };
            Err(error.with_execution(Execution::NotStarted))
        }

        async fn fork(&self, options: ForkOptions) -> Result<Arc<dyn Sandbox>> {
            Ok(self.copied(options.labels).await?)
        }

        async fn snapshot(&self, _: SnapshotOptions) -> Result<Snapshot> {
            const OP: Operation = Operation::Snapshot;
            self.guest.open(OP)?;
            Err(self.lacks(Capability::Snapshot, OP))
        }

        async fn close(&self) -> Result<()> {
            self.shared.close(&self.guest).await
        }
    }
}
