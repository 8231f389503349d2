//! What the local backend costs, each group beside its baseline in the same run.
//!
//! `cargo bench --bench local`; `SANDBOX_BENCH_DIR=/dev/shm` puts the raw writes of the baseline
//! elsewhere than in the temporary directory. It must never compare across runs: absolute times
//! move between machines, ratios hold.

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;
    use std::path::PathBuf;
    use std::process::Stdio;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use criterion::{BenchmarkId, Criterion, Throughput};
    use sandbox::local::LocalProvider;
    use sandbox::{
        Command, FileBatch, ForkOptions, Provider, Result, Sandbox, SandboxExt, SandboxSpec,
    };
    use tokio::runtime::Runtime;

    const KIB: [u8; 1024] = [b'x'; 1024];

    pub(super) fn all(c: &mut Criterion) -> Result<()> {
        let Ok(runtime) = Runtime::new() else {
            return Err(sandbox::Error::new(
                sandbox::ErrorKind::Other,
                sandbox::Operation::Connect,
            )
            .with_message("no runtime"));
        };
        let provider = LocalProvider::new()?;
        create(c, &runtime, &provider)?;
        exec(c, &runtime, &provider)?;
        fork(c, &runtime, &provider)?;
        write_files(c, &runtime, &provider)
    }

    fn sandbox(runtime: &Runtime, provider: &LocalProvider) -> Result<Arc<dyn Sandbox>> {
        runtime.block_on(provider.create(SandboxSpec::new()))
    }

    /// Times `count` rounds; the first error ends them and is kept, because criterion has no way
    /// to fail.
    struct Rounds(Option<sandbox::Error>);

    impl Rounds {
        fn time<F: Future<Output = Result<Duration>>>(
            &mut self,
            runtime: &Runtime,
            count: u64,
            mut round: impl FnMut() -> F,
        ) -> Duration {
            let mut total = Duration::ZERO;
            for _ in 0..count {
                if self.0.is_some() {
                    break;
                }
                match runtime.block_on(round()) {
                    Ok(time) => total += time,
                    Err(error) => self.0 = Some(error),
                }
            }
            // Criterion divides by it.
            total.max(Duration::from_nanos(1))
        }

        fn finish(self) -> Result<()> {
            self.0.map_or(Ok(()), Err)
        }
    }

    async fn timed<T>(work: impl Future<Output = Result<T>>) -> Result<Duration> {
        let started = Instant::now();
        work.await.map(|_| started.elapsed())
    }

    async fn plain(program: &str, args: &[&str]) -> Result<Duration> {
        timed(async {
            tokio::process::Command::new(program)
                .args(args)
                .stdin(Stdio::null())
                .output()
                .await
                .map_err(|e| sandbox::Error::from_io(e, sandbox::Operation::Exec))
        })
        .await
    }

    fn create(c: &mut Criterion, runtime: &Runtime, provider: &LocalProvider) -> Result<()> {
        let mut rounds = Rounds(None);
        let mut group = c.benchmark_group("create");
        group.bench_function("baseline: tokio spawn of true", |b| {
            b.iter_custom(|n| rounds.time(runtime, n, || plain("/bin/true", &[])));
        });
        group.bench_function("create, exec true, close", |b| {
            b.iter_custom(|n| {
                rounds.time(runtime, n, || {
                    timed(async {
                        let sandbox = provider.create(SandboxSpec::new()).await?;
                        sandbox.exec(Command::new("/bin/true")).await?;
                        sandbox.close().await
                    })
                })
            });
        });
        group.finish();
        rounds.finish()
    }

    fn exec(c: &mut Criterion, runtime: &Runtime, provider: &LocalProvider) -> Result<()> {
        let mut rounds = Rounds(None);
        let sandbox = sandbox(runtime, provider)?;
        for (name, program, args) in [
            ("exec true", "/bin/true", &[][..]),
            ("exec sh", "/bin/sh", &["-c", "echo hello"][..]),
        ] {
            let mut group = c.benchmark_group(name);
            group.bench_function("baseline: tokio spawn", |b| {
                b.iter_custom(|n| rounds.time(runtime, n, || plain(program, args)));
            });
            group.bench_function("sandbox", |b| {
                b.iter_custom(|n| {
                    rounds.time(runtime, n, || {
                        timed(sandbox.exec(Command::new(program).args(args)))
                    })
                });
            });
            group.finish();
        }
        runtime.block_on(sandbox.close())?;
        rounds.finish()
    }

    /// Closing the fork is not timed: it is off the path of whoever waits for a fork.
    fn fork(c: &mut Criterion, runtime: &Runtime, provider: &LocalProvider) -> Result<()> {
        let mut rounds = Rounds(None);
        let mut group = c.benchmark_group("fork");
        group.sample_size(20);
        // Under `cargo test` every bench runs once, unoptimised: a smaller tree will do.
        let many = if cfg!(debug_assertions) {
            2_000
        } else {
            100_000
        };
        for files in [1_000, many] {
            let sandbox = sandbox(runtime, provider)?;
            runtime.block_on(sandbox.write_files(batch(files, 0)))?;
            let host = scratch(1_000)?;
            group.bench_function(BenchmarkId::new("baseline: copy of 1,000", files), |b| {
                b.iter_custom(|n| {
                    rounds.time(runtime, n, || {
                        let (from, to) = (host.path().join("from"), host.path().join("to"));
                        async move {
                            let started = Instant::now();
                            copy(&from, &to).map_err(io)?;
                            let time = started.elapsed();
                            fs::remove_dir_all(&to).map_err(io)?;
                            Ok(time)
                        }
                    })
                });
            });
            group.bench_function(BenchmarkId::new("fork", files), |b| {
                b.iter_custom(|n| {
                    rounds.time(runtime, n, || async {
                        // Something to freeze: a fork of what has not changed costs less.
                        sandbox.write("changed", "x").await?;
                        let started = Instant::now();
                        let fork = sandbox.fork(ForkOptions::default()).await?;
                        let time = started.elapsed();
                        fork.close().await?;
                        Ok(time)
                    })
                });
            });
            group.bench_function(BenchmarkId::new("fork and exec true", files), |b| {
                b.iter_custom(|n| {
                    rounds.time(runtime, n, || async {
                        // Something to freeze: a fork of what has not changed costs less.
                        sandbox.write("changed", "x").await?;
                        let started = Instant::now();
                        let fork = sandbox.fork(ForkOptions::default()).await?;
                        fork.exec(Command::new("/bin/true")).await?;
                        let time = started.elapsed();
                        fork.close().await?;
                        Ok(time)
                    })
                });
            });
            runtime.block_on(sandbox.close())?;
        }
        group.finish();
        rounds.finish()
    }

    fn write_files(c: &mut Criterion, runtime: &Runtime, provider: &LocalProvider) -> Result<()> {
        let mut rounds = Rounds(None);
        let sandbox = sandbox(runtime, provider)?;
        let mut group = c.benchmark_group("write_files of 1 KiB");
        group.sample_size(20);
        for files in [1, 1_000] {
            group.throughput(Throughput::Elements(files));
            let host = scratch(0)?;
            let mut place = 0_u64;
            group.bench_function(BenchmarkId::new("baseline: raw writes", files), |b| {
                b.iter_custom(|n| {
                    rounds.time(runtime, n, || {
                        place += 1;
                        let dir = host.path().join(place.to_string());
                        async move {
                            let started = Instant::now();
                            fs::create_dir(&dir).map_err(io)?;
                            for file in 0..files {
                                fs::write(dir.join(file.to_string()), KIB).map_err(io)?;
                            }
                            let time = started.elapsed();
                            fs::remove_dir_all(&dir).map_err(io)?;
                            Ok(time)
                        }
                    })
                });
            });
            group.bench_function(BenchmarkId::new("write_files", files), |b| {
                b.iter_custom(|n| {
                    rounds.time(runtime, n, || {
                        place += 1;
                        let (batch, sandbox) = (batch(files, place), Arc::clone(&sandbox));
                        async move {
                            let time = timed(sandbox.write_files(batch)).await?;
                            sandbox.remove_all(place.to_string()).await?;
                            Ok(time)
                        }
                    })
                });
            });
        }
        group.finish();
        runtime.block_on(sandbox.close())?;
        rounds.finish()
    }

    /// This many files of 1 KiB in a directory of this number.
    fn batch(files: u64, place: u64) -> FileBatch {
        (0..files).fold(FileBatch::new(), |batch, file| {
            batch.file(format!("{place}/{file}"), &KIB[..])
        })
    }

    /// A directory of the host with this many files of 1 KiB in `from`.
    fn scratch(files: u64) -> Result<tempfile::TempDir> {
        let base = std::env::var_os("SANDBOX_BENCH_DIR").map(PathBuf::from);
        let dir = tempfile::tempdir_in(base.unwrap_or_else(std::env::temp_dir)).map_err(io)?;
        let from = dir.path().join("from");
        fs::create_dir(&from).map_err(io)?;
        for file in 0..files {
            fs::write(from.join(file.to_string()), KIB).map_err(io)?;
        }
        Ok(dir)
    }

    fn copy(from: &std::path::Path, to: &std::path::Path) -> std::io::Result<()> {
        fs::create_dir(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
        Ok(())
    }

    fn io(error: std::io::Error) -> sandbox::Error {
        sandbox::Error::from_io(error, sandbox::Operation::WriteFiles)
    }
}

#[cfg(target_os = "linux")]
fn main() -> sandbox::Result<()> {
    let mut criterion = criterion::Criterion::default().configure_from_args();
    linux::all(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn main() {}
