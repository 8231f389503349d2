//! What happens to a command that runs: seen from the host, because its files are seen at its end.
#![cfg(target_os = "linux")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use sandbox_core::{Command, ErrorKind, ForkOptions, Ran, Sandbox, SandboxExt as _};
use support::{Outcome, Rig};

/// Whether a process of this host has such an argument.
fn runs(argument: &str) -> bool {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
        .any(|line| {
            let mut words = line.split(|byte| *byte == 0);
            words.next() == Some(b"sleep") && words.any(|word| word == argument.as_bytes())
        })
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) -> Outcome {
    let started = Instant::now();
    while !condition() {
        if started.elapsed() > Duration::from_secs(20) {
            return Err(what.into());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

fn unique(number: u32) -> String {
    format!("{}.{number}", 70_000 + std::process::id())
}

/// A command with a child and a daemon that sleep for a time that nobody else sleeps for.
fn sleepers(time: &str) -> Command {
    Command::shell("setsid sleep $1 >/dev/null 2>&1 & sleep $1 & wait").args(["sh", time])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_exec_kills_all_that_it_started() -> Outcome {
    let rig = Rig::new().await?;
    let time = unique(1);
    let task = {
        let (sandbox, command) = (rig.sandbox.clone(), sleepers(&time));
        tokio::spawn(async move { sandbox.exec(command).await })
    };
    until("the command did not start", || runs(&time)).await?;
    task.abort();
    until("the command lives on", || !runs(&time)).await?;
    assert_eq!(
        rig.sandbox.sh("echo usable").await?.stdout.bytes,
        "usable\n"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_goes_on_when_a_timeout_kills_what_it_waits_for() -> Outcome {
    let rig = Rig::new().await?;
    // Numbers are used up until a child comes before its parent in the order of their names.
    let script = "echo said; me=$$ p=$$; while [ ${#p} = ${#me} ]; do p=$(sh -c 'echo $$'); done; \
                  sh -c 'sleep 1000; echo on >f; sleep 1000; :' >&2; echo on >g";
    let command = Command::shell(script).timeout(Duration::from_secs(3));
    let Err(error) = rig.sandbox.exec(command).await else {
        return Err("it should have been cut".into());
    };
    assert_eq!(
        (error.kind(), error.ran()),
        (ErrorKind::Timeout, Some(Ran::Cut)),
        "{error:?}"
    );
    let partial = error.partial_output().ok_or("no partial output")?;
    assert_eq!(partial.stdout.bytes, "said\n");
    assert_eq!(partial.stderr.bytes, "", "nobody told of a death");
    assert!(!rig.sandbox.exists("f").await?);
    assert!(!rig.sandbox.exists("g").await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn close_cuts_a_running_command() -> Outcome {
    let rig = Rig::new().await?;
    let time = unique(2);
    let task = {
        let (sandbox, command) = (rig.sandbox.clone(), sleepers(&time));
        tokio::spawn(async move { sandbox.exec(command).await })
    };
    until("the command did not start", || runs(&time)).await?;
    rig.sandbox.close().await?;
    let Err(error) = task.await? else {
        return Err("it should have been cut".into());
    };
    assert_eq!(
        (error.kind(), error.ran()),
        (ErrorKind::Closed, Some(Ran::Cut)),
        "{error:?}"
    );
    until("the command lives on", || !runs(&time)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn forks_run_at_the_same_time_and_one_is_not_waited_for() -> Outcome {
    let rig = Rig::new().await?;
    rig.sandbox.write("before", "x").await?;
    let time = unique(3);
    let task = {
        let (sandbox, command) = (rig.sandbox.clone(), sleepers(&time));
        tokio::spawn(async move { sandbox.exec(command).await })
    };
    until("the command did not start", || runs(&time)).await?;
    let fork: Arc<dyn Sandbox> = rig.sandbox.fork(ForkOptions::default()).await?;
    assert_eq!(fork.sh("cat before").await?.stdout.bytes, "x");
    assert!(runs(&time), "the parent's command was disturbed");
    task.abort();
    Ok(())
}
