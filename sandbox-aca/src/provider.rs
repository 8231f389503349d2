//! Makes sandboxes in a group, finds them again, and ends them.
//!
//! It must never leave behind a sandbox that nobody got, and never open a network that the spec
//! does not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use sandbox_core::{
    Capabilities, Error, ErrorKind, GuestPath, Labels, Network, Operation, Provider, Result,
    Sandbox, SandboxId, SandboxInfo, SandboxSpec, SnapshotId, Source,
};
use serde_json::{Value, json};

use crate::auth::{Credential, Tokens};
use crate::capability::CAPABILITIES;
use crate::carrier::Carrier;
use crate::config::AcaConfig;
use crate::handle::{Inner, Kept, fresh};
use crate::http::{Failure, Http, Plane};
use crate::sandbox::{AcaSandbox, Handles, find, lifecycle, unlocked};
use crate::service::NONCE;
use crate::spec::check;

const BACKEND: &str = "aca-sandboxes";
const WORKDIR: &str = "/workspace";

/// What a provider and its sandboxes share.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) http: Arc<Http>,
    pub(crate) config: AcaConfig,
    handles: Handles,
}

/// Sandboxes of an Azure Container Apps sandbox group.
///
/// ```no_run
/// use std::sync::Arc;
/// use sandbox_aca::{AcaConfig, AcaSandboxProvider, StaticToken};
/// use sandbox_core::{Provider, SandboxExt, SandboxSpec};
///
/// # async fn run(token: String) -> sandbox_core::Result<()> {
/// let endpoint = "https://management.westus2.azuredevcompute.io";
/// let config = AcaConfig::new(endpoint, "SUBSCRIPTION", "RESOURCE-GROUP", "GROUP");
/// let provider = AcaSandboxProvider::new(config, Arc::new(StaticToken::new(token)))?;
/// let sandbox = provider.create(SandboxSpec::new()).await?;
/// assert!(sandbox.sh("echo hello").await?.success());
/// sandbox.close().await
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct AcaSandboxProvider {
    registry: Arc<Registry>,
}

impl AcaSandboxProvider {
    /// What its sandboxes can do; no I/O, no provider needed.
    pub const CAPABILITIES: Capabilities = CAPABILITIES;

    /// A provider for this group, with this source of tokens. Talks to nobody yet.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a configuration that can't be right; what reading the
    /// certificate says.
    pub fn new(config: AcaConfig, credential: Arc<dyn Credential>) -> Result<Self> {
        let tokens = Tokens::new(credential, config.scope.clone());
        let http = Arc::new(Http::new(Plane::of_group(&config)?, tokens)?);
        Ok(Self {
            registry: Arc::new(Registry {
                http,
                config,
                handles: Mutex::default(),
            }),
        })
    }
}

/// Ends a sandbox that nobody got.
struct Orphan {
    http: Arc<Http>,
    id: Option<String>,
}

impl Drop for Orphan {
    fn drop(&mut self) {
        let (Some(id), Ok(runtime)) = (self.id.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        let http = Arc::clone(&self.http);
        runtime.spawn(async move {
            if let Err(failure) = http.delete(Operation::Create, &id).await {
                tracing::warn!(status = ?failure.status, "an unused sandbox was not deleted");
            }
        });
    }
}

/// A creation that failed: what is not found is what it was to start from.
fn failed(failure: Failure) -> Error {
    failure.error
}

impl Registry {
    pub(crate) fn add(&self, made: &Arc<AcaSandbox>) {
        let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        handles.insert(made.inner.id.as_str().to_owned(), Arc::downgrade(made));
    }

    /// Creates and makes ready. Runs to its end even if nobody waits; then the sandbox is deleted.
    async fn make(
        self: Arc<Self>,
        op: Operation,
        body: Value,
        restored: bool,
        mut kept: Kept,
        egress_denied: bool,
    ) -> Result<Arc<AcaSandbox>> {
        let egress = egress(egress_denied);
        let made = self.http.create(body).await.map_err(failed)?;
        let id = made["id"].as_str().unwrap_or_default().to_owned();
        let mut orphan = Orphan {
            http: Arc::clone(&self.http),
            id: Some(id.clone()),
        };
        if made["state"] != "Running" {
            self.http.running(op, &id).await.map_err(failed)?;
        }
        // The safe place for what a creation may ignore and a restore resets.
        let life = lifecycle(self.config.auto_delete);
        self.http
            .policy(op, &id, "lifecycle", &life)
            .await
            .map_err(failed)?;
        if restored {
            self.http
                .policy(op, &id, "egresspolicy", &egress)
                .await
                .map_err(failed)?;
        }
        kept.info.id = SandboxId::new(&id);
        let (closing, files) = unlocked();
        let inner = Inner {
            http: Arc::clone(&self.http),
            id: SandboxId::new(&id),
            egress_denied,
            kept: Mutex::new(kept),
            closing,
            files,
        };
        prepare(&inner, op, restored).await?;
        orphan.id = None;
        Ok(AcaSandbox::new(inner, Arc::clone(&self)))
    }

    /// The same on a task of its own; who drops the future gets the sandbox deleted.
    async fn make_surely(
        self: &Arc<Self>,
        op: Operation,
        body: Value,
        restored: bool,
        kept: Kept,
        denied: bool,
    ) -> Result<Arc<AcaSandbox>> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let registry = Arc::clone(self);
        tokio::spawn(async move {
            let made = Arc::clone(&registry)
                .make(op, body, restored, kept, denied)
                .await;
            if let Err(Ok(unwanted)) = sender.send(made) {
                drop(unwanted.close().await);
            }
        });
        receiver.await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Other, op).with_message("the creation ended"))
        })
    }

    /// A sandbox from a snapshot: only the source is sent, the policies follow.
    pub(crate) async fn restore(
        self: &Arc<Self>,
        op: Operation,
        snapshot: &SnapshotId,
        mut kept: Kept,
        labels: Labels,
        egress_denied: bool,
        parent: Option<&SandboxId>,
    ) -> Result<Arc<AcaSandbox>> {
        let body = json!({
            "sourcesRef": {"snapshot": {"id": snapshot.as_str()}},
            "labels": labels,
        });
        kept.info.labels = labels;
        kept.info.created = std::time::SystemTime::now();
        kept.info.parent = parent.cloned();
        self.make_surely(op, body, true, kept, egress_denied).await
    }
}

/// The workdir, and an end to what a snapshot brought along.
async fn prepare(inner: &Inner, op: Operation, restored: bool) -> Result<()> {
    let (dir, _) = fresh(Http::STAGING);
    let workdir = inner.workdir();
    let mut script = inner.files_script(&dir);
    if restored {
        // A restore goes on with the processes of its source; a fork is of files.
        script = script.text(
            "for x in $(grep -lsaF SANDBOX_RUN= /proc/[0-9]*/environ); do x=${x#/proc/}; kill -9 \"${x%/environ}\" 2>/dev/null; done\n",
        );
    }
    let script = script
        .text("x=$(LC_ALL=C mkdir -p --")
        .word(workdir.as_bytes());
    let script = script.text(" 2>&1) || denied \"$x\"\necho OK\n");
    let said = inner
        .run(op, &script, &dir, true, Duration::from_secs(120))
        .await;
    let said = said.map_err(|failure| inner.failed(failure))?;
    inner.verdict(op, &said, &[&workdir])
}

fn egress(denied: bool) -> Value {
    let action = if denied { "Deny" } else { "Allow" };
    let inspection = if denied { "Full" } else { "None" };
    json!({"defaultAction": action, "hostRules": [], "rules": [], "trafficInspection": inspection})
}

fn info_of(found: &Value) -> Option<SandboxInfo> {
    let id = SandboxId::new(found["id"].as_str()?);
    let mut info = SandboxInfo::new(id, BACKEND, GuestPath::from(WORKDIR));
    if let Some(labels) = found["labels"].as_object() {
        let pairs = labels.iter().filter(|(key, _)| *key != NONCE);
        info.labels = pairs
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect();
    }
    Some(info)
}

#[async_trait]
impl Provider for AcaSandboxProvider {
    fn backend(&self) -> &'static str {
        BACKEND
    }

    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn create(&self, spec: SandboxSpec) -> Result<Arc<dyn Sandbox>> {
        const OP: Operation = Operation::Create;
        check(&spec)?;
        let workdir = spec
            .workdir
            .clone()
            .unwrap_or_else(|| GuestPath::from(WORKDIR));
        let workdir = workdir.resolve(&GuestPath::root(), OP)?;
        let info = SandboxInfo::new(SandboxId::new(""), BACKEND, workdir)
            .with_labels(spec.labels.clone())
            .with_command_timeout(spec.command_timeout);
        let mut env = BTreeMap::new();
        for (name, value) in spec.env.iter() {
            env.insert(name.to_vec(), value.map(|value| value.value.clone()));
        }
        let kept = Kept {
            info,
            env,
            litter: Vec::new(),
            running: Vec::new(),
        };
        let denied = spec.network == Network::Off;
        if let Source::Snapshot(id) = &spec.source {
            let made = self
                .registry
                .restore(OP, id, kept, spec.labels, denied, None)
                .await?;
            return Ok(made);
        }
        let config = &self.registry.config;
        let image = match &spec.source {
            Source::Image(name) => name.as_str(),
            _ => &config.disk_image,
        };
        // The environment stays here and goes with each command: the service keeps none of it.
        let body = json!({
            "sourcesRef": {"diskImage": {"name": image, "isPublic": true}},
            "resources": {"cpu": config.cpu, "memory": config.memory},
            "lifecycle": lifecycle(config.auto_delete),
            "labels": spec.labels,
            "egressPolicy": egress(denied),
        });
        let made = self
            .registry
            .make_surely(OP, body, false, kept, denied)
            .await?;
        Ok(made)
    }

    async fn attach(&self, id: &SandboxId) -> Result<Arc<dyn Sandbox>> {
        const OP: Operation = Operation::Attach;
        if let Some(open) = find(&self.registry.handles, id.as_str()) {
            return open
                .inner
                .open(OP)
                .map(|()| open as _)
                .map_err(|_| missing(OP, id));
        }
        let found = self.lookup(OP, id).await?;
        let denied = found["egressPolicy"]["defaultAction"] == "Deny";
        let info = info_of(&found).ok_or_else(|| missing(OP, id))?;
        let (closing, files) = unlocked();
        let inner = Inner {
            http: Arc::clone(&self.registry.http),
            id: id.clone(),
            egress_denied: denied,
            kept: Mutex::new(Kept {
                info,
                env: BTreeMap::new(),
                litter: Vec::new(),
                running: Vec::new(),
            }),
            closing,
            files,
        };
        Ok(AcaSandbox::new(inner, Arc::clone(&self.registry)))
    }

    async fn list(&self, labels: &Labels) -> Result<Vec<SandboxInfo>> {
        let mut found = self
            .registry
            .http
            .list(Operation::List, labels)
            .await
            .map_err(failed)?;
        found.sort_by_key(|entry| entry["createdAt"].as_str().unwrap_or_default().to_owned());
        Ok(found.iter().filter_map(info_of).collect())
    }

    async fn destroy(&self, id: &SandboxId) -> Result<()> {
        const OP: Operation = Operation::Destroy;
        if let Some(open) = find(&self.registry.handles, id.as_str()) {
            open.inner.open(OP).map_err(|_| missing(OP, id))?;
            return open.close().await;
        }
        self.lookup(OP, id).await?;
        self.registry
            .http
            .delete(OP, id.as_str())
            .await
            .map_err(failed)
    }
}

impl AcaSandboxProvider {
    async fn lookup(&self, op: Operation, id: &SandboxId) -> Result<Value> {
        if uuid::Uuid::parse_str(id.as_str()).is_err() {
            return Err(missing(op, id));
        }
        match self.registry.http.get(op, id.as_str()).await {
            Err(failure) if failure.status == Some(404) => Err(missing(op, id)),
            other => other.map_err(failed),
        }
    }
}

fn missing(op: Operation, id: &SandboxId) -> Error {
    Error::new(ErrorKind::NotFound, op)
        .with_message("the group has no such sandbox")
        .with_sandbox(id.clone())
}
