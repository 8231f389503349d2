//! The kit tested on backends that run real programs: each planted fault is caught by the case that
//! is named for it, and without the fault the case passes or the backend does not claim what it
//! checks.
#![cfg(target_os = "linux")]
#![allow(clippy::expect_used)]

mod local;

use std::sync::Arc;

use local::Local;
use sandbox_core::{Capabilities, Capability, Network, Provider, Result, SandboxSpec, async_trait};
use sandbox_local::{PlainConfig, PlainProvider};
use sandbox_testkit::mutants::{Mutant, MutantFixture};
use sandbox_testkit::{Fixture, Outcome, run};

/// Ordinary processes that claim isolation when a mutant says so.
struct Plain;

#[async_trait]
impl Fixture for Plain {
    fn name(&self) -> String {
        "plain".into()
    }

    fn capabilities(&self) -> Capabilities {
        PlainProvider::new(PlainConfig::default())
            .expect("a provider")
            .capabilities()
            .with(Capability::Isolation)
    }

    async fn provider(&self) -> Result<Arc<dyn Provider>> {
        Ok(Arc::new(PlainProvider::new(PlainConfig::default())?))
    }

    fn spec(&self) -> SandboxSpec {
        SandboxSpec::new().network(Network::Open)
    }

    fn is_of_this_host(&self) -> bool {
        true
    }
}

fn base(mutant: Mutant) -> Box<dyn Fixture> {
    match mutant {
        Mutant::HostIpcInside
        | Mutant::HostShmInside
        | Mutant::LeaseHoldsReads
        | Mutant::PrivilegesClaimed => Box::new(Plain),
        _ => Box::new(Local),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_hole_is_found() {
    let mutants = Mutant::ALL.iter().filter(|mutant| mutant.needs_programs());
    let mut escaped = Vec::new();
    for mutant in mutants {
        let fixture = Arc::new(MutantFixture::of(*mutant, base(*mutant)));
        let report = run(fixture, |name| name == mutant.caught_by()).await;
        let case = report
            .cases
            .iter()
            .find(|case| case.name == mutant.caught_by());
        match case.map(|case| &case.outcome) {
            // Not because the hole could not be made.
            Some(Outcome::Failed(why)) if !why.contains("an unexpected error") => {}
            other => escaped.push(format!("{mutant:?}: {other:?}")),
        }
        let left = report
            .cases
            .iter()
            .find(|case| case.name == "host::no_process_is_left");
        assert_eq!(left.map(|case| &case.outcome), Some(&Outcome::Passed));
    }
    assert!(escaped.is_empty(), "{}", escaped.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_hole_nothing_is_found() {
    let caught = |name: &str| {
        Mutant::ALL
            .iter()
            .any(|mutant| mutant.needs_programs() && mutant.caught_by() == name)
    };
    let report = run(Arc::new(Local), |name| {
        name.starts_with("host::") || caught(name)
    })
    .await;
    assert_eq!(report.failed().collect::<Vec<_>>(), []);
    assert!(report.passed() >= 7, "{report:?}");
}
