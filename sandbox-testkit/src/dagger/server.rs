//! The HTTP side of the double: `POST /query` on loopback, with a token.
//!
//! Invariant: a client that closes its connection cancels what it asked for, as with the engine.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::engine::{Engine, Failure};
use super::logs;
use super::query;
use super::quirks::{Fault, LiveLogs};

/// Time that the engine waits for what a session's client offers; ten seconds with the real one.
const ATTACHABLES: Duration = Duration::from_millis(200);
/// Limit of a request, in bytes.
const MAX_REQUEST: usize = 256 << 20;

/// Answers connections until the task is dropped.
pub(super) async fn serve(listener: TcpListener, engine: Arc<Engine>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                // Small answers must not wait for the client's delayed acknowledgement.
                let _ = stream.set_nodelay(true);
                engine.count_connection();
                let engine = engine.clone();
                connections.spawn(async move {
                    let service = service_fn(move |request| {
                        let engine = engine.clone();
                        async move { answer(&engine, request).await }
                    });
                    // What a client does to its connection is its own affair.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// The connection is closed without an answer.
#[derive(Debug)]
struct Reset;

impl std::fmt::Display for Reset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the double closes this connection")
    }
}

impl std::error::Error for Reset {}

impl From<Infallible> for Reset {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

async fn answer(engine: &Arc<Engine>, request: Request<Incoming>) -> Result<Answer, Reset> {
    let given = request.headers().get(header::AUTHORIZATION);
    let is = |token: &str| {
        let expected = format!("Basic {}", BASE64.encode(format!("{token}:")));
        given.is_some_and(|given| given.as_bytes() == expected.as_bytes())
    };
    if engine.is_past(is) {
        // A client of a session that the engine does not know any more.
        tokio::time::sleep(ATTACHABLES).await;
        return Ok(stale());
    }
    if !is(&engine.token()) {
        return Ok(text(StatusCode::UNAUTHORIZED, "unauthorized\n"));
    }
    if request.uri().path() == "/v1/logs" && engine.quirks().live_logs != LiveLogs::Absent {
        let since = request.headers().get("X-Last-Event-ID");
        let since = since.and_then(|since| since.to_str().ok()?.parse().ok());
        let events = logs::subscribe(engine, since.unwrap_or(0));
        let mut response = Response::new(events.boxed_unsync());
        let kind = header::HeaderValue::from_static("text/event-stream");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        return Ok(response);
    }
    if request.uri().path() != "/query" {
        return Ok(text(StatusCode::NOT_FOUND, "404 page not found\n"));
    }
    let fault = engine.next_fault();
    match &fault {
        Some(Fault::ResetBefore) => return Err(Reset),
        Some(Fault::Status(status, body)) => {
            let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::BAD_GATEWAY);
            return Ok(text(status, body));
        }
        Some(Fault::StaleSession) => {
            return Ok(stale());
        }
        Some(Fault::NotBegun(message)) => {
            let mut refused = reply(&json!({"data": null, "errors": [{"message": message}]}));
            *refused.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            return Ok(refused);
        }
        Some(Fault::Slow(delay)) => tokio::time::sleep(*delay).await,
        _ => {}
    }
    let parent = request.headers().get("traceparent");
    let parent = parent
        .and_then(|parent| parent.to_str().ok())
        .map(str::to_owned);
    let body = Limited::new(request.into_body(), MAX_REQUEST)
        .collect()
        .await;
    let Ok(body) = body else {
        return Ok(text(StatusCode::BAD_REQUEST, "the body can't be read\n"));
    };
    let value = logs::traced(parent.as_deref(), carry_out(engine, &body.to_bytes())).await;
    match fault {
        Some(Fault::ResetAfter) => Err(Reset),
        Some(Fault::Garbage) => Ok(text(StatusCode::OK, "\u{1f}\u{8b}<html>not json")),
        Some(Fault::Oversized(bytes)) => {
            let padding = "x".repeat(bytes);
            Ok(reply(&json!({"data": {"padding": padding}})))
        }
        Some(Fault::Ending(message)) => Ok(reply(
            &json!({"data": null, "errors": [{"message": message, "path": []}]}),
        )),
        Some(Fault::NullData) => Ok(reply(&json!({"data": null}))),
        _ => Ok(reply(&value)),
    }
}

async fn carry_out(engine: &Arc<Engine>, body: &[u8]) -> Value {
    let request: Value = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => return failed(engine, &Failure::text(error)),
    };
    let text = request.get("query").and_then(Value::as_str).unwrap_or("");
    engine.count_query(text);
    let variables = request.get("variables").unwrap_or(&Value::Null);
    let done = match query::parse(text, variables) {
        Ok(fields) => engine.query(&fields).await,
        Err(error) => Err(Failure::text(error)),
    };
    match done {
        Ok(data) => json!({"data": data}),
        Err(failure) => failed(engine, &failure),
    }
}

/// The answer to a client whose session is gone.
fn stale() -> Answer {
    let message = "waiting for client session attachables: context deadline exceeded";
    reply(&json!({"data": null, "errors": [{"message": message}]}))
}

fn failed(engine: &Engine, failure: &Failure) -> Value {
    let mut error = json!({"message": failure.message, "path": failure.path});
    if let Some(exec) = &failure.exec {
        let mut extensions = exec.clone();
        if engine.quirks().extensions_without_type
            && let Some(map) = extensions.as_object_mut()
        {
            map.remove("_type");
        }
        error["extensions"] = extensions;
    }
    json!({"data": null, "errors": [error]})
}

fn reply(value: &Value) -> Answer {
    let body = Full::new(Bytes::from(value.to_string()));
    let mut response = Response::new(body.boxed_unsync());
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn text(status: StatusCode, body: &str) -> Answer {
    let body = Full::new(Bytes::from(body.to_owned()));
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    response
}
