//! The trait by which a backend has a scheme.

use std::sync::Arc;

use async_trait::async_trait;
use sandbox_core::{Provider, Result};

use crate::settings::Settings;

/// Makes a provider from the settings of a URI; what a backend implements to have a scheme.
#[async_trait]
pub trait Connector: Send + Sync + 'static {
    /// The keys that a URI of this scheme may have. Others are refused before
    /// [`connect`](Connector::connect) is called.
    fn settings(&self) -> &[&str] {
        &[]
    }

    /// Whether a URI of this scheme has an address before its settings
    /// ([`Settings::address`]). Otherwise one is refused before [`connect`](Connector::connect) is
    /// called.
    fn takes_address(&self) -> bool {
        false
    }

    /// Makes the provider. Dropping the future must leave nothing behind.
    ///
    /// # Errors
    /// [`Settings::invalid`] for a value that can't be right; otherwise an error of the backend.
    async fn connect(&self, settings: Settings) -> Result<Arc<dyn Provider>>;
}
