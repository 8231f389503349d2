//! Dynamic sessions when something goes wrong, and what they can beyond the trait: a command runs
//! once, a loss is a loss, an identifier is never shown.
#![cfg(target_os = "linux")]
// Helpers of tests are not tests to clippy.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use sandbox_aca::{
    AcaSession, AcaSessionConfig, AcaSessionProvider, CodeOptions, CodeStatus, SessionKind,
    StaticToken,
};
use sandbox_core::{
    Command, ErrorKind, Execution, Provider as _, Result, Sandbox as _, SandboxExt as _,
    SandboxSpec,
};
use sandbox_testkit::aca::{AcaEmulator, Action, Fault, FullAs, Options, PoolKind, SessionPool};

const KINDS: [SessionKind; 2] = [SessionKind::Python, SessionKind::Shell];
const EXECUTE: &str = "/executions";

fn config(emulator: &AcaEmulator, kind: SessionKind) -> AcaSessionConfig {
    let pool = match kind {
        SessionKind::Shell => "shell",
        _ => "python",
    };
    let endpoint = emulator.endpoint();
    let path = format!("{endpoint}/subscriptions/s/resourceGroups/g/sessionPools/{pool}");
    AcaSessionConfig::new(path, kind)
}

fn provider(emulator: &AcaEmulator, config: AcaSessionConfig) -> AcaSessionProvider {
    let credential = Arc::new(StaticToken::new(emulator.token()));
    AcaSessionProvider::new(config.credential(credential)).expect("a provider")
}

async fn begin(kind: SessionKind) -> (AcaEmulator, Arc<AcaSession>) {
    let emulator = AcaEmulator::start(Options::default()).await;
    let emulator = emulator.expect("an emulator");
    let provider = provider(&emulator, config(&emulator, kind));
    let session = provider.create_session(SandboxSpec::new()).await;
    (emulator, session.expect("a session"))
}

/// Runs a command through a fault; gives what came, and how often it ran.
async fn through(kind: SessionKind, on: &str, action: Action) -> (Result<()>, usize) {
    let (emulator, session) = begin(kind).await;
    emulator.inject(Fault::new(on, action));
    // Its input is uploaded and its output fetched, so that each request of ours is met.
    let script = "printf x >> count; cat; head -c 600000 /dev/zero";
    let command = Command::shell(script)
        .stdin(vec![b'i'; 40_000])
        .timeout(Duration::from_secs(120));
    let ran = session.exec(command).await.map(|output| {
        assert_eq!(output.stdout.bytes.len(), 640_000);
    });
    let count = session.read("count").await.map_or(0, |bytes| bytes.len());
    assert!(count <= 1, "run {count} times");
    session.close().await.expect("it closes");
    (ran, count)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_is_asked_for_and_the_command_runs_once() {
    // Each takes some waiting: those of one request at once.
    let at = async |on: &'static str| {
        for kind in KINDS {
            for action in [
                Action::DropAfter,
                Action::StatusAfter(500),
                Action::StatusAfter(504),
            ] {
                let (ran, count) = through(kind, on, action.clone()).await;
                ran.unwrap_or_else(|error| panic!("{kind:?} {on} {action:?}: {error:?}"));
                assert_eq!(count, 1, "{kind:?} {on} {action:?}");
            }
        }
    };
    let requests = [
        EXECUTE,
        "POST /subscriptions/s/resourceGroups/g/sessionPools/",
        "/content",
    ];
    join_all(requests.map(at)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_never_arrived_is_not_started_and_not_run_later() {
    for kind in KINDS {
        for action in [
            Action::DropBefore,
            Action::Status(500, None),
            Action::Garbage,
        ] {
            let (ran, count) = through(kind, EXECUTE, action.clone()).await;
            let error = ran.expect_err("it did not run");
            assert_eq!(
                error.execution(),
                Some(Execution::NotStarted),
                "{action:?}: {error:?}"
            );
            assert!(error.is_retryable(), "{action:?}: {error:?}");
            assert_eq!(count, 0, "{kind:?} {action:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_for_haste_is_waited_for_as_asked() {
    for after in [Some("0"), Some("Wed, 21 Oct 2015 07:28:00 GMT"), None] {
        let action = Action::Status(429, after.map(str::to_owned));
        let (ran, count) = through(SessionKind::Shell, EXECUTE, action).await;
        ran.unwrap_or_else(|error| panic!("{after:?}: {error:?}"));
        assert_eq!(count, 1, "{after:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_answer_is_lost_is_not_written_twice() {
    for kind in KINDS {
        for action in [
            Action::DropAfter,
            Action::StatusAfter(500),
            Action::DropBefore,
        ] {
            let (emulator, session) = begin(kind).await;
            session.write("a", "old").await.expect("it is written");
            emulator.inject(Fault::new(EXECUTE, action.clone()));
            let error = session.write("a", "new").await.expect_err("nobody knows");
            assert!(error.is_retryable(), "{action:?}: {error:?}");
            let text = session.read_to_string("a").await.expect("it is whole");
            assert!(
                ["old", "new"].contains(&text.as_str()),
                "{action:?}: {text}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_expired_is_lost_and_no_empty_one_takes_its_place() {
    for kind in KINDS {
        let (emulator, session) = begin(kind).await;
        session.write("a", "text").await.expect("it is written");
        emulator.advance(Duration::from_secs(301));
        let error = session.list(".").await.expect_err("it has expired");
        assert_eq!(error.kind(), ErrorKind::Lost, "{error:?}");
        let error = session.sh("touch b").await.expect_err("it has expired");
        assert_eq!(error.kind(), ErrorKind::Lost, "{error:?}");
        // What the service made to answer is deleted behind us.
        let gone = async {
            while !emulator.sessions().await.is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let gone = tokio::time::timeout(Duration::from_secs(120), gone).await;
        gone.expect("it is deleted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_pool_is_told_in_every_form() {
    let form = async |full_as| {
        let mut options = Options::default();
        options.full_as = full_as;
        let mut pool = SessionPool::new("shell", PoolKind::Shell);
        pool.max_sessions = 1;
        options.pools = vec![pool];
        let emulator = AcaEmulator::start(options).await.expect("an emulator");
        let provider = provider(&emulator, config(&emulator, SessionKind::Shell));
        let first = provider
            .create(SandboxSpec::new())
            .await
            .expect("the first");
        let error = provider.create(SandboxSpec::new()).await;
        let error = error.expect_err("the pool is full");
        assert_eq!(
            error.kind(),
            ErrorKind::RateLimited,
            "{full_as:?}: {error:?}"
        );
        assert!(error.to_string().contains("max-sessions"), "{error}");
        first.close().await.expect("it closes");
        let again = provider.create(SandboxSpec::new()).await;
        again
            .expect("there is room")
            .close()
            .await
            .expect("it closes");
    };
    // At once: each waits to be refused.
    let forms = [FullAs::TooManyRequests, FullAs::NotFound, FullAs::Bare].map(form);
    join_all(forms).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_code_keeps_the_state_of_its_kernel() {
    let (_emulator, session) = begin(SessionKind::Python).await;
    let code = CodeOptions::new();
    let made = session
        .run_code("import os\nx = 20\nprint('made')", code)
        .await;
    let made = made.expect("it runs");
    assert_eq!((made.stdout.as_str(), made.result), ("made\n", None));
    let used = session.run_code("x + 22", code).await.expect("it runs");
    assert_eq!(used.result.as_deref(), Some("42"));
    let raised = session.run_code("1 / 0", code).await.expect("it runs");
    assert_eq!(raised.status, CodeStatus::Failed);
    assert!(
        raised.stderr.contains("ZeroDivisionError"),
        "{}",
        raised.stderr
    );
    let second = CodeOptions::new().timeout(Duration::from_secs(1));
    let late = session.run_code("while True: pass", second).await;
    assert_eq!(late.expect("it is interrupted").status, CodeStatus::Failed);
    // Commands and code see the same files, and neither touches the other's names.
    session.sh("printf 7 > /mnt/data/n").await.expect("it runs");
    let read = session.run_code("int(open('n').read()) * x", code).await;
    assert_eq!(read.expect("it runs").result.as_deref(), Some("140"));
    let names = session.run_code("[n for n in dir() if n in ('args', 'a', 'say')]", code);
    assert_eq!(names.await.expect("it runs").result.as_deref(), Some("[]"));
    let (_emulator, shell) = begin(SessionKind::Shell).await;
    let error = shell.run_code("1", code).await.expect_err("no kernel");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_shape_of_the_interface_carries_everything_too() {
    let emulator = AcaEmulator::start(Options::default()).await;
    let emulator = emulator.expect("an emulator");
    let config = config(&emulator, SessionKind::Python).api_version("2024-02-02-preview");
    let provider = provider(&emulator, config);
    let session = provider.create_session(SandboxSpec::new()).await;
    let session = session.expect("a session");
    session
        .write("big", vec![b'b'; 300_000])
        .await
        .expect("it is written");
    let output = session
        .sh("cat big; printf err >&2; exit 3")
        .await
        .expect("it runs");
    assert_eq!(output.stdout.bytes.len(), 300_000);
    assert_eq!(
        (output.status.code(), &output.stderr.bytes[..]),
        (Some(3), &b"err"[..])
    );
    // Answers come by file here; one that is refused is no command that did not start.
    let refused = Action::Status(400, None);
    emulator.inject(Fault::new("/files/content", refused));
    let output = session.sh("printf x >> count; head -c 9000 big").await;
    assert_eq!(output.expect("it ran").stdout.bytes.len(), 9000);
    assert_eq!(session.read("count").await.expect("it is there"), "x");
    let child = session.fork(Default::default()).await.expect("a fork");
    assert_eq!(child.read("big").await.expect("it is there").len(), 300_000);
    let code = session.run_code("6 * 7", CodeOptions::new()).await;
    assert_eq!(code.expect("it runs").result.as_deref(), Some("42"));
    child.close().await.expect("it closes");
    session.close().await.expect("it closes");
    assert!(emulator.sessions().await.is_empty());
    assert_eq!(emulator.requests(EXECUTE), 0, "a route of the new shape");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identifier_is_never_shown() {
    let (emulator, session) = begin(SessionKind::Shell).await;
    let identifiers = emulator.sessions().await;
    let identifier = identifiers.first().expect("a session");
    emulator.inject(Fault::new(EXECUTE, Action::Status(400, None)));
    let error = session.sh("true").await.expect_err("a fault");
    let shown = format!("{session:?} {:?} {error:?} {error}", session.info());
    assert!(!shown.contains(identifier.as_str()), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_programs_session_is_not_attached_to_and_stays() {
    for kind in KINDS {
        let (emulator, ours) = begin(kind).await;
        let pool = config(&emulator, kind).endpoint;
        let body = match kind {
            SessionKind::Shell => r#"{"shellCommand": "touch /mnt/data/theirs"}"#,
            _ => r#"{"code": "open('/mnt/data/theirs', 'w')", "timeoutInSeconds": 60}"#,
        };
        let client = reqwest::Client::builder().no_proxy().build();
        let version = config(&emulator, kind).api_version;
        let url = format!("{pool}/executions?api-version={version}&identifier=theirs");
        let request = client.expect("a client").post(url);
        let request = request.bearer_auth(emulator.token()).body(body);
        let answer = request.send().await.expect("an answer");
        assert!(answer.status().is_success(), "{answer:?}");
        let another = provider(&emulator, config(&emulator, kind));
        let theirs = AcaSessionProvider::id_of(&"theirs".into());
        let refused = another.attach(&theirs).await.expect_err("it is not ours");
        assert_eq!(refused.kind(), ErrorKind::NotFound, "{refused:?}");
        let there = emulator.sessions().await;
        assert!(there.contains(&"theirs".to_owned()), "{there:?}");
        // The control: ours is found by another provider, and used.
        let found = another.attach(&ours.info().id).await.expect("ours");
        assert!(found.sh("true").await.expect("it runs").success());
        ours.close().await.expect("it closes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_execution_that_is_answered_before_its_end_is_asked_after() {
    let (emulator, session) = begin(SessionKind::Python).await;
    emulator.change(|options| options.answers_running = true);
    let output = session.sh("printf x >> count; sleep 0.5; echo ran").await;
    assert_eq!(output.expect("it runs").stdout.bytes, "ran\n");
    let answer = session.run_code("6 * 7", CodeOptions::new()).await;
    assert_eq!(answer.expect("it runs").result.as_deref(), Some("42"));
    assert_eq!(session.read("count").await.expect("a file"), "x");
    session.close().await.expect("it closes");
}
