//! The spans of `Tracing` as OpenTelemetry's own SDK exports them, below a caller's `traceparent`.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::Arc;

use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use sandbox_core::layer::{Layer as _, Tracing};
use sandbox_core::{Command, Provider as _, SandboxExt as _, SandboxSpec};
use sandbox_testkit::model::ModelProvider;
use tracing::Instrument as _;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::layer::SubscriberExt as _;

#[tokio::test]
async fn calls_and_processes_are_spans_below_the_callers_traceparent() {
    let exporter = InMemorySpanExporter::default();
    let spans = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .build();
    let layer = tracing_opentelemetry::layer().with_tracer(spans.tracer("test"));
    let subscriber = tracing_subscriber::registry().with(layer);
    let _in_force = tracing::subscriber::set_default(subscriber);

    // As a service takes it from a request.
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let caller = "00f067aa0ba902b7";
    let headers = HashMap::from([("traceparent".to_owned(), format!("00-{trace}-{caller}-01"))]);
    let request = tracing::info_span!("request");
    request
        .set_parent(TraceContextPropagator::new().extract(&headers))
        .unwrap();
    async {
        let provider = Tracing::new().layer_provider(Arc::new(ModelProvider::new()));
        let sandbox = provider.create(SandboxSpec::new()).await.unwrap();
        let secret = Command::shell("echo very-secret").env("KEY", "very-secret");
        assert!(sandbox.exec(secret).await.unwrap().success());
        let process = sandbox.spawn(Command::new("true")).await.unwrap();
        process.wait().await.unwrap();
        sandbox.fork_one().await.unwrap().sh("true").await.unwrap();
    }
    .instrument(request)
    .await;

    let spans = exporter.get_finished_spans().unwrap();
    let request = spans.iter().find(|span| span.name == "request").unwrap();
    assert_eq!(request.parent_span_id.to_string(), caller);
    let mut operations = Vec::new();
    for span in &spans {
        assert_eq!(span.span_context.trace_id().to_string(), trace);
        if span.name != "request" {
            assert_eq!(span.parent_span_id, request.span_context.span_id());
        }
        let operation = span
            .attributes
            .iter()
            .find(|kv| kv.key.as_str() == "operation");
        operations.extend(operation.map(|kv| kv.value.to_string()));
    }
    for operation in ["create", "exec", "spawn", "fork"] {
        assert!(operations.iter().any(|o| o == operation), "{operations:?}");
    }
    // That of the fork as well.
    assert_eq!(operations.iter().filter(|o| *o == "exec").count(), 2);
    assert!(spans.iter().any(|span| span.name == "process"));
    assert!(!format!("{spans:?}").contains("very-secret"));
}
