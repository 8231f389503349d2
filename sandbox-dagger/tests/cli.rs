//! The child that serves a session: started, found wanting, and never left behind.
#![cfg(target_os = "linux")]

mod support;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sandbox_core::{ErrorKind, Provider as _, SandboxExt as _};
use sandbox_dagger::{DaggerConfig, DaggerProvider};
use sandbox_testkit::dagger::{DaggerDouble, Fault, Quirks};
use support::{Outcome, alive, spec};

/// A program that stands in for the CLI.
fn cli(dir: &Path, script: &str) -> std::io::Result<PathBuf> {
    support::program(dir.join("dagger"), script)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_the_cli_works_and_ends_with_its_provider() -> Outcome {
    let double = DaggerDouble::start(Quirks::default()).await?;
    let dir = tempfile::tempdir()?;
    let pid = dir.path().join("pid");
    for polite in [true, false] {
        let script = format!(
            "echo $$ >{}\necho '{{\"port\":{},\"session_token\":\"{}\"}}'\n{}",
            pid.display(),
            double.port(),
            double.token(),
            // One ends when its input does, the other never.
            if polite {
                "exec cat >/dev/null"
            } else {
                "exec sleep 1000"
            }
        );
        let config = DaggerConfig::default().cli(cli(dir.path(), &script)?);
        let provider = DaggerProvider::new(config)?;
        let sandbox = provider.create(spec()).await?;
        assert_eq!(sandbox.sh("echo hi").await?.stdout.bytes, "hi\n");
        assert!(alive(&pid));
        drop(sandbox);
        if polite {
            provider.shutdown().await;
        } else {
            drop(provider);
        }
        gone(&pid).await?;
    }
    Ok(())
}

/// A CLI that serves the double's session until its input ends.
fn polite(dir: &Path, double: &DaggerDouble) -> std::io::Result<PathBuf> {
    let script = format!(
        "echo $$ >{}\necho '{{\"port\":{},\"session_token\":\"{}\"}}'\nexec cat >/dev/null",
        dir.join("pid").display(),
        double.port(),
        double.token(),
    );
    cli(dir, &script)
}

async fn gone(pid: &Path) -> Outcome {
    let started = Instant::now();
    while alive(pid) {
        if started.elapsed() > Duration::from_secs(120) {
            return Err("the CLI was left behind".into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// The time to tidy up: what a CLI has on disk is its own to remove.
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_provider_gives_its_cli_the_time_to_tidy_up() -> Outcome {
    let double = DaggerDouble::start(Quirks::default()).await?;
    let dir = tempfile::tempdir()?;
    let pid = dir.path().join("pid");
    let untidy = dir.path().join("untidy");
    std::fs::write(&untidy, "")?;
    let script = format!(
        "echo $$ >{}\necho '{{\"port\":{},\"session_token\":\"{}\"}}'\ncat >/dev/null\nrm {}",
        pid.display(),
        double.port(),
        double.token(),
        untidy.display(),
    );
    let config = DaggerConfig::default().cli(cli(dir.path(), &script)?);
    let provider = DaggerProvider::new(config)?;
    provider.connect().await?;
    drop(provider);
    gone(&pid).await?;
    assert!(!untidy.exists(), "it was killed before it could tidy up");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_leaves_no_cli_behind() -> Outcome {
    let double = DaggerDouble::start(Quirks::default()).await?;
    let dir = tempfile::tempdir()?;
    let pid = dir.path().join("pid");
    let config = DaggerConfig::default().cli(polite(dir.path(), &double)?);
    let seen = pid.clone();
    let task = tokio::spawn(async move {
        let provider = DaggerProvider::new(config).expect("a provider");
        let created = provider.create(spec()).await;
        assert!(created.is_ok() && !alive(&seen), "this panic is meant");
    });
    assert!(task.await.is_err_and(|error| error.is_panic()));
    assert!(pid.exists());
    gone(&pid).await
}

/// Host program that the next test starts and kills.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "the next test runs it as a program of its own"]
async fn a_host_that_waits() -> Outcome {
    let sandbox = DaggerProvider::new(DaggerConfig::default())?
        .create(spec())
        .await?;
    std::fs::write(std::env::var("SANDBOX_TEST_CONNECTED")?, "")?;
    std::future::pending::<()>().await;
    drop(sandbox);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_was_killed_leaves_no_cli_behind() -> Outcome {
    let double = DaggerDouble::start(Quirks::default()).await?;
    let dir = tempfile::tempdir()?;
    let connected = dir.path().join("connected");
    let mut host = tokio::process::Command::new(std::env::current_exe()?)
        .args(["--exact", "a_host_that_waits", "--ignored"])
        .env("_EXPERIMENTAL_DAGGER_CLI_BIN", polite(dir.path(), &double)?)
        .env("SANDBOX_TEST_CONNECTED", &connected)
        .env_remove("DAGGER_SESSION_PORT")
        .kill_on_drop(true)
        .spawn()?;
    let started = Instant::now();
    while !connected.exists() {
        assert!(started.elapsed() < Duration::from_secs(60), "not connected");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let pid = dir.path().join("pid");
    assert!(alive(&pid));
    host.kill().await?;
    gone(&pid).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cli_that_fails_or_says_nothing_is_told_in_time() -> Outcome {
    let dir = tempfile::tempdir()?;
    let missing = dir.path().join("no-such");
    let failing = "echo 'cannot connect to the Docker daemon' >&2; exit 1";
    for (program, kind, text) in [
        (missing, ErrorKind::Unavailable, "can't be started"),
        (
            cli(dir.path(), failing)?,
            ErrorKind::Unavailable,
            "cannot connect to the Docker daemon",
        ),
    ] {
        let config = DaggerConfig::default().cli(program);
        let failed = DaggerProvider::new(config)?.connect().await;
        let Err(error) = failed else {
            return Err("it should have failed".into());
        };
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.to_string().contains(text), "{error}");
        assert!(error.hint().is_some(), "{error}");
    }
    let config = DaggerConfig::default()
        .cli(cli(dir.path(), "exec sleep 1000")?)
        .connect_timeout(Duration::from_millis(500));
    let started = Instant::now();
    let failed = DaggerProvider::new(config)?
        .connect()
        .await
        .map_err(|error| error.kind());
    assert_eq!(failed, Err(ErrorKind::Unavailable));
    assert!(started.elapsed() < Duration::from_secs(60));
    Ok(())
}

/// An engine that is started first tells of its progress: more than a pipe holds.
#[tokio::test(flavor = "multi_thread")]
async fn a_cli_that_says_much_before_its_session_is_read() -> Outcome {
    let double = DaggerDouble::start(Quirks::default()).await?;
    let dir = tempfile::tempdir()?;
    let script = format!(
        "head -c 1000000 /dev/zero >&2\necho '{{\"port\":{},\"session_token\":\"{}\"}}'\nexec cat >/dev/null",
        double.port(),
        double.token(),
    );
    let config = DaggerConfig::default()
        .cli(cli(dir.path(), &script)?)
        .connect_timeout(Duration::from_secs(60));
    let provider = DaggerProvider::new(config)?;
    provider.connect().await?;
    provider.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_can_not_be_used_keeps_its_token_out_of_the_error() -> Outcome {
    let dir = tempfile::tempdir()?;
    let script = r#"echo '{"port":70000,"session_token":"t0ken"}'"#;
    let config = DaggerConfig::default().cli(cli(dir.path(), script)?);
    let Err(error) = DaggerProvider::new(config)?.connect().await else {
        return Err("it should have failed".into());
    };
    assert!(!format!("{error:?} {error}").contains("t0ken"), "{error:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_frees_because_sessions_are_replaced() -> Outcome {
    let double = DaggerDouble::start(Quirks::default()).await?;
    let dir = tempfile::tempdir()?;
    let config = DaggerConfig::default()
        .cli(polite(dir.path(), &double)?)
        .session_sandboxes(2);
    let provider = DaggerProvider::new(config)?;
    let pid = dir.path().join("pid");
    let first = provider.create(spec()).await?;
    let first_cli = std::fs::read_to_string(&pid)?;
    let second = provider.create(spec()).await?;
    assert_eq!(
        std::fs::read_to_string(&pid)?,
        first_cli,
        "still one session"
    );
    let third = provider.create(spec()).await?;
    assert_ne!(std::fs::read_to_string(&pid)?, first_cli, "another session");
    // The first session goes on for those that are in it, and ends with the last.
    let first_pid = dir.path().join("first");
    std::fs::write(&first_pid, &first_cli)?;
    first.close().await?;
    drop(first);
    assert!(second.sh("true").await?.success());
    assert!(alive(&first_pid));
    second.close().await?;
    drop(second);
    gone(&first_pid).await?;
    assert!(third.sh("true").await?.success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_guests_write_counts_towards_the_next_session() -> Outcome {
    let double = DaggerDouble::start(Quirks::default()).await?;
    let dir = tempfile::tempdir()?;
    let config = DaggerConfig::default()
        .cli(polite(dir.path(), &double)?)
        .session_bytes(4 << 20);
    let provider = DaggerProvider::new(config)?;
    let pid = dir.path().join("pid");
    let sandbox = provider.create(spec()).await?;
    let first = std::fs::read_to_string(&pid)?;
    sandbox.sh("head -c 1000 /dev/zero >f").await?;
    provider.create(spec()).await?;
    assert_eq!(std::fs::read_to_string(&pid)?, first, "still one session");
    // By children of the command.
    sandbox
        .sh("head -c 3000000 /dev/zero >f; head -c 3000000 /dev/zero >g & wait")
        .await?;
    provider.create(spec()).await?;
    assert_ne!(std::fs::read_to_string(&pid)?, first, "another session");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_connects_anew_to_an_engine_that_was_restarted() -> Outcome {
    let double = DaggerDouble::start(Quirks::default()).await?;
    let dir = tempfile::tempdir()?;
    let provider = DaggerProvider::new(DaggerConfig::default().cli(polite(dir.path(), &double)?))?;
    let old = provider.create(spec()).await?;
    double.restart();
    // The CLI of the next session gets the new token.
    polite(dir.path(), &double)?;
    let lost = old.sh("true").await.map(drop).map_err(|error| error.kind());
    assert_eq!(lost, Err(ErrorKind::Lost));
    let new = provider.create(spec()).await?;
    assert!(new.sh("true").await?.success());
    let lost = old.sh("true").await.map(drop).map_err(|error| error.kind());
    assert_eq!(lost, Err(ErrorKind::Lost));
    Ok(())
}

/// An engine that is asked to end waits for its clients, also where their handles live on.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_being_stopped_is_let_go() -> Outcome {
    let double = DaggerDouble::start(Quirks::default()).await?;
    let dir = tempfile::tempdir()?;
    let provider = DaggerProvider::new(DaggerConfig::default().cli(polite(dir.path(), &double)?))?;
    let pid = dir.path().join("pid");
    for fault in [
        Fault::Ending("engine is shutting down"),
        Fault::NotBegun("session is closing"),
    ] {
        let sandbox = provider.create(spec()).await?;
        assert!(alive(&pid));
        double.inject(fault);
        let told = sandbox.sh("true").await.map(drop);
        assert_eq!(
            told.map_err(|error| error.kind()),
            Err(ErrorKind::Unavailable)
        );
        gone(&pid).await?;
        let queries = double.queries();
        let late = sandbox.sh("true").await.map(drop);
        assert_eq!(late.map_err(|error| error.kind()), Err(ErrorKind::Lost));
        assert_eq!(double.queries(), queries, "it was asked again");
        sandbox.close().await?;
    }
    Ok(())
}
