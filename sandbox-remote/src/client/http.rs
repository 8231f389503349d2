//! Requests: how they are sent and sent again, and what a lost answer proves.
//!
//! Invariant: a call that may have reached the server is sent again under its name only, so that it
//! is found and not run twice; "not started" is claimed only if no request can have arrived, or the
//! server says so. Tokens and bodies must never reach a log or an error.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Body, Method, Response, StatusCode, Url};
use sandbox_core::{Error, ErrorKind, Execution, Operation, Result, Secret};
use serde::de::DeserializeOwned;

use super::call::{Call, Sent, not_started, unknown};
use super::config::RemoteConfig;
use super::incoming::{Frames, collect, parse, told};
use super::leaving::Leaving;
use crate::wire::{self, INSTANCE, OWN_TOKEN, PROTOCOL, PROTOCOL_HEADER, REQUEST_ID};

/// Time that the server may wait before it says that a call runs still.
const WAIT: Duration = Duration::from_secs(20);

/// Time that a live server takes beyond `WAIT`.
const LATE: Duration = Duration::from_secs(15);

/// The largest answer that is not a file's content: listings and output in base64.
const LARGEST: usize = 512 << 20;

/// The way to one server.
#[derive(Debug)]
pub(super) struct Http {
    client: reqwest::Client,
    config: RemoteConfig,
    /// The start of the server that is known.
    instance: Mutex<String>,
    pub(super) leaving: Leaving,
}

/// Why an attempt has no answer.
enum Lost {
    /// The request can't have arrived.
    NotSent(String),
    /// Loss of a request that may have arrived.
    Unknown(String),
    /// Answer that is an error.
    Answered(Error),
}

/// Gives up a call when it is dropped before its answer is there.
struct GiveUp<'a> {
    http: &'a Arc<Http>,
    name: Option<String>,
}

impl Drop for GiveUp<'_> {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            self.http.in_background(&["v1", "calls", &name]);
        }
    }
}

impl Http {
    pub(super) fn new(config: RemoteConfig) -> Result<Self> {
        // One that is installed already is kept; either serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let invalid =
            |why: &str| Error::new(ErrorKind::InvalidInput, Operation::Connect).with_message(why);
        let mut builder = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(10))
            // Shorter than a server keeps an idle connection.
            .pool_idle_timeout(Duration::from_secs(5))
            .pool_max_idle_per_host(32)
            .redirect(reqwest::redirect::Policy::none())
            .tcp_nodelay(true)
            .http1_only();
        if config.base.scheme() == "http" {
            builder = builder.no_proxy();
        }
        if let Some(file) = &config.ca_file {
            let read = std::fs::read(file)
                .map_err(|e| Error::from_io(e, Operation::Connect).with_host_path(file))?;
            let certificates = reqwest::Certificate::from_pem_bundle(&read).map_err(|error| {
                invalid("the certificates can't be read")
                    .with_host_path(file)
                    .with_source(error)
            })?;
            builder = builder.tls_certs_merge(certificates);
        }
        if let (Some(address), Some(host)) = (config.dial, config.base.host_str()) {
            builder = builder.no_proxy().resolve(host, address);
        }
        match &config.socket {
            #[cfg(unix)]
            Some(socket) => builder = builder.unix_socket(socket.as_path()),
            #[cfg(not(unix))]
            Some(_) => {
                let why = "this platform has none";
                return Err(Error::unsupported(Operation::Connect, "a Unix socket", why));
            }
            None => {}
        }
        let client = builder.build();
        let client = client.map_err(|error| invalid("no client can be made").with_source(error))?;
        Ok(Self {
            client,
            config,
            instance: Mutex::default(),
            leaving: Leaving::default(),
        })
    }

    pub(super) fn keeps(&self) -> bool {
        self.config.keep
    }

    /// For how long a lost answer is asked for.
    pub(super) fn horizon(&self) -> Duration {
        self.config.horizon
    }

    fn instance(&self) -> String {
        let instance = self.instance.lock();
        instance.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes note of the start of the server that is spoken to.
    pub(super) fn greet(&self, instance: &str) {
        let mut known = self.instance.lock().unwrap_or_else(PoisonError::into_inner);
        known.clear();
        known.push_str(instance);
    }

    /// Deletes something without waiting: dropping must not block.
    pub(super) fn in_background(self: &Arc<Self>, path: &[&str]) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            // The server ends it after its grace.
            return;
        };
        let http = Arc::clone(self);
        let path: Vec<String> = path.iter().map(|part| (*part).to_owned()).collect();
        runtime.spawn(async move {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            let call = Call::read(Operation::Connect, Method::DELETE, &path);
            // What can't be told ends after the server's grace.
            let _ = http.send(call).await;
        });
    }

    /// Makes a call and reads its answer.
    pub(super) async fn call<T: DeserializeOwned>(self: &Arc<Self>, call: Call<'_>) -> Result<T> {
        let operation = call.operation;
        let body = self.send(call).await?;
        parse(&body, operation)
    }

    /// Makes a call, under its name as often as needed, and gives the answer's body.
    pub(super) async fn send(self: &Arc<Self>, call: Call<'_>) -> Result<Bytes> {
        let mut guard = GiveUp {
            http: self,
            name: call.name.clone().filter(|_| call.give_up),
        };
        let answer = self.attempts(call).await;
        guard.name = None;
        answer
    }

    async fn attempts(&self, mut call: Call<'_>) -> Result<Bytes> {
        let mut uncertain = false;
        let mut since = None;
        let mut pause = Duration::from_millis(20);
        loop {
            let lost = match self.attempt(&call).await {
                Ok((StatusCode::ACCEPTED, _)) => {
                    // It runs: from now on it is asked for, not made.
                    let asked = call.name.clone().unwrap_or_default();
                    return self.answer(&call, &asked).await;
                }
                Ok((_, body)) => return Ok(body),
                Err(Lost::Answered(error)) => {
                    let interrupted = error.execution() == Some(Execution::Interrupted);
                    if error.kind() == ErrorKind::Lost && uncertain && !interrupted {
                        // The server that may have begun it is gone.
                        return Err(unknown(error));
                    }
                    return Err(error);
                }
                Err(lost) => lost,
            };
            let since = since.get_or_insert_with(Instant::now);
            let (why, patience) = match lost {
                Lost::Unknown(why) => {
                    uncertain = true;
                    (why, self.config.horizon)
                }
                Lost::NotSent(why) if uncertain => (why, self.config.horizon),
                Lost::NotSent(why) => (why, Duration::from_millis(200)),
                Lost::Answered(error) => return Err(error),
            };
            if since.elapsed() >= patience {
                return Err(self.unreachable(call.operation, why, uncertain));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
            call.query.retain(|(key, _)| *key != "wait");
        }
    }

    /// Waits for the answer of a call that runs.
    async fn answer(&self, call: &Call<'_>, name: &str) -> Result<Bytes> {
        let ask = Call::read(call.operation, Method::GET, &["v1", "calls", name]);
        let mut since = None;
        loop {
            let why = match self.attempt(&ask).await {
                Ok((StatusCode::ACCEPTED, _)) => {
                    since = None;
                    continue;
                }
                Ok((_, body)) => return Ok(body),
                Err(Lost::Answered(error)) => {
                    // Of the asking, not of the call: the server has lost it.
                    let lost = error.operation() == Operation::Connect;
                    return Err(if lost {
                        self.gone(call.operation, error)
                    } else {
                        error
                    });
                }
                Err(Lost::NotSent(why) | Lost::Unknown(why)) => why,
            };
            let since = since.get_or_insert_with(Instant::now);
            if since.elapsed() >= self.config.horizon {
                return Err(self.unreachable(call.operation, why, true));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn attempt(&self, call: &Call<'_>) -> Result<(StatusCode, Bytes), Lost> {
        let response = self.open(call).await?;
        let status = response.status();
        let body = collect(response, LARGEST).await.map_err(Lost::Unknown)?;
        if status.is_success() {
            return Ok((status, body));
        }
        let failed: wire::Failed = serde_json::from_slice(&body)
            .map_err(|_| Lost::Unknown("the server's error can't be read".into()))?;
        Err(Lost::Answered(failed.error.into_error()))
    }

    /// Opens a body that comes in frames.
    pub(super) async fn frames(&self, call: &Call<'_>) -> Result<Frames, Opened> {
        match self.open(call).await {
            Ok(response) if response.status().is_success() => Ok(Frames::new(response)),
            Ok(response) => {
                let body = collect(response, LARGEST).await.map_err(Opened::Broken)?;
                match serde_json::from_slice::<wire::Failed>(&body) {
                    Ok(failed) => Err(Opened::Refused(failed.error.into_error())),
                    Err(_) => Err(Opened::Broken("the server's error can't be read".into())),
                }
            }
            Err(Lost::Answered(error)) => Err(Opened::Refused(error)),
            Err(Lost::NotSent(why) | Lost::Unknown(why)) => Err(Opened::Broken(why)),
        }
    }

    /// Sends a request; gives an answer of this protocol.
    async fn open(&self, call: &Call<'_>) -> Result<Response, Lost> {
        crate::runtime::require(call.operation)
            .map_err(|error| Lost::Answered(not_started(error)))?;
        let mut url = self.config.base.clone();
        join(&mut url, &call.path, &call.query);
        let mut headers = HeaderMap::new();
        let own = match &self.config.token {
            Some(source) => Some(source.token().await.map_err(Lost::Answered)?),
            None => None,
        };
        let front = match &self.config.front_token {
            Some(source) => Some(source.token().await.map_err(Lost::Answered)?),
            None => None,
        };
        match (own, front) {
            (Some(own), Some(front)) => {
                headers.insert(OWN_TOKEN, bearer(&own)?);
                headers.insert(reqwest::header::AUTHORIZATION, bearer(&front)?);
            }
            (Some(one), None) | (None, Some(one)) => {
                headers.insert(reqwest::header::AUTHORIZATION, bearer(&one)?);
            }
            (None, None) => {}
        }
        let known = self.instance();
        if !known.is_empty()
            && let Ok(known) = HeaderValue::from_str(&known)
        {
            headers.insert(INSTANCE, known);
        }
        if let Some(name) = &call.name
            && let Ok(name) = HeaderValue::from_str(name)
        {
            headers.insert(REQUEST_ID, name);
        }
        let request = self
            .client
            .request(call.method.clone(), url)
            .headers(headers);
        let request = match &call.body {
            Sent::Bytes(bytes) => request.body(bytes.clone()),
            Sent::File(head, file) => request.body(file_body(head.clone(), file)?),
        };
        let upload = matches!(call.body, Sent::File(..));
        // An upload takes its time; the server cuts one that does not move.
        let patience = match upload {
            true => Duration::from_secs(24 * 3600),
            false => WAIT + LATE,
        };
        let response = match tokio::time::timeout(patience, request.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) if error.is_connect() || error.is_builder() => {
                return Err(Lost::NotSent(told(&error)));
            }
            Ok(Err(error)) => return Err(Lost::Unknown(told(&error))),
            Err(_) => return Err(Lost::Unknown("the server does not answer".into())),
        };
        let ours = response.headers().get(PROTOCOL_HEADER);
        match ours.map(HeaderValue::as_bytes) {
            Some(version) if version == PROTOCOL.as_bytes() => Ok(response),
            Some(_) => Err(Lost::Answered(not_started(
                Error::new(ErrorKind::Unsupported, call.operation)
                    .with_message("the server speaks another version of the protocol")
                    .with_hint("use the same version on both sides"),
            ))),
            None => Err(foreign(call.operation, response.status())),
        }
    }

    /// The error of a call whose server does not know it any more.
    fn gone(&self, operation: Operation, error: Error) -> Error {
        let lost = Error::new(ErrorKind::Lost, operation)
            .with_message("the call's outcome is lost: the server does not know it any more");
        unknown(lost.with_source(error))
    }

    fn unreachable(&self, operation: Operation, why: String, uncertain: bool) -> Error {
        let place = match &self.config.socket {
            Some(socket) => format!("unix:{}", socket.display()),
            None => {
                let host = self.config.base.host_str().unwrap_or_default();
                match self.config.base.port_or_known_default() {
                    Some(port) => format!("{host}:{port}"),
                    None => host.to_owned(),
                }
            }
        };
        let error = Error::new(ErrorKind::Unavailable, operation)
            .with_message(format!("the server at {place} can't be reached: {why}"))
            .with_hint("is it running, and is that its address?");
        match uncertain {
            true => unknown(error),
            false => not_started(error),
        }
    }
}

/// Why a body of frames was not opened.
pub(super) enum Opened {
    Refused(Error),
    Broken(String),
}

/// An answer of something else: a proxy before the server, or no server of ours at all.
fn foreign(operation: Operation, status: StatusCode) -> Lost {
    let error = |kind, why: &str| {
        let why = format!("{why} (HTTP status {})", status.as_u16());
        Lost::Answered(not_started(Error::new(kind, operation).with_message(why)))
    };
    match status.as_u16() {
        401 => error(
            ErrorKind::Unauthenticated,
            "what stands before the server wants other credentials",
        ),
        403 => error(
            ErrorKind::PermissionDenied,
            "what stands before the server lets no request pass",
        ),
        429 => error(
            ErrorKind::RateLimited,
            "what stands before the server has too many requests",
        ),
        // It may have passed the request on before it gave up.
        408 | 500..=599 => Lost::Unknown(format!("a proxy answered with HTTP {status}")),
        _ => error(ErrorKind::Unavailable, "no sandbox server answers there"),
    }
}

/// Adds a path and a query to those of the base.
fn join(url: &mut Url, path: &[&str], query: &[(&'static str, String)]) {
    // Only of addresses that can't be a base, which no configuration has.
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(path);
    }
    for (key, value) in query {
        url.query_pairs_mut().append_pair(key, value);
    }
}

fn bearer(token: &Secret) -> Result<HeaderValue, Lost> {
    let value = [b"Bearer ", token.expose()].concat();
    let mut value = HeaderValue::from_bytes(&value).map_err(|_| {
        Lost::Answered(
            Error::new(ErrorKind::Unauthenticated, Operation::Connect)
                .with_message("the token has bytes that a header can't carry"),
        )
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// A head and a file as a body, read from the file's beginning.
fn file_body(head: Bytes, file: &std::fs::File) -> Result<Body, Lost> {
    use std::io::Seek as _;
    use tokio::io::AsyncReadExt as _;
    let failed = |error| Lost::Answered(Error::from_io(error, Operation::ImportDir));
    let mut file = file.try_clone().map_err(failed)?;
    file.rewind().map_err(failed)?;
    let file = tokio::fs::File::from_std(file);
    let state = (Some(head), file);
    let stream = futures_util::stream::try_unfold(state, |(head, mut file)| async move {
        if let Some(head) = head {
            return Ok(Some((head, (None, file))));
        }
        let mut buffer = BytesMut::with_capacity(256 << 10);
        match file.read_buf(&mut buffer).await? {
            0 => Ok::<_, std::io::Error>(None),
            _ => Ok(Some((buffer.freeze(), (None, file)))),
        }
    });
    Ok(Body::wrap_stream(stream))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_and_query_of_the_base_stay() {
        let mut url = Url::parse("https://pool.example/p/?identifier=a%20b").unwrap();
        join(
            &mut url,
            &["v1", "sandboxes", "a/b", "exec"],
            &[("wait", "3".into())],
        );
        assert_eq!(
            url.as_str(),
            "https://pool.example/p/v1/sandboxes/a%2Fb/exec?identifier=a%20b&wait=3"
        );
    }
}
