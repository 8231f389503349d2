//! Middleware for any sandbox and provider: tracing, retry, concurrency limit, timeout, capability
//! guard.
//!
//! A [`Layer`] wraps a sandbox in another, or a provider in another whose sandboxes come out
//! wrapped; what a wrapped sandbox forks or spawns comes out wrapped the same.
//!
//! # Order
//! In a [`Stack`] the layer that was added first is the outermost: it sees a call first and its
//! result last. From the outside in, the usual order is tracing, retry, concurrency limit, timeout,
//! capability guard, backend:
//!
//! - tracing outside: one span covers the attempts, the waiting and the result that the caller
//!   sees; put it inside of retry to see each attempt;
//! - retry outside of the limit: a call that waits for its next attempt holds no place;
//! - timeout inside of the limit: the time in the queue does not count;
//! - the guard innermost: what it refuses is never sent, whichever layer changed the command.
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

mod answer;
mod around;
mod call;
mod concurrency;
mod guard;
mod layered;
mod provider;
mod retry;
mod timeout;
mod tracing;

use std::fmt::Debug;
use std::sync::Arc;

pub use answer::Answer;
pub use around::{Around, Attempt, BoxFuture};
pub use call::{Call, Request, Target};
pub use concurrency::ConcurrencyLimit;
pub use guard::CapabilityGuard;
pub use retry::Retry;
pub use timeout::Timeout;
pub use tracing::Tracing;

use layered::Layered;
use provider::LayeredProvider;

use crate::{Provider, Sandbox};

/// Wraps a sandbox or a provider in another that does something more.
///
/// Most layers implement [`Around`] instead, which gives them this.
pub trait Layer: Debug + Send + Sync + 'static {
    /// The sandbox with this layer around it. Its forks must come out wrapped too.
    fn layer(&self, inner: Arc<dyn Sandbox>) -> Arc<dyn Sandbox>;

    /// The provider with this layer around its own calls and around every sandbox that it gives
    /// out.
    fn layer_provider(&self, inner: Arc<dyn Provider>) -> Arc<dyn Provider>;
}

impl<A: Around> Layer for A {
    fn layer(&self, inner: Arc<dyn Sandbox>) -> Arc<dyn Sandbox> {
        Arc::new(Layered::new(self.clone(), inner))
    }

    fn layer_provider(&self, inner: Arc<dyn Provider>) -> Arc<dyn Provider> {
        Arc::new(LayeredProvider::new(self.clone(), inner))
    }
}

/// Layers in order, the outermost first.
#[derive(Clone, Debug, Default)]
pub struct Stack {
    layers: Vec<Arc<dyn Layer>>,
}

impl Stack {
    /// An empty stack.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a layer inside those that are there already.
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

    fn layer_provider(&self, inner: Arc<dyn Provider>) -> Arc<dyn Provider> {
        self.layers
            .iter()
            .rev()
            .fold(inner, |inner, layer| layer.layer_provider(inner))
    }
}
