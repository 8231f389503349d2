//! Output of a container as a stream: of an app's replica or of a job's execution.
//!
//! It is the guest's text: bounded, and never taken for anything but text.
//!
//! Source: <https://learn.microsoft.com/azure/container-apps/log-streaming>

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::{Method, Url};
use sandbox_core::{Error, ErrorKind, Operation, Result};
use serde::Deserialize;

use super::app::App;
use super::arm::Call;
use super::id::ResourceId;
use super::plane::ControlPlane;
use super::step::Step;
use crate::auth::{StaticToken, Tokens};
use crate::http::{Http, Plane, Request};

/// The longest line; what is longer comes in parts.
const LONGEST: usize = 64 << 10;

/// Length of the part of a line that an error shows.
const SHOWN: usize = 200;

/// Part of a log that is wanted.
///
/// ```
/// use sandbox_aca::provision::LogOptions;
/// let options = LogOptions::new().tail(100).follow(true);
/// assert_eq!(options.tail, 100);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogOptions {
    /// Whether to go on with what is written from now on. Default: no.
    pub follow: bool,
    /// Number of the last lines to begin with: 0 to 300. Default: 20.
    pub tail: u32,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl LogOptions {
    /// The last 20 lines.
    pub fn new() -> Self {
        Self {
            follow: false,
            tail: 20,
        }
    }

    sandbox_core::setters! {
        /// Goes on with what is written from now on.
        follow: bool,
    }

    /// Begins with so many of the last lines; the service has at most 300.
    #[must_use]
    pub fn tail(mut self, lines: u32) -> Self {
        self.tail = lines.min(300);
        self
    }
}

/// The lines of a container, as they come.
pub struct LogStream {
    response: reqwest::Response,
    buffer: BytesMut,
    ended: bool,
}

impl std::fmt::Debug for LogStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogStream").finish_non_exhaustive()
    }
}

impl LogStream {
    /// The next line without its end; `None` at the end of the log. A line of more than 64 KiB
    /// comes in parts. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) if the stream breaks off.
    pub async fn line(&mut self) -> Result<Option<Bytes>> {
        loop {
            let end = self
                .buffer
                .iter()
                .take(LONGEST)
                .position(|byte| *byte == b'\n');
            if let Some(end) = end {
                let mut line = self.buffer.split_to(end + 1);
                line.truncate(end);
                if line.last() == Some(&b'\r') {
                    line.truncate(end - 1);
                }
                return Ok(Some(line.freeze()));
            }
            if self.buffer.len() >= LONGEST || self.ended && !self.buffer.is_empty() {
                let most = self.buffer.len().min(LONGEST);
                return Ok(Some(self.buffer.split_to(most).freeze()));
            }
            if self.ended {
                return Ok(None);
            }
            match self.response.chunk().await {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk),
                Ok(None) => self.ended = true,
                Err(e) => {
                    return Err(Error::new(ErrorKind::Unavailable, Operation::Provision)
                        .with_message("the stream of the log broke off")
                        .with_source(e.without_url()));
                }
            }
        }
    }
}

/// A line for an error: short, and without what would change a terminal.
pub(super) fn quoted(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(SHOWN).collect()
}

#[derive(Deserialize)]
struct AuthToken {
    properties: AuthTokenProperties,
}

#[derive(Deserialize)]
struct AuthTokenProperties {
    token: String,
}

/// Opens the log of a container: `endpoint` leads to the server, `path` to the container on it, and
/// `of` gives the token for it.
pub(super) async fn open(
    plane: &ControlPlane,
    step: &Step,
    of: (&ResourceId, &'static str),
    endpoint: &str,
    path: &[&str],
    options: LogOptions,
) -> Result<LogStream> {
    let (id, version) = of;
    let token_path = id.child(&["getAuthToken"]);
    let call = Call::new(Method::POST, &token_path, version).repeat();
    let token: AuthToken = plane.sent(step, call).await?.json(step)?;
    let server = Url::parse(endpoint).map_err(|e| {
        let why = "the service names no server for its logs";
        step.error(ErrorKind::Unavailable, why).with_source(e)
    })?;
    let target = Plane {
        endpoint: server.origin().ascii_serialization(),
        prefix: Vec::new(),
        api_version: String::new(),
        ca_file: plane.config().ca_file.clone(),
        role: "Container Apps Operator",
        resource: id.to_string(),
        role_wait: Duration::ZERO,
    };
    let credential = Arc::new(StaticToken::new(token.properties.token));
    let http = Http::new(target, Tokens::new(credential, String::new()))?;
    let mut request = Request::new(Method::GET, path);
    request.query = vec![
        ("follow", options.follow.to_string()),
        ("output", "text".to_owned()),
        ("tailLines", options.tail.min(300).to_string()),
    ];
    let response = http.stream(Operation::Provision, request).await;
    Ok(LogStream {
        response: response.map_err(|failure| step.failed(failure))?,
        buffer: BytesMut::new(),
        ended: false,
    })
}

impl App {
    /// The log of the container of the latest revision's first replica.
    ///
    /// # Errors
    /// What the service answers; [`NotFound`](ErrorKind::NotFound) if nothing runs whose log there
    /// could be.
    pub async fn logs(&self, options: LogOptions) -> Result<LogStream> {
        let mut step = self.target.step("read the log of", "logs show", "");
        step.role = super::Role::APP_OPERATOR;
        let none = |what: &str| step.error(ErrorKind::NotFound, format!("there is no {what}"));
        let found = self.show().await?.ok_or_else(|| none("such app"))?;
        let revision = found.properties.latest_revision_name;
        let revision = revision.ok_or_else(|| none("revision yet"))?;
        let replicas = self.replicas(&revision).await?;
        let replica = replicas.first().ok_or_else(|| none("replica"))?;
        let container = replica.properties.containers.first();
        let container = container.ok_or_else(|| none("container"))?;
        let endpoint = found
            .properties
            .event_stream_endpoint
            .or_else(|| container.log_stream_endpoint.clone());
        let endpoint = endpoint.ok_or_else(|| none("server for logs"))?;
        let config = self.plane.config();
        let path = [
            "subscriptions",
            &config.subscription,
            "resourceGroups",
            &config.resource_group,
            "containerApps",
            self.target.id.name(),
            "revisions",
            &revision,
            "replicas",
            &replica.name,
            "containers",
            &container.name,
            "logstream",
        ];
        let of = (&self.target.id, self.target.kind.version);
        open(&self.plane, &step, of, &endpoint, &path, options).await
    }
}
