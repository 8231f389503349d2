//! A series: points, what they are, and the line through them.

use std::sync::Arc;
use std::time::Duration;

use sandbox::local::LocalProvider;
use sandbox::{Command, Provider, Sandbox, SandboxSpec};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::support::measure::{Line, timed};
use crate::support::{Effort, Outcome};

/// Means with which every series is measured.
pub(crate) struct Setup<'a> {
    pub(crate) effort: Effort,
    pub(crate) runtime: &'a Runtime,
    pub(crate) provider: &'a LocalProvider,
}

impl Setup<'_> {
    pub(crate) fn create(&self) -> Outcome<Arc<dyn Sandbox>> {
        Ok(self
            .runtime
            .block_on(self.provider.create(SandboxSpec::new()))?)
    }

    pub(crate) fn close(&self, sandbox: &Arc<dyn Sandbox>) -> Outcome<()> {
        Ok(self.runtime.block_on(sandbox.close())?)
    }

    pub(crate) fn exec_true(&self, sandbox: &Arc<dyn Sandbox>) -> Outcome<Duration> {
        let exec = || {
            Ok(self
                .runtime
                .block_on(sandbox.exec(Command::new("/bin/true")))?)
        };
        timed(exec)
    }

    /// The median of so many rounds.
    pub(crate) fn median(
        &self,
        rounds: u32,
        mut round: impl FnMut() -> Outcome<Duration>,
    ) -> Outcome<Duration> {
        let rounds = self.effort.pick(1, rounds.min(5), rounds);
        let mut times = Vec::new();
        for _ in 0..rounds {
            times.push(round()?);
        }
        times.sort();
        let middle = times.get(times.len() / 2);
        Ok(middle.copied().unwrap_or_default())
    }
}

/// Points of one thing against another.
#[derive(Debug)]
pub(crate) struct Series {
    /// Name of the series, also of its file.
    pub(crate) name: &'static str,
    /// Quantity along the line.
    pub(crate) against: &'static str,
    /// Unit of what is measured.
    pub(crate) unit: &'static str,
    pub(crate) points: Vec<(f64, f64)>,
    /// Note for the reader.
    pub(crate) note: Option<String>,
}

impl Series {
    pub(crate) fn new(name: &'static str, against: &'static str, unit: &'static str) -> Self {
        Self {
            name,
            against,
            unit,
            points: Vec::new(),
            note: None,
        }
    }

    pub(crate) fn time(&mut self, x: f64, time: Duration) {
        self.points.push((x, time.as_secs_f64() * 1e3));
    }

    pub(crate) fn line(&self) -> Option<Line> {
        Line::through(&self.points)
    }

    pub(crate) fn cells(&self) -> Vec<String> {
        let at = |point: Option<&(f64, f64)>| match point {
            Some((x, y)) => format!("{} {} at {x}", digits(*y), self.unit),
            None => "–".into(),
        };
        let line = self.line();
        let of = |value: fn(&Line) -> f64| line.as_ref().map(value);
        let slope = of(|line| line.slope).map(|slope| {
            let (slope, unit) = match self.unit {
                // A slope is far smaller than what it is the slope of.
                "ms" => (slope * 1e3, "µs"),
                unit => (slope, unit),
            };
            format!("{} {unit} each", digits(slope))
        });
        let start = of(|line| line.start).map(|start| format!("{} {}", digits(start), self.unit));
        let r2 = of(|line| line.r2).map(|r2| format!("{r2:.2}"));
        vec![
            self.name.into(),
            self.against.into(),
            at(self.points.first()),
            at(self.points.last()),
            start.unwrap_or_default(),
            slope.unwrap_or_default(),
            r2.unwrap_or_default(),
        ]
    }

    pub(crate) fn json(&self) -> Value {
        let line = self.line();
        json!({
            "name": self.name,
            "against": self.against,
            "unit": self.unit,
            "points": self.points,
            "slope": line.map(|line| line.slope),
            "start": line.map(|line| line.start),
            "r2": line.map(|line| line.r2),
            "note": self.note,
        })
    }
}

/// Three digits that count.
fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.2}"),
        0.0 => "0".into(),
        _ => format!("{value:.4}"),
    }
}
