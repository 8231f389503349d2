//! Times several ways to do the same work, a round of each in turn.
//!
//! It must never time one way to its end before the next begins: a machine that gets slower or
//! busier in between would be taken for a difference between them.

use std::time::{Duration, Instant};

use super::{Effort, Outcome};

/// One round of a case: what it took, without what it needed before and after.
pub(crate) type Round<'a> = Box<dyn FnMut() -> Outcome<Duration> + 'a>;

/// A way to do the work.
pub(crate) struct Case<'a> {
    pub(crate) name: String,
    pub(crate) round: Round<'a>,
}

impl<'a> Case<'a> {
    pub(crate) fn new(
        name: impl Into<String>,
        round: impl FnMut() -> Outcome<Duration> + 'a,
    ) -> Self {
        Self {
            name: name.into(),
            round: Box::new(round),
        }
    }
}

/// Result of a case.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) name: String,
    /// By round; a case that was too slow for a further round has fewer than the others.
    pub(crate) times: Vec<Duration>,
    /// Why it ended early.
    pub(crate) error: Option<String>,
}

impl Measured {
    pub(crate) fn median(&self) -> Option<Duration> {
        quantile(&self.times, 0.5)
    }

    pub(crate) fn p95(&self) -> Option<Duration> {
        quantile(&self.times, 0.95)
    }

    /// The median over rounds of this time by the other's in the same round: what makes the whole
    /// machine slow for a while is in both.
    pub(crate) fn ratio_to(&self, other: &Self) -> Option<f64> {
        let pairs = self.times.iter().zip(&other.times);
        let mut ratios: Vec<f64> = pairs
            .map(|(mine, others)| mine.as_secs_f64() / others.as_secs_f64().max(1e-9))
            .collect();
        ratios.sort_by(f64::total_cmp);
        ratios.get(ratios.len() / 2).copied()
    }
}

fn quantile(times: &[Duration], q: f64) -> Option<Duration> {
    let mut sorted = times.to_vec();
    sorted.sort();
    let last = sorted.len().checked_sub(1)?;
    // Both are small and not negative.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )]
    let at = (last as f64 * q).round() as usize;
    sorted.get(at).copied()
}

/// Time that a case may go on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    pub(crate) rounds: usize,
    /// A case that has used this much, or is bound to, gets no further round.
    pub(crate) time: Duration,
}

impl Budget {
    /// Rounds and seconds for each case of a full run.
    pub(crate) fn of(effort: Effort, rounds: usize, seconds: u64) -> Self {
        Self {
            rounds: effort.pick(1, rounds.min(11), rounds),
            time: Duration::from_secs(effort.pick(1, (seconds / 4).max(1), seconds)),
        }
    }
}

/// Runs the cases round by round. The first round of each only warms up (except in a test), and
/// each round begins with another case.
pub(crate) fn interleaved(effort: Effort, budget: Budget, cases: Vec<Case<'_>>) -> Vec<Measured> {
    let mut all: Vec<_> = cases
        .into_iter()
        .map(|case| {
            let measured = Measured {
                name: case.name,
                times: Vec::new(),
                error: None,
            };
            (case.round, measured, Duration::ZERO)
        })
        .collect();
    let warm_up = usize::from(effort != Effort::Test);
    let count = all.len();
    for round in 0..budget.rounds + warm_up {
        for turn in 0..count {
            let (work, measured, used) = &mut all[(turn + round) % count];
            // What one more round is bound to take, with what surrounds it.
            let next = *used / u32::try_from(round.max(1)).unwrap_or(u32::MAX);
            if measured.error.is_some() || (round > warm_up && *used + next > budget.time) {
                continue;
            }
            let started = Instant::now();
            match work() {
                Ok(_) if round < warm_up => {}
                Ok(time) => measured.times.push(time),
                Err(error) => measured.error = Some(error.to_string()),
            }
            *used += started.elapsed();
        }
    }
    all.into_iter().map(|(_, measured, _)| measured).collect()
}

/// Measures how long some work takes.
pub(crate) fn timed<T>(work: impl FnOnce() -> Outcome<T>) -> Outcome<Duration> {
    let started = Instant::now();
    work()?;
    Ok(started.elapsed())
}

/// The line through these points with the least squares: its slope, where it starts, and how much
/// of the variance it explains.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    pub(crate) slope: f64,
    pub(crate) start: f64,
    pub(crate) r2: f64,
}

impl Line {
    pub(crate) fn through(points: &[(f64, f64)]) -> Option<Self> {
        #[allow(clippy::cast_precision_loss)]
        let n = points.len() as f64;
        if points.len() < 2 {
            return None;
        }
        let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / n;
        let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / n;
        let sxx: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
        let sxy: f64 = points
            .iter()
            .map(|(x, y)| (x - mean_x) * (y - mean_y))
            .sum();
        let syy: f64 = points.iter().map(|(_, y)| (y - mean_y).powi(2)).sum();
        let slope = sxy / sxx;
        let r2 = if syy > 0.0 {
            sxy * sxy / (sxx * syy)
        } else {
            1.0
        };
        (sxx > 0.0).then_some(Self {
            slope,
            start: mean_y - slope * mean_x,
            r2,
        })
    }
}
