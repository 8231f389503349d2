//! Tries several patches at once, each in a fork of one prepared sandbox: the first whose test
//! passes wins, and the rest are killed.
//!
//! `cargo run --example best_of_n --features sessions`
#![allow(clippy::print_stdout)] // An example talks to its user.

use std::time::{Duration, Instant};

use sandbox::sessions::{
    Limits, Session, SessionOptions, Sessions, SessionsConfig, ShutdownOptions,
};
use sandbox::{Command, SandboxExt as _, SandboxSpec};
use tokio::task::JoinSet;

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// The faulty program, and the test that shows the fault.
const BROKEN: &str = "median() { sort | head -n 1; }\n";
const TEST: &str = ". ./median.sh\n[ \"$(printf '%s\\n' 9 2 10 4 1 | median)\" = 4 ]\n";

/// Candidates, as a model might give them: one is wrong, one never ends, one is right, one is slow, and
/// one is given twice, which is an error of its attempt and not of the race.
const PATCHES: [(&str, &str); 5] = [
    ("textual sort", "median() { sort | sed -n 3p; }\n"),
    ("endless", "median() { while :; do :; done; }\n"),
    ("numeric sort", "median() { sort -n | sed -n 3p; }\n"),
    ("slow", "median() { sleep 30; sort -n | sed -n 3p; }\n"),
    ("endless", "median() { while :; do :; done; }\n"),
];

/// Applies a patch in a fork and runs the test; gives the fork if it passes.
async fn attempt(
    base: Session,
    name: &'static str,
    patch: &'static str,
) -> Result<Option<Session>> {
    let key = name.replace(' ', "-");
    let fork = base.fork(key, SessionOptions::new()).await?;
    fork.sandbox().write("median.sh", patch).await?;
    let test = Command::new("sh")
        .arg("test.sh")
        .timeout(Duration::from_secs(20));
    let passed = match fork.sandbox().exec(test).await {
        Ok(output) => output.success(),
        Err(error) => {
            println!("{name}: {error}");
            false
        }
    };
    println!("{name}: {}", if passed { "passes" } else { "fails" });
    if passed {
        return Ok(Some(fork));
    }
    fork.close().await?;
    Ok(None)
}

#[tokio::main]
async fn main() -> Result<()> {
    let provider = sandbox::connect("local:").await?;
    let config = SessionsConfig::new().limits(Limits::new().per_tenant(PATCHES.len() + 1));
    let sessions = Sessions::open(provider, config).await?;
    let base = sessions
        .get_or_create("example", "base", SandboxSpec::new())
        .await?;
    base.sandbox().write("median.sh", BROKEN).await?;
    base.sandbox().write("test.sh", TEST).await?;
    assert!(
        !base.sandbox().sh("sh test.sh").await?.success(),
        "the test must fail at first"
    );

    let started = Instant::now();
    let mut attempts = JoinSet::new();
    for (name, patch) in PATCHES {
        attempts.spawn(attempt(base.clone(), name, patch));
    }
    let mut winner = None;
    while let Some(done) = attempts.join_next().await {
        match done? {
            Ok(Some(fork)) => {
                winner = Some(fork);
                break;
            }
            Ok(None) => {}
            // The others may do better.
            Err(error) => println!("an attempt could not be made: {error}"),
        }
    }
    // The tasks that are aborted drop their commands, which kills them.
    attempts.shutdown().await;
    let Some(winner) = winner else {
        return Err("no patch passes".into());
    };
    let patch = winner.sandbox().read_to_string("median.sh").await?;
    print!(
        "{} wins after {:.1} s: {patch}",
        winner.key(),
        started.elapsed().as_secs_f64()
    );
    let report = sessions.shutdown(ShutdownOptions::new()).await?;
    println!(
        "{} sandboxes closed, {} left",
        report.closed,
        report.left.len()
    );
    match report.left.is_empty() {
        true => Ok(()),
        false => Err("a sandbox was left".into()),
    }
}
