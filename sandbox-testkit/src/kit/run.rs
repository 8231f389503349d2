//! Runs cases: each on a fresh sandbox, within a deadline, its panics caught.
//!
//! Invariant: no case can keep another from running.

use std::sync::Arc;
use std::time::Duration;

use sandbox_core::Provider;
use serde::Serialize;
use tokio::sync::OnceCell;

use crate::kit::{Case, Cx, Failed, Fixture, Verdict, plan};

/// How long closing may take after a case.
const CLOSING: Duration = Duration::from_secs(20);

/// What came of a case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", content = "reason", rename_all = "lowercase")]
pub enum Outcome {
    /// The promise holds.
    Passed,
    /// It does not, and this was seen.
    Failed(String),
    /// The case does not apply, for this reason.
    Ignored(String),
}

/// A case and what came of it.
#[derive(Clone, Debug, Serialize)]
pub struct CaseReport {
    /// The case's name, without the fixture's.
    pub name: String,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What came of all cases of a fixture.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The fixture.
    pub fixture: String,
    /// Its cases, in order.
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

    /// How many cases passed.
    pub fn passed(&self) -> usize {
        let passed = |case: &&CaseReport| case.outcome == Outcome::Passed;
        self.cases.iter().filter(passed).count()
    }
}

/// Runs the cases whose names `filter` accepts, one after the other, and reports them all.
pub async fn run(fixture: Arc<dyn Fixture>, filter: impl Fn(&str) -> bool) -> Report {
    let under_test = UnderTest::new(fixture);
    let mut cases = Vec::new();
    for planned in plan(&*under_test.fixture) {
        if !filter(planned.case.name) {
            continue;
        }
        let outcome = match planned.skip {
            Some(skip) => Outcome::Ignored(format!("{}: {}", skip.kind, skip.reason)),
            None => under_test.run(planned.case).await,
        };
        cases.push(CaseReport {
            name: planned.case.name.to_owned(),
            outcome,
        });
    }
    Report {
        fixture: under_test.fixture.name(),
        cases,
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
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(report)
}

/// A fixture with its provider, which is made once.
#[derive(Clone)]
pub(crate) struct UnderTest {
    pub(crate) fixture: Arc<dyn Fixture>,
    provider: Arc<OnceCell<Arc<dyn Provider>>>,
}

impl UnderTest {
    pub(crate) fn new(fixture: Arc<dyn Fixture>) -> Self {
        Self {
            fixture,
            provider: Arc::default(),
        }
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
        let deadline = asked_timeout().unwrap_or_else(|| self.fixture.case_timeout());
        let late = |what: &str| Failed::new(format_args!("{what} took longer than {deadline:?}"));
        let cx = tokio::time::timeout(deadline, self.context())
            .await
            .map_err(|_| late("creating the sandbox"))??;
        let mut task = tokio::spawn((case.run)(cx.clone()));
        let verdict = match tokio::time::timeout(deadline, &mut task).await {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(panic)) => Err(Failed::new(format_args!("the case panicked: {panic}"))),
            Err(_) => {
                task.abort();
                Err(late("the case"))
            }
        };
        if tokio::time::timeout(CLOSING, cx.close_all()).await.is_err() && verdict.is_ok() {
            return Err(Failed::new(format_args!(
                "closing the sandboxes of the case took longer than {CLOSING:?}"
            )));
        }
        verdict
    }

    async fn context(&self) -> Verdict<Cx> {
        let make = || self.fixture.provider();
        let provider = self.provider.get_or_try_init(make).await?.clone();
        let sandbox = provider.create(self.fixture.spec()).await?;
        Ok(Cx::new(self.fixture.clone(), provider, sandbox))
    }
}

/// `SANDBOX_CASE_TIMEOUT`, in seconds.
fn asked_timeout() -> Option<Duration> {
    let seconds = std::env::var("SANDBOX_CASE_TIMEOUT").ok()?;
    seconds.parse().ok().map(Duration::from_secs)
}
