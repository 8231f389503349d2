//! Nothing that goes on in a sandbox holds up its end, or a command beyond its time.
#![cfg(target_os = "linux")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, helpers too"
)]

mod support;

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sandbox_core::{
    Command, Error, ErrorKind, Execution, Provider, Sandbox, SandboxExt as _, SandboxSpec,
};
use sandbox_local::LocalProvider;
use support::{run, sh, until};
use tokio::task::JoinHandle;

/// The states of processes of this host whose command line has this text.
fn states(mark: &str) -> Vec<char> {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let states = processes.filter_map(|process| {
        let line = fs::read(process.path().join("cmdline")).ok()?;
        let stat = fs::read_to_string(process.path().join("stat")).ok()?;
        let state = stat.rsplit_once(") ")?.1.chars().next()?;
        String::from_utf8_lossy(&line)
            .contains(mark)
            .then_some(state)
    });
    states.collect()
}

/// A number for `sleep` that no other test has.
fn mark(test: u32) -> String {
    format!("8{}.{test}", std::process::id())
}

/// A sandbox that is being forked, slowly, its processes standing still.
async fn forking(
    mark: &str,
) -> (
    Arc<dyn Sandbox>,
    JoinHandle<Result<Arc<dyn Sandbox>, Error>>,
) {
    let sandbox = support::default().await;
    let script = format!(
        "mkdir d && cd d && seq 1 60000 | xargs -n 5000 touch; \
         sleep {mark} >/dev/null 2>&1 &"
    );
    sh(&sandbox, &script).await;
    let forked = sandbox.clone();
    let fork = tokio::spawn(async move { forked.fork_one().await });
    until("it stands still", async || {
        states(mark).contains(&'T').then_some(())
    })
    .await;
    (sandbox, fork)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commands_time_goes_on_while_a_fork_holds_the_sandbox() {
    let mark = mark(1);
    let (sandbox, fork) = forking(&mark).await;
    let command = Command::new("true").timeout(Duration::from_millis(20));
    let (exec, spawn) = tokio::join!(sandbox.exec(command.clone()), sandbox.spawn(command));
    assert!(!fork.is_finished(), "no control: the fork was fast");
    for error in [
        exec.map(drop).expect_err("no time"),
        spawn.map(drop).expect_err("no time"),
    ] {
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert_eq!(error.execution(), Some(Execution::NotStarted));
    }
    sandbox.close().await.expect("close");
    drop(fork.await.expect("no panic"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_kills_while_a_fork_holds_the_sandbox() {
    let mark = mark(2);
    let (sandbox, fork) = forking(&mark).await;
    assert!(!fork.is_finished(), "no control: the fork was fast");
    sandbox.close().await.expect("close");
    assert!(states(&mark).is_empty(), "the guest lives on");
    // Had closing waited for it, it would have come to its end.
    let error = fork.await.expect("no panic").expect_err("it was cut");
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn guests_can_not_stop_the_isolation_probe() {
    let sandbox = support::default().await;
    // Not before the shell that starts it has ended, which it would stop too.
    let script = "(while [ -e /proc/$$ ]; do :; done; me=$(sh -c 'echo $PPID'); \
                  while :; do for p in /proc/[0-9]*; do \
                  p=${p#/proc/}; [ $p = 1 ] || [ $p = $me ] || kill -STOP $p; done; done) \
                  >/dev/null 2>&1 &";
    run(&sandbox, Command::shell(script)).await;
    let stopped = sandbox.exec(
        Command::new("sleep")
            .arg("0.5")
            .timeout(Duration::from_secs(3)),
    );
    let error = stopped.await.expect_err("no control: nothing is stopped");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let report = tokio::time::timeout(Duration::from_secs(120), sandbox.isolation()).await;
    let report = report.expect("an end").expect("a report");
    assert!(report.is_enforced(sandbox_core::Control::Privileges));
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn a_storm_of_orphans_does_not_hold_up_a_timeout() {
    let sandbox = support::default().await;
    let storm = "for i in 1 2 3 4; do (while :; do (:&); done) & done";
    run(&sandbox, Command::shell(storm)).await;
    let before = Instant::now();
    let command = Command::new("sleep").arg("1000");
    let error = sandbox.exec(command.timeout(Duration::from_secs(2))).await;
    assert_eq!(error.expect_err("no time").kind(), ErrorKind::Timeout);
    let passed = before.elapsed();
    println!("a timeout of 2 s under a storm took {passed:?}");
    assert!(passed < Duration::from_secs(60), "{passed:?}");
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn what_a_sandbox_leaves_is_removed_before_what_another_provider_left() {
    // On a busy machine a sandbox may take longer than a collection: then there is more to collect.
    for directories in [2, 8, 32] {
        if is_removed_first(directories).await {
            return;
        }
    }
    panic!("no control: it was collected before each time");
}

/// Whether a dead provider with so many large directories was still being collected when a sandbox
/// was closed. The sandbox's own files must be gone then.
async fn is_removed_first(directories: u32) -> bool {
    let state = support::state();
    let dead = state.path().join("p-dead");
    for part in 0..directories {
        let layer = dead.join(format!("layers/{part}"));
        fs::create_dir_all(&layer).expect("directories");
        fs::write(layer.join("0"), "").expect("a file");
        for n in 1..20_000 {
            fs::hard_link(layer.join("0"), layer.join(n.to_string())).expect("a link");
        }
    }
    fs::write(dead.join("lease"), "").expect("a lease");
    let provider: LocalProvider = support::provider(state.path());
    let own = support::providers(state.path());
    let own = own.into_iter().find(|dir| *dir != dead).expect("its own");
    let sandbox = provider.create(SandboxSpec::new()).await;
    let sandbox = sandbox.expect("a sandbox");
    sh(&sandbox, "echo x > kept").await;
    sandbox.close().await.expect("close");
    let kept = fs::read_dir(own.join("layers")).expect("layers").flatten();
    let kept = kept
        .filter(|layer| layer.path().join("workspace/kept").exists())
        .count();
    let is_collecting = dead.exists();
    until("it is collected", async || (!dead.exists()).then_some(())).await;
    assert!(
        !is_collecting || kept == 0,
        "the sandbox's files are still there"
    );
    is_collecting
}

/// A lease is opened by its name: what is no file must not keep the collection from the others.
#[tokio::test]
async fn a_lease_that_is_no_file_does_not_hold_up_the_collection() {
    let state = support::state();
    for name in ["p-fifo", "p-gone"] {
        fs::create_dir_all(state.path().join(name).join("layers/1")).expect("directories");
    }
    let lease = state.path().join("p-fifo/lease");
    let made = std::process::Command::new("mkfifo").arg(&lease).status();
    assert!(made.expect("mkfifo").success());
    let control = std::process::Command::new("timeout")
        .args(["0.1", "cat"])
        .arg(&lease)
        .status();
    let code = control.expect("timeout").code();
    assert_eq!(code, Some(124), "no control: opening it does not block");
    let provider: LocalProvider = support::provider(state.path());
    until("both are collected", async || {
        (support::providers(state.path()).len() == 1).then_some(())
    })
    .await;
    drop(provider);
}
