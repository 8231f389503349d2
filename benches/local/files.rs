//! Files: batches of many sizes, reading, listing; against the same on the host's filesystem.

use std::cell::Cell;
use std::fs;
use std::sync::Arc;

use sandbox::{GuestPath, Provider, ReadOptions, SandboxExt, SandboxSpec};

use crate::bench::{Bench, batch, clocked};
use crate::support::measure::{Case, timed};
use crate::support::{Outcome, host};

static MIB: [u8; 1 << 20] = [b'y'; 1 << 20];

pub(crate) fn all(bench: &mut Bench) -> Outcome<()> {
    let many: &[u32] = bench
        .effort
        .pick(&[1, 10], &[1, 100, 1_000], &[1, 100, 1_000, 10_000]);
    for files in many {
        write(
            bench,
            &format!("write_files of {files} × 1 KiB"),
            *files,
            &host::KIB,
        )?;
    }
    let large: &[u32] = bench.effort.pick(&[1], &[1, 10], &[1, 100]);
    for files in large {
        write(
            bench,
            &format!("write_files of {files} × 1 MiB"),
            *files,
            &MIB,
        )?;
    }
    read(bench)?;
    list(bench)
}

fn write(bench: &mut Bench, name: &str, files: u32, content: &'static [u8]) -> Outcome<()> {
    let runtime = Arc::clone(&bench.runtime);
    let provider = bench.provider.clone();
    let scratch = host::scratch()?;
    let place = Cell::new(0_u64);
    let cases = vec![
        Case::new("plain writes", || {
            place.set(place.get() + 1);
            let dir = scratch.path().join(place.get().to_string());
            let time = timed(|| {
                for file in 0..files {
                    let below = dir.join((file / 100).to_string());
                    if file % 100 == 0 {
                        fs::create_dir_all(&below)?;
                    }
                    fs::write(below.join((file % 100).to_string()), content)?;
                }
                Ok(())
            })?;
            fs::remove_dir_all(dir)?;
            Ok(time)
        }),
        // In a new sandbox, as the others are in a new directory: what an earlier round removed
        // would slow the filesystem down.
        Case::new("write_files", || {
            let sandbox = runtime.block_on(provider.create(SandboxSpec::new()))?;
            let batch = batch("files", files, content);
            let time = clocked(&runtime, sandbox.write_files(batch))?;
            runtime.block_on(sandbox.close())?;
            Ok(time)
        }),
    ];
    bench.compare(name, cases)
}

fn read(bench: &mut Bench) -> Outcome<()> {
    let runtime = Arc::clone(&bench.runtime);
    let sandbox = bench.create()?;
    let scratch = host::scratch()?;
    for (name, content) in [("1 KiB", &host::KIB[..]), ("1 MiB", &MIB[..])] {
        let file = scratch.path().join("file");
        fs::write(&file, content)?;
        runtime.block_on(sandbox.write("file", content))?;
        let cases = vec![
            Case::new("std's read", || timed(|| Ok(fs::read(&file)?))),
            Case::new("read_file", || {
                let options = ReadOptions::new();
                clocked(&runtime, sandbox.read_file(&"file".into(), options))
            }),
        ];
        bench.compare(&format!("read of {name}"), cases)?;
    }
    bench.close(&sandbox)
}

fn list(bench: &mut Bench) -> Outcome<()> {
    let runtime = Arc::clone(&bench.runtime);
    let sandbox = bench.create()?;
    let scratch = host::scratch()?;
    let entries = bench.effort.pick(100, 10_000, 10_000);
    let dir = scratch.path().join("many");
    fs::create_dir(&dir)?;
    let mut batch = sandbox::FileBatch::new();
    for entry in 0..entries {
        fs::write(dir.join(entry.to_string()), "")?;
        batch = batch.file(format!("many/{entry}"), "");
    }
    runtime.block_on(sandbox.write_files(batch))?;
    let many = GuestPath::from("many");
    let cases = vec![
        Case::new("std's read_dir with metadata", || {
            timed(|| {
                for entry in fs::read_dir(&dir)? {
                    entry?.metadata()?;
                }
                Ok(())
            })
        }),
        Case::new("list_dir", || clocked(&runtime, sandbox.list(&many))),
    ];
    bench.compare(&format!("list of {entries} entries"), cases)?;
    bench.close(&sandbox)
}
