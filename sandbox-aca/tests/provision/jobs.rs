//! Jobs: a command in an image, its exit code, its log, its end.

use std::time::Duration;

use sandbox_aca::provision::{Container, ExecutionStatus, JobSpec, LogOptions};
use sandbox_core::ErrorKind;

use super::{IMAGE, environment, start};

const LONG: Duration = Duration::from_secs(60);

fn shell(script: &str) -> Container {
    Container::new(IMAGE).command(["/bin/sh", "-c", script])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_to_its_exit_code_and_its_log_is_read() {
    for accepts in [false, true] {
        let (emulator, plane) = start(|options| options.arm_accepts = accepts).await;
        let job = plane.job("job").expect("a name");
        let spec = JobSpec::new(environment(), Container::new(IMAGE)).secret("key", "hidden");
        job.ensure(&spec).await.expect("a job");
        job.ensure(&spec).await.expect("a job");
        assert_eq!(emulator.requests("PUT /"), 1);
        let container = shell("echo \"a $A k $KEY\"; exit 3")
            .env("A", "1")
            .secret_env("KEY", "key");
        let execution = job.start(&container).await.expect("it starts");
        let mut log = {
            // It has a replica before it has ended.
            let log = execution.logs(LogOptions::new().follow(true)).await;
            log.expect("a log")
        };
        assert_eq!(
            log.line().await.expect("a line").expect("a line"),
            "a 1 k hidden"
        );
        assert_eq!(log.line().await.expect("the end"), None);
        let ended = execution.wait(LONG).await.expect("it ends");
        assert_eq!(
            (ended.status, ended.exit_code),
            (ExecutionStatus::Failed, Some(3))
        );
        let done = job.start(&shell("true")).await.expect("it starts");
        let ended = done.wait(LONG).await.expect("it ends");
        assert_eq!(
            (ended.status, ended.exit_code),
            (ExecutionStatus::Succeeded, Some(0))
        );
        assert_eq!(job.executions().await.expect("a list").len(), 2);
        job.delete().await.expect("it goes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_execution_is_stopped_and_one_of_an_older_version_has_no_code() {
    let (emulator, plane) = start(|options| options.no_detailed_status = true).await;
    let job = plane.job("job").expect("a name");
    job.ensure(&JobSpec::new(environment(), Container::new(IMAGE)))
        .await
        .expect("a job");
    let execution = job.start(&shell("sleep 1000")).await.expect("it starts");
    let error = execution
        .wait(Duration::from_millis(100))
        .await
        .expect_err("it runs on");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.to_string().contains("Running"), "{error}");
    execution.stop().await.expect("it stops");
    execution.stop().await.expect("nothing to do");
    let ended = execution.wait(LONG).await.expect("it has ended");
    assert_eq!(ended.status, ExecutionStatus::Stopped);
    let failed = job.start(&shell("exit 4")).await.expect("it starts");
    let ended = failed.wait(LONG).await.expect("it ends");
    assert_eq!(
        (ended.status, ended.exit_code),
        (ExecutionStatus::Failed, None)
    );
    assert_eq!(emulator.requests("/start"), 2);
}
