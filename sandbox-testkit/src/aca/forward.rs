//! HTTP to a port of a sandbox: in over the port's URL, and to the program that listens in there.
//!
//! Only callers that the port lets in get through. One request takes one connection.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, Uri, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

use super::policy;
use super::reply::{Reply, problem};
use super::state::{Guest, State, not_running};

/// Part of a port's URL between the endpoint and the sandbox.
pub(super) const PREFIX: &str = "/.ports/";

/// Answers a request to a port's URL; `peer` is who asks.
pub(super) async fn answer(
    state: &Arc<State>,
    request: Request<Body>,
    peer: Option<IpAddr>,
) -> Response<Body> {
    match carry(state, request, peer).await {
        Ok(response) => response,
        Err(reply) => reply.into_response(None),
    }
}

async fn carry(
    state: &Arc<State>,
    mut request: Request<Body>,
    peer: Option<IpAddr>,
) -> Result<Response<Body>, Reply> {
    let missing = || problem(404, "PortNotFound", "there is no such port");
    let path = request.uri().path_and_query().ok_or_else(missing)?;
    let rest = path.as_str().strip_prefix(PREFIX).unwrap_or_default();
    let (id, rest) = rest.split_once('/').ok_or_else(missing)?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (number, rest) = rest.split_at(end);
    let number: u16 = number.parse().map_err(|_| missing())?;
    let guest = state.store().guests.get(id).cloned().ok_or_else(missing)?;
    let port = {
        let document = guest.document();
        let mut ports = document["ports"].as_array().into_iter().flatten();
        let found = ports.find(|port| port["port"] == number);
        found.cloned().ok_or_else(missing)?
    };
    admit(state, &request, &port, peer)?;
    awake(state, &guest, &port).await?;
    let target = if rest.starts_with('/') {
        rest.to_owned()
    } else {
        format!("/{rest}")
    };
    *request.uri_mut() = Uri::try_from(target).map_err(|_| missing())?;
    match guest.local.connect_port(number).await {
        Ok(stream) => through(stream, request).await.ok_or_else(unanswered),
        Err(_) => Err(unanswered()),
    }
}

fn unanswered() -> Reply {
    let why = "nothing in the sandbox answers on the port";
    problem(502, "NobodyListens", why)
}

/// Admits callers from where the rules say, with a token unless the port is anonymous.
fn admit(
    state: &State,
    request: &Request<Body>,
    port: &Value,
    peer: Option<IpAddr>,
) -> Result<(), Reply> {
    if !admitted(&port["ipAccessControl"], peer) {
        return Err(problem(
            403,
            "AccessDenied",
            "the port's rules deny this address",
        ));
    }
    let token = request.headers().get(header::AUTHORIZATION);
    match port["auth"]["anonymous"] == true {
        true => Ok(()),
        false => state
            .genuine(token.and_then(|token| token.to_str().ok()))
            .map(drop),
    }
}

/// The first rule by priority that has the address counts.
fn admitted(access: &Value, peer: Option<IpAddr>) -> bool {
    let mut rules: Vec<&Value> = access["rules"].as_array().into_iter().flatten().collect();
    rules.sort_by_key(|rule| rule["priority"].as_u64());
    let has = |rule: &&Value| {
        let mut networks = rule["sourceCidrs"].as_array().into_iter().flatten();
        networks.any(|network| within(network.as_str().unwrap_or_default(), peer))
    };
    let action = match rules.into_iter().find(has) {
        Some(rule) => &rule["action"],
        None => &access["defaultAction"],
    };
    *action != "Deny"
}

pub(super) fn within(network: &str, peer: Option<IpAddr>) -> bool {
    let parts = network.split_once('/');
    let Some((Ok(base), Ok(length))) =
        parts.map(|(base, length)| (base.parse::<IpAddr>(), length.parse::<u32>()))
    else {
        return false;
    };
    match (base, peer) {
        (IpAddr::V4(base), Some(IpAddr::V4(peer))) => {
            let differ = u32::from(base) ^ u32::from(peer);
            differ
                .checked_shr(32_u32.saturating_sub(length))
                .unwrap_or(0)
                == 0
        }
        (IpAddr::V6(base), Some(IpAddr::V6(peer))) => {
            let differ = u128::from(base) ^ u128::from(peer);
            differ
                .checked_shr(128_u32.saturating_sub(length))
                .unwrap_or(0)
                == 0
        }
        _ => false,
    }
}

/// A sandbox that does not run is resumed only if the port says so.
async fn awake(state: &Arc<State>, guest: &Arc<Guest>, port: &Value) -> Result<(), Reply> {
    if guest.running(state).is_ok() {
        return Ok(());
    }
    if port["activationMode"] != "OnDemand" {
        return Err(not_running());
    }
    policy::resume(state, guest).await?;
    state.clock.sleep(state.options().resuming).await;
    guest.running(state)
}

/// Sends a request over this connection, which ends with the answer; `None` if none comes.
pub(super) async fn through(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    mut request: Request<Body>,
) -> Option<Response<Body>> {
    // What the next connection does is not what this one does.
    let close = HeaderValue::from_static("close");
    request.headers_mut().insert(header::CONNECTION, close);
    *request.version_mut() = axum::http::Version::HTTP_11;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .ok()?;
    tokio::spawn(async move {
        // The answer's body ends where the connection does.
        let _ = connection.await;
    });
    let response = sender.send_request(request).await.ok()?;
    Some(response.map(Body::new))
}
