//! Runs cases: each on a fresh sandbox, within a deadline, its panics caught.
//!
//! Invariant: no case can keep another from running.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sandbox_core::Provider;
use sandbox_core::layer::Layer as _;
use serde::Serialize;
use tokio::sync::OnceCell;

use crate::kit::context::PATIENCE;
use crate::kit::plan::{Planned, begins};
use crate::kit::reaper::Reaper;
use crate::kit::settings::{Settings, check_deviations};
use crate::kit::watch::Watch;
use crate::kit::{Case, Context, Failed, Fixture, Verdict, plan};

/// The name under which a process that was left on this host is reported.
pub(crate) const NO_PROCESS_IS_LEFT: &str = "host::no_process_is_left";

/// Time that closing may take after a case.
const CLOSING: Duration = Duration::from_secs(20);

/// The outcome of a case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", content = "reason", rename_all = "lowercase")]
pub enum Outcome {
    /// The promise holds.
    Passed,
    /// The promise does not hold; this was seen.
    Failed(String),
    /// The case does not apply, for this reason.
    Ignored(String),
}

/// A case with its outcome.
#[derive(Clone, Debug, Serialize)]
pub struct CaseReport {
    /// The case's name, without the fixture's.
    pub name: String,
    /// The outcome.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// The time that it took, in seconds.
    pub seconds: f64,
}

impl CaseReport {
    pub(crate) fn new(name: impl Into<String>, outcome: Outcome) -> Self {
        Self {
            name: name.into(),
            outcome,
            seconds: 0.0,
        }
    }
}

/// The outcomes of all cases of a fixture.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The fixture.
    pub fixture: String,
    /// The cases, in order.
    pub cases: Vec<CaseReport>,
}

impl Report {
    /// The cases that failed, with what was seen.
    pub fn failed(&self) -> impl Iterator<Item = (&str, &str)> {
        self.cases.iter().filter_map(|case| match &case.outcome {
            Outcome::Failed(why) => Some((case.name.as_str(), why.as_str())),
            _ => None,
        })
    }

    /// The number of cases that passed.
    pub fn passed(&self) -> usize {
        let passed = |case: &&CaseReport| case.outcome == Outcome::Passed;
        self.cases.iter().filter(passed).count()
    }
}

/// Runs the cases whose names `filter` accepts and reports them all, in order. As many run side by
/// side as [`Fixture::threads`] says, one after the other if it says nothing. Cases that the fixture
/// declares as deviations are run too: one that passes by now is reported as [`Outcome::Passed`].
///
/// Where the fixture's processes are of this host, one more entry, `host::no_process_is_left`, says
/// whether any of them outlived the run.
///
/// A mistake in the settings or the fixture's deviations is reported as the only, failed entry.
pub async fn run(fixture: Arc<dyn Fixture>, filter: impl Fn(&str) -> bool) -> Report {
    let name = fixture.name();
    let settings = Settings::from_env().and_then(|settings| {
        check_deviations(&*fixture)?;
        Ok(settings)
    });
    let settings = match settings {
        Ok(settings) => settings,
        Err(why) => {
            return Report {
                fixture: name,
                cases: vec![CaseReport::new("kit::settings", Outcome::Failed(why))],
            };
        }
    };
    let of_this_host = fixture.is_of_this_host();
    let reaper = of_this_host.then(Reaper::new);
    let under_test = UnderTest::new(fixture, settings);
    let mut planned: Vec<(usize, Planned)> = plan(&*under_test.fixture, &under_test.settings)
        .into_iter()
        .filter(|planned| filter(planned.case.name))
        .enumerate()
        .collect();
    // Taken from the end.
    planned.sort_by_key(|(index, planned)| Reverse((begins(planned.case.name), *index)));
    let at_once = under_test.fixture.threads().unwrap_or(1).max(1);
    let mut running = tokio::task::JoinSet::new();
    let mut reports = Vec::new();
    while !(planned.is_empty() && running.is_empty()) {
        if running.len() < at_once
            && let Some((index, planned)) = planned.pop()
        {
            let under_test = under_test.clone();
            running.spawn(async move { (index, under_test.report(planned).await) });
        } else if let Some(Ok(report)) = running.join_next().await {
            reports.push(report);
        }
    }
    reports.sort_by_key(|(index, _)| *index);
    let mut cases: Vec<CaseReport> = reports.into_iter().map(|(_, report)| report).collect();
    drop(under_test);
    if let Some(reaper) = reaper {
        cases.push(CaseReport::new(NO_PROCESS_IS_LEFT, nothing_left(&reaper)));
    }
    Report {
        fixture: name,
        cases,
    }
}

/// The outcome of looking for processes that were left.
pub(crate) fn nothing_left(reaper: &Reaper) -> Outcome {
    match reaper.left() {
        left if left.is_empty() => Outcome::Passed,
        left => Outcome::Failed(format!(
            "processes that the run started were still there after it: {left:?}"
        )),
    }
}

/// [`run`] on a runtime of its own.
///
/// # Errors
/// If no runtime can be had.
pub fn run_blocking(
    fixture: Arc<dyn Fixture>,
    filter: impl Fn(&str) -> bool,
) -> std::io::Result<Report> {
    let runtime = tokio::runtime::Runtime::new()?;
    let report = runtime.block_on(run(fixture, filter));
    // What a case dropped may still be removing its files.
    runtime.shutdown_timeout(CLOSING);
    Ok(report)
}

/// A fixture with its provider, which is made once.
#[derive(Clone)]
pub(crate) struct UnderTest {
    pub(crate) fixture: Arc<dyn Fixture>,
    settings: Settings,
    provider: Arc<OnceCell<Arc<dyn Provider>>>,
}

impl UnderTest {
    pub(crate) fn new(fixture: Arc<dyn Fixture>, settings: Settings) -> Self {
        Self {
            fixture,
            settings,
            provider: Arc::default(),
        }
    }

    /// Runs a case, unless it does not apply, and takes its time.
    async fn report(&self, planned: Planned) -> CaseReport {
        let started = Instant::now();
        let outcome = match planned.skip {
            Some(skip) if skip.is_deviation => match self.run(planned.case).await {
                Outcome::Passed => Outcome::Passed,
                _ => Outcome::Ignored(format!("{}: {}", skip.kind, skip.reason)),
            },
            Some(skip) => Outcome::Ignored(format!("{}: {}", skip.kind, skip.reason)),
            None => self.run(planned.case).await,
        };
        let mut report = CaseReport::new(planned.case.name, outcome);
        report.seconds = started.elapsed().as_secs_f64();
        report
    }

    pub(crate) async fn run(&self, case: Case) -> Outcome {
        match self.attempt(case).await {
            Ok(()) => Outcome::Passed,
            Err(why) => Outcome::Failed(why.to_string()),
        }
    }

    async fn attempt(&self, case: Case) -> Verdict {
        if let Err(reason) = self.fixture.available() {
            return Err(Failed::new(format_args!(
                "the backend is required and not available: {reason}"
            )));
        }
        let deadline = self
            .settings
            .case_timeout
            .unwrap_or_else(|| self.fixture.case_timeout());
        let watch = Watch::default();
        let late = |what: &str| {
            Failed::new(format_args!(
                "{what} took longer than {deadline:?}; {watch}"
            ))
        };
        let cx = tokio::time::timeout(deadline, self.context(&watch))
            .await
            .map_err(|_| late("creating the sandbox"))??;
        let patience = self.fixture.patience();
        let mut task = tokio::spawn(PATIENCE.scope(patience, (case.run)(cx.clone())));
        let verdict = match tokio::time::timeout(deadline, &mut task).await {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(panic)) => Err(Failed::new(format_args!("the case panicked: {panic}"))),
            Err(_) => {
                // What hangs is known only until the case is dropped.
                let late = late("the case");
                task.abort();
                Err(late)
            }
        };
        if tokio::time::timeout(CLOSING, cx.close_all()).await.is_err() && verdict.is_ok() {
            return Err(Failed::new(format_args!(
                "closing the sandboxes of the case took longer than {CLOSING:?}; {watch}"
            )));
        }
        verdict
    }

    async fn context(&self, watch: &Watch) -> Verdict<Context> {
        let make = || self.fixture.provider();
        let provider = self.provider.get_or_try_init(make).await?.clone();
        let provider = watch.layer_provider(provider);
        let sandbox = provider.create(self.fixture.spec()).await?;
        Ok(Context::new(self.fixture.clone(), provider, sandbox))
    }
}
