//! Leaks: what the service may still create when its answer is lost or its caller gone is not left
//! behind.

use std::sync::Arc;
use std::time::Duration;

use sandbox_aca::{AcaSandboxProvider, StaticToken};
use sandbox_core::{
    ErrorKind, Labels, Provider as _, SandboxExt as _, SandboxSpec, SnapshotOptions,
};
use sandbox_testkit::aca::{AcaEmulator, Action, Fault, Options};

use super::{config, start, until};

#[tokio::test(flavor = "multi_thread")]
async fn what_appears_long_after_a_lost_answer_is_deleted() {
    let mut options = Options::default();
    options.hidden = Duration::from_secs(600);
    let (emulator, provider) = start(options).await;
    emulator.inject(Fault::new("PUT ", Action::StatusAfter(504)));
    let lost = provider
        .create(SandboxSpec::new())
        .await
        .expect_err("no answer");
    assert_eq!(lost.kind(), ErrorKind::Unavailable, "{lost:?}");
    assert_eq!(emulator.counts().0, 1, "the control: it was made");
    emulator.advance(Duration::from_secs(600));
    until("it is deleted", || emulator.counts().0 == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_or_a_fork_that_is_given_up_leaves_nothing() {
    for fork in [true, false] {
        let (emulator, provider) = start(Options::default()).await;
        let sandbox = provider
            .create(SandboxSpec::new())
            .await
            .expect("a sandbox");
        emulator.change(|options| options.snapshot = Duration::from_secs(60));
        let taking = Arc::clone(&sandbox);
        let taking = tokio::spawn(async move {
            match fork {
                true => drop(taking.fork(Default::default()).await),
                false => drop(taking.snapshot(SnapshotOptions::new()).await),
            }
        });
        until("the service takes it", || {
            emulator.requests("/snapshot") == 1
        })
        .await;
        taking.abort();
        let ended = taking.await.expect_err("it was given up");
        assert!(ended.is_cancelled());
        until("it is deleted", || {
            // Again and again: the service may begin after any of them.
            emulator.advance(Duration::from_secs(60));
            emulator.requests("DELETE /") == 1
        })
        .await;
        until("nothing is left", || emulator.counts() == (1, 0)).await;
        assert!(sandbox.sh("true").await.expect("it runs").success());
    }
}

/// A service that takes no labels with a restore, and whose answer to one is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_fork_without_a_mark_is_found_by_its_snapshot_or_deleted_later() {
    for hidden in [Duration::ZERO, Duration::from_secs(600)] {
        let (emulator, provider) = start(Options::default()).await;
        let sandbox = provider.create(SandboxSpec::new()).await;
        let sandbox = sandbox.expect("a sandbox");
        emulator.inject(Fault::new("PUT /", Action::Status(400, None)));
        emulator.inject(Fault::new("PUT /", Action::StatusAfter(504)));
        emulator.advance(hidden);
        emulator.change(|options| options.hidden = hidden);
        let forked = sandbox.fork(Default::default()).await;
        assert_eq!(forked.is_ok(), hidden.is_zero(), "{forked:?}");
        assert_eq!(emulator.counts().0, 2, "the control: it was made");
        let kept = forked.is_ok();
        emulator.advance(hidden);
        until("what was lost is deleted", || {
            emulator.counts() == (1 + usize::from(kept), 0)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_fails_or_is_given_up_is_deleted() {
    let mut options = Options::default();
    options.image_fails = true;
    let (_emulator, provider) = start(options).await;
    let sandbox = provider
        .create(SandboxSpec::new())
        .await
        .expect("a sandbox");
    let handle = provider.handle(&sandbox.info().id).expect("a handle");
    handle.commit(&Labels::new()).await.expect_err("it fails");
    let gone = async {
        while !provider.disk_images().await.expect("a list").is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let gone = tokio::time::timeout(Duration::from_secs(120), gone).await;
    gone.expect("no image is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_run_left_is_deleted_by_its_label() {
    let emulator = AcaEmulator::start(Options::default()).await;
    let emulator = emulator.expect("an emulator");
    let run = |name: &str| {
        let token = Arc::new(StaticToken::new(emulator.token()));
        let config = config(&emulator.endpoint()).label("run", name);
        AcaSandboxProvider::new(config.credential(token)).expect("a provider")
    };
    let (one, two) = (run("one"), run("two"));
    let first = one.create(SandboxSpec::new()).await.expect("a sandbox");
    first.fork(Default::default()).await.expect("a fork");
    first
        .snapshot(SnapshotOptions::new())
        .await
        .expect("a snapshot");
    let other = two.create(SandboxSpec::new()).await.expect("a sandbox");
    until("the fork's snapshot is deleted", || {
        emulator.counts() == (3, 1)
    })
    .await;
    let refused = two.reap(&Labels::new()).await.expect_err("the whole group");
    assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{refused:?}");
    let label = Labels::from([("run".to_owned(), "one".to_owned())]);
    let reaped = two.reap(&label).await.expect("it reaps");
    assert_eq!(
        (reaped.sandboxes, reaped.snapshots, reaped.images),
        (2, 1, 0)
    );
    assert_eq!(emulator.counts(), (1, 0));
    assert!(
        other
            .sh("true")
            .await
            .expect("the other run's is there")
            .success()
    );
}
