//! Cost of operations: requests, of which the service takes 600 a minute, and processes in the
//! guest. And what is said of it: nothing that is secret.

use std::io::Write;
use std::sync::{Arc, Mutex};

use sandbox_core::{Command, FileBatch, Provider as _, Sandbox, SandboxExt as _, SandboxSpec};

use super::{sandbox, until};

fn batch(files: usize) -> FileBatch {
    let mut batch = FileBatch::new();
    for number in 0..files {
        batch.push(format!("d/{number}"), format!("content of {number}"));
    }
    batch
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_take_few_requests() {
    let (emulator, provider, sandbox) = sandbox().await;
    let mut last = emulator.requests("");
    let mut cost = |what: &str, most: usize| {
        let now = emulator.requests("");
        println!("{what}: {} requests", now - last);
        assert!(now - last <= most, "{what}: {} requests", now - last);
        last = now;
    };
    sandbox.sh("true").await.expect("it runs");
    cost("a command", 1);
    sandbox
        .exec(Command::new("cat").stdin("little"))
        .await
        .expect("it runs");
    cost("a command with a little input", 1);
    sandbox
        .exec(Command::new("cat").stdin("x".repeat(1 << 20)))
        .await
        .expect("it runs");
    cost("a command with a lot of input and output", 4);
    sandbox.write_files(batch(10)).await.expect("files");
    cost("10 small files", 1);
    sandbox.write_files(batch(3000)).await.expect("files");
    cost("3,000 files", 2);
    sandbox.read("d/1").await.expect("a file");
    cost("a small file read", 1);
    let host = tempfile::tempdir().expect("a directory");
    sandbox
        .export_dir(&"d".into(), &host.path().join("out"), Default::default())
        .await
        .expect("out");
    cost("a directory of 3,000 files exported", 5);
    sandbox
        .import_dir(&host.path().join("out"), &"in".into(), Default::default())
        .await
        .expect("in");
    cost("a directory of 3,000 files imported", 2);
    let process = sandbox
        .spawn(Command::shell("exit 3"))
        .await
        .expect("a process");
    process.wait().await.expect("it ended");
    cost("a spawned command", 1);
    let child = sandbox.fork(Default::default()).await.expect("a fork");
    until("the fork's snapshot is gone", || emulator.counts().1 == 0).await;
    // What runs is stopped for the snapshot, which is one request of these if nothing does.
    cost("a fork", 8);
    child.close().await.expect("it closes");
    cost("closing", 2);
    provider
        .create(SandboxSpec::new())
        .await
        .expect("a sandbox");
    cost("a creation", 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_takes_as_many_processes_however_many_files_it_has() {
    let (_emulator, _, sandbox) = sandbox().await;
    // Numbers of processes are given out in order within the guest.
    async fn number(sandbox: &dyn Sandbox) -> i64 {
        let said = sandbox.sh("echo $$").await.expect("it runs");
        said.stdout
            .to_string_lossy()
            .trim()
            .parse()
            .expect("a number")
    }
    let mut costs = Vec::new();
    for files in [10, 1000] {
        // New ones, and then in place of others.
        for what in ["new", "replaced"] {
            let before = number(&*sandbox).await;
            sandbox.write_files(batch(files)).await.expect("files");
            let cost = number(&*sandbox).await - before;
            println!("{files} files, {what}: {cost} processes, two commands included");
            costs.push(cost);
        }
        sandbox.remove_all("d").await.expect("it goes");
    }
    let most = costs.iter().max().expect("some");
    let least = costs.iter().min().expect("some");
    // Who waits in the guest spends some too: a process for each file would be a thousand.
    assert!(most - least <= 300, "{costs:?}");
}

/// Keeps what is logged.
#[derive(Clone, Debug, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("a lock").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// In a process of its own: where other threads log too, theirs decide whether a line is of
/// interest when it is first reached, and they have no log.
#[test]
fn nothing_secret_is_logged_or_shown() {
    let program = std::env::current_exe().expect("this program");
    let ran = std::process::Command::new(program)
        .args(["--exact", "requests::shows_and_logs", "--ignored"])
        .output();
    let ran = ran.expect("it runs");
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.status.success() && said.contains("1 passed"), "{said}");
}

/// Not a test of its own.
#[tokio::test]
#[ignore = "started by another test"]
async fn shows_and_logs() {
    let kept = Kept::default();
    let writer = kept.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    // This runtime has one thread, whose log this is.
    let _guard = tracing::subscriber::set_default(subscriber);
    let (emulator, provider, sandbox) = sandbox().await;
    let token = emulator.token();
    sandbox
        .set_env(sandbox_core::Env::new().set("A", "first-secret"))
        .await
        .expect("it is set");
    let command = Command::shell("echo third-secret; exit 1")
        .env("B", "second-secret")
        .stdin("fourth-secret");
    sandbox.exec(command.clone()).await.expect("it runs");
    let process = sandbox.spawn(command).await.expect("a process");
    let shown = format!("{provider:?} {sandbox:?} {process:?}");
    process.wait().await.expect("it ended");
    emulator.inject(sandbox_testkit::aca::Fault::new(
        "Shell",
        sandbox_testkit::aca::Action::Status(401, None),
    ));
    sandbox.sh("echo fifth-secret").await.expect("it runs");
    sandbox.close().await.expect("it closes");
    let lost = sandbox.sh("true").await.expect_err("it is closed");
    let logged = kept.0.lock().expect("a lock").clone();
    let logged = String::from_utf8_lossy(&logged).into_owned();
    assert!(!logged.is_empty(), "nothing is logged at all");
    // The emulator's own log is not the client's: it runs commands by the same crates.
    let ours: Vec<&str> = logged
        .lines()
        .filter(|line| !line.contains("sandbox_local"))
        .collect();
    for secret in ["first-", "second-", "third-", "fourth-", "fifth-"] {
        let secret = format!("{secret}secret");
        assert!(!shown.contains(&secret), "shown: {secret}");
        assert!(
            !format!("{lost:?}").contains(&secret),
            "in an error: {secret}"
        );
        let line = ours.iter().find(|line| line.contains(&secret));
        assert!(line.is_none(), "logged: {line:?}");
    }
    let line = ours.iter().find(|line| line.contains(&token));
    assert!(
        line.is_none() && !shown.contains(&token),
        "the token: {line:?}"
    );
}
