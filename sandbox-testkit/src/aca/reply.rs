//! Answers of the emulator, and problems as the service words them.
//!
//! It must never put a token or a command's text into an answer.

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Response, header};
use serde_json::{Value, json};

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(header::HeaderName, String)>,
    pub(super) body: Bytes,
    /// The response that a WebSocket starts with, in place of all that.
    switch: Option<Box<Response<Body>>>,
}

impl Reply {
    pub(super) fn new(status: u16, kind: &str, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            headers: vec![(header::CONTENT_TYPE, kind.to_owned())],
            body: body.into(),
            switch: None,
        }
    }

    pub(super) fn json(status: u16, body: Value) -> Self {
        Self::new(status, "application/json", body.to_string())
    }

    pub(super) fn empty(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Bytes::new(),
            switch: None,
        }
    }

    /// The connection becomes something else.
    pub(super) fn switching(response: Response<Body>) -> Self {
        Self {
            switch: Some(Box::new(response)),
            ..Self::empty(101)
        }
    }

    /// Title of a problem, for the log; empty for any other answer.
    pub(super) fn title(&self) -> String {
        if self.status < 400 {
            return String::new();
        }
        let body = serde_json::from_slice::<Value>(&self.body).unwrap_or_default();
        let title = body["title"].as_str().or(body["error"]["code"].as_str());
        title.map_or_else(String::new, |title| format!(" {title}"))
    }

    pub(super) fn with(mut self, name: header::HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn into_response(self, body: Option<Body>) -> Response<Body> {
        if let (Some(response), None) = (self.switch, &body) {
            return *response;
        }
        let mut response = Response::new(body.unwrap_or_else(|| Body::from(self.body)));
        if let Ok(status) = axum::http::StatusCode::from_u16(self.status) {
            *response.status_mut() = status;
        }
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

/// A problem: `application/problem+json`.
pub(super) fn problem(status: u16, title: &str, detail: &str) -> Reply {
    coded(status, title, detail, json!(1))
}

/// A problem with its code.
pub(super) fn coded(status: u16, title: &str, detail: &str, code: Value) -> Reply {
    let body = json!({
        "title": title, "status": status, "detail": detail, "errorCode": code,
        "traceId": uuid::Uuid::new_v4().simple().to_string(),
    });
    Reply::new(status, "application/problem+json", body.to_string())
}

/// A request that can't be right in this field.
pub(super) fn invalid(field: &str, why: &str) -> Reply {
    let body = json!({
        "title": "One or more validation errors occurred.", "status": 400,
        "errors": {field: [why]},
    });
    Reply::new(400, "application/problem+json", body.to_string())
}

/// A body that breaks off at once.
pub(super) struct Broken;

impl http_body::Body for Broken {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Ready(Some(Err(std::io::ErrorKind::ConnectionReset.into())))
    }
}
