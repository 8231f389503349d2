//! One query, one POST: the pooled connection to a session and what may come back from it.
//!
//! Invariant: nothing here sends a query twice; no answer grows beyond the caller's bound; no proxy
//! is asked. A session is on loopback and speaks plain HTTP, so there is no TLS here.

use std::error::Error as StdError;
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
use sandbox_core::{Error, ErrorKind, Operation, Ran};
use serde_json::{Value, json};

/// The largest answer where nothing else is said.
pub(crate) const SMALL_ANSWER: u64 = 4 << 20;

/// How long a connection to loopback may take.
const CONNECT: Duration = Duration::from_secs(10);

/// How many lines of a failed build an error has.
const ERROR_LINES: usize = 20;

/// How long a connection that nobody uses is kept.
const IDLE: Duration = Duration::from_secs(60);

/// A session's address with a pool of connections.
#[derive(Clone)]
pub(crate) struct Client {
    pool: Pool<HttpConnector, Full<Bytes>>,
    url: String,
    authorization: String,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// What the connection says of itself.
type Source = Box<dyn StdError + Send + Sync>;

/// Why a query gave no data.
#[derive(Debug)]
pub(crate) enum Failed {
    /// Nothing was sent.
    NotSent(Source),
    /// The connection broke after the query went out: nobody knows what was done.
    Broken(Source),
    /// The time was up.
    Late(Duration),
    /// The answer is larger than was asked for.
    TooLarge(u64),
    /// The token was refused: nothing was done.
    Refused,
    /// Something else than the engine answered.
    Status(u16, String),
    /// The answer can't be read.
    Garbage(String),
    /// The session's client is gone: nothing was done.
    Stale(String),
    /// The engine no longer knows what the query starts from.
    Gone(String),
    /// There is no such image.
    NoImage(String),
    /// The engine does not reach the image's registry.
    NoRegistry(String),
    /// There is no such user.
    NoUser(String),
    /// The engine says no.
    Engine(String),
}

impl Client {
    /// A client of the session at this port of loopback.
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
            authorization: format!("Basic {}", STANDARD.encode(format!("{token}:"))),
        }
    }

    /// Sends a query and gives the answer's data.
    ///
    /// Dropping the future closes the connection, upon which the engine cancels the query.
    pub(crate) async fn query(
        &self,
        query: &str,
        largest: u64,
        within: Duration,
    ) -> Result<Value, Failed> {
        let answer = self.post(query, largest);
        tokio::time::timeout(within, answer)
            .await
            .unwrap_or(Err(Failed::Late(within)))
    }

    async fn post(&self, query: &str, largest: u64) -> Result<Value, Failed> {
        let body = json!({"query": query, "variables": null}).to_string();
        let request = Request::post(&self.url)
            .header(header::AUTHORIZATION, &self.authorization)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(body))
            .map_err(|error| Failed::NotSent(error.into()))?;
        let sent = |error: PoolError| match error.is_connect() {
            true => Failed::NotSent(error.into()),
            false => Failed::Broken(error.into()),
        };
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
        if status == StatusCode::UNAUTHORIZED {
            return Err(Failed::Refused);
        }
        read(&body).map_err(|failed| match failed {
            Failed::Garbage(text) if !status.is_success() => Failed::Status(status.as_u16(), text),
            other => other,
        })
    }
}

/// The data of an answer; its errors are read by hand, because extensions come in many shapes.
fn read(body: &[u8]) -> Result<Value, Failed> {
    let start = || String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
    let mut answer: Value = serde_json::from_slice(body).map_err(|_| Failed::Garbage(start()))?;
    if let Some(error) = answer.pointer("/errors/0") {
        let message = error.pointer("/message").and_then(Value::as_str);
        let message = message.unwrap_or("an error without a message").to_owned();
        return Err(classify(message, error.pointer("/extensions/stderr")));
    }
    match answer.get_mut("data").map(Value::take) {
        Some(data @ Value::Object(_)) => Ok(data),
        _ => Err(Failed::Garbage(start())),
    }
}

fn classify(mut message: String, stderr: Option<&Value>) -> Failed {
    // Of a command that the engine itself judges: those that build images.
    if let Some(stderr) = stderr.and_then(Value::as_str) {
        let lines: Vec<_> = stderr.trim().lines().rev().take(ERROR_LINES).collect();
        for line in lines.into_iter().rev() {
            message.push('\n');
            message.push_str(line);
        }
    }
    // The last two are said, with status 503, of a query that was not begun.
    let stale = [
        "client session attachables",
        "engine is shutting down",
        "session is closing",
    ];
    if stale.iter().any(|text| message.contains(text)) {
        return Failed::Stale(message);
    }
    // An id is the number of a result in the engine's memory.
    if message.contains("missing shared result") {
        return Failed::Gone(message);
    }
    if message.contains("no matching entries in passwd file") {
        return Failed::NoUser(message);
    }
    let resolving = message.contains("failed to resolve image");
    if resolving && message.contains("not found") {
        return Failed::NoImage(message);
    }
    if resolving && message.contains("failed to do request") {
        return Failed::NoRegistry(message);
    }
    Failed::Engine(message)
}

impl Failed {
    /// Whether the engine can't have started anything.
    pub(crate) fn nothing_done(&self) -> bool {
        matches!(
            self,
            Self::NotSent(_)
                | Self::Refused
                | Self::Stale(_)
                | Self::Gone(_)
                | Self::NoImage(_)
                | Self::NoRegistry(_)
                | Self::NoUser(_)
        )
    }

    /// The error of an operation. For a command, `ran` says what this failure can say.
    pub(crate) fn error(self, operation: Operation) -> Error {
        let ran = if self.nothing_done() {
            Ran::NotStarted
        } else {
            Ran::Unknown
        };
        let command = matches!(operation, Operation::Exec);
        let new = |kind, message: String| {
            let error = Error::new(kind, operation).with_message(message);
            match command {
                true => error.with_ran(ran).with_retryable(ran == Ran::NotStarted),
                false => error,
            }
        };
        match self {
            Self::NotSent(error) => new(
                ErrorKind::Unavailable,
                "the Dagger session can't be reached".into(),
            )
            .with_hint("is the engine running? the next create connects anew")
            .with_source(error),
            Self::Broken(error) => new(
                ErrorKind::Unavailable,
                "the Dagger session broke off".into(),
            )
            .with_source(error),
            Self::Late(after) => new(
                ErrorKind::Timeout,
                format!("the Dagger engine did not answer within {after:?}"),
            ),
            Self::TooLarge(largest) => new(
                ErrorKind::LimitExceeded,
                format!("the engine's answer is larger than {largest} bytes"),
            ),
            Self::Refused => new(
                ErrorKind::Unauthenticated,
                "the Dagger session refuses the token".into(),
            )
            .with_hint("check DAGGER_SESSION_TOKEN"),
            Self::Status(status, text) => new(
                ErrorKind::Unavailable,
                format!("HTTP {status} instead of an answer: {}", text.trim()),
            ),
            Self::Garbage(text) => new(
                ErrorKind::Other,
                format!("the answer can't be read: {:?}", text.trim()),
            )
            .with_retryable(false),
            Self::Stale(text) => new(ErrorKind::Unavailable, text)
                .with_hint("the session's client is gone; connect again"),
            Self::Gone(text) => new(ErrorKind::Lost, text),
            Self::NoImage(text) => new(ErrorKind::NotFound, text)
                .with_hint("check the reference, and the login of its registry"),
            Self::NoRegistry(text) => new(ErrorKind::Unavailable, text)
                .with_hint("the engine itself asks the registry: has it a network, and a proxy?"),
            Self::NoUser(text) => new(ErrorKind::NotFound, text).with_retryable(false),
            Self::Engine(text) => new(ErrorKind::Other, text).with_retryable(false),
        }
    }
}
