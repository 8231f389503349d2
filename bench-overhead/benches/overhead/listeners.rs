//! Listeners for spans and metrics, so that the cost of a layer includes what it tells them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};

/// Keeps one number for each name with its labels, as exporters do.
#[derive(Debug, Default)]
pub(crate) struct Numbers(Mutex<HashMap<Key, Arc<AtomicU64>>>);

impl Numbers {
    fn of(&self, key: &Key) -> Arc<AtomicU64> {
        let mut numbers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match numbers.get(key) {
            Some(number) => number.clone(),
            None => numbers.entry(key.clone()).or_default().clone(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        let numbers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        numbers.len()
    }
}

struct Last(Arc<AtomicU64>);

impl HistogramFn for Last {
    fn record(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }
}

impl Recorder for Numbers {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.of(key))
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.of(key))
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(Last(self.of(key))))
    }
}
