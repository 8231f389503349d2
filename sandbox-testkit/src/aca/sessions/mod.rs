//! Dynamic sessions: pools of Python and of Shell sessions and of custom containers, one local
//! sandbox for each identifier.
//!
//! Every shape of the interface is served at once, each under its own versions. It must never show
//! the session of one identifier to another.

mod execute;
mod files;
mod kernel;
mod multipart;
mod pool;
mod reply;

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri};
use futures_util::StreamExt as _;
use serde_json::json;

use super::call::{Call, not_found};
use super::ingress;
use super::reply::Reply;
use super::state::State;
use reply::{allocated, error};

pub(super) use pool::Sessions;
pub use pool::{PoolKind, SessionPool};
pub use reply::FullAs;

const OLD: &[&str] = &["2024-02-02-preview", "2024-08-02-preview"];
const NEW: &[&str] = &[
    "2024-10-02-preview",
    "2025-02-02-preview",
    "2025-10-02-preview",
];
/// Number of sessions in a page of a list.
const PAGE: usize = 100;

/// Number of them for a pool of custom containers.
const CUSTOM_PAGE: usize = 300;

/// Answers a request to the pool at `call.group`.
pub(super) async fn answer(
    state: &Arc<State>,
    headers: &HeaderMap,
    call: Call,
) -> Result<Reply, Reply> {
    let path = call.group.clone();
    let pool = state.sessions.pool(&path);
    let pool = pool.ok_or_else(|| error(404, "SessionPoolNotFound", "there is no such pool"))?;
    let version = call.query.get("api-version").map_or("", String::as_str);
    let old = OLD.contains(&version);
    if !old && !NEW.contains(&version) {
        let why = format!(
            "the version must be {} or {}",
            NEW.join(", "),
            OLD.join(", ")
        );
        return Err(error(400, "InvalidApiVersionParameter", &why));
    }
    let rest: Vec<&str> = call.rest.iter().map(String::as_str).collect();
    if pool.kind == PoolKind::CustomContainer {
        return match (call.method.as_str(), &rest[..]) {
            ("POST", [".management", word]) => manage(state, &call, word).await,
            _ => Err(not_found()),
        };
    }
    match (call.method.as_str(), &rest[..]) {
        ("GET", ["metadata"]) if !old => {
            let kind = match pool.kind {
                PoolKind::PythonLts => "PythonLTS",
                PoolKind::Shell => "Shell",
                PoolKind::CustomContainer => "CustomContainer",
            };
            return Ok(Reply::json(200, json!({"containerType": kind})));
        }
        ("GET", ["listSessions"]) if !old => return Ok(list(state, &call).await),
        _ => {}
    }
    let identifier = identifier(&call)?;
    match (call.method.as_str(), &rest[..]) {
        ("GET", ["session"]) if !old => {
            let shown = state.sessions.show(&path, identifier).await;
            return shown.map(|shown| Reply::json(200, shown)).ok_or_else(none);
        }
        ("DELETE", ["session"]) if !old => {
            return match state.sessions.delete(Some(&path), identifier).await {
                true => Ok(Reply::empty(204)),
                false => Err(none()),
            };
        }
        _ => {}
    }
    let known = match rest[..] {
        ["executions", ..] => !old,
        ["code", "execute"] => old && pool.kind == PoolKind::PythonLts,
        ["files", ..] => true,
        _ => false,
    };
    if !known {
        return Err(not_found());
    }
    // On a task of its own: a client that goes away ends nothing.
    let (state, headers) = (Arc::clone(state), headers.clone());
    let identifier = identifier.to_owned();
    let running = tokio::spawn(async move {
        let used = state.sessions.allocate(&state, &path, &pool, &identifier);
        let used = Arc::new(used.await?);
        let reply = match call.rest[0].as_str() {
            "files" => files::answer(&state, &call, &pool, &used, old).await,
            _ => execute::answer(&state, &headers, &call, &pool, &used, old).await,
        };
        Ok(allocated(reply.unwrap_or_else(|reply| reply), used.fresh))
    });
    let ended = running.await;
    ended.unwrap_or_else(|_| Err(error(500, "InternalServerError", "the call's task ended")))
}

/// Whether a request is for the container of a session.
pub(super) fn is_container(state: &State, call: &Call) -> bool {
    let management = call
        .rest
        .first()
        .is_some_and(|first| first == ".management");
    let pool = state.sessions.pool(&call.group);
    !management && pool.is_some_and(|pool| pool.kind == PoolKind::CustomContainer)
}

/// Passes a request on to the container of its session, which is started if there is none.
pub(super) async fn forward(
    state: &Arc<State>,
    call: Call,
    mut request: Request<Body>,
) -> Result<Reply, Reply> {
    let pool = state.sessions.pool(&call.group).ok_or_else(none)?;
    let identifier = identifier(&call)?.to_owned();
    // On a task of its own: a client that goes away ends nothing.
    let (of, path) = (Arc::clone(state), call.group.clone());
    let port = pool.port();
    let starting = tokio::spawn(async move {
        let allocated = of.sessions.allocate(&of, &path, &pool, &identifier);
        allocated.await
    });
    let failed = |_| error(500, "InternalServerError", "the call's task ended");
    let used = starting.await.map_err(failed)??;
    let run = used.session.run.clone().ok_or_else(none)?;
    let path = request.uri().path();
    // As it came: what is encoded in it stays so.
    let skip = call.group.matches('/').count();
    let rest = path.splitn(skip + 2, '/').nth(skip + 1).unwrap_or_default();
    let query = request
        .uri()
        .query()
        .map_or_else(String::new, |query| format!("?{query}"));
    let target = format!("/{rest}{query}").parse::<Uri>();
    *request.uri_mut() = target.map_err(|_| not_found())?;
    let fresh = used.fresh;
    let response = ingress::into(state, &run, port, request).await?;
    let (mut head, body) = response.into_parts();
    if fresh {
        let name = HeaderName::from_static("x-ms-new-allocation");
        head.headers.insert(name, HeaderValue::from_static("true"));
    }
    // In use until the answer is whole.
    let body = body.into_data_stream().map(move |chunk| {
        let _ = &used;
        chunk
    });
    let response: Response<Body> = Response::from_parts(head, Body::from_stream(body));
    Ok(Reply::switching(response))
}

/// The management of a pool of custom containers.
async fn manage(state: &Arc<State>, call: &Call, word: &str) -> Result<Reply, Reply> {
    match word {
        "listSessions" => {
            let all = state.sessions.list(&call.group).await;
            let skip = call.query.get("skip").and_then(|skip| skip.parse().ok());
            let skip: usize = skip.unwrap_or(0);
            let end = skip.saturating_add(CUSTOM_PAGE).min(all.len());
            let next = (end < all.len()).then(|| {
                let (endpoint, path) = (state.endpoint(), &call.group);
                format!("{endpoint}{path}/.management/listSessions?skip={end}")
            });
            let page: Vec<_> = all
                .get(skip..end)
                .unwrap_or_default()
                .iter()
                .map(custom)
                .collect();
            let body = json!({"value": page, "count": page.len(), "nextLink": next});
            Ok(Reply::json(200, body))
        }
        "getSession" => {
            let shown = state.sessions.show(&call.group, identifier(call)?).await;
            Ok(Reply::json(200, custom(&shown.ok_or_else(none)?)))
        }
        "stopSession" => match state
            .sessions
            .delete(Some(&call.group), identifier(call)?)
            .await
        {
            true => Ok(Reply::new(
                200,
                "text/plain; charset=utf-8",
                "Session stopped".to_owned(),
            )),
            false => Err(none()),
        },
        _ => Err(not_found()),
    }
}

/// A session as pools of custom containers show it.
fn custom(shown: &serde_json::Value) -> serde_json::Value {
    json!({"identifier": shown["identifier"], "etag": shown["etag"],
        "createdAt": shown["createdAt"], "lastAccessedAt": shown["lastAccessedAt"],
        "expiresAt": shown["expireAt"]})
}

fn none() -> Reply {
    error(404, "NoSessionFoundError", "there is no such session")
}

/// The identifier of a request: 4 to 128 characters.
fn identifier(call: &Call) -> Result<&str, Reply> {
    let given = call.query.get("identifier").map_or("", String::as_str);
    let sound = given
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "-_.@:".contains(c));
    match (4..=128).contains(&given.len()) && sound {
        true => Ok(given),
        false => Err(error(
            400,
            "SessionIdentifierInvalid",
            "the identifier must be 4 to 128 letters, digits and hyphens",
        )),
    }
}

async fn list(state: &State, call: &Call) -> Reply {
    let all = state.sessions.list(&call.group).await;
    let skip = call.query.get("skip").and_then(|skip| skip.parse().ok());
    let skip: usize = skip.unwrap_or(0);
    let size = state
        .options()
        .page
        .map_or(PAGE, |size| size.max(1) as usize);
    let end = skip.saturating_add(size).min(all.len());
    let version = call.query.get("api-version").map_or("", String::as_str);
    let next = (end < all.len()).then(|| {
        let (endpoint, path) = (state.endpoint(), &call.group);
        format!("{endpoint}{path}/listSessions?api-version={version}&skip={end}")
    });
    let page = all.get(skip..end).unwrap_or_default();
    Reply::json(200, json!({"sessions": page, "nextLink": next}))
}
