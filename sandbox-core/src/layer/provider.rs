//! A provider with one layer around it and around every sandbox that it gives out.
//!
//! It must never give out a sandbox without the layer.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Around, Attempt, Call, Layer as _, Request};
use crate::{Capabilities, Labels, Provider, Result, Sandbox, SandboxId, SandboxInfo, SandboxSpec};

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

    async fn call<T: Send>(&self, request: Request<'_>, attempt: Attempt<'_, T>) -> Result<T> {
        let call = Call::on_provider(&*self.inner, request);
        self.around.around(call, attempt).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<A: Around> Provider for LayeredProvider<A> {
    fn backend(&self) -> &'static str {
        self.inner.backend()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn create(&self, spec: SandboxSpec) -> Result<Arc<dyn Sandbox>> {
        let sandbox = self
            .call(Request::Create(&spec), &|| self.inner.create(spec.clone()))
            .await?;
        Ok(self.around.layer(sandbox))
    }

    async fn attach(&self, id: &SandboxId) -> Result<Arc<dyn Sandbox>> {
        let sandbox = self
            .call(Request::Attach(id), &|| self.inner.attach(id))
            .await?;
        Ok(self.around.layer(sandbox))
    }

    async fn list(&self, labels: &Labels) -> Result<Vec<SandboxInfo>> {
        self.call(Request::List(labels), &|| self.inner.list(labels))
            .await
    }

    async fn destroy(&self, id: &SandboxId) -> Result<()> {
        self.call(Request::Destroy(id), &|| self.inner.destroy(id))
            .await
    }
}
