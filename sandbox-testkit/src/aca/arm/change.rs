//! Changes of what is there: patches, starts and stops.
//!
//! What is refused must change nothing.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::call::Call;
use super::super::reply::Reply;
use super::super::state::State;
use super::kinds::{Kind, Place};
use super::{apps, error, missing, occupied, operations, strip};

pub(super) async fn patch(
    state: &Arc<State>,
    call: &Call,
    key: &str,
    kind: &Kind,
    place: &Place<'_>,
) -> Result<Reply, Reply> {
    let changes = call.json()?;
    let options = state.options();
    let takes = options.arm_operation;
    let accepts = options.arm_accepts;
    let (before, document) = {
        let mut kept = state.arm.kept();
        if let Some(reply) = occupied(state, &kept, key) {
            return Err(reply);
        }
        let found = kept.resources.get_mut(key).ok_or_else(missing)?;
        let before = found.document["properties"].clone();
        merge(&mut found.document, &changes);
        // Those within lists, which the merge takes whole.
        strip(&mut found.document);
        let secrets = &changes["properties"]["configuration"]["secrets"];
        if secrets.is_array() {
            found.secrets = secrets.clone();
        }
        (kind.complete)(&mut found.document, &state.endpoint(), place);
        if kind.slow_patch && !takes.is_zero() {
            found.document["properties"]["provisioningState"] = json!("Updating");
            found.turn = Some((state.clock.now().saturating_add(takes), Some("Succeeded")));
        }
        (before, found.document.clone())
    };
    if kind.name == "containerApps" {
        apps::renew(state, key, Some(&before)).await;
    }
    if !kind.slow_patch || takes.is_zero() && !accepts {
        return Ok(Reply::json(200, document));
    }
    let id = document["id"].as_str().unwrap_or_default();
    let path: Vec<&str> = id.split('/').skip(1).collect();
    Ok(operations::begin(state, &path, Reply::empty(202), true))
}

/// RFC 7396.
fn merge(into: &mut Value, from: &Value) {
    let Some(from) = from.as_object() else {
        *into = from.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in from {
        match (value, into.as_object_mut()) {
            (Value::Null, Some(object)) => drop(object.remove(key)),
            _ => merge(&mut into[key.as_str()], value),
        }
    }
}

/// Starts and stops a container app, and gives the key of a pool's server.
pub(super) async fn act(
    state: &Arc<State>,
    call: &Call,
    path: &[&str],
    word: &str,
) -> Result<Reply, Reply> {
    if call.method != "POST" {
        return Err(error(405, "MethodNotAllowed", "an action is posted"));
    }
    let own = path.get(..8).unwrap_or_default();
    let key = format!("/{}", own.join("/")).to_ascii_lowercase();
    let options = state.options();
    let takes = options.arm_operation;
    let end = state.clock.now().saturating_add(takes);
    let document = {
        let mut kept = state.arm.kept();
        if let Some(reply) = occupied(state, &kept, &key) {
            return Err(reply);
        }
        let found = kept.resources.get_mut(&key).ok_or_else(missing)?;
        if word == "fetchMCPServerCredentials" {
            return match found.document["properties"]["mcpServerSettings"]["mcpServerEndpoint"]
                .is_string()
            {
                true => Ok(Reply::json(200, json!({"apiKey": "emulator-key"}))),
                false => Err(error(
                    400,
                    "SessionMCPServerNotEnabled",
                    "the pool is not a server of the Model Context Protocol",
                )),
            };
        }
        let status = if word == "stop" { "Stopped" } else { "Running" };
        found.document["properties"]["runningStatus"] = json!(status);
        if !takes.is_zero() {
            found.document["properties"]["provisioningState"] = json!("InProgress");
            found.turn = Some((end, Some("Succeeded")));
        }
        found.document.clone()
    };
    state.note_command(&format!("{word} {}", own.last().unwrap_or(&"")));
    apps::turn(state, &key, word != "stop").await;
    Ok(match takes.is_zero() && !options.arm_accepts {
        true => Reply::json(200, document),
        false => operations::begin(state, own, Reply::empty(202), true),
    })
}
