//! Sessions over the emulator: found again by another client, also by their mark alone.

use std::sync::Arc;

use sandbox_aca::StaticToken;
use sandbox_core::{Labels, Provider, SandboxExt as _, SandboxSpec};
use sandbox_sessions::{Filter, Sessions, SessionsConfig, ShutdownOptions, Status};
use sandbox_testkit::aca::Options;

use super::{provider, start};

#[tokio::test]
async fn sessions_are_taken_up_by_the_next_process_and_what_only_has_its_mark_is_destroyed() {
    let (emulator, first) = start(Options::default()).await;
    let place = tempfile::tempdir().expect("a directory");
    let config = SessionsConfig::new().journal(place.path());
    let first: Arc<dyn Provider> = Arc::new(first);
    let sessions = Sessions::open(first.clone(), config.clone()).await;
    let sessions = sessions.expect("sessions");
    let made = sessions
        .get_or_create("acme", "build", SandboxSpec::new())
        .await;
    let session = made.expect("a session");
    session.sandbox().write("f", "one").await.expect("a file");
    let output = session.sandbox().sh("exit 3").await.expect("an output");
    assert!(!output.success());
    assert_eq!(session.status(), Status::Error);

    // One more with the same owner's mark, as a process leaves that dies before it writes it down.
    let found = first.list(&Labels::new()).await.expect("a list");
    let mut marks = found[0].labels.clone();
    marks.insert(
        "sandbox-session".into(),
        "01k9zq4c2v8r5d3m7n6p0t1xye".into(),
    );
    let left = SandboxSpec::new();
    let left = marks
        .iter()
        .fold(left, |spec, (key, value)| spec.label(key, value));
    let left = first.create(left).await.expect("a sandbox").info().id;

    let keep = ShutdownOptions::new().keep(true);
    sessions.shutdown(keep).await.expect("an end");
    drop((session, sessions, first));
    let token = Arc::new(StaticToken::new(emulator.token()));
    let next: Arc<dyn Provider> = Arc::new(provider(&emulator, token));
    let opened = Sessions::open_with_report(next.clone(), config).await;
    let (sessions, opened) = opened.expect("sessions");
    assert_eq!(opened.taken_up.len(), 1, "{opened:?}");
    let session = sessions.get("acme", "build").await.expect("the session");
    assert_eq!(session.sandbox().read("f").await.expect("its file"), "one");
    sessions.sweep().await;
    let there = next.list(&Labels::new()).await.expect("a list");
    assert!(
        there.iter().all(|info| info.id != left),
        "the leftover is there"
    );
    assert_eq!(there.len(), sessions.list(&Filter::new()).len());
    sessions
        .shutdown(ShutdownOptions::new())
        .await
        .expect("an end");
    assert!(next.list(&Labels::new()).await.expect("a list").is_empty());
}
