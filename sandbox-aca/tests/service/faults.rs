//! Faults between client and service, and the promise that holds then: a command runs once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sandbox_aca::{AccessToken, Credential, StaticToken};
use sandbox_core::{
    ErrorKind, Execution, ForkOptions, Provider as _, Result, SandboxExt as _, SandboxSpec,
    async_trait,
};
use sandbox_testkit::aca::{AcaEmulator, Action, Fault, Options, Restore};

use super::{COUNTED, counted, provider, sandbox, start, until};

const EXEC: &str = "/executeShellCommand";

/// Runs the command through a fault; gives what came, and how often it ran.
async fn through(action: Action) -> (Result<sandbox_core::Output>, usize) {
    let (emulator, _, sandbox) = sandbox().await;
    emulator.inject(Fault::new(EXEC, action));
    let ran = sandbox.exec(counted()).await;
    let count = sandbox.read("count").await.map_or(0, |bytes| bytes.len());
    assert!(emulator.executions(COUNTED) <= 1, "sent and run twice");
    sandbox.close().await.expect("it closes");
    (ran, count)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_is_asked_for_and_the_command_runs_once() {
    for action in [
        Action::DropAfter,
        Action::StatusAfter(504),
        Action::StatusAfter(500),
    ] {
        let (ran, count) = through(action.clone()).await;
        let output = ran.unwrap_or_else(|error| panic!("{action:?}: {error:?}"));
        assert_eq!(output.stdout.bytes, "ran", "{action:?}");
        assert_eq!(count, 1, "{action:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_never_arrived_is_not_started_and_not_run_later() {
    for action in [
        Action::DropBefore,
        Action::Status(500, None),
        Action::Garbage,
    ] {
        let (ran, count) = through(action.clone()).await;
        let error = ran.expect_err("it did not run");
        assert_eq!(
            error.execution(),
            Some(Execution::NotStarted),
            "{action:?}: {error:?}"
        );
        assert!(error.is_retryable(), "{action:?}: {error:?}");
        assert_eq!(count, 0, "{action:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_for_haste_is_waited_for_as_asked() {
    let past = "Wed, 21 Oct 2015 07:28:00 GMT";
    for after in [None, Some("0"), Some("1"), Some(past), Some("soon")] {
        let (ran, count) = through(Action::Status(429, after.map(str::to_owned))).await;
        let output = ran.unwrap_or_else(|error| panic!("{after:?}: {error:?}"));
        assert_eq!(output.stdout.bytes, "ran", "{after:?}");
        assert_eq!(count, 1, "{after:?}");
    }
    let (ran, count) = through(Action::Status(429, Some("86400".into()))).await;
    let error = ran.expect_err("a day is too long");
    assert_eq!(error.kind(), ErrorKind::RateLimited, "{error:?}");
    assert_eq!(
        (error.execution(), count),
        (Some(Execution::NotStarted), 0),
        "{error:?}"
    );
}

/// Gives a token that has expired first, and then good ones.
#[derive(Debug)]
struct Fading {
    bad: String,
    good: String,
    asked: AtomicUsize,
}

#[async_trait]
impl Credential for Fading {
    async fn token(&self, _: &str) -> Result<AccessToken> {
        let token = match self.asked.fetch_add(1, Ordering::Relaxed) {
            0 => self.bad.as_str(),
            _ => self.good.as_str(),
        };
        Ok(AccessToken::new(token, None))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_is_replaced_once() {
    let emulator = AcaEmulator::start(Options::default())
        .await
        .expect("an emulator");
    let bad = emulator.token_for("https://dynamicsessions.io", -10);
    let fading = Arc::new(Fading {
        bad: bad.clone(),
        good: emulator.token(),
        asked: AtomicUsize::new(0),
    });
    let sandbox = provider(&emulator, fading.clone())
        .create(SandboxSpec::new())
        .await;
    sandbox
        .expect("a sandbox")
        .close()
        .await
        .expect("it closes");
    assert_eq!(fading.asked.load(Ordering::Relaxed), 2);
    let before = emulator.requests("PUT");
    let error = provider(&emulator, Arc::new(StaticToken::new(bad.clone())))
        .create(SandboxSpec::new())
        .await
        .expect_err("no good token");
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error:?}");
    assert_eq!(emulator.requests("PUT") - before, 2, "once and once again");
    let text = format!("{error} {error:?}");
    assert!(
        text.contains("az account get-access-token") && text.contains("dynamicsessions"),
        "{text}"
    );
    assert!(!text.contains(&bad), "the token is shown");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_role_is_named_with_the_remedy() {
    let mut options = Options::default();
    options.forbidden = true;
    let (_emulator, provider) = start(options).await;
    let error = provider
        .create(SandboxSpec::new())
        .await
        .expect_err("no role");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains("SandboxGroup Data Owner") && text.contains("az role assignment"),
        "{text}"
    );
    assert!(text.contains("request "), "no request id: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_whose_answer_is_lost_makes_one_sandbox() {
    for action in [Action::DropAfter, Action::StatusAfter(503)] {
        let (emulator, provider) = start(Options::default()).await;
        emulator.inject(Fault::new("PUT ", action));
        let sandbox = provider
            .create(SandboxSpec::new())
            .await
            .expect("it is found");
        assert_eq!(emulator.counts().0, 1, "sandboxes");
        sandbox.close().await.expect("it closes");
        assert_eq!(emulator.counts(), (0, 0), "what is left");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_leaves_no_snapshot_behind() {
    let (emulator, _, sandbox) = sandbox().await;
    let child = sandbox.fork(Default::default()).await.expect("a fork");
    until("no snapshot is left", || emulator.counts() == (2, 0)).await;
    child.close().await.expect("it closes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_takes_only_the_source_of_a_restore_is_given_no_more() {
    let mut options = Options::default();
    options.restore = Restore::Refuses;
    let (emulator, provider) = start(options).await;
    let sandbox = provider
        .create(SandboxSpec::new())
        .await
        .expect("a sandbox");
    sandbox.write("f", "kept").await.expect("it writes");
    let child = sandbox.fork(Default::default()).await.expect("a fork");
    assert_eq!(child.read("f").await.expect("a file"), "kept");
    let labelled = ForkOptions::new().label("try", "2");
    let refused = sandbox
        .fork(labelled)
        .await
        .expect_err("labels are refused");
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    assert!(refused.hint().is_some_and(|hint| hint.contains("labels")));
    assert_eq!(emulator.counts().0, 2, "sandboxes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_gives_up_early_does_not_end_a_command() {
    let (emulator, _, sandbox) = sandbox().await;
    // It goes on when the gateway has given up.
    let script = "touch begun; until [ -e go ]; do sleep 0.1; done; printf x >> count; printf ran";
    let meanwhile = async {
        while !sandbox.exists("begun").await.expect("it says") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        emulator.advance(Options::default().gateway);
        let asked = emulator.executions("");
        until("the command is asked for", || {
            emulator.executions("") > asked
        })
        .await;
        sandbox.write("go", "").await.expect("a file");
    };
    let (output, ()) = tokio::join!(sandbox.sh(script), meanwhile);
    assert_eq!(output.expect("it runs to its end").stdout.bytes, "ran");
    assert_eq!(sandbox.read("count").await.expect("a file").len(), 1);
    assert_eq!(emulator.executions("until [ -e go ]"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_in_pages_and_slow_creations_are_waited_for() {
    for relative in [false, true] {
        listed_in_pages(relative).await;
    }
}

async fn listed_in_pages(relative: bool) {
    let mut options = Options::default();
    options.envelope = true;
    options.relative_links = relative;
    options.page = Some(2);
    options.creating = Duration::from_millis(300);
    options.hidden = Duration::from_millis(100);
    let (_emulator, provider) = start(options).await;
    let mut sandboxes = Vec::new();
    for _ in 0..5 {
        sandboxes.push(
            provider
                .create(SandboxSpec::new())
                .await
                .expect("a sandbox"),
        );
    }
    let listed = provider.list(&Default::default()).await.expect("a list");
    assert_eq!(listed.len(), 5, "relative links: {relative}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_that_failed_can_be_called_again() {
    let (emulator, _, sandbox) = sandbox().await;
    emulator.inject(Fault::new("DELETE ", Action::Status(409, None)));
    let failed = sandbox.close().await.expect_err("the service refused");
    assert!(failed.hint().is_some(), "{failed:?}");
    assert_eq!(emulator.counts().0, 1, "the control: it is there");
    sandbox.close().await.expect("it closes");
    assert_eq!(emulator.counts().0, 0);
    sandbox.close().await.expect("once more is the same");
}
