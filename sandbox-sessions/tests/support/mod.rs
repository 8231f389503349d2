//! A service that outlives the process: the model, with every sandbox held.
#![allow(dead_code, clippy::panic, clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sandbox_core::{
    Capabilities, Labels, Provider, Result, Sandbox, SandboxId, SandboxInfo, SandboxSpec, Snapshot,
    SnapshotId, async_trait,
};
use sandbox_sessions::{ErrorKind, SessionInfo, Sessions, SessionsConfig, Status, Watch};
use sandbox_testkit::model::ModelProvider;

#[derive(Clone, Debug)]
pub(crate) struct Cloud {
    pub(crate) model: ModelProvider,
    held: Arc<Mutex<Vec<Arc<dyn Sandbox>>>>,
    lists_nothing: Arc<AtomicBool>,
}

impl Cloud {
    pub(crate) fn new(model: ModelProvider) -> Self {
        Self {
            model,
            held: Arc::default(),
            lists_nothing: Arc::default(),
        }
    }

    /// Sets whether its lists lack everything, as one that is late.
    pub(crate) fn list_nothing(&self, nothing: bool) {
        self.lists_nothing.store(nothing, Relaxed);
    }

    /// The identifiers of what there is.
    pub(crate) async fn there(&self) -> Vec<SandboxId> {
        let list = self.model.list(&Labels::new()).await.unwrap();
        list.into_iter().map(|info| info.id).collect()
    }
}

#[async_trait]
impl Provider for Cloud {
    fn backend(&self) -> &str {
        self.model.backend()
    }
    fn capabilities(&self) -> Capabilities {
        self.model.capabilities()
    }
    async fn create(&self, spec: SandboxSpec) -> Result<Arc<dyn Sandbox>> {
        let sandbox = self.model.create(spec).await?;
        self.held.lock().unwrap().push(sandbox.clone());
        Ok(sandbox)
    }
    async fn attach(&self, id: &SandboxId) -> Result<Arc<dyn Sandbox>> {
        self.model.attach(id).await
    }
    async fn list(&self, labels: &Labels) -> Result<Vec<SandboxInfo>> {
        match self.lists_nothing.load(Relaxed) {
            true => Ok(Vec::new()),
            false => self.model.list(labels).await,
        }
    }
    async fn destroy(&self, id: &SandboxId) -> Result<()> {
        self.model.destroy(id).await
    }
    async fn list_snapshots(&self, labels: &Labels) -> Result<Vec<Snapshot>> {
        self.model.list_snapshots(labels).await
    }
    async fn delete_snapshot(&self, id: &SnapshotId) -> Result<()> {
        self.model.delete_snapshot(id).await
    }
}

/// Something must come true.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let until = tokio::time::Instant::now() + Duration::from_secs(120);
    while !holds().await {
        assert!(tokio::time::Instant::now() < until, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Opens the sessions of a directory once those before have given it up.
pub(crate) async fn reopen(provider: &Cloud, config: &SessionsConfig) -> Sessions {
    let until = tokio::time::Instant::now() + Duration::from_secs(120);
    loop {
        match Sessions::open(Arc::new(provider.clone()), config.clone()).await {
            Err(e) if e.kind() == ErrorKind::Locked && tokio::time::Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            opened => return opened.unwrap(),
        }
    }
}

/// The next change to this status.
pub(crate) async fn until_status(watch: &mut Watch, status: Status) -> SessionInfo {
    let change = async {
        while let Some(info) = watch.next().await {
            if info.status == status {
                return info;
            }
        }
        panic!("the watch ended before {status}");
    };
    tokio::time::timeout(Duration::from_secs(120), change)
        .await
        .unwrap_or_else(|_| panic!("no session became {status}"))
}
