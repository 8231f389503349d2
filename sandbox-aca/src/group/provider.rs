//! Makes sandboxes in a group, finds them again, and ends them.
//!
//! It must never leave behind a sandbox whose creation was given up, and never open a network that
//! the spec does not.

use std::sync::Arc;

use async_trait::async_trait;
use reqwest::Method;
use sandbox_core::{
    Capabilities, Error, ErrorKind, GuestPath, Labels, Network, Operation, Provider, Result,
    Sandbox, SandboxId, SandboxInfo, SandboxSpec, Snapshot, SnapshotId, Source,
};
use serde_json::{Value, json};

use crate::auth::Tokens;
use crate::group::capability::CAPABILITIES;
use crate::group::config::AcaConfig;
use crate::group::create_once::CREATE_LABEL;
use crate::group::manage::{AcaOptions, AcaSource, EgressPolicy, Lifecycle, NewPort};
use crate::group::protocol::{Protocol, number};
use crate::group::sandbox::AcaSandbox;
use crate::group::shared::{Policies, Shared};
use crate::group::spec::{check, check_labels};
use crate::guest::handle::{Guest, State, Variables, variables};
use crate::guest::keep_alive;
use crate::http::{Http, Request};

const BACKEND: &str = "aca-sandboxes";
const WORKDIR: &str = "/workspace";

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
/// let provider = AcaSandboxProvider::new(config.credential(Arc::new(StaticToken::new(token))))?;
/// let sandbox = provider.create(SandboxSpec::new()).await?;
/// assert!(sandbox.sh("echo hello").await?.success());
/// sandbox.close().await
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct AcaSandboxProvider {
    pub(crate) shared: Arc<Shared>,
}

impl AcaSandboxProvider {
    /// Capabilities of its sandboxes; no I/O, no provider needed.
    pub const CAPABILITIES: Capabilities = CAPABILITIES;

    /// A provider for this group, with this source of tokens. Sends nothing yet.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a configuration that can't be right or a version that is not
    /// known; what reading the certificate says.
    pub fn new(config: AcaConfig) -> Result<Self> {
        keep_alive::check(config.keep_alive)?;
        check_labels(Operation::Connect, &config.labels, &Labels::new())?;
        let plane = config.plane()?;
        let scope = match &config.scope {
            Some(scope) => scope.clone(),
            None => Protocol::of(&config.api_version)?.scope.to_owned(),
        };
        let tokens = Tokens::new(Arc::clone(&config.credential), scope);
        let http = Arc::new(Http::new(plane, tokens)?);
        Ok(Self {
            shared: Arc::new(Shared::new(http, config)),
        })
    }
}

/// Origin of a sandbox, if spec and options agree.
fn source(spec: &SandboxSpec, options: &AcaOptions, config: &AcaConfig) -> Result<AcaSource> {
    let invalid = |why: &str| {
        let error = Error::new(ErrorKind::InvalidInput, Operation::Create);
        Err(error.with_message(why.to_owned()))
    };
    let source = match (&options.source, &spec.source) {
        (Some(source), Source::Default) => source.clone(),
        (Some(_), _) => return invalid("both spec and options say what to start from"),
        (None, Source::Image(name)) => AcaSource::PublicImage(name.clone()),
        (None, Source::Snapshot(id)) => AcaSource::Snapshot(id.clone()),
        (None, _) => AcaSource::PublicImage(config.disk_image.clone()),
    };
    let fixed = matches!(source, AcaSource::Preset(_) | AcaSource::Snapshot(_));
    let sized = options.cpu.is_some() || options.memory.is_some() || options.disk.is_some();
    if fixed && sized {
        return invalid("presets and snapshots have resources of their own");
    }
    if matches!(source, AcaSource::Snapshot(_)) && !options.volumes.is_empty() {
        return invalid("a snapshot has volumes of its own");
    }
    if options.egress.is_some() && spec.network == Network::Open {
        return invalid("both the spec's network and the egress policy say what may be reached");
    }
    Ok(source)
}

/// Description of a sandbox from the service's answer; `own` are the provider's labels.
fn info_of(found: &Value, own: &Labels) -> Option<SandboxInfo> {
    let id = SandboxId::new(found["id"].as_str()?);
    let mut info = SandboxInfo::new(id, BACKEND, GuestPath::from(WORKDIR));
    info.labels = labels_of(found, own);
    Some(info)
}

/// The labels of an entry without the provider's own.
fn labels_of(found: &Value, own: &Labels) -> Labels {
    let labels = found["labels"].as_object().into_iter().flatten();
    labels
        .filter(|(key, _)| *key != CREATE_LABEL && !own.contains_key(*key))
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

fn snapshot_of(found: &Value, own: &Labels) -> Option<Snapshot> {
    let id = SnapshotId::new(found["id"].as_str()?);
    let mut snapshot = Snapshot::new(id).labels(labels_of(found, own));
    snapshot.size = number(&found["sizeInMB"]).map(|size| size << 20);
    Some(snapshot)
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
        self.make(spec, AcaOptions::new()).await
    }

    async fn attach(&self, id: &SandboxId) -> Result<Arc<dyn Sandbox>> {
        const OP: Operation = Operation::Attach;
        if let Some(open) = self.shared.open.get(id) {
            open.open(OP).map_err(|_| missing(OP, id))?;
            return Ok(self.opened(open));
        }
        let found = self.lookup(OP, id).await?;
        let own = &self.shared.config.labels;
        let info = info_of(&found, own).ok_or_else(|| missing(OP, id))?;
        let state = State::new(info, Variables::new());
        let grace = self.shared.config.output_grace;
        let guest = Guest::new(Arc::clone(&self.shared.http), state, grace);
        Ok(self.opened(self.shared.add(guest)))
    }

    async fn list(&self, labels: &Labels) -> Result<Vec<SandboxInfo>> {
        let mut found = self
            .shared
            .http
            .list(Operation::List, labels)
            .await
            .map_err(|failure| failure.error)?;
        found.sort_by_key(|entry| entry["createdAt"].as_str().unwrap_or_default().to_owned());
        let own = &self.shared.config.labels;
        Ok(found.iter().filter_map(|one| info_of(one, own)).collect())
    }

    async fn destroy(&self, id: &SandboxId) -> Result<()> {
        const OP: Operation = Operation::Destroy;
        if let Some(open) = self.shared.open.get(id) {
            open.open(OP).map_err(|_| missing(OP, id))?;
            return open.close(|| ()).await;
        }
        self.lookup(OP, id).await?;
        self.shared
            .http
            .delete(OP, id.as_str())
            .await
            .map_err(|failure| failure.error)
    }

    async fn list_snapshots(&self, labels: &Labels) -> Result<Vec<Snapshot>> {
        const OP: Operation = Operation::ListSnapshots;
        let all = self.shared.http.pages(OP, &["snapshots"], Vec::new());
        let mut all = all.await.map_err(|failure| failure.error)?;
        all.sort_by_key(|entry| entry["createdAt"].as_str().unwrap_or_default().to_owned());
        let own = &self.shared.config.labels;
        let has = |found: &Snapshot| labels.iter().all(|(k, v)| found.labels.get(k) == Some(v));
        Ok(all
            .iter()
            .filter_map(|found| snapshot_of(found, own))
            .filter(has)
            .collect())
    }

    async fn delete_snapshot(&self, id: &SnapshotId) -> Result<()> {
        const OP: Operation = Operation::DeleteSnapshot;
        let path = ["snapshots", id.as_str()];
        let request = Request::new(Method::DELETE, &path);
        match self.shared.http.send(OP, request).await {
            Ok(_) => Ok(()),
            Err(failure) if failure.status == Some(404) => Err(Error::new(ErrorKind::NotFound, OP)
                .with_message(format!("the service has no snapshot {id}"))
                .with_source(failure.error)),
            Err(failure) => Err(failure.error),
        }
    }
}

impl AcaSandboxProvider {
    pub(crate) async fn make(
        &self,
        spec: SandboxSpec,
        options: AcaOptions,
    ) -> Result<Arc<dyn Sandbox>> {
        const OP: Operation = Operation::Create;
        check(&spec)?;
        let network = spec.network.clone().settle(&CAPABILITIES);
        let config = &self.shared.config;
        check_labels(OP, &spec.labels, &config.labels)?;
        let source = source(&spec, &options, config)?;
        let workdir = spec
            .workdir
            .clone()
            .unwrap_or_else(|| GuestPath::from(WORKDIR));
        let workdir = workdir.resolve(&GuestPath::root(), OP)?;
        let info = SandboxInfo::new(SandboxId::new(""), BACKEND, workdir)
            .labels(spec.labels.clone())
            .command_timeout(spec.command_timeout);
        let state = State::new(info, variables(&spec.env).collect());
        let egress = options.egress.clone().unwrap_or(match network {
            Network::Open => EgressPolicy::allow(),
            _ => EgressPolicy::deny(),
        });
        let lifecycle = options.lifecycle.clone();
        let lifecycle = lifecycle.unwrap_or(Lifecycle::new(Some(config.auto_delete)));
        let policies = Policies {
            restored: matches!(source, AcaSource::Snapshot(_)),
            egress: self.shared.http.egress(OP, &egress)?,
            lifecycle: lifecycle.body(),
            ports: options.ports.iter().map(NewPort::body).collect(),
        };
        // The environment stays here and goes with each command: the service keeps none of it.
        let mut body = json!({
            "lifecycle": policies.lifecycle,
            "labels": spec.labels,
            "egressPolicy": policies.egress,
        });
        match source {
            AcaSource::Snapshot(id) => {
                let made = self.shared.restore(OP, &id, policies, state).await?;
                return Ok(self.opened(made));
            }
            AcaSource::Preset(name) => body["presetSandboxType"] = json!(name),
            AcaSource::PublicImage(name) => {
                body["sourcesRef"] = json!({"diskImage": {"name": name, "isPublic": true}});
            }
            AcaSource::DiskImage(id) => {
                body["sourcesRef"] = json!({"diskImage": {"id": id}});
            }
        }
        if body["presetSandboxType"].is_null() {
            body["resources"] = json!({
                "cpu": options.cpu.as_ref().unwrap_or(&config.cpu),
                "memory": options.memory.as_ref().unwrap_or(&config.memory),
            });
            if let Some(disk) = &options.disk {
                body["resources"]["disk"] = json!(disk);
            }
        }
        if !options.volumes.is_empty() {
            body["volumes"] = options.volumes_body();
        }
        if !policies.ports.is_empty() {
            body["ports"] = json!(policies.ports);
        }
        let made = self.shared.make_surely(OP, body, policies, state).await?;
        Ok(self.opened(made))
    }

    fn opened(&self, guest: Arc<Guest>) -> Arc<dyn Sandbox> {
        AcaSandbox::new(guest, Arc::clone(&self.shared))
    }

    async fn lookup(&self, op: Operation, id: &SandboxId) -> Result<Value> {
        if uuid::Uuid::parse_str(id.as_str()).is_err() {
            return Err(missing(op, id));
        }
        match self.shared.http.get(op, id.as_str()).await {
            Err(failure) if failure.status == Some(404) => Err(missing(op, id)),
            other => other.map_err(|failure| failure.error),
        }
    }
}

fn missing(op: Operation, id: &SandboxId) -> Error {
    Error::new(ErrorKind::NotFound, op)
        .with_message("the group has no such sandbox")
        .with_sandbox(id.clone())
}
