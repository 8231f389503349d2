//! Counts of the calls to sandboxes, in the text format of Prometheus: a layer of an application's own.
//!
//! A service that has a recorder for the `metrics` facade takes `sandbox::layers::Metered` instead.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sandbox::layer::{Answer, Around, Attempt, Call};

/// Counts and times by operation and kind of error.
#[derive(Debug, Default)]
pub(crate) struct Calls(Mutex<BTreeMap<(&'static str, String), Counted>>);

#[derive(Debug, Default)]
struct Counted {
    calls: u64,
    time: Duration,
}

impl Calls {
    /// The counts as lines.
    pub(crate) fn render(&self) -> String {
        let calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        for ((operation, error), counted) in &*calls {
            let labels = format!("{{operation=\"{operation}\",error=\"{error}\"}}");
            let (count, seconds) = (counted.calls, counted.time.as_secs_f64());
            let _ = writeln!(
                text,
                "sandbox_operation_duration_seconds_count{labels} {count}"
            );
            let _ = writeln!(
                text,
                "sandbox_operation_duration_seconds_sum{labels} {seconds}"
            );
        }
        text
    }
}

/// The layer.
#[derive(Clone, Debug)]
pub(crate) struct Count(pub(crate) Arc<Calls>);

impl Around for Count {
    async fn around<T: Answer>(
        &self,
        call: Call<'_>,
        attempt: Attempt<'_, T>,
    ) -> sandbox::Result<T> {
        let started = Instant::now();
        let result = attempt().await;
        let error = result.as_ref().err();
        let error = error.map_or_else(|| "none".to_owned(), |error| format!("{:?}", error.kind()));
        let mut calls = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = calls.entry((call.operation().as_str(), error)).or_default();
        entry.calls += 1;
        entry.time += started.elapsed();
        drop(calls);
        result
    }
}
