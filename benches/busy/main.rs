//! Cost of a sandbox where the filesystem below it is busy: each placement of what sandboxes write,
//! with and without limits, while other programs keep the journal of that filesystem at work.
//!
//! `cargo bench --bench busy`; `-- --quick` makes it shorter. Every case has its turn in each
//! round, so that what the machine does besides is in all of them.

#[cfg(target_os = "linux")]
#[path = "../support/mod.rs"]
mod support;
#[cfg(target_os = "linux")]
mod writers;

#[cfg(target_os = "linux")]
mod cases {
    use std::rc::Rc;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use sandbox::local::{LocalConfig, LocalProvider};
    use sandbox::{Command, Provider, Resources, Sandbox, SandboxExt as _, SandboxSpec};
    use serde_json::json;
    use tokio::runtime::Runtime;

    use crate::support::measure::{Budget, Case, Measured, interleaved, timed};
    use crate::support::report::{self, Table, ratio, time};
    use crate::support::{Effort, Outcome, host};
    use crate::writers::Writers;

    /// A provider and what is asked of it.
    struct Kind {
        name: &'static str,
        provider: LocalProvider,
        spec: SandboxSpec,
        /// Waits, off the clock, until what is made ahead of time is there again.
        pause: Duration,
        runtime: Rc<Runtime>,
    }

    impl Kind {
        fn create(&self) -> Outcome<Arc<dyn Sandbox>> {
            std::thread::sleep(self.pause);
            Ok(self
                .runtime
                .block_on(self.provider.create(self.spec.clone()))?)
        }

        fn run(&self, sandbox: &Arc<dyn Sandbox>) -> Outcome<()> {
            let output = self
                .runtime
                .block_on(sandbox.exec(Command::new("/bin/true")))?;
            output.success().then_some(()).ok_or("true failed".into())
        }

        fn close(&self, sandbox: &Arc<dyn Sandbox>) -> Outcome<()> {
            Ok(self.runtime.block_on(sandbox.close())?)
        }

        fn first(&self) -> Outcome<Duration> {
            std::thread::sleep(self.pause);
            let mut made = None;
            let time = timed(|| {
                let created = self.provider.create(self.spec.clone());
                let sandbox = made.insert(self.runtime.block_on(created)?);
                self.run(sandbox)
            });
            made.map_or(Ok(()), |sandbox| self.close(&sandbox))?;
            time
        }

        fn gone(&self) -> Outcome<Duration> {
            let sandbox = self.create()?;
            self.run(&sandbox)?;
            timed(|| self.close(&sandbox))
        }

        fn fork(&self) -> Outcome<Duration> {
            let parent = self.create()?;
            self.runtime.block_on(parent.write("changed", "x"))?;
            let mut made = None;
            let time = timed(|| {
                let fork = made.insert(self.runtime.block_on(parent.fork_one())?);
                self.run(fork)
            });
            for sandbox in made.iter().chain([&parent]) {
                self.close(sandbox)?;
            }
            time
        }

        /// The first command in the parent right after a fork.
        fn after_fork(&self) -> Outcome<Duration> {
            let parent = self.create()?;
            self.runtime.block_on(parent.write("changed", "x"))?;
            let fork = self.runtime.block_on(parent.fork_one())?;
            let time = timed(|| self.run(&parent));
            for sandbox in [&fork, &parent] {
                self.close(sandbox)?;
            }
            time
        }
    }

    fn kinds(dir: &std::path::Path, memory: &std::path::Path) -> Outcome<Vec<Kind>> {
        let runtime = Rc::new(Runtime::new()?);
        let kind = |name, config: LocalConfig, resources: Resources, pause| -> Outcome<Kind> {
            Ok(Kind {
                name,
                provider: LocalProvider::new(config)?,
                spec: SandboxSpec::new().resources(resources),
                pause: Duration::from_millis(pause),
                runtime: Rc::clone(&runtime),
            })
        };
        let on_disk = || LocalConfig::default().state_dir(dir.join("state"));
        let none = Resources::new;
        let limited = || Resources::new().memory(512 << 20).pids(128);
        let mut kinds = vec![
            kind("on disk", on_disk(), none(), 0)?,
            kind(
                "state_dir on tmpfs",
                LocalConfig::default().state_dir(memory.join("state")),
                none(),
                0,
            )?,
            kind(
                "on disk, writes on a tmpfs of 64 MiB",
                on_disk(),
                none().disk(64 << 20),
                0,
            )?,
            kind("on disk, prepared", on_disk().prepared(2), none(), 30)?,
        ];
        let with_limits = kind(
            "on disk, memory and processes limited",
            on_disk(),
            limited(),
            0,
        )?;
        // Not every host grants control groups.
        if let Ok(sandbox) = with_limits.create() {
            with_limits.close(&sandbox)?;
            kinds.push(with_limits);
        }
        Ok(kinds)
    }

    #[allow(clippy::print_stdout)]
    pub(crate) fn all() -> Outcome<()> {
        let effort = Effort::from_args();
        let scratch = host::scratch()?;
        let memory = tempfile::Builder::new()
            .prefix("sandbox-bench-")
            .tempdir_in("/dev/shm")?;
        let memory = sandbox_testkit::Scratch::of(memory.keep());
        let kinds = kinds(scratch.path(), memory.path())?;
        let mut rows = Vec::new();
        for busy in [false, true] {
            let writers = busy.then(|| Writers::start(&scratch.path().join("writers"), 2));
            let writers = writers.transpose()?;
            println!(
                "\n## {}\n\n{}.\n",
                if busy {
                    "The journal kept busy"
                } else {
                    "Nothing else on the disk by us"
                },
                host::machine()
            );
            for work in [
                "create, first command",
                "close",
                "fork, first command",
                "command after a fork",
            ] {
                let mut cases = vec![Case::new("spawn of true", || {
                    timed(|| host::run(&mut std::process::Command::new("/bin/true")))
                })];
                for kind in &kinds {
                    cases.push(Case::new(kind.name, move || match work {
                        "close" => kind.gone(),
                        "fork, first command" => kind.fork(),
                        "command after a fork" => kind.after_fork(),
                        _ => kind.first(),
                    }));
                }
                let started = Instant::now();
                let measured = interleaved(effort, Budget::of(effort, 41, 20), cases);
                table(work, &measured);
                rows.push(json!({
                    "busy": busy,
                    "work": work,
                    "seconds": started.elapsed().as_secs_f64(),
                    "cases": measured.iter().map(|case| json!({
                        "name": case.name,
                        "us": case.times.iter().map(Duration::as_micros).collect::<Vec<_>>(),
                        "error": case.error,
                    })).collect::<Vec<_>>(),
                }));
            }
            if let Some(writers) = writers {
                println!(
                    "{} files were written and synced meanwhile.",
                    writers.stop()?
                );
            }
        }
        report::save(
            "busy",
            &json!({ "machine": host::machine(), "groups": rows }),
        )
    }

    #[allow(clippy::print_stdout)]
    fn table(work: &str, measured: &[Measured]) {
        let mut table = Table::new([work, "Median", "p95", "By the spawn", "By the second line"]);
        let by = |case: &Measured, place: usize| {
            let other = measured.get(place)?;
            case.ratio_to(other).map(ratio)
        };
        for case in measured {
            let time = |found: Option<Duration>| found.map_or_else(|| "–".into(), time);
            let name = match &case.error {
                Some(error) => format!("{}: {error}", case.name),
                None => case.name.clone(),
            };
            table.row(vec![
                name,
                time(case.median()),
                time(case.p95()),
                by(case, 0).unwrap_or_default(),
                by(case, 1).unwrap_or_default(),
            ]);
        }
        println!("{table}");
    }
}

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    match cases::all() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            #[allow(clippy::print_stderr)]
            {
                eprintln!("busy: {error}");
            }
            std::process::ExitCode::FAILURE
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {}
