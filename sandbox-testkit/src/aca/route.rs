//! From a request to what answers it: authority, version, path, fault.
//!
//! A path that the service does not have is a 404 here too; nothing is guessed.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, Request, Response, header};
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::fault::Action;
use super::reply::{Broken, Reply, invalid, problem};
use super::state::{Guest, State};
use super::{data, group, policy, stream};

/// The largest request body.
const BODY: usize = 1 << 30;

/// A request taken apart.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) method: String,
    /// `/subscriptions/…/sandboxGroups/NAME`
    pub(super) group: String,
    /// What stands behind the group.
    pub(super) rest: Vec<String>,
    pub(super) query: BTreeMap<String, String>,
    pub(super) body: Bytes,
}

impl Call {
    /// The body as JSON; an empty one is an empty object.
    pub(super) fn json(&self) -> Result<Value, Reply> {
        if self.body.is_empty() {
            return Ok(Value::Object(Default::default()));
        }
        serde_json::from_slice(&self.body).map_err(|_| invalid("$", "the body is no JSON"))
    }
}

pub(super) async fn answer(state: Arc<State>, mut request: Request<Body>) -> Response<Body> {
    let line = format!("{} {}", request.method(), request.uri().path());
    let id = uuid::Uuid::new_v4().to_string();
    let client = HeaderName::from_static("x-ms-client-request-id");
    let echo = request.headers().get(&client).cloned();
    state.note_request(&line);
    let fault = state.faults.take(&line);
    let mut broken = false;
    let reply = match fault {
        Some(Action::Status(status, after)) => {
            let reply = match status {
                403 => Reply::empty(403),
                _ => problem(status, "Injected", "a fault that a test asked for"),
            };
            match after {
                Some(after) => reply.with(header::RETRY_AFTER, after),
                None => reply,
            }
        }
        Some(Action::Garbage) => Reply::new(200, "application/json", "<html>\0{"),
        Some(Action::DropBefore) => {
            broken = true;
            Reply::empty(200)
        }
        Some(Action::DropAfter) => {
            broken = true;
            carry_out(&state, request).await
        }
        Some(Action::StatusAfter(status)) => {
            carry_out(&state, request).await;
            problem(status, "Injected", "a fault that a test asked for")
        }
        Some(Action::CutStream(frames)) => {
            request.extensions_mut().insert(stream::Cut(frames));
            carry_out(&state, request).await
        }
        None => carry_out(&state, request).await,
    };
    if state.options.log {
        use std::io::Write as _;
        // Nowhere is left to tell if the log can't be written.
        let _ = writeln!(std::io::stderr(), "{} {line}", reply.status);
    }
    let body = broken.then(|| Body::new(Broken));
    let mut response = reply.into_response(body);
    if let Ok(id) = id.parse() {
        response.headers_mut().insert("x-ms-request-id", id);
    }
    if let Some(echo) = echo {
        response.headers_mut().insert(client, echo);
    }
    response
}

async fn carry_out(state: &Arc<State>, request: Request<Body>) -> Reply {
    match call(state, request).await {
        Ok(reply) | Err(reply) => reply,
    }
}

async fn call(state: &Arc<State>, request: Request<Body>) -> Result<Reply, Reply> {
    let (mut head, body) = request.into_parts();
    let query = query(head.uri.query().unwrap_or_default());
    let path: Vec<String> = head.uri.path().split('/').skip(1).map(decode).collect();
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    if path[..] == ["msi", "token"] {
        return Ok(state.identity(query.get("resource").map_or("", String::as_str)));
    }
    let header = head.headers.get(header::AUTHORIZATION);
    state.authorize(header.and_then(|header| header.to_str().ok()))?;
    state.limit()?;
    if let [
        "subscriptions",
        _,
        "resourceGroups",
        _,
        "sandboxGroups",
        _,
        "sandboxes",
        id,
        "exec",
        "stream",
    ] = path[..]
    {
        // Alone in the service, it has no version.
        let guest = sandbox(state, &format!("/{}", path[..6].join("/")), id)?;
        return stream::open(state, &mut head, guest).await;
    }
    if !query.contains_key("api-version") {
        return Err(invalid("api-version", "the query parameter is required"));
    }
    let body = axum::body::to_bytes(body, BODY).await;
    let body = body.map_err(|_| problem(413, "TooLarge", "the body is too large or broke off"))?;
    let mut call = Call {
        method: head.method.to_string(),
        group: String::new(),
        rest: Vec::new(),
        query,
        body,
    };
    match path[..] {
        [
            "subscriptions",
            subscription,
            "resourceGroups",
            resources,
            "sandboxGroups",
            name,
            ref rest @ ..,
        ] => {
            call.group = format!(
                "/subscriptions/{subscription}/resourceGroups/{resources}/sandboxGroups/{name}"
            );
            call.rest = rest.iter().map(|part| (*part).to_owned()).collect();
            data(state, call).await
        }
        _ => Err(not_found()),
    }
}

async fn data(state: &Arc<State>, call: Call) -> Result<Reply, Reply> {
    let rest: Vec<&str> = call.rest.iter().map(String::as_str).collect();
    match (call.method.as_str(), &rest[..]) {
        ("PUT", ["sandboxes"]) => data::create(state, &call).await,
        ("GET", ["sandboxes"]) => data::list(state, &call),
        (_, ["sandboxes", id, operation @ ..]) => {
            guid(id)?;
            match (call.method.as_str(), operation) {
                ("DELETE", []) => data::delete(state, &call.group, id).await,
                _ => {
                    let guest = state.guest(&call.group, id)?;
                    policy::operation(state, &call, guest, operation).await
                }
            }
        }
        (_, ["snapshots", ..]) => group::snapshots(state, &call, &rest[1..]).await,
        (_, [kind @ ("diskimages" | "volumes" | "secrets"), tail @ ..]) => {
            group::resource(state, &call, kind, tail)
        }
        _ => Err(not_found()),
    }
}

fn guid(id: &str) -> Result<(), Reply> {
    match uuid::Uuid::parse_str(id) {
        Ok(_) => Ok(()),
        Err(_) => Err(invalid("id", "the identifier is no GUID")),
    }
}

fn sandbox(state: &State, group: &str, id: &str) -> Result<Arc<Guest>, Reply> {
    guid(id)?;
    state.guest(group, id)
}

pub(super) fn not_found() -> Reply {
    problem(404, "NotFound", "the service has no such path")
}

fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn query(text: &str) -> BTreeMap<String, String> {
    text.split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (decode(key), decode(&value.replace('+', " "))))
        .collect()
}
