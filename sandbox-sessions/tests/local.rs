//! Sessions over the local backend: real commands, and what a process leaves that ended.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sandbox_core::{Command, SandboxExt, SandboxSpec};
use sandbox_local::{LocalConfig, LocalProvider};
use sandbox_sessions::{
    Clock, Filter, OnIdle, Pool, Sessions, SessionsConfig, ShutdownOptions, Status, Why,
};
use sandbox_testkit::Scratch;

mod support;
use support::{eventually, until_status};

const MINUTE: Duration = Duration::from_secs(60);

struct Place(Scratch);

impl Place {
    fn new() -> Self {
        Self(Scratch::new().unwrap())
    }

    fn provider(&self) -> Arc<LocalProvider> {
        let config = LocalConfig::default().state_dir(self.0.path().join("state"));
        Arc::new(LocalProvider::new(config).unwrap())
    }

    fn journal(&self) -> SessionsConfig {
        SessionsConfig::new().journal(self.0.path().join("journal"))
    }
}

#[tokio::test]
async fn a_session_runs_commands_holds_its_idle_clock_and_expires() {
    let place = Place::new();
    let (clock, hand) = Clock::manual(SystemTime::now());
    let config = place.journal().clock(clock).idle_timeout(MINUTE);
    let sessions = Sessions::open(place.provider(), config).await.unwrap();
    let session = sessions
        .get_or_create("acme", "build", SandboxSpec::new())
        .await
        .unwrap();
    let mut watch = sessions.watch(Filter::new());
    session.sandbox().write("f", "one").await.unwrap();
    let process = session
        .sandbox()
        .spawn(Command::new("cat").stdin_piped())
        .await
        .unwrap();
    hand.advance(MINUTE * 5);
    sessions.sweep().await;
    assert_eq!(session.status(), Status::Working);
    let again = sessions
        .get_or_create("acme", "build", SandboxSpec::new())
        .await
        .unwrap();
    assert_eq!(again.sandbox().read("f").await.unwrap(), "one");
    drop(process);
    eventually("ready", async || session.status() != Status::Working).await;
    hand.advance(MINUTE);
    until_status(&mut watch, Status::Gone).await;
    eventually("closed", async || {
        session.sandbox().sh("true").await.is_err()
    })
    .await;
    let error = session.sandbox().sh("true").await.unwrap_err();
    assert!(
        error.to_string().contains("ask for the session again"),
        "{error}"
    );
    sessions.shutdown(ShutdownOptions::new()).await.unwrap();
}

#[tokio::test]
async fn a_session_whose_spec_is_lasting_is_taken_up_after_its_process() {
    let place = Place::new();
    let spec = || SandboxSpec::new().lasting(true);
    {
        let provider = place.provider();
        let sessions = Sessions::open(provider, place.journal()).await.unwrap();
        let session = sessions.get_or_create("acme", "1", spec()).await.unwrap();
        session.sandbox().write("f", "one").await.unwrap();
    }
    let mut opened = Err(None);
    eventually("the journal is given up", async || {
        opened = Sessions::open_with_report(place.provider(), place.journal())
            .await
            .map_err(Some);
        opened.is_ok()
    })
    .await;
    let (sessions, report) = opened.unwrap();
    assert!(report.lost.is_empty(), "{:?}", report.lost);
    assert_eq!(report.taken_up.len(), 1);
    let session = sessions.get_or_create("acme", "1", spec()).await.unwrap();
    assert_eq!(session.sandbox().read("f").await.unwrap(), "one");
    assert!(session.sandbox().info().restarted.is_some());
    sessions.shutdown(ShutdownOptions::new()).await.unwrap();
}

#[tokio::test]
async fn what_died_with_its_process_is_named_and_made_anew() {
    let place = Place::new();
    {
        let sessions = Sessions::open(place.provider(), place.journal())
            .await
            .unwrap();
        for key in ["1", "2"] {
            sessions
                .get_or_create("acme", key, SandboxSpec::new())
                .await
                .unwrap();
        }
    }
    let mut opened = Err(None);
    eventually("the journal is given up", async || {
        opened = Sessions::open_with_report(place.provider(), place.journal())
            .await
            .map_err(Some);
        opened.is_ok()
    })
    .await;
    let (sessions, report) = opened.unwrap();
    let lost: Vec<String> = report
        .lost
        .iter()
        .map(|(t, k)| format!("{t}/{k}"))
        .collect();
    assert_eq!(lost, ["acme/1", "acme/2"]);
    assert_eq!(sessions.stats().places, 0);
    let session = sessions
        .get_or_create("acme", "1", SandboxSpec::new())
        .await
        .unwrap();
    assert!(session.sandbox().sh("true").await.unwrap().success());
    sessions.shutdown(ShutdownOptions::new()).await.unwrap();
}

#[tokio::test]
async fn the_pool_is_handed_out_and_a_suspended_session_has_its_files_again() {
    let place = Place::new();
    let provider = place.provider();
    let snapshots = {
        use sandbox_core::Provider as _;
        provider
            .capabilities()
            .has(sandbox_core::Capability::Snapshot)
    };
    let mut config = place.journal().pool(Pool::new(SandboxSpec::new(), 1));
    if snapshots {
        config = config.on_idle(OnIdle::Suspend);
    }
    let sessions = Sessions::open(provider, config).await.unwrap();
    eventually("filled", async || sessions.stats().pool_ready == 1).await;
    let session = sessions
        .get_or_create("a", "1", SandboxSpec::new())
        .await
        .unwrap();
    session.sandbox().write("f", "kept").await.unwrap();
    if snapshots {
        session.suspend().await.unwrap();
        assert_eq!(session.status(), Status::Suspended);
        let again = sessions.get("a", "1").await.unwrap();
        assert_eq!(again.sandbox().read("f").await.unwrap(), "kept");
    } else {
        assert!(session.suspend().await.is_err());
        assert_eq!(session.sandbox().read("f").await.unwrap(), "kept");
    }
    let report = sessions.shutdown(ShutdownOptions::new()).await.unwrap();
    assert_eq!((report.closed, report.left.len()), (1, 0));
    assert_eq!(session.ended().unwrap().why, Why::ShutDown);
}
