//! The span of a tool's call, below the one that the caller names.
//!
//! It must never record an argument or a result.

use rmcp::model::{CallToolResponse, RequestMetaObject};
use tracing::Span;
use tracing::field::Empty;

/// A span for a call of this tool, a child of the request's `traceparent` if it has one; see
/// [`Server`](crate::Server).
pub(crate) fn span(tool: &str, meta: &RequestMetaObject) -> Span {
    let span = tracing::debug_span!(
        "tools/call",
        otel.kind = "server",
        mcp.method.name = "tools/call",
        gen_ai.tool.name = tool,
        error.type = Empty,
    );
    adopt(&span, meta);
    span
}

/// Records how the call ended: a tool that failed answers as one that did not.
pub(crate) fn ended(span: &Span, result: &Result<CallToolResponse, rmcp::ErrorData>) {
    let error = match result {
        Ok(CallToolResponse::Complete(result)) if result.is_error == Some(true) => "tool_error",
        Ok(_) => return,
        Err(_) => "protocol_error",
    };
    span.record("error.type", error);
}

#[cfg(not(feature = "opentelemetry"))]
fn adopt(_: &Span, _: &RequestMetaObject) {}

#[cfg(feature = "opentelemetry")]
fn adopt(span: &Span, meta: &RequestMetaObject) {
    use opentelemetry::Context;
    use opentelemetry::trace::TraceContextExt as _;
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;

    let Some(caller) = meta
        .get_traceparent()
        .and_then(|parent| caller(parent, meta.get_tracestate()))
    else {
        return;
    };
    // Where no subscriber makes spans of OpenTelemetry there is none to have a parent.
    let _ = span.set_parent(Context::new().with_remote_span_context(caller));
}

/// The span that a `traceparent` names (W3C Trace Context, level 1); `None` for a text that is none.
#[cfg(feature = "opentelemetry")]
fn caller(parent: &str, state: Option<&str>) -> Option<opentelemetry::trace::SpanContext> {
    use std::str::FromStr as _;

    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

    let mut parts = parent.split('-');
    let mut part = |length: usize| {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let part = parts.next()?;
        (part.len() == length && part.bytes().all(digit)).then_some(part)
    };
    let (version, trace, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
    // A later version may have more parts; ff is none.
    if version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let state = state.and_then(|state| TraceState::from_str(state).ok());
    let caller = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        flags,
        true,
        state.unwrap_or_default(),
    );
    caller.is_valid().then_some(caller)
}

#[cfg(test)]
#[cfg(feature = "opentelemetry")]
mod tests {
    use std::sync::Arc;

    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
    use rmcp::ServiceExt as _;
    use sandbox_core::layer::{Layer as _, Tracing};
    use sandbox_sessions::{Sessions, SessionsConfig};
    use sandbox_testkit::model::ModelProvider;
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    use tracing_subscriber::Layer as _;
    use tracing_subscriber::filter::filter_fn;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::tools::Tools;
    use crate::{Server, ServerOptions};

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const CALLER: &str = "00f067aa0ba902b7";

    /// Sends lines to a server, each after the answer to the one before if it has an `id`.
    async fn talk(server: Server, lines: &[String]) {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let serving = tokio::spawn(async move {
            let service = Tools::new(server.shared).serve(theirs).await.unwrap();
            service.waiting().await.unwrap();
        });
        let (read, mut write) = tokio::io::split(ours);
        let mut answers = BufReader::new(read).lines();
        for line in lines {
            write
                .write_all(format!("{line}\n").as_bytes())
                .await
                .unwrap();
            if line.contains("\"id\"") {
                let answer = answers.next_line().await.unwrap().unwrap();
                assert!(answer.contains("\"result\""), "{answer}");
            }
        }
        write.shutdown().await.unwrap();
        drop((write, answers));
        serving.await.unwrap();
    }

    fn attribute<'a>(span: &'a SpanData, name: &str) -> Option<std::borrow::Cow<'a, str>> {
        let mut all = span.attributes.iter();
        let found = all.find(|kv| kv.key.as_str() == name)?;
        Some(found.value.as_str())
    }

    #[tokio::test]
    async fn a_callers_traceparent_is_the_parent_of_what_its_call_does() {
        let exporter = InMemorySpanExporter::default();
        let spans = SdkTracerProvider::builder()
            .with_simple_exporter(exporter.clone())
            .build();
        // The protocol's library has whole requests in its events.
        let ours = filter_fn(|metadata| !metadata.target().starts_with("rmcp"));
        let layer = tracing_opentelemetry::layer()
            .with_tracer(spans.tracer("test"))
            .with_filter(ours);
        let subscriber = tracing_subscriber::registry().with(layer);
        let _in_force = tracing::subscriber::set_default(subscriber);

        let provider = Tracing::new().layer_provider(Arc::new(ModelProvider::new()));
        let sessions = Sessions::open(provider, SessionsConfig::new())
            .await
            .unwrap();
        let server = Server::new(sessions, ServerOptions::new()).unwrap();
        let call = |id: u32, tool: &str, arguments: &str, meta: &str| {
            format!(
                r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","arguments":{arguments},"_meta":{meta}}}}}"#
            )
        };
        let parent = format!(r#"{{"traceparent":"00-{TRACE}-{CALLER}-01","tracestate":"a=b"}}"#);
        let hello = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"test","version":"0"}}}"#;
        let ready = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        let run = r#"{"sandbox_id":"s","script":"echo very-secret"}"#;
        let lines = [
            hello.to_owned(),
            ready.to_owned(),
            call(2, "sandbox_create", r#"{"name":"s"}"#, &parent),
            call(3, "run", run, &parent),
            call(4, "file_read", r#"{"sandbox_id":"s","path":"no"}"#, &parent),
            call(5, "run", run, "{}"),
            call(6, "run", run, r#"{"traceparent":"00-0-0-01"}"#),
        ];
        talk(server, &lines).await;

        let spans = exporter.get_finished_spans().unwrap();
        let calls: Vec<_> = spans.iter().filter(|s| s.name == "tools/call").collect();
        let tools: Vec<_> = calls
            .iter()
            .map(|call| attribute(call, "gen_ai.tool.name").unwrap())
            .collect();
        assert_eq!(tools, ["sandbox_create", "run", "file_read", "run", "run"]);
        let below = |span: &&SpanData| span.span_context.trace_id().to_string() == TRACE;
        for call in &calls[..3] {
            assert!(below(call));
            assert_eq!(call.parent_span_id.to_string(), CALLER);
            assert_eq!(call.span_context.trace_state().get("a"), Some("b"));
        }
        assert_eq!(attribute(calls[2], "error.type").unwrap(), "tool_error");
        assert!(calls[3..].iter().all(|call| !below(call)));
        let operations: Vec<_> = spans
            .iter()
            .filter(below)
            .filter_map(|span| attribute(span, "operation"))
            .collect();
        for operation in ["create", "exec", "read_file"] {
            assert!(operations.iter().any(|o| o == operation), "{operations:?}");
        }
        assert!(!format!("{spans:?}").contains("very-secret"));
    }

    #[test]
    fn what_is_no_traceparent_names_no_caller() {
        let good = format!("00-{TRACE}-{CALLER}-01");
        assert!(caller(&good, Some("not a state")).unwrap().is_sampled());
        assert!(
            !caller(&format!("00-{TRACE}-{CALLER}-00"), None)
                .unwrap()
                .is_sampled()
        );
        // A later version, with a part that is not known yet.
        assert!(caller(&format!("01-{TRACE}-{CALLER}-01-more"), None).is_some());
        for bad in [
            String::new(),
            "00".to_owned(),
            format!("ff-{TRACE}-{CALLER}-01"),
            format!("{good}-more"),
            good.to_uppercase(),
            format!("00-{TRACE}-{CALLER}-1"),
            format!("00-{}-{CALLER}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-+{}-{CALLER}-01", &TRACE[1..]),
        ] {
            assert!(caller(&bad, None).is_none(), "{bad}");
        }
    }
}
