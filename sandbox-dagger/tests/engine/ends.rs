//! The end of an engine, and what it does to what runs there: killed, asked to end, full, and started
//! again.
//!
//! `SANDBOX_DAGGER_STOP` is a program that ends the engine, with the name of a signal (`KILL`, `TERM`)
//! as its argument; `SANDBOX_DAGGER_START` one that starts it and returns when it answers.
//! `SANDBOX_DAGGER_FILL` is more than its store has, in MiB: never set it where the store is the
//! machine's own disk. `engine_ends.sh` runs these.

use std::time::Duration;

use sandbox_core::{Command, ErrorKind, Execution, Provider as _, Sandbox as _, SandboxExt as _};
use sandbox_dagger::DaggerProvider;
use tokio::io::AsyncReadExt as _;

use crate::config;
use crate::support::{Outcome, spec};

/// Runs the program that this variable names.
async fn run(variable: &str, argument: &str) -> Outcome {
    let program = std::env::var_os(variable).ok_or("the variable is not set")?;
    let mut command = tokio::process::Command::new(program);
    let status = command.arg(argument).status().await?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("{variable} {argument}: {status}").into()),
    }
}

/// Ends the engine under a command that runs.
async fn ended_by(signal: &str) -> Outcome {
    let provider = DaggerProvider::new(config())?;
    let sandbox = provider.create(spec()).await?;
    let fork = sandbox.fork_one().await?;
    let mut process = sandbox.spawn(Command::shell("echo up; sleep 600")).await?;
    let mut said = [0; 3];
    let stdout = process.stdout.as_mut().ok_or("no stdout")?;
    stdout.read_exact(&mut said).await?;
    assert_eq!(&said, b"up\n");
    run("SANDBOX_DAGGER_STOP", signal).await?;
    let ended = tokio::time::timeout(Duration::from_secs(300), process.wait()).await?;
    let Err(error) = ended else {
        return Err(format!("a command of an engine that is gone ended: {ended:?}").into());
    };
    // It ran: never is it said that it did not, nor that it is worth another try.
    assert_ne!(error.execution(), Some(Execution::NotStarted), "{error:?}");
    assert!(!error.is_retryable(), "{error:?}");
    let late = tokio::time::timeout(Duration::from_secs(120), fork.sh("true")).await?;
    let kind = late.map(drop).map_err(|error| error.kind());
    assert!(
        matches!(kind, Err(ErrorKind::Unavailable | ErrorKind::Lost)),
        "{kind:?}"
    );
    run("SANDBOX_DAGGER_START", "").await?;
    let new = provider.create(spec()).await?;
    assert_eq!(new.sh("echo anew").await?.stdout.bytes, "anew\n");
    let old = tokio::time::timeout(Duration::from_secs(120), fork.sh("true")).await?;
    assert!(old.is_err(), "an id of the engine before names something");
    provider.shutdown().await;
    Ok(())
}

pub(crate) async fn killed() -> Outcome {
    ended_by("KILL").await
}

pub(crate) async fn asked_to_end() -> Outcome {
    ended_by("TERM").await
}

pub(crate) async fn full() -> Outcome {
    let most: u64 = std::env::var("SANDBOX_DAGGER_FILL")?.parse()?;
    let provider = DaggerProvider::new(config())?;
    let sandbox = provider.create(spec()).await?;
    sandbox.write("f", "x").await?;
    let mut filled = 0;
    let error = loop {
        // What fills it is kept, one layer on another.
        let script = format!("dd if=/dev/urandom of=/fill{filled} bs=1048576 count=64");
        match sandbox.sh(script).await {
            // Where the guest was told first, the engine may still have kept what it wrote.
            Ok(_) => filled += 64,
            Err(error) => break error,
        }
        assert!(filled <= most, "the store took {filled} MiB");
    };
    assert_eq!(error.kind(), ErrorKind::StorageFull, "{error:?}");
    let removed = sandbox.remove_all("f").await.map_err(|error| error.kind());
    assert!(
        matches!(removed, Ok(()) | Err(ErrorKind::StorageFull)),
        "{removed:?}"
    );
    sandbox.close().await?;
    // The remedy of the hint.
    provider.shutdown().await;
    let mut tries = 0;
    let again = DaggerProvider::new(config())?;
    loop {
        match again.create(spec()).await {
            Ok(new) => {
                assert!(new.sh("true").await?.success());
                break;
            }
            Err(error) if tries < 60 && error.kind() == ErrorKind::StorageFull => tries += 1,
            Err(error) => return Err(error.into()),
        }
        // The engine frees what the session left, in its own time.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    again.shutdown().await;
    Ok(())
}
