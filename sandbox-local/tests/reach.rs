//! Terminals, jobs, ports and file streams of the local backend: what the kit can't see.
#![cfg(target_os = "linux")]
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use sandbox_core::{
    Command, ErrorKind, ForkOptions, OpenReadOptions, OpenWriteOptions, Process, Sandbox,
    SandboxExt as _, TerminalSize,
};
use support::default;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

async fn shown(mut process: Process) -> String {
    let mut text = String::new();
    let stdout = process.stdout.as_mut().expect("a terminal");
    stdout.read_to_string(&mut text).await.expect("read");
    process.wait().await.expect("ended");
    text
}

fn terminal(command: Command) -> Command {
    command.terminal(TerminalSize::default())
}

#[tokio::test]
async fn a_terminal_is_the_guest_users_and_the_only_one_in_sight() {
    let sandbox = default().await;
    let script = "stat -c '%U %a' $(tty); ls -1 /dev/pts; id -un";
    let process = sandbox.spawn(terminal(Command::shell(script))).await;
    let text = shown(process.expect("started")).await;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines, ["sandbox 620", "0", "ptmx", "sandbox"], "{text}");
    sandbox.close().await.expect("closed");
}

/// Bytes put into a terminal's input would be typed to whatever reads it next.
#[tokio::test]
async fn no_program_types_into_a_terminal() {
    let sandbox = default().await;
    let perl = |request: &str| {
        let script = format!("my $c = 'x'; printf ioctl(STDIN, {request}, $c) ? 'typed' : \"$!\"");
        terminal(Command::new("perl").arg("-e").arg(script))
    };
    let denied = sandbox.spawn(perl("0x5412")).await.expect("started");
    let text = shown(denied).await;
    assert!(text.contains("not permitted"), "TIOCSTI: {text:?}");
    // The control: another request of the same program to the same terminal (TIOCOUTQ) is answered.
    let asked = sandbox.spawn(perl("0x5411")).await.expect("started");
    let text = shown(asked).await;
    assert!(text.contains("typed"), "TIOCOUTQ: {text:?}");
    sandbox.close().await.expect("closed");
}

#[tokio::test]
async fn the_terminals_of_a_sandbox_have_a_limit_with_a_name() {
    let sandbox = default().await;
    let mut held = Vec::new();
    let error = loop {
        let command = terminal(Command::shell("sleep 60"));
        match sandbox.spawn(command).await {
            Ok(process) => held.push(process),
            Err(error) => break error,
        }
        assert!(held.len() <= 100, "no limit");
    };
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error:?}");
    assert!(error.hint().is_some(), "{error}");
    assert!(held.len() >= 60, "{} terminals", held.len());
    drop(held);
    // Those that were let go are free again, as soon as their programs have ended.
    let until = Instant::now() + Duration::from_secs(120);
    loop {
        match sandbox.spawn(terminal(Command::shell("printf x"))).await {
            Ok(process) => break assert_eq!(shown(process).await, "x"),
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
    }
    sandbox.close().await.expect("closed");
}

#[tokio::test]
async fn a_job_does_not_keep_its_sandbox() {
    let sandbox = default().await;
    let command = Command::shell("sleep 600");
    drop(sandbox.start("key", command).await.expect("started"));
    let kept = Arc::downgrade(&sandbox);
    drop(sandbox);
    // The task that started it lets go in a moment of its own.
    let until = Instant::now() + Duration::from_secs(120);
    while kept.upgrade().is_some() {
        assert!(Instant::now() < until, "the job holds its sandbox");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_fork_waits_for_an_open_writer() {
    let sandbox = default().await;
    let opened = sandbox
        .open_write(&"f".into(), OpenWriteOptions::new())
        .await;
    let mut writer = opened.expect("opened");
    writer.write_all(b"whole").await.expect("written");
    let fork = {
        let sandbox = sandbox.clone();
        tokio::spawn(async move { sandbox.fork(ForkOptions::new()).await })
    };
    let early = tokio::time::timeout(Duration::from_millis(200), sandbox.exists("f")).await;
    assert!(!matches!(early, Ok(Ok(true))), "a part is there");
    assert!(!fork.is_finished(), "forked with a part of a file");
    writer.commit().await.expect("committed");
    let fork = fork.await.expect("ran").expect("forked");
    assert_eq!(fork.read_to_string("f").await.expect("read"), "whole");
    assert_eq!(
        fork.list(".").await.expect("listed").len(),
        1,
        "staged files in the fork"
    );
    fork.close().await.expect("closed");
    sandbox.close().await.expect("closed");
}

/// Peak of this process's resident memory since the last reset, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("read");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .expect("a peak");
    let number = line.split_whitespace().nth(1).expect("a number");
    number.parse().expect("digits")
}

/// With `SANDBOX_LONG` set, 3 GiB; it prints what it measured.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_goes_in_and_out_at_constant_memory() {
    const CHUNK: usize = 1 << 20;
    let chunks = match std::env::var_os("SANDBOX_LONG") {
        Some(_) => 3 << 10,
        None => 96,
    };
    let sandbox = default().await;
    let bytes: Vec<u8> = (0..=250_u8).cycle().take(CHUNK).collect();
    std::fs::write("/proc/self/clear_refs", "5").expect("the peak is reset");
    let before = peak();
    let started = Instant::now();
    let opened = sandbox
        .open_write(&"big".into(), OpenWriteOptions::new())
        .await;
    let mut writer = opened.expect("opened");
    for _ in 0..chunks {
        writer.write_all(&bytes).await.expect("written");
    }
    writer.commit().await.expect("committed");
    let written = started.elapsed();
    let started = Instant::now();
    let opened = sandbox
        .open_read(&"big".into(), OpenReadOptions::new())
        .await;
    let mut reader = opened.expect("opened");
    let mut got = vec![0; CHUNK];
    for number in 0..chunks {
        reader.read_exact(&mut got).await.expect("read");
        assert!(got == bytes, "other bytes in MiB {number}");
    }
    assert_eq!(reader.read(&mut got).await.expect("read"), 0, "the end");
    let read = started.elapsed();
    let grown = peak() - before;
    let rate = |time: Duration| chunks as f64 / time.as_secs_f64();
    println!(
        "{chunks} MiB: in {:.0} MiB/s, out {:.0} MiB/s, peak memory {grown} KiB above",
        rate(written),
        rate(read)
    );
    // Other tests of this binary run at the same time; the file is larger than what they need.
    assert!(grown < 64 << 10, "{grown} KiB of memory for {chunks} MiB");
    sandbox.close().await.expect("closed");
}
