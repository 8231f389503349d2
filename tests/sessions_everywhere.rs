//! Sessions over every kind of provider: the mock, the local backend, and the doubles of Dagger and
//! of Azure. One scenario; what a backend can't do is what its capabilities say.
#![cfg(all(
    target_os = "linux",
    feature = "aca",
    feature = "dagger",
    feature = "local",
    feature = "sessions"
))]
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sandbox::aca::{
    AcaConfig, AcaSandboxProvider, AcaSessionConfig, AcaSessionProvider, SessionKind, StaticToken,
};
use sandbox::dagger::{DaggerConfig, DaggerProvider};
use sandbox::local::{LocalConfig, LocalProvider};
use sandbox::sessions::{
    Clock, ErrorKind, Filter, Limits, Pool, SessionOptions, Sessions, SessionsConfig,
    ShutdownOptions, Status, Wait, Why,
};
use sandbox::{Capability, Labels, Network, Provider, SandboxExt as _, SandboxSpec};
use sandbox_testkit::Scratch;
use sandbox_testkit::aca::{AcaEmulator, Options};
use sandbox_testkit::dagger::{DaggerDouble, Quirks};
use sandbox_testkit::model::ModelProvider;

const MINUTE: Duration = Duration::from_secs(60);

/// Waits for something that comes by itself.
async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let come = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let within = tokio::time::timeout(2 * MINUTE, come).await;
    assert!(within.is_ok(), "never: {what}");
}

async fn opened(provider: &Arc<dyn Provider>, config: &SessionsConfig) -> Sessions {
    let mut sessions = None;
    // The journal's lock goes with the last task of those before.
    eventually("the journal is free", async || {
        match Sessions::open(provider.clone(), config.clone()).await {
            Err(error) if error.kind() == ErrorKind::Locked => {}
            opened => sessions = Some(opened.unwrap()),
        }
        sessions.is_some()
    })
    .await;
    sessions.unwrap()
}

async fn goes_through_its_life(provider: Arc<dyn Provider>, spec: SandboxSpec, place: &Path) {
    let has = |capability| provider.capabilities().has(capability);
    let (clock, hand) = Clock::manual(SystemTime::now());
    let config = SessionsConfig::new()
        .journal(place.join("journal"))
        .clock(clock)
        .limits(Limits::new().total(3).per_tenant(2));
    let sessions = opened(&provider, &config).await;

    // One sandbox for all who ask for it; another specification is a conflict.
    let asked = || sessions.get_or_create("a", "work", spec.clone());
    let (one, two) = tokio::join!(asked(), asked());
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.id(), two.id());
    let other = spec.clone().env("OTHER", "1");
    let conflict = sessions.get_or_create("a", "work", other).await;
    assert_eq!(conflict.unwrap_err().kind(), ErrorKind::Conflict);
    let sandbox = one.sandbox();
    sandbox.write("f", "of a").await.unwrap();
    assert_eq!(
        sandbox.sh("cat f").await.unwrap().stdout.to_string_lossy(),
        "of a"
    );
    assert_eq!(one.status(), Status::Ready);

    // Another tenant's sandbox of the same key is another one.
    let elsewhere = sessions.get_or_create("b", "work", spec.clone());
    let elsewhere = elsewhere.await.unwrap();
    assert!(elsewhere.sandbox().read("f").await.is_err());
    elsewhere.close().await.unwrap();

    // A fork is a session of its own; then the tenant has as many as it may.
    let now_or_not = || SessionOptions::new().wait(Wait::Never);
    match one.fork("copy", now_or_not()).await {
        Ok(copy) => assert_eq!(copy.sandbox().read("f").await.unwrap(), "of a"),
        Err(error) => {
            assert!(!has(Capability::Fork), "{error}");
            let second = sessions.get_or_create("a", "copy", spec.clone());
            second.await.unwrap();
        }
    }
    let full = sessions.get_or_create_with("a", "third", spec.clone(), now_or_not());
    assert_eq!(full.await.unwrap_err().kind(), ErrorKind::Full);
    sessions.close("a", "copy").await.unwrap();

    // Suspended, it has no sandbox; asked for, it has its files again.
    if has(Capability::Snapshot) {
        one.suspend().await.unwrap();
        assert_eq!(sessions.stats().places, 0);
        let again = asked().await.unwrap();
        assert_eq!(again.sandbox().read("f").await.unwrap(), "of a");
    }

    // The process is lost: taken up where the backend keeps sandboxes, made anew elsewhere.
    // Handles are kept over the end where it is they that keep sandboxes.
    let held = sessions.get("a", "work").await.unwrap().sandbox().clone();
    drop((one, two, elsewhere, sessions));
    let sessions = opened(&provider, &config).await;
    let found = sessions.list(&Filter::new()).len();
    assert_eq!(found, usize::from(has(Capability::Attach)));
    let again = sessions.get_or_create("a", "work", spec.clone());
    let again = again.await.unwrap();
    let kept = again.sandbox().read("f").await;
    assert_eq!(kept.is_ok(), has(Capability::Attach), "{kept:?}");
    drop(held);

    // An idle one ends, and says why.
    let idle = SessionOptions::new().idle_timeout(MINUTE);
    let short = sessions.get_or_create_with("b", "short", spec.clone(), idle);
    let short = short.await.unwrap();
    hand.advance(2 * MINUTE);
    eventually("the idle one has ended", async || {
        short.status() == Status::Gone
    })
    .await;
    assert_eq!(short.ended().unwrap().why, Why::Idle);
    assert!(short.sandbox().sh("true").await.is_err());

    let report = sessions.shutdown(ShutdownOptions::new()).await.unwrap();
    assert!(report.left.is_empty());
    drop((again, short, sessions));

    // The pool has one ready, and another when that is taken.
    let config = SessionsConfig::new().pool(Pool::new(spec.clone(), 1));
    let pooled = opened(&provider, &config).await;
    eventually("filled", async || pooled.stats().pool_ready == 1).await;
    let taken = pooled.get_or_create("a", "work", spec).await.unwrap();
    assert!(taken.sandbox().sh("true").await.unwrap().success());
    eventually("filled again", async || pooled.stats().pool_ready == 1).await;
    pooled.shutdown(ShutdownOptions::new()).await.unwrap();
    if has(Capability::List) {
        eventually("nothing is left", async || {
            provider.list(&Labels::new()).await.unwrap().is_empty()
        })
        .await;
    }
}

#[tokio::test]
async fn over_the_mock() {
    let place = Scratch::new().unwrap();
    let model = Arc::new(ModelProvider::new());
    goes_through_its_life(model, SandboxSpec::new(), place.path()).await;
}

#[tokio::test]
async fn over_the_local_backend() {
    let place = Scratch::new().unwrap();
    let config = LocalConfig::default().state_dir(place.path().join("state"));
    let local = Arc::new(LocalProvider::new(config).unwrap());
    goes_through_its_life(local, SandboxSpec::new(), place.path()).await;
}

#[tokio::test]
async fn over_the_double_of_dagger() {
    let place = Scratch::new().unwrap();
    let double = DaggerDouble::start(Quirks::default()).await.unwrap();
    let config = DaggerConfig::default().session(double.port(), double.token());
    let dagger = Arc::new(DaggerProvider::new(config).unwrap());
    let spec = SandboxSpec::new().network(Network::Open);
    goes_through_its_life(dagger, spec, place.path()).await;
}

#[tokio::test]
async fn over_the_emulator_of_azure_sandboxes() {
    let place = Scratch::new().unwrap();
    let emulator = AcaEmulator::start(Options::default()).await.unwrap();
    let token = emulator.token_for("https://management.azuredevcompute.io", 86_400);
    let config = AcaConfig::new(emulator.endpoint(), "sub", "group", "kit")
        .credential(Arc::new(StaticToken::new(token)));
    let aca = Arc::new(AcaSandboxProvider::new(config).unwrap());
    goes_through_its_life(aca, SandboxSpec::new(), place.path()).await;
}

#[tokio::test]
async fn over_the_emulator_of_azure_sessions() {
    for (kind, pool) in [
        (SessionKind::Python, "python"),
        (SessionKind::Shell, "shell"),
    ] {
        let place = Scratch::new().unwrap();
        let emulator = AcaEmulator::start(Options::default()).await.unwrap();
        let endpoint = format!(
            "{}/subscriptions/sub/resourceGroups/group/sessionPools/{pool}",
            emulator.endpoint(),
        );
        let config = AcaSessionConfig::new(endpoint, kind)
            .credential(Arc::new(StaticToken::new(emulator.token())));
        let aca = Arc::new(AcaSessionProvider::new(config).unwrap());
        goes_through_its_life(aca, SandboxSpec::new(), place.path()).await;
    }
}
