//! Tests of what stands in the audit log, and of what its chain shows.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sandbox_core::layer::{Layer as _, Stack};
use sandbox_core::{
    Command, ErrorKind, Execution, Operation, Provider, Sandbox, SandboxExt, SandboxSpec,
};
use sandbox_layers::{Audit, OnFailure, Policy, verify};
use sandbox_testkit::model::{MockOutcome, ModelProvider};
use serde_json::Value;

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn model() -> ModelProvider {
    ModelProvider::builder()
        .on_program(
            "tool",
            [MockOutcome::exit(3).stdout("12345"), MockOutcome::exit(0)],
        )
        .build()
}

async fn audited(audit: Audit, model: &ModelProvider) -> Arc<dyn Sandbox> {
    let provider = audit.layer_provider(Arc::new(model.clone()));
    provider
        .create(SandboxSpec::new().secret("TOKEN", "hunter2"))
        .await
        .unwrap()
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("audit.jsonl");
    (place, path)
}

#[tokio::test]
async fn every_operation_has_a_line_and_no_line_has_a_secret() {
    let (_place, path) = place();
    let policy = Policy::new().deny_read("/workspace/secrets/**").unwrap();
    let audit = Audit::open(&path).unwrap().tenant("acme").session("s1");
    let model = model();
    let stack = Stack::new().with(audit.clone()).with(policy);
    let provider = stack.layer_provider(Arc::new(model));
    let spec = SandboxSpec::new().secret("TOKEN", "hunter2");
    let sandbox = provider.create(spec).await.unwrap();
    sandbox.write("notes", "hunter2 content").await.unwrap();
    assert!(sandbox.read("secrets/key").await.is_err());
    let command = || {
        Command::new("tool")
            .arg("hunter2-arg")
            .env("P", "hunter2-env")
    };
    sandbox.exec(command()).await.unwrap();
    let process = sandbox.spawn(command()).await.unwrap();
    process.wait().await.unwrap();
    let fork = sandbox.fork_one().await.unwrap();
    fork.close().await.unwrap();
    sandbox.close().await.unwrap();

    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains("hunter2"), "{text}");
    let lines = lines(&path);
    let operations: Vec<&str> = lines
        .iter()
        .map(|l| l["operation"].as_str().unwrap())
        .collect();
    assert_eq!(
        operations,
        [
            "create",
            "write_files",
            "read_file",
            "exec",
            "spawn",
            "process",
            "fork",
            "close",
            "close"
        ]
    );
    for (number, line) in lines.iter().enumerate() {
        assert_eq!(
            (&line["tenant"], &line["session"]),
            (&"acme".into(), &"s1".into())
        );
        assert_eq!(line["seq"], number as u64 + 1);
        assert!(line["time"].is_f64() && line["ms"].is_f64() && line["sandbox"].is_string());
    }
    assert_eq!(lines[1]["subject"], "notes");
    assert_eq!(
        (&lines[2]["decision"], &lines[2]["error"]),
        (&"deny".into(), &"PermissionDenied".into())
    );
    assert!(lines[2]["reason"].as_str().unwrap().contains("secrets"));
    assert_eq!(
        (&lines[3]["subject"], &lines[3]["ran"]),
        (&"tool".into(), &"yes".into())
    );
    assert_eq!(
        (&lines[3]["exit"], &lines[3]["bytes"]),
        (&3.into(), &5.into())
    );
    assert_eq!(lines[4]["ran"], "started");
    assert_eq!(
        (&lines[5]["ran"], &lines[5]["exit"]),
        (&"yes".into(), &0.into())
    );
    let head = verify(&path).unwrap();
    assert_eq!(head, audit.head().await.unwrap());
    assert_eq!(head.seq, 9);
}

#[tokio::test]
async fn arguments_are_recorded_where_that_is_asked_for() {
    let (_place, path) = place();
    let sandbox = audited(Audit::open(&path).unwrap().argv(true), &model()).await;
    sandbox
        .exec(Command::new("tool").arg("--all"))
        .await
        .unwrap();
    assert_eq!(
        lines(&path)[1]["argv"],
        serde_json::json!(["tool", "--all"])
    );
}

#[tokio::test]
async fn a_call_whose_caller_goes_away_has_a_line() {
    let (_place, path) = place();
    let audit = Audit::open(&path).unwrap();
    let model = ModelProvider::builder()
        .on_program("hangs", [MockOutcome::hang(), MockOutcome::hang()])
        .build();
    let sandbox = audited(audit.clone(), &model).await;
    let gone = async |call: &mut (dyn Future<Output = ()> + Unpin)| {
        tokio::select! {
            () = call => panic!("it hangs"),
            () = async { while model.count(Operation::Exec) == 0 { tokio::task::yield_now().await } } => {}
        }
    };
    let exec = async { drop(sandbox.exec(Command::new("hangs")).await) };
    gone(&mut Box::pin(exec)).await;
    drop(sandbox.spawn(Command::new("hangs")).await.unwrap());
    // After all that was sent before.
    audit.head().await.unwrap();
    let lines = lines(&path);
    let said = |at: usize, field: &str| lines[at][field].as_str().unwrap().to_owned();
    assert_eq!(
        (said(1, "operation"), said(1, "ran")),
        ("exec".into(), "unknown".into())
    );
    assert_eq!(said(1, "error"), "Dropped");
    assert_eq!(said(2, "operation"), "spawn");
    assert_eq!(
        (said(3, "operation"), said(3, "ran")),
        ("process".into(), "interrupted".into())
    );
    verify(&path).unwrap();
}

#[tokio::test]
async fn a_line_that_was_changed_removed_or_put_in_is_found() {
    let (_place, path) = place();
    let sandbox = audited(Audit::open(&path).unwrap(), &model()).await;
    for name in ["a", "b", "c", "d"] {
        sandbox.write(name, "x").await.unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap();
    let whole: Vec<&str> = text.lines().collect();
    let broken = |lines: &[&str]| -> Option<String> {
        let copy = path.with_extension("copy");
        std::fs::write(&copy, lines.join("\n") + "\n").unwrap();
        verify(&copy).err().map(|error| error.to_string())
    };
    assert_eq!(broken(&whole), None);
    let changed = whole[2].replace("\"b\"", "\"z\"");
    let mut lines = whole.clone();
    lines[2] = &changed;
    assert!(broken(&lines).unwrap().contains("line 4"));
    let mut lines = whole.clone();
    lines.remove(1);
    assert!(broken(&lines).unwrap().contains("line 2"));
    let mut lines = whole.clone();
    lines.insert(2, whole[1]);
    assert!(broken(&lines).unwrap().contains("line 3"));
    let mut lines = whole.clone();
    lines.swap(1, 2);
    assert!(broken(&lines).is_some());
    // Without its end it is whole in itself: only a head that is kept elsewhere shows that.
    let head = verify(&path).unwrap();
    assert_eq!(broken(&whole[..3]), None);
    assert_ne!(verify(path.with_extension("copy")).unwrap(), head);
}

#[tokio::test]
async fn the_chain_goes_on_after_a_restart_and_over_a_torn_line() {
    let (_place, path) = place();
    {
        let sandbox = audited(Audit::open(&path).unwrap(), &model()).await;
        sandbox.write("a", "x").await.unwrap();
    }
    let reopen = async || loop {
        // The thread of the audit before gives the file up a moment later.
        match Audit::open(&path) {
            Err(error) if error.kind() == ErrorKind::Busy => tokio::task::yield_now().await,
            opened => return opened.unwrap(),
        }
    };
    let audit = reopen().await;
    assert_eq!(audit.head().await.unwrap().seq, 2);
    assert_eq!(Audit::open(&path).unwrap_err().kind(), ErrorKind::Busy);
    drop(audited(audit, &model()).await);
    drop(reopen().await);
    let mut text = std::fs::read(&path).unwrap();
    text.extend_from_slice(b"{\"operation\":\"exe");
    std::fs::write(&path, text).unwrap();
    drop(audited(reopen().await, &model()).await);
    let head = verify(&path).unwrap();
    assert_eq!(head.seq, 5);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn on_a_full_disk_calls_fail_or_lines_are_dropped_as_chosen() {
    // Every write to this device says that the disk is full.
    let full = Path::new("/dev/full");
    let model = model();
    let free = model.create(SandboxSpec::new()).await.unwrap();
    let strict = Audit::open(full).unwrap();
    let sandbox = strict.layer(free.clone());
    let error = sandbox.exec(Command::new("tool")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!(error.execution(), Some(Execution::Unknown));
    assert_eq!(model.count(Operation::Exec), 1);
    // From now on nothing is done that can't be recorded.
    let error = sandbox.exec(Command::new("tool")).await.unwrap_err();
    assert_eq!(error.execution(), Some(Execution::NotStarted));
    assert!(sandbox.write("f", "x").await.is_err());
    assert_eq!(model.count(Operation::Exec), 1);
    assert_eq!(model.count(Operation::WriteFiles), 0);
    // What frees something always passes.
    sandbox.close().await.unwrap();

    let free = model.create(SandboxSpec::new()).await.unwrap();
    drop((strict, sandbox));
    let lenient = loop {
        match Audit::open(full) {
            Err(error) if error.kind() == ErrorKind::Busy => tokio::task::yield_now().await,
            opened => break opened.unwrap().on_failure(OnFailure::Drop),
        }
    };
    let sandbox = lenient.layer(free);
    sandbox.exec(Command::new("tool")).await.unwrap();
    sandbox.write("f", "x").await.unwrap();
}
