//! A provider with one layer around it and around every sandbox that it gives out.
//!
//! It must never give out a sandbox without the layer.

use std::sync::Arc;

use async_trait::async_trait;

use super::layered::Layered;
use super::{Answer, Around, Attempt, Call, Request};
use crate::{
    Capabilities, Labels, Provider, Result, Sandbox, SandboxId, SandboxInfo, SandboxSpec, Snapshot,
    SnapshotId,
};

/// A provider with an [`Around`] layer.
#[derive(Debug)]
pub(super) struct LayeredProvider<A> {
    around: A,
    inner: Arc<dyn Provider>,
}

impl<A: Around> LayeredProvider<A> {
    pub(super) fn new(around: A, inner: Arc<dyn Provider>) -> Self {
        Self { around, inner }
    }

    async fn call<T: Answer>(&self, request: Request<'_>, attempt: Attempt<'_, T>) -> Result<T> {
        let call = Call::on_provider(&*self.inner, request);
        self.around.around(call, attempt).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<A: Around> Provider for LayeredProvider<A> {
    fn backend(&self) -> &str {
        self.inner.backend()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn create(&self, spec: SandboxSpec) -> Result<Arc<dyn Sandbox>> {
        let sandbox = self
            .call(Request::Create(&spec), &|| self.inner.create(spec.clone()))
            .await?;
        Ok(Arc::new(Layered::new(self.around.clone(), sandbox)))
    }

    async fn attach(&self, id: &SandboxId) -> Result<Arc<dyn Sandbox>> {
        let sandbox = self
            .call(Request::Attach(id), &|| self.inner.attach(id))
            .await?;
        Ok(Arc::new(Layered::new(self.around.clone(), sandbox)))
    }

    async fn list(&self, labels: &Labels) -> Result<Vec<SandboxInfo>> {
        self.call(Request::List(labels), &|| self.inner.list(labels))
            .await
    }

    async fn destroy(&self, id: &SandboxId) -> Result<()> {
        self.call(Request::Destroy(id), &|| self.inner.destroy(id))
            .await
    }

    async fn list_snapshots(&self, labels: &Labels) -> Result<Vec<Snapshot>> {
        self.call(Request::ListSnapshots(labels), &|| {
            self.inner.list_snapshots(labels)
        })
        .await
    }

    async fn delete_snapshot(&self, id: &SnapshotId) -> Result<()> {
        self.call(Request::DeleteSnapshot(id), &|| {
            self.inner.delete_snapshot(id)
        })
        .await
    }
}
