//! Requests to Azure Resource Manager: typed bodies and answers, pages, links.
//!
//! A link is followed only on the server that gave it: another would get the token.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{Method, StatusCode, Url};
use sandbox_core::{ErrorKind, Operation, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::id::ResourceId;
use super::plane::ControlPlane;
use super::step::Step;
use crate::http::{Answer, Failure, Request};

const OP: Operation = Operation::Provision;

/// Number of pages that a list may have.
const PAGES: usize = 1000;

/// One request.
#[derive(Debug)]
pub(super) struct Call<'a> {
    method: Method,
    target: Target<'a>,
    version: &'static str,
    body: Option<Bytes>,
    repeat: bool,
}

#[derive(Debug)]
enum Target<'a> {
    Resource(&'a ResourceId),
    Link(Url),
}

impl<'a> Call<'a> {
    pub(super) fn new(method: Method, id: &'a ResourceId, version: &'static str) -> Self {
        Self {
            repeat: method == Method::GET || method == Method::DELETE,
            method,
            target: Target::Resource(id),
            version,
            body: None,
        }
    }

    pub(super) fn get(id: &'a ResourceId, version: &'static str) -> Self {
        Self::new(Method::GET, id, version)
    }

    pub(super) fn follow(link: Url, version: &'static str) -> Self {
        Self {
            method: Method::GET,
            target: Target::Link(link),
            version,
            body: None,
            repeat: true,
        }
    }

    /// With this body. What can't be written as JSON is sent as `null`, which the service refuses.
    pub(super) fn body(self, body: &impl Serialize) -> Self {
        let bytes = serde_json::to_vec(body).unwrap_or_else(|_| b"null".to_vec());
        self.bytes(bytes.into())
    }

    pub(super) fn bytes(mut self, body: Bytes) -> Self {
        self.body = Some(body);
        self
    }

    /// May be sent again when its outcome is unknown: twice is the same as once.
    pub(super) fn repeat(mut self) -> Self {
        self.repeat = true;
        self
    }
}

/// A successful answer of Resource Manager.
#[derive(Debug)]
pub(super) struct Answered(Answer);

impl Answered {
    pub(super) fn status(&self) -> StatusCode {
        self.0.status
    }

    pub(super) fn body(&self) -> &Bytes {
        &self.0.body
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let value = self.0.headers.get(name)?;
        value.to_str().ok()
    }

    /// Time that the service asks to wait.
    pub(super) fn wait(&self) -> Option<Duration> {
        crate::http::asked(&self.0.headers, &self.0.body)
    }

    /// Parses what it says.
    pub(super) fn json<T: DeserializeOwned>(&self, step: &Step) -> Result<T> {
        parse(step, &self.0.body)
    }
}

/// An answer as this type.
pub(super) fn parse<T: DeserializeOwned>(step: &Step, body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|e| {
        let why = "the service's answer can't be understood";
        step.error(ErrorKind::Unavailable, why).with_source(e)
    })
}

/// A page of a list.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page<T> {
    value: Vec<T>,
    next_link: Option<String>,
}

impl ControlPlane {
    /// Sends a request; says in full what came of it.
    pub(super) async fn send(&self, _: &Step, call: Call<'_>) -> Result<Answered, Failure> {
        let (parts, link) = match call.target {
            Target::Resource(id) => (id.parts(), None),
            Target::Link(link) => (Vec::new(), Some(link)),
        };
        let mut request = Request::new(call.method, &parts);
        request.link = link;
        request.api_version = Some(call.version);
        request.repeat = call.repeat;
        if let Some(body) = call.body {
            request = request.with_body("application/json", body);
        }
        self.http().answer(OP, request).await.map(Answered)
    }

    /// Sends a request that must succeed.
    pub(super) async fn sent(&self, step: &Step, call: Call<'_>) -> Result<Answered> {
        let sent = self.send(step, call).await;
        sent.map_err(|failure| step.failed(failure))
    }

    /// The resource, or `None` if it is not there.
    pub(super) async fn found(&self, step: &Step, call: Call<'_>) -> Result<Option<Answered>> {
        match self.send(step, call).await {
            Ok(answer) => Ok(Some(answer)),
            Err(failure) if failure.status == Some(404) => Ok(None),
            Err(failure) => Err(step.failed(failure)),
        }
    }

    /// Every entry of a list, over all its pages. Links may be absolute or relative.
    pub(super) async fn pages<T: DeserializeOwned>(
        &self,
        step: &Step,
        first: Call<'_>,
    ) -> Result<Vec<T>> {
        let version = first.version;
        let mut all = Vec::new();
        let mut answer = self.sent(step, first).await?;
        for _ in 0..PAGES {
            let page: Page<T> = answer.json(step)?;
            all.extend(page.value);
            let Some(link) = page.next_link.filter(|link| !link.is_empty()) else {
                return Ok(all);
            };
            let link = self.link(step, &link)?;
            answer = self.sent(step, Call::follow(link, version)).await?;
        }
        let why = format!("the list has more than {PAGES} pages");
        Err(step.error(ErrorKind::LimitExceeded, why))
    }

    /// A link of an answer.
    pub(super) fn link(&self, step: &Step, text: &str) -> Result<Url> {
        self.http().link(text).ok_or_else(|| {
            let why = "the service's answer links to another server, which is not followed";
            step.error(ErrorKind::Unavailable, why)
        })
    }
}
