//! Pausing and usage of a whole sandbox.
//!
//! Invariant: that something stands still is seen by what it does not do, and that it could by what
//! it does before and afterwards.

use std::time::Duration;

use sandbox_core::{
    Command, ErrorKind, Execution, ForkOptions, Operation, Sandbox, SandboxExt as _, SandboxSpec,
};

use super::tools::appears;
use crate::kit::{Context, Failed, Verdict, cases, ensure, ensure_eq, eventually, refused};

cases! { "pause":
    nothing_runs_in_a_paused_sandbox [Pause, Spawn],
    everything_goes_on_after_resume [Pause, Spawn],
    a_second_pause_changes_nothing [Pause, Spawn],
    resume_of_what_runs_changes_nothing [Pause, Exec],
    a_command_in_a_paused_sandbox_is_not_started [Pause, Exec],
    a_fork_of_a_paused_sandbox_is_refused [Pause, Fork, Exec],
    files_of_a_paused_sandbox_are_read_and_written [Pause, Exec],
    a_timeout_passes_in_a_paused_sandbox [Pause, Exec],
    a_paused_sandbox_closes [Pause, Spawn],
    a_closed_sandbox_does_not_pause [Pause],
    changes_of_a_paused_sandbox [Pause, Spawn, Changes],
    usage_counts_processes [Usage, Spawn],
    usage_counts_what_was_written [Usage],
    usage_of_a_closed_sandbox_is_closed [Usage],
}

/// A program that counts in a file for as long as it runs.
const COUNT: &str =
    "n=0; while :; do n=$((n+1)); printf %s $n > new; mv new count; sleep 0.01; done";

async fn count(sandbox: &dyn Sandbox) -> Verdict<u64> {
    let text = sandbox.read_to_string("count").await?;
    text.parse().map_err(Failed::new)
}

/// The count moves on, within a few seconds.
async fn counts(sandbox: &dyn Sandbox) -> Verdict {
    let from = count(sandbox).await?;
    for _ in 0..100 {
        if count(sandbox).await? > from {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(Failed::new("the program does not count any more"))
}

/// The count stands for a while in which it would move many times.
async fn stands(sandbox: &dyn Sandbox) -> Verdict {
    let from = count(sandbox).await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    ensure_eq!(count(sandbox).await?, from, "the count of a paused sandbox");
    Ok(())
}

async fn nothing_runs_in_a_paused_sandbox(cx: Context) -> Verdict {
    let _process = cx.sandbox.spawn(Command::shell(COUNT)).await?;
    appears(&*cx.sandbox, "count").await?;
    counts(&*cx.sandbox).await?;
    cx.sandbox.pause().await?;
    stands(&*cx.sandbox).await
}

async fn everything_goes_on_after_resume(cx: Context) -> Verdict {
    let process = cx.sandbox.spawn(Command::shell(COUNT)).await?;
    appears(&*cx.sandbox, "count").await?;
    for _ in 0..3 {
        cx.sandbox.pause().await?;
        stands(&*cx.sandbox).await?;
        cx.sandbox.resume().await?;
        counts(&*cx.sandbox).await?;
    }
    ensure!(
        cx.sandbox.sh("true").await?.success(),
        "a command fails afterwards"
    );
    process.kill().await?;
    Ok(())
}

async fn a_second_pause_changes_nothing(cx: Context) -> Verdict {
    let _process = cx.sandbox.spawn(Command::shell(COUNT)).await?;
    appears(&*cx.sandbox, "count").await?;
    cx.sandbox.pause().await?;
    cx.sandbox.pause().await?;
    stands(&*cx.sandbox).await?;
    cx.sandbox.resume().await?;
    counts(&*cx.sandbox).await
}

async fn resume_of_what_runs_changes_nothing(cx: Context) -> Verdict {
    cx.sandbox.resume().await?;
    ensure!(
        cx.sandbox.sh("true").await?.success(),
        "a command fails afterwards"
    );
    Ok(())
}

async fn a_command_in_a_paused_sandbox_is_not_started(cx: Context) -> Verdict {
    cx.sandbox.pause().await?;
    let ran = cx.sandbox.sh("printf x > f").await;
    let error = refused(ran, &*cx.sandbox, Operation::Exec, ErrorKind::Busy)?;
    ensure_eq!(
        error.execution(),
        Some(Execution::NotStarted),
        "how far it got"
    );
    cx.sandbox.resume().await?;
    ensure!(!cx.sandbox.exists("f").await?, "it ran");
    ensure!(
        cx.sandbox.sh("true").await?.success(),
        "a command fails afterwards"
    );
    Ok(())
}

async fn a_fork_of_a_paused_sandbox_is_refused(cx: Context) -> Verdict {
    cx.sandbox.pause().await?;
    let forked = cx.sandbox.fork(ForkOptions::new()).await;
    refused(forked, &*cx.sandbox, Operation::Fork, ErrorKind::Busy)?;
    cx.sandbox.resume().await?;
    let child = cx.fork(&cx.sandbox).await?;
    ensure!(
        child.sh("true").await?.success(),
        "a command fails in a fork made afterwards"
    );
    Ok(())
}

async fn files_of_a_paused_sandbox_are_read_and_written(cx: Context) -> Verdict {
    cx.sandbox.write("before", "1").await?;
    cx.sandbox.pause().await?;
    ensure_eq!(cx.sandbox.read_to_string("before").await?, "1", "a file");
    cx.sandbox.write("meanwhile", "2").await?;
    cx.sandbox.resume().await?;
    let output = cx.sh("cat before meanwhile").await?;
    ensure_eq!(
        super::tools::text(&output),
        "12",
        "what a command sees afterwards"
    );
    Ok(())
}

async fn a_timeout_passes_in_a_paused_sandbox(cx: Context) -> Verdict {
    let sandbox = cx.sandbox.clone();
    let command = Command::shell("printf x > begun; sleep 60").timeout(Duration::from_secs(2));
    let running = tokio::spawn(async move { sandbox.exec(command).await });
    appears(&*cx.sandbox, "begun").await?;
    cx.sandbox.pause().await?;
    let ran = running.await?;
    refused(ran, &*cx.sandbox, Operation::Exec, ErrorKind::Timeout)?;
    cx.sandbox.resume().await?;
    ensure!(
        cx.sandbox.sh("true").await?.success(),
        "a command fails afterwards"
    );
    Ok(())
}

async fn a_paused_sandbox_closes(cx: Context) -> Verdict {
    let process = cx.sandbox.spawn(Command::shell("sleep 60")).await?;
    cx.sandbox.pause().await?;
    cx.sandbox.close().await?;
    ensure!(
        process.wait().await.is_err(),
        "a process outlived its sandbox"
    );
    Ok(())
}

async fn a_closed_sandbox_does_not_pause(cx: Context) -> Verdict {
    cx.sandbox.close().await?;
    refused(
        cx.sandbox.pause().await,
        &*cx.sandbox,
        Operation::Pause,
        ErrorKind::Closed,
    )?;
    refused(
        cx.sandbox.resume().await,
        &*cx.sandbox,
        Operation::Resume,
        ErrorKind::Closed,
    )?;
    Ok(())
}

async fn changes_of_a_paused_sandbox(cx: Context) -> Verdict {
    let _process = cx.sandbox.spawn(Command::shell(COUNT)).await?;
    appears(&*cx.sandbox, "count").await?;
    cx.sandbox.pause().await?;
    let changes = cx.sandbox.changes_in(".").await?;
    ensure!(
        changes.get("count").is_some(),
        "what was written is not told"
    );
    stands(&*cx.sandbox).await
}

async fn usage_counts_processes(cx: Context) -> Verdict {
    let spec: SandboxSpec = cx.fixture.spec();
    let sandbox = cx.create(spec).await?;
    let idle = sandbox.usage().await?;
    if let Some(processes) = idle.processes {
        ensure_eq!(processes, 0, "processes of an idle sandbox");
    }
    let script = "printf x > begun; sleep 60";
    let process = sandbox.spawn(Command::shell(script)).await?;
    appears(&*sandbox, "begun").await?;
    let known = idle.processes.is_some();
    let counted = sandbox.usage().await?.processes;
    ensure!(
        !known || counted.is_some_and(|processes| processes >= 1),
        "a process runs, and {counted:?} are counted"
    );
    process.kill().await?;
    eventually("none is counted afterwards", || async {
        let usage = sandbox.usage().await?;
        Ok(!known || usage.processes == Some(0))
    })
    .await
}

async fn usage_counts_what_was_written(cx: Context) -> Verdict {
    const MIB: u64 = 1 << 20;
    let Some(before) = cx.sandbox.usage().await?.disk else {
        return Ok(());
    };
    // Not zeros, which take no room.
    let bytes: Vec<u8> = (0..4 * MIB).map(|n| (n % 251) as u8).collect();
    cx.sandbox.write("f", bytes).await?;
    eventually("what was written is counted", || async {
        let now = cx.sandbox.usage().await?.disk.unwrap_or(0);
        Ok(now >= before + 4 * MIB)
    })
    .await?;
    cx.sandbox.remove_all("f").await?;
    eventually("what was removed is not", || async {
        let now = cx.sandbox.usage().await?.disk.unwrap_or(u64::MAX);
        Ok(now < before + MIB)
    })
    .await
}

async fn usage_of_a_closed_sandbox_is_closed(cx: Context) -> Verdict {
    cx.sandbox.close().await?;
    refused(
        cx.sandbox.usage().await,
        &*cx.sandbox,
        Operation::Usage,
        ErrorKind::Closed,
    )?;
    Ok(())
}
