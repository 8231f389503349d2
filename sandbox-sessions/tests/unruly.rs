//! Tests of sessions over a backend that hangs, refuses or is late: what it does to one of them must
//! not become the fault of another, and nothing is forgotten.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod support;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use sandbox_core::layer::{Answer, Around, Attempt, Call, Layer as _, Request};
use sandbox_core::{
    Capability, Error as CoreError, ErrorKind as CoreErrorKind, Operation, Provider, SandboxExt,
    SandboxId, SandboxSpec,
};
use sandbox_sessions::{
    Clock, ClockHand, ErrorKind, Filter, Limits, Pool, Scope, SessionOptions, Sessions,
    SessionsConfig, ShutdownOptions, Status, Wait, Why,
};
use sandbox_testkit::model::ModelProvider;
use support::{Cloud, eventually, reopen};

const MINUTE: Duration = Duration::from_secs(60);
/// Only a hang takes longer.
const BOUND: Duration = Duration::from_secs(120);

/// Fate of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Served,
    Refused,
    /// Served, and its answer is lost.
    Lost,
    /// Not answered until its fate is another one.
    Hung,
}

type Rule = Arc<dyn Fn(&Call<'_>) -> Fate + Send + Sync>;

/// A backend whose calls have the fate that the rule of the moment says.
#[derive(Clone)]
struct Unruly {
    rule: Arc<Mutex<Rule>>,
    changed: Arc<tokio::sync::watch::Sender<()>>,
    hung: Arc<Mutex<Vec<Operation>>>,
}

impl std::fmt::Debug for Unruly {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Unruly")
    }
}

impl Unruly {
    fn new() -> Self {
        Self {
            rule: Arc::new(Mutex::new(Arc::new(|_: &Call<'_>| Fate::Served))),
            changed: Arc::new(tokio::sync::watch::channel(()).0),
            hung: Arc::default(),
        }
    }

    fn over(&self, provider: impl Provider + 'static) -> Arc<dyn Provider> {
        self.layer_provider(Arc::new(provider))
    }

    fn rule(&self, rule: impl Fn(&Call<'_>) -> Fate + Send + Sync + 'static) {
        *self.rule.lock().unwrap() = Arc::new(rule);
        self.changed.send_replace(());
    }

    fn all(&self, operations: &'static [Operation], fate: Fate) {
        self.rule(move |call| match operations.contains(&call.operation()) {
            true => fate,
            false => Fate::Served,
        });
    }

    fn calm(&self) {
        self.rule(|_| Fate::Served);
    }

    /// Number of calls of this operation that were ever hung.
    fn hung(&self, operation: Operation) -> usize {
        let hung = self.hung.lock().unwrap();
        hung.iter().filter(|other| **other == operation).count()
    }

    /// From now on what is created is lost on the way, and stays.
    fn loses_what_it_makes(&self) {
        self.rule(|call| match call.request {
            Request::Create(_) => Fate::Lost,
            Request::Destroy(_) => Fate::Refused,
            _ => Fate::Served,
        });
    }

    async fn until_hung(&self, operation: Operation) {
        eventually("a call hangs", async || self.hung(operation) > 0).await;
    }
}

impl Around for Unruly {
    async fn around<T: Answer>(
        &self,
        call: Call<'_>,
        attempt: Attempt<'_, T>,
    ) -> sandbox_core::Result<T> {
        let mut changed = self.changed.subscribe();
        let mut first = true;
        loop {
            let rule = self.rule.lock().unwrap().clone();
            match rule(&call) {
                Fate::Served => return attempt().await,
                Fate::Refused => return Err(unavailable(&call)),
                Fate::Lost => {
                    let answer = attempt().await;
                    return answer.and_then(|_| Err(unavailable(&call)));
                }
                Fate::Hung => {
                    if std::mem::take(&mut first) {
                        self.hung.lock().unwrap().push(call.operation());
                    }
                    let _ = changed.changed().await;
                }
            }
        }
    }
}

fn unavailable(call: &Call<'_>) -> CoreError {
    CoreError::new(CoreErrorKind::Unavailable, call.operation())
}

fn spec() -> SandboxSpec {
    SandboxSpec::new()
}

fn manual() -> (Clock, ClockHand) {
    Clock::manual(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000))
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, future).await.expect("it hangs")
}

async fn open(provider: Arc<dyn Provider>, config: SessionsConfig) -> Sessions {
    Sessions::open(provider, config).await.unwrap()
}

#[tokio::test]
async fn a_backend_that_does_not_list_holds_no_session_over_its_time() {
    let (clock, hand) = manual();
    let unruly = Unruly::new();
    unruly.all(&[Operation::List], Fate::Hung);
    let config = SessionsConfig::new().clock(clock).max_life(MINUTE);
    let sessions = open(unruly.over(ModelProvider::new()), config).await;
    let session = sessions.get_or_create("a", "1", spec()).await.unwrap();
    unruly.until_hung(Operation::List).await;
    hand.advance(MINUTE);
    eventually("it has ended", async || session.ended().is_some()).await;
    assert_eq!(session.ended().unwrap().why, Why::MaxLife);
}

#[tokio::test]
async fn a_leftover_that_stays_does_not_keep_the_others() {
    let place = tempfile::tempdir().unwrap();
    let config = SessionsConfig::new().journal(place.path());
    let (cloud, unruly) = (Cloud::new(ModelProvider::new()), Unruly::new());
    unruly.loses_what_it_makes();
    let sessions = open(unruly.over(cloud.clone()), config).await;
    for key in ["1", "2", "3"] {
        assert!(sessions.get_or_create("a", key, spec()).await.is_err());
    }
    let there = cloud.there().await;
    assert_eq!(there.len(), 3);
    for fate in [Fate::Refused, Fate::Hung] {
        let stays = there[0].clone();
        unruly.rule(move |call| match call.request {
            Request::Destroy(id) if *id == stays => fate,
            _ => Fate::Served,
        });
        let sweep = sessions.sweep();
        tokio::pin!(sweep);
        let others = eventually("only that one is left", async || {
            cloud.there().await == there[..1]
        });
        tokio::select! {
            () = others => {}
            () = async { (&mut sweep).await; std::future::pending().await } => {}
        }
    }
}

#[tokio::test]
async fn what_no_session_has_is_swept_and_what_is_anothers_is_left() {
    let place = tempfile::tempdir().unwrap();
    let config = SessionsConfig::new().journal(place.path());
    let (cloud, unruly) = (Cloud::new(ModelProvider::new()), Unruly::new());
    unruly.loses_what_it_makes();
    let sessions = open(unruly.over(cloud.clone()), config).await;
    assert!(sessions.get_or_create("a", "1", spec()).await.is_err());
    assert_eq!(cloud.there().await.len(), 1);
    unruly.calm();

    let others = spec().label("sandbox-session", "x");
    let others = cloud.create(others).await.unwrap();
    let plain = cloud.create(spec()).await.unwrap();
    let used = sessions.get_or_create("a", "2", spec()).await.unwrap();
    sessions.sweep().await;
    let mut there = cloud.there().await;
    there.sort();
    let mut expected = vec![others.info().id, plain.info().id, used.sandbox().info().id];
    expected.sort();
    assert_eq!(there, expected);
}

#[tokio::test]
async fn a_sweep_that_is_given_up_forgets_nothing() {
    let unruly = Unruly::new();
    let model = ModelProvider::new();
    let config = SessionsConfig::new().limits(Limits::new().total(1));
    let sessions = open(unruly.over(model.clone()), config).await;
    let session = sessions.get_or_create("a", "1", spec()).await.unwrap();
    let _held = session.sandbox().clone();
    unruly.all(&[Operation::Close, Operation::Destroy], Fate::Refused);
    session.close().await.unwrap_err();
    let counts = || (sessions.stats().doomed, sessions.stats().places);
    assert_eq!(counts(), (1, 1));

    unruly.all(&[Operation::Close, Operation::Destroy], Fate::Hung);
    let mut sweep = Box::pin(sessions.sweep());
    tokio::select! {
        () = &mut sweep => {}
        () = unruly.until_hung(Operation::Close) => {}
    }
    drop(sweep);
    assert_eq!(sessions.stats().places, 1, "it is there still");
    unruly.calm();
    eventually("it is destroyed", async || counts() == (0, 0)).await;
    assert!(model.list(&Default::default()).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_can_not_be_attached_to_is_closed_by_its_handle_when_it_is_tried_again() {
    let unruly = Unruly::new();
    let model = ModelProvider::builder()
        .lacks(Capability::Attach, "to see what becomes of a handle")
        .build();
    let sessions = open(unruly.over(model.clone()), SessionsConfig::new()).await;
    let session = sessions.get_or_create("a", "1", spec()).await.unwrap();
    let _held = session.sandbox().clone();
    unruly.all(&[Operation::Close], Fate::Refused);
    session.close().await.unwrap_err();
    assert_eq!(sessions.stats().doomed, 1);
    unruly.calm();
    sessions.sweep().await;
    assert_eq!(sessions.stats().doomed, 0);
    assert!(model.list(&Default::default()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_shape_whose_creation_hangs_does_not_hold_up_the_others_of_the_pool() {
    let unruly = Unruly::new();
    let hangs = spec().workdir("/hangs");
    unruly.rule(|call| match call.request {
        Request::Create(spec) if spec.workdir.is_some() => Fate::Hung,
        _ => Fate::Served,
    });
    let config = SessionsConfig::new()
        .pool(Pool::new(hangs, 1))
        .pool(Pool::new(spec(), 2));
    let sessions = open(unruly.over(ModelProvider::new()), config).await;
    unruly.until_hung(Operation::Create).await;
    eventually("the other shape is filled", async || {
        sessions.stats().pool_ready == 2
    })
    .await;
    sessions.get_or_create("a", "1", spec()).await.unwrap();
    eventually("it is filled again", async || {
        sessions.stats().pool_ready == 2
    })
    .await;
}

#[tokio::test]
async fn a_specification_that_is_told_after_a_restart_is_known_from_then_on() {
    let place = tempfile::tempdir().unwrap();
    let config = SessionsConfig::new().journal(place.path());
    let cloud = Cloud::new(ModelProvider::new());
    let sessions = reopen(&cloud, &config).await;
    let session = sessions.get_or_create("a", "1", spec()).await.unwrap();
    session.sandbox().write("f", "kept").await.unwrap();
    drop((session, sessions));

    let sessions = reopen(&cloud, &config).await;
    // Taken up by a call that has no specification.
    sessions.get("a", "1").await.unwrap();
    let session = sessions.get_or_create("a", "1", spec()).await.unwrap();
    session.suspend().await.unwrap();
    let again = sessions.get("a", "1").await.unwrap();
    assert_eq!(again.sandbox().read("f").await.unwrap(), "kept");
}

#[tokio::test]
async fn a_sandbox_that_outlives_its_suspension_keeps_its_place_and_is_tried_again() {
    let place = tempfile::tempdir().unwrap();
    let config = SessionsConfig::new()
        .journal(place.path())
        .limits(Limits::new().total(2));
    let (cloud, unruly) = (Cloud::new(ModelProvider::new()), Unruly::new());
    let sessions = open(unruly.over(cloud.clone()), config.clone()).await;
    let session = sessions.get_or_create("a", "1", spec()).await.unwrap();
    session.sandbox().write("f", "kept").await.unwrap();
    let old = session.sandbox().info().id;
    unruly.all(&[Operation::Close, Operation::Destroy], Fate::Refused);
    session.suspend().await.unwrap_err();
    assert_eq!(session.status(), Status::Suspended);
    assert_eq!(sessions.stats().places, 1, "its sandbox is there");
    // Resumed meanwhile: the old one is not taken for the session's.
    let again = sessions.get("a", "1").await.unwrap();
    assert_eq!(again.sandbox().read("f").await.unwrap(), "kept");
    assert_eq!(sessions.stats().places, 2);
    unruly.calm();
    sessions.sweep().await;
    assert!(!cloud.there().await.contains(&old));
    assert_eq!(sessions.stats().places, 1);
    // The journal has the session still.
    drop((session, again, sessions));
    let sessions = reopen(&cloud, &config).await;
    let again = sessions.get("a", "1").await.unwrap();
    assert_eq!(again.sandbox().read("f").await.unwrap(), "kept");
}

/// A service whose list does not have everything yet.
async fn late(cloud: &Cloud, config: &SessionsConfig, sweep: bool) {
    let sessions = reopen(cloud, config).await;
    let session = sessions.get_or_create("a", "1", spec()).await.unwrap();
    session.sandbox().write("f", "kept").await.unwrap();
    drop((session, sessions));
    cloud.list_nothing(!sweep);
    let sessions = reopen(cloud, config).await;
    cloud.list_nothing(true);
    sessions.sweep().await;
    cloud.list_nothing(false);
    let again = sessions.get("a", "1").await.unwrap();
    assert_eq!(again.sandbox().read("f").await.unwrap(), "kept");
    again.close().await.unwrap();
    assert!(cloud.there().await.is_empty());
}

#[tokio::test]
async fn a_late_list_ends_no_session() {
    for sweep in [true, false] {
        let place = tempfile::tempdir().unwrap();
        let config = SessionsConfig::new().journal(place.path());
        late(&Cloud::new(ModelProvider::new()), &config, sweep).await;
    }
}

#[tokio::test]
async fn a_session_is_kept_for_a_time_without_an_end() {
    let (clock, hand) = manual();
    let config = SessionsConfig::new().clock(clock).idle_timeout(MINUTE);
    let sessions = open(Arc::new(ModelProvider::new()), config).await;
    let session = sessions.get_or_create("a", "1", spec()).await.unwrap();
    let other = sessions.get_or_create("a", "2", spec()).await.unwrap();
    session.keep_alive_for(Duration::MAX);
    hand.advance(MINUTE * 60 * 24 * 365);
    eventually("the other has ended", async || other.ended().is_some()).await;
    // Both were due at once, had one not been kept.
    sessions.sweep().await;
    assert_eq!(session.ended(), None);
    assert_eq!(session.status(), Status::Ready);
}

fn poll<T>(call: &mut Pin<Box<impl Future<Output = T>>>) -> Poll<T> {
    call.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test]
async fn a_caller_that_does_not_wait_waits_for_no_other_caller_either() {
    let (unruly, (clock, hand)) = (Unruly::new(), manual());
    let config = SessionsConfig::new()
        .clock(clock)
        .limits(Limits::new().total(1));
    let sessions = open(unruly.over(ModelProvider::new()), config).await;
    let ask = |wait| {
        let options = SessionOptions::new().wait(wait);
        Box::pin(sessions.get_or_create_with("a", "1", spec(), options))
    };
    let kind = |answer: Poll<sandbox_sessions::Result<_>>| match answer {
        Poll::Ready(Err(error)) => Some((error.kind(), error.full().map(|full| full.scope))),
        _ => None,
    };
    // One that makes it.
    unruly.all(&[Operation::Create], Fate::Hung);
    let mut makes = ask(Wait::Queue);
    assert!(poll(&mut makes).is_pending());
    assert_eq!(
        kind(poll(&mut ask(Wait::Never))),
        Some((ErrorKind::Busy, None))
    );
    let mut a_minute = ask(Wait::AtMost(MINUTE));
    assert!(poll(&mut a_minute).is_pending());
    hand.advance(MINUTE);
    let late = within(a_minute).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Busy);
    assert!(late.is_retryable());
    // The one that waits without an end gets what the first makes, and so does who asks then.
    let mut waits = ask(Wait::Queue);
    assert!(poll(&mut waits).is_pending());
    unruly.calm();
    let made = within(makes).await.unwrap();
    assert_eq!(within(waits).await.unwrap().id(), made.id());
    for _ in 0..10 {
        let found = within(ask(Wait::Never)).await.unwrap();
        assert_eq!(found.id(), made.id());
    }

    // One that ends it.
    unruly.all(&[Operation::Close], Fate::Hung);
    let mut closes = Box::pin(made.close());
    assert!(poll(&mut closes).is_pending());
    unruly.until_hung(Operation::Close).await;
    assert_eq!(
        kind(poll(&mut ask(Wait::Never))),
        Some((ErrorKind::Busy, None))
    );
    unruly.calm();
    within(closes).await.unwrap();

    // One that waits for a place.
    let other = sessions.get_or_create("b", "1", spec()).await.unwrap();
    let mut first = ask(Wait::Queue);
    assert!(poll(&mut first).is_pending());
    assert_eq!(
        kind(poll(&mut ask(Wait::Never))),
        Some((ErrorKind::Full, Some(Scope::Total)))
    );
    other.close().await.unwrap();
    within(first).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_do_not_wait_get_a_session_that_is_there_all_at_once() {
    let sessions = open(Arc::new(ModelProvider::new()), SessionsConfig::new()).await;
    let made = sessions.get_or_create("a", "1", spec()).await.unwrap();
    let never = || SessionOptions::new().wait(Wait::Never);
    let calls: Vec<_> = (0..64)
        .map(|_| {
            let sessions = sessions.clone();
            tokio::spawn(async move {
                for _ in 0..50 {
                    let found = sessions.get_or_create_with("a", "1", spec(), never());
                    found.await.unwrap();
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    assert_eq!(made.ended(), None);
}

#[tokio::test]
async fn an_expired_session_is_looked_into_once_at_a_time() {
    let (unruly, (clock, hand)) = (Unruly::new(), manual());
    let config = SessionsConfig::new().clock(clock).idle_timeout(MINUTE);
    let sessions = open(unruly.over(ModelProvider::new()), config).await;
    let _idle = sessions.get_or_create("a", "1", spec()).await.unwrap();
    unruly.all(&[Operation::ListJobs], Fate::Hung);
    hand.advance(MINUTE);
    unruly.until_hung(Operation::ListJobs).await;
    for key in 0..20 {
        // Each wakes the reaper: it ends before what the reaper waits for.
        let life = Duration::from_secs(30) - Duration::from_secs(key);
        let options = SessionOptions::new().max_life(life);
        let name = format!("short-{key}");
        let made = sessions.get_or_create_with("b", name, spec(), options);
        made.await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(unruly.hung(Operation::ListJobs), 1);
}

#[tokio::test]
async fn after_a_shutdown_that_keeps_them_sessions_are_the_next_process_s() {
    let place = tempfile::tempdir().unwrap();
    let config = SessionsConfig::new().journal(place.path());
    let cloud = Cloud::new(ModelProvider::new());
    let sessions = reopen(&cloud, &config).await;
    let session = sessions.get_or_create("a", "1", spec()).await.unwrap();
    session.sandbox().write("f", "kept").await.unwrap();
    let keep = ShutdownOptions::new().keep(true);
    assert_eq!(sessions.shutdown(keep).await.unwrap().kept, 1);
    let next = Sessions::open(Arc::new(cloud.clone()), config)
        .await
        .unwrap();
    let shut = |result: Result<(), sandbox_sessions::Error>| result.unwrap_err().kind();
    let got = sessions.get("a", "1").await.map(drop);
    assert_eq!(shut(got), ErrorKind::ShutDown);
    let forked = session.fork("2", SessionOptions::new()).await.map(drop);
    assert_eq!(shut(forked), ErrorKind::ShutDown);
    assert_eq!(shut(session.suspend().await), ErrorKind::ShutDown);
    assert_eq!(shut(session.close().await), ErrorKind::ShutDown);
    assert_eq!(shut(sessions.close("a", "1").await), ErrorKind::ShutDown);
    let new = next.get_or_create("a", "2", spec()).await.unwrap();
    sessions.sweep().await;
    new.sandbox().write("f", "new").await.unwrap();
    let again = next.get("a", "1").await.unwrap();
    assert_eq!(again.sandbox().read("f").await.unwrap(), "kept");
    next.shutdown(ShutdownOptions::new()).await.unwrap();
}

#[tokio::test]
async fn a_shutdown_tells_what_it_did_not_destroy() {
    for fate in [Fate::Refused, Fate::Hung] {
        let unruly = Unruly::new();
        let sessions = open(unruly.over(ModelProvider::new()), SessionsConfig::new()).await;
        let bad = sessions.get_or_create("a", "bad", spec()).await.unwrap();
        let good = sessions.get_or_create("a", "good", spec()).await.unwrap();
        let stays: SandboxId = bad.sandbox().info().id;
        unruly.rule(move |call| match call.request {
            Request::Close | Request::Destroy(_) if call.sandbox_id().as_ref() == Some(&stays) => {
                fate
            }
            _ => Fate::Served,
        });
        let options = ShutdownOptions::new().deadline(Duration::from_millis(500));
        let report = within(sessions.shutdown(options)).await.unwrap();
        let left: Vec<_> = report.left.iter().map(|info| &info.id).collect();
        assert_eq!((report.closed, left), (1, vec![bad.id()]), "{fate:?}");
        assert!(good.ended().is_some());
    }
}

#[tokio::test]
async fn a_session_that_is_being_forked_is_in_use() {
    let (unruly, (clock, hand)) = (Unruly::new(), manual());
    let config = SessionsConfig::new().clock(clock).idle_timeout(MINUTE);
    let sessions = open(unruly.over(ModelProvider::new()), config).await;
    let session = sessions.get_or_create("a", "1", spec()).await.unwrap();
    let other = sessions.get_or_create("a", "2", spec()).await.unwrap();
    unruly.all(&[Operation::Fork], Fate::Hung);
    let mut forking = Box::pin(session.fork("3", SessionOptions::new()));
    assert!(poll(&mut forking).is_pending());
    unruly.until_hung(Operation::Fork).await;
    hand.advance(MINUTE);
    eventually("the other has ended", async || other.ended().is_some()).await;
    assert_eq!(session.ended(), None);
    unruly.calm();
    within(forking).await.unwrap();
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_no_step_half_done() {
    let place = tempfile::tempdir().unwrap();
    let config = SessionsConfig::new().journal(place.path());
    for creates in [false, true] {
        let (cloud, unruly) = (Cloud::new(ModelProvider::new()), Unruly::new());
        let sessions = open(unruly.over(cloud.clone()), config.clone()).await;
        let session = sessions.get_or_create("a", "1", spec()).await.unwrap();
        let id = session.sandbox().info().id;
        drop((session, sessions));
        let sessions = loop {
            match Sessions::open(unruly.over(cloud.clone()), config.clone()).await {
                Err(error) if error.kind() == ErrorKind::Locked => {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                opened => break opened.unwrap(),
            }
        };
        // Gone by the time that it is asked for.
        cloud.model.lose(&id);
        unruly.all(&[Operation::Destroy], Fate::Hung);
        let asking = tokio::spawn({
            let sessions = sessions.clone();
            async move {
                match creates {
                    true => sessions.get_or_create("a", "1", spec()).await,
                    false => sessions.get("a", "1").await,
                }
            }
        });
        unruly.until_hung(Operation::Destroy).await;
        asking.abort();
        assert!(asking.await.unwrap_err().is_cancelled());
        unruly.calm();
        let options = ShutdownOptions::new().deadline(Duration::MAX);
        within(sessions.shutdown(options)).await.unwrap();
        assert!(sessions.list(&Filter::new()).is_empty());
    }
}

/// Runs something that is not in a runtime, as a caller's own executor would.
fn without_a_runtime<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(run).join().expect("it panicked"))
}

#[test]
fn nothing_panics_outside_of_a_runtime() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let place = tempfile::tempdir().unwrap();
    let config = SessionsConfig::new()
        .journal(place.path())
        .limits(Limits::new().total(1));
    let cloud = Cloud::new(ModelProvider::new());
    runtime.block_on(async {
        let sessions = reopen(&cloud, &config).await;
        sessions.get_or_create("a", "1", spec()).await.unwrap();
    });
    let sessions = runtime.block_on(reopen(&cloud, &config));
    let session = without_a_runtime(|| waiting_for(sessions.get("a", "1"))).unwrap();
    let wait = SessionOptions::new().wait(Wait::AtMost(Duration::from_millis(5)));
    let full = without_a_runtime(|| {
        waiting_for(sessions.get_or_create_with("a", "2", spec(), wait.clone()))
    });
    assert_eq!(full.unwrap_err().kind(), ErrorKind::Full);
    without_a_runtime(|| waiting_for(session.ping())).unwrap();
    without_a_runtime(|| waiting_for(sessions.sweep()));
    let closed = without_a_runtime(|| waiting_for(sessions.shutdown(ShutdownOptions::new())));
    assert_eq!(closed.unwrap().closed, 1);
    drop(runtime);
    // Nor once the sessions' own has ended.
    let late = without_a_runtime(|| waiting_for(sessions.get("a", "1")));
    assert_eq!(late.unwrap_err().kind(), ErrorKind::ShutDown);
    without_a_runtime(|| waiting_for(sessions.sweep()));
}

/// Polls until it is ready, in this thread.
fn waiting_for<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let until = std::time::Instant::now() + BOUND;
    loop {
        if let Poll::Ready(done) = future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            return done;
        }
        assert!(std::time::Instant::now() < until, "it hangs");
        std::thread::sleep(Duration::from_millis(1));
    }
}
