//! A sandbox of Azure Container Apps as a [`Sandbox`].
//!
//! It must never answer for a sandbox that the service no longer has.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use sandbox_core::backend::Jobs;
use sandbox_core::{
    Capabilities, Command, Error, ErrorKind, Execution, ForkOptions, IsolationReport, Job, JobInfo,
    JobKey, JobOptions, Labels, Operation, PortStream, Process, Result, Sandbox, Snapshot,
    SnapshotId, SnapshotOptions, Usage,
};
use serde_json::Value;

use crate::group::capability::{CAPABILITIES, report};
use crate::group::delete_on_drop::{DeleteOnDrop, Made};
use crate::group::manage::{EgressPolicy, Lifecycle};
use crate::group::protocol::number;
use crate::group::shared::{Policies, Shared};
use crate::group::spec::check_labels;
use crate::guest::handle::{Guest, State};
use crate::guest::sandbox::sandbox_over_guest;
use crate::http::{Request, parse};

/// A handle to one sandbox of a group.
#[derive(Debug)]
pub(crate) struct AcaSandbox {
    pub(crate) guest: Arc<Guest>,
    pub(crate) shared: Arc<Shared>,
    jobs: Arc<Jobs>,
}

impl AcaSandbox {
    pub(crate) fn new(guest: Arc<Guest>, shared: Arc<Shared>) -> Arc<Self> {
        let jobs = guest.jobs();
        Arc::new(Self {
            guest,
            shared,
            jobs,
        })
    }

    /// Takes a snapshot, which is deleted if what is given back is dropped, or this future is.
    async fn snap(&self, op: Operation, labels: &Labels) -> Result<(DeleteOnDrop, Snapshot)> {
        self.guest.open(op)?;
        self.guest.awake(op)?;
        let marks = &self.shared.config.labels;
        check_labels(op, labels, marks).map_err(|error| self.guest.named(error))?;
        let mut labels = labels.clone();
        labels.extend(marks.clone());
        let (guest, timeout) = (Arc::clone(&self.guest), self.shared.config.snapshot_timeout);
        // On a task of its own: the service takes it whether the caller waits or not.
        let taking = tokio::spawn(async move {
            let _files = guest.files.write().await;
            let http = &guest.transport;
            let held = guest.hold(op).await?;
            let taken = http.snapshot(op, guest.id.as_str(), &labels, timeout).await;
            // Whatever came of it: the source goes on.
            let gone_on = guest.let_go(op, held).await;
            let shown = taken.map_err(|failure| guest.failed(failure))?;
            let id = shown["id"].as_str().unwrap_or_default();
            let mut snapshot = Snapshot::new(SnapshotId::new(id));
            snapshot.size = number(&shown["sizeInMB"]).map(|size| size << 20);
            let guard = DeleteOnDrop::new(http, Made::Snapshot(id.to_owned()));
            gone_on?;
            Ok((guard, snapshot))
        });
        taking.await.unwrap_or_else(|error| {
            let error = Error::new(ErrorKind::Other, op).with_source(error);
            Err(self
                .guest
                .named(error.with_message("the task that takes the snapshot ended early")))
        })
    }

    /// A sandbox of its own from a snapshot, which is deleted then.
    async fn copied(&self, labels: Labels) -> Result<Arc<Self>> {
        const OP: Operation = Operation::Fork;
        check_labels(OP, &labels, &self.shared.config.labels)
            .map_err(|error| self.guest.named(error))?;
        let (_passing, snapshot) = self.snap(OP, &Labels::new()).await?;
        // As they are now: a handle of the service's may have changed them.
        let found = self.guest.transport.get(OP, self.guest.id.as_str()).await;
        let mut found = found.map_err(|failure| self.guest.failed(failure))?;
        let policies = Policies {
            restored: true,
            egress: match EgressPolicy::of(&found["egressPolicy"]) {
                Some(_) => found["egressPolicy"].take(),
                None => return Err(self.guest.named(unknown_egress())),
            },
            lifecycle: match found["lifecycle"].take() {
                Value::Null => Lifecycle::new(Some(self.shared.config.auto_delete)).body(),
                lifecycle => lifecycle,
            },
            // A port is open to others, which was not asked for.
            ports: Vec::new(),
        };
        let state = {
            let state = self.guest.state();
            let info = state.info.clone().parent(self.guest.id.clone());
            let info = info.labels(labels);
            State::new(info, state.env.clone())
        };
        let made = self.shared.restore(OP, &snapshot.id, policies, state).await;
        let made = made.map_err(|error| self.guest.named(error))?;
        Ok(Self::new(made, Arc::clone(&self.shared)))
    }
}

/// A fork must never reach more than its parent may.
fn unknown_egress() -> Error {
    Error::new(ErrorKind::PermissionDenied, Operation::Fork)
        .with_message("the service shows no egress policy of this sandbox that is understood")
        .with_hint("set one with AcaHandle::set_egress, which a fork then inherits")
}

sandbox_over_guest! {
    impl Sandbox for AcaSandbox {
        fn capabilities(&self) -> Capabilities {
            CAPABILITIES
        }

        async fn isolation(&self) -> Result<IsolationReport> {
            const OP: Operation = Operation::Isolation;
            self.guest.open(OP)?;
            let found = self.guest.transport.get(OP, self.guest.id.as_str()).await;
            let found = found.map_err(|failure| self.guest.failed(failure))?;
            let egress = EgressPolicy::of(&found["egressPolicy"]);
            Ok(report(egress.map(|policy| policy.default)))
        }

        async fn spawn(&self, command: Command) -> Result<Process> {
            Arc::clone(&self.guest).spawn(Operation::Spawn, command).await
        }

        async fn start_job(&self, key: &JobKey, command: Command, options: JobOptions) -> Result<Job> {
            const OP: Operation = Operation::StartJob;
            let open = self.guest.open(OP);
            open.map_err(|error| error.with_execution(Execution::NotStarted))?;
            let guest = Arc::clone(&self.guest);
            let spawn = move |command| guest.spawn(OP, command);
            let job = self.jobs.start(key, command, options, spawn).await?;
            Ok(job.keep_alive(Arc::clone(&self.jobs) as _))
        }

        async fn find_job(&self, key: &JobKey) -> Result<Job> {
            self.guest.open(Operation::FindJob)?;
            let job = self.jobs.find(key)?;
            Ok(job.keep_alive(Arc::clone(&self.jobs) as _))
        }

        async fn list_jobs(&self) -> Result<Vec<JobInfo>> {
            self.guest.open(Operation::ListJobs)?;
            Ok(self.jobs.list())
        }

        async fn pause(&self) -> Result<()> {
            self.guest.pause().await
        }

        async fn resume(&self) -> Result<()> {
            self.guest.resume().await
        }

        async fn usage(&self) -> Result<Usage> {
            const OP: Operation = Operation::Usage;
            self.guest.open(OP)?;
            let http = &self.guest.transport;
            let path = ["sandboxes", self.guest.id.as_str(), "stats"];
            let shown = http.send(OP, Request::new(Method::GET, &path)).await;
            let shown = shown.and_then(|bytes| parse(OP, &bytes));
            let shown = shown.map_err(|failure| self.guest.failed(failure))?;
            let mut usage = Usage::new();
            // What a version does not tell is not known, and not zero.
            usage.cpu = number(&shown["cpu"]["usageCoreNanoSeconds"]).map(Duration::from_nanos);
            usage.memory = number(&shown["memory"]["usedBytes"]);
            usage.disk = number(&(http.protocol().disk)(&shown)["usedBytes"]);
            Ok(usage)
        }

        async fn connect_port(&self, port: u16) -> Result<PortStream> {
            Arc::clone(&self.guest).connect_port(port).await
        }

        async fn fork(&self, options: ForkOptions) -> Result<Arc<dyn Sandbox>> {
            Ok(self.copied(options.labels).await?)
        }

        async fn snapshot(&self, options: SnapshotOptions) -> Result<Snapshot> {
            let (guard, snapshot) = self.snap(Operation::Snapshot, &options.labels).await?;
            guard.keep();
            Ok(snapshot)
        }

        async fn close(&self) -> Result<()> {
            self.guest.close(|| ()).await
        }
    }
}
