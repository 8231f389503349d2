//! Programs that outlive the command that started them: what they print does not kill them, and
//! what they were about to print is not lost. The same in every mode.
#![cfg(target_os = "linux")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, helpers too"
)]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use sandbox_core::{Command, Network, Provider, Sandbox, SandboxSpec};
use sandbox_local::{
    LandlockConfig, LandlockProvider, LocalConfig, LocalProvider, PlainConfig, PlainProvider,
};
use support::{run, sh, until};

/// A sandbox of each mode.
async fn sandboxes() -> [Arc<dyn Sandbox>; 3] {
    let plain = SandboxSpec::new().network(Network::Open);
    let plain = PlainProvider::new(PlainConfig::default())
        .expect("a provider")
        .create(plain)
        .await
        .expect("plain");
    let local = LocalProvider::new(LocalConfig::default()).expect("a provider");
    let local = local.create(SandboxSpec::new()).await.expect("a sandbox");
    let landlock = LandlockProvider::new(LandlockConfig::default()).expect("a provider");
    let landlock = landlock.create(SandboxSpec::new()).await.expect("confined");
    [local, plain, landlock]
}

async fn lines(sandbox: &Arc<dyn Sandbox>, file: &str) -> usize {
    let count = sh(sandbox, &format!("cat {file} 2>/dev/null | wc -l")).await;
    count.trim().parse().expect("a number")
}

#[tokio::test]
async fn a_program_in_the_background_lives_on_when_it_prints() {
    for sandbox in sandboxes().await {
        let script = "(i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo line $i; echo oops >&2; \
                      echo $i >> log; [ $i -gt 5 ] || sleep 0.2; done; \
                      head -c 3000000 /dev/zero; echo done >> log) & :";
        sh(&sandbox, script).await;
        // Its streams were long given up by then: it wrote into them all the same, also more than
        // a pipe holds.
        until("the program gets to its end", async || {
            (lines(&sandbox, "log").await == 401).then_some(())
        })
        .await;
        sandbox.close().await.expect("close");
    }
}

#[tokio::test]
async fn what_a_tree_still_writes_when_its_shell_ends_is_kept() {
    for sandbox in sandboxes().await {
        for round in 0..20 {
            let script = format!("exec > >(tee t{round}.log) 2>&1; echo hello; seq 1 2000");
            let output = run(&sandbox, Command::new("bash").args(["-c", &script])).await;
            let text = output.stdout.to_string_lossy();
            assert_eq!(text.lines().count(), 2001, "round {round}");
            assert!(text.ends_with("\n2000\n"), "round {round}");
            until("tee's own copy is whole", async || {
                (lines(&sandbox, &format!("t{round}.log")).await == 2001).then_some(())
            })
            .await;
        }
        sandbox.close().await.expect("close");
    }
}

#[tokio::test]
async fn a_program_that_never_stops_printing_holds_neither_exec_nor_the_sandbox() {
    for sandbox in sandboxes().await {
        let before = Instant::now();
        let script = Command::shell("(yes; echo yes >> died) &").output_limit(1000);
        run(&sandbox, script).await;
        assert!(before.elapsed() < Duration::from_secs(120));
        // And one that prints a little now and then.
        let before = Instant::now();
        let script = "(while echo x; do echo x >> beats; sleep 0.01; done; echo loop >> died) &";
        sh(&sandbox, script).await;
        assert!(before.elapsed() < Duration::from_secs(120));
        let begun = lines(&sandbox, "beats").await;
        until("it goes on", async || {
            (lines(&sandbox, "beats").await > begun + 20).then_some(())
        })
        .await;
        assert_eq!(lines(&sandbox, "died").await, 0);
        sandbox.close().await.expect("close");
    }
}

#[tokio::test]
async fn the_pipes_that_are_read_on_are_bounded() {
    let config = LocalConfig::default().output_grace(Duration::from_millis(1));
    let provider = LocalProvider::new(config).expect("a provider");
    let sandbox = provider.create(SandboxSpec::new()).await;
    let sandbox = sandbox.expect("a sandbox");
    let before = descriptors();
    for _ in 0..200 {
        run(&sandbox, Command::shell("sleep 1000 &")).await;
    }
    let kept = descriptors() - before;
    assert!(kept > 100, "no control: {kept}");
    assert!(kept <= 2 * 256 + 50, "{kept} descriptors are kept");
    sandbox.close().await.expect("close");
    until("all are closed", async || {
        (descriptors() < before + 50).then_some(())
    })
    .await;
}

#[tokio::test]
async fn how_long_output_is_waited_for_is_the_embedders_choice() {
    let moment = Duration::from_millis(1);
    let spec = SandboxSpec::new().network(Network::Open);
    let providers: [Box<dyn Provider>; 3] = [
        Box::new(LocalProvider::new(LocalConfig::default().output_grace(moment)).expect("it")),
        Box::new(PlainProvider::new(PlainConfig::new().output_grace(moment)).expect("it")),
        Box::new(LandlockProvider::new(LandlockConfig::new().output_grace(moment)).expect("it")),
    ];
    for provider in providers {
        let sandbox = provider.create(spec.clone()).await.expect("a sandbox");
        // It says the rest when it is told to, which is when the command has ended.
        let script = "(until [ -e go ]; do sleep 0.01; done; echo late; echo on > f) & echo early";
        assert_eq!(sh(&sandbox, script).await, "early\n");
        sh(&sandbox, "touch go; until [ -e f ]; do sleep 0.01; done").await;
        sandbox.close().await.expect("close");
    }
}

fn descriptors() -> usize {
    support::count(std::path::Path::new("/proc/self/fd"))
}
