//! Output without end, and who holds it open (D 33, 35).

use std::time::{Duration, Instant};

use sandbox_core::{CollectOptions, Command};

use crate::{host, support};

#[tokio::test]
async fn output_without_end_is_bounded_in_memory() {
    let _turn = host::alone().await;
    let sandbox = host::guest().await;
    let resident = host::resident();
    for (args, total) in [
        (["flood", "2147483648"], 2_147_483_648),
        (["lines", "1000000"], 2_000_000),
    ] {
        let command = host::command("bombs", &args).output_limit(1 << 20);
        let output = sandbox.exec(command).await.expect("its end");
        assert!(output.success(), "{output:?}");
        assert_eq!(output.stdout.total, total);
        assert_eq!(output.stdout.bytes.len(), 1 << 20);
        assert!(output.stdout.is_truncated());
        let grown = host::resident().saturating_sub(resident);
        assert!(grown < 64 << 20, "{args:?}: {grown} bytes more");
    }
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn who_never_reads_is_not_flooded() {
    let _turn = host::alone().await;
    let sandbox = host::guest().await;
    let resident = host::resident();
    let flood = host::command("bombs", &["flood", "1073741824"]);
    let running = sandbox.spawn(flood).await.expect("a flood");
    // The streams are not read: the guest waits, nothing piles up.
    assert_eq!(
        support::sh(&sandbox, "sleep 0.5; echo alive").await,
        "alive\n"
    );
    let grown = host::resident().saturating_sub(resident);
    assert!(grown < 64 << 20, "{grown} bytes more");
    running.kill().await.expect("kill");
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn a_grandchild_with_the_output_does_not_hold_exec() {
    let _turn = host::alone().await;
    let sandbox = host::guest().await;
    let before = Instant::now();
    let output = sandbox
        .exec(host::command("bombs", &["holder", "held"]))
        .await
        .expect("exec");
    assert!(
        output.stdout.to_string_lossy().ends_with("end 0\n"),
        "{output:?}"
    );
    assert!(
        before.elapsed() < Duration::from_secs(120),
        "{:?}",
        before.elapsed()
    );
    // The control: it lives, and it has the output.
    let holds = "for p in /proc/[0-9]*; do grep -qx held $p/comm && readlink $p/fd/1; done; true";
    support::until("the control: it lives and has the output", async || {
        let held = support::sh(&sandbox, holds).await;
        held.starts_with("pipe:").then_some(())
    })
    .await;
    let before = Instant::now();
    // The same for one that is collected by hand.
    let command = Command::shell("sleep 600 & echo done");
    let running = sandbox.spawn(command).await.expect("spawn");
    let output = running
        .wait_with_output(CollectOptions::new())
        .await
        .expect("collect");
    assert_eq!(output.stdout.bytes, "done\n");
    assert!(
        before.elapsed() < Duration::from_secs(120),
        "{:?}",
        before.elapsed()
    );
    sandbox.close().await.expect("close");
}
