//! Commands with a terminal.
//!
//! Invariant: what a terminal shows is compared where it is exact, in raw mode, and searched
//! otherwise.

use std::time::Duration;

use sandbox_core::{
    Command, ErrorKind, Execution, ExitStatus, Operation, Process, SandboxExt as _,
    TerminalOptions, TerminalSize,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::tools::{appears, beating, heart, stopped};
use crate::kit::{Context, Failed, Verdict, cases, ensure, ensure_eq, refused};

cases! { "terminal":
    a_command_has_a_terminal [Spawn, Terminal],
    its_size_is_as_asked [Spawn, Terminal],
    a_resize_is_seen [Spawn, Terminal],
    input_is_shown_and_read [Spawn, Terminal],
    raw_mode_changes_nothing [Spawn, Terminal],
    an_interrupt_is_a_control_character [Spawn, Terminal],
    the_end_of_input_is_a_control_character [Spawn, Terminal],
    a_megabyte_is_shown [Spawn, Terminal],
    term_has_a_default [Spawn, Terminal],
    the_stream_ends_with_the_process [Spawn, Terminal],
    kill_kills_its_tree [Spawn, Terminal],
    a_timeout_ends_it [Spawn, Terminal],
    many_come_and_go [Spawn, Terminal],
    what_no_terminal_is_has_no_size [Spawn],
    what_a_terminal_cant_be_is_refused [Exec, Spawn, Terminal],
    a_job_has_a_terminal [Jobs, Terminal],
}

const SIZE: TerminalSize = TerminalSize {
    rows: 41,
    columns: 121,
};

async fn spawn(cx: &Context, script: &str) -> Verdict<Process> {
    let command = Command::shell(script).terminal(SIZE);
    let process = cx.sandbox.spawn(command).await?;
    ensure!(process.stdin.is_some(), "a terminal has an input");
    ensure!(process.stderr.is_none(), "a terminal has one stream");
    Ok(process)
}

async fn spawn_raw(cx: &Context, script: &str) -> Verdict<Process> {
    let options = TerminalOptions::new(SIZE).raw(true);
    Ok(cx
        .sandbox
        .spawn(Command::shell(script).terminal(options))
        .await?)
}

async fn write(process: &mut Process, bytes: &[u8]) -> Verdict {
    let stdin = process.stdin.as_mut();
    let stdin = stdin.ok_or_else(|| Failed::new("there is no stdin"))?;
    stdin.write_all(bytes).await?;
    Ok(stdin.flush().await?)
}

/// Reads until the text was shown.
async fn shown(process: &mut Process, text: &str) -> Verdict<String> {
    let stdout = process.stdout.as_mut();
    let stdout = stdout.ok_or_else(|| Failed::new("there is no stdout"))?;
    let mut bytes = Vec::new();
    loop {
        let all = String::from_utf8_lossy(&bytes).into_owned();
        if all.contains(text) {
            return Ok(all);
        }
        if stdout.read_buf(&mut bytes).await? == 0 {
            return Err(Failed::new(format_args!("{text:?} is not in {all:?}")));
        }
    }
}

/// Reads to the end.
async fn rest(process: &mut Process) -> Verdict<Vec<u8>> {
    let stdout = process.stdout.as_mut();
    let stdout = stdout.ok_or_else(|| Failed::new("there is no stdout"))?;
    let mut bytes = Vec::new();
    stdout.read_to_end(&mut bytes).await?;
    Ok(bytes)
}

async fn a_command_has_a_terminal(cx: Context) -> Verdict {
    let script = "test -t 0 && test -t 1 && test -t 2 && printf 'a terminal'; printf x > /dev/tty";
    let mut process = spawn(&cx, script).await?;
    ensure_eq!(rest(&mut process).await?, b"a terminalx", "what it shows");
    ensure_eq!(
        process.wait().await?.status,
        ExitStatus::Code(0),
        "how it ended"
    );
    // The control: without one there is none.
    let process = cx.sandbox.spawn(Command::shell("test -t 0")).await?;
    ensure_eq!(
        process.wait().await?.status,
        ExitStatus::Code(1),
        "how it ended"
    );
    Ok(())
}

async fn its_size_is_as_asked(cx: Context) -> Verdict {
    let mut process = spawn(&cx, "stty size").await?;
    ensure_eq!(rest(&mut process).await?, b"41 121\r\n", "the size");
    Ok(())
}

async fn a_resize_is_seen(cx: Context) -> Verdict {
    let script = "trap 'stty size; exit 5' WINCH; echo ready; while :; do sleep 0.02; done";
    let mut process = spawn(&cx, script).await?;
    shown(&mut process, "ready").await?;
    process
        .resize(TerminalSize {
            rows: 7,
            columns: 33,
        })
        .await?;
    shown(&mut process, "7 33").await?;
    ensure_eq!(
        process.wait().await?.status,
        ExitStatus::Code(5),
        "how it ended"
    );
    // After the end it does nothing.
    Ok(process.resize(SIZE).await?)
}

async fn input_is_shown_and_read(cx: Context) -> Verdict {
    let mut process = spawn(&cx, "read line; printf 'got %s' \"$line\"").await?;
    write(&mut process, b"hello\n").await?;
    ensure_eq!(
        rest(&mut process).await?,
        b"hello\r\ngot hello",
        "what it shows"
    );
    Ok(())
}

async fn raw_mode_changes_nothing(cx: Context) -> Verdict {
    let bytes: Vec<u8> = (0..=255).cycle().take(2048).collect();
    let mut process = spawn_raw(&cx, "echo ready; head -c 2048").await?;
    shown(&mut process, "ready\n").await?;
    write(&mut process, &bytes).await?;
    ensure!(
        rest(&mut process).await? == bytes,
        "bytes changed on their way"
    );
    ensure_eq!(
        process.wait().await?.status,
        ExitStatus::Code(0),
        "how it ended"
    );
    Ok(())
}

async fn an_interrupt_is_a_control_character(cx: Context) -> Verdict {
    let script = "trap 'printf interrupted; exit 6' INT; echo ready; while :; do sleep 0.02; done";
    let mut process = spawn(&cx, script).await?;
    shown(&mut process, "ready").await?;
    write(&mut process, b"\x03").await?;
    shown(&mut process, "interrupted").await?;
    ensure_eq!(
        process.wait().await?.status,
        ExitStatus::Code(6),
        "how it ended"
    );
    Ok(())
}

async fn the_end_of_input_is_a_control_character(cx: Context) -> Verdict {
    let mut process = spawn(&cx, "cat; printf end").await?;
    write(&mut process, b"line\n").await?;
    // Once shown, once printed.
    shown(&mut process, "line\r\nline\r\n").await?;
    write(&mut process, b"\x04").await?;
    shown(&mut process, "end").await?;
    ensure_eq!(
        process.wait().await?.status,
        ExitStatus::Code(0),
        "how it ended"
    );
    Ok(())
}

async fn a_megabyte_is_shown(cx: Context) -> Verdict {
    let mut process = spawn_raw(&cx, "yes | head -c 1000000").await?;
    let bytes = rest(&mut process).await?;
    ensure_eq!(bytes.len(), 1_000_000, "what it shows");
    ensure!(bytes.starts_with(b"y\ny\n"), "other bytes");
    Ok(())
}

async fn term_has_a_default(cx: Context) -> Verdict {
    let mut process = spawn(&cx, "printf %s \"$TERM\"").await?;
    ensure_eq!(rest(&mut process).await?, b"xterm-256color", "the default");
    let command = Command::shell("printf %s \"$TERM\"")
        .env("TERM", "dumb")
        .terminal(SIZE);
    let mut process = cx.sandbox.spawn(command).await?;
    ensure_eq!(rest(&mut process).await?, b"dumb", "the command's own");
    Ok(())
}

async fn the_stream_ends_with_the_process(cx: Context) -> Verdict {
    let mut process = spawn(&cx, "sleep 30 & printf last; exit 3").await?;
    ensure_eq!(rest(&mut process).await?, b"last", "what it shows");
    ensure_eq!(
        process.wait().await?.status,
        ExitStatus::Code(3),
        "how it ended"
    );
    Ok(())
}

async fn kill_kills_its_tree(cx: Context) -> Verdict {
    let script = format!("( {} ) & {}", heart("child"), heart("main"));
    let process = spawn(&cx, &script).await?;
    beating(&*cx.sandbox, "child").await?;
    beating(&*cx.sandbox, "main").await?;
    process.kill().await?;
    stopped(&*cx.sandbox, "child").await?;
    stopped(&*cx.sandbox, "main").await
}

async fn a_timeout_ends_it(cx: Context) -> Verdict {
    let command = Command::shell("touch begun; sleep 50")
        .terminal(SIZE)
        .timeout(Duration::from_millis(1500));
    let process = cx.sandbox.spawn(command).await?;
    appears(&*cx.sandbox, "begun").await?;
    match process.wait().await {
        Err(error) if error.kind() == ErrorKind::Timeout => Ok(()),
        other => Err(Failed::new(format_args!(
            "a timeout expected, not {other:?}"
        ))),
    }
}

async fn many_come_and_go(cx: Context) -> Verdict {
    // More than a sandbox may have at once.
    for _ in 0..100 {
        let mut process = spawn(&cx, "printf x").await?;
        ensure_eq!(rest(&mut process).await?, b"x", "what it shows");
        process.wait().await?;
    }
    Ok(())
}

async fn what_no_terminal_is_has_no_size(cx: Context) -> Verdict {
    let process = cx.sandbox.spawn(Command::shell("sleep 50")).await?;
    match process.resize(SIZE).await {
        Err(error) if error.kind() == ErrorKind::InvalidInput => {
            ensure_eq!(error.operation(), Operation::Resize, "the operation");
            ensure!(error.hint().is_some(), "no remedy in {error}");
        }
        other => {
            return Err(Failed::new(format_args!(
                "a refusal expected, not {other:?}"
            )));
        }
    }
    Ok(process.kill().await?)
}

async fn what_a_terminal_cant_be_is_refused(cx: Context) -> Verdict {
    let kind = ErrorKind::InvalidInput;
    let ran = cx
        .sandbox
        .exec(Command::shell("touch ran").terminal(SIZE))
        .await;
    let error = refused(ran, &cx.sandbox, Operation::Exec, kind)?;
    ensure_eq!(error.execution(), Some(Execution::NotStarted), "{error:?}");
    let none = TerminalSize {
        rows: 0,
        columns: 80,
    };
    for command in [
        Command::shell("touch ran").terminal(none),
        Command::shell("touch ran").terminal(SIZE).stdin("bytes"),
    ] {
        let spawned = cx.sandbox.spawn(command).await;
        let error = refused(spawned, &cx.sandbox, Operation::Spawn, kind)?;
        ensure_eq!(error.execution(), Some(Execution::NotStarted), "{error:?}");
    }
    ensure!(!cx.sandbox.exists("ran").await?, "something ran");
    let process = spawn(&cx, "sleep 50").await?;
    match process.resize(none).await {
        Err(error) if error.kind() == kind => Ok(process.kill().await?),
        other => Err(Failed::new(format_args!(
            "a refusal expected, not {other:?}"
        ))),
    }
}

async fn a_job_has_a_terminal(cx: Context) -> Verdict {
    let command = Command::shell("read line; stty size; printf %s \"$line\"").terminal(SIZE);
    let job = cx.sandbox.start("key", command).await?;
    job.resize(TerminalSize {
        rows: 9,
        columns: 19,
    })
    .await?;
    job.write_stdin(0, "hello\n").await?;
    ensure_eq!(
        job.wait().await?.status,
        ExitStatus::Code(0),
        "how it ended"
    );
    let log = job.read_log(0, sandbox_core::LogOptions::new()).await?;
    ensure_eq!(log.bytes(), b"hello\r\n9 19\r\nhello", "the log");
    match job.close_stdin().await {
        Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(()),
        other => Err(Failed::new(format_args!(
            "a refusal expected, not {other:?}"
        ))),
    }
}
