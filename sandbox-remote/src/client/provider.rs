//! The provider: what a server has, over the wire.

use std::sync::Arc;

use async_trait::async_trait;
use reqwest::Method;
use sandbox_core::{
    Capabilities, Capability, Error, ErrorKind, Labels, Operation, Provider, Result, Sandbox,
    SandboxId, SandboxInfo, SandboxSpec, Snapshot, SnapshotId,
};

use super::call::Call;
use super::config::RemoteConfig;
use super::http::Http;
use super::sandbox::RemoteSandbox;
use crate::wire;

/// Sandboxes behind a server, as if they were here.
///
/// Capabilities are the server's: those of the backend behind it, without what the server does not
/// give. A sandbox is closed when the last handle that this provider gave out is dropped, unless
/// [`RemoteConfig::keep`] says otherwise or it was attached to. A host that dies leaves its
/// commands to the server's grace, and its sandboxes to the server's idle time.
///
/// ```no_run
/// use sandbox_core::{Provider, SandboxExt, SandboxSpec};
/// use sandbox_remote::{RemoteConfig, RemoteProvider, TokenFile};
///
/// # async fn run() -> sandbox_core::Result<()> {
/// let config = RemoteConfig::new("https://agent.example.com")?
///     .token(TokenFile::new("/run/secrets/sandbox-token"));
/// let provider = RemoteProvider::connect(config).await?;
/// let sandbox = provider.create(SandboxSpec::new()).await?;
/// let output = sandbox.sh("uname -a").await?;
/// println!("{}", output.stdout.to_string_lossy());
/// sandbox.close().await
/// # }
/// ```
#[derive(Debug)]
pub struct RemoteProvider {
    http: Arc<Http>,
    backend: String,
    capabilities: Capabilities,
    own: Option<SandboxId>,
}

impl RemoteProvider {
    /// Asks a server what it is. Dropping the future leaves nothing behind.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) if the server can't be reached,
    /// [`Unauthenticated`](ErrorKind::Unauthenticated) for the wrong token or none.
    pub async fn connect(config: RemoteConfig) -> Result<Self> {
        let http = Arc::new(Http::new(config)?);
        let call = Call::read(Operation::Connect, Method::GET, &["v1", "info"]);
        let hello: wire::Hello = http.call(call).await?;
        http.greet(&hello.instance);
        Ok(Self {
            http,
            backend: hello.backend,
            capabilities: hello.capabilities.into(),
            own: hello.sandbox.map(SandboxId::new),
        })
    }

    /// A handle to the sandbox that the server was started for.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if it was started for none.
    pub async fn own_sandbox(&self) -> Result<Arc<dyn Sandbox>> {
        let Some(id) = &self.own else {
            return Err(Error::new(ErrorKind::NotFound, Operation::Attach)
                .with_message("the server has no sandbox of its own")
                .with_hint("create one"));
        };
        self.find(id).await
    }

    async fn find(&self, id: &SandboxId) -> Result<Arc<dyn Sandbox>> {
        self.http.leaving.over(id).await;
        let path = ["v1", "sandboxes", "attach"];
        let call = Call::read(Operation::Attach, Method::POST, &path);
        let id = wire::Id {
            id: id.as_str().to_owned(),
        };
        let handle: wire::Handle = self.http.call(call.json(&id)?).await?;
        let sandbox = RemoteSandbox::new(&self.http, handle, true);
        Ok(Arc::new(sandbox))
    }
}

#[async_trait]
impl Provider for RemoteProvider {
    fn backend(&self) -> &str {
        &self.backend
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities.clone()
    }

    async fn create(&self, mut spec: SandboxSpec) -> Result<Arc<dyn Sandbox>> {
        spec.validate()?;
        spec.require(&self.capabilities, Operation::Create)?;
        let env = wire::variables(&std::mem::take(&mut spec.env));
        let call = Call::named(Operation::Create, &["v1", "sandboxes"]);
        let create = wire::Create { spec, env };
        let handle: wire::Handle = self.http.call(call.json(&create)?).await?;
        let sandbox = RemoteSandbox::new(&self.http, handle, self.http.keeps());
        Ok(Arc::new(sandbox))
    }

    async fn attach(&self, id: &SandboxId) -> Result<Arc<dyn Sandbox>> {
        if self.own.as_ref() != Some(id) {
            self.capabilities
                .require(Capability::Attach, Operation::Attach)?;
        }
        self.find(id).await
    }

    async fn list(&self, labels: &Labels) -> Result<Vec<SandboxInfo>> {
        self.capabilities
            .require(Capability::List, Operation::List)?;
        let path = ["v1", "sandboxes", "list"];
        let call = Call::read(Operation::List, Method::POST, &path);
        let labels = wire::WithLabels {
            labels: labels.clone(),
        };
        let found: wire::Sandboxes = self.http.call(call.json(&labels)?).await?;
        Ok(found.sandboxes)
    }

    async fn destroy(&self, id: &SandboxId) -> Result<()> {
        self.capabilities
            .require(Capability::Attach, Operation::Destroy)?;
        self.http.leaving.over(id).await;
        let path = ["v1", "sandboxes", "destroy"];
        let call = Call::named(Operation::Destroy, &path).unstoppable();
        let id = wire::Id {
            id: id.as_str().to_owned(),
        };
        let wire::Nothing {} = self.http.call(call.json(&id)?).await?;
        Ok(())
    }

    async fn list_snapshots(&self, labels: &Labels) -> Result<Vec<Snapshot>> {
        self.capabilities
            .require(Capability::SnapshotList, Operation::ListSnapshots)?;
        let path = ["v1", "snapshots", "list"];
        let call = Call::read(Operation::ListSnapshots, Method::POST, &path);
        let labels = wire::WithLabels {
            labels: labels.clone(),
        };
        let found: wire::Snapshots = self.http.call(call.json(&labels)?).await?;
        Ok(found.snapshots)
    }

    async fn delete_snapshot(&self, id: &SnapshotId) -> Result<()> {
        self.capabilities
            .require(Capability::SnapshotDelete, Operation::DeleteSnapshot)?;
        let path = ["v1", "snapshots", "delete"];
        let call = Call::named(Operation::DeleteSnapshot, &path).unstoppable();
        let id = wire::Id {
            id: id.as_str().to_owned(),
        };
        let wire::Nothing {} = self.http.call(call.json(&id)?).await?;
        Ok(())
    }
}
