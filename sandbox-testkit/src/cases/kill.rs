//! Cases about commands that are ended from outside: timeouts, dropped futures, close.
//!
//! Invariant: what must die is first shown to live.

use std::time::{Duration, Instant};

use sandbox_core::{
    Capability, Command, Error, ErrorKind, Execution, Mount, Operation, Output, Result,
    SandboxExt as _,
};

use super::tools::{LIFETIMES, appears, beating, beats, daemon, far_daemon, heart, stopped, text};
use crate::kit::{Context, Failed, Verdict, cases, ensure, ensure_eq, refused};

cases! { "kill":
    a_timeout_is_an_error_with_the_partial_output [Exec],
    a_timeout_comes_in_time [Exec],
    a_timeout_of_zero_is_refused [Exec],
    a_time_without_an_end_is_none [Exec],
    a_command_within_its_timeout_is_not_cut [Exec],
    the_timeout_of_the_spec_holds [Exec],
    the_commands_own_timeout_comes_first [Exec],
    a_timeout_kills_the_command [Exec],
    a_timeout_kills_background_children [Exec],
    a_timeout_kills_daemons [Exec, KillDaemons],
    a_timeout_kills_a_program_that_ignores_term [Exec],
    a_timeout_kills_a_stopped_program [Exec],
    a_timeout_cuts_a_flood [Exec],
    a_timeout_leaves_other_commands_alone [Exec],
    a_timeout_leaves_the_sandbox_usable [Exec],
    a_hundred_short_timeouts_tell_what_ran [Exec],
    a_dropped_exec_kills_the_command [Exec],
    a_dropped_exec_kills_daemons [Exec, KillDaemons],
    a_dropped_exec_leaves_the_sandbox_usable [Exec],
    close_cuts_a_running_command [Exec],
    close_kills_what_runs [Exec, Background, Mounts],
    destruction_cuts_a_running_command [Exec, Attach],
}

/// Checks that a command was cut, and what it had said.
#[track_caller]
fn cut(cx: &Context, ran: Result<Output>, kind: ErrorKind, stdout: &str) -> Verdict<Error> {
    let error = refused(ran, &cx.sandbox, Operation::Exec, kind)?;
    if error.execution() != Some(Execution::Interrupted) {
        return Err(Failed::new(format_args!(
            "the error should say that the command was cut: {error:?}"
        )));
    }
    let Some(partial) = error.partial_output() else {
        return Err(Failed::new(format_args!(
            "the error has no partial output: {error:?}"
        )));
    };
    if partial.stdout.bytes != stdout {
        return Err(Failed::new(format_args!(
            "the partial output should be {stdout:?} and is {:?}",
            partial.stdout.to_string_lossy()
        )));
    }
    Ok(error)
}

const SHORT: Duration = Duration::from_millis(700);

fn short(script: impl AsRef<[u8]>) -> Command {
    Command::shell(script).timeout(SHORT)
}

/// Lets a command time out that says so much and goes on for ever; the error. Where a busy host
/// lets it say less it gets more time.
async fn cut_short(cx: &Context, command: Command, stdout: usize, stderr: usize) -> Verdict<Error> {
    let mut timeout = SHORT;
    loop {
        let start = Instant::now();
        let ran = cx.sandbox.exec(command.clone().timeout(timeout)).await;
        let passed = start.elapsed();
        let kind = ErrorKind::Timeout;
        let error = refused(ran, &cx.sandbox, Operation::Exec, kind)?;
        ensure!(
            passed < timeout + Duration::from_secs(20),
            "a timeout of {timeout:?} came after {passed:?}"
        );
        let less = error.partial_output().is_some_and(|partial| {
            partial.stdout.bytes.len() < stdout || partial.stderr.bytes.len() < stderr
        });
        if !less || timeout > Duration::from_secs(5) {
            return Ok(error);
        }
        timeout *= 4;
    }
}

async fn a_timeout_is_an_error_with_the_partial_output(cx: Context) -> Verdict {
    let script = "printf before; printf oops >&2; sleep 50; printf after";
    let error = cut_short(&cx, Command::shell(script), 6, 4).await?;
    let stderr = error.partial_output().map(|partial| partial.stderr.clone());
    cut(&cx, Err(error), ErrorKind::Timeout, "before")?;
    ensure_eq!(
        stderr.map(|stderr| stderr.to_string_lossy().into_owned()),
        Some("oops".to_owned()),
        "the partial stderr"
    );
    Ok(())
}

async fn a_timeout_comes_in_time(cx: Context) -> Verdict {
    let start = Instant::now();
    let ran = cx.sandbox.exec(short("sleep 30")).await;
    let passed = start.elapsed();
    cut(&cx, ran, ErrorKind::Timeout, "")?;
    ensure!(
        passed >= Duration::from_millis(650) && passed < Duration::from_secs(20),
        "a timeout of 0.7 s came after {passed:?}"
    );
    Ok(())
}

async fn a_timeout_of_zero_is_refused(cx: Context) -> Verdict {
    let ran = cx
        .sandbox
        .exec(Command::shell("touch ran").timeout(Duration::ZERO))
        .await;
    let kind = ErrorKind::InvalidInput;
    let error = refused(ran, &cx.sandbox, Operation::Exec, kind)?;
    ensure_eq!(
        error.execution(),
        Some(Execution::NotStarted),
        "whether it ran"
    );
    ensure!(!cx.sandbox.exists("ran").await?, "it ran");
    Ok(())
}

/// `Duration::MAX` is what callers write for none; a sum of it and a time is beyond every clock.
async fn a_time_without_an_end_is_none(cx: Context) -> Verdict {
    let mut spec = cx.fixture.spec().command_timeout(Duration::MAX);
    if cx.fixture.capabilities().has(Capability::Ttl) {
        spec = spec.ttl(Duration::MAX);
    }
    let sandbox = cx.create(spec).await?;
    for command in [
        Command::shell("printf done"),
        Command::shell("printf done").timeout(Duration::MAX),
    ] {
        let output = sandbox.exec(command).await?;
        ensure_eq!(output.stdout.bytes, "done", "what it said");
    }
    Ok(())
}

async fn a_command_within_its_timeout_is_not_cut(cx: Context) -> Verdict {
    let command =
        Command::shell("sleep 0.3; printf done; exit 3").timeout(Duration::from_secs(120));
    let output = cx.sandbox.exec(command).await?;
    ensure_eq!(text(&output), "done", "stdout");
    ensure_eq!(output.status.code(), Some(3), "the code");
    Ok(())
}

async fn the_timeout_of_the_spec_holds(cx: Context) -> Verdict {
    let spec = cx
        .fixture
        .spec()
        .command_timeout(Duration::from_millis(700));
    let sandbox = cx.create(spec).await?;
    let ran = sandbox.sh("printf before; sleep 30").await;
    let error = refused(ran, &sandbox, Operation::Exec, ErrorKind::Timeout)?;
    ensure_eq!(
        error.execution(),
        Some(Execution::Interrupted),
        "whether it ran"
    );
    Ok(())
}

async fn the_commands_own_timeout_comes_first(cx: Context) -> Verdict {
    let spec = cx
        .fixture
        .spec()
        .command_timeout(Duration::from_millis(300));
    let sandbox = cx.create(spec).await?;
    let command = Command::shell("sleep 0.8; printf done").timeout(Duration::from_secs(120));
    ensure_eq!(text(&sandbox.exec(command).await?), "done", "stdout");
    Ok(())
}

/// Lets a command time out and checks that its heart stops.
async fn dies(cx: &Context, script: String) -> Verdict {
    for timeout in LIFETIMES {
        let command = Command::shell(&script).timeout(timeout);
        let ran = cx.sandbox.exec(command).await;
        refused(ran, &cx.sandbox, Operation::Exec, ErrorKind::Timeout)?;
        if beats(&*cx.sandbox, "beat").await? > 1 {
            return stopped(&*cx.sandbox, "beat").await;
        }
    }
    Err(Failed::new("the process never showed that it was alive"))
}

async fn a_timeout_kills_the_command(cx: Context) -> Verdict {
    dies(&cx, heart("beat")).await
}

async fn a_timeout_kills_background_children(cx: Context) -> Verdict {
    dies(&cx, format!("({}) & sleep 30", heart("beat"))).await
}

async fn a_timeout_kills_daemons(cx: Context) -> Verdict {
    let daemon = far_daemon(&cx, "beat").await?;
    dies(&cx, format!("{daemon}; sleep 30")).await
}

async fn a_timeout_kills_a_program_that_ignores_term(cx: Context) -> Verdict {
    dies(&cx, format!("trap '' TERM HUP INT; {}", heart("beat"))).await
}

async fn a_timeout_kills_a_stopped_program(cx: Context) -> Verdict {
    let command = Command::shell("printf up; kill -STOP $$; printf on");
    let error = cut_short(&cx, command, 2, 0).await?;
    cut(&cx, Err(error), ErrorKind::Timeout, "up")?;
    cx.sh("true").await.map(drop)
}

async fn a_timeout_cuts_a_flood(cx: Context) -> Verdict {
    let command = Command::shell("yes").output_limit(1000);
    let error = cut_short(&cx, command, 1000, 0).await?;
    let partial = error.partial_output().map(|partial| partial.stdout.clone());
    let partial = partial.unwrap_or_default();
    ensure_eq!(partial.bytes.len(), 1000, "what is kept");
    ensure!(partial.is_truncated(), "it is not marked as truncated");
    Ok(())
}

async fn a_timeout_leaves_other_commands_alone(cx: Context) -> Verdict {
    let sandbox = cx.sandbox.clone();
    let script = "while [ ! -e go ]; do printf x >> beat; sleep 0.05; done; printf went";
    let command = Command::shell(script).timeout(Duration::from_secs(120));
    let other = tokio::spawn(async move { sandbox.exec(command).await });
    beating(&*cx.sandbox, "beat").await?;
    let ran = cx.sandbox.exec(short("sleep 30")).await;
    cut(&cx, ran, ErrorKind::Timeout, "")?;
    beating(&*cx.sandbox, "beat").await?;
    cx.sandbox.write("go", "").await?;
    ensure_eq!(text(&other.await??), "went", "what the other said");
    Ok(())
}

async fn a_timeout_leaves_the_sandbox_usable(cx: Context) -> Verdict {
    cx.sandbox.write("f", "kept").await?;
    for _ in 0..3 {
        let ran = cx
            .sandbox
            .exec(Command::shell("sleep 30").timeout(Duration::from_millis(100)))
            .await;
        cut(&cx, ran, ErrorKind::Timeout, "")?;
    }
    ensure_eq!(text(&cx.sh("cat f").await?), "kept", "the file");
    Ok(())
}

/// Timeouts of 1 to 50 ms, in the middle of starting, some of them at once: what is said not to
/// have started left no trace, and what is said to have been cut has all that it had written.
async fn a_hundred_short_timeouts_tell_what_ran(cx: Context) -> Verdict {
    let mut lanes = tokio::task::JoinSet::new();
    for lane in 0..4_u64 {
        let cx = cx.clone();
        lanes.spawn(async move {
            let mut said = Vec::new();
            for round in 0..25_u64 {
                let number = 4 * round + lane;
                let script = format!("printf before; printf x > ran-{number}; sleep 20");
                let timeout = Duration::from_millis(1 + number % 50);
                let ran = cx.sandbox.exec(Command::shell(script).timeout(timeout));
                let kind = ErrorKind::Timeout;
                let error = refused(ran.await, &cx.sandbox, Operation::Exec, kind)?;
                said.push((number, error));
            }
            Ok::<_, Failed>(said)
        });
    }
    let mut said = Vec::new();
    while let Some(lane) = lanes.join_next().await {
        said.extend(lane??);
    }
    for (number, error) in said {
        let left_a_trace = cx.sandbox.exists(format!("ran-{number}")).await?;
        let stdout = error
            .partial_output()
            .map(|partial| partial.stdout.to_string_lossy().into_owned());
        match error.execution() {
            Some(Execution::NotStarted) => ensure!(
                !left_a_trace && stdout.is_none(),
                "it is said not to have started, and it ran: {error:?}"
            ),
            Some(Execution::Interrupted) => {
                let Some(stdout) = stdout else {
                    return Err(Failed::new(format_args!(
                        "the error has no partial output: {error:?}"
                    )));
                };
                // The trace comes after the text.
                let whole = !left_a_trace || stdout == "before";
                ensure!(
                    whole && "before".starts_with(&stdout),
                    "the partial output is {stdout:?}"
                );
            }
            _ => {}
        }
    }
    Ok(())
}

/// Drops the future of an exec while its heart beats.
async fn drop_while_beating(cx: &Context, script: String) -> Verdict {
    let sandbox = cx.sandbox.clone();
    let running = tokio::spawn(async move { sandbox.exec(Command::shell(script)).await });
    beating(&*cx.sandbox, "beat").await?;
    running.abort();
    // Aborting drops the future, whatever it returns.
    let _ = running.await;
    stopped(&*cx.sandbox, "beat").await
}

async fn a_dropped_exec_kills_the_command(cx: Context) -> Verdict {
    drop_while_beating(&cx, heart("beat")).await
}

async fn a_dropped_exec_kills_daemons(cx: Context) -> Verdict {
    let daemon = far_daemon(&cx, "beat").await?;
    drop_while_beating(&cx, format!("{daemon}; sleep 30")).await
}

async fn a_dropped_exec_leaves_the_sandbox_usable(cx: Context) -> Verdict {
    cx.sandbox.write("f", "kept").await?;
    for millis in [0, 1, 5, 20, 50] {
        let limit = Duration::from_millis(millis);
        // Dropped at one moment or another.
        let _ = tokio::time::timeout(limit, cx.sandbox.sh("sleep 5")).await;
    }
    ensure_eq!(text(&cx.sh("cat f").await?), "kept", "the file");
    Ok(())
}

async fn close_cuts_a_running_command(cx: Context) -> Verdict {
    let sandbox = cx.sandbox.clone();
    let script = "printf before; touch started; sleep 50";
    let running = tokio::spawn(async move { sandbox.sh(script).await });
    appears(&*cx.sandbox, "started").await?;
    let start = Instant::now();
    cx.sandbox.close().await?;
    let ran = running.await?;
    cut(&cx, ran, ErrorKind::Closed, "before")?;
    let passed = start.elapsed();
    ensure!(passed < Duration::from_secs(60), "closing took {passed:?}");
    Ok(())
}

async fn close_kills_what_runs(cx: Context) -> Verdict {
    let host = cx.shared_dir()?;
    let mount = Mount::read_write(host.path(), "/mnt/kit");
    let sandbox = cx.create(cx.fixture.spec().mount(mount)).await?;
    sandbox.sh(daemon("/mnt/kit/beat")).await?;
    beating(&*sandbox, "/mnt/kit/beat").await?;
    sandbox.close().await?;
    // Only the host can look now.
    let beats = || std::fs::metadata(host.path().join("beat")).map(|file| file.len());
    let before = beats()?;
    tokio::time::sleep(Duration::from_millis(400)).await;
    ensure_eq!(beats()?, before, "beats after close");
    Ok(())
}

async fn destruction_cuts_a_running_command(cx: Context) -> Verdict {
    let sandbox = cx.sandbox.clone();
    let running = tokio::spawn(async move { sandbox.sh("touch started; sleep 50").await });
    appears(&*cx.sandbox, "started").await?;
    cx.provider.destroy(&cx.sandbox.info().id).await?;
    let Err(error) = running.await? else {
        return Err(Failed::new("a command outlived its sandbox"));
    };
    ensure!(
        matches!(error.kind(), ErrorKind::Closed | ErrorKind::Lost),
        "a command of a destroyed sandbox: {error:?}"
    );
    Ok(())
}
