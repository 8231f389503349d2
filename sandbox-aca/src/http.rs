//! Requests to the data plane: tokens, retries, bounds, and errors that say what is safe.
//!
//! A request that is not safe to repeat is sent again only where the service proves that it did
//! not accept it. Bodies and tokens must never reach a log.

use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use reqwest::{Method, StatusCode, Url};
use sandbox_core::{Error, ErrorKind, Operation, Result};
use serde_json::Value;

use crate::auth::Tokens;
use crate::config::AcaConfig;

/// How often a request is sent again for one reason.
const ATTEMPTS: u32 = 5;
/// The longest that is waited before a request is sent again.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// The role that the data plane asks for.
const ROLE: &str = "Container Apps SandboxGroup Data Owner";

/// The way to one sandbox group.
#[derive(Debug)]
pub(crate) struct Http {
    client: reqwest::Client,
    base: Url,
    config: AcaConfig,
    tokens: Tokens,
}

/// What is asked of the service.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    /// What stands behind the group's path, in parts that are not encoded.
    pub(crate) path: &'a [&'a str],
    pub(crate) query: Vec<(&'static str, String)>,
    pub(crate) json: bool,
    pub(crate) body: Bytes,
    /// Whether it may be sent again when nobody knows what came of it.
    pub(crate) repeat: bool,
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
            query: Vec::new(),
            json: false,
            body: Bytes::new(),
            timeout: Duration::from_secs(60),
            limit: 16 << 20,
        }
    }

    pub(crate) fn json(mut self, body: &Value) -> Self {
        self.json = true;
        self.body = body.to_string().into();
        self
    }
}

/// Why a request did not succeed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) status: Option<u16>,
    /// What the service calls it.
    pub(crate) title: String,
    /// Whether it may have been carried out.
    pub(crate) unknown: bool,
}

impl Http {
    pub(crate) fn new(config: AcaConfig, tokens: Tokens) -> Result<Self> {
        let invalid =
            |why: String| Error::new(ErrorKind::InvalidInput, Operation::Connect).with_message(why);
        let base = Url::parse(config.endpoint.trim_end_matches('/'))
            .map_err(|e| invalid("the endpoint is no URL".into()).with_source(e))?;
        let local = base
            .host_str()
            .is_some_and(|host| host == "localhost" || host == "127.0.0.1");
        if base.scheme() != "https" && !(base.scheme() == "http" && local) {
            return Err(invalid(
                "the endpoint must be https, or on this host".into(),
            ));
        }
        for (name, value) in [
            ("subscription", &config.subscription),
            ("resource_group", &config.resource_group),
            ("sandbox_group", &config.sandbox_group),
        ] {
            if value.is_empty() || value.contains(['/', '\\']) || value == ".." || value == "." {
                return Err(invalid(format!("{name} is empty or no name")));
            }
        }
        // Whoever installed another provider before has chosen; either serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(15))
            .redirect(reqwest::redirect::Policy::none());
        if let Some(file) = &config.ca_file {
            let read = std::fs::read(file)
                .map_err(|e| Error::from_io(e, Operation::Connect).with_host_path(file))?;
            let certificate = reqwest::Certificate::from_pem(&read)
                .map_err(|e| invalid("the certificate can't be read".into()).with_source(e))?;
            builder = builder.tls_certs_merge([certificate]);
        }
        let client = builder
            .build()
            .map_err(|e| invalid("no client can be made".into()).with_source(e))?;
        Ok(Self {
            client,
            base,
            config,
            tokens,
        })
    }

    pub(crate) fn config(&self) -> &AcaConfig {
        &self.config
    }

    /// Sends a request until it succeeds, can't, or must not be sent again.
    pub(crate) async fn send(&self, op: Operation, request: Request<'_>) -> Result<Bytes, Failure> {
        let started = Instant::now();
        let mut refused = None;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let token = self
                .tokens
                .get(refused.as_ref())
                .await
                .map_err(|error| Failure {
                    error,
                    status: None,
                    title: String::new(),
                    unknown: false,
                })?;
            let (failure, after) = match self.once(op, &request, token.expose()).await {
                Ok(bytes) => return Ok(bytes),
                Err(failed) => failed,
            };
            let left = request.timeout.saturating_sub(started.elapsed());
            let wait = match failure.status {
                Some(401) if refused.is_none() => {
                    refused = Some(token);
                    Some(Duration::ZERO)
                }
                Some(429) if attempt < ATTEMPTS => Some(after.unwrap_or(backoff(attempt))),
                Some(403) if started.elapsed() < self.config.role_wait => Some(backoff(attempt)),
                Some(408 | 500..=599) if request.repeat && attempt < ATTEMPTS => {
                    Some(after.unwrap_or(backoff(attempt)))
                }
                None if (request.repeat || !failure.unknown) && attempt < ATTEMPTS => {
                    Some(backoff(attempt))
                }
                _ => None,
            };
            match wait {
                Some(wait) if wait <= LONGEST_WAIT && wait < left => {
                    tracing::debug!(operation = %op, status = ?failure.status, attempt, "again");
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
    ) -> Result<Bytes, (Failure, Option<Duration>)> {
        let mut url = self.base.clone();
        if let Ok(mut parts) = url.path_segments_mut() {
            let config = &self.config;
            parts.pop_if_empty().extend([
                "subscriptions",
                &config.subscription,
                "resourceGroups",
                &config.resource_group,
                "sandboxGroups",
                &config.sandbox_group,
            ]);
            parts.extend(request.path);
        }
        url.query_pairs_mut()
            .append_pair("api-version", &self.config.api_version)
            .extend_pairs(
                request
                    .query
                    .iter()
                    .map(|(key, value)| (*key, value.as_str())),
            );
        let mut built = self
            .client
            .request(request.method.clone(), url)
            .timeout(request.timeout)
            .header("x-ms-client-request-id", uuid::Uuid::new_v4().to_string())
            .bearer_auth(String::from_utf8_lossy(token));
        if request.json {
            built = built.header("content-type", "application/json");
        } else if !request.body.is_empty() {
            built = built.header("content-type", "application/octet-stream");
        }
        if request.json || !request.body.is_empty() {
            built = built.body(request.body.clone());
        }
        let response = built.send().await.map_err(|e| (broke(op, e), None))?;
        let status = response.status();
        let id = header(&response, "x-ms-request-id").unwrap_or_default();
        let after = header(&response, "retry-after").and_then(|text| retry_after(&text));
        let body = read(response, request.limit).await;
        if status.is_success() {
            return body.map_err(|why| (cut(op, why, &id), None));
        }
        let body = body.unwrap_or_default();
        let problem: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let seconds = problem["retryAfterSeconds"]
            .as_u64()
            .map(Duration::from_secs);
        Err((self.failure(op, status, &problem, &id), after.or(seconds)))
    }

    fn failure(&self, op: Operation, status: StatusCode, problem: &Value, id: &str) -> Failure {
        let title = problem["title"].as_str().unwrap_or_default().to_owned();
        let code = problem["errorCode"].as_str().unwrap_or_default();
        let kind = match status.as_u16() {
            400 => ErrorKind::InvalidInput,
            401 => ErrorKind::Unauthenticated,
            403 => ErrorKind::PermissionDenied,
            404 => ErrorKind::NotFound,
            408 | 504 => ErrorKind::Unavailable,
            409 => ErrorKind::Busy,
            413 => ErrorKind::LimitExceeded,
            429 => ErrorKind::RateLimited,
            500..=599 => ErrorKind::Unavailable,
            _ => ErrorKind::Other,
        };
        let detail: String = problem["detail"]
            .as_str()
            .unwrap_or_default()
            .chars()
            .take(300)
            .collect();
        let mut error = Error::new(kind, op).with_message(format!(
            "the service answered {}{}{title}{}{detail} (request {id})",
            status.as_u16(),
            if title.is_empty() { "" } else { ", " },
            if detail.is_empty() { "" } else { ": " },
        ));
        let config = &self.config;
        error = match status.as_u16() {
            401 => error.with_hint(format!(
                "the token must be for the scope {}; get one with: az account get-access-token --scope {0}",
                self.tokens.scope()
            )),
            403 => error.with_hint(format!(
                "the caller needs the role \"{ROLE}\" on the group (new roles take minutes): az role assignment create --role \"{ROLE}\" --assignee CALLER --scope /subscriptions/{}/resourceGroups/{}/providers/Microsoft.App/sandboxGroups/{}",
                config.subscription, config.resource_group, config.sandbox_group
            )),
            _ => error,
        };
        Failure {
            error,
            status: Some(status.as_u16()),
            unknown: status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT,
            title: if code.is_empty() {
                title
            } else {
                code.to_owned()
            },
        }
    }
}

fn header(response: &reqwest::Response, name: &str) -> Option<String> {
    response
        .headers()
        .get(name)?
        .to_str()
        .ok()
        .map(str::to_owned)
}

/// A wait as the service writes it: seconds or a date; what has passed is no wait.
fn retry_after(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(text.trim()).ok()?;
    Some(at.duration_since(SystemTime::now()).unwrap_or_default())
}

fn backoff(attempt: u32) -> Duration {
    let base = Duration::from_millis(200 << attempt.min(6));
    // Some of a random number's bits, so that clients do not come back together.
    base + Duration::from_millis(u64::from(uuid::Uuid::new_v4().as_bytes()[0]))
}

/// A request that got no answer.
fn broke(op: Operation, e: reqwest::Error) -> Failure {
    let unknown = !e.is_connect() && !e.is_builder();
    let kind = if e.is_timeout() {
        ErrorKind::Timeout
    } else {
        ErrorKind::Unavailable
    };
    let what = if unknown {
        "no answer came from the service"
    } else {
        "the service can't be reached"
    };
    Failure {
        // The URL has identifiers in it.
        error: Error::new(kind, op)
            .with_message(what)
            .with_source(e.without_url()),
        status: None,
        title: String::new(),
        unknown,
    }
}

/// An answer that broke off or is too large.
fn cut(op: Operation, why: Cut, id: &str) -> Failure {
    let (kind, what) = match why {
        Cut::TooLarge(limit) => (
            ErrorKind::LimitExceeded,
            format!("the answer is over {limit} bytes"),
        ),
        Cut::Broke => (ErrorKind::Unavailable, "the answer broke off".to_owned()),
    };
    Failure {
        error: Error::new(kind, op).with_message(format!("{what} (request {id})")),
        status: match kind {
            ErrorKind::LimitExceeded => Some(200),
            _ => None,
        },
        title: String::new(),
        unknown: true,
    }
}

enum Cut {
    TooLarge(u64),
    Broke,
}

async fn read(mut response: reqwest::Response, limit: u64) -> Result<Bytes, Cut> {
    let mut all = BytesMut::new();
    loop {
        match response.chunk().await {
            Ok(None) => return Ok(all.freeze()),
            Ok(Some(chunk)) => {
                if (all.len() + chunk.len()) as u64 > limit {
                    return Err(Cut::TooLarge(limit));
                }
                all.extend_from_slice(&chunk);
            }
            Err(_) => return Err(Cut::Broke),
        }
    }
}
