//! Labels: who lists by the provider's own finds whatever a run has left, forks included.

use std::sync::Arc;

use sandbox_aca::{AcaSandboxProvider, StaticToken};
use sandbox_core::{
    ErrorKind, ForkOptions, Labels, Provider as _, SandboxSpec, SnapshotOptions, Source,
};
use sandbox_testkit::aca::{AcaEmulator, Options};

use super::{config, until};

async fn of_run(emulator: &AcaEmulator, run: &str) -> AcaSandboxProvider {
    let config = config(&emulator.endpoint()).label("run", run);
    let token = Arc::new(StaticToken::new(emulator.token()));
    AcaSandboxProvider::new(config.credential(token)).expect("a provider")
}

fn run(name: &str) -> Labels {
    Labels::from([("run".to_owned(), name.to_owned())])
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_a_run_made_is_found_by_its_label() {
    let started = AcaEmulator::start(Options::default()).await;
    let emulator = started.expect("an emulator");
    let (ours, theirs) = (
        of_run(&emulator, "ours").await,
        of_run(&emulator, "theirs").await,
    );
    let other = theirs.create(SandboxSpec::new()).await.expect("a sandbox");
    let spec = SandboxSpec::new().label("own", "1");
    let parent = ours.create(spec).await.expect("a sandbox");
    let child = parent.fork(Default::default()).await.expect("a fork");
    let labelled = ForkOptions::new().label("own", "2");
    let grandchild = child.fork(labelled).await.expect("a fork");
    let snapshot = child.snapshot(SnapshotOptions::new()).await;
    let snapshot = snapshot.expect("a snapshot").id;
    let spec = SandboxSpec::new().source(Source::Snapshot(snapshot.clone()));
    let restored = ours.create(spec).await.expect("a sandbox");
    // They are found, and show what they were given and no more.
    let found = ours.list(&run("ours")).await.expect("a list");
    let mut ids: Vec<_> = found.iter().map(|info| info.id.clone()).collect();
    let mut made = [&parent, &child, &grandchild, &restored].map(|made| made.info().id);
    ids.sort();
    made.sort();
    assert_eq!(ids, made);
    assert_eq!(
        parent.info().labels,
        Labels::from([("own".into(), "1".into())])
    );
    assert!(child.info().labels.is_empty());
    let shown = found.iter().find(|info| info.id == grandchild.info().id);
    assert_eq!(shown.expect("it is there").labels, grandchild.info().labels);
    let snapshots = ours.snapshots().await.expect("snapshots");
    let taken = snapshots.iter().find(|taken| taken.id == snapshot);
    assert_eq!(taken.expect("it is there").labels, run("ours"));
    // A cleanup by that label leaves what others have, and nothing else.
    drop((parent, child, grandchild, restored));
    for left in ours.list(&run("ours")).await.expect("a list") {
        ours.destroy(&left.id).await.expect("it goes");
    }
    ours.delete_snapshot(&snapshot).await.expect("it goes");
    until("only the other's is left", || emulator.counts() == (1, 0)).await;
    other.close().await.expect("it closes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_that_is_the_providers_own_is_refused() {
    let started = AcaEmulator::start(Options::default()).await;
    let emulator = started.expect("an emulator");
    let provider = of_run(&emulator, "ours").await;
    let spec = SandboxSpec::new().label("run", "mine");
    let error = provider.create(spec).await.expect_err("it is taken");
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    let sandbox = provider
        .create(SandboxSpec::new())
        .await
        .expect("a sandbox");
    let labelled = ForkOptions::new().label("run", "mine");
    let error = sandbox.fork(labelled).await.expect_err("it is taken");
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    assert_eq!(emulator.counts(), (1, 0));
}
