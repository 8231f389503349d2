//! The backends of this repository that need nothing but this machine, on equal terms: the same
//! cases as for the peers.

use std::sync::Arc;

use sandbox_core::{Capabilities, Network, Provider, Result, SandboxSpec, async_trait};
use sandbox_local::{
    LandlockConfig, LandlockProvider, LocalConfig, LocalProvider, PlainConfig, PlainProvider,
};
use sandbox_testkit::Fixture;

use crate::Contestant;

pub(crate) fn all() -> Vec<Contestant> {
    let version: fn() -> std::result::Result<String, String> =
        || Ok(env!("CARGO_PKG_VERSION").to_owned());
    vec![
        Contestant {
            name: "local",
            used_as: "`sandbox-local`, as it comes",
            version,
            fixture: || Arc::new(Local),
        },
        Contestant {
            name: "local-landlock",
            used_as: "`sandbox-local`'s `LandlockProvider`, as it comes: processes under Landlock and a \
                      filter of system calls, without namespaces",
            version,
            fixture: || Arc::new(Landlock),
        },
        Contestant {
            name: "plain processes",
            used_as: "`sandbox-local`'s plain mode: child processes in a temporary directory, which \
                      claims no isolation",
            version,
            fixture: || Arc::new(Plain),
        },
    ]
}

struct Local;

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

    fn threads(&self) -> Option<usize> {
        sandbox_testkit::kit::mostly_waiting()
    }

    fn is_of_this_host(&self) -> bool {
        true
    }

    fn leaves_out(&self, case: &str) -> Option<String> {
        let sources = [
            "isolation::a_root_directory_is_started_from",
            "isolation::an_image_is_started_from",
        ];
        let needs_one = sources.contains(&case);
        needs_one.then(|| "the scoreboard has no image and no root directory at hand".to_owned())
    }
}

struct Landlock;

#[async_trait]
impl Fixture for Landlock {
    fn name(&self) -> String {
        "local-landlock".into()
    }

    fn capabilities(&self) -> Capabilities {
        LandlockProvider::CAPABILITIES
    }

    async fn provider(&self) -> Result<Arc<dyn Provider>> {
        Ok(Arc::new(LandlockProvider::new(LandlockConfig::default())?))
    }

    fn threads(&self) -> Option<usize> {
        sandbox_testkit::kit::mostly_waiting()
    }

    fn is_of_this_host(&self) -> bool {
        true
    }
}

struct Plain;

#[async_trait]
impl Fixture for Plain {
    fn name(&self) -> String {
        "plain processes".into()
    }

    fn capabilities(&self) -> Capabilities {
        PlainProvider::new(PlainConfig::default()).map_or_else(
            |_| Capabilities::none("no provider"),
            |plain| plain.capabilities(),
        )
    }

    async fn provider(&self) -> Result<Arc<dyn Provider>> {
        Ok(Arc::new(PlainProvider::new(PlainConfig::default())?))
    }

    fn spec(&self) -> SandboxSpec {
        SandboxSpec::new().network(Network::Open)
    }

    fn threads(&self) -> Option<usize> {
        sandbox_testkit::kit::mostly_waiting()
    }

    fn is_of_this_host(&self) -> bool {
        true
    }
}
