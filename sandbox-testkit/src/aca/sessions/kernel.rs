//! The Python process of a session, which keeps its globals between executions.
//!
//! One piece of code runs at a time; those that come meanwhile wait, as they do in the service.

use std::pin::pin;
use std::time::{Duration, Instant};

use sandbox_core::{Command, Process, ProcessStdin, ProcessStdout, Sandbox, Signal};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

const PROGRAM: &str = include_str!("kernel.py");
/// Time that an interrupted piece of code may take to end before its kernel is ended.
const GRACE: Duration = Duration::from_secs(30);
/// Interval of interrupts: on a busy host a kernel may not have begun with the code, and does not
/// hear what comes before.
const AGAIN: Duration = Duration::from_secs(1);

/// A kernel that runs.
#[derive(Debug)]
pub(super) struct Kernel {
    process: Process,
    stdin: ProcessStdin,
    lines: BufReader<ProcessStdout>,
}

/// Result of a piece of code.
#[derive(Debug)]
pub(super) enum Ended {
    /// The kernel's answer.
    Answered(Value),
    /// The code took too long and was interrupted.
    Late,
    /// The kernel ended.
    Died,
}

impl Kernel {
    pub(super) async fn start(local: &dyn Sandbox) -> Option<Self> {
        let command = Command::new("python3")
            .args(["-u", "-c", PROGRAM])
            .cwd("/mnt/data")
            .stdin_piped();
        let mut process = local.spawn(command).await.ok()?;
        let (stdin, stdout) = (process.stdin.take()?, process.stdout.take()?);
        Some(Self {
            process,
            stdin,
            lines: BufReader::new(stdout),
        })
    }

    /// Runs a piece of code. A kernel that did not answer must not be used again.
    pub(super) async fn run(&mut self, code: &str, limit: u64, timeout: Duration) -> Ended {
        let mut request = json!({"code": code, "limit": limit}).to_string();
        request.push('\n');
        if self.stdin.write_all(request.as_bytes()).await.is_err() {
            return Ended::Died;
        }
        // One for all: a line that is half read when its reading is dropped is lost.
        let mut answered = pin!(answer(&mut self.lines));
        match tokio::time::timeout(timeout, &mut answered).await {
            Ok(Some(answer)) => return Ended::Answered(answer),
            Ok(None) => return Ended::Died,
            Err(_) => {}
        }
        let late = Instant::now();
        while late.elapsed() < GRACE && self.process.signal(Signal::INTERRUPT).await.is_ok() {
            match tokio::time::timeout(AGAIN, &mut answered).await {
                Ok(Some(_)) => return Ended::Late,
                Ok(None) => break,
                Err(_) => {}
            }
        }
        Ended::Died
    }
}

async fn answer(lines: &mut BufReader<ProcessStdout>) -> Option<Value> {
    let mut line = String::new();
    match lines.read_line(&mut line).await {
        Ok(read) if read > 0 => serde_json::from_str(&line).ok(),
        _ => None,
    }
}
