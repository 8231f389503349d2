//! Faults between client and engine have a typed outcome in bounded time, and no command
//! runs twice.
#![cfg(target_os = "linux")]

mod support;

use std::time::{Duration, Instant};

use sandbox_core::{Command, ErrorKind, Execution, Provider as _, Sandbox as _, SandboxExt as _};
use sandbox_dagger::{DaggerConfig, DaggerProvider};
use sandbox_testkit::dagger::{DaggerDouble, Fault, Quirks};
use support::{Outcome, Rig, spec};
use tokio::net::TcpStream;

/// Runs a command while this goes wrong: how it failed, and how often it ran.
async fn exec_with(
    rig: &Rig,
    fault: Fault,
) -> Result<(ErrorKind, Option<Execution>, u64), Box<dyn std::error::Error + Send + Sync>> {
    let before = rig.double.executions();
    rig.double.inject(fault);
    let error = match rig.sandbox.exec(Command::new("true")).await {
        Ok(output) => return Err(format!("it should have failed: {output:?}").into()),
        Err(error) => error,
    };
    assert_eq!(error.sandbox(), Some(&rig.sandbox.info().id));
    if error.execution() != Some(Execution::NotStarted) {
        assert!(!error.is_retryable(), "{error:?}");
    }
    Ok((
        error.kind(),
        error.execution(),
        rig.double.executions() - before,
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_has_its_outcome_and_no_command_runs_twice() -> Outcome {
    let rig = Rig::new().await?;
    let (unknown, not_started) = (Some(Execution::Unknown), Some(Execution::NotStarted));
    for (fault, expected) in [
        (Fault::ResetAfter, (ErrorKind::Unavailable, unknown, 1)),
        (Fault::ResetBefore, (ErrorKind::Unavailable, unknown, 0)),
        (Fault::Garbage, (ErrorKind::Other, unknown, 1)),
        (Fault::NullData, (ErrorKind::Other, unknown, 1)),
        (
            Fault::Oversized(64 << 20),
            (ErrorKind::LimitExceeded, unknown, 1),
        ),
        (
            Fault::Status(502, "Bad Gateway\n"),
            (ErrorKind::Unavailable, unknown, 0),
        ),
        (
            Fault::Status(401, "unauthorized\n"),
            (ErrorKind::Unauthenticated, not_started, 0),
        ),
        (
            Fault::Ending("engine is shutting down"),
            (ErrorKind::Unavailable, unknown, 1),
        ),
        (
            Fault::Ending("session is closing"),
            (ErrorKind::Unavailable, unknown, 1),
        ),
        (
            Fault::NotBegun("engine is shutting down"),
            (ErrorKind::Unavailable, not_started, 0),
        ),
        (
            Fault::NotBegun("session is closing"),
            (ErrorKind::Unavailable, not_started, 0),
        ),
        (
            Fault::NotBegun("something else"),
            (ErrorKind::Unavailable, unknown, 0),
        ),
        (
            Fault::Ending("write /var/lib/dagger/x: no space left on device"),
            (ErrorKind::StorageFull, unknown, 1),
        ),
        (
            Fault::Status(
                502,
                "http do: Post: dial tcp: connect: connection refused\n",
            ),
            (ErrorKind::Unavailable, not_started, 0),
        ),
    ] {
        let text = format!("{fault:?}");
        assert_eq!(exec_with(&rig, fault).await?, expected, "{text}");
        let output = rig.sandbox.sh("echo still here").await?;
        assert_eq!(output.stdout.bytes, "still here\n", "after {text}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_says_when_the_store_of_the_engine_is_full() -> Outcome {
    let rig = Rig::new().await?;
    rig.sandbox.write("f", "x").await?;
    let full = Fault::Ending("mkdir /var/lib/dagger/worker: no space left on device");
    rig.double.inject(full);
    let Err(error) = rig.sandbox.remove_all("f").await else {
        return Err("it should have failed".into());
    };
    assert_eq!(error.kind(), ErrorKind::StorageFull, "{error:?}");
    assert!(!error.is_retryable());
    let hint = error.hint().unwrap_or_default();
    assert!(hint.contains("shutdown"), "{hint}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_of_a_lost_session_is_lost_and_asks_no_more() -> Outcome {
    let rig = Rig::new().await?;
    let fork = rig.sandbox.fork(Default::default()).await?;
    rig.double.restart();
    let Err(error) = rig.sandbox.exec(Command::new("true")).await else {
        return Err("it should have failed".into());
    };
    assert_eq!(
        (error.kind(), error.execution(), error.is_retryable()),
        (ErrorKind::Lost, Some(Execution::Unknown), false),
        "{error:?}"
    );
    // Nothing is sent again, which would wait for as long every time.
    let queries = rig.double.queries();
    for sandbox in [&rig.sandbox, &fork] {
        let Err(error) = sandbox.exec(Command::new("true")).await else {
            return Err("it should have failed".into());
        };
        assert_eq!(
            (error.kind(), error.execution(), error.is_retryable()),
            (ErrorKind::Lost, Some(Execution::NotStarted), false),
            "{error:?}"
        );
        let read = sandbox.read("f").await.map_err(|error| error.kind());
        assert_eq!(read, Err(ErrorKind::Lost));
    }
    assert_eq!(rig.double.queries(), queries);
    rig.sandbox.close().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_the_engine_forgot_is_lost_and_its_command_did_not_start() -> Outcome {
    let rig = Rig::new().await?;
    rig.double.forget();
    let Err(error) = rig.sandbox.exec(Command::new("true")).await else {
        return Err("it should have failed".into());
    };
    assert_eq!(
        (error.kind(), error.execution(), error.is_retryable()),
        (ErrorKind::Lost, Some(Execution::NotStarted), false),
        "{error:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_wait_for_their_turn_are_closed_and_not_started() -> Outcome {
    let rig = Rig::new().await?;
    let before = rig.double.executions();
    let commands: Vec<_> = (0..5)
        .map(|_| {
            let sandbox = rig.sandbox.clone();
            tokio::spawn(async move { sandbox.sh("sleep 1000").await })
        })
        .collect();
    while rig.double.executions() == before {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    rig.sandbox.close().await?;
    let mut waiting = 0;
    for command in commands {
        let Err(error) = command.await? else {
            return Err("it should have failed".into());
        };
        assert_eq!(error.kind(), ErrorKind::Closed, "{error:?}");
        if error.execution() == Some(Execution::NotStarted) {
            assert!(error.message().contains("closed, not started"), "{error}");
            waiting += 1;
        } else {
            assert_eq!(error.execution(), Some(Execution::Interrupted), "{error:?}");
        }
    }
    assert_eq!(waiting, 4);
    assert_eq!(rig.double.executions(), before + 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_batch_leaves_nothing() -> Outcome {
    let rig = Rig::new().await?;
    // The first query of a batch hands the directory over, the second puts it in place.
    rig.double.inject(Fault::Slow(Duration::ZERO));
    rig.double.inject(Fault::ResetAfter);
    let failed = rig.sandbox.write("a", "a").await;
    assert_eq!(
        failed.map_err(|error| error.kind()),
        Err(ErrorKind::Unavailable)
    );
    assert!(!rig.sandbox.exists("a").await?);
    rig.sandbox.write("a", "a").await?;
    assert_eq!(rig.sandbox.read("a").await?, "a");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_engine_is_waited_for_and_a_silent_one_is_not() -> Outcome {
    let rig = Rig::new().await?;
    rig.double.inject(Fault::Slow(Duration::from_millis(300)));
    assert!(rig.sandbox.exec(Command::new("true")).await?.success());
    let config = DaggerConfig::default()
        .session(rig.double.port(), rig.double.token())
        .operation_timeout(Duration::from_millis(500));
    rig.double.inject(Fault::Slow(Duration::ZERO));
    rig.double.inject(Fault::Slow(Duration::from_secs(60)));
    let started = Instant::now();
    let failed = DaggerProvider::new(config)?.create(spec()).await;
    assert_eq!(
        failed.map(drop).map_err(|error| error.kind()),
        Err(ErrorKind::Unavailable)
    );
    assert!(started.elapsed() < Duration::from_secs(60));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn create_connects_anew_when_the_session_is_gone() -> Outcome {
    let rig = Rig::new().await?;
    let engine_restarted = Fault::Status(502, "http do: Post: connection refused\n");
    for fault in [Fault::StaleSession, Fault::ResetBefore, engine_restarted] {
        rig.double.inject(fault);
        let sandbox = rig.provider.create(spec()).await?;
        assert!(sandbox.exec(Command::new("true")).await?.success());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_goes_while_a_command_runs_is_told() -> Outcome {
    let Rig {
        double, sandbox, ..
    } = Rig::new().await?;
    let task = {
        let sandbox = sandbox.clone();
        tokio::spawn(async move { sandbox.sh("sleep 1000").await })
    };
    while double.executions() < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(double);
    let ended = tokio::time::timeout(Duration::from_secs(120), task).await??;
    let Err(error) = ended else {
        return Err("it should have failed".into());
    };
    assert_eq!(
        (error.kind(), error.execution(), error.is_retryable()),
        (ErrorKind::Unavailable, Some(Execution::Unknown), false),
        "{error:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_of_another_schema_is_refused() -> Outcome {
    let double = DaggerDouble::start(Quirks::default()).await?;
    for version in ["v0.20.8", "v1.1.0", "v2.0.0", "unknown"] {
        double.set_version(version);
        let provider = DaggerProvider::new(support::config(&double))?;
        let Err(error) = provider.create(spec()).await else {
            return Err("it should have failed".into());
        };
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(!error.is_retryable(), "{error:?}");
        assert!(error.to_string().contains(version), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("0.21")));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn engines_of_the_next_version_are_used() -> Outcome {
    let double = DaggerDouble::start(Quirks::default()).await?;
    for version in ["v0.21.9", "v0.22.0", "v1.0.0-beta.10", "v1.0.0"] {
        double.set_version(version);
        let provider = DaggerProvider::new(support::config(&double))?;
        let sandbox = provider.create(spec()).await?;
        assert!(sandbox.sh("true").await?.success(), "{version}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_gone_is_told() -> Outcome {
    let Rig {
        double,
        provider,
        sandbox,
    } = Rig::new().await?;
    let port = double.port();
    drop(double);
    // The accepting task ends at its next turn; what it has accepted ends before its listener.
    let dropped = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
        assert!(dropped.elapsed() < Duration::from_secs(120), "it listens");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let failure = async || match sandbox.exec(Command::new("true")).await {
        Ok(output) => Err(format!("{output:?}")),
        Err(error) => Ok(error),
    };
    let mut error = failure().await?;
    // A kept connection may only break while it is used, which proves nothing. It is gone then.
    if error.execution() == Some(Execution::Unknown) {
        error = failure().await?;
    }
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert_eq!(
        error.execution(),
        Some(Execution::NotStarted),
        "a refused connection carried nothing: {error:?}"
    );
    let error = provider
        .create(spec())
        .await
        .map(drop)
        .map_err(|error| error.kind());
    assert_eq!(error, Err(ErrorKind::Unavailable));
    sandbox.close().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_is_no_credential() -> Outcome {
    let double = DaggerDouble::start(Quirks::default()).await?;
    let config = DaggerConfig::default().session(double.port(), "wrong");
    let error = DaggerProvider::new(config)?
        .connect()
        .await
        .map_err(|e| e.kind());
    assert_eq!(error, Err(ErrorKind::Unauthenticated));
    Ok(())
}
