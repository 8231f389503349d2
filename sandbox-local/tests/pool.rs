//! Sandboxes that were started ahead of time are what was asked for.
#![cfg(target_os = "linux")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, helpers too"
)]

mod support;

use std::fs;

use sandbox_core::{Network, Provider, SandboxExt as _, SandboxSpec};
use sandbox_local::{LocalConfig, LocalProvider};
use support::{inits, inits_are, sh, state, until};

/// Whether the thread that starts sandboxes ahead of time waits for something to do.
fn pool_is_idle() -> bool {
    let tasks = fs::read_dir("/proc/self/task").expect("threads");
    tasks.flatten().any(|task| {
        let of = |what| fs::read_to_string(task.path().join(what)).unwrap_or_default();
        let futex = format!("{} ", libc::SYS_futex);
        of("comm").trim() == "sandbox-pool" && of("syscall").starts_with(&futex)
    })
}

/// The one sandbox that waits, when nothing else is under way: its init has a filter already.
async fn waiting() -> i32 {
    inits_are(2).await;
    until("a sandbox waits", async || {
        let is_set_up = |init: &i32| {
            let status = fs::read_to_string(format!("/proc/{init}/status")).unwrap_or_default();
            status.contains("Seccomp:\t2")
        };
        let found = inits().into_iter().find(is_set_up);
        found.filter(|_| pool_is_idle())
    })
    .await
}

/// Creates one, has it say something and closes it. Whether it is the one that waited.
async fn ask(provider: &LocalProvider, spec: SandboxSpec, script: &str, says: &str) -> bool {
    let waited = waiting().await;
    let sandbox = provider.create(spec).await.expect("a sandbox");
    assert_eq!(sh(&sandbox, script).await, says);
    sandbox.close().await.expect("it closes");
    !inits().contains(&waited)
}

// One test: the others of a binary run at the same time, and their inits would be counted too.
#[tokio::test]
async fn what_waits_is_handed_out_only_as_what_was_asked_for() {
    let state = state();
    let config = LocalConfig::default()
        .state_dir(state.path())
        // One sandbox, and one init for all that is not like it.
        .prepared(1);
    let provider = LocalProvider::new(config).expect("a provider");

    // What a handle keeps of its spec is each one's own.
    let waited = waiting().await;
    let spec = SandboxSpec::new()
        .env("WHOSE", "mine")
        .label("whose", "mine");
    let mine = provider.create(spec).await.expect("a sandbox");
    assert_eq!(sh(&mine, "echo $WHOSE; echo x > file").await, "mine\n");
    let labels = mine.info().labels;
    assert_eq!(labels.get("whose").map(String::as_str), Some("mine"));
    let fork = mine.fork_one().await.expect("a fork");
    assert_eq!(sh(&fork, "echo $WHOSE; cat file").await, "mine\nx\n");
    fork.close().await.expect("it closes");
    mine.close().await.expect("it closes");
    assert!(!inits().contains(&waited), "in the sandbox all is as usual");
    let usual = SandboxSpec::new;
    assert!(ask(&provider, usual(), "echo $WHOSE; ls", "\n").await);

    // What is in the sandbox has to be right: who asks for something else finds none.
    let other = || usual().workdir("/other");
    let open = || usual().network(Network::Open);
    assert!(!ask(&provider, other(), "pwd", "/other\n").await);
    assert!(!ask(&provider, open(), "pwd", "/workspace\n").await);
    assert!(!ask(&provider, other(), "pwd", "/other\n").await);
    assert!(ask(&provider, usual(), "pwd", "/workspace\n").await);
    // Twice in a row, and it is what waits from then on.
    assert!(!ask(&provider, other(), "pwd", "/other\n").await);
    ask(&provider, other(), "pwd", "/other\n").await;
    assert!(ask(&provider, other(), "pwd", "/other\n").await);
    assert!(!ask(&provider, usual(), "pwd", "/workspace\n").await);

    // A spec that is wrong is refused all the same.
    let wrong = SandboxSpec::new().env("A=B", "");
    provider.create(wrong).await.expect_err("not a name");
    inits_are(2).await;
}
