//! The decisions of one sandbox: the last of them, numbered.
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
        if state.kept.len() >= KEPT {
            state.kept.pop_front();
        }
        state.kept.push_back(decision);
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
    use super::*;

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
