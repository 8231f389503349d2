//! Jobs: a command in an image, its exit code, its log, its end.

use std::time::Duration;

use sandbox_aca::provision::{Container, ExecutionStatus, JobSpec, LogOptions};
use sandbox_core::ErrorKind;

use sandbox_aca::provision::ControlPlane;
use sandbox_testkit::proxy::{Break, FaultProxy};

use super::{IMAGE, config, emulator, environment, plane, start};

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

#[tokio::test(flavor = "multi_thread")]
async fn a_start_whose_answer_is_lost_is_found_and_not_repeated() {
    for (how, accepts) in [
        (Break::AfterSend, false),
        (Break::AfterSend, true),
        (Break::MidAnswer(150), false),
        (Break::Garbage, false),
    ] {
        let what = format!("{how:?}, accepted {accepts}");
        let emulator = emulator(|options| {
            options.arm_accepts = accepts;
            options.relative_links = true;
        })
        .await;
        let proxy = FaultProxy::start(emulator.address()).await;
        let proxy = proxy.expect("a proxy");
        let broken = ControlPlane::new(config(&emulator, &proxy.endpoint()));
        let job = plane(&emulator).job("job").expect("a name");
        let spec = JobSpec::new(environment(), Container::new(IMAGE));
        job.ensure(&spec).await.expect("a job");
        // One that is there already is not taken for it.
        job.start(&shell("echo other")).await.expect("it starts");
        proxy.arm("/start", how);
        let job = broken.expect("a control plane").job("job").expect("a name");
        let started = job.start(&shell("echo lost; exit 5")).await;
        let started = started.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        assert!(proxy.fired(), "{what}: it never happened");
        let ended = started.wait(LONG).await.expect("it ends");
        assert_eq!(ended.exit_code, Some(5), "{what}");
        assert_eq!(emulator.executions("echo lost; exit 5"), 1, "{what}");
        assert_eq!(job.executions().await.expect("a list").len(), 2, "{what}");
    }
}
