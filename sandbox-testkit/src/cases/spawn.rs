//! Commands whose streams are used while they run.
//!
//! Invariant: every wait has the case's deadline behind it and a proof of progress before it.

use std::time::Duration;

use sandbox_core::{
    CollectOptions, Command, ErrorKind, Execution, Exit, ExitCause, ExitStatus, Operation, Process,
    SandboxExt as _, Signal,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::tools::{LIFETIMES, appears, beating, beats, daemon, far_daemon, heart, stopped};
use crate::kit::{Context, Failed, Verdict, cases, ensure, ensure_eq, refused};

cases! { "spawn":
    a_process_keeps_its_sandbox_alive [Spawn, StdinPipe],
    output_comes_while_it_runs [Spawn],
    streams_end_with_the_process [Spawn],
    wait_tells_the_exit_and_may_be_asked_again [Spawn],
    death_by_signal_is_told_apart [Spawn],
    a_missing_program_is_an_error_of_spawn [Spawn],
    a_missing_cwd_is_an_error_of_spawn [Spawn],
    stdin_bytes_are_fed [Spawn],
    without_input_stdin_is_empty [Spawn],
    a_dialogue_over_stdin [Spawn, StdinPipe],
    closing_stdin_is_end_of_file [Spawn, StdinPipe],

    the_cause_of_a_kill_is_told [Spawn],
    kill_kills_the_tree [Spawn],
    kill_returns_when_everything_is_dead [Spawn],
    kill_kills_daemons [Spawn, KillDaemons],
    kill_after_the_end_is_fine [Spawn],
    a_dropped_process_is_killed [Spawn],
    a_process_dropped_after_its_end_kills_nothing [Spawn, Background],
    a_signal_reaches_the_program [Spawn, Signals],
    a_signal_may_be_handled [Spawn, Signals],
    a_signal_after_the_end_is_fine [Spawn, Signals],
    an_invalid_signal_is_refused [Spawn, Signals],
    a_timeout_ends_it [Spawn],
    close_ends_it [Spawn],
    an_unread_stream_holds_the_program_up [Spawn],
    two_run_side_by_side [Spawn],
    a_grandchild_does_not_keep_the_stream_open [Spawn],
    waiting_with_output_collects_both_streams [Spawn],
}

async fn spawn(cx: &Context, script: impl AsRef<[u8]>) -> Verdict<Process> {
    Ok(cx.sandbox.spawn(Command::shell(script)).await?)
}

/// Reads so many bytes of stdout.
async fn read(process: &mut Process, count: usize) -> Verdict<String> {
    let stdout = process.stdout.as_mut();
    let stdout = stdout.ok_or_else(|| Failed::new("there is no stdout"))?;
    let mut bytes = vec![0; count];
    stdout.read_exact(&mut bytes).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Reads the rest of stdout.
async fn read_all(process: &mut Process) -> Verdict<String> {
    let stdout = process.stdout.as_mut();
    let stdout = stdout.ok_or_else(|| Failed::new("there is no stdout"))?;
    let mut bytes = Vec::new();
    stdout.read_to_end(&mut bytes).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn ended(exit: Exit, status: ExitStatus) -> Verdict {
    ensure_eq!(exit.status, status, "how it ended");
    Ok(())
}

async fn output_comes_while_it_runs(cx: Context) -> Verdict {
    let script = "printf first; while [ ! -e go ]; do sleep 0.02; done; printf second";
    let mut process = spawn(&cx, script).await?;
    ensure_eq!(read(&mut process, 5).await?, "first", "what comes first");
    // It runs on: nothing but this file lets it go.
    cx.sandbox.write("go", "").await?;
    ensure_eq!(read(&mut process, 6).await?, "second", "what comes then");
    ended(process.wait().await?, ExitStatus::Code(0))
}

async fn streams_end_with_the_process(cx: Context) -> Verdict {
    let mut process = spawn(&cx, "printf out; printf err >&2; exit 3").await?;
    ensure_eq!(read_all(&mut process).await?, "out", "stdout");
    let mut stderr = String::new();
    if let Some(stream) = process.stderr.as_mut() {
        stream.read_to_string(&mut stderr).await?;
    }
    ensure_eq!(stderr, "err", "stderr");
    ended(process.wait().await?, ExitStatus::Code(3))
}

async fn wait_tells_the_exit_and_may_be_asked_again(cx: Context) -> Verdict {
    let process = spawn(&cx, "exit 42").await?;
    for _ in 0..3 {
        ended(process.wait().await?, ExitStatus::Code(42))?;
    }
    let process = spawn(&cx, "while [ ! -e go ]; do sleep 0.02; done; exit 5").await?;
    // A wait that is dropped does not end the process.
    let early = tokio::time::timeout(Duration::from_millis(20), process.wait()).await;
    ensure!(early.is_err(), "the process ended at once: {early:?}");
    cx.sandbox.write("go", "").await?;
    ended(process.wait().await?, ExitStatus::Code(5))
}

async fn death_by_signal_is_told_apart(cx: Context) -> Verdict {
    let process = spawn(&cx, "kill -TERM $$; sleep 5").await?;
    ended(process.wait().await?, ExitStatus::Signal(15))?;
    let process = spawn(&cx, "exit 143").await?;
    ended(process.wait().await?, ExitStatus::Code(143))
}

async fn a_missing_program_is_an_error_of_spawn(cx: Context) -> Verdict {
    let spawned = cx.sandbox.spawn(Command::new("no-such-program")).await;
    let kind = ErrorKind::CommandNotFound;
    let error = refused(spawned, &cx.sandbox, Operation::Spawn, kind)?;
    ensure_eq!(
        error.execution(),
        Some(Execution::NotStarted),
        "whether it ran"
    );
    Ok(())
}

async fn a_missing_cwd_is_an_error_of_spawn(cx: Context) -> Verdict {
    let spawned = cx.sandbox.spawn(Command::new("true").cwd("nope")).await;
    let kind = ErrorKind::NotFound;
    let error = refused(spawned, &cx.sandbox, Operation::Spawn, kind)?;
    ensure_eq!(
        error.execution(),
        Some(Execution::NotStarted),
        "whether it ran"
    );
    Ok(())
}

async fn stdin_bytes_are_fed(cx: Context) -> Verdict {
    let mut process = cx.sandbox.spawn(Command::new("cat").stdin("fed")).await?;
    ensure!(
        process.stdin.is_none(),
        "there is a pipe for stdin that was not asked for"
    );
    ensure_eq!(read_all(&mut process).await?, "fed", "stdout");
    ended(process.wait().await?, ExitStatus::Code(0))
}

async fn without_input_stdin_is_empty(cx: Context) -> Verdict {
    let mut process = cx.sandbox.spawn(Command::new("cat")).await?;
    ensure_eq!(read_all(&mut process).await?, "", "stdout");
    ended(process.wait().await?, ExitStatus::Code(0))
}

async fn a_dialogue_over_stdin(cx: Context) -> Verdict {
    let script = "while read -r line; do printf '<%s>' \"$line\"; done; printf end";
    let command = Command::shell(script).stdin_piped();
    let mut process = cx.sandbox.spawn(command).await?;
    let Some(mut stdin) = process.stdin.take() else {
        return Err(Failed::new("there is no stdin"));
    };
    for word in ["one", "two", "three"] {
        stdin.write_all(format!("{word}\n").as_bytes()).await?;
        stdin.flush().await?;
        let answer = read(&mut process, word.len() + 2).await?;
        ensure_eq!(answer, format!("<{word}>"), "the answer");
    }
    drop(stdin);
    ensure_eq!(
        read_all(&mut process).await?,
        "end",
        "what comes at the end"
    );
    ended(process.wait().await?, ExitStatus::Code(0))
}

async fn closing_stdin_is_end_of_file(cx: Context) -> Verdict {
    let command = Command::new("cat").stdin_piped();
    let mut process = cx.sandbox.spawn(command).await?;
    let Some(mut stdin) = process.stdin.take() else {
        return Err(Failed::new("there is no stdin"));
    };
    stdin.write_all(b"some").await?;
    stdin.shutdown().await?;
    ensure_eq!(read_all(&mut process).await?, "some", "stdout");
    ended(process.wait().await?, ExitStatus::Code(0))
}

async fn kill_kills_the_tree(cx: Context) -> Verdict {
    let process = spawn(&cx, format!("({}) & sleep 50", heart("beat"))).await?;
    beating(&*cx.sandbox, "beat").await?;
    process.kill().await?;
    stopped(&*cx.sandbox, "beat").await?;
    ended(process.wait().await?, ExitStatus::Signal(9))
}

async fn the_cause_of_a_kill_is_told(cx: Context) -> Verdict {
    let process = spawn(&cx, "sleep 50").await?;
    process.kill().await?;
    let exit = process.wait().await?;
    ensure_eq!(exit.cause, ExitCause::Killed, "after kill: {}", exit.status);
    let process = spawn(&cx, "kill -KILL $$; sleep 50").await?;
    let exit = process.wait().await?;
    ensure_eq!(exit.cause, ExitCause::Unknown, "by itself: {}", exit.status);
    Ok(())
}

async fn kill_returns_when_everything_is_dead(cx: Context) -> Verdict {
    for round in 0..3 {
        let beat = format!("beat{round}");
        let script = format!("({}) & ({}) & sleep 50", heart(&beat), heart(&beat));
        let process = spawn(&cx, script).await?;
        beating(&*cx.sandbox, &beat).await?;
        process.kill().await?;
        let then = beats(&*cx.sandbox, &beat).await?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = beats(&*cx.sandbox, &beat).await?;
        ensure_eq!(now, then, "beats after kill returned");
    }
    Ok(())
}

async fn kill_kills_daemons(cx: Context) -> Verdict {
    let daemon = far_daemon(&cx, "beat").await?;
    let process = spawn(&cx, format!("{daemon}; sleep 50")).await?;
    beating(&*cx.sandbox, "beat").await?;
    process.kill().await?;
    stopped(&*cx.sandbox, "beat").await
}

async fn kill_after_the_end_is_fine(cx: Context) -> Verdict {
    let process = spawn(&cx, "exit 4").await?;
    process.wait().await?;
    process.kill().await?;
    process.kill().await?;
    ended(process.wait().await?, ExitStatus::Code(4))
}

async fn a_dropped_process_is_killed(cx: Context) -> Verdict {
    let process = spawn(&cx, format!("({}) & sleep 50", heart("beat"))).await?;
    beating(&*cx.sandbox, "beat").await?;
    drop(process);
    stopped(&*cx.sandbox, "beat").await
}

async fn a_process_dropped_after_its_end_kills_nothing(cx: Context) -> Verdict {
    let process = spawn(&cx, daemon("beat")).await?;
    ended(process.wait().await?, ExitStatus::Code(0))?;
    beating(&*cx.sandbox, "beat").await?;
    drop(process);
    tokio::time::sleep(Duration::from_millis(200)).await;
    beating(&*cx.sandbox, "beat").await
}

async fn a_signal_reaches_the_program(cx: Context) -> Verdict {
    for signal in [Signal::TERMINATE, Signal::KILL, Signal::INTERRUPT] {
        let mut process = spawn(&cx, "printf up; exec sleep 50").await?;
        ensure_eq!(read(&mut process, 2).await?, "up", "what it says first");
        process.signal(signal).await?;
        if signal == Signal::INTERRUPT {
            again_if_lost(&process, signal).await?;
        }
        ended(process.wait().await?, ExitStatus::Signal(signal.0))?;
    }
    Ok(())
}

/// Sends a signal again that a shell has lost: dash catches SIGINT, and forgets what it caught when
/// it executes another program.
async fn again_if_lost(process: &Process, signal: Signal) -> Verdict {
    let wait = || tokio::time::timeout(Duration::from_secs(2), process.wait());
    for _ in 0..5 {
        if wait().await.is_ok() {
            break;
        }
        process.signal(signal).await?;
    }
    Ok(())
}

async fn a_signal_may_be_handled(cx: Context) -> Verdict {
    let script = "trap 'printf got; exit 3' USR1; printf up; while :; do sleep 0.05; done";
    let mut process = spawn(&cx, script).await?;
    ensure_eq!(read(&mut process, 2).await?, "up", "what it says first");
    process.signal(Signal::USER_1).await?;
    ensure_eq!(read(&mut process, 3).await?, "got", "what its handler says");
    ended(process.wait().await?, ExitStatus::Code(3))
}

async fn a_signal_after_the_end_is_fine(cx: Context) -> Verdict {
    let process = spawn(&cx, "exit 4").await?;
    process.wait().await?;
    process.signal(Signal::TERMINATE).await?;
    ended(process.wait().await?, ExitStatus::Code(4))
}

async fn an_invalid_signal_is_refused(cx: Context) -> Verdict {
    let process = spawn(&cx, "sleep 50").await?;
    for number in [-1, 0, 65, 4096] {
        let kind = ErrorKind::InvalidInput;
        let sent = process.signal(Signal(number)).await;
        refused(sent, &cx.sandbox, Operation::Signal, kind)?;
    }
    process.kill().await?;
    ended(process.wait().await?, ExitStatus::Signal(9))
}

async fn a_timeout_ends_it(cx: Context) -> Verdict {
    for timeout in LIFETIMES {
        let command = Command::shell(heart("beat")).timeout(timeout);
        let process = cx.sandbox.spawn(command).await?;
        match process.wait().await {
            Err(error) => ensure_eq!(error.kind(), ErrorKind::Timeout, "{error:?}"),
            Ok(exit) => return Err(Failed::new(format_args!("it ended with {}", exit.status))),
        }
        if beats(&*cx.sandbox, "beat").await? > 1 {
            return stopped(&*cx.sandbox, "beat").await;
        }
    }
    Err(Failed::new("the process never showed that it was alive"))
}

async fn close_ends_it(cx: Context) -> Verdict {
    let mut process = spawn(&cx, "printf up; sleep 50").await?;
    ensure_eq!(read(&mut process, 2).await?, "up", "what it says first");
    cx.sandbox.close().await?;
    let waited = tokio::time::timeout(Duration::from_secs(120), process.wait()).await;
    match waited {
        Ok(Err(error)) => ensure_eq!(error.kind(), ErrorKind::Closed, "{error:?}"),
        other => return Err(Failed::new(format_args!("wait says {other:?}"))),
    }
    Ok(())
}

async fn an_unread_stream_holds_the_program_up(cx: Context) -> Verdict {
    // Far more than pipes and transports hold, in steps that a file tells.
    let script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do \
                  yes | head -c 1000000; printf x >> steps; done; touch done";
    let mut process = spawn(&cx, script).await?;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    ensure!(
        !cx.sandbox.exists("done").await?,
        "20 MB went into a pipe that is not read"
    );
    ensure_eq!(read_all(&mut process).await?.len(), 20_000_000, "bytes");
    ended(process.wait().await?, ExitStatus::Code(0))?;
    ensure!(
        cx.sandbox.exists("done").await?,
        "it did not come to its end"
    );
    Ok(())
}

async fn two_run_side_by_side(cx: Context) -> Verdict {
    let first = spawn(&cx, "while [ ! -e b ]; do sleep 0.02; done; touch a").await?;
    let second = spawn(&cx, "touch b; while [ ! -e a ]; do sleep 0.02; done").await?;
    ended(first.wait().await?, ExitStatus::Code(0))?;
    ended(second.wait().await?, ExitStatus::Code(0))
}

async fn a_grandchild_does_not_keep_the_stream_open(cx: Context) -> Verdict {
    let mut process = spawn(&cx, "sleep 40 & printf done").await?;
    let all = tokio::time::timeout(Duration::from_secs(120), read_all(&mut process)).await;
    let Ok(all) = all else {
        return Err(Failed::new("a grandchild keeps the stream open"));
    };
    ensure_eq!(all?, "done", "stdout");
    ended(process.wait().await?, ExitStatus::Code(0))
}

async fn waiting_with_output_collects_both_streams(cx: Context) -> Verdict {
    let process = spawn(&cx, "printf out; printf err >&2; touch done; exit 6").await?;
    appears(&*cx.sandbox, "done").await?;
    let output = process.wait_with_output(CollectOptions::new()).await?;
    ensure_eq!(output.stdout.bytes, "out", "stdout");
    ensure_eq!(output.stderr.bytes, "err", "stderr");
    ensure_eq!(output.status, ExitStatus::Code(6), "the status");
    Ok(())
}

async fn a_process_keeps_its_sandbox_alive(cx: Context) -> Verdict {
    let sandbox = cx.provider.create(cx.fixture.spec()).await?;
    let mut process = sandbox.spawn(Command::new("cat").stdin_piped()).await?;
    drop(sandbox);
    let (Some(mut stdin), Some(mut stdout)) = (process.stdin.take(), process.stdout.take()) else {
        return Err(Failed::new("a stream is missing"));
    };
    stdin.write_all(b"still here").await?;
    stdin.shutdown().await?;
    let mut read = Vec::new();
    stdout.read_to_end(&mut read).await?;
    ensure_eq!(String::from_utf8_lossy(&read), "still here", "the output");
    ended(process.wait().await?, ExitStatus::Code(0))
}
