//! A command's lines as they come, a conversation over its input, and a kill.
#![allow(clippy::print_stdout)] // An example talks to its user.

use std::time::{Duration, Instant};

use sandbox::{Command, SandboxSpec};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let provider = sandbox::connect("local:").await?;
    let sandbox = provider.create(SandboxSpec::new()).await?;

    // Lines as they come, not when the command has ended.
    let started = Instant::now();
    let script = "for n in 1 2 3; do echo tick $n; sleep 0.2; done";
    let mut ticks = sandbox.spawn(Command::shell(script)).await?;
    let stdout = ticks.stdout.take().ok_or("no stdout")?;
    let mut lines = BufReader::new(stdout).lines();
    while let Some(line) = lines.next_line().await? {
        println!("{:>4} ms  {line}", started.elapsed().as_millis());
    }
    println!("ended with {}", ticks.wait().await?.status);

    // A conversation: each answer is read before the next question is written.
    let mut cat = sandbox.spawn(Command::new("cat").stdin_piped()).await?;
    let mut stdin = cat.stdin.take().ok_or("no stdin")?;
    let mut answers = BufReader::new(cat.stdout.take().ok_or("no stdout")?).lines();
    for word in ["one", "two"] {
        stdin.write_all(format!("{word}\n").as_bytes()).await?;
        println!("cat says {:?}", answers.next_line().await?);
    }
    drop(stdin);
    println!("end of file: {}", cat.wait().await?.status);

    // A kill takes the command and everything that it started.
    let sleeper = sandbox
        .spawn(Command::shell("sleep 600 & sleep 600").timeout(Duration::from_secs(60)))
        .await?;
    let started = Instant::now();
    sleeper.kill().await?;
    println!(
        "{} after {} ms",
        sleeper.wait().await?.status,
        started.elapsed().as_millis()
    );
    sandbox.close().await?;
    Ok(())
}
