//! The faults of a remote service at every request of every operation, for sandboxes and both kinds
//! of sessions: what an operation says is what happened, nothing runs twice, nothing is left.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sandbox_aca::SessionKind;
use sandbox_core::{
    Command, Error, Execution, FileBatch, GuestPath, Output, Provider, Result, Sandbox,
    SandboxExt as _, SandboxId, SandboxSpec, TransferReport,
};
use sandbox_testkit::proxy::Break;

use super::counted;
use super::rig::{Rig, in_lanes};

/// Each row of the table that a proxy can play; of those that look alike to a client one each.
const BREAKS: &[Break] = &[
    Break::BeforeSend,
    Break::MidRequest,
    Break::AfterSend,
    Break::MidAnswer(150),
    Break::Garbage,
    Break::Endless,
    Break::Sliced,
    Break::Status(401, None),
    Break::Status(429, Some("0")),
    Break::Status(429, Some("99999")),
    Break::Status(503, Some("0")),
];

/// Does `act` with each request broken in each way, until none is left to break; what came of
/// it is checked when nothing is broken any more.
async fn everywhere<T>(
    rig: &Rig,
    name: &str,
    mut act: impl AsyncFnMut() -> T,
    mut check: impl AsyncFnMut(T, &str),
) {
    for how in rig.breaks {
        for position in 0.. {
            let what = format!(
                "{} {name}, {how:?} at request {position}",
                rig.provider.backend()
            );
            rig.proxy.arm_after(position, "", *how);
            let done = act().await;
            let fired = rig.proxy.disarm();
            check(done, &what).await;
            if !fired {
                assert!(position > 0, "{what}: it never happened");
                break;
            }
        }
    }
}

/// An error has words, and none that is secret.
fn sound(error: &Error, what: &str) {
    assert!(!error.to_string().is_empty(), "{what}");
    assert!(
        !format!("{error:?}").contains("Bearer"),
        "{what}: {error:?}"
    );
}

async fn text(sandbox: &dyn Sandbox, path: &str) -> Option<String> {
    sandbox.read_to_string(path).await.ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_at_most_once_and_what_is_said_of_it_is_true() {
    in_lanes(BREAKS, async |rig| {
        let sandbox = rig.sandbox().await;
        // Its input is uploaded, its end is asked for, its output is fetched: each kind of request
        // is there.
        let script = "printf x >> $FILE; sleep 0.2; cat; head -c 400000 /dev/zero";
        let command = Command::shell(script)
            .stdin(vec![b'i'; 40_000])
            .timeout(Duration::from_secs(120));
        let mut number = 0;
        let act = async || {
            // Each has its own: what is given up on may still be on its way.
            number += 1;
            let file = format!("count-{number}");
            let before = rig.emulator.executions(script);
            let ran = sandbox
                .exec(command.clone().env("FILE", file.as_str()))
                .await;
            (file, ran, rig.emulator.executions(script) - before)
        };
        let check = async |(file, ran, sent): (String, Result<Output>, usize), what: &str| {
            let count = sandbox.read(file).await.map_or(0, |bytes| bytes.len());
            assert!(count <= 1 && sent <= 1, "{what}: ran {count}, sent {sent}");
            match ran {
                Ok(output) => {
                    assert_eq!(output.stdout.bytes.len(), 440_000, "{what}");
                    assert_eq!(count, 1, "{what}");
                    // What a Python session is given is packed: there the file alone tells.
                    let readable = rig.kind != Some(SessionKind::Python);
                    assert_eq!(sent, usize::from(readable), "{what}");
                }
                Err(error) => {
                    sound(&error, what);
                    match error.execution() {
                        Some(Execution::NotStarted) => assert_eq!(count, 0, "{what}: {error:?}"),
                        ran => assert!(ran.is_some(), "{what}: {error:?}"),
                    }
                }
            }
        };
        everywhere(&rig, "exec", act, check).await;
        sandbox.close().await.expect("it closes");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spawned_command_runs_at_most_once() {
    let mut rig = Rig::new(None).await;
    rig.breaks = BREAKS;
    let sandbox = rig.sandbox().await;
    let act = async || {
        let process = sandbox.spawn(counted()).await?;
        process.wait_with_output(Default::default()).await
    };
    let check = async |ran: Result<Output>, what: &str| {
        let count = sandbox.read("count").await.map_or(0, |bytes| bytes.len());
        assert!(count <= 1, "{what}: ran {count} times");
        match ran {
            Ok(output) => assert_eq!((&*output.stdout.bytes, count), (&b"ran"[..], 1), "{what}"),
            Err(error) => match error.execution() {
                Some(Execution::NotStarted) => assert_eq!(count, 0, "{what}: {error:?}"),
                ran => assert!(ran.is_some(), "{what}: {error:?}"),
            },
        }
        if count > 0 {
            sandbox.remove_all("count").await.expect("it goes");
        }
    };
    everywhere(&rig, "spawn", act, check).await;
    sandbox.close().await.expect("it closes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_makes_one_sandbox_or_leaves_none() {
    in_lanes(BREAKS, async |rig| {
        let act = async || rig.provider.create(SandboxSpec::new()).await;
        let check = async |made: Result<Arc<dyn Sandbox>>, what: &str| match made {
            Ok(sandbox) => {
                assert_eq!(rig.there().await, 1, "{what}");
                sandbox.close().await.expect("it closes");
                rig.left(0, what).await;
            }
            Err(error) => {
                sound(&error, what);
                rig.left(0, what).await;
            }
        };
        everywhere(&rig, "create", act, check).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_there_in_whole_or_not_at_all() {
    in_lanes(BREAKS, async |rig| {
        let sandbox = rig.sandbox().await;
        sandbox.write("a", "old").await.expect("a file");
        // Large, so that it is uploaded first.
        let content = "n".repeat(200_000);
        let act = async || {
            let batch = FileBatch::new()
                .file("a", content.clone())
                .file("b", content.clone());
            sandbox.write_files(batch).await
        };
        let check = async |written: Result<()>, what: &str| {
            let (a, b) = (text(&*sandbox, "a").await, text(&*sandbox, "b").await);
            match (written, b.is_some()) {
                (Err(error), false) => {
                    sound(&error, what);
                    assert_eq!(a.as_deref(), Some("old"), "{what}");
                    return;
                }
                // Unknown, but it is all of it.
                (Ok(()), true) | (Err(_), true) => {
                    assert_eq!((&a, &b), (&Some(content.clone()), &a), "{what}")
                }
                (Ok(()), false) => panic!("{what}: it is not there"),
            }
            sandbox.write("a", "old").await.expect("a file");
            sandbox.remove_all("b").await.expect("it goes");
        };
        everywhere(&rig, "write", act, check).await;
        sandbox.close().await.expect("it closes");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_is_whole_and_what_is_moved_is_in_one_place() {
    in_lanes(BREAKS, async |rig| {
        let sandbox = rig.sandbox().await;
        let content = "r".repeat(600_000);
        sandbox.write("r", content.clone()).await.expect("a file");
        let act = async || sandbox.read("r").await;
        let check = async |read: Result<Bytes>, what: &str| match read {
            Ok(bytes) => assert!(bytes == content.as_bytes(), "{what}: {} bytes", bytes.len()),
            Err(error) => sound(&error, what),
        };
        everywhere(&rig, "read", act, check).await;
        let (from, to) = (GuestPath::from("r"), GuestPath::from("s"));
        let act = async || sandbox.rename(&from, &to, Default::default()).await;
        let check = async |moved: Result<()>, what: &str| {
            let there = [
                sandbox.exists(from.clone()).await,
                sandbox.exists(to.clone()).await,
            ];
            let there = there.map(|there| there.expect("it is known"));
            match moved {
                Ok(()) => assert_eq!(there, [false, true], "{what}"),
                Err(error) => {
                    sound(&error, what);
                    assert!(there[0] != there[1], "{what}: {there:?}");
                }
            }
            if there[1] {
                let back = sandbox.rename(&to, &from, Default::default()).await;
                back.expect("it goes back");
            }
        };
        everywhere(&rig, "rename", act, check).await;
        sandbox.close().await.expect("it closes");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_is_whole_or_nothing_is_left_of_it() {
    in_lanes(BREAKS, async |rig| {
        let sandbox = rig.sandbox().await;
        // Large, so that a session's fork goes in parts.
        let content = "f".repeat(300_000);
        sandbox.write("f", content.clone()).await.expect("a file");
        let act = async || sandbox.fork(Default::default()).await;
        let check = async |forked: Result<Arc<dyn Sandbox>>, what: &str| {
            match forked {
                Ok(child) => {
                    let read = text(&*child, "f").await;
                    assert!(read.as_ref() == Some(&content), "{what}: it is not whole");
                    child.close().await.expect("it closes");
                }
                Err(error) => sound(&error, what),
            }
            rig.left(1, what).await;
        };
        everywhere(&rig, "fork", act, check).await;
        sandbox.close().await.expect("it closes");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exported_is_whole_or_absent_and_an_import_says_when_it_failed() {
    in_lanes(BREAKS, async |rig| {
        let sandbox = rig.sandbox().await;
        let content = "e".repeat(400_000);
        sandbox.write("d/e", content.clone()).await.expect("a file");
        let host = tempfile::tempdir().expect("a directory");
        let out = host.path().join("out");
        let act = async || {
            sandbox
                .export_dir(&"d".into(), &out, Default::default())
                .await
        };
        let check = async |done: Result<TransferReport>, what: &str| {
            match done {
                Ok(_) => {
                    let read = std::fs::read(out.join("e")).expect("a file");
                    assert!(read == content.as_bytes(), "{what}: it is not whole");
                    std::fs::remove_dir_all(&out).expect("it goes");
                }
                Err(error) => {
                    sound(&error, what);
                    assert!(!out.exists(), "{what}: something is there");
                }
            }
            let left = std::fs::read_dir(host.path()).expect("a directory").count();
            assert_eq!(left, 0, "{what}: what is left on the host");
        };
        everywhere(&rig, "export", act, check).await;
        let from = tempfile::tempdir().expect("a directory");
        std::fs::write(from.path().join("e"), &content).expect("a file");
        let to = GuestPath::from("in");
        let act = async || {
            sandbox
                .import_dir(from.path(), &to, Default::default())
                .await
        };
        let check = async |done: Result<TransferReport>, what: &str| {
            let read = text(&*sandbox, "in/e").await;
            match done {
                Ok(_) => assert!(read.as_ref() == Some(&content), "{what}: it is not whole"),
                Err(error) => {
                    sound(&error, what);
                    let sound = read.as_ref().is_none_or(|read| *read == content);
                    assert!(sound, "{what}: a part of a file is there");
                }
            }
            let _ = sandbox.remove_all("in").await;
        };
        everywhere(&rig, "import", act, check).await;
        sandbox.close().await.expect("it closes");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_closed_is_gone_or_the_error_says_that_it_may_be_there() {
    in_lanes(BREAKS, async |rig| {
        let next = tokio::sync::Mutex::new(rig.sandbox().await);
        let act = async || {
            let sandbox = next.lock().await;
            (sandbox.close().await, sandbox.info().id)
        };
        let check = async |(closed, id): (Result<()>, SandboxId), what: &str| {
            if let Err(error) = closed {
                assert!(
                    error.to_string().contains("may still have"),
                    "{what}: {error}"
                );
                rig.forget(&id).await;
            }
            rig.left(0, what).await;
            *next.lock().await = rig.sandbox().await;
        };
        everywhere(&rig, "close", act, check).await;
    })
    .await;
}
