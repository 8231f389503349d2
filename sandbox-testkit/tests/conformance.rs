//! The kit against its own model: plain, and through the pointers that forward the traits.

use std::sync::Arc;

use async_trait::async_trait;
use sandbox_core::{
    Capabilities, Labels, Provider, Result, Sandbox, SandboxId, SandboxInfo, SandboxSpec, Snapshot,
    SnapshotId,
};
use sandbox_testkit::model::ModelFixture;
use sandbox_testkit::{Fixture, wrapped};

/// Hands out every sandbox behind pointers that forward to it.
#[derive(Debug)]
struct Pointers(Box<dyn Provider>);

fn behind_pointers(sandbox: Arc<dyn Sandbox>) -> Arc<dyn Sandbox> {
    let boxed: Box<dyn Sandbox> = Box::new(sandbox);
    Arc::new(boxed)
}

#[async_trait]
impl Provider for Pointers {
    fn backend(&self) -> &str {
        self.0.backend()
    }
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }
    async fn create(&self, spec: SandboxSpec) -> Result<Arc<dyn Sandbox>> {
        self.0.create(spec).await.map(behind_pointers)
    }
    async fn attach(&self, id: &SandboxId) -> Result<Arc<dyn Sandbox>> {
        self.0.attach(id).await.map(behind_pointers)
    }
    async fn list(&self, labels: &Labels) -> Result<Vec<SandboxInfo>> {
        self.0.list(labels).await
    }
    async fn destroy(&self, id: &SandboxId) -> Result<()> {
        self.0.destroy(id).await
    }
    async fn list_snapshots(&self, labels: &Labels) -> Result<Vec<Snapshot>> {
        self.0.list_snapshots(labels).await
    }
    async fn delete_snapshot(&self, id: &SnapshotId) -> Result<()> {
        self.0.delete_snapshot(id).await
    }
}

fn fixtures() -> Vec<Box<dyn Fixture>> {
    vec![
        Box::new(ModelFixture::new()),
        wrapped("model-pointers", ModelFixture::new(), |provider| {
            Arc::new(Pointers(Box::new(Arc::new(provider))))
        }),
    ]
}

sandbox_testkit::conformance_main!(fixtures());
