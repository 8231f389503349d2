//! Output while a command runs: much of it, and many small lines, against a bare pipe.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sandbox::{Command, Sandbox};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

use crate::bench::Bench;
use crate::support::Outcome;
use crate::support::measure::Case;

/// Ways in which the reader takes the output.
#[derive(Clone, Copy)]
enum By {
    Block,
    Line,
}

async fn drain(stream: impl AsyncRead + Unpin, by: By) -> Outcome<u64> {
    let mut stream = BufReader::with_capacity(256 << 10, stream);
    let mut all = 0;
    match by {
        By::Block => {
            let mut buffer = vec![0; 256 << 10];
            loop {
                match stream.read(&mut buffer).await? {
                    0 => return Ok(all),
                    read => all += read as u64,
                }
            }
        }
        By::Line => {
            let mut line = Vec::new();
            loop {
                line.clear();
                match stream.read_until(b'\n', &mut line).await? {
                    0 => return Ok(all),
                    read => all += read as u64,
                }
            }
        }
    }
}

async fn pipe(program: &str, args: &[&str], by: By, bytes: u64) -> Outcome<Duration> {
    let started = Instant::now();
    let mut child = tokio::process::Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let got = drain(child.stdout.take().ok_or("no stdout")?, by).await?;
    child.wait().await?;
    told(started, got, bytes)
}

async fn spawned(
    sandbox: &Arc<dyn Sandbox>,
    program: &str,
    args: &[&str],
    by: By,
    bytes: u64,
) -> Outcome<Duration> {
    let started = Instant::now();
    let mut process = sandbox.spawn(Command::new(program).args(args)).await?;
    let got = drain(process.stdout.take().ok_or("no stdout")?, by).await?;
    process.wait().await?;
    told(started, got, bytes)
}

fn told(started: Instant, got: u64, bytes: u64) -> Outcome<Duration> {
    match got == bytes {
        true => Ok(started.elapsed()),
        false => Err(format!("{got} bytes came of {bytes}").into()),
    }
}

pub(crate) fn all(bench: &mut Bench) -> Outcome<()> {
    let mib: u64 = bench.effort.pick(4, 256, 1_024);
    let lines: u64 = bench.effort.pick(1_000, 200_000, 1_000_000);
    let runtime = Arc::clone(&bench.runtime);
    let sandbox = bench.create()?;
    let size = (mib << 20).to_string();
    let number = lines.to_string();
    let line = "a line of thirty-one characters";
    for (name, program, args, by, bytes) in [
        (
            format!("stream of {mib} MiB"),
            "head",
            vec!["-c", &size, "/dev/zero"],
            By::Block,
            mib << 20,
        ),
        (
            format!("stream of {lines} lines"),
            // awk writes a line at a time into its buffer, as most programs do.
            "awk",
            vec![
                "BEGIN { for (i = 0; i < ARGV[1]; i++) print ARGV[2] }",
                &number,
                line,
            ],
            By::Line,
            lines * (line.len() as u64 + 1),
        ),
    ] {
        let cases = vec![
            Case::new("a bare pipe", || {
                runtime.block_on(pipe(program, &args, by, bytes))
            }),
            Case::new("spawn", || {
                runtime.block_on(spawned(&sandbox, program, &args, by, bytes))
            }),
        ];
        bench.compare(&name, cases)?;
    }
    bench.close(&sandbox)
}
