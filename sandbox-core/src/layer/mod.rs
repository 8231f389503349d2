//! Middleware for any sandbox: tracing, retry, concurrency limit, timeout, capability guard.
//!
//! A [`Layer`] wraps a sandbox in another; what the wrapped one forks comes out wrapped the same.
//! From the outside in, the usual order is tracing, retry, concurrency limit, timeout, capability
//! guard, backend.
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//! use sandbox_core::{Sandbox, layer::{ConcurrencyLimit, Layer, Retry, Stack, Timeout, Tracing}};
//!
//! fn wrap(sandbox: Arc<dyn Sandbox>) -> Arc<dyn Sandbox> {
//!     Stack::new()
//!         .with(Tracing::new())
//!         .with(Retry::new(3))
//!         .with(ConcurrencyLimit::new(8))
//!         .with(Timeout::new(Duration::from_secs(600)))
//!         .layer(sandbox)
//! }
//! ```
//!
//! Invariant: a layer never runs a command a second time unless the first is known not to have
//! started, and never turns an unbounded call into an unbounded queue.

mod around;
mod concurrency;
mod guard;
mod provider;
mod retry;
mod timeout;
mod tracing;

use std::fmt::Debug;
use std::sync::Arc;

pub use around::{Around, Attempt, BoxFuture, Call, Layered};
pub use concurrency::ConcurrencyLimit;
pub use guard::CapabilityGuard;
pub use provider::LayeredProvider;
pub use retry::Retry;
pub use timeout::Timeout;
pub use tracing::Tracing;

use crate::Sandbox;

/// Wraps a sandbox in another that does something more.
///
/// Most layers implement [`Around`] instead, which gives them this.
pub trait Layer: Debug + Send + Sync + 'static {
    /// The sandbox with this layer around it. Its forks must come out wrapped too.
    fn layer(&self, inner: Arc<dyn Sandbox>) -> Arc<dyn Sandbox>;
}

/// Layers in order, the outermost first.
#[derive(Clone, Debug, Default)]
pub struct Stack {
    layers: Vec<Arc<dyn Layer>>,
}

impl Stack {
    /// No layers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a layer inside those that there are.
    #[must_use]
    pub fn with(mut self, layer: impl Layer) -> Self {
        self.layers.push(Arc::new(layer));
        self
    }
}

impl Layer for Stack {
    fn layer(&self, inner: Arc<dyn Sandbox>) -> Arc<dyn Sandbox> {
        self.layers
            .iter()
            .rev()
            .fold(inner, |inner, layer| layer.layer(inner))
    }
}
