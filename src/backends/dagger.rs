//! `dagger:`, containers of a Dagger engine.
//!
//! It must never hand out a provider whose engine was not reached.

use std::sync::Arc;

use async_trait::async_trait;
use sandbox_core::{Provider, Result};
use sandbox_dagger::{DaggerConfig, DaggerProvider};

use crate::connector::Connector;
use crate::settings::Settings;

/// `dagger:`
pub(super) struct Dagger;

#[async_trait]
impl Connector for Dagger {
    fn settings(&self) -> &[&str] {
        &["cli", "image"]
    }

    async fn connect(&self, settings: Settings) -> Result<Arc<dyn Provider>> {
        let mut config = DaggerConfig::default();
        if let Some(cli) = settings.path("cli")? {
            config = config.cli(cli);
        }
        if let Some(image) = settings.value("image") {
            config = config.image(image);
        }
        let provider = DaggerProvider::new(config)?;
        provider.connect().await?;
        Ok(Arc::new(provider))
    }
}
