//! The fixed work, between marks that strace sees.

use std::path::Path;
use std::time::Duration;

use sandbox::local::{LocalConfig, LocalProvider};
use sandbox::{Command, FileBatch, Provider, Sandbox, SandboxExt, SandboxSpec};

use crate::support::{Outcome, host};

/// Repetitions of each kind of work between its marks.
pub(crate) const ROUNDS: u32 = 10;

/// The path in whose place nothing is: looking for it marks a place in the trace.
pub(crate) const MARK: &str = "/sandbox-guard";

/// Names of the kinds of work.
pub(crate) const NAMES: [&str; 4] = [
    "create and close",
    "exec of true",
    "write_files of 100",
    "write one, fork, close",
];

/// Waits until the work off the caller's path is over. Under strace nothing else
/// can be asked without adding to what is counted.
fn settle() {
    std::thread::sleep(Duration::from_millis(300));
}

fn mark(edge: &str, name: &str) {
    settle();
    // Whether it is there does not matter, being asked for does.
    let _ = Path::new(MARK).join(edge).join(name).exists();
}

fn batch(dir: u32) -> FileBatch {
    (0..100).fold(FileBatch::new(), |batch, file| {
        batch.file(format!("{dir}/{file}"), &host::KIB[..])
    })
}

pub(crate) fn all() -> Outcome<()> {
    // One thread to run on and one that may block: how work is spread does not change the counts.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()?;
    runtime.block_on(async {
        let provider = LocalProvider::new(LocalConfig::default())?;
        let [create, exec, write, fork] = NAMES;

        // The first of everything does what later ones need not.
        provider.create(SandboxSpec::new()).await?.close().await?;
        mark("begin", create);
        for _ in 0..ROUNDS {
            provider.create(SandboxSpec::new()).await?.close().await?;
        }
        mark("end", create);

        let sandbox = provider.create(SandboxSpec::new()).await?;
        sandbox.exec(Command::new("/bin/true")).await?;
        mark("begin", exec);
        for _ in 0..ROUNDS {
            sandbox.exec(Command::new("/bin/true")).await?;
        }
        mark("end", exec);

        sandbox.write_files(batch(ROUNDS)).await?;
        mark("begin", write);
        for dir in 0..ROUNDS {
            sandbox.write_files(batch(dir)).await?;
        }
        mark("end", write);
        sandbox.close().await?;

        let sandbox = provider.create(SandboxSpec::new()).await?;
        sandbox.write_files(batch(0)).await?;
        sandbox.fork_one().await?.close().await?;
        mark("begin", fork);
        for _ in 0..ROUNDS {
            sandbox.write("changed", "x").await?;
            sandbox.fork_one().await?.close().await?;
        }
        mark("end", fork);
        sandbox.close().await?;
        Ok(())
    })
}
