//! Tests of what a policy lets through and what it refuses.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sandbox_core::layer::Layer as _;
use sandbox_core::{
    Command, ErrorKind, Execution, ListOptions, Operation, Provider, RemoveOptions, Sandbox,
    SandboxExt, SandboxSpec, SnapshotOptions, async_trait,
};
use sandbox_layers::{Approver, Policy, Question, Refused, Verdict};
use sandbox_testkit::model::{MockOutcome, ModelProvider};

struct Under {
    model: ModelProvider,
    /// Without the policy.
    free: Arc<dyn Sandbox>,
    bound: Arc<dyn Sandbox>,
}

async fn under(policy: Policy) -> Under {
    let model = ModelProvider::builder()
        .on_program("cargo", [MockOutcome::exit(0)])
        .build();
    let free = model.create(SandboxSpec::new()).await.unwrap();
    for path in ["src/a.rs", "secrets/key", ".env", "notes"] {
        free.write(path, "x").await.unwrap();
    }
    let bound = policy.layer(free.clone());
    Under { model, free, bound }
}

fn refused<T: std::fmt::Debug>(result: sandbox_core::Result<T>, what: &str) {
    use std::error::Error as _;
    let error = result.expect_err(what);
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{what}: {error}");
    assert!(error.source().unwrap().is::<Refused>(), "{what}");
}

#[tokio::test]
async fn denied_paths_are_refused_however_they_are_written() {
    let policy = Policy::new().deny_read("/workspace/secrets/**").unwrap();
    let it = under(policy.deny_read("**/.env").unwrap()).await;
    for path in [
        "secrets/key",
        "/workspace/secrets/key",
        "src/../secrets/key",
        "./secrets/./key",
        "//workspace//secrets//key",
        ".env",
        "/workspace/src/../.env",
    ] {
        refused(it.bound.read(path).await, path);
        // The control: without the policy it is read.
        it.free.read(path).await.unwrap();
    }
    it.bound.read("notes").await.unwrap();
    refused(it.bound.list("secrets").await, "the directory itself");
    refused(it.bound.stat("secrets/key").await, "what is there");
    it.bound.list(".").await.unwrap();
    let all = ListOptions::new().recursive(true);
    refused(
        it.bound.list_dir(&".".into(), all.clone()).await,
        "a whole tree",
    );
    it.free.list_dir(&".".into(), all).await.unwrap();
    let place = tempfile::tempdir().unwrap();
    refused(
        it.bound.export(".", place.path().join("out")).await,
        "an export",
    );
    refused(it.bound.move_to("secrets", "public").await, "a rename away");
    refused(
        it.bound.move_to("/workspace", "/w").await,
        "a rename from above",
    );
}

#[tokio::test]
async fn what_is_allowed_by_pattern_is_all_that_is() {
    let policy = Policy::new()
        .allow_write("/workspace/src/**")
        .unwrap()
        .deny_write("/workspace/src/generated/**")
        .unwrap();
    let it = under(policy).await;
    it.bound.write("src/b.rs", "x").await.unwrap();
    it.bound.create_dir_all("src/deep/er").await.unwrap();
    it.bound.read("notes").await.unwrap();
    refused(it.bound.write("notes", "x").await, "elsewhere");
    refused(
        it.bound.write("src/generated/x", "x").await,
        "denied is stronger",
    );
    refused(it.bound.write("/etc/x", "x").await, "outside");
    refused(
        it.bound.import(Path::new("/usr/share/doc"), "src").await,
        "a tree over denied ones",
    );
    refused(
        it.bound.remove_all("src").await,
        "a removal over denied ones",
    );
    it.bound.remove_all("src/deep").await.unwrap();
    it.bound
        .remove(&"src/b.rs".into(), RemoveOptions::new())
        .await
        .unwrap();
    it.bound.close().await.unwrap();
}

#[tokio::test]
async fn programs_are_matched_by_name_or_path_and_do_not_start() {
    let policy = Policy::new()
        .allow_program("cargo")
        .unwrap()
        .allow_program("/usr/bin/*")
        .unwrap()
        .deny_program("rm")
        .unwrap();
    let it = under(policy).await;
    it.bound.exec(Command::new("cargo")).await.unwrap();
    for program in ["sh", "/bin/sh", "rm", "/usr/bin/rm", "/opt/x"] {
        let error = it.bound.exec(Command::new(program)).await.unwrap_err();
        assert_eq!(error.execution(), Some(Execution::NotStarted), "{program}");
        refused::<()>(Err(error), program);
    }
    refused(it.bound.spawn(Command::new("sh")).await, "spawn");
    assert_eq!(it.model.count(Operation::Exec), 1);
}

#[tokio::test]
async fn no_way_of_writing_a_program_gets_around_a_rule() {
    let allowed = Policy::new().allow_program("/usr/**").unwrap();
    let it = under(allowed).await;
    for program in ["/usr/../opt/x", "/usr/bin/../../opt/x", "../opt/x", "x"] {
        refused(it.bound.exec(Command::new(program)).await, program);
    }
    // A link of the guest's could lead out before the dots lead back.
    refused(
        it.bound.exec(Command::new("/usr/bin/../bin/x")).await,
        "dots",
    );
    let denied = Policy::new().deny_program("/usr/bin/git").unwrap();
    let it = under(denied.deny_program("/opt/**").unwrap()).await;
    for program in [
        "/usr/bin/git",
        "/usr//bin/./git",
        "/usr/lib/../bin/git",
        "git",
        "/opt/x",
        "../opt/x",
    ] {
        refused(it.bound.exec(Command::new(program)).await, program);
    }
    for (cwd, program) in [("/usr/bin", "./git"), ("/usr", "bin/git")] {
        let command = Command::new(program).cwd(cwd);
        refused(it.bound.exec(command).await, program);
    }
    it.bound.exec(Command::new("cargo")).await.unwrap();
}

#[tokio::test]
async fn read_only_runs_nothing_and_changes_nothing() {
    let it = under(Policy::new().read_only()).await;
    it.bound.read("notes").await.unwrap();
    it.bound.list(".").await.unwrap();
    refused(it.bound.write("x", "x").await, "write");
    refused(it.bound.sh("true").await, "run");
    refused(it.bound.fork_one().await, "fork");
    refused(
        it.bound
            .set_env(sandbox_core::Env::new().set("A", "b"))
            .await,
        "set_env",
    );
    it.bound.close().await.unwrap();
    assert!(it.free.read("notes").await.is_err());
}

#[tokio::test]
async fn forks_and_created_sandboxes_are_bound_too() {
    let policy = Policy::new().deny_read("/workspace/secrets/**").unwrap();
    let it = under(policy.clone()).await;
    let fork = it.bound.fork_one().await.unwrap();
    refused(fork.read("secrets/key").await, "in a fork");
    let provider = policy.layer_provider(Arc::new(it.model.clone()));
    let made = provider.create(SandboxSpec::new()).await.unwrap();
    refused(made.read("secrets/key").await, "in a new one");
}

struct Person {
    asked: Arc<Mutex<Vec<Question>>>,
    answer: tokio::sync::Mutex<tokio::sync::mpsc::Receiver<Verdict>>,
}

#[async_trait]
impl Approver for Person {
    async fn decide(&self, question: Question) -> Verdict {
        self.asked.lock().unwrap().push(question);
        let mut answer = self.answer.lock().await;
        answer
            .recv()
            .await
            .unwrap_or_else(|| Verdict::Deny("no answer".into()))
    }
}

#[tokio::test]
async fn an_approval_is_waited_for_and_its_reason_is_told() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (answer, receiver) = tokio::sync::mpsc::channel(1);
    let person = Person {
        asked: asked.clone(),
        answer: receiver.into(),
    };
    let policy = Policy::new()
        .ask_program("cargo")
        .unwrap()
        .ask_write("/workspace/Cargo.toml")
        .unwrap()
        .approver(person);
    let it = under(policy).await;
    let bound = it.bound.clone();
    let running =
        tokio::spawn(async move { bound.exec(Command::new("cargo").arg("publish")).await });
    while asked.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(it.model.count(Operation::Exec), 0);
    answer.send(Verdict::Allow).await.unwrap();
    running.await.unwrap().unwrap();
    let question = asked.lock().unwrap()[0].clone();
    assert_eq!(question.argv.unwrap(), ["cargo", "publish"]);
    answer
        .send(Verdict::Deny("not today".into()))
        .await
        .unwrap();
    let error = it.bound.write("Cargo.toml", "x").await.unwrap_err();
    assert!(error.to_string().contains("not today"), "{error}");
    refused::<()>(Err(error), "denied");
}

#[tokio::test]
async fn without_an_approver_or_in_time_it_is_refused() {
    let policy = Policy::new().ask_program("cargo").unwrap();
    let it = under(policy.clone()).await;
    refused(it.bound.exec(Command::new("cargo")).await, "no approver");
    let (_answer, receiver) = tokio::sync::mpsc::channel(1);
    let silent = Person {
        asked: Arc::default(),
        answer: receiver.into(),
    };
    let policy = policy
        .approver(silent)
        .approval_timeout(Duration::from_millis(10));
    let it = under(policy).await;
    refused(it.bound.exec(Command::new("cargo")).await, "no answer");
    assert_eq!(it.model.count(Operation::Exec), 0);
}

#[test]
fn a_pattern_that_can_not_be_right_is_refused() {
    for pattern in [
        "relative",
        "",
        "./x",
        "/a[",
        "/a{b",
        "/secrets/",
        "/a//b",
        "/a/../secrets/**",
        "/./a",
        "**/",
        "//",
    ] {
        let error = Policy::new().deny_read(pattern).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{pattern:?}");
    }
    for pattern in ["", "./tool", "bin/tool", "/usr/bin/", "/usr/../bin/tool"] {
        let error = Policy::new().deny_program(pattern).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{pattern:?}");
    }
    for pattern in ["/", "/**", "**/.env", "/a/{b,c}/**"] {
        Policy::new().deny_read(pattern).unwrap();
    }
}

/// Moves the workdir while a call waits for its approval.
#[derive(Clone, Default)]
struct Mover {
    bound: Arc<Mutex<Option<Arc<dyn Sandbox>>>>,
    moved: Arc<Mutex<Vec<ErrorKind>>>,
}

#[async_trait]
impl Approver for Mover {
    async fn decide(&self, _: Question) -> Verdict {
        let bound = self.bound.lock().unwrap().clone();
        let moved = bound
            .unwrap()
            .set_workdir(&"/workspace/secrets".into())
            .await;
        self.moved
            .lock()
            .unwrap()
            .extend(moved.err().map(|e| e.kind()));
        Verdict::Allow
    }
}

#[tokio::test]
async fn what_was_judged_is_what_is_done_also_if_the_workdir_changes_meanwhile() {
    let mover = Mover::default();
    let policy = Policy::new()
        .deny_write("/workspace/secrets/**")
        .unwrap()
        .ask_write("/workspace/notes")
        .unwrap()
        .ask_program("/workspace/tool")
        .unwrap()
        .deny_program("/workspace/secrets/tool")
        .unwrap()
        .approver(mover.clone());
    let it = under(policy).await;
    *mover.bound.lock().unwrap() = Some(it.bound.clone());
    it.bound.write("notes", "approved").await.unwrap();
    assert_eq!(it.free.read("/workspace/notes").await.unwrap(), "approved");
    assert!(it.free.read("/workspace/secrets/notes").await.is_err());
    // A path of a program too.
    let _ = it.bound.exec(Command::new("./tool")).await;
    assert_eq!(*mover.moved.lock().unwrap(), [ErrorKind::Busy; 2]);
    assert_eq!(it.free.info().workdir, "/workspace".into());
    // Absolute paths depend on nothing, and afterwards it may change.
    it.bound.write("/workspace/notes", "x").await.unwrap();
    it.bound
        .set_workdir(&"/workspace/src".into())
        .await
        .unwrap();
    it.bound.write("b.rs", "x").await.unwrap();
    it.free.read("/workspace/src/b.rs").await.unwrap();
}

#[tokio::test]
async fn read_only_deletes_no_snapshot_and_gives_out_no_job() {
    let it = under(Policy::new().read_only()).await;
    let snapshot = it.free.snapshot(SnapshotOptions::new()).await.unwrap();
    let provider = Policy::new()
        .read_only()
        .layer_provider(Arc::new(it.model.clone()));
    let deleted = provider.delete_snapshot(&snapshot.id).await;
    refused(deleted, "delete_snapshot");
    let job = it.free.start("j", Command::new("cargo")).await.unwrap();
    refused(it.bound.find_job(job.key()).await, "find_job");
    assert_eq!(it.bound.list_jobs().await.unwrap().len(), 1);
}

#[test]
fn an_approval_in_time_needs_a_runtime_and_does_not_panic_without() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (_answer, receiver) = tokio::sync::mpsc::channel(1);
    let silent = Person {
        asked: Arc::default(),
        answer: receiver.into(),
    };
    let policy = Policy::new().ask_write("/workspace/**").unwrap();
    let policy = policy.approver(silent).approval_timeout(Duration::MAX);
    let it = runtime.block_on(under(policy));
    let mut write = Box::pin(it.bound.write("notes", "y"));
    let polled = std::future::Future::poll(
        write.as_mut(),
        &mut std::task::Context::from_waker(std::task::Waker::noop()),
    );
    match polled {
        std::task::Poll::Ready(result) => refused(result, "without a runtime"),
        std::task::Poll::Pending => panic!("it waits for ever"),
    }
}
