//! Every call with its connection broken in every way: it is run once at most, what is claimed of
//! it is true, and no output is lost or repeated.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use sandbox_core::{
    Command, Error, Execution, FileBatch, FileEvent, ForkOptions, Labels, Provider, Result,
    Sandbox, SandboxExt as _, SandboxSpec,
};
use sandbox_remote::{Listener, RemoteConfig, RemoteProvider, Server, Serving, TokenAccess};
use sandbox_testkit::model::ModelProvider;
use sandbox_testkit::proxy::{Break, FaultProxy};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const TOKEN: &str = "a-token-of-the-tests-0123456789";

const BREAKS: [Break; 9] = [
    Break::BeforeSend,
    Break::MidRequest,
    Break::AfterSend,
    Break::MidAnswer(0),
    Break::MidAnswer(40),
    Break::Sliced,
    Break::Slow(Duration::from_millis(100)),
    Break::Garbage,
    Break::Status(503, None),
];

struct Rig {
    proxy: FaultProxy,
    model: ModelProvider,
    provider: RemoteProvider,
    _serving: Serving,
}

async fn rig() -> Rig {
    let model = ModelProvider::new();
    let listener = Listener::tcp(([127, 0, 0, 1], 0).into()).unwrap();
    let access = Arc::new(TokenAccess::new(TOKEN).unwrap());
    let serving = Server::new(Arc::new(model.clone()), access)
        .start(listener)
        .unwrap();
    let to = serving.uri().rsplit('/').next().unwrap().parse().unwrap();
    let proxy = FaultProxy::start(to).await.unwrap();
    let config = RemoteConfig::new(&proxy.endpoint())
        .unwrap()
        .secret(TOKEN)
        .horizon(Duration::from_secs(3));
    let provider = RemoteProvider::connect(config).await.unwrap();
    Rig {
        proxy,
        model,
        provider,
        _serving: serving,
    }
}

/// Checks what an outcome claims against how often it was run.
fn is_true<T>(outcome: &Result<T>, runs: usize, what: &str) {
    match outcome {
        Ok(_) => assert_eq!(runs, 1, "{what}: succeeded"),
        Err(error) => match error.execution() {
            Some(Execution::NotStarted) => assert_eq!(runs, 0, "{what}: {error:?}"),
            _ => assert!(runs <= 1, "{what}: {runs} runs, {error:?}"),
        },
    }
}

async fn lines(sandbox: &dyn Sandbox) -> usize {
    let text = sandbox.read_to_string("log").await;
    text.map_or(0, |text| text.lines().count())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_exec_runs_once_at_most_and_mostly_comes_through() {
    let rig = rig().await;
    let mut through = 0;
    for how in BREAKS {
        let sandbox = rig.provider.create(SandboxSpec::new()).await.unwrap();
        rig.proxy.arm("/exec", how);
        let ran = sandbox.sh("echo x >> log; echo out").await;
        assert!(rig.proxy.fired(), "{how:?} did not happen");
        is_true(&ran, lines(&*sandbox).await, &format!("{how:?}"));
        if let Ok(output) = ran {
            assert_eq!(output.stdout.bytes, "out\n", "{how:?}");
            through += 1;
        }
        sandbox.close().await.unwrap();
    }
    // A lost answer is asked for again.
    assert_eq!(through, BREAKS.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_something_makes_it_once() {
    let rig = rig().await;
    for how in BREAKS {
        rig.proxy.arm("POST /v1/sandboxes ", how);
        let made = rig.provider.create(SandboxSpec::new()).await;
        assert!(rig.proxy.fired(), "{how:?} did not happen");
        let open = rig.model.list(&Labels::new()).await.unwrap().len();
        is_true(&made, open, &format!("create: {how:?}"));
        let sandbox = made.unwrap();
        rig.proxy.arm("/fork", how);
        let fork = sandbox.fork(ForkOptions::new()).await;
        let open = rig.model.list(&Labels::new()).await.unwrap().len();
        is_true(&fork, open - 1, &format!("fork: {how:?}"));
        rig.proxy.arm("/write-files", how);
        // A second run would find the file.
        let written = sandbox
            .write_files(FileBatch::new().new_file("new", "x"))
            .await;
        written.unwrap_or_else(|error| panic!("write_files: {how:?}: {error:?}"));
        rig.proxy.arm("/rename", how);
        sandbox.move_to("new", "moved").await.unwrap();
        rig.proxy.arm("/remove", how);
        sandbox.remove_all("moved").await.unwrap();
        rig.proxy.arm("/create-dir", how);
        let exclusive = sandbox_core::CreateDirOptions::new().recursive(false);
        sandbox.create_dir(&"d".into(), exclusive).await.unwrap();
        fork.unwrap().close().await.unwrap();
        rig.proxy.arm("/close", how);
        sandbox.close().await.unwrap();
        let open = rig.model.list(&Labels::new()).await.unwrap();
        assert!(open.is_empty(), "close: {how:?}: {open:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn output_and_input_are_resumed_where_they_broke() {
    let rig = rig().await;
    let sandbox = rig.provider.create(SandboxSpec::new()).await.unwrap();
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    sandbox.write("big", content.clone()).await.unwrap();
    for (needle, how) in [
        ("/spawn", Break::AfterSend),
        ("/spawn", Break::MidAnswer(10)),
        ("/stdout", Break::BeforeSend),
        ("/stdout", Break::MidAnswer(0)),
        ("/stdout", Break::MidAnswer(300)),
        ("/stdout", Break::MidAnswer(70_000)),
        ("/stdout", Break::MidAnswer(900_000)),
        ("/stdout", Break::Sliced),
        ("/wait", Break::AfterSend),
        ("/wait", Break::Garbage),
    ] {
        rig.proxy.arm(needle, how);
        let mut process = sandbox.spawn(Command::new("cat").arg("big")).await.unwrap();
        let mut read = Vec::new();
        let mut stdout = process.stdout.take().unwrap();
        stdout.read_to_end(&mut read).await.unwrap();
        assert!(read == content, "{needle} {how:?}: {} bytes", read.len());
        let exit = process.wait().await.unwrap();
        assert!(exit.status.success(), "{needle} {how:?}");
        rig.proxy.disarm();
    }
    for how in [
        Break::BeforeSend,
        Break::AfterSend,
        Break::MidAnswer(5),
        Break::Garbage,
    ] {
        rig.proxy.arm_after(1, "/stdin", how);
        let command = Command::new("cat").stdin_piped();
        let mut process = sandbox.spawn(command).await.unwrap();
        let mut stdin = process.stdin.take().unwrap();
        let mut stdout = process.stdout.take().unwrap();
        let mut read = Vec::new();
        let feed = async {
            for part in content.chunks(400_000) {
                stdin.write_all(part).await.unwrap();
            }
            stdin.shutdown().await.unwrap();
        };
        let (_, done) = tokio::join!(feed, stdout.read_to_end(&mut read));
        done.unwrap();
        assert!(read == content, "stdin {how:?}: {} bytes", read.len());
        rig.proxy.disarm();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_for_a_moment_is_waited_for_and_one_that_is_gone_is_not() {
    let mut rig = rig().await;
    let sandbox = rig.provider.create(SandboxSpec::new()).await.unwrap();
    rig.proxy.leave().await.unwrap();
    let gone = sandbox.sh("echo x >> log").await.unwrap_err();
    // No request can have arrived.
    assert_eq!(gone.execution(), Some(Execution::NotStarted), "{gone:?}");
    assert!(gone.is_retryable());
    rig.proxy.come_back().await.unwrap();
    sandbox.sh("echo x >> log").await.unwrap();
    assert_eq!(lines(&*sandbox).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_started_anew_does_not_run_what_the_old_one_may_have_run() {
    let model = ModelProvider::new();
    let access = || Arc::new(TokenAccess::new(TOKEN).unwrap());
    let listener = Listener::tcp(([127, 0, 0, 1], 0).into()).unwrap();
    let serving = Server::new(Arc::new(model.clone()), access())
        .start(listener)
        .unwrap();
    let address: std::net::SocketAddr = serving.uri().rsplit('/').next().unwrap().parse().unwrap();
    let config = RemoteConfig::new(&format!("http://{address}")).unwrap();
    let provider = RemoteProvider::connect(config.secret(TOKEN)).await.unwrap();
    let sandbox = provider.create(SandboxSpec::new()).await.unwrap();
    drop(serving);
    let bind = || Listener::tcp(address);
    let listener = loop {
        match bind() {
            Ok(listener) => break listener,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    let _serving = Server::new(Arc::new(model), access())
        .start(listener)
        .unwrap();
    let lost: Error = sandbox.sh("true").await.unwrap_err();
    assert_eq!(lost.kind(), sandbox_core::ErrorKind::Lost, "{lost:?}");
}

/// A file that is written over a connection that breaks is there whole, once, or not at all; and one
/// that is read is whole or an error.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_as_a_stream_is_whole_or_not_there() {
    let rig = rig().await;
    let content: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
    for how in BREAKS {
        for at in ["/open-write", "/stdin", "/commit"] {
            let sandbox = rig.provider.create(SandboxSpec::new()).await.unwrap();
            rig.proxy.arm(at, how);
            let written = async {
                let mut file = sandbox.writer("f").await?;
                let sent = file.write_all(&content).await;
                sent.map_err(|error| Error::from_io(error, sandbox_core::Operation::OpenWrite))?;
                file.commit().await
            };
            let written: Result<()> = written.await;
            assert!(rig.proxy.fired(), "{at}: {how:?} did not happen");
            written.unwrap_or_else(|error| panic!("{at}: {how:?}: {error:?}"));
            let read = sandbox.read("f").await.unwrap();
            assert_eq!(&read[..], &content[..], "{at}: {how:?}");
            sandbox.close().await.unwrap();
        }
        for at in ["/open-read", "/stdout"] {
            let sandbox = rig.provider.create(SandboxSpec::new()).await.unwrap();
            sandbox.write("f", content.clone()).await.unwrap();
            rig.proxy.arm(at, how);
            let mut read = Vec::new();
            let mut file = sandbox.reader("f").await.unwrap();
            file.read_to_end(&mut read).await.unwrap();
            assert!(rig.proxy.fired(), "{at}: {how:?} did not happen");
            assert_eq!(read, content, "{at}: {how:?}");
            sandbox.close().await.unwrap();
        }
    }
    // What is let go of without a commit is not there, nor what its client left.
    let sandbox = rig.provider.create(SandboxSpec::new()).await.unwrap();
    let mut file = sandbox.writer("never").await.unwrap();
    file.write_all(&content).await.unwrap();
    file.flush().await.unwrap();
    drop(file);
    assert!(sandbox.read("never").await.is_err());
    sandbox.close().await.unwrap();
}

/// A watch whose connection breaks tells all the same everything that happens, once.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_loses_no_event_with_its_connection() {
    let rig = rig().await;
    for how in BREAKS {
        for at in ["/watch", "/stdout"] {
            let sandbox = rig.provider.create(SandboxSpec::new()).await.unwrap();
            sandbox.create_dir_all("top").await.unwrap();
            rig.proxy.arm(at, how);
            let mut watch = sandbox.watch_dir("top").await.unwrap();
            let names: Vec<String> = (0..20).map(|n| format!("{n:02}")).collect();
            let write = async {
                for name in &names {
                    sandbox.write(format!("top/{name}"), "x").await.unwrap();
                }
            };
            let take = async {
                let mut told = Vec::new();
                while told.last() != Some(&FileEvent::Created("19".into())) {
                    told.extend(watch.next().await.unwrap());
                }
                told
            };
            let ((), told) = tokio::join!(write, take);
            assert!(rig.proxy.fired(), "{at}: {how:?} did not happen");
            let created = |name: &String| FileEvent::Created(name.as_str().into());
            let expected: Vec<FileEvent> = names.iter().map(created).collect();
            assert_eq!(told, expected, "{at}: {how:?}");
            sandbox.close().await.unwrap();
        }
    }
}

/// A watch whose server is gone says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_whose_server_is_gone_ends() {
    let mut rig = rig().await;
    let sandbox = rig.provider.create(SandboxSpec::new()).await.unwrap();
    let mut watch = sandbox.watch_dir(".").await.unwrap();
    rig.proxy.leave().await.unwrap();
    let error = watch.next().await.unwrap_err();
    assert_eq!(error.kind(), sandbox_core::ErrorKind::Unavailable);
    assert_eq!(error.sandbox(), Some(&sandbox.info().id));
}
