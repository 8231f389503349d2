//! In which tokio runtime a sandbox works, and what it says in another.
#![cfg(target_os = "linux")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, helpers too"
)]

mod support;

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use sandbox_core::{Command, ErrorKind, Execution, Network, Provider, SandboxExt, SandboxSpec};
use sandbox_local::{
    LandlockConfig, LandlockProvider, LocalConfig, LocalProvider, PlainConfig, PlainProvider,
};
use tokio::runtime::{Builder, Runtime};

fn complete() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

fn providers() -> [Box<dyn Provider>; 2] {
    let local = LocalProvider::new(LocalConfig::default()).expect("a provider");
    [
        Box::new(local),
        Box::new(PlainProvider::new(PlainConfig::default()).expect("a provider")),
    ]
}

fn spec() -> SandboxSpec {
    SandboxSpec::new().network(Network::Open)
}

#[test]
fn outside_of_a_runtime_everything_is_an_error() {
    for provider in providers() {
        let mut create = pin!(provider.create(spec()));
        let Poll::Ready(created) = create
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        else {
            panic!("it waits");
        };
        assert_eq!(
            created.expect_err("an error").kind(),
            ErrorKind::InvalidInput
        );

        let runtime = complete();
        let sandbox = runtime
            .block_on(provider.create(spec()))
            .expect("a sandbox");
        let mut exec = pin!(sandbox.sh("true"));
        let Poll::Ready(done) = exec.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
            panic!("it waits");
        };
        let error = done.expect_err("an error");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(error.execution(), Some(Execution::NotStarted));
        runtime.block_on(sandbox.close()).expect("close");
    }
}

#[test]
fn without_a_driver_creation_is_an_error() {
    for provider in providers() {
        for time in [false, true] {
            let mut builder = Builder::new_current_thread();
            let runtime = if time {
                builder.enable_time().build()
            } else {
                builder.enable_io().build()
            };
            let created = runtime
                .expect("a runtime")
                .block_on(provider.create(spec()));
            assert_eq!(
                created.expect_err("an error").kind(),
                ErrorKind::InvalidInput
            );
        }
    }
}

#[test]
fn a_sandbox_works_from_another_runtime_and_ends_with_its_own() {
    let provider = LocalProvider::new(LocalConfig::default()).expect("a provider");
    let (own, other) = (complete(), complete());
    let sandbox = own.block_on(provider.create(spec())).expect("a sandbox");
    // Its own runs on a thread of its own meanwhile.
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = std::thread::spawn(move || {
        let _ = own.block_on(stopped);
    });
    let output = other.block_on(sandbox.sh("echo works")).expect("exec");
    assert_eq!(output.stdout.bytes, "works\n");
    drop(stop);
    serving.join().expect("no panic");

    let error = other.block_on(sandbox.sh("true")).expect_err("it is gone");
    assert_eq!(error.kind(), ErrorKind::Lost);
    assert!(error.to_string().contains("runtime"), "{error}");
    other.block_on(sandbox.close()).expect("close");
}

#[tokio::test]
async fn what_took_a_sandbox_away_is_told_apart() {
    // A time that no other test sleeps: this process has other sandboxes.
    const TIME: &str = "1000.0417";
    let sandbox = support::default().await;
    let process = sandbox
        .spawn(Command::new("sleep").arg(TIME))
        .await
        .expect("it starts");
    let init = support::until("its init is found", async || {
        support::inits().into_iter().find(|init| {
            let children = format!("/proc/{init}/task/{init}/children");
            let children = std::fs::read_to_string(children).unwrap_or_default();
            children.split_whitespace().any(|child| {
                let command = std::fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
                command.ends_with(format!("{TIME}\0").as_bytes())
            })
        })
    })
    .await;
    let init = rustix::process::Pid::from_raw(init).expect("a number");
    rustix::process::kill_process(init, rustix::process::Signal::KILL).expect("a kill");
    let error = process.wait().await.expect_err("it was killed");
    assert_eq!(error.kind(), ErrorKind::Lost);
    assert!(error.to_string().contains("outside"), "{error}");
}

#[tokio::test]
async fn a_time_without_an_end_is_no_panic() {
    let endless = SandboxSpec::new()
        .ttl(Duration::MAX)
        .command_timeout(Duration::MAX);
    let sandbox = support::create(endless).await;
    // The task that ends what is out of use has run once by then.
    assert!(sandbox.sh("true").await.expect("exec").success());
    for _ in 0..3 {
        let process = sandbox
            .spawn(Command::new("true").timeout(Duration::MAX))
            .await
            .expect("it starts");
        assert!(process.wait().await.expect("an exit").status.success());
        tokio::task::yield_now().await;
    }
    assert!(sandbox.sh("true").await.expect("exec").success());
    sandbox.close().await.expect("close");

    let plain = spec().command_timeout(Duration::MAX);
    let plain = PlainProvider::new(PlainConfig::default())
        .expect("a provider")
        .create(plain)
        .await
        .expect("plain");
    assert!(plain.sh("true").await.expect("exec").success());
    plain.close().await.expect("close");
}

#[tokio::test]
async fn a_grace_without_an_end_is_no_panic() {
    let local = LocalConfig::default().output_grace(Duration::MAX);
    let plain = PlainConfig::new().output_grace(Duration::MAX);
    let landlock = LandlockConfig::new().output_grace(Duration::MAX);
    let providers: [Box<dyn Provider>; 3] = [
        Box::new(LocalProvider::new(local).expect("a provider")),
        Box::new(PlainProvider::new(plain).expect("a provider")),
        Box::new(LandlockProvider::new(landlock).expect("a provider")),
    ];
    for provider in providers {
        let sandbox = provider.create(spec()).await.expect("a sandbox");
        // What is left behind is waited for to its end.
        let output = sandbox.sh("(sleep 0.3; echo late) & echo early").await;
        let output = output.expect("exec");
        assert_eq!(output.stdout.bytes, "early\nlate\n");
        sandbox.close().await.expect("close");
    }
}

#[tokio::test]
async fn a_name_with_arguments_in_it_gets_a_hint() {
    for provider in providers() {
        let sandbox = provider.create(spec()).await.expect("a sandbox");
        let error = sandbox.exec(Command::new("ls -la")).await;
        let error = error.expect_err("there is no such program");
        assert_eq!(error.kind(), ErrorKind::CommandNotFound);
        assert!(error.hint().is_some_and(|hint| hint.contains("arguments")));
        sandbox.close().await.expect("close");
    }
}
