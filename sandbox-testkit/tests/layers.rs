//! The layers of the core, on the model with faults injected: what each does when something fails.
//!
//! Every refusal has a control that shows the same call going through.
#![allow(clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use sandbox_core::layer::{
    Around, Attempt, Call, CapabilityGuard, ConcurrencyLimit, Layer, Retry, Stack, Target, Timeout,
    Tracing,
};
use sandbox_core::{
    Capability, Command, CreateDirOptions, Env, ErrorKind, Execution, FileBatch, GuestPath,
    ImportOptions, Labels, Operation, Process, Provider, RemoveOptions, Result, Sandbox,
    SandboxExt as _, SandboxSpec, Signal, SnapshotOptions, WriteMode,
};
use sandbox_testkit::model::{Fault, ModelProvider};

const LOST: Fault = Fault::LoseAnswer(ErrorKind::Unavailable);
const REFUSED: Fault = Fault::Refuse(ErrorKind::Unavailable);

fn quick() -> Retry {
    Retry::new(3).wait(Duration::from_millis(1))
}

async fn layered(model: &ModelProvider, layer: impl Layer) -> Arc<dyn Sandbox> {
    let provider = layer.layer_provider(Arc::new(model.clone()));
    provider.create(SandboxSpec::new()).await.expect("created")
}

/// Counts the runs of a command that adds an `x` to the file `ran`.
async fn runs(sandbox: &dyn Sandbox) -> usize {
    match sandbox.read_to_string("ran").await {
        Ok(text) => text.len(),
        Err(error) if error.kind() == ErrorKind::NotFound => 0,
        Err(error) => panic!("{error}"),
    }
}

// Retry.

#[tokio::test]
async fn a_retry_never_runs_a_command_that_may_have_run() {
    let model = ModelProvider::builder()
        .fault_on(Operation::Exec, [LOST, LOST])
        .build();
    let sandbox = layered(&model, quick()).await;
    let error = sandbox.sh("printf x >> ran").await.expect_err("lost");
    assert_eq!(error.execution(), Some(Execution::Unknown));
    assert!(error.is_retryable(), "the layer has a reason to try again");
    assert_eq!(model.count(Operation::Exec), 1, "attempts");
    assert_eq!(runs(&*sandbox).await, 1, "runs");
}

#[tokio::test]
async fn a_retry_never_starts_a_process_that_may_have_started() {
    let model = ModelProvider::builder()
        .fault_on(Operation::Spawn, [LOST, LOST])
        .build();
    let sandbox = layered(&model, quick()).await;
    let spawned = sandbox.spawn(Command::shell("printf x >> ran")).await;
    assert_eq!(
        spawned.expect_err("lost").execution(),
        Some(Execution::Unknown)
    );
    assert_eq!(model.count(Operation::Spawn), 1, "attempts");
}

#[tokio::test]
async fn a_retry_never_runs_a_command_that_was_cut() {
    let model = ModelProvider::new();
    let sandbox = layered(&model, quick()).await;
    let script = "printf x >> ran; sleep 50";
    let command = Command::shell(script).timeout(Duration::from_millis(300));
    let error = sandbox.exec(command).await.expect_err("cut");
    assert_eq!(error.execution(), Some(Execution::Interrupted));
    assert_eq!(model.count(Operation::Exec), 1, "attempts");
}

#[tokio::test]
async fn a_command_that_did_not_start_is_run_again_and_runs_once() {
    let model = ModelProvider::builder()
        .fault_on(Operation::Exec, [REFUSED, REFUSED])
        .build();
    let sandbox = layered(&model, quick()).await;
    sandbox.sh("printf x >> ran").await.expect("the third");
    assert_eq!(model.count(Operation::Exec), 3, "attempts");
    assert_eq!(runs(&*sandbox).await, 1, "runs");
}

#[tokio::test]
async fn attempts_are_bounded_and_the_last_error_is_told() {
    let model = ModelProvider::builder()
        .fault_on(Operation::ReadFile, vec![REFUSED; 9])
        .build();
    let sandbox = layered(&model, quick()).await;
    let error = sandbox.read("f").await.expect_err("refused each time");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(model.count(Operation::ReadFile), 3, "attempts");
}

#[tokio::test]
async fn an_error_that_will_not_go_away_is_told_at_once() {
    let model = ModelProvider::new();
    let sandbox = layered(&model, quick()).await;
    let error = sandbox.read("missing").await.expect_err("not found");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(model.count(Operation::ReadFile), 1, "attempts");
}

#[tokio::test]
async fn the_wait_between_attempts_doubles() {
    let model = ModelProvider::builder()
        .fault_on(Operation::ReadFile, [REFUSED, REFUSED])
        .build();
    let retry = Retry::new(3).wait(Duration::from_millis(30));
    let sandbox = layered(&model, retry).await;
    sandbox.write("f", "x").await.expect("written");
    let start = Instant::now();
    sandbox.read("f").await.expect("the third");
    // 30 ms and 60 ms: only less would be a fault, a busy host takes longer.
    let passed = start.elapsed();
    assert!(passed >= Duration::from_millis(90), "{passed:?}");
}

/// Calls whose effect a second one would repeat, or find in its way.
#[tokio::test]
async fn what_a_second_attempt_would_repeat_is_not_repeated() {
    let operations = [
        Operation::Create,
        Operation::Destroy,
        Operation::WriteFiles,
        Operation::Remove,
        Operation::CreateDir,
        Operation::Rename,
        Operation::Fork,
        Operation::Snapshot,
        Operation::Close,
    ];
    for operation in operations {
        let model = ModelProvider::builder()
            .fault_on(operation, [LOST, LOST])
            .build();
        let provider = quick().layer_provider(Arc::new(model.clone()));
        let error = once(&*provider, operation).await.expect_err("lost");
        assert_eq!(error.operation(), operation);
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{operation}");
        assert_eq!(model.count(operation), 1, "attempts of {operation}");
    }
}

/// Makes one call of this operation, in the form that must not be repeated.
async fn once(provider: &dyn Provider, operation: Operation) -> Result<()> {
    let sandbox = provider.create(SandboxSpec::new()).await?;
    let (path, to) = (GuestPath::from("/tmp"), GuestPath::from("/other"));
    match operation {
        Operation::Destroy => provider.destroy(&sandbox.info().id).await,
        Operation::WriteFiles => {
            let mut batch = FileBatch::new();
            batch.push("new", "x").write_mode = WriteMode::CreateNew;
            sandbox.write_files(batch).await
        }
        Operation::Remove => sandbox.remove(&path, RemoveOptions::new()).await,
        Operation::CreateDir => {
            let mut exclusive = CreateDirOptions::new();
            exclusive.recursive = false;
            sandbox.create_dir(&"new".into(), exclusive).await
        }
        Operation::Rename => sandbox.move_to(&path, &to).await,
        Operation::Fork => sandbox.fork_one().await.map(drop),
        Operation::Snapshot => sandbox.snapshot(SnapshotOptions::new()).await.map(drop),
        _ => sandbox.close().await,
    }
}

#[tokio::test]
async fn what_gives_the_same_twice_is_repeated_after_a_lost_answer() {
    let operations = [
        Operation::Attach,
        Operation::List,
        Operation::Isolation,
        Operation::WriteFiles,
        Operation::ReadFile,
        Operation::ListDir,
        Operation::Metadata,
        Operation::CreateDir,
        Operation::ImportDir,
        Operation::SetWorkdir,
        Operation::SetEnv,
    ];
    for operation in operations {
        let model = ModelProvider::builder()
            .fault_on(operation, [LOST, LOST])
            .build();
        let provider = quick().layer_provider(Arc::new(model.clone()));
        again(&*provider, operation)
            .await
            .unwrap_or_else(|error| panic!("{operation}: {error}"));
        assert_eq!(model.count(operation), 3, "attempts of {operation}");
    }
}

/// Makes one call of this operation, in the form that may be repeated.
async fn again(provider: &dyn Provider, operation: Operation) -> Result<()> {
    let sandbox = provider.create(SandboxSpec::new()).await?;
    let host = tempfile::tempdir().expect("a directory");
    let path = GuestPath::from("/tmp");
    match operation {
        Operation::Attach => provider.attach(&sandbox.info().id).await.map(drop),
        Operation::List => provider.list(&Labels::new()).await.map(drop),
        Operation::Isolation => sandbox.isolation().await.map(drop),
        Operation::WriteFiles => sandbox.write("/tmp/f", "x").await,
        Operation::ReadFile => {
            sandbox.sh("printf x > /tmp/f").await?;
            sandbox.read("/tmp/f").await.map(drop)
        }
        Operation::ListDir => sandbox.list("/tmp").await.map(drop),
        Operation::Metadata => sandbox.stat(&path).await.map(drop),
        Operation::CreateDir => sandbox.create_dir_all(&path).await,
        Operation::ImportDir => {
            let options = ImportOptions::new();
            sandbox
                .import_dir(host.path(), &path, options)
                .await
                .map(drop)
        }
        Operation::SetWorkdir => sandbox.set_workdir(&path).await,
        _ => sandbox.set_env(Env::new().set("A", "b")).await,
    }
}

// Timeout.

const SOON: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_call_that_hangs_is_given_up_and_named() {
    let model = ModelProvider::builder()
        .fault_on(Operation::ReadFile, [Fault::Hang])
        .build();
    let sandbox = layered(&model, Timeout::new(SOON)).await;
    let error = sandbox.read("f").await.expect_err("late");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(error.operation(), Operation::ReadFile);
    assert_eq!(error.sandbox(), Some(&sandbox.info().id));
    assert_eq!(error.execution(), None);
    sandbox.write("f", "x").await.expect("it works on");
    sandbox.read("f").await.expect("without a fault");
}

#[tokio::test]
async fn an_exec_that_hangs_is_given_up_and_nothing_is_claimed_of_it() {
    let model = ModelProvider::builder()
        .fault_on(Operation::Exec, [Fault::Hang])
        .fault_on(Operation::Spawn, [Fault::Hang])
        .build();
    let sandbox = layered(&model, Timeout::new(SOON)).await;
    let error = sandbox.sh("true").await.expect_err("late");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(error.execution(), Some(Execution::Unknown));
    let error = sandbox.spawn(Command::new("true")).await.expect_err("late");
    assert_eq!(error.execution(), Some(Execution::Unknown));
    sandbox.sh("true").await.expect("without a fault");
}

#[tokio::test]
async fn a_command_gets_the_shorter_timeout_and_keeps_its_output() {
    let model = ModelProvider::new();
    let sandbox = layered(&model, Timeout::new(SOON)).await;
    for own in [None, Some(Duration::from_secs(50))] {
        let mut command = Command::shell("printf before; sleep 50");
        command.timeout = own;
        let error = sandbox.exec(command).await.expect_err("cut");
        assert_eq!(
            error.execution(),
            Some(Execution::Interrupted),
            "{own:?}: {error:?}"
        );
        let partial = error.partial_output().expect("partial output");
        assert_eq!(partial.stdout.to_string_lossy(), "before");
    }
    let long = layered(&model, Timeout::new(Duration::from_secs(50))).await;
    let command = Command::shell("sleep 50").timeout(SOON);
    let error = long.exec(command).await.expect_err("cut");
    assert_eq!(
        error.execution(),
        Some(Execution::Interrupted),
        "its own timeout holds"
    );
}

#[tokio::test]
async fn what_frees_something_has_its_time() {
    let slow = Fault::Delay(SOON * 2);
    let model = ModelProvider::builder()
        .fault_on(Operation::Close, [slow.clone()])
        .fault_on(Operation::Destroy, [slow.clone()])
        .fault_on(Operation::ReadFile, [slow])
        .build();
    let provider = Timeout::new(SOON).layer_provider(Arc::new(model));
    let sandbox = provider.create(SandboxSpec::new()).await.expect("created");
    let control = sandbox.read("f").await.expect_err("late");
    assert_eq!(control.kind(), ErrorKind::Unavailable);
    sandbox.close().await.expect("closed");
    let other = provider.create(SandboxSpec::new()).await.expect("created");
    let id = other.info().id;
    provider.destroy(&id).await.expect("destroyed");
}

#[tokio::test]
async fn a_creation_that_hangs_is_given_up() {
    let model = ModelProvider::builder()
        .fault_on(Operation::Create, [Fault::Hang])
        .build();
    let provider = Timeout::new(SOON).layer_provider(Arc::new(model));
    let error = provider.create(SandboxSpec::new()).await;
    let error = error.expect_err("late");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(error.operation(), Operation::Create);
    provider.create(SandboxSpec::new()).await.expect("the next");
}

// ConcurrencyLimit.

/// Counts how many calls are under way, and keeps the order in which they began.
#[derive(Clone, Debug, Default)]
struct Gauge {
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    began: Arc<Mutex<Vec<GuestPath>>>,
}

impl Around for Gauge {
    async fn around<T: Send>(&self, call: Call<'_>, attempt: Attempt<'_, T>) -> Result<T> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        let paths = call.paths().into_iter().cloned();
        self.began.lock().expect("the order").extend(paths);
        let result = attempt().await;
        self.now.fetch_sub(1, Ordering::SeqCst);
        result
    }
}

fn slow_reads() -> ModelProvider {
    ModelProvider::builder()
        .fault(|call| {
            (call.operation() == Operation::Metadata)
                .then_some(Fault::Delay(Duration::from_millis(20)))
        })
        .build()
}

#[tokio::test]
async fn no_more_calls_are_under_way_than_the_limit_in_a_sandbox_and_its_forks() {
    let gauge = Gauge::default();
    let stack = Stack::new()
        .with(ConcurrencyLimit::new(3))
        .with(gauge.clone());
    let sandbox = layered(&slow_reads(), stack).await;
    let fork = sandbox.fork_one().await.expect("a fork");
    let path = GuestPath::from("/tmp");
    let calls = (0..20).map(|i| if i % 2 == 0 { &sandbox } else { &fork });
    let done = join_all(calls.map(|sandbox| sandbox.stat(&path))).await;
    assert!(done.iter().all(Result::is_ok));
    assert_eq!(gauge.most.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn calls_without_a_limit_are_all_under_way() {
    let gauge = Gauge::default();
    let sandbox = layered(&slow_reads(), gauge.clone()).await;
    let path = GuestPath::from("/tmp");
    join_all((0..20).map(|_| sandbox.stat(&path))).await;
    assert_eq!(gauge.most.load(Ordering::SeqCst), 20);
}

const SLOW: Fault = Fault::Delay(Duration::from_millis(20));

#[tokio::test]
async fn many_forks_are_made_side_by_side_and_not_all_at_once() {
    let gauge = Gauge::default();
    let model = ModelProvider::builder()
        .fault_on(Operation::Fork, [SLOW; 20])
        .build();
    let sandbox = layered(&model, gauge.clone()).await;
    let forks = sandbox.fork_many(20).await.expect("forks");
    assert_eq!(forks.len(), 20);
    assert_eq!(gauge.most.load(Ordering::SeqCst), 8);
    let ids: BTreeSet<_> = forks.iter().map(|fork| fork.info().id).collect();
    assert_eq!(ids.len(), 20, "each is a sandbox of its own");
    assert!(sandbox.fork_many(0).await.expect("none").is_empty());
}

#[tokio::test]
async fn of_many_forks_none_is_left_when_one_fails() {
    let faults = [SLOW, SLOW, SLOW, REFUSED, SLOW, SLOW, SLOW, SLOW];
    let model = ModelProvider::builder()
        .fault_on(Operation::Fork, faults)
        .build();
    let provider: Arc<dyn Provider> = Arc::new(model.clone());
    let sandbox = provider.create(SandboxSpec::new()).await.expect("created");
    let error = sandbox.fork_many(20).await.expect_err("one fails");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(model.count(Operation::Fork), 8, "none is begun after it");
    let left = provider.list(&Labels::new()).await.expect("a list");
    assert_eq!(left.len(), 1, "only the parent: {left:?}");
}

#[tokio::test]
async fn calls_wait_in_the_order_in_which_they_came() {
    let gauge = Gauge::default();
    let stack = Stack::new()
        .with(ConcurrencyLimit::new(1))
        .with(gauge.clone());
    let sandbox = layered(&slow_reads(), stack).await;
    let paths: Vec<GuestPath> = (0..8).map(|i| format!("/{i}").into()).collect();
    join_all(paths.iter().map(|path| sandbox.stat(path))).await;
    assert_eq!(*gauge.began.lock().expect("the order"), paths);
}

/// Whether a call finds a place; one that does not would wait without end.
async fn has_place(sandbox: &dyn Sandbox) -> bool {
    let path = GuestPath::from("/tmp");
    let call = sandbox.stat(&path);
    tokio::time::timeout(Duration::from_millis(300), call)
        .await
        .is_ok_and(|found| found.is_ok())
}

#[tokio::test]
async fn a_process_keeps_its_place_until_it_ended_or_was_let_go() {
    let model = ModelProvider::new();
    let sandbox = layered(&model, ConcurrencyLimit::new(1)).await;
    let sleeping = || sandbox.spawn(Command::shell("sleep 50"));

    let dropped = sleeping().await.expect("started");
    assert!(!has_place(&*sandbox).await, "a process runs");
    drop(dropped);
    assert!(has_place(&*sandbox).await, "it was dropped");

    let killed = sleeping().await.expect("started");
    assert!(!has_place(&*sandbox).await, "a process runs");
    killed.kill().await.expect("killed");
    assert!(has_place(&*sandbox).await, "it was killed");

    let waited = sleeping().await.expect("started");
    waited.signal(Signal::KILL).await.expect("signalled");
    waited.wait().await.expect("it ended");
    assert!(has_place(&*sandbox).await, "it was waited for");
    drop((killed, waited));
    let control = sleeping().await.expect("started");
    assert!(!has_place(&*sandbox).await, "no place was given back twice");
    drop(control);
}

#[tokio::test]
async fn a_process_that_was_not_started_keeps_no_place() {
    let model = ModelProvider::new();
    let sandbox = layered(&model, ConcurrencyLimit::new(1)).await;
    let spawned = sandbox.spawn(Command::new("no-such-program")).await;
    assert_eq!(
        spawned.expect_err("missing").kind(),
        ErrorKind::CommandNotFound
    );
    assert!(has_place(&*sandbox).await);
}

#[tokio::test]
async fn close_and_destroy_never_wait_for_a_place() {
    let model = ModelProvider::new();
    let provider = ConcurrencyLimit::new(2).layer_provider(Arc::new(model));
    let first = provider.create(SandboxSpec::new()).await.expect("created");
    let second = provider.create(SandboxSpec::new()).await.expect("created");
    let one = first.spawn(Command::shell("sleep 50")).await;
    let two = second.spawn(Command::shell("sleep 50")).await;
    assert!(one.is_ok() && two.is_ok());
    assert!(!has_place(&*first).await, "every place is taken");
    first.close().await.expect("closed");
    let id = second.info().id;
    provider.destroy(&id).await.expect("destroyed");
}

#[tokio::test]
async fn a_call_that_is_given_up_leaves_the_queue() {
    let model = ModelProvider::new();
    let sandbox = layered(&model, ConcurrencyLimit::new(1)).await;
    let process = sandbox.spawn(Command::shell("sleep 50")).await;
    for _ in 0..3 {
        assert!(!has_place(&*sandbox).await, "a process runs");
    }
    drop(process);
    assert!(has_place(&*sandbox).await, "nothing waits before it");
}

// The capability guard.

#[tokio::test]
async fn the_guard_refuses_what_is_not_declared_before_the_backend_sees_it() {
    let model = ModelProvider::builder()
        .lacks(Capability::Fork, "not today")
        .lacks(Capability::Snapshot, "not today")
        .lacks(Capability::StdinPipe, "not today")
        .lacks(Capability::List, "not today")
        .lacks(Capability::Attach, "not today")
        .build();
    let provider = CapabilityGuard::new().layer_provider(Arc::new(model.clone()));
    let sandbox = provider.create(SandboxSpec::new()).await.expect("created");
    let id = sandbox.info().id;
    let mut as_user = Command::new("true");
    as_user.user = Some("other".into());
    let piped = Command::new("cat").stdin_piped();
    let refused = [
        sandbox.exec(as_user).await.map(drop),
        sandbox.spawn(piped).await.map(drop),
        sandbox.fork_one().await.map(drop),
        sandbox.snapshot(SnapshotOptions::new()).await.map(drop),
        provider.list(&Labels::new()).await.map(drop),
        provider.attach(&id).await.map(drop),
        provider.destroy(&id).await,
    ];
    for result in refused {
        let error = result.expect_err("refused");
        let operation = error.operation();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
        assert_eq!(model.count(operation), 0, "{operation} reached the backend");
        let runs = matches!(operation, Operation::Exec | Operation::Spawn);
        let ran = runs.then_some(Execution::NotStarted);
        assert_eq!(error.execution(), ran, "{error:?}");
    }
    sandbox.sh("true").await.expect("what is declared passes");
    sandbox.spawn(Command::new("true")).await.expect("so");
}

// Tracing.

/// Lines that a subscriber wrote.
#[derive(Clone, Debug, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("lines").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn every_call_and_process_is_traced_and_no_secret_is() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG)
        .with_writer(move || writer.clone())
        .finish();
    let model = ModelProvider::new();
    let id = {
        let _guard = tracing_subscriber::util::SubscriberInitExt::set_default(subscriber);
        let sandbox = layered(&model, Tracing::new()).await;
        let secret = Env::new().set("KEY", "hunter2");
        sandbox.set_env(secret).await.expect("set");
        sandbox
            .write("secret-name", "hunter2")
            .await
            .expect("written");
        let command = Command::shell("exit 7").arg("hunter2").env("K", "hunter2");
        let process = sandbox.spawn(command).await.expect("started");
        process.wait().await.expect("ended");
        process.wait().await.expect("ended, asked again");
        sandbox.read("missing").await.expect_err("not there");
        sandbox.close().await.expect("closed");
        sandbox.info().id
    };
    let bytes = lines.0.lock().expect("lines").clone();
    let text = String::from_utf8(bytes).expect("text");
    for told in [
        "operation=\"create\"",
        "operation=\"set_env\"",
        "operation=\"write_files\"",
        "operation=\"spawn\"",
        "operation=\"close\"",
        "backend=\"model\"",
        &format!("id=\"{id}\""),
        "kind=NotFound",
    ] {
        assert!(text.contains(told), "{told} is missing from\n{text}");
    }
    let ends: Vec<&str> = text.lines().filter(|line| line.contains("ended")).collect();
    assert_eq!(ends.len(), 1, "{text}");
    assert!(ends[0].contains('7'), "the status: {}", ends[0]);
    for kept in ["hunter2", "secret-name", "exit 7"] {
        assert!(!text.contains(kept), "{kept} is in\n{text}");
    }
}

// What layers see, and their order.

/// Everything that a layer was told of a call.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    operation: Operation,
    on_provider: bool,
    sandbox: bool,
    paths: Vec<String>,
    host: Option<PathBuf>,
    program: Option<String>,
    files: Option<usize>,
}

#[derive(Clone, Debug, Default)]
struct Recorder {
    name: &'static str,
    seen: Arc<Mutex<Vec<Seen>>>,
    order: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    fn note(&self, what: &str, operation: Operation) {
        let text = format!("{} {what} {operation}", self.name);
        self.order.lock().expect("the order").push(text);
    }
}

impl Around for Recorder {
    async fn around<T: Send>(&self, call: Call<'_>, attempt: Attempt<'_, T>) -> Result<T> {
        self.seen.lock().expect("calls").push(Seen {
            operation: call.operation(),
            on_provider: matches!(call.target, Target::Provider(_)),
            sandbox: call.sandbox_id().is_some(),
            paths: call.paths().iter().map(|path| path.to_string()).collect(),
            host: call.host_path().map(PathBuf::from),
            program: call
                .command()
                .map(|command| String::from_utf8_lossy(command.program()).into_owned()),
            files: call.batch().map(|batch| batch.files().len()),
        });
        self.note("before", call.operation());
        let result = attempt().await;
        self.note("after", call.operation());
        result
    }

    fn process(&self, call: Call<'_>, process: Process) -> Process {
        assert!(call.command().is_some(), "a process has its command");
        self.note("process of", call.operation());
        process
    }
}

#[tokio::test]
async fn a_layer_is_told_everything_that_a_call_was_given() {
    let recorder = Recorder::default();
    let model = ModelProvider::new();
    let provider = recorder.layer_provider(Arc::new(model));
    let host = tempfile::tempdir().expect("a directory");
    let out = host.path().join("out");
    let sandbox = provider
        .create(SandboxSpec::new().workdir("/w"))
        .await
        .expect("created");
    let id = sandbox.info().id;
    let every = async {
        let p = |text: &str| GuestPath::from(text);
        sandbox.isolation().await?;
        sandbox.exec(Command::new("true").cwd("/tmp")).await?;
        sandbox.spawn(Command::new("true")).await?.wait().await?;
        sandbox
            .write_files(FileBatch::new().file("a", "1").file("b/c", "2"))
            .await?;
        sandbox.read("a").await?;
        sandbox.list("b").await?;
        sandbox.stat("a").await?;
        sandbox.create_dir_all(p("d")).await?;
        sandbox.move_to(p("a"), p("d/a")).await?;
        sandbox.remove(&p("d/a"), RemoveOptions::new()).await?;
        sandbox.import(host.path(), p("in")).await?;
        sandbox.export(p("b"), &out).await?;
        sandbox.set_workdir(&p("b")).await?;
        sandbox.set_env(Env::new().set("A", "b")).await?;
        sandbox.fork_one().await?.close().await?;
        sandbox.snapshot(SnapshotOptions::new()).await?;
        provider.list(&Labels::new()).await?;
        provider.attach(&id).await?.stat("/w").await?;
        provider.destroy(&id).await?;
        sandbox.close().await
    };
    every.await.expect("every call works");

    let seen = recorder.seen.lock().expect("calls").clone();
    let seen: Vec<_> = seen.iter().map(row).collect();
    let (host, out) = (host.path().display(), out.display());
    let expected = [
        "provider create /w".to_owned(),
        "sandbox isolation".to_owned(),
        "sandbox exec /tmp program=true".to_owned(),
        "sandbox spawn program=true".to_owned(),
        "sandbox write_files a b/c files=2".to_owned(),
        "sandbox read_file a".to_owned(),
        "sandbox list_dir b".to_owned(),
        "sandbox metadata a".to_owned(),
        "sandbox create_dir d".to_owned(),
        "sandbox rename a d/a".to_owned(),
        "sandbox remove d/a".to_owned(),
        format!("sandbox import_dir in host={host}"),
        format!("sandbox export_dir b host={out}"),
        "sandbox set_workdir b".to_owned(),
        "sandbox set_env".to_owned(),
        "sandbox fork".to_owned(),
        "sandbox close".to_owned(),
        "sandbox snapshot".to_owned(),
        "provider list".to_owned(),
        "provider attach of=sandbox".to_owned(),
        "sandbox metadata /w".to_owned(),
        "provider destroy of=sandbox".to_owned(),
        "sandbox close".to_owned(),
    ];
    assert_eq!(seen, expected);
}

fn row(seen: &Seen) -> String {
    let mut row = match seen.on_provider {
        true => format!("provider {}", seen.operation),
        false => format!("sandbox {}", seen.operation),
    };
    if seen.on_provider && seen.sandbox {
        row += " of=sandbox";
    }
    for path in &seen.paths {
        row += &format!(" {path}");
    }
    if let Some(host) = &seen.host {
        row += &format!(" host={}", host.display());
    }
    if let Some(program) = &seen.program {
        row += &format!(" program={program}");
    }
    if let Some(files) = seen.files {
        row += &format!(" files={files}");
    }
    row
}

#[tokio::test]
async fn the_first_layer_of_a_stack_is_the_outermost_and_forks_and_processes_are_wrapped() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let named = |name| Recorder {
        name,
        seen: Arc::default(),
        order: order.clone(),
    };
    let stack = Stack::new().with(named("outer")).with(named("inner"));
    let sandbox = layered(&ModelProvider::new(), stack).await;
    let fork = sandbox.fork_one().await.expect("a fork");
    let second = fork.fork_one().await.expect("a fork");
    order.lock().expect("the order").clear();

    second.spawn(Command::new("true")).await.expect("started");
    let taken = std::mem::take(&mut *order.lock().expect("the order"));
    assert_eq!(
        taken,
        [
            "outer before spawn",
            "inner before spawn",
            "inner after spawn",
            "inner process of spawn",
            "outer after spawn",
            "outer process of spawn",
        ]
    );
}

/// The order that the module's documentation recommends does what it says it does.
#[tokio::test]
async fn the_usual_stack_retries_outside_of_the_limit_and_the_timeout() {
    let model = ModelProvider::builder()
        .fault_on(Operation::ReadFile, [REFUSED, Fault::Hang, REFUSED])
        .build();
    let stack = Stack::new()
        .with(Tracing::new())
        .with(quick())
        .with(ConcurrencyLimit::new(1))
        .with(Timeout::new(SOON))
        .with(CapabilityGuard::new());
    let sandbox = layered(&model, stack).await;
    sandbox.write("f", "x").await.expect("written");
    // The second attempt hangs and is cut by the timeout, which is no reason to try again.
    let error = sandbox.read("f").await.expect_err("late");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(model.count(Operation::ReadFile), 2, "attempts");
    // The place that the hanging call had was given back.
    sandbox.read("f").await.expect("the fourth");
    assert_eq!(model.count(Operation::ReadFile), 4, "attempts");
}
