//! Processes that go on although they were stopped: a fork of theirs would not be of one moment.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sandbox_core::{ErrorKind, Process, Provider, Sandbox, SandboxExt, SandboxSpec};

use crate::{host, support};

/// Files in each of the two directories: a copy takes a while.
const FILES: &str = "3000";

/// Ways of the program not to stand still.
pub(crate) const MODES: [&str; 8] = [
    "often", "once", "other", "vfork", "traced", "seized", "stepped", "bursts",
];

/// Number of copies that are tried: `SANDBOX_STILL_ROUNDS`, or a few.
fn rounds() -> usize {
    let rounds = std::env::var("SANDBOX_STILL_ROUNDS").ok();
    rounds.and_then(|rounds| rounds.parse().ok()).unwrap_or(2)
}

async fn guest(state: &Path) -> Arc<dyn Sandbox> {
    let provider = host::provider(state);
    let sandbox = provider.create(SandboxSpec::new()).await;
    let sandbox = sandbox.expect("a sandbox");
    host::equip(&sandbox).await;
    sandbox
}

/// Starts the program, for longer than a busy machine needs, and waits until it is at work.
pub(crate) async fn start(sandbox: &Arc<dyn Sandbox>, mode: &str, files: &str) -> Process {
    let command = host::command("still", &[mode, "/workspace", files]);
    let process = sandbox
        .spawn(command.timeout(Duration::from_secs(600)))
        .await;
    support::until("it is at work", async || {
        sandbox.stat("/workspace/ready").await.ok()
    })
    .await;
    process.expect("the program starts")
}

/// Counts the copies of the file that exists exactly once.
fn tokens(dir: &Path) -> usize {
    let there = |name: &str| usize::from(dir.join(name).join("token").exists());
    there("a") + there("b")
}

/// Stops the program as a naive host does, copies, and says how often the copy has the file.
fn naive_copy(mode: &str) -> Vec<usize> {
    let dir = host::fast_state();
    let mut program = process::Command::new(host::tool("still"))
        .args([mode, ".", FILES])
        .current_dir(dir.path())
        .stdout(process::Stdio::piped())
        .spawn()
        .expect("the control starts");
    let mut said = [0; 6];
    let mut stdout = program.stdout.take().expect("a stdout");
    stdout.read_exact(&mut said).expect("it says something");
    assert_eq!(
        said.escape_ascii().to_string(),
        "end 0\\n",
        "{mode}: the control"
    );
    let pid = rustix::process::Pid::from_child(&program);
    let stat = format!("/proc/{}/stat", program.id());
    let mut found = Vec::new();
    // On a busy machine it may be long until the program runs while it is copied.
    let deadline = Instant::now() + Duration::from_secs(120);
    while Instant::now() < deadline {
        let copy = dir.path().join("copy");
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("a stop");
        // A program that is continued all the time may never be seen to stand still.
        let patience = Instant::now() + Duration::from_millis(200);
        while Instant::now() < patience
            && !fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") T "))
        {}
        fs::create_dir(&copy).expect("a directory");
        // What vanishes meanwhile is an error of its, and what this is about.
        process::Command::new("cp")
            .arg("-a")
            .args([dir.path().join("a"), dir.path().join("b")])
            .arg("-t")
            .arg(&copy)
            .output()
            .expect("cp");
        found.push(tokens(&copy));
        fs::remove_dir_all(&copy).expect("removed");
        rustix::process::kill_process(pid, rustix::process::Signal::CONT).expect("a continue");
        if found.len() > 2 && found.iter().any(|tokens| *tokens != 1) {
            break;
        }
    }
    let ended = program.try_wait().expect("its state");
    assert!(ended.is_none(), "{mode}: the control has ended: {ended:?}");
    program.kill().expect("killed");
    program.wait().expect("reaped");
    found
}

#[tokio::test]
async fn a_fork_is_of_one_moment_or_busy() {
    let _turn = host::alone().await;
    let state = host::fast_state();
    for mode in MODES {
        if mode != "other" {
            let control = naive_copy(mode);
            let torn = control.iter().filter(|tokens| **tokens != 1).count();
            assert!(
                torn > 0,
                "{mode}: no control, the copy was whole: {control:?}"
            );
        }
        let sandbox = guest(state.path()).await;
        let process = start(&sandbox, mode, FILES).await;
        let (mut busy, mut whole) = (0, 0);
        for _ in 0..rounds() {
            let running = support::sh(&sandbox, "pgrep -x still | wc -l").await;
            assert_ne!(running.trim(), "0", "{mode}: it runs");
            match sandbox.fork_one().await {
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Busy, "{mode}: {error}");
                    assert!(error.is_retryable());
                    busy += 1;
                }
                Ok(child) => {
                    let found = support::sh(&child, "ls -d /workspace/[ab]/token | wc -l").await;
                    assert_eq!(
                        found.trim(),
                        "1",
                        "{mode}: the file that exists exactly once"
                    );
                    child.close().await.expect("close");
                    whole += 1;
                }
            }
        }
        println!("{mode}: {busy} were busy, {whole} whole");
        drop(process);
        // It still works, and what stood still can be forked.
        let alive = sandbox.sh("echo alive").await.expect("it works");
        assert_eq!(alive.stdout.to_string_lossy(), "alive\n");
        sandbox.close().await.expect("close");
    }
}

#[tokio::test]
async fn an_ordinary_busy_sandbox_is_forked_whole() {
    let _turn = host::alone().await;
    let state = host::fast_state();
    let sandbox = guest(state.path()).await;
    let process = start(&sandbox, "plain", FILES).await;
    for _ in 0..3 {
        let child = support::fork(&sandbox).await;
        let found = support::sh(&child, "ls -d /workspace/[ab]/token | wc -l").await;
        assert_eq!(found.trim(), "1");
        child.close().await.expect("close");
    }
    drop(process);
    sandbox.close().await.expect("close");
}
