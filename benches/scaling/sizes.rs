//! Against the size of what is worked on: layers, files of a tree, files of a batch, output.

use std::sync::Arc;
use std::time::Instant;

use sandbox::{Command, FileBatch, Sandbox, SandboxExt};
use tokio::io::AsyncReadExt;

use super::series::{Series, Setup};
use crate::support::measure::timed;
use crate::support::{Outcome, host};

fn files(dir: &str, count: u32) -> FileBatch {
    (0..count).fold(FileBatch::new(), |batch, file| {
        let path = format!("{dir}/{}/{}", file / 100, file % 100);
        batch.file(path, &host::KIB[..])
    })
}

/// Forks, changed before each, are merged when there are many: what a fork and a command cost in
/// the n-th generation.
pub(crate) fn layers(setup: &Setup<'_>) -> Outcome<Vec<Series>> {
    const AGAINST: &str = "generation";
    let depth = setup.effort.pick(5, 60, 200);
    let mut fork = Series::new("fork of a changed sandbox", AGAINST, "ms");
    let mut exec = Series::new("exec of ls in the child", AGAINST, "ms");
    let mut current = setup.create()?;
    for generation in 1..=depth {
        let name = format!("generation-{generation}");
        setup.runtime.block_on(current.write(name, "x"))?;
        let started = Instant::now();
        let child = setup.runtime.block_on(current.fork_one())?;
        fork.time(f64::from(generation), started.elapsed());
        setup.close(&current)?;
        current = child;
        if generation % 5 == 0 {
            let ls = || {
                let command = Command::new("/bin/ls");
                timed(|| Ok(setup.runtime.block_on(current.exec(command))?))
            };
            exec.time(f64::from(generation), setup.median(5, ls)?);
        }
    }
    setup.close(&current)?;
    let slowest = fork.points.iter().map(|point| point.1).fold(0.0, f64::max);
    fork.note = Some(format!("Slowest fork of the chain: {slowest:.1} ms."));
    Ok(vec![fork, exec])
}

pub(crate) fn tree(setup: &Setup<'_>) -> Outcome<Vec<Series>> {
    let sizes: &[u32] = setup.effort.pick(
        &[100, 200],
        &[100, 1_000, 10_000],
        &[100, 1_000, 10_000, 30_000, 100_000],
    );
    let mut fork = Series::new("fork, then exec of true", "files in the sandbox", "ms");
    let sandbox = setup.create()?;
    let mut there = 0;
    for (step, size) in sizes.iter().enumerate() {
        setup
            .runtime
            .block_on(sandbox.write_files(files(&step.to_string(), size - there)))?;
        there = *size;
        // The first fork freezes all that was written; the next ones find one file changed.
        let once = |fork: &Arc<dyn Sandbox>| setup.close(fork);
        once(&setup.runtime.block_on(sandbox.fork_one())?)?;
        let round = || {
            setup.runtime.block_on(sandbox.write("changed", "x"))?;
            let started = Instant::now();
            let child = setup.runtime.block_on(sandbox.fork_one())?;
            setup.exec_true(&child)?;
            let time = started.elapsed();
            setup.close(&child)?;
            Ok(time)
        };
        fork.time(f64::from(*size), setup.median(15, round)?);
    }
    setup.close(&sandbox)?;
    Ok(vec![fork])
}

pub(crate) fn batch(setup: &Setup<'_>) -> Outcome<Vec<Series>> {
    const AGAINST: &str = "files of 1 KiB in a batch";
    let sizes: &[u32] = setup.effort.pick(
        &[1, 10],
        &[1, 10, 100, 1_000],
        &[1, 10, 100, 300, 1_000, 3_000, 10_000],
    );
    let mut ours = Series::new("write_files", AGAINST, "ms");
    let mut plain = Series::new("plain writes on the host", AGAINST, "ms");
    let scratch = host::scratch()?;
    let mut number = 0;
    for size in sizes {
        let rounds = if *size > 1_000 { 3 } else { 9 };
        let round = || {
            // In a new one: what a round removes would slow the next one down.
            let sandbox = setup.create()?;
            let batch = files("batch", *size);
            let time = timed(|| Ok(setup.runtime.block_on(sandbox.write_files(batch))?))?;
            setup.close(&sandbox)?;
            Ok(time)
        };
        ours.time(f64::from(*size), setup.median(rounds, round)?);
        let round = || {
            number += 1;
            let dir = scratch.path().join(number.to_string());
            let time = timed(|| host::tree(&dir, (*size).into()))?;
            std::fs::remove_dir_all(dir)?;
            Ok(time)
        };
        plain.time(f64::from(*size), setup.median(rounds, round)?);
    }
    Ok(vec![ours, plain])
}

pub(crate) fn output(setup: &Setup<'_>) -> Outcome<Vec<Series>> {
    const AGAINST: &str = "MiB on stdout";
    let sizes: &[u32] = setup
        .effort
        .pick(&[1], &[1, 16, 64], &[1, 4, 16, 64, 256, 1_024]);
    let mut kept = Series::new("exec that keeps the output", AGAINST, "ms");
    let mut streamed = Series::new("spawn that streams it", AGAINST, "ms");
    let sandbox = setup.create()?;
    for size in sizes {
        let bytes = u64::from(*size) << 20;
        let command = || {
            let command = Command::new("head").arg("-c").arg(bytes.to_string());
            command.arg("/dev/zero").output_limit(bytes)
        };
        // What is kept is in memory.
        if *size <= 256 {
            let round = || {
                let mut got = 0;
                let time = timed(|| {
                    let output = setup.runtime.block_on(sandbox.exec(command()))?;
                    got = output.stdout.bytes.len() as u64;
                    Ok(())
                })?;
                if got == bytes {
                    Ok(time)
                } else {
                    Err("output is missing".into())
                }
            };
            kept.time(f64::from(*size), setup.median(5, round)?);
        }
        let round = || timed(|| setup.runtime.block_on(drain(&sandbox, command(), bytes)));
        streamed.time(f64::from(*size), setup.median(5, round)?);
    }
    setup.close(&sandbox)?;
    Ok(vec![kept, streamed])
}

async fn drain(sandbox: &Arc<dyn Sandbox>, command: Command, bytes: u64) -> Outcome<()> {
    let mut process = sandbox.spawn(command).await?;
    let mut stdout = process.stdout.take().ok_or("no stdout")?;
    let mut buffer = vec![0; 256 << 10];
    let mut got = 0;
    loop {
        match stdout.read(&mut buffer).await? {
            0 => break,
            read => got += read as u64,
        }
    }
    process.wait().await?;
    if got == bytes {
        Ok(())
    } else {
        Err("output is missing".into())
    }
}
