//! Running commands: arguments, exit codes, what can't be started.
//!
//! Invariant: every refusal is checked to say that nothing ran.

use std::time::{Duration, Instant};

use sandbox_core::{
    Command, Error, ErrorKind, Execution, ExitCause, ExitStatus, FileBatch, Mode, Operation,
    Output, Result, SandboxExt as _,
};

use super::tools::{appears, beating, daemon, text};
use crate::kit::{Context, Failed, Verdict, cases, ensure, ensure_eq, refused};

cases! { "exec":
    output_and_code_come_back [Exec],
    exit_codes_are_exact [Exec],
    a_code_is_not_an_error [Exec],
    death_by_signal_is_told_apart [Exec],
    the_cause_of_an_end_is_not_made_up [Exec],
    a_self_sent_term_is_not_a_timeout [Exec],
    arguments_arrive_verbatim [Exec],
    an_empty_argument_is_an_argument [Exec],
    the_shell_form_takes_arguments [Exec],
    many_arguments_arrive [Exec],
    a_mebibyte_of_arguments_arrives_or_is_refused [Exec],
    a_missing_program_is_named [Exec],
    a_name_with_arguments_in_it_gets_a_hint [Exec],
    a_program_of_the_workdir_is_not_found_by_name [Exec],
    a_missing_program_inside_the_shell_is_127 [Exec],
    a_file_that_is_no_program_is_not_executable [Exec, Modes],
    a_directory_is_not_executable [Exec],
    a_missing_interpreter_is_not_a_result [Exec, Modes],
    a_program_for_another_machine_is_not_executable [Exec, Modes],
    a_crash_leaves_no_core [Exec],
    an_empty_program_is_refused [Exec],
    a_nul_byte_in_an_argument_is_refused [Exec],
    a_piped_stdin_is_refused [Exec],
    cwd_is_the_workdir_by_default [Exec],
    cwd_may_be_relative_or_absolute [Exec],
    a_missing_cwd_is_named [Exec],
    a_file_as_cwd_is_refused [Exec],
    execs_run_at_the_same_time [Exec],
    fifty_execs_at_once [Exec],
    a_hundred_execs_in_a_row [Exec],
    duration_is_of_the_command [Exec],
    duration_counts_from_the_call [Exec],
    a_grandchild_that_holds_stdout_does_not_hold_exec [Exec],
    a_background_process_lives_on [Exec, Background],
    a_background_process_that_prints_lives_on [Exec, Background],
    files_written_are_there_when_it_returns [Exec],
}

async fn output_and_code_come_back(cx: Context) -> Verdict {
    let command = Command::new("printf").arg("hello %s\n").arg("world");
    let output = cx.sandbox.exec(command).await?;
    ensure_eq!(output.stdout.bytes, "hello world\n", "stdout");
    ensure_eq!(output.stderr.bytes, "", "stderr");
    ensure_eq!(output.status, ExitStatus::Code(0), "the status");
    ensure!(output.success(), "it did not succeed");
    Ok(())
}

async fn exit_codes_are_exact(cx: Context) -> Verdict {
    for code in [
        0, 1, 2, 70, 125, 126, 127, 128, 129, 130, 137, 143, 200, 254, 255,
    ] {
        let output = cx.sandbox.sh(format!("exit {code}")).await?;
        ensure_eq!(output.status, ExitStatus::Code(code), "exit {code}");
    }
    Ok(())
}

async fn a_code_is_not_an_error(cx: Context) -> Verdict {
    let script = "printf out; printf err >&2; exit 3";
    let output = cx.sandbox.sh(script).await?;
    ensure_eq!(output.status, ExitStatus::Code(3), "the status");
    ensure_eq!(output.stdout.bytes, "out", "stdout");
    ensure_eq!(output.stderr.bytes, "err", "stderr");
    Ok(())
}

async fn death_by_signal_is_told_apart(cx: Context) -> Verdict {
    for (name, signal) in [("KILL", 9), ("TERM", 15), ("HUP", 1), ("USR1", 10)] {
        let script = format!("printf before; kill -{name} $$; sleep 5");
        let output = cx.sandbox.sh(&script).await?;
        ensure_eq!(output.status, ExitStatus::Signal(signal), "kill -{name} $$");
        ensure_eq!(output.stdout.bytes, "before", "what it wrote before");
        let code = 128 + signal;
        let output = cx.sandbox.sh(format!("exit {code}")).await?;
        ensure_eq!(output.status, ExitStatus::Code(code), "exit {code}");
    }
    Ok(())
}

async fn the_cause_of_an_end_is_not_made_up(cx: Context) -> Verdict {
    let causes = [
        ("exit 0", ExitCause::Exited),
        ("exit 137", ExitCause::Exited),
        ("kill -KILL $$; sleep 5", ExitCause::Unknown),
        ("kill -TERM $$; sleep 5", ExitCause::Unknown),
        // SIGXCPU, which the kernel sends at the limit of `ulimit -t`.
        ("kill -24 $$; sleep 5", ExitCause::CpuLimit),
    ];
    for (script, cause) in causes {
        let output = cx.sandbox.sh(script).await?;
        ensure_eq!(output.cause, cause, "{script}: {}", output.status);
    }
    Ok(())
}

async fn a_self_sent_term_is_not_a_timeout(cx: Context) -> Verdict {
    let command = Command::shell("kill -TERM $$; sleep 5").timeout(Duration::from_secs(120));
    let output = cx.sandbox.exec(command).await?;
    ensure_eq!(output.status, ExitStatus::Signal(15), "the status");
    Ok(())
}

async fn arguments_arrive_verbatim(cx: Context) -> Verdict {
    let arguments = [
        "a b", "'", "\"", "$HOME", "$(id)", "`id`", "a\nb", "\\", "\\n", "*", "?", "~", "#", ";",
        "&&", "|", ">x", "-n", "--", "%s", "ü🦀", "\t", "!", "{a,b}", "[x]",
    ];
    let output = cx
        .sandbox
        .exec(Command::new("printf").arg("<%s>").args(arguments))
        .await?;
    let expected: String = arguments.iter().map(|arg| format!("<{arg}>")).collect();
    ensure_eq!(text(&output), expected, "what the program got");
    let output = cx
        .sandbox
        .exec(Command::new("printf").arg("%s").arg(b"\xff\xfe"))
        .await?;
    ensure_eq!(
        output.stdout.bytes,
        &b"\xff\xfe"[..],
        "bytes that are not UTF-8"
    );
    ensure_eq!(
        cx.sandbox.list(".").await?.len(),
        0,
        "files that a shell made"
    );
    Ok(())
}

async fn an_empty_argument_is_an_argument(cx: Context) -> Verdict {
    let command = Command::new("printf").arg("<%s>").args(["", "a", ""]);
    let output = cx.sandbox.exec(command).await?;
    ensure_eq!(text(&output), "<><a><>", "what the program got");
    Ok(())
}

async fn the_shell_form_takes_arguments(cx: Context) -> Verdict {
    let command = Command::shell("printf '%s|' \"$0\" \"$1\" \"$2\"")
        .arg("zero")
        .arg("one two")
        .arg("$HOME");
    let output = cx.sandbox.exec(command).await?;
    ensure_eq!(
        text(&output),
        "zero|one two|$HOME|",
        "the script's arguments"
    );
    Ok(())
}

async fn many_arguments_arrive(cx: Context) -> Verdict {
    let arguments: Vec<String> = (0..2000).map(|index| format!("argument-{index}")).collect();
    let output = cx
        .sandbox
        .exec(Command::new("printf").arg("%s\n").args(&arguments))
        .await?;
    ensure_eq!(text(&output).lines().count(), 2000, "arguments");
    ensure!(
        text(&output).ends_with("argument-1999\n"),
        "the last is not the last"
    );
    Ok(())
}

async fn a_mebibyte_of_arguments_arrives_or_is_refused(cx: Context) -> Verdict {
    let arguments: Vec<String> = (0..1024).map(|index| format!("{index:01023}")).collect();
    let command = Command::new("printf").arg("%s\n").args(&arguments);
    match cx.sandbox.exec(command).await {
        Ok(output) => ensure_eq!(output.stdout.total, 1 << 20, "what the program got"),
        refusal => drop(not_started(&cx, refusal, ErrorKind::LimitExceeded)?),
    }
    // One argument of a mebibyte: no Linux takes it.
    let command = Command::new("printf").arg("%s").arg("x".repeat(1 << 20));
    match cx.sandbox.exec(command).await {
        Ok(output) => ensure_eq!(output.stdout.total, 1 << 20, "what the program got"),
        refusal => drop(not_started(&cx, refusal, ErrorKind::LimitExceeded)?),
    }
    cx.sh("true").await.map(drop)
}

/// Checks that exec was refused with this kind before anything ran.
#[track_caller]
fn not_started(cx: &Context, result: Result<Output>, kind: ErrorKind) -> Verdict<Error> {
    let error = refused(result, &cx.sandbox, Operation::Exec, kind)?;
    if error.execution() != Some(Execution::NotStarted) {
        return Err(Failed::new(format_args!(
            "the error should say that nothing ran: {error:?}"
        )));
    }
    if error.partial_output().is_some() {
        return Err(Failed::new("what did not run has a partial output"));
    }
    Ok(error)
}

async fn a_missing_program_is_named(cx: Context) -> Verdict {
    for program in ["no-such-program", "/no/such/program", "./no-such-program"] {
        let ran = cx.sandbox.exec(Command::new(program).arg("x")).await;
        let error = not_started(&cx, ran, ErrorKind::CommandNotFound)?;
        let named = error.path().map(|path| path.to_string());
        let name = program.trim_start_matches("./");
        ensure!(
            named.as_ref().is_some_and(|named| named.ends_with(name)),
            "the error should name {program}: {error:?}"
        );
    }
    Ok(())
}

async fn a_name_with_arguments_in_it_gets_a_hint(cx: Context) -> Verdict {
    let ran = cx.sandbox.exec(Command::new("ls -la")).await;
    let error = not_started(&cx, ran, ErrorKind::CommandNotFound)?;
    let hint = error.hint().unwrap_or_default();
    ensure!(
        hint.contains("arguments"),
        "the hint should say that arguments are given apart: {error:?}"
    );
    let ran = cx.sandbox.exec(Command::new("no-such-program")).await;
    let error = not_started(&cx, ran, ErrorKind::CommandNotFound)?;
    let hint = error.hint().unwrap_or_default();
    ensure!(!hint.contains("arguments"), "a hint for no reason: {hint}");
    Ok(())
}

async fn a_program_of_the_workdir_is_not_found_by_name(cx: Context) -> Verdict {
    let batch =
        FileBatch::new().file_with_mode("tool-here", "#!/bin/sh\nprintf ran", Mode::EXECUTABLE);
    cx.sandbox.write_files(batch).await?;
    let ran = cx.sandbox.exec(Command::new("tool-here")).await;
    not_started(&cx, ran, ErrorKind::CommandNotFound)?;
    let output = cx.sandbox.exec(Command::new("./tool-here")).await?;
    ensure_eq!(text(&output), "ran", "the same by its path");
    let path = cx.sandbox.info().workdir.to_string();
    let output = cx
        .sandbox
        .exec(Command::new("tool-here").env("PATH", format!("{path}:/bin:/usr/bin")))
        .await?;
    ensure_eq!(text(&output), "ran", "the same by the PATH of the command");
    Ok(())
}

async fn a_missing_program_inside_the_shell_is_127(cx: Context) -> Verdict {
    let output = cx.sandbox.sh("no-such-program").await?;
    ensure_eq!(output.status, ExitStatus::Code(127), "the status");
    ensure!(!output.stderr.bytes.is_empty(), "the shell says nothing");
    Ok(())
}

async fn a_file_that_is_no_program_is_not_executable(cx: Context) -> Verdict {
    let batch = FileBatch::new()
        .file_with_mode("no-x", "#!/bin/sh\n", Mode::FILE)
        .file_with_mode("garbage", &b"\x01\x02\x03\x04"[..], Mode::EXECUTABLE)
        .file_with_mode("damaged", &b"\x7fELF\n: > ran\n"[..], Mode::EXECUTABLE);
    cx.sandbox.write_files(batch).await?;
    for program in ["./no-x", "./garbage", "./damaged"] {
        let ran = cx.sandbox.exec(Command::new(program)).await;
        not_started(&cx, ran, ErrorKind::NotExecutable)?;
    }
    ensure!(
        !cx.sandbox.exists("ran").await?,
        "a damaged program was run as a script"
    );
    Ok(())
}

async fn a_directory_is_not_executable(cx: Context) -> Verdict {
    cx.sandbox.write("d/f", "").await?;
    let ran = cx.sandbox.exec(Command::new("./d")).await;
    not_started(&cx, ran, ErrorKind::NotExecutable).map(drop)
}

async fn a_missing_interpreter_is_not_a_result(cx: Context) -> Verdict {
    let script = "#!/no/such/interpreter\n";
    let batch = FileBatch::new().file_with_mode("script", script, Mode::EXECUTABLE);
    cx.sandbox.write_files(batch).await?;
    let ran = cx.sandbox.exec(Command::new("./script")).await;
    let kind = match &ran {
        // Linux says ENOENT for both; which of the two is missing is not always known.
        Err(error) if error.kind() == ErrorKind::NotExecutable => ErrorKind::NotExecutable,
        _ => ErrorKind::CommandNotFound,
    };
    not_started(&cx, ran, kind).map(drop)
}

/// The head of an ELF program for a machine that no host of this kit is: EM_AVR32, by the ABI's
/// list of machines.
fn foreign_program() -> Vec<u8> {
    let mut head = vec![0; 128];
    // 64 bits, little-endian, version 1; an executable; the machine; version 1 again.
    head[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    head[16..24].copy_from_slice(&[2, 0, 0xad, 0x18, 1, 0, 0, 0]);
    // Sizes of the header and of an entry of the empty program table.
    head[52..56].copy_from_slice(&[64, 0, 56, 0]);
    head
}

async fn a_program_for_another_machine_is_not_executable(cx: Context) -> Verdict {
    let batch = FileBatch::new().file_with_mode("foreign", foreign_program(), Mode::EXECUTABLE);
    cx.sandbox.write_files(batch).await?;
    let ran = cx.sandbox.exec(Command::new("./foreign").arg("x")).await;
    not_started(&cx, ran, ErrorKind::NotExecutable).map(drop)
}

async fn a_crash_leaves_no_core(cx: Context) -> Verdict {
    cx.sandbox.create_dir_all("crash").await?;
    for signal in [6, 11] {
        let crash = Command::shell(format!("kill -{signal} $$; sleep 5")).cwd("crash");
        let output = cx.sandbox.exec(crash).await?;
        ensure!(!output.success(), "kill -{signal} $$: {}", output.status);
    }
    let left = cx.sandbox.list("crash").await?;
    ensure_eq!(left.len(), 0, "files that the crashes left: {left:?}");
    Ok(())
}

async fn an_empty_program_is_refused(cx: Context) -> Verdict {
    let ran = cx.sandbox.exec(Command::new("").arg("x")).await;
    not_started(&cx, ran, ErrorKind::InvalidInput).map(drop)
}

async fn a_nul_byte_in_an_argument_is_refused(cx: Context) -> Verdict {
    let ran = cx.sandbox.exec(Command::new("printf").arg("a\0b")).await;
    not_started(&cx, ran, ErrorKind::InvalidInput).map(drop)
}

async fn a_piped_stdin_is_refused(cx: Context) -> Verdict {
    let ran = cx.sandbox.exec(Command::new("cat").stdin_piped()).await;
    not_started(&cx, ran, ErrorKind::InvalidInput).map(drop)
}

async fn cwd_is_the_workdir_by_default(cx: Context) -> Verdict {
    let output = cx.sh("printf here > marker; pwd").await?;
    let workdir = cx.sandbox.info().workdir.to_string();
    ensure_eq!(text(&output).trim_end(), workdir, "pwd");
    let read = cx.sandbox.read_to_string(cx.at("marker")).await?;
    ensure_eq!(read, "here", "the file it made");
    Ok(())
}

async fn cwd_may_be_relative_or_absolute(cx: Context) -> Verdict {
    cx.sandbox.write("d/e/marker", "found").await?;
    for cwd in ["d/e".into(), "./d/../d/e/".into(), cx.at("d/e")] {
        let command = Command::new("cat").arg("marker").cwd(&cwd);
        let output = cx.sandbox.exec(command).await?;
        ensure_eq!(text(&output), "found", "the file of {cwd}");
    }
    let command = Command::new("pwd").cwd("/");
    let output = cx.sandbox.exec(command).await?;
    ensure_eq!(text(&output), "/\n", "pwd in the root");
    Ok(())
}

async fn a_missing_cwd_is_named(cx: Context) -> Verdict {
    let ran = cx.sandbox.exec(Command::new("true").cwd("no/such")).await;
    let error = not_started(&cx, ran, ErrorKind::NotFound)?;
    let named = error.path().map(|path| path.to_string());
    ensure!(
        named
            .as_ref()
            .is_some_and(|named| named.ends_with("no/such")),
        "the error should name the directory: {error:?}"
    );
    Ok(())
}

async fn a_file_as_cwd_is_refused(cx: Context) -> Verdict {
    cx.sandbox.write("f", "").await?;
    let ran = cx.sandbox.exec(Command::new("true").cwd("f")).await;
    not_started(&cx, ran, ErrorKind::NotADirectory).map(drop)
}

async fn execs_run_at_the_same_time(cx: Context) -> Verdict {
    let sandbox = cx.sandbox.clone();
    let waiting = tokio::spawn(async move {
        let script = "touch waiting; while [ ! -e go ]; do sleep 0.02; done; printf went";
        let command = Command::shell(script).timeout(Duration::from_secs(120));
        sandbox.exec(command).await
    });
    appears(&*cx.sandbox, "waiting").await?;
    cx.sh("touch go").await?;
    ensure_eq!(text(&waiting.await??), "went", "what the first said");
    Ok(())
}

async fn fifty_execs_at_once(cx: Context) -> Verdict {
    let mut execs = tokio::task::JoinSet::new();
    for index in 0..50 {
        let sandbox = cx.sandbox.clone();
        execs.spawn(async move {
            let script = format!("printf {index}; printf -- -{index} >&2; exit {index}");
            (index, sandbox.sh(script).await)
        });
    }
    while let Some(done) = execs.join_next().await {
        let (index, output) = done?;
        let output = output?;
        ensure_eq!(text(&output), index.to_string(), "stdout of {index}");
        let stderr = output.stderr.to_string_lossy().into_owned();
        ensure_eq!(stderr, format!("-{index}"), "stderr of {index}");
        ensure_eq!(output.status, ExitStatus::Code(index), "status of {index}");
    }
    Ok(())
}

async fn a_hundred_execs_in_a_row(cx: Context) -> Verdict {
    for index in 0..100 {
        let output = cx.sandbox.sh(format!("printf {index}")).await?;
        ensure_eq!(text(&output), index.to_string(), "stdout of {index}");
    }
    Ok(())
}

async fn duration_is_of_the_command(cx: Context) -> Verdict {
    let start = Instant::now();
    let output = cx.sandbox.sh("sleep 0.3").await?;
    let passed = start.elapsed();
    ensure!(
        output.duration >= Duration::from_millis(290) && output.duration <= passed,
        "the duration is {:?} of {passed:?}",
        output.duration
    );
    Ok(())
}

/// A caller whose runtime does something else while the command begins.
async fn duration_counts_from_the_call(cx: Context) -> Verdict {
    let sandbox = cx.sandbox.clone();
    let call = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            // The call is polled first; then the thread is not its for a while.
            let (output, ()) = tokio::join!(sandbox.sh("sleep 0.3"), async {
                std::thread::sleep(Duration::from_millis(250));
            });
            let duration = output?.duration;
            ensure!(
                duration >= Duration::from_millis(290),
                "the duration is {duration:?} for a command that sleeps for 300 ms"
            );
            Verdict::Ok(())
        })
    };
    let thread = std::thread::spawn(call);
    match tokio::task::spawn_blocking(move || thread.join()).await? {
        Ok(verdict) => verdict,
        Err(_) => Err(Failed::new("a command of another runtime panics")),
    }
}

async fn a_grandchild_that_holds_stdout_does_not_hold_exec(cx: Context) -> Verdict {
    let start = Instant::now();
    let output = cx.sandbox.sh("sleep 50 & printf done").await?;
    let passed = start.elapsed();
    ensure_eq!(output.stdout.bytes, "done", "stdout");
    ensure!(
        passed < Duration::from_secs(120),
        "exec took {passed:?}, waiting for a grandchild"
    );
    Ok(())
}

async fn a_background_process_lives_on(cx: Context) -> Verdict {
    cx.sh(daemon("beat")).await?;
    beating(&*cx.sandbox, "beat").await?;
    cx.sh("true").await?;
    beating(&*cx.sandbox, "beat").await
}

/// Starts a program that writes to the output of a command that has ended: nothing may end it for that.
async fn a_background_process_that_prints_lives_on(cx: Context) -> Verdict {
    let script = "while :; do echo line; echo oops >&2; printf x >> beat; sleep 0.05; done & :";
    cx.sh(script).await?;
    for _ in 0..3 {
        beating(&*cx.sandbox, "beat").await?;
        cx.sh("true").await?;
    }
    Ok(())
}

async fn files_written_are_there_when_it_returns(cx: Context) -> Verdict {
    for round in 0..20 {
        cx.sh(format!("printf {round} > f")).await?;
        let read = cx.sandbox.read_to_string("f").await?;
        ensure_eq!(read, round.to_string(), "what exec wrote last");
    }
    Ok(())
}
