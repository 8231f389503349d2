//! Creation: from nothing to the first command and back; with a small host and a big one; one
//! sandbox and many at once.

use std::cell::Cell;
use std::fs::{self, Permissions};
use std::hint::black_box;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use sandbox::local::{LocalConfig, LocalProvider};
use sandbox::{Command, Provider, Sandbox, SandboxSpec};

use crate::bench::{Bench, clocked, exec, spawn};
use crate::support::measure::{Case, timed};
use crate::support::{Outcome, host};

pub(crate) fn all(bench: &mut Bench) -> Outcome<()> {
    host_of(bench, "")?;
    let big = bench.effort.pick(0, 1 << 30, 1 << 30);
    if big > 0 {
        // Every page is written, so that it is there.
        let memory = black_box(vec![1_u8; big]);
        host_of(bench, ", host of 1 GiB")?;
        drop(memory);
    }
    first(bench)?;
    lasting(bench)?;
    at_once(bench)
}

/// The first sandbox of a provider, as a program has it that makes one and ends: after another provider
/// went, and where none was before.
fn first(bench: &mut Bench) -> Outcome<()> {
    let runtime = Arc::clone(&bench.runtime);
    let scratch = host::scratch()?;
    // Root's guests must get through.
    fs::set_permissions(scratch.path(), Permissions::from_mode(0o711))?;
    let one = |config: LocalConfig| {
        timed(|| {
            let provider = LocalProvider::new(config)?;
            let sandbox = runtime.block_on(provider.create(SandboxSpec::new()))?;
            runtime.block_on(exec(&sandbox, Command::new("/bin/true")))?;
            Ok(runtime.block_on(sandbox.close())?)
        })
    };
    let (after, alone) = (scratch.path().join("after"), Cell::new(0_u32));
    let cases = vec![
        Case::new("tokio spawn of true", || spawn(&runtime, "/bin/true", &[])),
        Case::new("provider, create, exec true, close", || {
            let time = one(LocalConfig::default().state_dir(&after))?;
            // What one program leaves to the next is there once it has ended.
            std::thread::sleep(Duration::from_millis(30));
            Ok(time)
        }),
        Case::new("the same, none before", || {
            alone.set(alone.get() + 1);
            let dir = scratch.path().join(alone.get().to_string());
            one(LocalConfig::default().state_dir(dir))
        }),
    ];
    bench.compare("first sandbox", cases)
}

/// A sandbox that lasts: made, and started again when nothing has it open.
fn lasting(bench: &mut Bench) -> Outcome<()> {
    let (runtime, provider) = (Arc::clone(&bench.runtime), bench.provider.clone());
    let create = |lasting: bool| {
        let spec = SandboxSpec::new().lasting(lasting);
        runtime.block_on(async {
            let sandbox = provider.create(spec).await?;
            exec(&sandbox, Command::new("/bin/true")).await?;
            Outcome::Ok(sandbox)
        })
    };
    let close = |made: Option<Arc<dyn Sandbox>>| -> Outcome<()> {
        Ok(made.map_or(Ok(()), |sandbox| runtime.block_on(sandbox.close()))?)
    };
    let made = |lasting: bool| {
        let mut made = None;
        let time = timed(|| {
            made = Some(create(lasting)?);
            Ok(())
        })?;
        close(made)?;
        Ok(time)
    };
    let cases = vec![
        Case::new("create, exec true", || made(false)),
        Case::new("the same, to last", || made(true)),
        Case::new("attach to one that is stopped, exec true", || {
            let sandbox = create(true)?;
            let id = sandbox.info().id;
            drop(sandbox);
            let mut made = None;
            // The time to let go of it is part of this.
            let time = timed(|| {
                let sandbox = made.insert(runtime.block_on(provider.attach(&id))?);
                Ok(runtime.block_on(exec(sandbox, Command::new("/bin/true")))?)
            })?;
            close(made)?;
            Ok(time)
        }),
    ];
    bench.compare("lasting", cases)
}

fn host_of(bench: &mut Bench, host: &str) -> Outcome<()> {
    let (runtime, provider) = (Arc::clone(&bench.runtime), bench.provider.clone());
    let prepared = LocalProvider::new(LocalConfig::default().prepared(4))?;
    let create = || runtime.block_on(provider.create(SandboxSpec::new()));
    let first = |sandbox: &Arc<dyn Sandbox>| {
        let sandbox = Arc::clone(sandbox);
        async move { exec(&sandbox, Command::new("/bin/true")).await }
    };
    let cases = vec![
        Case::new("tokio spawn of true", || spawn(&runtime, "/bin/true", &[])),
        Case::new("create, exec true", || {
            let mut made = None;
            let time = timed(|| Ok(runtime.block_on(first(made.insert(create()?)))?))?;
            if let Some(sandbox) = made {
                runtime.block_on(sandbox.close())?;
            }
            Ok(time)
        }),
        Case::new("create, exec true, close", || {
            timed(|| {
                let sandbox = create()?;
                runtime.block_on(first(&sandbox))?;
                Ok(runtime.block_on(sandbox.close())?)
            })
        }),
    ];
    bench.compare(&format!("create{host}"), cases)?;
    let cases = vec![
        Case::new("tokio spawn of true", || spawn(&runtime, "/bin/true", &[])),
        Case::new("close", || {
            let sandbox = create()?;
            clocked(&runtime, sandbox.close())
        }),
    ];
    let little = Duration::from_millis(300);
    bench.compare_within(&format!("close{host}"), little, cases)?;
    let cases = vec![
        Case::new("tokio spawn of true", || spawn(&runtime, "/bin/true", &[])),
        Case::new("create, exec true, close; prepared ahead of time", || {
            // Time for the background to make good what the round before used up.
            std::thread::sleep(Duration::from_millis(30));
            timed(|| {
                let sandbox = runtime.block_on(prepared.create(SandboxSpec::new()))?;
                runtime.block_on(first(&sandbox))?;
                Ok(runtime.block_on(sandbox.close())?)
            })
        }),
    ];
    bench.compare_within(&format!("create, prepared{host}"), little, cases)?;
    let sandbox = create()?;
    let cases = vec![
        Case::new("tokio spawn of true", || spawn(&runtime, "/bin/true", &[])),
        Case::new("exec true", || clocked(&runtime, first(&sandbox))),
    ];
    bench.compare(&format!("exec true{host}"), cases)?;
    bench.close(&sandbox)
}

/// Each of so many tasks creates a sandbox, runs `true` in it and closes it; the baseline is as
/// many spawns at once. What two cores give over one is the first line by half of the second.
fn at_once(bench: &mut Bench) -> Outcome<()> {
    let counts: &[usize] = bench.effort.pick(&[2], &[1, 2, 8], &[1, 2, 8, 64]);
    let (runtime, provider) = (Arc::clone(&bench.runtime), bench.provider.clone());
    for count in counts {
        let sandboxes = (0..*count)
            .map(|_| bench.create())
            .collect::<Outcome<Vec<_>>>()?;
        let together = |each: &dyn Fn(usize) -> tokio::task::JoinHandle<sandbox::Result<()>>| {
            timed(|| {
                let tasks: Vec<_> = {
                    let _entered = runtime.enter();
                    (0..*count).map(each).collect()
                };
                for task in tasks {
                    runtime.block_on(task)??;
                }
                Ok(())
            })
        };
        let cases = vec![
            Case::new("tokio spawn of true in each", || {
                together(&|_| {
                    tokio::spawn(async {
                        let run = tokio::process::Command::new("/bin/true").output().await;
                        run.map(drop)
                            .map_err(|e| sandbox::Error::from_io(e, sandbox::Operation::Exec))
                    })
                })
            }),
            Case::new("create, exec true, close", || {
                together(&|_| {
                    let provider = provider.clone();
                    tokio::spawn(async move {
                        let sandbox = provider.create(SandboxSpec::new()).await?;
                        exec(&sandbox, Command::new("/bin/true")).await?;
                        sandbox.close().await
                    })
                })
            }),
            Case::new("exec true in a running one each", || {
                together(&|place| {
                    let sandbox = Arc::clone(&sandboxes[place]);
                    tokio::spawn(async move { exec(&sandbox, Command::new("/bin/true")).await })
                })
            }),
        ];
        bench.compare(&format!("{count} at once"), cases)?;
        for sandbox in sandboxes {
            bench.close(&sandbox)?;
        }
    }
    Ok(())
}
