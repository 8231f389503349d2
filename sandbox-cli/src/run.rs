//! `sandbox run`: a command in a sandbox, usually a fresh one.
//!
//! Invariant: the command's exit status is the program's.

use std::io::IsTerminal as _;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use base64::Engine as _;
use sandbox::{
    Capability, Command, Error, ErrorKind, ExistingDir, ExportOptions, ForkOptions, ImportOptions,
    Operation, Process, Sandbox, Signal, SnapshotOptions,
};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::arguments::RunOptions;
use crate::place::{leave, place};
use crate::review;
use crate::show::{Failure, complain, print_json};
use crate::stop::{INTERRUPTED, code, ended_by};
use crate::terminal;

pub(crate) async fn run(uri: &str, options: RunOptions, json: bool) -> Result<u8, Failure> {
    if options.tty && json {
        return Err(Error::new(ErrorKind::InvalidInput, Operation::Spawn)
            .with_message("a terminal shows what it is given: it can't be told as JSON")
            .with_hint("leave out --tty, or --json")
            .into());
    }
    let command = command(&options);
    let (sandbox, stays) = place(uri, &options.place).await?;
    let interrupts = AtomicBool::new(false);
    let done = tokio::select! {
        done = within(&*sandbox, &options, command, json, &interrupts) => done,
        signal = ended_by(&interrupts) => Ok(signal),
    };
    leave(sandbox, stays, &options.place, json, done).await
}

fn command(options: &RunOptions) -> Command {
    let mut words = options.command.iter().map(|word| word.as_bytes());
    let program = words.next().unwrap_or_default();
    let command = match options.sh {
        true => Command::shell(program),
        false => Command::new(program),
    };
    let command = command.args(words);
    match options.timeout {
        Some(timeout) => command.timeout(timeout),
        None => command,
    }
}

/// Everything between the creation of the sandbox and its end; `interrupts` says whether the command
/// has them passed on.
async fn within(
    sandbox: &dyn Sandbox,
    options: &RunOptions,
    command: Command,
    json: bool,
    interrupts: &AtomicBool,
) -> Result<u8, Failure> {
    for imported in &options.import {
        let mut import = ImportOptions::new().ignore_files(options.ignore_files);
        import.excludes.clone_from(&options.exclude);
        let to = imported.to.as_str().into();
        let report = sandbox.import_dir(&imported.from, &to, import).await?;
        left(&report.skipped, report.skipped_total);
    }
    let reviewed = review::of(options)?;
    // The beginning to compare with: files as they are before the command.
    let fork = match reviewed {
        Some(_) => Some(sandbox.fork(ForkOptions::new()).await?),
        None => None,
    };
    let sandbox = fork.as_deref().unwrap_or(sandbox);
    let mut ran = match json {
        _ if options.tty => terminal::relay(sandbox, command).await,
        true => collect(sandbox, command).await,
        false => follow(sandbox, command, interrupts).await,
    };
    if let Some(imported) = reviewed {
        match review::settle(sandbox, imported, options).await {
            Err(error) if ran.is_ok() => ran = Err(error.into()),
            Err(error) => complain(&format!("sandbox: {error}")),
            Ok(()) => {}
        }
    }
    // The results are wanted most when the command failed.
    for exported in &options.export {
        let mut export = ExportOptions::new();
        export.excludes.clone_from(&options.exclude);
        if options.replace {
            export = export.existing(ExistingDir::Replace);
        }
        let from = exported.from.as_str().into();
        match sandbox.export_dir(&from, &exported.to, export).await {
            Ok(report) => left(&report.skipped, report.skipped_total),
            // What went wrong first is told first.
            Err(error) if ran.is_err() => complain(&format!("sandbox: {error}")),
            Err(error) => return Err(error.into()),
        }
    }
    if options.save && matches!(ran, Ok(0)) {
        let snapshot = sandbox.snapshot(SnapshotOptions::new()).await?;
        complain(&format!("sandbox: snapshot {}", snapshot.id));
    }
    if let Some(fork) = &fork {
        fork.close().await?;
    }
    ran
}

/// Says what a transfer left out.
fn left(skipped: &[sandbox::Skipped], total: u64) {
    const SHOWN: usize = 10;
    for one in skipped.iter().take(SHOWN) {
        let path = one.path.to_string_lossy().escape_debug().to_string();
        complain(&format!("sandbox: left out {path}: {}", one.reason));
    }
    if total > SHOWN as u64 {
        complain(&format!("sandbox: left out {total} entries in all"));
    }
}

/// Whether standard input can have anything in it: of the null device it can't. Programs tell a pipe
/// from it: some read a pipe, if there is one, and not the files that they are for.
fn has_input() -> bool {
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
    let own = std::io::stdin().as_fd().try_clone_to_owned();
    let own = own.and_then(|own| std::fs::File::from(own).metadata());
    match (own, std::fs::metadata("/dev/null")) {
        (Ok(own), Ok(null)) => !own.file_type().is_char_device() || own.rdev() != null.rdev(),
        _ => true,
    }
}

/// Runs it with the streams of this program.
async fn follow(
    sandbox: &dyn Sandbox,
    command: Command,
    interrupts: &AtomicBool,
) -> Result<u8, Failure> {
    let capabilities = sandbox.capabilities();
    if !capabilities.has(Capability::Spawn) {
        let output = sandbox.exec(command).await?;
        crate::show::print(&output.stdout.bytes)?;
        let mut stderr = tokio::io::stderr();
        // Nothing is left to tell it with.
        let _ = stderr.write_all(&output.stderr.bytes).await;
        return Ok(code(output.status.shell_code()));
    }
    let piped = capabilities.has(Capability::StdinPipe) && has_input();
    let command = if piped {
        command.stdin_piped()
    } else {
        command
    };
    let mut process = sandbox.spawn(command).await?;
    let input = process.stdin.take();
    let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
    let feed = tokio::spawn(async move {
        if let Some(mut input) = input {
            // A program that does not want its input is no error.
            let _ = tokio::io::copy(&mut tokio::io::stdin(), &mut input).await;
            let _ = input.shutdown().await;
        }
    });
    let output = async {
        let passed = tokio::try_join!(
            pass(stdout, tokio::io::stdout()),
            pass(stderr, tokio::io::stderr())
        );
        if passed.is_err() {
            // What it writes goes nowhere; a kill that fails shows in the end of the sandbox.
            let _ = process.kill().await;
        }
        passed
    };
    let exit = async { tokio::join!(process.wait(), output) };
    interrupts.store(true, Ordering::Relaxed);
    let ended = tokio::select! {
        done = exit => Ok(done),
        code = interrupted(&process) => Err(code),
    };
    interrupts.store(false, Ordering::Relaxed);
    let (exit, read) = match ended {
        Ok(done) => done,
        Err(code) => return Ok(code),
    };
    feed.abort();
    match read {
        Ok(_) => {}
        // As if SIGPIPE had ended it: the reader had enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(141),
        Err(error) => {
            let error = Error::from_io(error, Operation::Exec);
            return Err(error.with_message("the command's output was lost").into());
        }
    }
    let exit = exit?;
    Ok(code(exit.status.shell_code()))
}

/// Passes ^C on; the second one ends the command.
async fn interrupted(process: &Process) -> u8 {
    if tokio::signal::ctrl_c().await.is_err() {
        return std::future::pending().await;
    }
    // A command that can't be told is ended by the next.
    let _ = process.signal(Signal::INTERRUPT).await;
    // Without handler there is no second.
    let _ = tokio::signal::ctrl_c().await;
    let _ = process.kill().await;
    INTERRUPTED
}

/// Passes a stream on as it comes.
async fn pass(
    from: Option<impl AsyncRead + Unpin>,
    mut to: impl AsyncWrite + Unpin,
) -> std::io::Result<()> {
    let Some(mut from) = from else {
        return Ok(());
    };
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        to.write_all(buffer.get(..read).unwrap_or_default()).await?;
        to.flush().await?;
    }
}

/// Runs it to its end and prints what came of it.
async fn collect(sandbox: &dyn Sandbox, command: Command) -> Result<u8, Failure> {
    let started = Instant::now();
    let mut input = Vec::new();
    let most = 64 << 20;
    // From a terminal nothing is waited for.
    if !std::io::stdin().is_terminal() {
        let read = tokio::io::stdin()
            .take(most + 1)
            .read_to_end(&mut input)
            .await;
        read.map_err(|error| Error::from_io(error, Operation::Exec))?;
    }
    if input.len() as u64 > most {
        return Err(Error::new(ErrorKind::LimitExceeded, Operation::Exec)
            .with_message("standard input is larger than 64 MiB, which is the most with --json")
            .with_hint("leave --json out, or import a directory")
            .into());
    }
    let command = match input.is_empty() {
        true => command,
        false => command.stdin(input),
    };
    let output = sandbox.exec(command).await?;
    let text = |stream: &sandbox::CapturedStream| match std::str::from_utf8(&stream.bytes) {
        Ok(text) => {
            json!({ "text": text, "bytes": stream.total, "truncated": stream.is_truncated() })
        }
        Err(_) => {
            let bytes = base64::engine::general_purpose::STANDARD.encode(&stream.bytes);
            json!({ "base64": bytes, "bytes": stream.total, "truncated": stream.is_truncated() })
        }
    };
    print_json(&json!({
        "status": output.status,
        "exit-code": output.status.shell_code(),
        "stdout": text(&output.stdout),
        "stderr": text(&output.stderr),
        "seconds": output.duration.as_secs_f64(),
        "seconds-in-all": started.elapsed().as_secs_f64(),
        "usage": output.usage,
    }))?;
    Ok(code(output.status.shell_code()))
}
