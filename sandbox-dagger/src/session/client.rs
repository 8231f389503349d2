//! The pooled connection to a session: one query is one POST.
//!
//! Invariant: nothing here sends a query twice; no answer grows beyond the caller's bound; no proxy
//! is asked. A session is on loopback and speaks plain HTTP, so there is no TLS here.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, StatusCode, header};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client as Pool, Error as PoolError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use sandbox_core::Operation;
use sandbox_core::backend::require_runtime;
use serde_json::{Value, json};

use crate::session::failure::{Failed, classify, classify_status};
use crate::session::logs::Logs;
use crate::session::nonce::nonce;

/// The bound of an answer for which the caller has no other.
pub(crate) const SMALL_ANSWER: u64 = 4 << 20;

/// Limit of the time for a connection to loopback.
const CONNECT: Duration = Duration::from_secs(10);

/// Time that an idle connection is kept. An engine that is asked to end waits for its clients.
const IDLE: Duration = Duration::from_secs(10);

/// The name under which the engine shows what the commands of a query write: a trace of
/// <https://www.w3.org/TR/trace-context/>.
#[derive(Debug)]
pub(crate) struct Trace(String);

impl Trace {
    /// A new one.
    pub(crate) fn new() -> Self {
        Self(format!("{}{}", &nonce()[..16], &nonce()[..16]))
    }

    /// The header of the query.
    fn parent(&self) -> String {
        format!("00-{}-{}-01", self.0, &self.0[..16])
    }

    /// The name in the engine's records: its bytes in base64.
    pub(crate) fn base64(&self) -> String {
        let digits = self.0.as_bytes().chunks(2);
        let byte = |two: &[u8]| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok();
        STANDARD.encode(digits.filter_map(byte).collect::<Vec<u8>>())
    }
}

/// A session's address with a pool of connections.
#[derive(Clone)]
pub(crate) struct Client {
    pool: Pool<HttpConnector, Full<Bytes>>,
    /// Address of queries.
    url: String,
    /// Address of the stream of what commands write.
    logs: String,
    authorization: String,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the session at this port on loopback.
    pub(crate) fn new(port: u16, token: &str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT));
        let pool = Pool::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connector);
        Self {
            pool,
            url: format!("http://127.0.0.1:{port}/query"),
            logs: format!("http://127.0.0.1:{port}/v1/logs"),
            authorization: format!("Basic {}", STANDARD.encode(format!("{token}:"))),
        }
    }

    /// Sends a query and gives the answer's data.
    ///
    /// Dropping the future closes the connection, upon which the engine cancels the query.
    pub(crate) async fn query(
        &self,
        query: &str,
        trace: Option<&Trace>,
        largest: u64,
        within: Duration,
    ) -> Result<Value, Failed> {
        runtime(Operation::Connect).map_err(Failed::NoRuntime)?;
        let answer = self.post(query, trace, largest);
        tokio::time::timeout(within, answer)
            .await
            .unwrap_or(Err(Failed::Late(within)))
    }

    /// Stream of what commands of the session write, from the records after this one on. Dropping it closes
    /// its connection.
    pub(crate) async fn logs(&self, since: u64, within: Duration) -> Result<Logs, Failed> {
        runtime(Operation::Connect).map_err(Failed::NoRuntime)?;
        let request = Request::get(&self.logs)
            .header(header::AUTHORIZATION, &self.authorization)
            .header("X-Last-Event-ID", since)
            .body(Full::default())
            .map_err(|error| Failed::NotSent(error.into()))?;
        let answer = tokio::time::timeout(within, self.pool.request(request));
        let response = answer.await.map_err(|_| Failed::Late(within))?;
        let response = response.map_err(sent)?;
        let kind = response.headers().get(header::CONTENT_TYPE);
        let events = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        match response.status() {
            StatusCode::OK if events => Ok(Logs::new(response.into_body())),
            StatusCode::OK | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
                Err(Failed::NoLogs)
            }
            status => Err(classify_status(status.as_u16(), "no stream of output")),
        }
    }

    async fn post(
        &self,
        query: &str,
        trace: Option<&Trace>,
        largest: u64,
    ) -> Result<Value, Failed> {
        let body = json!({"query": query, "variables": null}).to_string();
        let mut request = Request::post(&self.url)
            .header(header::AUTHORIZATION, &self.authorization)
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(trace) = trace {
            request = request.header("traceparent", trace.parent());
        }
        let request = request
            .body(Full::from(body))
            .map_err(|error| Failed::NotSent(error.into()))?;
        let mut response = self.pool.request(request).await.map_err(sent)?;
        let status = response.status();
        let largest = if status.is_success() {
            largest
        } else {
            64 << 10
        };
        let mut body = BytesMut::new();
        while let Some(frame) = response.body_mut().frame().await {
            let frame = frame.map_err(|error| Failed::Broken(error.into()))?;
            let Ok(chunk) = frame.into_data() else {
                continue;
            };
            if (body.len() + chunk.len()) as u64 > largest {
                return Err(Failed::TooLarge(largest));
            }
            body.extend_from_slice(&chunk);
        }
        match status.is_success() {
            true => read(&body),
            // The engine refuses what it can't parse with a status of failure and a proper answer.
            false => Err(match read(&body) {
                Err(failed @ Failed::Engine(_)) if status == StatusCode::UNPROCESSABLE_ENTITY => {
                    failed
                }
                _ => classify_status(status.as_u16(), &said(&body)),
            }),
        }
    }
}

/// Fails where a connection would panic.
pub(crate) fn runtime(operation: Operation) -> sandbox_core::Result<()> {
    require_runtime(operation, io)
}

/// Use of the runtime's driver for I/O, which panics without it.
#[cfg(unix)]
fn io() {
    // Whether it can be made is another matter.
    drop(tokio::net::UnixStream::pair());
}

#[cfg(not(unix))]
fn io() {}

/// A request that failed before it had a connection was not sent.
fn sent(error: PoolError) -> Failed {
    match error.is_connect() {
        true => Failed::NotSent(error.into()),
        false => Failed::Broken(error.into()),
    }
}

/// The text of an answer with a status of failure.
fn said(body: &[u8]) -> String {
    let answer: Option<Value> = serde_json::from_slice(body).ok();
    let message = answer
        .as_ref()
        .and_then(|answer| answer.pointer("/errors/0/message"));
    match message.and_then(Value::as_str) {
        Some(message) => message.to_owned(),
        None => String::from_utf8_lossy(body).into_owned(),
    }
}

/// The data of an answer; its errors are read by hand, because extensions come in many shapes.
fn read(body: &[u8]) -> Result<Value, Failed> {
    let start = || String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
    let mut answer: Value = serde_json::from_slice(body).map_err(|_| Failed::Garbage(start()))?;
    if let Some(error) = answer.pointer("/errors/0") {
        return Err(classify(error));
    }
    match answer.get_mut("data").map(Value::take) {
        Some(data @ Value::Object(_)) => Ok(data),
        _ => Err(Failed::Garbage(start())),
    }
}

/// Reads an answer in every way, for [`crate::fuzzing`].
#[cfg(test)]
pub(crate) fn fuzzed(body: &[u8]) {
    if let Ok(data) = read(body) {
        assert!(data.is_object(), "{data}");
    }
    for status in [400, 401, 422, 502, 503] {
        let failed = classify_status(status, &said(body));
        let _ = (failed.nothing_begun(), format!("{failed:?}"));
    }
}
