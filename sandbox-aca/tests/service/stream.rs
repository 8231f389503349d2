//! Commands over the WebSocket, when it breaks and when there is none.

use std::time::Duration;

use sandbox_core::{Command, ErrorKind, Execution, SandboxExt as _};
use sandbox_testkit::aca::{Action, Fault};

use super::{counted, sandbox};

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_at_most_once_wherever_its_stream_breaks() {
    for frames in 0..5 {
        let (emulator, _, sandbox) = sandbox().await;
        emulator.inject(Fault::new("/exec/stream", Action::CutStream(frames)));
        match sandbox.spawn(counted()).await {
            Err(error) => {
                let count = sandbox.read("count").await.map_or(0, |bytes| bytes.len());
                match error.execution() {
                    Some(Execution::NotStarted) => assert_eq!(count, 0, "{frames}: {error:?}"),
                    ran => assert!(ran.is_some() && count <= 1, "{frames}: {error:?}"),
                }
            }
            Ok(process) => match process.wait_with_output(Default::default()).await {
                Ok(output) => assert_eq!(output.stdout.bytes, "ran", "{frames}"),
                Err(error) => assert_eq!(
                    error.execution(),
                    Some(Execution::Interrupted),
                    "{frames}: {error:?}"
                ),
            },
        }
        let count = sandbox.read("count").await.map_or(0, |bytes| bytes.len());
        assert!(count <= 1, "{frames}: it ran {count} times");
        sandbox.close().await.expect("it closes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_stream_spawn_is_refused_and_exec_works() {
    for status in [404, 405, 501] {
        let (emulator, _, sandbox) = sandbox().await;
        emulator.inject(Fault::new("/exec/stream", Action::Status(status, None)));
        let error = sandbox.spawn(counted()).await.expect_err("no stream");
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{status}: {error:?}");
        assert_eq!(
            error.execution(),
            Some(Execution::NotStarted),
            "{status}: {error:?}"
        );
        assert!(sandbox.exec(counted()).await.expect("it runs").success());
        sandbox.close().await.expect("it closes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_is_known_though_nobody_reads_the_output() {
    let (_emulator, _, sandbox) = sandbox().await;
    // More than the buffers of the way hold, less than the guest's own pipe beyond them.
    let command = Command::shell("head -c 30000000 /dev/zero & sleep 0.2; exit 7");
    let process = sandbox.spawn(command).await.expect("a process");
    let exit = tokio::time::timeout(Duration::from_secs(120), process.wait()).await;
    let exit = exit.expect("the end is told").expect("it ended");
    assert_eq!(exit.status, sandbox_core::ExitStatus::Code(7));
    sandbox.close().await.expect("it closes");
}
