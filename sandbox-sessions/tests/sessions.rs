//! Tests of what sessions promise, on the model.
#![allow(clippy::unwrap_used)]

mod support;

use std::future::Future as _;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use sandbox_core::layer::{Answer, Around, Attempt, Call, Layer as _, Request};
use sandbox_core::{
    Capability, Command, Error as CoreError, ErrorKind as CoreErrorKind, Execution,
    OpenReadOptions, OpenWriteOptions, Operation, Provider, SandboxExt, SandboxSpec,
};
use sandbox_sessions::{
    Clock, ClockHand, ErrorKind, Filter, Limits, OnIdle, Pool, Scope, Session, SessionOptions,
    Sessions, SessionsConfig, ShutdownOptions, Status, Tenant, Wait, Why,
};
use sandbox_testkit::model::{Fault, MockOutcome, ModelProvider};
use support::{Cloud, eventually, reopen, until_status};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Notify;

const MINUTE: Duration = Duration::from_secs(60);

fn spec() -> SandboxSpec {
    SandboxSpec::new()
}

async fn open(model: &ModelProvider, config: SessionsConfig) -> Sessions {
    Sessions::open(Arc::new(model.clone()), config)
        .await
        .unwrap()
}

fn manual() -> (Clock, ClockHand) {
    Clock::manual(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000))
}

#[test]
fn outside_of_a_runtime_opening_fails_and_does_not_panic() {
    let journal = tempfile::tempdir().unwrap();
    let config = SessionsConfig::new().journal(journal.path());
    for config in [SessionsConfig::new(), config] {
        let model: Arc<dyn Provider> = Arc::new(ModelProvider::new());
        let opening = std::pin::pin!(Sessions::open(model, config));
        let polled = opening.poll(&mut Context::from_waker(Waker::noop()));
        let kind = polled.map(|opened| opened.err().map(|error| error.kind()));
        assert_eq!(kind, Poll::Ready(Some(ErrorKind::InvalidInput)));
    }
}

#[tokio::test]
async fn callers_at_the_same_time_get_one_sandbox() {
    let model = ModelProvider::new();
    let sessions = open(&model, SessionsConfig::new()).await;
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let sessions = sessions.clone();
            tokio::spawn(async move { sessions.get_or_create("acme", "k", spec()).await.unwrap() })
        })
        .collect();
    let mut ids = Vec::new();
    let mut new = 0;
    for task in tasks {
        let session = task.await.unwrap();
        new += usize::from(session.is_new());
        ids.push(session.sandbox().info().id);
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
    assert_eq!(new, 1);
    assert_eq!(model.count(Operation::Create), 1);
    let other = sessions.get_or_create("other", "k", spec()).await.unwrap();
    assert_ne!(other.sandbox().info().id, ids[0]);
}

#[tokio::test]
async fn another_specification_is_a_conflict_and_a_renewed_secret_is_not() {
    let sessions = open(&ModelProvider::new(), SessionsConfig::new()).await;
    let with = |token: &str| spec().secret("TOKEN", token);
    let session = sessions
        .get_or_create("acme", "k", with("a"))
        .await
        .unwrap();
    let again = sessions
        .get_or_create("acme", "k", with("b"))
        .await
        .unwrap();
    assert_eq!(again.id(), session.id());
    let error = sessions
        .get_or_create("acme", "k", with("a").workdir("/other"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().starts_with("session acme/k: "), "{error}");
    session.close().await.unwrap();
    sessions
        .get_or_create("acme", "k", with("a").workdir("/other"))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_name_that_could_be_more_than_a_name_is_refused_before_anything_is_done() {
    let model = ModelProvider::new();
    let sessions = open(&model, SessionsConfig::new()).await;
    for (tenant, key) in [
        ("../x", "k"),
        ("a", "b;c"),
        ("", "k"),
        ("a", "-x"),
        ("a/b", "k"),
    ] {
        let error = sessions
            .get_or_create(tenant, key, spec())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    assert_eq!(model.count(Operation::Create), 0);
}

#[tokio::test]
async fn a_job_is_work_that_holds_the_idle_clock_until_it_ends_also_after_a_restart() {
    let model = ModelProvider::builder()
        .on_program("server", [MockOutcome::hang(), MockOutcome::hang()])
        .build();
    let (cloud, (clock, hand)) = (Cloud::new(model), manual());
    let place = tempfile::tempdir().unwrap();
    let config = SessionsConfig::new()
        .journal(place.path())
        .clock(clock)
        .idle_timeout(MINUTE);
    let sessions = reopen(&cloud, &config).await;
    let session = sessions.get_or_create("acme", "k", spec()).await.unwrap();
    let start = async || {
        let sandbox = session.sandbox();
        sandbox.start("web", Command::new("server")).await.unwrap()
    };
    let job = start().await;
    // The same job once more.
    start().await;
    assert_eq!(session.status(), Status::Working);
    assert_eq!(sessions.stats().jobs, 1);
    hand.advance(MINUTE * 5);
    sessions.sweep().await;
    assert_eq!(session.status(), Status::Working);

    let keep = ShutdownOptions::new().keep(true);
    sessions.shutdown(keep).await.unwrap();
    drop((session, sessions));
    let sessions = reopen(&cloud, &config).await;
    let session = sessions.get("acme", "k").await.unwrap();
    eventually("the job is found again", async || {
        session.status() == Status::Working
    })
    .await;
    assert_eq!(sessions.stats().jobs, 1);
    job.stop().await.unwrap();
    eventually("it has ended", async || session.status() == Status::Error).await;
    assert_eq!(sessions.stats().jobs, 0);
    hand.advance(MINUTE);
    eventually("it expires", async || session.status() == Status::Gone).await;
}

#[tokio::test]
async fn a_job_holds_a_session_that_no_call_has_asked_for_since_a_restart() {
    let model = ModelProvider::builder()
        .on_program("server", [MockOutcome::hang()])
        .build();
    let (cloud, (clock, hand)) = (Cloud::new(model), manual());
    let place = tempfile::tempdir().unwrap();
    let config = SessionsConfig::new()
        .journal(place.path())
        .clock(clock)
        .idle_timeout(MINUTE);
    let sessions = reopen(&cloud, &config).await;
    let session = sessions.get_or_create("acme", "k", spec()).await.unwrap();
    let started = session.sandbox().start("web", Command::new("server"));
    let job = started.await.unwrap();
    sessions
        .get_or_create("acme", "none", spec())
        .await
        .unwrap();
    let keep = ShutdownOptions::new().keep(true);
    sessions.shutdown(keep).await.unwrap();
    drop((session, sessions));

    let sessions = reopen(&cloud, &config).await;
    assert_eq!(sessions.list(&Filter::new()).len(), 2);
    hand.advance(MINUTE * 2);
    eventually("the one without a job expires", async || {
        sessions.list(&Filter::new()).len() < 2
    })
    .await;
    eventually("the job is found", async || {
        let left = sessions.list(&Filter::new());
        let info = left.first().unwrap();
        assert_eq!(info.key.as_str(), "k");
        info.status == Status::Working
    })
    .await;
    job.stop().await.unwrap();
    hand.advance(MINUTE * 2);
    eventually("it expires", async || {
        hand.advance(MINUTE);
        sessions.list(&Filter::new()).is_empty()
    })
    .await;
    eventually("its sandbox is gone", async || {
        cloud.there().await.is_empty()
    })
    .await;
}

#[tokio::test]
async fn the_status_follows_the_commands_and_what_is_reported() {
    let model = ModelProvider::builder()
        .on_program("agent", [MockOutcome::hang(), MockOutcome::exit(1)])
        .build();
    let sessions = open(&model, SessionsConfig::new()).await;
    let session = sessions.get_or_create("acme", "k", spec()).await.unwrap();
    let mut watch = sessions.watch(Filter::new());
    assert_eq!(session.status(), Status::Ready);
    let process = session
        .sandbox()
        .spawn(Command::new("agent"))
        .await
        .unwrap();
    assert_eq!(session.status(), Status::Working);
    session.report(Status::Thinking).unwrap();
    assert_eq!(session.status(), Status::Thinking);
    session.report(Status::Waiting).unwrap();
    assert_eq!(session.status(), Status::Waiting);
    session.report(None).unwrap();
    assert_eq!(session.status(), Status::Working);
    process.kill().await.unwrap();
    assert_eq!(session.status(), Status::Error);
    session.sandbox().sh("true").await.unwrap();
    assert_eq!(session.status(), Status::Ready);
    session.sandbox().exec(Command::new("agent")).await.unwrap();
    assert_eq!(session.status(), Status::Error);
    session.close().await.unwrap();
    assert_eq!(session.status(), Status::Gone);
    let mut seen = Vec::new();
    loop {
        let info = watch.next().await.unwrap();
        seen.push(info.status);
        if info.status == Status::Gone {
            break;
        }
    }
    let expected = [
        Status::Ready,
        Status::Working,
        Status::Thinking,
        Status::Waiting,
        Status::Working,
        Status::Error,
        Status::Working,
        Status::Ready,
        Status::Working,
        Status::Error,
        Status::Gone,
    ];
    assert_eq!(seen, expected);
    let error = session.report(Status::Ready).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn a_session_that_is_not_used_expires_and_its_sandbox_says_why() {
    let (clock, hand) = manual();
    let model = ModelProvider::new();
    let config = SessionsConfig::new().clock(clock).idle_timeout(MINUTE);
    let sessions = open(&model, config).await;
    let session = sessions.get_or_create("acme", "k", spec()).await.unwrap();
    let mut watch = sessions.watch(Filter::new());
    hand.advance(Duration::from_secs(50));
    session.sandbox().write("f", "x").await.unwrap();
    hand.advance(Duration::from_secs(50));
    // Looks are no use.
    let _ = (
        session.info(),
        session.status(),
        sessions.list(&Filter::new()),
    );
    session.ping().await.unwrap();
    session.sandbox().isolation().await.ok();
    assert_eq!(session.ended(), None);
    hand.advance(Duration::from_secs(10));
    let gone = until_status(&mut watch, Status::Gone).await;
    assert_eq!(gone.expires.unwrap().why, Why::Idle);
    assert_eq!(session.ended().unwrap().why, Why::Idle);
    eventually("closed", async || {
        session.sandbox().read("f").await.is_err()
    })
    .await;
    let error = session.sandbox().read("f").await.unwrap_err();
    assert_eq!(error.kind(), sandbox_core::ErrorKind::Closed);
    assert!(
        error.to_string().contains("not used for its idle timeout"),
        "{error}"
    );
    eventually("the place is free", async || sessions.stats().places == 0).await;
}

#[tokio::test]
async fn a_running_command_holds_the_idle_clock_and_not_the_maximum_life() {
    let (clock, hand) = manual();
    let model = ModelProvider::builder()
        .on_program("sleep", [MockOutcome::hang()])
        .build();
    let config = SessionsConfig::new()
        .clock(clock)
        .idle_timeout(MINUTE)
        .max_life(MINUTE * 10);
    let sessions = open(&model, config).await;
    let session = sessions.get_or_create("acme", "k", spec()).await.unwrap();
    let mut watch = sessions.watch(Filter::new());
    let process = session
        .sandbox()
        .spawn(Command::new("sleep"))
        .await
        .unwrap();
    for _ in 0..8 {
        hand.advance(MINUTE);
        sessions.sweep().await;
        assert_eq!(session.status(), Status::Working);
    }
    let expires = session.info().expires.unwrap();
    assert_eq!(expires.why, Why::Idle);
    hand.advance(MINUTE * 2);
    let gone = until_status(&mut watch, Status::Gone).await;
    assert_eq!(gone.expires.unwrap().why, Why::MaxLife);
    assert!(process.wait().await.is_err());
}

#[tokio::test]
async fn keep_alive_only_extends() {
    let (clock, hand) = manual();
    let now = clock.now();
    let config = SessionsConfig::new()
        .clock(clock)
        .idle_timeout(MINUTE)
        .max_life(MINUTE * 5);
    let sessions = open(&ModelProvider::new(), config).await;
    let session = sessions.get_or_create("acme", "k", spec()).await.unwrap();
    assert_eq!(session.keep_alive_for(MINUTE * 3), Some(now + MINUTE * 3));
    assert_eq!(session.keep_alive_for(MINUTE), Some(now + MINUTE * 3));
    // Never beyond the maximum life.
    assert_eq!(session.keep_alive_for(MINUTE * 50), Some(now + MINUTE * 5));
    hand.advance(MINUTE * 2);
    sessions.sweep().await;
    assert_eq!(session.status(), Status::Ready);
    let mut watch = sessions.watch(Filter::new());
    hand.advance(MINUTE * 3);
    let gone = until_status(&mut watch, Status::Gone).await;
    assert_eq!(gone.expires.unwrap().why, Why::MaxLife);
}

#[tokio::test]
async fn limits_hold_the_queue_is_told_and_a_dropped_caller_leaves_it() {
    let sessions = open(
        &ModelProvider::new(),
        SessionsConfig::new().limits(Limits::new().total(2).per_tenant(1)),
    )
    .await;
    let a = sessions.get_or_create("a", "1", spec()).await.unwrap();
    let never = SessionOptions::new().wait(Wait::Never);
    let error = sessions
        .get_or_create_with("a", "2", spec(), never.clone())
        .await
        .unwrap_err();
    assert_eq!(error.full().unwrap().scope, Scope::Tenant);
    assert!(error.is_retryable());
    let b = sessions.get_or_create("b", "1", spec()).await.unwrap();
    let error = sessions
        .get_or_create_with("c", "1", spec(), never)
        .await
        .unwrap_err();
    assert_eq!(error.full().unwrap().scope, Scope::Total);
    // What is there needs no place.
    sessions.get_or_create("a", "1", spec()).await.unwrap();

    let told = Arc::new(Mutex::new(Vec::new()));
    let asks = |tenant: &'static str| {
        let (sessions, told) = (sessions.clone(), told.clone());
        let options = SessionOptions::new()
            .on_position(move |ahead| told.lock().unwrap().push((tenant, ahead)));
        tokio::spawn(async move {
            sessions
                .get_or_create_with(tenant, "1", spec(), options)
                .await
        })
    };
    let c = asks("c");
    eventually("c waits", async || sessions.stats().waiting == 1).await;
    let d = asks("d");
    eventually("d waits", async || sessions.stats().waiting == 2).await;
    eventually("both are told", async || {
        let told = told.lock().unwrap();
        told.contains(&("c", 0)) && told.contains(&("d", 1))
    })
    .await;
    c.abort();
    eventually("c left", async || sessions.stats().waiting == 1).await;
    a.close().await.unwrap();
    d.await.unwrap().unwrap();
    assert_eq!(sessions.stats().places, 2);
    b.close().await.unwrap();
    assert_eq!(sessions.stats().places, 1);
}

#[tokio::test]
async fn a_creation_that_failed_gives_its_place_back_and_leaves_nothing() {
    let model = ModelProvider::builder()
        .fault_on(
            Operation::Create,
            [Fault::Refuse(sandbox_core::ErrorKind::Unavailable)],
        )
        .build();
    let sessions = open(&model, SessionsConfig::new().limits(Limits::new().total(1))).await;
    let error = sessions.get_or_create("a", "1", spec()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Sandbox);
    assert_eq!(
        error.sandbox().unwrap().kind(),
        sandbox_core::ErrorKind::Unavailable
    );
    assert!(error.is_retryable());
    assert_eq!((sessions.stats().places, sessions.stats().sessions), (0, 0));
    sessions.get_or_create("a", "1", spec()).await.unwrap();
}

#[tokio::test]
async fn a_creation_goes_on_without_its_caller() {
    let model = ModelProvider::builder()
        .fault_on(Operation::Create, [Fault::Delay(Duration::from_millis(50))])
        .build();
    let sessions = open(&model, SessionsConfig::new()).await;
    let asking = {
        let sessions = sessions.clone();
        tokio::spawn(async move { sessions.get_or_create("a", "1", spec()).await })
    };
    eventually("asked for", async || model.count(Operation::Create) == 1).await;
    asking.abort();
    let session = sessions.get_or_create("a", "1", spec()).await.unwrap();
    assert_eq!(model.count(Operation::Create), 1);
    assert_eq!(sessions.list(&Filter::new()), [session.info()]);
}

#[tokio::test]
async fn a_sandbox_that_goes_away_ends_its_session() {
    let model = ModelProvider::new();
    let sessions = open(&model, SessionsConfig::new()).await;
    let found = sessions.get_or_create("a", "by-use", spec()).await.unwrap();
    let swept = sessions
        .get_or_create("a", "by-sweep", spec())
        .await
        .unwrap();
    let closed = sessions
        .get_or_create("a", "by-close", spec())
        .await
        .unwrap();
    let before = found.sandbox().info().id;
    assert!(model.lose(&before) && model.lose(&swept.sandbox().info().id));
    assert!(found.sandbox().read("f").await.is_err());
    eventually("found by a call", async || found.status() == Status::Gone).await;
    assert_eq!(found.ended().unwrap().why, Why::Lost);
    sessions.sweep().await;
    assert_eq!(swept.ended().unwrap().why, Why::Lost);
    closed.sandbox().close().await.unwrap();
    eventually("closed by its handle", async || {
        closed.status() == Status::Gone
    })
    .await;
    eventually("places are free", async || sessions.stats().places == 0).await;
    let again = sessions.get_or_create("a", "by-use", spec()).await.unwrap();
    assert_ne!(again.sandbox().info().id, before);
}

#[tokio::test]
async fn a_fork_is_a_session_of_its_own() {
    let model = ModelProvider::new();
    let sessions = open(
        &model,
        SessionsConfig::new().limits(Limits::new().per_tenant(2)),
    )
    .await;
    let parent = sessions.get_or_create("a", "1", spec()).await.unwrap();
    parent.sandbox().write("f", "x").await.unwrap();
    let fork = parent.fork("2", SessionOptions::new()).await.unwrap();
    fork.sandbox().write("f", "y").await.unwrap();
    assert_eq!(parent.sandbox().read("f").await.unwrap(), "x");
    let options = SessionOptions::new().wait(Wait::Never);
    let taken = parent.fork("2", options.clone()).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::Conflict);
    let full = parent.fork("3", options).await.unwrap_err();
    assert_eq!(full.kind(), ErrorKind::Full);
    parent.close().await.unwrap();
    sessions.sweep().await;
    assert_eq!(sessions.get("a", "2").await.unwrap().id(), fork.id());
    assert_eq!(fork.sandbox().read("f").await.unwrap(), "y");
}

#[tokio::test]
async fn lists_are_filtered() {
    let sessions = open(&ModelProvider::new(), SessionsConfig::new()).await;
    let label = |value: &str| SessionOptions::new().label("branch", value);
    for (tenant, key, branch) in [("a", "1", "main"), ("a", "2", "dev"), ("b", "1", "main")] {
        sessions
            .get_or_create_with(tenant, key, spec(), label(branch))
            .await
            .unwrap();
    }
    let names = |filter: Filter| -> Vec<String> {
        let list = sessions.list(&filter);
        list.iter()
            .map(|info| format!("{}/{}", info.tenant, info.key))
            .collect()
    };
    assert_eq!(names(Filter::new()), ["a/1", "a/2", "b/1"]);
    assert_eq!(
        names(Filter::new().tenant(Tenant::new("a").unwrap())),
        ["a/1", "a/2"]
    );
    assert_eq!(names(Filter::new().label("branch", "main")), ["a/1", "b/1"]);
    assert!(names(Filter::new().status(Status::Gone)).is_empty());
}

#[tokio::test]
async fn the_pool_hands_out_what_is_ready_and_well_and_fills_up_again() {
    let model = ModelProvider::new();
    let shape = spec().env("LANG", "C");
    let sessions = open(
        &model,
        SessionsConfig::new().pool(Pool::new(shape.clone(), 2)),
    )
    .await;
    eventually("filled", async || sessions.stats().pool_ready == 2).await;
    let first = sessions
        .get_or_create("a", "1", shape.clone())
        .await
        .unwrap();
    // Equal down to the secrets: one with another secret is created.
    eventually("filled again", async || sessions.stats().pool_ready == 2).await;
    let created = model.count(Operation::Create);
    assert_eq!(created, 3);
    let own = shape.clone().secret("TOKEN", "x");
    sessions.get_or_create("a", "2", own).await.unwrap();
    assert_eq!(model.count(Operation::Create), created + 1);

    let all = model.list(&Default::default()).await.unwrap();
    for info in all {
        if info.id != first.sandbox().info().id {
            model.lose(&info.id);
        }
    }
    let third = sessions.get_or_create("a", "3", shape).await.unwrap();
    third.sandbox().write("f", "x").await.unwrap();
}

#[tokio::test]
async fn a_suspended_session_keeps_its_files_and_gives_its_place_up() {
    let (clock, hand) = manual();
    let model = ModelProvider::new();
    let config = SessionsConfig::new()
        .clock(clock)
        .idle_timeout(MINUTE)
        .on_idle(OnIdle::Suspend)
        .limits(Limits::new().total(1));
    let sessions = open(&model, config).await;
    let session = sessions.get_or_create("a", "1", spec()).await.unwrap();
    session.sandbox().write("f", "kept").await.unwrap();
    let mut watch = sessions.watch(Filter::new());
    hand.advance(MINUTE);
    until_status(&mut watch, Status::Suspended).await;
    eventually("closed", async || {
        model.list(&Default::default()).await.unwrap().is_empty()
    })
    .await;
    assert_eq!(sessions.stats().places, 0);
    sessions.sweep().await;
    let again = sessions.get_or_create("a", "1", spec()).await.unwrap();
    assert_eq!(again.id(), session.id());
    assert_eq!(again.status(), Status::Ready);
    assert_eq!(again.sandbox().read("f").await.unwrap(), "kept");
    assert!(
        model
            .list_snapshots(&Default::default())
            .await
            .unwrap()
            .is_empty()
    );
    again.suspend().await.unwrap();
    again.close().await.unwrap();
    assert!(
        model
            .list_snapshots(&Default::default())
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(sessions.stats().sessions, 0);
}

/// Says when a snapshot was taken, and holds its answer until it is let go.
#[derive(Clone, Debug, Default)]
struct SlowSnapshots {
    taken: Arc<Notify>,
    go: Arc<Notify>,
    fails: bool,
}

impl Around for SlowSnapshots {
    async fn around<T: Answer>(
        &self,
        call: Call<'_>,
        attempt: Attempt<'_, T>,
    ) -> sandbox_core::Result<T> {
        let answer = attempt().await;
        if let Request::Snapshot(_) = call.request {
            self.taken.notify_one();
            self.go.notified().await;
            if self.fails {
                let failed = CoreError::new(CoreErrorKind::StorageFull, Operation::Snapshot);
                return Err(failed);
            }
        }
        answer
    }
}

/// Writes to a session while its snapshot is taken; what became of the write, and of the suspension.
async fn write_during_a_suspension(
    slow: &SlowSnapshots,
    session: &Session,
) -> (
    sandbox_core::Result<()>,
    Result<(), sandbox_sessions::Error>,
) {
    let suspending = tokio::spawn({
        let session = session.clone();
        async move { session.suspend().await }
    });
    slow.taken.notified().await;
    let written = session.sandbox().write("f", "during").await;
    slow.go.notify_one();
    (written, suspending.await.unwrap())
}

#[tokio::test]
async fn a_write_during_a_suspension_is_refused_and_not_lost() {
    let slow = SlowSnapshots::default();
    let provider = slow.layer_provider(Arc::new(ModelProvider::new()));
    let sessions = Sessions::open(provider, SessionsConfig::new())
        .await
        .unwrap();
    let session = sessions.get_or_create("a", "1", spec()).await.unwrap();
    session.sandbox().write("f", "before").await.unwrap();
    let (written, suspended) = write_during_a_suspension(&slow, &session).await;
    suspended.unwrap();
    let refused = written.unwrap_err();
    assert_eq!(refused.kind(), CoreErrorKind::Closed);
    assert!(
        refused
            .hint()
            .unwrap()
            .contains("ask for the session again")
    );
    let command = session.sandbox().exec(Command::new("true")).await;
    assert_eq!(
        command.unwrap_err().execution(),
        Some(Execution::NotStarted)
    );
    let again = sessions.get_or_create("a", "1", spec()).await.unwrap();
    assert_eq!(again.sandbox().read("f").await.unwrap(), "before");
}

#[tokio::test]
async fn a_fork_of_the_caller_lives_on_while_its_session_is_suspended() {
    let sessions = open(&ModelProvider::new(), SessionsConfig::new()).await;
    let session = sessions.get_or_create("a", "1", spec()).await.unwrap();
    let fork = session.sandbox().fork_one().await.unwrap();
    session.suspend().await.unwrap();
    fork.write("f", "the fork's").await.unwrap();
    assert_eq!(fork.read("f").await.unwrap(), "the fork's");
}

#[tokio::test]
async fn a_session_whose_suspension_fails_is_used_as_before() {
    let slow = SlowSnapshots {
        fails: true,
        ..SlowSnapshots::default()
    };
    let provider = slow.layer_provider(Arc::new(ModelProvider::new()));
    let sessions = Sessions::open(provider, SessionsConfig::new())
        .await
        .unwrap();
    let session = sessions.get_or_create("a", "1", spec()).await.unwrap();
    let (_, suspended) = write_during_a_suspension(&slow, &session).await;
    assert_eq!(suspended.unwrap_err().kind(), ErrorKind::Sandbox);
    assert_eq!(session.status(), Status::Ready);
    session.sandbox().write("f", "after").await.unwrap();
    assert_eq!(session.sandbox().read("f").await.unwrap(), "after");
}

#[tokio::test]
async fn a_session_whose_callers_wait_for_a_place_can_be_closed() {
    let config = SessionsConfig::new().limits(Limits::new().total(1));
    let sessions = open(&ModelProvider::new(), config).await;
    let suspend = async || {
        let session = sessions.get_or_create("a", "1", spec()).await.unwrap();
        session.suspend().await.unwrap();
        sessions.get_or_create("b", "1", spec()).await.unwrap()
    };
    let close = async || {
        let waiting = async || sessions.stats().waiting == 1;
        eventually("the call waits for a place", waiting).await;
        let closed = tokio::time::timeout(MINUTE * 2, sessions.close("a", "1")).await;
        closed.expect("it waits for its callers").unwrap();
    };

    let other = suspend().await;
    let asking = tokio::spawn({
        let sessions = sessions.clone();
        async move { sessions.get("a", "1").await }
    });
    close().await;
    // There is nothing to wait for any more.
    let got = tokio::time::timeout(MINUTE * 2, asking).await.unwrap();
    assert_eq!(got.unwrap().unwrap_err().kind(), ErrorKind::NotFound);
    other.close().await.unwrap();

    let other = suspend().await;
    let asking = tokio::spawn({
        let sessions = sessions.clone();
        async move { sessions.get_or_create("a", "1", spec()).await }
    });
    close().await;
    other.close().await.unwrap();
    let got = tokio::time::timeout(MINUTE * 2, asking).await.unwrap();
    assert!(got.unwrap().unwrap().is_new());
}

#[tokio::test]
async fn callers_of_one_name_wait_no_longer_than_they_said() {
    let (clock, hand) = manual();
    let limits = Limits::new().total(1);
    let config = SessionsConfig::new().clock(clock).limits(limits);
    let sessions = open(&ModelProvider::new(), config).await;
    let _other = sessions.get_or_create("b", "1", spec()).await.unwrap();
    let ask = || {
        let options = SessionOptions::new().wait(Wait::AtMost(MINUTE));
        let asked = sessions.get_or_create_with("a", "1", spec(), options);
        Box::pin(asked)
    };
    let (mut first, mut second) = (ask(), ask());
    for call in [&mut first, &mut second] {
        let mut context = Context::from_waker(Waker::noop());
        assert!(call.as_mut().poll(&mut context).is_pending());
    }
    hand.advance(MINUTE);
    for call in [first, second] {
        let failed = tokio::time::timeout(MINUTE * 2, call).await.unwrap();
        assert!(matches!(failed.unwrap_err().kind(), ErrorKind::Full));
    }
}

/// Holds the answers of creations from a snapshot until they are let go.
#[derive(Clone, Debug)]
struct SlowResumes {
    made: Arc<Notify>,
    go: Arc<tokio::sync::Semaphore>,
}

impl Around for SlowResumes {
    async fn around<T: Answer>(
        &self,
        call: Call<'_>,
        attempt: Attempt<'_, T>,
    ) -> sandbox_core::Result<T> {
        let answer = attempt().await;
        if let Request::Create(spec) = call.request
            && matches!(spec.source, sandbox_core::Source::Snapshot(_))
        {
            self.made.notify_one();
            drop(self.go.acquire().await);
        }
        answer
    }
}

#[tokio::test]
async fn a_session_is_resumed_once_also_if_the_first_caller_goes_away() {
    let slow = SlowResumes {
        made: Arc::default(),
        go: Arc::new(tokio::sync::Semaphore::new(0)),
    };
    let model = ModelProvider::new();
    let provider = slow.layer_provider(Arc::new(model.clone()));
    let sessions = Sessions::open(provider, SessionsConfig::new())
        .await
        .unwrap();
    let session = sessions.get_or_create("a", "1", spec()).await.unwrap();
    session.suspend().await.unwrap();
    let get = || {
        let sessions = sessions.clone();
        tokio::spawn(async move { sessions.get("a", "1").await })
    };
    let first = get();
    slow.made.notified().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let second = get();
    // It may ask the backend too, which is what must not happen.
    tokio::task::yield_now().await;
    slow.go.add_permits(2);
    let again = second.await.unwrap().unwrap();
    again.sandbox().write("f", "x").await.unwrap();
    assert_eq!(model.count(Operation::Create), 2);
    assert_eq!(model.list(&Default::default()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_old_handle_does_not_end_the_session_that_was_resumed() {
    let model = ModelProvider::new();
    let sessions = open(&model, SessionsConfig::new()).await;
    let old = sessions.get_or_create("a", "1", spec()).await.unwrap();
    old.sandbox().write("f", "kept").await.unwrap();
    old.suspend().await.unwrap();
    let again = sessions.get_or_create("a", "1", spec()).await.unwrap();
    let refused = old.sandbox().read("f").await.unwrap_err();
    assert_eq!(refused.kind(), CoreErrorKind::Closed);
    old.sandbox().close().await.unwrap();
    // On this runtime of one thread: what such an error brings about has its turn.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(sessions.get("a", "1").await.unwrap().id(), again.id());
    assert_eq!(again.sandbox().read("f").await.unwrap(), "kept");
    assert_eq!(again.ended(), None);
}

#[tokio::test]
async fn an_open_stream_or_connection_holds_its_session() {
    let (clock, hand) = manual();
    let model = ModelProvider::new();
    let config = SessionsConfig::new().clock(clock).idle_timeout(MINUTE);
    let sessions = open(&model, config).await;
    let session = sessions.get_or_create("a", "1", spec()).await.unwrap();
    let options = OpenWriteOptions::new();
    let path = "upload".into();
    let mut upload = session.sandbox().open_write(&path, options).await.unwrap();
    hand.advance(MINUTE * 10);
    sessions.sweep().await;
    upload.write_all(b"whole").await.unwrap();
    assert_eq!(session.suspend().await.unwrap_err().kind(), ErrorKind::Busy);
    upload.commit().await.unwrap();
    let options = OpenReadOptions::new();
    let download = session.sandbox().open_read(&path, options).await.unwrap();
    assert_eq!(session.suspend().await.unwrap_err().kind(), ErrorKind::Busy);
    drop(download);
    session.suspend().await.unwrap();
}

#[tokio::test]
async fn a_session_in_use_is_not_suspended_and_a_backend_without_snapshots_is_refused() {
    let model = ModelProvider::builder()
        .on_program("sleep", [MockOutcome::hang()])
        .build();
    let sessions = open(&model, SessionsConfig::new()).await;
    let session = sessions.get_or_create("a", "1", spec()).await.unwrap();
    let _process = session
        .sandbox()
        .spawn(Command::new("sleep"))
        .await
        .unwrap();
    assert_eq!(session.suspend().await.unwrap_err().kind(), ErrorKind::Busy);
    let model = ModelProvider::builder()
        .lacks(Capability::Snapshot, "a test")
        .build();
    let config = SessionsConfig::new().on_idle(OnIdle::Suspend);
    assert!(Sessions::open(Arc::new(model), config).await.is_err());
}

#[tokio::test]
async fn a_restart_takes_up_what_is_there_and_tells_what_is_not() {
    let place = tempfile::tempdir().unwrap();
    let config = SessionsConfig::new()
        .journal(place.path())
        .limits(Limits::new().total(3));
    let cloud = Cloud::new(ModelProvider::new());
    let options = SessionOptions::new()
        .label("branch", "main")
        .max_life(MINUTE * 60);
    let (before, gone) = {
        let sessions = reopen(&cloud, &config).await;
        let stays = sessions
            .get_or_create_with("a", "stays", spec(), options)
            .await
            .unwrap();
        stays.sandbox().write("f", "kept").await.unwrap();
        let gone = sessions.get_or_create("a", "goes", spec()).await.unwrap();
        let ended = sessions.get_or_create("a", "ended", spec()).await.unwrap();
        ended.close().await.unwrap();
        (stays.info(), gone.sandbox().info().id)
        // Dropped without a shutdown: a crash.
    };
    cloud.model.lose(&gone);
    let sessions = reopen(&cloud, &config).await;
    let list = sessions.list(&Filter::new());
    assert_eq!(list.len(), 1);
    assert_eq!((&list[0].id, &list[0].labels), (&before.id, &before.labels));
    assert_eq!(list[0].expires.unwrap().why, Why::MaxLife);
    assert_eq!(sessions.stats().places, 1);
    let error = sessions
        .get_or_create("a", "stays", spec().workdir("/other"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let again = sessions.get("a", "stays").await.unwrap();
    assert_eq!(again.sandbox().read("f").await.unwrap(), "kept");
    assert_eq!(
        sessions.get("a", "goes").await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    again.suspend().await.unwrap();
    drop((again, sessions));

    let sessions = reopen(&cloud, &config).await;
    assert_eq!(sessions.list(&Filter::new())[0].status, Status::Suspended);
    let again = sessions.get_or_create("a", "stays", spec()).await.unwrap();
    assert_eq!(again.sandbox().read("f").await.unwrap(), "kept");
    let report = sessions
        .shutdown(ShutdownOptions::new().keep(true))
        .await
        .unwrap();
    assert_eq!(report.kept, 1);
    let sessions = Sessions::open(Arc::new(cloud.clone()), config)
        .await
        .unwrap();
    assert_eq!(sessions.list(&Filter::new()).len(), 1);
    sessions.shutdown(ShutdownOptions::new()).await.unwrap();
    assert!(cloud.there().await.is_empty());
}

#[tokio::test]
async fn what_the_backend_does_not_destroy_keeps_its_place_and_is_tried_again() {
    let model = ModelProvider::builder()
        .fault_on(
            Operation::Close,
            [Fault::Refuse(sandbox_core::ErrorKind::Unavailable)],
        )
        .fault_on(
            Operation::Destroy,
            [Fault::Refuse(sandbox_core::ErrorKind::Unavailable)],
        )
        .build();
    let sessions = open(&model, SessionsConfig::new().limits(Limits::new().total(1))).await;
    let session = sessions.get_or_create("a", "1", spec()).await.unwrap();
    let held = session.sandbox().clone();
    let error = session.close().await.unwrap_err();
    assert!(error.to_string().contains("tried again"), "{error}");
    assert_eq!(session.status(), Status::Gone);
    assert_eq!((sessions.stats().doomed, sessions.stats().places), (1, 1));
    sessions.sweep().await;
    assert_eq!((sessions.stats().doomed, sessions.stats().places), (0, 0));
    assert!(held.read("f").await.is_err());
}

#[tokio::test]
async fn a_shutdown_closes_everything_within_its_deadline() {
    let model = ModelProvider::builder()
        .on_program("sleep", [MockOutcome::hang()])
        .build();
    let config = SessionsConfig::new()
        .limits(Limits::new().total(3))
        .pool(Pool::new(spec(), 2));
    let sessions = open(&model, config).await;
    let mut kept = Vec::new();
    for key in ["1", "2", "3"] {
        kept.push(sessions.get_or_create("a", key, spec()).await.unwrap());
    }
    let process = kept[0]
        .sandbox()
        .spawn(Command::new("sleep"))
        .await
        .unwrap();
    let mut watch = sessions.watch(Filter::new());
    let waits = {
        let sessions = sessions.clone();
        tokio::spawn(async move { sessions.get_or_create("b", "1", spec()).await })
    };
    eventually("one waits", async || sessions.stats().waiting == 1).await;
    let report = sessions.shutdown(ShutdownOptions::new()).await.unwrap();
    assert_eq!((report.closed, report.left.len()), (3, 0));
    assert_eq!(
        waits.await.unwrap().unwrap_err().kind(),
        ErrorKind::ShutDown
    );
    let late = sessions.get_or_create("a", "4", spec()).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::ShutDown);
    assert!(process.wait().await.is_err());
    eventually("nothing is left", async || {
        model.list(&Default::default()).await.unwrap().is_empty()
    })
    .await;
    let mut gone = 0;
    while let Some(info) = watch.next().await {
        gone += usize::from(info.status == Status::Gone);
    }
    assert_eq!(gone, 3);
}

#[tokio::test]
async fn a_shutdown_returns_at_its_deadline_with_what_is_left() {
    let model = ModelProvider::builder()
        .fault_on(Operation::Close, [Fault::Hang])
        .build();
    let sessions = open(&model, SessionsConfig::new()).await;
    let session = sessions.get_or_create("a", "1", spec()).await.unwrap();
    let options = ShutdownOptions::new().deadline(Duration::from_millis(20));
    sessions.shutdown(options).await.unwrap();
    assert_eq!(session.status(), Status::Gone);
}
