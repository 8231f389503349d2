//! Waiting in a runtime without time: an error, and no panic.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers too")]

use std::sync::Arc;
use std::time::Duration;

use sandbox_core::layer::{Layer as _, Retry};
use sandbox_core::{
    CollectOptions, Command, ErrorKind, JobKey, JobOptions, LogOptions, Operation, PortWaitOptions,
    Provider as _, SandboxExt as _, SandboxSpec,
};
use sandbox_testkit::model::{Fault, ModelProvider};
use tokio::runtime::{Builder, Runtime};

#[test]
fn what_waits_is_an_error_in_a_runtime_without_time() {
    let whole = Runtime::new().unwrap();
    let refused = vec![Fault::Refuse(ErrorKind::Unavailable); 9];
    let provider = ModelProvider::builder()
        .fault_on(Operation::ListJobs, refused)
        .build();
    let sandbox = whole.block_on(provider.create(SandboxSpec::new())).unwrap();
    let sleep = || Command::new("sleep").arg("600");
    let process = whole.block_on(sandbox.spawn(sleep())).unwrap();
    let key = JobKey::new("k");
    let started = sandbox.start_job(&key, sleep(), JobOptions::new());
    let job = whole.block_on(started).unwrap();

    let bare = Builder::new_current_thread().build().unwrap();
    bare.block_on(async {
        let waited = sandbox.wait_for_port(80, PortWaitOptions::new()).await;
        assert_eq!(waited.unwrap_err().kind(), ErrorKind::InvalidInput);
        let options = CollectOptions::new().timeout(Duration::from_secs(600));
        let collected = process.wait_with_output(options).await;
        assert_eq!(collected.unwrap_err().kind(), ErrorKind::InvalidInput);
        let options = LogOptions::new().wait(Duration::from_secs(600));
        let read = job.read_log(0, options).await;
        assert_eq!(read.unwrap_err().kind(), ErrorKind::InvalidInput);
        // A refusal, and nothing to wait with before the next attempt.
        let layered = Retry::new(3).layer(Arc::clone(&sandbox));
        let listed = layered.list_jobs().await;
        assert_eq!(listed.unwrap_err().kind(), ErrorKind::Unavailable);
    });
}
