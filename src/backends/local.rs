//! `local:`, `local-landlock:` and `local-plain:`: the embedded backend with isolation, with less of
//! it, and without any.
//!
//! It must never put one in the place of another.

use std::sync::Arc;

use async_trait::async_trait;
use sandbox_core::{Provider, Result};

use crate::connector::Connector;
use crate::settings::Settings;

/// `local:`
pub(super) struct Local;

#[async_trait]
impl Connector for Local {
    fn settings(&self) -> &[&str] {
        &["state_dir"]
    }

    #[cfg(target_os = "linux")]
    async fn connect(&self, settings: Settings) -> Result<Arc<dyn Provider>> {
        let mut config = sandbox_local::LocalConfig::default();
        if let Some(dir) = settings.path("state_dir")? {
            config = config.state_dir(dir);
        }
        Ok(Arc::new(sandbox_local::LocalProvider::new(config)?))
    }

    #[cfg(not(target_os = "linux"))]
    async fn connect(&self, settings: Settings) -> Result<Arc<dyn Provider>> {
        use sandbox_core::{Error, Operation};
        settings.path("state_dir")?;
        let why = "it isolates by means that only Linux has";
        Err(Error::unsupported(
            Operation::Connect,
            "the backend local:",
            why,
        ))
    }
}

/// `local-landlock:`
pub(super) struct Landlock;

#[async_trait]
impl Connector for Landlock {
    fn settings(&self) -> &[&str] {
        &["base_dir"]
    }

    #[cfg(target_os = "linux")]
    async fn connect(&self, settings: Settings) -> Result<Arc<dyn Provider>> {
        let mut config = sandbox_local::LandlockConfig::new();
        if let Some(dir) = settings.path("base_dir")? {
            config = config.base_dir(dir);
        }
        Ok(Arc::new(sandbox_local::LandlockProvider::new(config)?))
    }

    #[cfg(not(target_os = "linux"))]
    async fn connect(&self, settings: Settings) -> Result<Arc<dyn Provider>> {
        use sandbox_core::{Error, Operation};
        settings.path("base_dir")?;
        let why = "it isolates by means that only Linux has";
        Err(Error::unsupported(
            Operation::Connect,
            "the backend local-landlock:",
            why,
        ))
    }
}

/// `local-plain:`
pub(super) struct Plain;

#[async_trait]
impl Connector for Plain {
    fn settings(&self) -> &[&str] {
        &["base_dir"]
    }

    async fn connect(&self, settings: Settings) -> Result<Arc<dyn Provider>> {
        let mut config = sandbox_local::PlainConfig::new();
        if let Some(dir) = settings.path("base_dir")? {
            config = config.base_dir(dir);
        }
        Ok(Arc::new(sandbox_local::PlainProvider::new(config)?))
    }
}
