//! Jobs: commands that are found again by a key.
//!
//! Invariant: what a job did is read from its log or from a file that it wrote, never guessed from
//! the time that passed.

use std::time::Duration;

use sandbox_core::{
    Command, Error, ErrorKind, Execution, ExitStatus, Job, JobOptions, JobState, LogOptions,
    LogStream, Operation, Result, SandboxExt as _, Signal,
};

use super::tools::{appears, beating, far_daemon, heart, stopped};
use crate::kit::{Context, Failed, Verdict, cases, ensure, ensure_eq, eventually, refused};

cases! { "jobs":
    a_job_keeps_its_output [Jobs],
    a_key_starts_once [Jobs],
    many_starts_at_once_are_one [Jobs],
    another_command_under_a_key_is_a_conflict [Jobs],
    a_dropped_start_goes_on [Jobs],
    a_job_outlives_its_handles [Jobs],
    a_handle_keeps_the_sandbox [Jobs],
    a_log_is_read_from_any_offset [Jobs],
    a_gap_in_the_log_is_told [Jobs],
    an_offset_beyond_the_log_is_refused [Jobs],
    a_reader_waits_for_more [Jobs],
    two_readers_get_the_same [Jobs],
    a_log_without_a_reader_holds_nothing_up [Jobs],
    stdin_that_is_written_again_arrives_once [Jobs, StdinPipe],
    stdin_with_a_gap_is_refused [Jobs, StdinPipe],
    stdin_without_a_pipe_is_refused [Jobs],
    stop_kills_the_tree [Jobs],
    a_signal_reaches_the_program [Jobs, Signals],
    a_timeout_ends_it [Jobs],
    a_key_is_kept_until_it_is_forgotten [Jobs],
    a_job_that_runs_is_not_forgotten [Jobs],
    a_start_that_fails_frees_the_key [Jobs],
    an_unknown_key_is_named [Jobs],
    a_key_that_is_none_is_refused [Jobs],
    the_list_has_them_all [Jobs],
    close_ends_them [Jobs],
    a_fork_has_none [Jobs, Fork],
}

async fn start(cx: &Context, key: &str, script: &str) -> Verdict<Job> {
    Ok(cx.sandbox.start(key, Command::shell(script)).await?)
}

/// The log from an offset to the end of the job, as text.
async fn rest(job: &Job, from: u64) -> Verdict<String> {
    let mut next = from;
    let mut bytes = Vec::new();
    loop {
        let options = LogOptions::new().wait(Duration::from_secs(10));
        let log = job.read_log(next, options).await?;
        ensure_eq!(log.lost, 0, "lost bytes");
        bytes.extend(log.bytes());
        next = log.next;
        if log.ended {
            return Ok(String::from_utf8_lossy(&bytes).into_owned());
        }
    }
}

async fn ended(job: &Job, status: ExitStatus) -> Verdict {
    ensure_eq!(job.wait().await?.status, status, "how it ended");
    Ok(())
}

/// A script that goes on when the file is there.
fn when(file: &str, then: &str) -> String {
    format!("while [ ! -e {file} ]; do sleep 0.02; done; {then}")
}

async fn a_job_keeps_its_output(cx: Context) -> Verdict {
    let job = start(&cx, "key", "printf out; printf error >&2; exit 3").await?;
    ended(&job, ExitStatus::Code(3)).await?;
    let log = job.read_log(0, LogOptions::new()).await?;
    ensure_eq!(log.stream(LogStream::Stdout), b"out", "stdout");
    ensure_eq!(log.stream(LogStream::Stderr), b"error", "stderr");
    ensure!(log.ended, "the log does not say that it is whole");
    ensure_eq!((log.next, log.first_kept, log.lost), (8, 0, 0), "offsets");
    let mut at = 0;
    for chunk in &log.chunks {
        ensure_eq!(chunk.offset, at, "where a part starts");
        at = chunk.end();
    }
    let info = job.info().await?;
    ensure_eq!(
        info.state,
        JobState::Ended(ExitStatus::Code(3)),
        "the state"
    );
    ensure_eq!((info.log_first, info.log_next), (0, 8), "the log's offsets");
    ended(&job, ExitStatus::Code(3)).await
}

async fn a_key_starts_once(cx: Context) -> Verdict {
    let script = "printf x >> ran; printf log";
    let first = start(&cx, "key", script).await?;
    ended(&first, ExitStatus::Code(0)).await?;
    // Also when it has ended: the answer of the first start may have been lost.
    let second = start(&cx, "key", script).await?;
    ended(&second, ExitStatus::Code(0)).await?;
    ensure_eq!(rest(&second, 0).await?, "log", "the log of the one job");
    ensure_eq!(cx.sandbox.read_to_string("ran").await?, "x", "runs");
    Ok(())
}

async fn many_starts_at_once_are_one(cx: Context) -> Verdict {
    let command = || Command::shell("printf x >> ran");
    let starts = (0..16).map(|_| {
        let sandbox = cx.sandbox.clone();
        tokio::spawn(async move { sandbox.start("key", command()).await })
    });
    for started in starts.collect::<Vec<_>>() {
        ended(&started.await??, ExitStatus::Code(0)).await?;
    }
    ensure_eq!(cx.sandbox.read_to_string("ran").await?, "x", "runs");
    Ok(())
}

async fn another_command_under_a_key_is_a_conflict(cx: Context) -> Verdict {
    let job = start(&cx, "key", "printf x >> ran").await?;
    ended(&job, ExitStatus::Code(0)).await?;
    let others = [
        Command::shell("printf y >> ran"),
        Command::shell("printf x >> ran").env("A", "1"),
        Command::shell("printf x >> ran").cwd("/"),
        Command::shell("printf x >> ran").timeout(Duration::from_secs(60)),
    ];
    for other in others {
        let started = cx.sandbox.start("key", other).await;
        let error = refused(
            started,
            &cx.sandbox,
            Operation::StartJob,
            ErrorKind::Conflict,
        )?;
        ensure_eq!(error.execution(), Some(Execution::NotStarted), "{error:?}");
        ensure!(error.message().contains("key"), "no key in {error}");
        ensure!(error.hint().is_some(), "no remedy in {error}");
    }
    ensure_eq!(cx.sandbox.read_to_string("ran").await?, "x", "runs");
    Ok(())
}

async fn a_dropped_start_goes_on(cx: Context) -> Verdict {
    let command = || Command::shell("printf x >> ran");
    {
        let start = cx.sandbox.start("key", command());
        // Polled once: under way, and dropped.
        let dropped = tokio::time::timeout(Duration::ZERO, start).await;
        drop(dropped);
    }
    let job = cx.sandbox.start("key", command()).await?;
    ended(&job, ExitStatus::Code(0)).await?;
    ensure_eq!(cx.sandbox.read_to_string("ran").await?, "x", "runs");
    Ok(())
}

async fn a_job_outlives_its_handles(cx: Context) -> Verdict {
    drop(start(&cx, "key", &when("go", "printf done")).await?);
    // Whatever ends with the handle has had its time.
    tokio::time::sleep(Duration::from_millis(100)).await;
    cx.sandbox.write("go", "").await?;
    let job = cx.sandbox.find_job(&"key".into()).await?;
    ended(&job, ExitStatus::Code(0)).await?;
    ensure_eq!(rest(&job, 0).await?, "done", "the log");
    Ok(())
}

async fn a_handle_keeps_the_sandbox(cx: Context) -> Verdict {
    let sandbox = cx.another().await?;
    let job = sandbox
        .start("key", Command::shell("sleep 0.3; printf done"))
        .await?;
    drop(sandbox);
    ended(&job, ExitStatus::Code(0)).await?;
    ensure_eq!(rest(&job, 0).await?, "done", "the log");
    Ok(())
}

async fn a_log_is_read_from_any_offset(cx: Context) -> Verdict {
    let job = start(&cx, "key", "printf 0123456789").await?;
    ended(&job, ExitStatus::Code(0)).await?;
    for from in 0..=10 {
        let expected = &"0123456789"[from..];
        ensure_eq!(rest(&job, from as u64).await?, expected, "from {from} on");
    }
    let log = job.read_log(2, LogOptions::new().limit(3)).await?;
    ensure_eq!(log.bytes(), b"234", "three bytes");
    ensure_eq!((log.next, log.ended), (5, false), "where to read on");
    Ok(())
}

async fn a_gap_in_the_log_is_told(cx: Context) -> Verdict {
    let command = Command::shell("printf 0123456789; printf abcdefghij");
    let options = JobOptions::new().log_limit(8);
    let job = cx
        .sandbox
        .start_job(&"key".into(), command, options)
        .await?;
    ended(&job, ExitStatus::Code(0)).await?;
    let log = job.read_log(3, LogOptions::new()).await?;
    ensure_eq!(log.bytes(), b"cdefghij", "what is kept");
    ensure_eq!((log.lost, log.first_kept), (9, 12), "the gap");
    ensure_eq!(
        log.chunks.first().map(|chunk| chunk.offset),
        Some(12),
        "the offset"
    );
    ensure_eq!((log.next, log.ended), (20, true), "the end");
    // The control: from what is kept on there is no gap.
    let log = job.read_log(12, LogOptions::new()).await?;
    ensure_eq!(log.lost, 0, "lost bytes");
    Ok(())
}

/// Checks an error of a handle.
fn is_error<T: std::fmt::Debug>(
    result: Result<T>,
    kind: ErrorKind,
    op: Operation,
) -> Verdict<Error> {
    match result {
        Err(error) if error.kind() == kind && error.operation() == op => Ok(error),
        other => Err(Failed::new(format_args!(
            "{kind:?} of {op} expected, not {other:?}"
        ))),
    }
}

async fn an_offset_beyond_the_log_is_refused(cx: Context) -> Verdict {
    let job = start(&cx, "key", "printf 01234").await?;
    ended(&job, ExitStatus::Code(0)).await?;
    let read = job.read_log(6, LogOptions::new()).await;
    let error = is_error(read, ErrorKind::InvalidInput, Operation::ReadLog)?;
    ensure!(error.message().contains('5'), "no end in {error}");
    let read = job.read_log(0, LogOptions::new().limit(0)).await;
    is_error(read, ErrorKind::InvalidInput, Operation::ReadLog)?;
    Ok(())
}

async fn a_reader_waits_for_more(cx: Context) -> Verdict {
    let job = start(&cx, "key", &when("go", "printf more")).await?;
    let log = job.read_log(0, LogOptions::new()).await?;
    ensure!(
        log.chunks.is_empty() && !log.ended,
        "something came early: {log:?}"
    );
    let short = LogOptions::new().wait(Duration::from_millis(50));
    let log = job.read_log(0, short).await?;
    ensure!(
        log.chunks.is_empty() && !log.ended,
        "something came early: {log:?}"
    );
    let reader = {
        let job = job.clone();
        let long = LogOptions::new().wait(Duration::from_secs(60));
        tokio::spawn(async move { job.read_log(0, long).await })
    };
    cx.sandbox.write("go", "").await?;
    ensure_eq!(
        reader.await??.bytes(),
        b"more",
        "what the reader waited for"
    );
    Ok(())
}

async fn two_readers_get_the_same(cx: Context) -> Verdict {
    let script = "for i in 1 2 3 4 5 6 7 8; do printf \"line $i;\"; sleep 0.02; done";
    let job = start(&cx, "key", script).await?;
    let other = cx.sandbox.find_job(&"key".into()).await?;
    let (one, two) = tokio::join!(rest(&job, 0), rest(&other, 0));
    let (one, two) = (one?, two?);
    ensure!(one.ends_with("line 8;"), "the log is {one:?}");
    ensure_eq!(one, two, "what the readers got");
    Ok(())
}

async fn a_log_without_a_reader_holds_nothing_up(cx: Context) -> Verdict {
    let command = Command::shell("yes | head -c 3000000; printf end");
    let options = JobOptions::new().log_limit(1000);
    let job = cx
        .sandbox
        .start_job(&"key".into(), command, options)
        .await?;
    ended(&job, ExitStatus::Code(0)).await?;
    let log = job.read_log(0, LogOptions::new()).await?;
    ensure_eq!((log.lost, log.next), (2_999_003, 3_000_003), "the offsets");
    ensure!(
        log.bytes().ends_with(b"y\nend"),
        "the last bytes are not there"
    );
    Ok(())
}

async fn stdin_that_is_written_again_arrives_once(cx: Context) -> Verdict {
    let job = cx
        .sandbox
        .start("key", Command::new("cat").stdin_piped())
        .await?;
    ensure_eq!(job.write_stdin(0, "one ").await?, 4, "the offset after it");
    // As after an answer that was lost, alone and with more.
    ensure_eq!(job.write_stdin(0, "one ").await?, 4, "the offset after it");
    ensure_eq!(job.write_stdin(2, "e two").await?, 7, "the offset after it");
    ensure_eq!(
        job.info().await?.stdin_next,
        7,
        "the offset that info tells"
    );
    job.close_stdin().await?;
    job.close_stdin().await?;
    ended(&job, ExitStatus::Code(0)).await?;
    ensure_eq!(rest(&job, 0).await?, "one two", "what the program read");
    let written = job.write_stdin(7, "late").await;
    is_error(written, ErrorKind::Closed, Operation::WriteStdin)?;
    Ok(())
}

async fn stdin_with_a_gap_is_refused(cx: Context) -> Verdict {
    let job = cx
        .sandbox
        .start("key", Command::new("cat").stdin_piped())
        .await?;
    job.write_stdin(0, "one").await?;
    let written = job.write_stdin(4, "two").await;
    let error = is_error(written, ErrorKind::InvalidInput, Operation::WriteStdin)?;
    ensure!(error.message().contains('3'), "no offset in {error}");
    job.close_stdin().await?;
    ensure_eq!(rest(&job, 0).await?, "one", "what the program read");
    Ok(())
}

async fn stdin_without_a_pipe_is_refused(cx: Context) -> Verdict {
    let job = start(&cx, "key", "cat; printf end").await?;
    let written = job.write_stdin(0, "x").await;
    let error = is_error(written, ErrorKind::InvalidInput, Operation::WriteStdin)?;
    ensure!(error.hint().is_some(), "no remedy in {error}");
    is_error(
        job.close_stdin().await,
        ErrorKind::InvalidInput,
        Operation::WriteStdin,
    )?;
    ensure_eq!(rest(&job, 0).await?, "end", "the log");
    Ok(())
}

async fn stop_kills_the_tree(cx: Context) -> Verdict {
    let far = far_daemon(&cx, "far").await?;
    let job = start(
        &cx,
        "key",
        &format!("{far}; printf before; {}", heart("near")),
    )
    .await?;
    beating(&*cx.sandbox, "near").await?;
    beating(&*cx.sandbox, "far").await?;
    job.stop().await?;
    stopped(&*cx.sandbox, "near").await?;
    if cx
        .fixture
        .capabilities()
        .has(sandbox_core::Capability::KillDaemons)
    {
        stopped(&*cx.sandbox, "far").await?;
    }
    ensure_eq!(rest(&job, 0).await?, "before", "the log is kept");
    ensure_eq!(
        job.info().await?.state,
        JobState::Ended(ExitStatus::Signal(9)),
        "the state"
    );
    // A second time does nothing.
    Ok(job.stop().await?)
}

async fn a_signal_reaches_the_program(cx: Context) -> Verdict {
    let script = "trap 'printf caught; exit 4' TERM; touch ready; while :; do sleep 0.02; done";
    let job = start(&cx, "key", script).await?;
    appears(&*cx.sandbox, "ready").await?;
    job.signal(Signal::TERMINATE).await?;
    ended(&job, ExitStatus::Code(4)).await?;
    ensure_eq!(rest(&job, 0).await?, "caught", "the log");
    Ok(job.signal(Signal::TERMINATE).await?)
}

async fn a_timeout_ends_it(cx: Context) -> Verdict {
    let command = Command::shell("printf begun; sleep 50").timeout(Duration::from_millis(1500));
    let job = cx.sandbox.start("key", command).await?;
    match job.wait().await {
        Err(error) if error.kind() == ErrorKind::Timeout => {}
        other => {
            return Err(Failed::new(format_args!(
                "a timeout expected, not {other:?}"
            )));
        }
    }
    ensure_eq!(
        job.info().await?.state,
        JobState::Failed(ErrorKind::Timeout),
        "the state"
    );
    ensure_eq!(rest(&job, 0).await?, "begun", "the log");
    Ok(())
}

async fn a_key_is_kept_until_it_is_forgotten(cx: Context) -> Verdict {
    let job = start(&cx, "key", "printf x >> ran").await?;
    ended(&job, ExitStatus::Code(0)).await?;
    job.forget().await?;
    let key = "key".into();
    let found = cx.sandbox.find_job(&key).await;
    refused(found, &cx.sandbox, Operation::FindJob, ErrorKind::NotFound)?;
    // An old handle is no way to the job that takes its key.
    let new = start(&cx, "key", "printf y >> ran; printf new").await?;
    ended(&new, ExitStatus::Code(0)).await?;
    is_error(job.info().await, ErrorKind::NotFound, Operation::FindJob)?;
    let read = job.read_log(0, LogOptions::new()).await;
    is_error(read, ErrorKind::NotFound, Operation::ReadLog)?;
    ensure_eq!(rest(&new, 0).await?, "new", "the log of the second");
    ensure_eq!(cx.sandbox.read_to_string("ran").await?, "xy", "runs");
    Ok(())
}

async fn a_job_that_runs_is_not_forgotten(cx: Context) -> Verdict {
    let job = start(&cx, "key", &when("go", "printf done")).await?;
    let error = is_error(job.forget().await, ErrorKind::Busy, Operation::ForgetJob)?;
    ensure!(error.hint().is_some(), "no remedy in {error}");
    cx.sandbox.write("go", "").await?;
    ended(&job, ExitStatus::Code(0)).await?;
    Ok(job.forget().await?)
}

async fn a_start_that_fails_frees_the_key(cx: Context) -> Verdict {
    let started = cx
        .sandbox
        .start("key", Command::new("no-such-program"))
        .await;
    let kind = ErrorKind::CommandNotFound;
    let error = refused(started, &cx.sandbox, Operation::StartJob, kind)?;
    ensure_eq!(error.execution(), Some(Execution::NotStarted), "{error:?}");
    let job = start(&cx, "key", "printf ran").await?;
    ensure_eq!(rest(&job, 0).await?, "ran", "the log");
    Ok(())
}

async fn an_unknown_key_is_named(cx: Context) -> Verdict {
    let found = cx.sandbox.find_job(&"no such key".into()).await;
    let error = refused(found, &cx.sandbox, Operation::FindJob, ErrorKind::NotFound)?;
    ensure!(error.message().contains("no such key"), "no key in {error}");
    Ok(())
}

async fn a_key_that_is_none_is_refused(cx: Context) -> Verdict {
    let long = "k".repeat(257);
    for key in ["", "a\nb", "\0", &long] {
        let started = cx
            .sandbox
            .start(key, Command::shell("printf x >> ran"))
            .await;
        let kind = ErrorKind::InvalidInput;
        let error = refused(started, &cx.sandbox, Operation::StartJob, kind)?;
        ensure_eq!(error.execution(), Some(Execution::NotStarted), "{error:?}");
    }
    ensure!(!cx.sandbox.exists("ran").await?, "something ran");
    let job = cx
        .sandbox
        .start("k".repeat(256), Command::new("true"))
        .await?;
    ended(&job, ExitStatus::Code(0)).await
}

async fn the_list_has_them_all(cx: Context) -> Verdict {
    ensure!(
        cx.sandbox.list_jobs().await?.is_empty(),
        "jobs of a new sandbox"
    );
    let first = start(&cx, "first", "printf 12345; exit 7").await?;
    ended(&first, ExitStatus::Code(7)).await?;
    let second = start(&cx, "second", "sleep 50").await?;
    let jobs = cx.sandbox.list_jobs().await?;
    let keys: Vec<&str> = jobs.iter().map(|job| job.key.as_str()).collect();
    ensure_eq!(keys, ["first", "second"], "the keys");
    ensure_eq!(
        jobs[0].state,
        JobState::Ended(ExitStatus::Code(7)),
        "the first"
    );
    ensure_eq!(jobs[0].log_next, 5, "the log of the first");
    ensure_eq!(jobs[1].state, JobState::Running, "the second");
    second.stop().await?;
    first.forget().await?;
    ensure_eq!(
        cx.sandbox.list_jobs().await?.len(),
        1,
        "jobs after one was forgotten"
    );
    Ok(())
}

async fn close_ends_them(cx: Context) -> Verdict {
    let sandbox = cx.another().await?;
    let job = sandbox
        .start("key", Command::shell("printf begun; sleep 50"))
        .await?;
    eventually("the job writes", || async {
        Ok(job.info().await?.log_next == 5)
    })
    .await?;
    sandbox.close().await?;
    match job.wait().await {
        Err(error) if error.kind() == ErrorKind::Closed => {}
        other => return Err(Failed::new(format_args!("closed expected, not {other:?}"))),
    }
    ensure_eq!(
        rest(&job, 0).await?,
        "begun",
        "the log stays with the handle"
    );
    let found = sandbox.find_job(&"key".into()).await;
    refused(found, &sandbox, Operation::FindJob, ErrorKind::Closed)?;
    let started = sandbox.start("other", Command::new("true")).await;
    refused(started, &sandbox, Operation::StartJob, ErrorKind::Closed)?;
    let listed = sandbox.list_jobs().await;
    refused(listed, &sandbox, Operation::ListJobs, ErrorKind::Closed)?;
    Ok(())
}

async fn a_fork_has_none(cx: Context) -> Verdict {
    let job = start(&cx, "key", "printf x >> ran").await?;
    ended(&job, ExitStatus::Code(0)).await?;
    let fork = cx.sandbox.fork_one().await?;
    ensure!(fork.list_jobs().await?.is_empty(), "jobs of a fork");
    let again = fork.start("key", Command::shell("printf y >> ran")).await?;
    ended(&again, ExitStatus::Code(0)).await?;
    ensure_eq!(fork.read_to_string("ran").await?, "xy", "runs in the fork");
    ensure_eq!(
        cx.sandbox.read_to_string("ran").await?,
        "x",
        "runs in the parent"
    );
    Ok(fork.close().await?)
}
