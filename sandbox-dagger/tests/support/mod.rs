//! A provider on an engine double of its own.

// Each test program uses a part of this.
#![allow(dead_code)]

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use sandbox_core::{Network, Provider as _, Sandbox, SandboxSpec};
use sandbox_dagger::{DaggerConfig, DaggerProvider};
use sandbox_testkit::dagger::{DaggerDouble, Quirks};

pub(crate) type Outcome = Result<(), Box<dyn StdError + Send + Sync>>;

pub(crate) struct Rig {
    pub(crate) double: DaggerDouble,
    pub(crate) provider: DaggerProvider,
    pub(crate) sandbox: Arc<dyn Sandbox>,
}

impl Rig {
    pub(crate) async fn new() -> Result<Self, Box<dyn StdError + Send + Sync>> {
        let double = DaggerDouble::start(Quirks::default()).await?;
        let config = DaggerConfig::default()
            .with_session(double.port(), double.token())
            .with_operation_timeout(Duration::from_secs(30));
        let provider = DaggerProvider::with_config(config);
        let sandbox = provider.create(spec()).await?;
        Ok(Self {
            double,
            provider,
            sandbox,
        })
    }
}

pub(crate) fn spec() -> SandboxSpec {
    SandboxSpec::new().with_network(Network::Open)
}
