//! Jobs through a server: they outlive their client, and a broken connection starts none twice.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use sandbox_core::{
    Command, ErrorKind, ExitStatus, JobKey, LogOptions, Provider as _, SandboxExt as _, SandboxSpec,
};
use sandbox_remote::{
    Listener, RemoteConfig, RemoteProvider, Server, ServerConfig, Serving, TokenAccess,
};
use sandbox_testkit::model::ModelProvider;
use sandbox_testkit::proxy::{Break, FaultProxy};

const TOKEN: &str = "a-token-of-the-tests-0123456789";

fn serving(grace: Duration) -> Serving {
    let listener = Listener::tcp(([127, 0, 0, 1], 0).into()).unwrap();
    let access = Arc::new(TokenAccess::new(TOKEN).unwrap());
    let config = ServerConfig::new().grace(grace);
    let server = Server::new(Arc::new(ModelProvider::new()), access).config(config);
    server.start(listener).unwrap()
}

async fn client(address: &str) -> RemoteProvider {
    let config = RemoteConfig::new(address).unwrap().secret(TOKEN);
    let config = config.keep(true).horizon(Duration::from_secs(3));
    RemoteProvider::connect(config).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_on_without_its_client_and_another_one_finds_it() {
    let serving = serving(Duration::from_millis(200));
    let address = serving.uri().trim_start_matches("remote:").to_owned();
    let id = {
        let provider = client(&address).await;
        let sandbox = provider.create(SandboxSpec::new()).await.unwrap();
        let command = Command::shell("printf begun; cat; printf ended").stdin_piped();
        sandbox.start("build", command).await.unwrap();
        sandbox.info().id
    };
    // Longer than the grace of the server: what a client follows would be ended by now.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let provider = client(&address).await;
    let sandbox = provider.attach(&id).await.unwrap();
    let job = sandbox.find_job(&JobKey::new("build")).await.unwrap();
    let next = job.write_stdin(0, " input ").await.unwrap();
    // The same call again, as after a lost answer.
    assert_eq!(job.write_stdin(0, " input ").await.unwrap(), next);
    job.close_stdin().await.unwrap();
    assert_eq!(job.wait().await.unwrap().status, ExitStatus::Code(0));
    let log = job.read_log(0, LogOptions::new()).await.unwrap();
    assert_eq!(log.bytes(), b"begun input ended");
    assert!(log.ended);
    job.forget().await.unwrap();
    let error = sandbox.find_job(&JobKey::new("build")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    sandbox.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_start_is_broken_off_runs_once() {
    let serving = serving(Duration::from_secs(120));
    let to = serving.uri().rsplit('/').next().unwrap().parse().unwrap();
    let proxy = FaultProxy::start(to).await.unwrap();
    let provider = client(&proxy.endpoint()).await;
    let breaks = [
        Break::BeforeSend,
        Break::MidRequest,
        Break::AfterSend,
        Break::MidAnswer(0),
        Break::MidAnswer(40),
    ];
    for how in breaks {
        let sandbox = provider.create(SandboxSpec::new()).await.unwrap();
        proxy.arm("/start-job", how);
        let job = sandbox.start("key", Command::shell("echo x >> ran")).await;
        assert!(proxy.fired(), "{how:?} did not happen");
        let job = job.unwrap_or_else(|error| panic!("{how:?}: {error:?}"));
        assert_eq!(job.wait().await.unwrap().status, ExitStatus::Code(0));
        let ran = sandbox.read_to_string("ran").await.unwrap();
        assert_eq!(ran, "x\n", "{how:?}");
        sandbox.close().await.unwrap();
    }
}

/// The first handle was of a job that another handle forgot.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_handle_does_not_answer_for_a_later_job() {
    let serving = serving(Duration::from_secs(120));
    let address = serving.uri().trim_start_matches("remote:").to_owned();
    let provider = client(&address).await;
    let sandbox = provider.create(SandboxSpec::new()).await.unwrap();
    let old = sandbox
        .start("key", Command::shell("echo old"))
        .await
        .unwrap();
    old.wait().await.unwrap();
    let other = sandbox.find_job(old.key()).await.unwrap();
    assert_eq!(other.info().await.unwrap(), old.info().await.unwrap());
    other.forget().await.unwrap();
    let new = sandbox
        .start("key", Command::shell("sleep 1000"))
        .await
        .unwrap();
    for error in [
        old.info().await.unwrap_err(),
        old.stop().await.unwrap_err(),
        old.forget().await.unwrap_err(),
        old.wait().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
    // The control: the new one runs on, and its own handle stops it.
    assert!(!new.info().await.unwrap().state.is_final());
    new.stop().await.unwrap();
    sandbox.close().await.unwrap();
}
