//! The decisions of one sandbox: the last of them, numbered, and a count of all of them
//! through the `metrics` facade.
//!
//! Invariant: bounded in number and in the size of each, whatever a guest asks for.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sandbox_core::{EgressDecision, EgressDecisions, EgressVerdict};

/// Number of decisions that are kept.
pub(crate) const KEPT: usize = 1024;
/// The longest name that is kept, in bytes.
const LONGEST: usize = 255;
/// Time in which the same refusal is recorded once: resolvers ask again and again.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct State {
    kept: VecDeque<EgressDecision>,
    made: u64,
    /// The last refusal of a name, to see whether the next is the same.
    last_name: Option<(String, Instant)>,
}

/// The counter of all decisions, through the `metrics` facade. Its one label is the verdict: hosts and
/// reasons have the guest's text in them, and a guest could make any number of series.
const COUNTER: &str = "sandbox.egress.decisions";

fn label(verdict: EgressVerdict) -> &'static str {
    match verdict {
        EgressVerdict::Allowed => "allowed",
        EgressVerdict::Denied => "denied",
        EgressVerdict::Failed => "failed",
        _ => "other",
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Log(Mutex<State>);

impl Log {
    pub(crate) fn add(&self, mut decision: EgressDecision) {
        let mut end = decision.host.len().min(LONGEST);
        while !decision.host.is_char_boundary(end) {
            end -= 1;
        }
        decision.host.truncate(end);
        let EgressDecision {
            host,
            port,
            verdict,
            reason,
            address,
            ..
        } = &decision;
        tracing::info!(target: "sandbox::egress", ?host, ?port, ?verdict, ?address, %reason);
        // Every change is a single step: a panic elsewhere leaves it whole.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if decision.port.is_none() && decision.verdict == EgressVerdict::Denied {
            let again = state
                .last_name
                .as_ref()
                .is_some_and(|(name, at)| *name == decision.host && at.elapsed() < AGAIN);
            if again {
                return;
            }
            state.last_name = Some((decision.host.clone(), Instant::now()));
        }
        state.made += 1;
        decision.number = state.made;
        let verdict = label(decision.verdict);
        if state.kept.len() >= KEPT {
            state.kept.pop_front();
        }
        state.kept.push_back(decision);
        drop(state);
        metrics::counter!(COUNTER, "decision" => verdict).increment(1);
    }

    pub(crate) fn after(&self, after: u64) -> EgressDecisions {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = state
            .kept
            .front()
            .map_or(state.made + 1, |first| first.number);
        let missed = first.saturating_sub(after.saturating_add(1));
        let later = state.kept.iter().filter(|kept| kept.number > after);
        EgressDecisions::new(later.cloned().collect(), missed)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use metrics::{
        Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    };

    use super::*;

    /// The counts of a recorder, by name and labels.
    #[derive(Clone, Debug, Default)]
    struct Counts(Arc<Mutex<BTreeMap<String, u64>>>);

    #[derive(Debug)]
    struct One(Counts, String);

    impl CounterFn for One {
        fn increment(&self, value: u64) {
            *self.0.0.lock().unwrap().entry(self.1.clone()).or_default() += value;
        }
        fn absolute(&self, _: u64) {}
    }

    impl Recorder for Counts {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            let labels = key.labels().map(|l| format!("{}={}", l.key(), l.value()));
            let labels: Vec<String> = labels.collect();
            let name = format!("{}{{{}}}", key.name(), labels.join(","));
            Counter::from_arc(Arc::new(One(self.clone(), name)))
        }
        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }
        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    #[test]
    fn decisions_are_counted_by_verdict_and_a_guest_makes_no_series() {
        let counts = Counts::default();
        metrics::with_local_recorder(&counts, || {
            let log = Log::default();
            for number in 0..KEPT + 10 {
                let (host, why) = (format!("{number}.test"), format!("reason {number}"));
                log.add(EgressDecision::new(host, EgressVerdict::Denied, why).port(443));
            }
            for verdict in [EgressVerdict::Allowed, EgressVerdict::Failed] {
                log.add(EgressDecision::new("a.test", verdict, "a rule").port(443));
            }
        });
        let name = |label: &str| format!("sandbox.egress.decisions{{decision={label}}}");
        let expected = [
            (name("allowed"), 1),
            (name("denied"), KEPT as u64 + 10),
            (name("failed"), 1),
        ];
        assert_eq!(*counts.0.lock().unwrap(), BTreeMap::from(expected));
    }

    #[test]
    fn the_last_are_kept_and_what_is_missing_is_told() {
        let log = Log::default();
        for number in 0..KEPT + 10 {
            let host = format!("{number}.test");
            log.add(EgressDecision::new(host, EgressVerdict::Allowed, "a rule").port(443));
        }
        let all = log.after(0);
        assert_eq!((all.decisions.len(), all.missed), (KEPT, 10));
        assert_eq!(all.decisions[0].number, 11);
        let last = all.last().unwrap();
        assert_eq!(log.after(last), EgressDecisions::default());
        let some = log.after(last - 2);
        assert_eq!((some.decisions.len(), some.missed), (2, 0));
        assert_eq!(log.after(u64::MAX), EgressDecisions::default());
    }

    #[test]
    fn a_name_that_is_asked_for_again_and_again_is_one_record_and_a_short_one() {
        let log = Log::default();
        let long = "\u{e9}".repeat(4000);
        for _ in 0..100 {
            log.add(EgressDecision::new(
                long.clone(),
                EgressVerdict::Denied,
                "no rule",
            ));
        }
        let found = log.after(0).decisions;
        assert!(found.len() <= 100 / 10, "{}", found.len());
        assert!(found[0].host.len() <= LONGEST);
    }
}
