//! Requests to a data plane: tokens, retries, bounds, and errors that say what is safe.
//!
//! A request that is not safe to repeat is sent again only where the service proves that it did
//! not accept it. Bodies and tokens must never reach a log.

mod failure;
mod plane;
mod retry;

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode, Url};
use sandbox_core::{Error, Operation, Result, backend};
use serde_json::Value;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

pub(crate) use failure::Failure;
#[cfg(test)]
pub(crate) use failure::fuzzed;
pub(crate) use plane::{Plane, invalid};

use crate::auth::Tokens;
pub(crate) use retry::asked;

use retry::{Attempts, LONGEST_WAIT};

/// Bytes of the answer to a refused request that are read.
const PROBLEM: u64 = 64 << 10;

/// Fails where a request or a task would panic.
pub(crate) fn runtime(op: Operation) -> Result<()> {
    backend::require_runtime(op, io)
}

/// Use of the runtime's driver for I/O, which panics without it.
#[cfg(unix)]
fn io() {
    // Whether it can be made is another matter.
    drop(tokio::net::UnixStream::pair());
}

#[cfg(not(unix))]
fn io() {}

/// The way to one data plane.
pub(crate) struct Http {
    client: reqwest::Client,
    /// Speaks HTTP/1.1 only, which connections are upgraded from.
    sockets: reqwest::Client,
    base: Url,
    plane: Plane,
    tokens: Tokens,
}

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Http");
        shown
            .field("endpoint", &self.plane.endpoint)
            .finish_non_exhaustive()
    }
}

/// Request to the service.
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    /// Path behind the plane's prefix, in parts that are not encoded.
    pub(crate) path: &'a [&'a str],
    /// A link of the service in place of the path, with a query of its own.
    pub(crate) link: Option<Url>,
    /// Another version than the plane's.
    pub(crate) api_version: Option<&'static str>,
    pub(crate) query: Vec<(&'static str, String)>,
    /// The type of the body; none is sent without one.
    pub(crate) content_type: Option<String>,
    pub(crate) body: Bytes,
    /// Whether it may be sent again when its outcome is unknown.
    pub(crate) repeat: bool,
    /// Whether it has no token in its header.
    pub(crate) bare: bool,
    pub(crate) timeout: Duration,
    /// The largest answer.
    pub(crate) limit: u64,
}

impl<'a> Request<'a> {
    pub(crate) fn new(method: Method, path: &'a [&'a str]) -> Self {
        Self {
            repeat: method == Method::GET || method == Method::DELETE,
            method,
            path,
            link: None,
            api_version: None,
            query: Vec::new(),
            content_type: None,
            body: Bytes::new(),
            bare: false,
            timeout: Duration::from_secs(60),
            limit: 16 << 20,
        }
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.with_body("application/json", body.to_string().into())
    }

    pub(crate) fn with_body(mut self, content_type: impl Into<String>, body: Bytes) -> Self {
        self.content_type = Some(content_type.into());
        self.body = body;
        self
    }
}

/// A successful answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Destination of the body of an answer.
enum Sink {
    Memory(BytesMut),
    /// No body: the connection becomes a WebSocket.
    Socket(Option<reqwest::Upgraded>),
    /// The body is read as it comes, for as long as it comes.
    Stream(Option<reqwest::Response>),
}

/// The JSON of an answer.
pub(crate) fn parse(op: Operation, bytes: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(bytes).map_err(|_| Failure::garbled(op))
}

impl Http {
    /// A way to this plane. Sends nothing yet.
    pub(crate) fn new(plane: Plane, tokens: Tokens) -> Result<Self> {
        let base = plane.base()?;
        // One that is installed already is kept; either serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let certificate =
            match &plane.ca_file {
                None => None,
                Some(file) => {
                    let read = std::fs::read(file)
                        .map_err(|e| Error::from_io(e, Operation::Connect).with_host_path(file))?;
                    let certificate = reqwest::Certificate::from_pem(&read);
                    Some(certificate.map_err(|e| {
                        invalid("the certificate can't be read".into()).with_source(e)
                    })?)
                }
            };
        let client = || {
            reqwest::Client::builder()
                .connect_timeout(Duration::from_secs(15))
                .redirect(reqwest::redirect::Policy::none())
                .tls_certs_merge(certificate.clone())
        };
        let failed = |e| invalid("no client can be made".into()).with_source(e);
        Ok(Self {
            client: client().build().map_err(failed)?,
            sockets: client().http1_only().build().map_err(failed)?,
            base,
            plane,
            tokens,
        })
    }

    /// Sends a request until it succeeds, can't, or must not be sent again; gives the body.
    pub(crate) async fn send(&self, op: Operation, request: Request<'_>) -> Result<Bytes, Failure> {
        self.answer(op, request).await.map(|answer| answer.body)
    }

    /// Sends a request and returns the answer with its headers.
    pub(crate) async fn answer(
        &self,
        op: Operation,
        request: Request<'_>,
    ) -> Result<Answer, Failure> {
        let mut sink = Sink::Memory(BytesMut::new());
        let (status, headers) = self.repeated(op, &request, &mut sink).await?;
        let body = match sink {
            Sink::Memory(body) => body.freeze(),
            Sink::Socket(_) | Sink::Stream(_) => Bytes::new(),
        };
        Ok(Answer {
            status,
            headers,
            body,
        })
    }

    /// Sends a request for a body to read as it comes; the answer's head ends the request's time.
    pub(crate) async fn stream(
        &self,
        op: Operation,
        request: Request<'_>,
    ) -> Result<reqwest::Response, Failure> {
        let mut sink = Sink::Stream(None);
        self.repeated(op, &request, &mut sink).await?;
        match sink {
            Sink::Stream(Some(response)) => Ok(response),
            _ => Err(Failure::garbled(op)),
        }
    }

    /// Opens a WebSocket, with the version in its query if so wanted. Nothing runs behind it yet,
    /// so that it may be tried again.
    pub(crate) async fn upgrade(
        &self,
        op: Operation,
        path: &[&str],
        versioned: bool,
    ) -> Result<reqwest::Upgraded, Failure> {
        let mut sink = Sink::Socket(None);
        let mut request = Request::new(Method::GET, path);
        if versioned {
            let version = self.plane.api_version.clone();
            request.query.push(("api-version", version));
        }
        self.repeated(op, &request, &mut sink).await?;
        match sink {
            Sink::Socket(Some(socket)) => Ok(socket),
            _ => Err(Failure::garbled(op)),
        }
    }

    async fn repeated(
        &self,
        op: Operation,
        request: &Request<'_>,
        sink: &mut Sink,
    ) -> Result<(StatusCode, HeaderMap), Failure> {
        runtime(op).map_err(Failure::before)?;
        let started = Instant::now();
        let mut refused = None;
        let mut count = 0;
        loop {
            count += 1;
            let token = self.tokens.get(refused.as_ref()).await;
            let token = token.map_err(Failure::before)?;
            let (failure, asked) = match self.once(op, request, token.expose(), sink).await {
                Ok(answered) => return Ok(answered),
                Err(failed) => failed,
            };
            let attempts = Attempts {
                count,
                refused: refused.is_some(),
                role_may_come: started.elapsed() < self.plane.role_wait,
                repeat: request.repeat,
            };
            if failure.status == Some(401) {
                refused = Some(token);
            }
            let patience = attempts.patience(&failure, request.timeout, self.plane.role_wait);
            let left = patience.saturating_sub(started.elapsed());
            match attempts.wait(&failure, asked) {
                Some(wait) if wait <= LONGEST_WAIT && wait < left => {
                    tracing::debug!(operation = %op, status = ?failure.status, count, "again");
                    tokio::time::sleep(wait).await;
                }
                _ => return Err(failure),
            }
        }
    }

    async fn once(
        &self,
        op: Operation,
        request: &Request<'_>,
        token: &[u8],
        sink: &mut Sink,
    ) -> Result<(StatusCode, HeaderMap), (Failure, Option<Duration>)> {
        let mut url = match &request.link {
            Some(link) => link.clone(),
            None => self.url(request.path),
        };
        let key = STANDARD.encode(uuid::Uuid::new_v4().as_bytes());
        let pairs = request.query.iter();
        let pairs = pairs.map(|(key, value)| (*key, value.as_str()));
        let mut built = match sink {
            Sink::Socket(_) => {
                if !request.query.is_empty() {
                    url.query_pairs_mut().extend_pairs(pairs);
                }
                self.sockets
                    .get(url)
                    .header("connection", "Upgrade")
                    .header("upgrade", "websocket")
                    .header("sec-websocket-version", "13")
                    .header("sec-websocket-key", &key)
            }
            _ => {
                if !url.query_pairs().any(|(key, _)| key == "api-version") {
                    let version = request.api_version.unwrap_or(&self.plane.api_version);
                    // A service without versions has an empty one.
                    if !version.is_empty() {
                        url.query_pairs_mut().append_pair("api-version", version);
                    }
                }
                url.query_pairs_mut().extend_pairs(pairs);
                let built = self.client.request(request.method.clone(), url);
                match sink {
                    Sink::Stream(_) => built,
                    _ => built.timeout(request.timeout),
                }
            }
        };
        built = built.header("x-ms-client-request-id", uuid::Uuid::new_v4().to_string());
        if !request.bare {
            built = built.bearer_auth(String::from_utf8_lossy(token));
        }
        if let Some(content_type) = &request.content_type {
            built = built
                .header("content-type", content_type)
                .body(request.body.clone());
        }
        // A socket stays open behind its answer, which alone is bounded.
        let sent = tokio::time::timeout(request.timeout, built.send()).await;
        let sent = sent.map_err(|_| (Failure::silent(op), None))?;
        let mut response = sent.map_err(|e| (Failure::broke(op, e), None))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let id = headers.get("x-ms-request-id");
        let id = id.and_then(|id| id.to_str().ok()).unwrap_or("unknown");
        if let (Sink::Socket(socket), StatusCode::SWITCHING_PROTOCOLS) = (&mut *sink, status) {
            let accepted = headers.get("sec-websocket-accept");
            if accepted.is_none_or(|theirs| *theirs != *derive_accept_key(key.as_bytes())) {
                return Err((Failure::garbled(op), None));
            }
            let upgraded = response.upgrade().await;
            *socket = Some(upgraded.map_err(|e| (Failure::broke(op, e), None))?);
            return Ok((status, headers));
        }
        if !status.is_success() {
            let mut said = Sink::Memory(BytesMut::new());
            // What can't be read of a refusal is left out.
            let _ = read(op, &mut response, PROBLEM, id, &mut said).await;
            let said = match said {
                Sink::Memory(said) => said,
                Sink::Socket(_) | Sink::Stream(_) => BytesMut::new(),
            };
            let scope = self.tokens.scope();
            let failure = Failure::answered(op, status, &said, id, &self.plane, scope);
            return Err((failure, asked(&headers, &said)));
        }
        if let Sink::Stream(stream) = sink {
            *stream = Some(response);
            return Ok((status, headers));
        }
        let done = read(op, &mut response, request.limit, id, sink).await;
        done.map_err(|failure| (failure, None))?;
        Ok((status, headers))
    }

    /// A link of the service's answer as a URL; `None` if it leads to another server, which must
    /// not get the token. It may be relative.
    pub(crate) fn link(&self, text: &str) -> Option<Url> {
        let url = self.base.join(text).ok()?;
        (url.origin() == self.base.origin()).then_some(url)
    }

    /// The version of the interface that requests name.
    pub(crate) fn api_version(&self) -> &str {
        &self.plane.api_version
    }

    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut parts) = url.path_segments_mut() {
            parts.extend(path);
        }
        url
    }
}

/// Reads an answer; a second attempt starts over.
async fn read(
    op: Operation,
    response: &mut reqwest::Response,
    limit: u64,
    id: &str,
    sink: &mut Sink,
) -> Result<(), Failure> {
    let Sink::Memory(all) = sink else {
        return Err(Failure::garbled(op));
    };
    all.clear();
    let mut size = 0;
    loop {
        let chunk = response.chunk().await;
        let Some(chunk) = chunk.map_err(|_| Failure::cut(op, id))? else {
            break;
        };
        size += chunk.len() as u64;
        if size > limit {
            return Err(Failure::too_large(op, limit, id));
        }
        all.extend_from_slice(&chunk);
    }
    Ok(())
}
