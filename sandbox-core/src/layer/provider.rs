//! Layers around everything that a provider gives out.

use std::sync::Arc;

use async_trait::async_trait;

use super::Layer;
use crate::{Capabilities, Labels, Provider, Result, Sandbox, SandboxId, SandboxInfo, SandboxSpec};

/// A provider whose sandboxes come with a layer (usually a [`Stack`](super::Stack)) around them.
#[derive(Debug)]
pub struct LayeredProvider<P> {
    inner: P,
    layer: Arc<dyn Layer>,
}

impl<P: Provider> LayeredProvider<P> {
    /// Puts the layer around each sandbox of the provider.
    pub fn new(inner: P, layer: impl Layer) -> Self {
        Self {
            inner,
            layer: Arc::new(layer),
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<P: Provider> Provider for LayeredProvider<P> {
    fn backend(&self) -> &'static str {
        self.inner.backend()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn create(&self, spec: SandboxSpec) -> Result<Arc<dyn Sandbox>> {
        Ok(self.layer.layer(self.inner.create(spec).await?))
    }

    async fn attach(&self, id: &SandboxId) -> Result<Arc<dyn Sandbox>> {
        Ok(self.layer.layer(self.inner.attach(id).await?))
    }

    async fn list(&self, labels: &Labels) -> Result<Vec<SandboxInfo>> {
        self.inner.list(labels).await
    }

    async fn destroy(&self, id: &SandboxId) -> Result<()> {
        self.inner.destroy(id).await
    }
}
