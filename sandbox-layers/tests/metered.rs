//! Tests of what is measured, under which names and labels.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use sandbox_core::layer::Layer as _;
use sandbox_core::{Command, ErrorKind, Operation, Provider, SandboxExt, SandboxSpec};
use sandbox_layers::Metered;
use sandbox_testkit::model::{Fault, MockOutcome, ModelProvider};

/// Keeps the sums of counters and gauges, and how often a histogram was recorded.
#[derive(Clone, Debug, Default)]
struct Sums(Arc<Mutex<BTreeMap<String, f64>>>);

#[derive(Debug)]
struct One(Sums, String);

impl One {
    fn add(&self, value: f64) {
        *self.0.0.lock().unwrap().entry(self.1.clone()).or_default() += value;
    }
}

impl CounterFn for One {
    fn increment(&self, value: u64) {
        self.add(value as f64);
    }
    fn absolute(&self, _: u64) {}
}

impl GaugeFn for One {
    fn increment(&self, value: f64) {
        self.add(value);
    }
    fn decrement(&self, value: f64) {
        self.add(-value);
    }
    fn set(&self, _: f64) {}
}

impl HistogramFn for One {
    fn record(&self, value: f64) {
        assert!((0.0..60.0).contains(&value));
        self.add(1.0);
    }
}

impl Sums {
    fn one(&self, key: &Key) -> Arc<One> {
        let labels: Vec<String> = key
            .labels()
            .map(|l| format!("{}={}", l.key(), l.value()))
            .collect();
        Arc::new(One(
            self.clone(),
            format!("{}{{{}}}", key.name(), labels.join(",")),
        ))
    }

    fn get(&self, name: &str) -> f64 {
        self.0
            .lock()
            .unwrap()
            .get(name)
            .copied()
            .unwrap_or_default()
    }
}

impl Recorder for Sums {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.one(key))
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.one(key))
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.one(key))
    }
}

#[tokio::test]
async fn operations_commands_bytes_and_live_sandboxes_are_measured() {
    let sums = Sums::default();
    let _installed = metrics::set_default_local_recorder(&sums);
    let model = ModelProvider::builder()
        .on_program(
            "tool",
            [
                MockOutcome::exit(1).stdout("12345").stderr("67"),
                MockOutcome::exit(0),
            ],
        )
        .build();
    let provider = Metered::new().layer_provider(Arc::new(model.clone()));
    let sandbox = provider.create(SandboxSpec::new()).await.unwrap();
    let fork = sandbox.fork_one().await.unwrap();
    assert_eq!(sums.get("sandbox.live{backend=model}"), 2.0);
    sandbox.exec(Command::new("tool")).await.unwrap();
    let process = sandbox.spawn(Command::new("tool")).await.unwrap();
    process.wait().await.unwrap();
    process.wait().await.unwrap();
    assert!(sandbox.read("missing").await.is_err());
    let missing = sandbox
        .exec(Command::new("no-such-program"))
        .await
        .unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::CommandNotFound);
    assert_eq!(sums.get("sandbox.command.duration{backend=model}"), 2.0);
    assert_eq!(
        sums.get("sandbox.output.bytes{backend=model,stream=stdout}"),
        5.0
    );
    assert_eq!(
        sums.get("sandbox.output.bytes{backend=model,stream=stderr}"),
        2.0
    );
    for (operation, ran, error, count) in [
        ("create", "none", "none", 1.0),
        ("fork", "none", "none", 1.0),
        ("exec", "yes", "none", 1.0),
        ("exec", "not_started", "CommandNotFound", 1.0),
        ("spawn", "yes", "none", 1.0),
        ("read_file", "none", "NotFound", 1.0),
    ] {
        let name = format!(
            "sandbox.operation.duration{{operation={operation},backend=model,ran={ran},error.type={error}}}"
        );
        assert_eq!(sums.get(&name), count, "{name}");
    }
    fork.close().await.unwrap();
    fork.close().await.unwrap();
    assert_eq!(sums.get("sandbox.live{backend=model}"), 1.0);
    model.lose(&sandbox.info().id);
    assert!(sandbox.read("x").await.is_err());
    assert_eq!(sums.get("sandbox.live{backend=model}"), 0.0);
}

#[tokio::test]
async fn a_sandbox_is_live_until_it_is_known_to_be_gone() {
    let sums = Sums::default();
    let _installed = metrics::set_default_local_recorder(&sums);
    let refused = Fault::Refuse(ErrorKind::Unavailable);
    let model = ModelProvider::builder()
        .fault_on(Operation::Close, [refused])
        .fault_on(Operation::ReadFile, [Fault::Refuse(ErrorKind::Expired)])
        .build();
    let provider = Metered::new().layer_provider(Arc::new(model.clone()));
    let live = || sums.get("sandbox.live{backend=model}");
    let sandbox = provider.create(SandboxSpec::new()).await.unwrap();
    sandbox.close().await.unwrap_err();
    assert_eq!(live(), 1.0, "its close failed");
    sandbox.close().await.unwrap();
    assert_eq!(live(), 0.0);
    let expires = provider.create(SandboxSpec::new()).await.unwrap();
    expires.read("f").await.unwrap_err();
    assert_eq!(live(), 0.0, "it has expired");
}
