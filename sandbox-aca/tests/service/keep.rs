//! Keeping what is idle, where that was asked for: by touches that run nothing, revive nothing and
//! end with the handle.

use std::sync::Arc;
use std::time::Duration;

use sandbox_aca::{
    AcaOptions, AcaSandboxProvider, AcaSession, AcaSessionProvider, AcaState, Lifecycle,
    SessionKind, StaticToken,
};
use sandbox_core::{ErrorKind, Provider as _, Sandbox as _, SandboxExt as _, SandboxSpec};
use sandbox_testkit::aca::{AcaEmulator, Options};

use super::{config, pool, until};

/// Interval so short that a test need not wait for it.
const OFTEN: Duration = Duration::from_millis(20);
const KINDS: [SessionKind; 2] = [SessionKind::Python, SessionKind::Shell];
/// End of the path of a touch of a session.
const TOUCH: &str = "/files";

async fn emulator() -> AcaEmulator {
    let started = AcaEmulator::start(Options::default()).await;
    started.expect("an emulator")
}

async fn session(
    emulator: &AcaEmulator,
    kind: SessionKind,
    every: Option<Duration>,
) -> (AcaSessionProvider, Arc<AcaSession>) {
    let mut config = pool(&emulator.endpoint(), kind);
    config = config.keep_alive(every);
    let token = Arc::new(StaticToken::new(emulator.token()));
    let provider = AcaSessionProvider::new(config.credential(token)).expect("a provider");
    let session = provider.create_session(SandboxSpec::new()).await;
    (provider, session.expect("a session"))
}

/// Waits until the emulator has seen more such requests.
async fn more(emulator: &AcaEmulator, needle: &str) {
    let before = emulator.requests(needle);
    let seen = async {
        // Two: the first may have been under way already.
        while emulator.requests(needle) < before + 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let seen = tokio::time::timeout(Duration::from_secs(120), seen).await;
    seen.expect("it is touched");
}

/// Waits until there are no more requests.
async fn quiet(emulator: &AcaEmulator) {
    let quiet = async {
        loop {
            let before = emulator.requests("");
            tokio::time::sleep(OFTEN * 10).await;
            if emulator.requests("") == before {
                break;
            }
        }
    };
    let quiet = tokio::time::timeout(Duration::from_secs(120), quiet).await;
    quiet.expect("touching ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_outlives_its_cooldown_only_if_that_was_asked_for() {
    for kind in KINDS {
        let emulator = emulator().await;
        let (_, kept) = session(&emulator, kind, Some(OFTEN)).await;
        let (_, left) = session(&emulator, kind, None).await;
        kept.write("f", "kept").await.expect("a file");
        left.write("f", "left").await.expect("a file");
        let commands = emulator.executions("");
        // Many cooldowns, in steps that are shorter than one.
        for _ in 0..10 {
            more(&emulator, TOUCH).await;
            emulator.advance(Duration::from_secs(200));
        }
        assert_eq!(emulator.executions(""), commands, "a touch ran something");
        assert_eq!(kept.read("f").await.expect("it is there"), "kept");
        let error = left.read("f").await.expect_err("it has expired");
        assert_eq!(error.kind(), ErrorKind::Lost, "{error:?}");
        kept.close().await.expect("it closes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn touching_ends_when_the_sandbox_is_closed_or_dropped() {
    for kind in KINDS {
        let emulator = emulator().await;
        let (provider, closed) = session(&emulator, kind, Some(OFTEN)).await;
        more(&emulator, TOUCH).await;
        closed.close().await.expect("it closes");
        let last = emulator.requests("");
        tokio::time::sleep(OFTEN * 10).await;
        assert_eq!(emulator.requests(""), last, "touched after close");
        assert!(emulator.sessions().await.is_empty(), "brought back");

        let dropped = provider.create_session(SandboxSpec::new()).await;
        let dropped = dropped.expect("a session");
        more(&emulator, TOUCH).await;
        let id = dropped.info().id;
        drop(dropped);
        // A touch that was under way may still arrive.
        quiet(&emulator).await;
        // A handle that attaches keeps it alive again.
        let again = provider.attach(&id).await.expect("it is there");
        more(&emulator, TOUCH).await;
        again.close().await.expect("it closes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ended_all_the_same_is_lost_and_not_made_again() {
    for kind in KINDS {
        let emulator = emulator().await;
        let (_, session) = session(&emulator, kind, Some(OFTEN)).await;
        for identifier in emulator.sessions().await {
            assert!(emulator.end_session(&identifier).await);
        }
        // The next touch finds out, is the last, and ends what it may have brought to life.
        until("it is found out", || emulator.requests("DELETE") > 0).await;
        quiet(&emulator).await;
        assert!(emulator.sessions().await.is_empty(), "an empty one is left");
        let before = emulator.requests("");
        let error = session.sh("true").await.expect_err("it is gone");
        assert_eq!(error.kind(), ErrorKind::Lost, "{error:?}");
        assert_eq!(emulator.requests(""), before, "the service was asked");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_is_kept_from_suspension_and_never_resumed() {
    let emulator = emulator().await;
    let token = Arc::new(StaticToken::new(emulator.token()));
    let config = config(&emulator.endpoint()).keep_alive(OFTEN);
    let provider = AcaSandboxProvider::new(config.credential(token)).expect("a provider");
    let hour = Some(Duration::from_secs(3600));
    let life = Lifecycle::new(hour).suspend_after(Duration::from_secs(300));
    let options = AcaOptions::new().lifecycle(life);
    let made = provider.create_with(SandboxSpec::new(), options).await;
    let sandbox = made.expect("a sandbox");
    let handle = provider.handle(&sandbox.info().id).expect("a handle");
    let commands = emulator.executions("");
    for _ in 0..30 {
        more(&emulator, "/files/stat").await;
        emulator.advance(Duration::from_secs(200));
    }
    let state = handle.state().await.expect("a state").state;
    assert_eq!(state, AcaState::Running, "after 100 minutes without use");
    handle.suspend().await.expect("it is suspended");
    more(&emulator, "/files/stat").await;
    let state = handle.state().await.expect("a state").state;
    assert_eq!(state, AcaState::Stopped, "a touch resumed it");
    assert_eq!(emulator.executions(""), commands, "a touch ran something");
    sandbox.close().await.expect("it closes");
    let last = emulator.requests("");
    tokio::time::sleep(OFTEN * 10).await;
    assert_eq!(emulator.requests(""), last, "touched after close");
}

#[tokio::test]
async fn to_touch_without_end_is_refused() {
    let token = || Arc::new(StaticToken::new("t"));
    let sandboxes = config("http://127.0.0.1:1").keep_alive(Duration::ZERO);
    let sessions = pool("http://127.0.0.1:1", SessionKind::Shell).keep_alive(Duration::ZERO);
    let errors = [
        AcaSandboxProvider::new(sandboxes.credential(token())).map(drop),
        AcaSessionProvider::new(sessions.credential(token())).map(drop),
    ];
    for made in errors {
        let error = made.expect_err("zero");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    }
}
