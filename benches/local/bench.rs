//! Groups of ways to do the same work, the first of which is the baseline.

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::Criterion;
use sandbox::local::{LocalConfig, LocalProvider};
use sandbox::{Command, FileBatch, Provider, Sandbox, SandboxSpec};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::goals;
use crate::support::measure::{Case, Measured};
use crate::support::report::{self, Table, ratio, time};
use crate::support::{Effort, Outcome, host};

/// The run.
pub(crate) struct Bench {
    criterion: Criterion,
    pub(crate) effort: Effort,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) provider: LocalProvider,
    groups: Vec<(String, Vec<Measured>)>,
}

impl Bench {
    pub(crate) fn new(criterion: Criterion) -> Outcome<Self> {
        Ok(Self {
            criterion,
            effort: Effort::from_args(),
            runtime: Arc::new(Runtime::new()?),
            provider: LocalProvider::new(LocalConfig::default())?,
            groups: Vec::new(),
        })
    }

    pub(crate) fn create(&self) -> Outcome<Arc<dyn Sandbox>> {
        Ok(self
            .runtime
            .block_on(self.provider.create(SandboxSpec::new()))?)
    }

    pub(crate) fn close(&self, sandbox: &Arc<dyn Sandbox>) -> Outcome<()> {
        Ok(self.runtime.block_on(sandbox.close())?)
    }

    /// Measures a group. Each case is given one sample after the other, as criterion does.
    pub(crate) fn compare(&mut self, name: &str, cases: Vec<Case<'_>>) -> Outcome<()> {
        self.compare_within(name, Duration::from_secs(2), cases)
    }

    /// Compares with so much time for a case: less for one that is short beside what it needs
    /// before, which criterion does not reckon with.
    pub(crate) fn compare_within(
        &mut self,
        name: &str,
        within: Duration,
        cases: Vec<Case<'_>>,
    ) -> Outcome<()> {
        let mut group = self.criterion.benchmark_group(name);
        group.measurement_time(within);
        let mut all = Vec::new();
        for mut case in cases {
            let mut measured = Measured {
                name: case.name,
                times: Vec::new(),
                error: None,
            };
            group.bench_function(&measured.name, |bencher| {
                bencher.iter_custom(|rounds| {
                    let mut total = Duration::ZERO;
                    for _ in 0..rounds {
                        // Criterion has no way to fail: the first error ends it all below.
                        if measured.error.is_some() {
                            break;
                        }
                        match (case.round)() {
                            Ok(time) => {
                                total += time;
                                measured.times.push(time);
                            }
                            Err(error) => measured.error = Some(error.to_string()),
                        }
                    }
                    // Criterion divides by it.
                    total.max(Duration::from_nanos(1))
                });
            });
            if let Some(error) = measured.error {
                return Err(format!("{name}, {}: {error}", measured.name).into());
            }
            all.push(measured);
        }
        group.finish();
        self.groups.push((name.to_owned(), all));
        Ok(())
    }

    /// Criterion's summary, the table, the JSON.
    #[allow(clippy::print_stdout)]
    pub(crate) fn finish(self) -> Outcome<()> {
        self.criterion.final_summary();
        let machine = host::machine();
        println!("\n## The local backend beside its baselines\n\n{machine}.\n");
        let mut table = Table::new(["", "", "Median", "p95", "By the baseline"]);
        let mut rows = Vec::new();
        for (group, measured) in &self.groups {
            // Those that a filter left out have no times.
            let baseline = measured.first().and_then(Measured::median);
            for (place, case) in measured.iter().enumerate() {
                let (Some(median), Some(p95)) = (case.median(), case.p95()) else {
                    continue;
                };
                let by = baseline
                    .filter(|_| place > 0)
                    .map(|baseline| median.as_secs_f64() / baseline.as_secs_f64());
                table.row(vec![
                    group.clone(),
                    case.name.clone(),
                    time(median),
                    time(p95),
                    by.map(ratio).unwrap_or_default(),
                ]);
                rows.push(json!({
                    "group": group,
                    "name": case.name,
                    "median_us": median.as_secs_f64() * 1e6,
                    "p95_us": p95.as_secs_f64() * 1e6,
                    "rounds": case.times.len(),
                    "by_baseline": by,
                }));
            }
        }
        println!("{table}");
        for line in goals::lines(&self.groups) {
            println!("- {line}");
        }
        report::save("local", &json!({"machine": machine, "rows": rows}))
    }
}

/// Measures how long a future takes on the runtime.
pub(crate) fn clocked<T>(
    runtime: &Runtime,
    work: impl Future<Output = sandbox::Result<T>>,
) -> Outcome<Duration> {
    let started = Instant::now();
    runtime.block_on(work)?;
    Ok(started.elapsed())
}

/// Tokio's own spawn, with the output kept: what `exec` is compared with.
pub(crate) fn spawn(runtime: &Runtime, program: &str, args: &[&str]) -> Outcome<Duration> {
    let started = Instant::now();
    let output = runtime.block_on(async {
        tokio::process::Command::new(program)
            .args(args)
            .stdin(std::process::Stdio::null())
            .output()
            .await
    })?;
    let time = started.elapsed();
    match output.status.success() {
        true => Ok(time),
        false => Err(format!("{program}: {}", output.status).into()),
    }
}

/// `exec`, which must succeed.
pub(crate) async fn exec(sandbox: &Arc<dyn Sandbox>, command: Command) -> sandbox::Result<()> {
    let output = sandbox.exec(command).await?;
    if output.success() {
        return Ok(());
    }
    let said = output.stderr.to_string_lossy().into_owned();
    Err(
        sandbox::Error::new(sandbox::ErrorKind::Other, sandbox::Operation::Exec)
            .with_message(format!("{:?}: {said}", output.status)),
    )
}

/// Makes a batch of this many files with this content below a directory.
pub(crate) fn batch(dir: &str, files: u32, content: &'static [u8]) -> FileBatch {
    (0..files).fold(FileBatch::new(), |batch, file| {
        let path = format!("{dir}/{}/{}", file / 100, file % 100);
        batch.file(path, content)
    })
}
