//! Sources of tokens for clients: the token endpoint of Microsoft Entra, the identity endpoint of
//! App Service, the metadata service of a machine.
//!
//! Every caller gets a token, unless a switch says otherwise: this guards nothing. It must never keep
//! or show a secret.

use std::collections::BTreeMap;

use axum::http::HeaderMap;
use serde_json::{Value, json};

use super::call::{Call, query};
use super::reply::Reply;
use super::state::State;

const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Whether a path is one of those.
pub(super) fn is_path(path: &[&str]) -> bool {
    matches!(
        path,
        ["msi", "token"]
            | ["metadata", "identity", "oauth2", "token"]
            | [_, "oauth2", "v2.0", "token"]
            | [_, "v2.0", ".well-known", "openid-configuration"]
            | [_, "discovery", "v2.0", "keys"]
    )
}

pub(super) fn answer(state: &State, call: &Call, headers: &HeaderMap, path: &[&str]) -> Reply {
    let resource = call.query.get("resource").map_or("", String::as_str);
    match (call.method.as_str(), path) {
        ("GET", ["msi", "token"]) => Reply::json(200, identity(state, resource)),
        ("GET", ["metadata", ..]) => {
            // Without it, a request that a server was tricked into would get a token.
            match headers.get("metadata").is_some_and(|value| value == "true") {
                true => Reply::json(200, identity(state, resource)),
                false => Reply::json(
                    400,
                    json!({"error": "invalid_request",
                        "error_description": "Required metadata header not specified"}),
                ),
            }
        }
        ("GET", [tenant, "v2.0", ..]) => {
            let own = format!("{}/{tenant}", state.endpoint());
            Reply::json(
                200,
                json!({
                    "issuer": format!("{own}/v2.0"),
                    "authorization_endpoint": format!("{own}/oauth2/v2.0/authorize"),
                    "token_endpoint": format!("{own}/oauth2/v2.0/token"),
                    "jwks_uri": format!("{own}/discovery/v2.0/keys"),
                    "response_types_supported": ["code"],
                    "subject_types_supported": ["pairwise"],
                    "id_token_signing_alg_values_supported": ["RS256"],
                }),
            )
        }
        // The tokens are signed with no key that others could know.
        ("GET", [_, "discovery", ..]) => Reply::json(200, json!({"keys": []})),
        ("POST", [_, "oauth2", ..]) => {
            let form = query(&String::from_utf8_lossy(&call.body));
            match client(state, &form) {
                Ok(token) => Reply::json(200, token),
                Err((status, error, code, why)) => Reply::json(
                    status,
                    json!({
                        "error": error, "error_codes": [code],
                        "error_description": format!("AADSTS{code}: {why}"),
                        "timestamp": state.clock.timestamp(),
                        "trace_id": uuid::Uuid::new_v4().to_string(),
                    }),
                ),
            }
        }
        _ => Reply::empty(405),
    }
}

type Refusal = (u16, &'static str, u32, &'static str);

/// A token for a client that has a secret or an assertion of who it is.
fn client(state: &State, form: &BTreeMap<String, String>) -> Result<Value, Refusal> {
    let field = |name: &str| form.get(name).map_or("", String::as_str);
    if field("grant_type") != "client_credentials" {
        let why = "the grant type is not supported";
        return Err((400, "unsupported_grant_type", 70_003, why));
    }
    if field("client_id").is_empty() {
        let why = "the body must have a client_id";
        return Err((400, "invalid_request", 900_144, why));
    }
    let asserted =
        field("client_assertion_type") == ASSERTION && !field("client_assertion").is_empty();
    if field("client_secret").is_empty() && !asserted {
        let why = "the body must have a client_assertion or a client_secret";
        return Err((401, "invalid_client", 7_000_218, why));
    }
    if state.options().refuse_clients {
        return Err(match asserted {
            true => {
                let why = "no federated identity of the client fits the assertion";
                (401, "invalid_client", 700_213, why)
            }
            false => {
                let why = "an invalid client secret was provided";
                (401, "invalid_client", 7_000_215, why)
            }
        });
    }
    let audience = field("scope").strip_suffix("/.default");
    let audience = audience.ok_or((400, "invalid_scope", 70_011, "the scope must be /.default"))?;
    let seconds = life(state);
    Ok(json!({
        "token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds,
        "access_token": state.mint(audience, seconds),
    }))
}

/// Token for a managed identity.
fn identity(state: &State, resource: &str) -> Value {
    let seconds = life(state);
    json!({
        "access_token": state.mint(resource, seconds),
        "expires_in": seconds.to_string(),
        "expires_on": (state.seconds() + seconds).to_string(),
        "resource": resource,
        "token_type": "Bearer",
    })
}

fn life(state: &State) -> i64 {
    i64::try_from(state.options().token_life.as_secs()).unwrap_or(i64::MAX >> 1)
}
