//! The table of faults, at every position: what is promised holds for each, and nothing runs twice.

use std::sync::Arc;
use std::time::Duration;

use sandbox_aca::{AcaSandboxProvider, StaticToken};
use sandbox_core::{Execution, FileBatch, Provider as _, SandboxExt as _, SandboxSpec};
use sandbox_testkit::aca::{AcaEmulator, Options};
use sandbox_testkit::proxy::{Break, FaultProxy};

use super::{COUNTED, config, counted};

const BREAKS: &[Break] = &[
    Break::BeforeSend,
    Break::MidRequest,
    Break::AfterSend,
    Break::MidAnswer(0),
    Break::MidAnswer(10),
    Break::MidAnswer(120),
    Break::MidAnswer(420),
    Break::Sliced,
    Break::Slow(Duration::from_millis(500)),
    Break::Garbage,
    Break::Endless,
];

async fn through() -> (AcaEmulator, FaultProxy, AcaSandboxProvider) {
    let emulator = AcaEmulator::start(Options::default()).await;
    let emulator = emulator.expect("an emulator");
    let proxy = FaultProxy::start(emulator.address()).await;
    let proxy = proxy.expect("a proxy");
    let token = Arc::new(StaticToken::new(emulator.token()));
    let provider = AcaSandboxProvider::new(config(&proxy.endpoint()).credential(token));
    (emulator, proxy, provider.expect("a provider"))
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_runs_once_wherever_the_connection_breaks() {
    let (emulator, proxy, provider) = through().await;
    for how in BREAKS {
        let before = emulator.executions(COUNTED);
        let sandbox = provider
            .create(SandboxSpec::new())
            .await
            .expect("a sandbox");
        proxy.arm("executeShellCommand", *how);
        let ran = sandbox.exec(counted()).await;
        assert!(proxy.fired(), "{how:?} did not happen");
        let count = sandbox.read("count").await.map_or(0, |bytes| bytes.len());
        let sent = emulator.executions(COUNTED) - before;
        assert!(count <= 1 && sent <= 1, "{how:?}: ran {count}, sent {sent}");
        match ran {
            Ok(output) => {
                assert_eq!(
                    (output.stdout.bytes.as_ref(), count),
                    (&b"ran"[..], 1),
                    "{how:?}"
                );
            }
            Err(error) => match error.execution() {
                Some(Execution::NotStarted) => assert_eq!(count, 0, "{how:?}: {error:?}"),
                ran => assert!(ran.is_some(), "{how:?}: {error:?}"),
            },
        }
        // Where the answer shows that all was sent, the command has run and is known.
        if matches!(
            how,
            Break::AfterSend | Break::MidAnswer(_) | Break::Sliced | Break::Slow(_)
        ) {
            assert_eq!(count, 1, "{how:?}");
        }
        sandbox.close().await.expect("it closes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_sandbox_is_made_wherever_the_connection_breaks() {
    for how in BREAKS {
        let (emulator, proxy, provider) = through().await;
        proxy.arm("PUT /", *how);
        let made = provider.create(SandboxSpec::new()).await;
        assert!(proxy.fired(), "{how:?} did not happen");
        let there = emulator.counts().0;
        match made {
            Ok(sandbox) => {
                assert_eq!(there, 1, "{how:?}");
                sandbox.close().await.expect("it closes");
            }
            Err(error) => assert_eq!(there, 0, "{how:?}: {error:?}"),
        }
        assert_eq!(emulator.counts(), (0, 0), "{how:?}: what is left");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_there_in_whole_or_not_at_all_wherever_the_connection_breaks() {
    let (_emulator, proxy, provider) = through().await;
    let sandbox = provider
        .create(SandboxSpec::new())
        .await
        .expect("a sandbox");
    // Large, so that it is uploaded first; and small, so that it goes along.
    for (needle, size) in [
        ("files?", 100_000),
        ("executeShellCommand", 100_000),
        ("executeShellCommand", 10),
    ] {
        for how in BREAKS {
            sandbox.write("a", "old").await.expect("a file");
            proxy.arm(needle, *how);
            let content = "n".repeat(size);
            let batch = FileBatch::new()
                .file("a", content.clone())
                .file("b", content.clone());
            let written = sandbox.write_files(batch).await;
            assert!(proxy.fired(), "{how:?} at {needle} did not happen");
            let a = sandbox.read("a").await.expect("a");
            let b = sandbox.read("b").await;
            match written {
                Ok(()) => assert_eq!(a, content, "{how:?}"),
                // Unknown, but it is all or nothing.
                Err(_) => assert_eq!(a == "old", b.is_err(), "{how:?}: {} bytes", a.len()),
            }
            if b.is_ok() {
                sandbox.remove_all("b").await.expect("it goes");
            }
        }
    }
    sandbox.close().await.expect("it closes");
}
