//! Forks: by the size of the tree, by the length of the chain, and many siblings.

use std::process::Command as HostCommand;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sandbox::{Command, Sandbox, SandboxExt};

use crate::bench::{Bench, batch, clocked, exec};
use crate::support::measure::{Case, timed};
use crate::support::{Outcome, host};

/// Pause before a fork: nothing tells when everything is at rest.
const REST: Duration = Duration::from_millis(20);

pub(crate) fn all(bench: &mut Bench) -> Outcome<()> {
    let sizes: &[u32] = bench
        .effort
        .pick(&[200], &[1_000, 10_000], &[1_000, 10_000, 100_000]);
    for files in sizes {
        tree(bench, *files)?;
    }
    let depths: &[u32] = bench.effort.pick(&[2], &[1, 50], &[1, 10, 50, 100, 200]);
    for depth in depths {
        chain(bench, *depth)?;
    }
    siblings(bench)
}

/// Closing the fork is not timed: a caller that waits for a fork does not wait for it. The copy of
/// the largest tree takes many seconds and is left out.
fn tree(bench: &mut Bench, files: u32) -> Outcome<()> {
    let runtime = Arc::clone(&bench.runtime);
    let sandbox = bench.create()?;
    runtime.block_on(sandbox.write_files(batch("tree", files, &host::KIB)))?;
    let scratch = host::scratch()?;
    let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
    host::tree(&from, files.min(10_000).into())?;
    // Or the disk would be busy with the trees while forks are measured.
    host::run(&mut HostCommand::new("sync"))?;
    let fork = |first: bool| {
        // Something to freeze: a fork of what has not changed costs less.
        runtime.block_on(sandbox.write("changed", "x"))?;
        // That started the parent again, whose last run is still being cleared away.
        std::thread::sleep(REST);
        let started = Instant::now();
        let child = runtime.block_on(sandbox.fork_one())?;
        if first {
            runtime.block_on(exec(&child, Command::new("/bin/true")))?;
        }
        let time = started.elapsed();
        runtime.block_on(child.close())?;
        Ok(time)
    };
    let cases = vec![
        Case::new(format!("cp -a of {}", files.min(10_000)), || {
            let copy = || host::run(HostCommand::new("cp").arg("-a").arg(&from).arg(&to));
            let time = timed(copy)?;
            std::fs::remove_dir_all(&to)?;
            Ok(time)
        }),
        Case::new("fork", || fork(false)),
        Case::new("fork, exec true", || fork(true)),
        Case::new("exec true in the parent after a fork", || {
            runtime.block_on(sandbox.write("changed", "x"))?;
            let child = runtime.block_on(sandbox.fork_one())?;
            let time = clocked(&runtime, exec(&sandbox, Command::new("/bin/true")))?;
            runtime.block_on(child.close())?;
            Ok(time)
        }),
    ];
    bench.compare(&format!("fork of {files} files"), cases)?;
    bench.close(&sandbox)
}

/// The cost of one more fork, and of a command, after so many generations.
fn chain(bench: &mut Bench, depth: u32) -> Outcome<()> {
    let runtime = Arc::clone(&bench.runtime);
    let mut current = bench.create()?;
    for generation in 1..depth {
        runtime.block_on(current.write(format!("{generation}"), "x"))?;
        let child = runtime.block_on(current.fork_one())?;
        bench.close(&current)?;
        current = child;
    }
    let fresh = bench.create()?;
    let fork_and_run = |of: &Arc<dyn Sandbox>| {
        // Nothing is written, so that the chain does not grow while it is measured.
        let started = Instant::now();
        let child = runtime.block_on(of.fork_one())?;
        runtime.block_on(exec(&child, Command::new("/bin/true")))?;
        let time = started.elapsed();
        runtime.block_on(child.close())?;
        Ok(time)
    };
    let cases = vec![
        Case::new("fork, exec true of a new one", || fork_and_run(&fresh)),
        Case::new("fork, exec true at the end", || fork_and_run(&current)),
    ];
    bench.compare(&format!("chain of {depth}"), cases)?;
    bench.close(&fresh)?;
    bench.close(&current)
}

fn siblings(bench: &mut Bench) -> Outcome<()> {
    let runtime = Arc::clone(&bench.runtime);
    let count = bench.effort.pick(2, 32, 100);
    let sandbox = bench.create()?;
    runtime.block_on(sandbox.write_files(batch("tree", 100, &host::KIB)))?;
    let forks = |side_by_side: bool| {
        let started = Instant::now();
        let forks = match side_by_side {
            true => runtime.block_on(sandbox.fork_many(count))?,
            false => (0..count)
                .map(|_| runtime.block_on(sandbox.fork_one()))
                .collect::<Result<_, _>>()?,
        };
        let time = started.elapsed();
        for fork in forks {
            runtime.block_on(fork.close())?;
        }
        Ok(time)
    };
    let cases = vec![
        Case::new("one after the other", || forks(false)),
        Case::new("side by side", || forks(true)),
    ];
    bench.compare(&format!("{count} forks of one sandbox"), cases)?;
    bench.close(&sandbox)
}
