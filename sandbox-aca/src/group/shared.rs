//! Parts that a provider and its sandboxes share: how a sandbox is made, for a provider or as a fork.
//!
//! It must never leave behind a sandbox whose creation was given up.

use std::sync::Arc;
use std::time::Duration;

use sandbox_core::backend::Registry;
use sandbox_core::{Error, ErrorKind, Operation, Result, SandboxId, SnapshotId};
use serde_json::{Value, json};

use crate::group::config::AcaConfig;
use crate::group::delete_on_drop::{DeleteOnDrop, Made};
use crate::group::manage::Lifecycle;
use crate::guest::handle::{Guest, State, fresh};
use crate::guest::launch::MARKED;
use crate::guest::transport::Transport;
use crate::http::{Http, runtime};

/// Parts that a provider and its sandboxes share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) http: Arc<Http>,
    pub(crate) config: AcaConfig,
    /// The open sandboxes.
    pub(crate) open: Registry<Guest>,
}

/// Policies that follow a creation, as the service takes them.
#[derive(Debug)]
pub(crate) struct Policies {
    /// Whether it is made from a snapshot: then the service may ignore all but the source.
    pub(crate) restored: bool,
    pub(crate) egress: Value,
    pub(crate) lifecycle: Value,
    pub(crate) ports: Vec<Value>,
}

impl Shared {
    pub(crate) fn new(http: Arc<Http>, config: AcaConfig) -> Self {
        Self {
            http,
            config,
            open: Registry::new(),
        }
    }

    /// Makes a sandbox findable for as long as it has a handle, and keeps it alive if asked for.
    pub(crate) fn add(&self, guest: Guest) -> Arc<Guest> {
        let guest = Arc::new(guest);
        self.open.insert(guest.id.clone(), &guest);
        guest.keep(self.config.keep_alive);
        guest
    }

    /// Creates and makes ready. Runs to its end even if the caller has gone; then the sandbox is
    /// deleted.
    async fn make(
        &self,
        op: Operation,
        body: Value,
        policies: Policies,
        mut state: State,
    ) -> Result<Arc<Guest>> {
        let Policies {
            restored,
            egress,
            lifecycle,
            ports,
        } = policies;
        let (id, made) = self
            .http
            .create(body, &self.config.labels, op == Operation::Fork)
            .await
            .map_err(|failure| failure.error)?;
        let orphan = DeleteOnDrop::new(&self.http, Made::Sandbox(id.clone()));
        if made["state"] != "Running" {
            self.http
                .running(op, &id)
                .await
                .map_err(|failure| failure.error)?;
        }
        state.info.id = SandboxId::new(&id);
        let grace = self.config.output_grace;
        let mut guest = Guest::new(Arc::clone(&self.http), state, grace);
        // A lifecycle of the caller's own may delete for other reasons, which nothing tells apart.
        let usual = self.config.auto_delete;
        if lifecycle == Lifecycle::new(Some(usual)).body() {
            guest = guest.expires_after(usual);
        }
        let policy = async |which: &str, policy: &Value| {
            let set = self.http.policy(op, &id, which, policy).await;
            set.map_err(|failure| guest.failed(failure))
        };
        // Before anything else: what a restore has inherited may run already, and until then it may
        // reach what the service lets a restore reach by itself.
        if restored {
            policy("egresspolicy", &egress).await?;
        }
        prepare(&guest, op, restored).await?;
        // A creation may ignore it in its body, and a restore resets it.
        policy("lifecycle", &lifecycle).await?;
        if restored {
            for port in &ports {
                // A port that is open already is what was wanted.
                match self.http.policy(op, &id, "ports/add", port).await {
                    Err(failure) if failure.status == Some(409) => {}
                    other => other.map_err(|failure| failure.error)?,
                }
            }
        }
        orphan.keep();
        Ok(self.add(guest))
    }

    /// Makes a sandbox on a task of its own; if the future is dropped, the sandbox is deleted.
    pub(crate) async fn make_surely(
        self: &Arc<Self>,
        op: Operation,
        body: Value,
        policies: Policies,
        state: State,
    ) -> Result<Arc<Guest>> {
        runtime(op)?;
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            let made = shared.make(op, body, policies, state).await;
            if let Err(Ok(unwanted)) = sender.send(made) {
                drop(unwanted.close(|| ()).await);
            }
        });
        receiver.await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Other, op)
                .with_message("the task that creates the sandbox ended early"))
        })
    }

    /// A sandbox from a snapshot.
    pub(crate) async fn restore(
        self: &Arc<Self>,
        op: Operation,
        snapshot: &SnapshotId,
        policies: Policies,
        mut state: State,
    ) -> Result<Arc<Guest>> {
        let body = json!({
            "sourcesRef": {"snapshot": {"id": snapshot.as_str()}},
            "labels": state.info.labels,
            // A service may ignore these here, so that they follow.
            "egressPolicy": policies.egress,
            "lifecycle": policies.lifecycle,
        });
        state.info.created = std::time::SystemTime::now();
        self.make_surely(op, body, policies, state).await
    }
}

/// The workdir, and an end to what a snapshot brought along.
async fn prepare(guest: &Guest, op: Operation, restored: bool) -> Result<()> {
    let (dir, _) = fresh(Http::STAGING);
    let workdir = guest.workdir();
    let mut script = guest.files_script(&dir);
    if restored {
        // A restore goes on with the processes of its source; a fork is of files.
        script = script.text(&format!(
            "for entry in $(grep -lsE '^Max file locks +{MARKED}[0-9]{{14}} ' /proc/[0-9]*/limits); do \
             entry=${{entry#/proc/}}; kill -9 \"${{entry%/limits}}\" 2> /dev/null; done\n"
        ));
    }
    let script = script
        .text("make_workdir")
        .word(workdir.as_bytes())
        .text("\n");
    let said = guest
        .run(op, &script, &dir, true, Duration::from_secs(120))
        .await;
    let said = said.map_err(|failure| guest.failed(failure))?;
    guest.verdict(op, &said, &[&workdir])
}
