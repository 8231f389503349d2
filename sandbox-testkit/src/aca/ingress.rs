//! Ingress of container apps: requests by an app's host name, to the container that runs.
//!
//! It must never let a caller in whom the app's rules or its authentication keep out, and never
//! pass on who a caller says that it is.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Request, Response, Uri, header};
use futures_util::StreamExt as _;
use serde_json::Value;

use super::arm;
use super::container::Run;
use super::forward::{through, within};
use super::reply::Reply;
use super::state::State;

/// Domain of every app's name.
pub(super) const DOMAIN: &str = "emulator.azurecontainerapps.io";

/// Returns the host name of a request, if it is one of an app.
pub(super) fn host(request: &Request<Body>) -> Option<String> {
    let header = request.headers().get(header::HOST);
    let header = header.and_then(|value| value.to_str().ok());
    let host = request.uri().authority().map(|authority| authority.host());
    let host = host.or(header)?.to_ascii_lowercase();
    let host = host.split(':').next().unwrap_or_default();
    let below = host.strip_suffix(DOMAIN)?.strip_suffix('.')?;
    (!below.is_empty()).then(|| host.to_owned())
}

fn refused(status: u16, why: &str) -> Reply {
    Reply::new(status, "text/plain; charset=utf-8", why.to_owned())
}

/// Answers a request to an app; `peer` is who asks.
pub(super) async fn answer(
    state: &Arc<State>,
    request: Request<Body>,
    peer: Option<IpAddr>,
    host: &str,
) -> Response<Body> {
    match carry(state, request, peer, host).await {
        Ok(response) => response,
        Err(reply) => reply.into_response(None),
    }
}

async fn carry(
    state: &Arc<State>,
    mut request: Request<Body>,
    peer: Option<IpAddr>,
    host: &str,
) -> Result<Response<Body>, Reply> {
    let stopped = || {
        let why = "Error 404 - This Container App is stopped or does not exist.";
        refused(404, why)
    };
    let app = arm::app_at(state, host).ok_or_else(stopped)?;
    let ingress = &app.document["properties"]["configuration"]["ingress"];
    if !admitted(&ingress["ipSecurityRestrictions"], peer) {
        return Err(refused(403, "RBAC: access denied"));
    }
    if ingress["clientCertificateMode"] == "require" {
        // TLS as the emulator speaks it asks for none, so that none was shown.
        return Err(refused(403, "a client certificate is required"));
    }
    for name in [
        "x-ms-client-principal",
        "x-ms-client-principal-id",
        "x-ms-client-principal-name",
        "x-forwarded-client-cert",
    ] {
        request.headers_mut().remove(name);
    }
    if let Some(auth) = &app.auth
        && let Some(principal) = authenticated(state, auth, &request)?
        && let Ok(principal) = HeaderValue::from_str(&principal)
    {
        let name = HeaderName::from_static("x-ms-client-principal-id");
        request.headers_mut().insert(name, principal);
    }
    let run = app.run.ok_or_else(stopped)?;
    let port = ingress["targetPort"].as_u64();
    let port = port.and_then(|port| u16::try_from(port).ok());
    into(state, &run, port.unwrap_or(80), request).await
}

/// Sends a request to a port of a container.
pub(super) async fn into(
    state: &Arc<State>,
    run: &Run,
    port: u16,
    mut request: Request<Body>,
) -> Result<Response<Body>, Reply> {
    let target = request.uri().path_and_query();
    let target = target.map_or("/", |target| target.as_str()).to_owned();
    let target = target.parse::<Uri>();
    *request.uri_mut() = target.map_err(|_| refused(400, "the path is none"))?;
    let unanswered = || {
        refused(
            503,
            "upstream connect error: nothing listens on the target port",
        )
    };
    let stream = run.connect(port).await.ok_or_else(unanswered)?;
    let within = state.options().ingress_timeout;
    let clock = Arc::clone(&state.clock);
    let end = clock.now().saturating_add(within);
    let response = tokio::select! {
        response = through(stream, request) => response.ok_or_else(unanswered)?,
        () = clock.sleep(within) => return Err(refused(504, "stream timeout")),
    };
    let (head, body) = response.into_parts();
    let left = async move { clock.sleep(end.saturating_sub(clock.now())).await };
    let body = body.into_data_stream().take_until(Box::pin(left));
    Ok(Response::from_parts(head, Body::from_stream(body)))
}

/// All rules allow or all deny: the addresses of the first are let in and no others, those of the
/// second are kept out.
fn admitted(rules: &Value, peer: Option<IpAddr>) -> bool {
    let rules = rules.as_array().map_or(&[][..], Vec::as_slice);
    let has = |rule: &Value| {
        let range = rule["ipAddressRange"].as_str().unwrap_or_default();
        match range.contains('/') {
            true => within(range, peer),
            false => within(&format!("{range}/32"), peer),
        }
    };
    match rules.first() {
        None => true,
        Some(first) if first["action"] == "Allow" => rules.iter().any(has),
        Some(_) => !rules.iter().any(has),
    }
}

/// Principal of the caller; nothing if the path is open to all, and the answer if the caller may
/// not.
fn authenticated(
    state: &State,
    auth: &Value,
    request: &Request<Body>,
) -> Result<Option<String>, Reply> {
    let properties = &auth["properties"];
    if properties["platform"]["enabled"] == false {
        return Ok(None);
    }
    let open = properties["globalValidation"]["excludedPaths"].as_array();
    let path = request.uri().path();
    if open.into_iter().flatten().any(|open| open == path) {
        return Ok(None);
    }
    let denied = || {
        refused(
            401,
            "You do not have permission to view this directory or page.",
        )
    };
    let header = request.headers().get(header::AUTHORIZATION);
    let header = header.and_then(|header| header.to_str().ok());
    let claims = state.claims(header).map_err(|_| denied())?;
    let validation = &properties["identityProviders"]["azureActiveDirectory"]["validation"];
    let among = |list: &Value, claim: &Value| {
        let mut list = list.as_array().into_iter().flatten();
        claim.is_string() && list.any(|one| one == claim)
    };
    if !among(&validation["allowedAudiences"], &claims["aud"]) {
        return Err(denied());
    }
    let policy = &validation["defaultAuthorizationPolicy"];
    let principals = &policy["allowedPrincipals"]["identities"];
    let applications = &policy["allowedApplications"];
    let limited = principals.is_array() || applications.is_array();
    let allowed = among(principals, &claims["oid"]) || among(applications, &claims["appid"]);
    match !limited || allowed {
        true => Ok(claims["oid"].as_str().map(str::to_owned)),
        false => Err(refused(403, "Forbidden")),
    }
}
