//! Routing of requests: authority, version, path, fault.
//!
//! A path that the service does not have is a 404 here too; nothing is guessed.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, Request, Response, header};

use super::auth::Plane;
use super::call::{Call, decode, is_newer, is_version, not_found, query};
use super::fault::Action;
use super::log::Entry;
use super::reply::{Broken, Reply, invalid, problem};
use super::state::State;
use super::{
    admin, arm, data, egress, entra, forward, ingress, policy, resource, sessions, snapshots,
    stream,
};

/// The largest request body.
const BODY: usize = 1 << 30;

/// Answers a request of `peer`.
pub(super) async fn answer(
    state: Arc<State>,
    mut request: Request<Body>,
    peer: Option<IpAddr>,
) -> Response<Body> {
    if let Some(host) = ingress::host(&request) {
        return ingress::answer(&state, request, peer, &host).await;
    }
    if request.uri().path().starts_with(forward::PREFIX) {
        state.sweep().await;
        return forward::answer(&state, request, peer).await;
    }
    let line = format!("{} {}", request.method(), request.uri().path());
    let started = Instant::now();
    let id = uuid::Uuid::new_v4().to_string();
    let client = HeaderName::from_static("x-ms-client-request-id");
    let echo = request.headers().get(&client).cloned();
    state.sweep().await;
    // What is asked of the emulator itself is nothing that the service could be asked.
    let own = request.uri().path().starts_with("/.emulator");
    let fault = match own {
        true => None,
        false => {
            state.note_request(&line);
            state.faults.take(&line)
        }
    };
    let injected = fault.is_some();
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
            let cut = stream::Cut {
                frames,
                silent: false,
            };
            request.extensions_mut().insert(cut);
            carry_out(&state, request).await
        }
        Some(Action::SilenceStream(frames)) => {
            let cut = stream::Cut {
                frames,
                silent: true,
            };
            request.extensions_mut().insert(cut);
            carry_out(&state, request).await
        }
        None => carry_out(&state, request).await,
    };
    if let Some(log) = &state.log {
        let note = match (injected, broken) {
            (_, true) => " (a fault: the answer breaks off)",
            (true, false) => " (a fault)",
            _ => "",
        };
        let (now, status) = (state.clock.timestamp(), reply.status);
        let took = started.elapsed().as_millis();
        let title = reply.title();
        let line = format!("{now} {status} {line} {took} ms{title}{note}\n");
        // The log has ended, or its disk is gone.
        let _ = log.send(Entry::Line(line)).await;
    }
    let body = broken.then(|| Body::new(Broken));
    let mut response = reply.into_response(body);
    if let Ok(id) = id.parse() {
        response.headers_mut().insert("x-ms-request-id", id);
    }
    // By the clock that everything here goes by.
    let date = httpdate::fmt_http_date(state.clock.date());
    if let Ok(date) = date.parse() {
        response.headers_mut().insert(header::DATE, date);
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
    let mut call = Call {
        method: head.method.to_string(),
        group: String::new(),
        rest: Vec::new(),
        query,
        body: Bytes::new(),
    };
    if entra::is_path(&path) {
        call.body = read(body).await?;
        return Ok(entra::answer(state, &call, &head.headers, &path));
    }
    if let [".emulator", rest @ ..] = &path[..] {
        call.body = read(body).await?;
        return admin::operation(state, &call, rest).await;
    }
    let plane = match (arm::is_query(&path), arm::is_path(&path), path.get(4)) {
        (true, _, _) => Plane::Logs,
        (_, true, _) => Plane::Arm,
        (_, _, Some(&"sandboxGroups")) if is_newer(&call.query) => Plane::Newer,
        _ => Plane::Data,
    };
    let header = head.headers.get(header::AUTHORIZATION);
    let header = header.and_then(|header| header.to_str().ok());
    if let Some(log) = arm::log_of(&path) {
        return arm::stream_log(state, &call, header, log);
    }
    let of_data = matches!(
        path[..],
        [
            "subscriptions",
            _,
            "resourceGroups",
            _,
            "sandboxGroups" | "sessionPools",
            _,
            ..
        ]
    );
    if matches!(plane, Plane::Data | Plane::Newer) && !of_data {
        // No audience is the right one for it.
        state.genuine(header)?;
        return Err(not_found());
    }
    state.authorize(header, plane)?;
    if plane == Plane::Logs {
        call.body = read(body).await?;
        return arm::query(state, &call).await;
    }
    if plane == Plane::Arm {
        call.body = read(body).await?;
        return arm::operation(state, &call, &path).await;
    }
    state.limit()?;
    let [
        "subscriptions",
        subscription,
        "resourceGroups",
        resources,
        of @ ("sandboxGroups" | "sessionPools"),
        name,
        ref rest @ ..,
    ] = path[..]
    else {
        return Err(not_found());
    };
    call.group = format!("/subscriptions/{subscription}/resourceGroups/{resources}/{of}/{name}");
    call.rest = rest.iter().map(|part| (*part).to_owned()).collect();
    if of == "sessionPools" && sessions::is_container(state, &call) {
        let request = Request::from_parts(head, body);
        return sessions::forward(state, call, request).await;
    }
    if of == "sessionPools" {
        call.body = read(body).await?;
        return sessions::answer(state, &head.headers, call).await;
    }
    if let ["sandboxes", id, "exec", "stream"] = rest {
        // Alone in the service, it has no version in the older one.
        state.group(&call.group)?;
        guid(id)?;
        let guest = state.guest(&call.group, id)?;
        return stream::open(state, &mut head, guest, call.newer()).await;
    }
    let version = call.query.get("api-version");
    let version =
        version.ok_or_else(|| invalid("api-version", "the query parameter is required"))?;
    // The service was seen to take any.
    if !is_version(version) && state.options().strict_versions {
        return Err(invalid("api-version", "the service has no such version"));
    }
    state.group(&call.group)?;
    call.body = read(body).await?;
    data(state, call).await
}

async fn read(body: Body) -> Result<Bytes, Reply> {
    let body = axum::body::to_bytes(body, BODY).await;
    body.map_err(|_| problem(413, "TooLarge", "the body is too large or broke off"))
}

async fn data(state: &Arc<State>, call: Call) -> Result<Reply, Reply> {
    let rest: Vec<&str> = call.rest.iter().map(String::as_str).collect();
    match (call.method.as_str(), &rest[..]) {
        (method, ["sandboxes"]) if method == call.writes() => data::create(state, &call).await,
        ("GET", ["sandboxes"]) => data::list(state, &call),
        ("GET", ["sandboxes", "count"]) if call.newer() => data::count(state, &call),
        (_, ["sandboxes", id, operation @ ..]) => {
            guid(id)?;
            match (call.method.as_str(), operation) {
                ("DELETE", []) => data::delete(state, &call, id).await,
                _ => {
                    let guest = state.guest(&call.group, id)?;
                    policy::operation(state, &call, guest, operation).await
                }
            }
        }
        (_, ["egressPolicies", tail @ ..]) if call.newer() => egress::operation(state, &call, tail),
        (_, ["snapshots", tail @ ..]) => snapshots::operation(state, &call, tail).await,
        (_, [kind @ ("diskimages" | "volumes" | "secrets"), tail @ ..]) => {
            resource::operation(state, &call, kind, tail).await
        }
        _ => Err(not_found()),
    }
}

fn guid(id: &str) -> Result<(), Reply> {
    match uuid::Uuid::parse_str(id) {
        Ok(_) => Ok(()),
        Err(_) => Err(invalid("id", "the identifier is not a GUID")),
    }
}
