//! Sandboxes that are prepared ahead of time: used, replaced, bounded, and gone with the provider.
#![cfg(target_os = "linux")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, helpers too"
)]

mod support;

use rustix::process::{Pid, Signal, kill_process};
use sandbox_core::{Control, Provider, SandboxExt, SandboxSpec};
use sandbox_local::{LocalConfig, LocalProvider};
use support::{inits, inits_are, sh, state};

/// Of each kind: sandboxes, and inits for what is not like them.
const PREPARED: usize = 2;

// One test: the others of a binary run at the same time, and would be counted too.
#[tokio::test]
async fn prepared_sandboxes_serve_are_replaced_and_end_with_the_provider() {
    let state = state();
    let config = LocalConfig::default()
        .state_dir(state.path())
        .prepared(PREPARED);
    let provider = LocalProvider::new(config).expect("a provider");
    inits_are(2 * PREPARED).await;

    // Which of them a creation takes is the pool's test.
    let sandbox = provider
        .create(SandboxSpec::new())
        .await
        .expect("a sandbox");
    sh(&sandbox, "echo mine > file").await;

    // What ends with a fork is one that was there before it.
    let before = inits_are(2 * PREPARED + 1).await;
    let fork = sandbox.fork_one().await.expect("a fork");
    fork.close().await.expect("it closes");
    drop(fork);
    let now = inits();
    let gone = before.iter().filter(|init| !now.contains(init)).count();
    assert_eq!(gone, 1, "a prepared init became the fork");

    // And its parent takes one when it goes on.
    let fork = sandbox.fork_one().await.expect("a fork");
    sh(&fork, "echo other > file").await;
    assert_eq!(sh(&sandbox, "cat file").await, "mine\n");
    assert_eq!(sh(&fork, "cat file").await, "other\n");
    let report = fork.isolation().await.expect("a report");
    for control in [
        Control::Filesystem,
        Control::Processes,
        Control::Network,
        Control::Privileges,
        Control::SystemCalls,
    ] {
        assert!(report.is_enforced(control), "{report:?}");
    }
    fork.close().await.expect("it closes");

    // What was killed from outside is not handed out.
    sandbox.close().await.expect("it closes");
    drop((fork, sandbox));
    for pid in inits_are(2 * PREPARED).await {
        let pid = Pid::from_raw(pid).expect("a process");
        kill_process(pid, Signal::KILL).expect("it is there");
    }
    inits_are(0).await;
    let sandbox = provider
        .create(SandboxSpec::new())
        .await
        .expect("a sandbox");
    sh(&sandbox, "true").await;
    inits_are(2 * PREPARED + 1).await;

    // They serve forks until the last sandbox is gone.
    drop(provider);
    sandbox.write("file", "x").await.expect("it writes");
    let fork = sandbox.fork_one().await.expect("a fork");
    fork.close().await.expect("it closes");
    sandbox.close().await.expect("it closes");
    drop((fork, sandbox));
    inits_are(0).await;
}
