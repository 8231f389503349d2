//! The local backend as a fixture: real isolation, to which a mutant adds a hole.

use std::sync::Arc;

use sandbox_core::{Capabilities, Provider, Result, async_trait};
use sandbox_local::{LocalConfig, LocalProvider};
use sandbox_testkit::Fixture;

/// The local backend with its default configuration.
pub(crate) struct Local;

#[async_trait]
impl Fixture for Local {
    fn name(&self) -> String {
        "local".into()
    }

    fn capabilities(&self) -> Capabilities {
        LocalProvider::CAPABILITIES
    }

    async fn provider(&self) -> Result<Arc<dyn Provider>> {
        Ok(Arc::new(LocalProvider::new(LocalConfig::default())?))
    }

    fn is_of_this_host(&self) -> bool {
        true
    }
}
