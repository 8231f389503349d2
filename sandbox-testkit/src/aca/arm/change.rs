//! Changes of what is there: patches, starts and stops.
//!
//! A container app that is started runs nothing, and a job's execution succeeds when its time is
//! up.

use serde_json::{Value, json};

use super::super::call::Call;
use super::super::reply::Reply;
use super::super::state::State;
use super::kinds::{Kind, Place};
use super::{Resource, error, missing, operations};

pub(super) fn patch(
    state: &State,
    call: &Call,
    key: &str,
    kind: &Kind,
    place: &Place<'_>,
) -> Result<Reply, Reply> {
    let changes = call.json()?;
    let takes = state.options().arm_operation;
    let document = {
        let mut kept = state.arm.kept();
        let found = kept.resources.get_mut(key).ok_or_else(missing)?;
        merge(&mut found.document, &changes);
        (kind.complete)(&mut found.document, &state.endpoint(), place);
        if kind.slow_patch && !takes.is_zero() {
            found.document["properties"]["provisioningState"] = json!("Updating");
            found.turn = Some((state.clock.now().saturating_add(takes), Some("Succeeded")));
        }
        found.document.clone()
    };
    if !kind.slow_patch || takes.is_zero() {
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

/// Starts and stops: a container app changes its state, a job gets an execution.
pub(super) fn act(state: &State, call: &Call, path: &[&str], word: &str) -> Result<Reply, Reply> {
    if call.method != "POST" {
        return Err(error(405, "MethodNotAllowed", "an action is posted"));
    }
    let own = path.get(..8).unwrap_or_default();
    let key = format!("/{}", own.join("/")).to_ascii_lowercase();
    let takes = state.options().arm_operation;
    let end = state.clock.now().saturating_add(takes);
    let mut kept = state.arm.kept();
    let found = kept.resources.get_mut(&key).ok_or_else(missing)?;
    let job = found.document["type"] == "Microsoft.App/jobs";
    if !job {
        let status = if word == "stop" { "Stopped" } else { "Running" };
        found.document["properties"]["runningStatus"] = json!(status);
        let document = found.document.clone();
        drop(kept);
        return Ok(match takes.is_zero() {
            true => Reply::json(200, document),
            false => operations::begin(state, own, Reply::empty(202), true),
        });
    }
    let id = found.document["id"].as_str().unwrap_or_default().to_owned();
    let random = uuid::Uuid::new_v4().simple().to_string();
    let name = format!("{}-{}", own.last().unwrap_or(&""), &random[..7]);
    let status = if takes.is_zero() {
        "Succeeded"
    } else {
        "Running"
    };
    let document = json!({
        "id": format!("{id}/executions/{name}"),
        "name": name,
        "type": "Microsoft.App/jobs/executions",
        "properties": {"status": status, "startTime": state.clock.timestamp()},
    });
    let answer = json!({"id": document["id"], "name": name});
    let turn = (!takes.is_zero()).then_some((end, Some("Succeeded")));
    kept.resources.insert(
        format!("{key}/executions/{name}"),
        Resource { document, turn },
    );
    Ok(Reply::json(200, answer))
}

/// Stops an execution of a job.
pub(super) fn stop(state: &State, key: &str) -> Result<Reply, Reply> {
    let key = key.strip_suffix("/stop").unwrap_or(key);
    let mut kept = state.arm.kept();
    let found = kept.resources.get_mut(key).ok_or_else(missing)?;
    if found.document["properties"]["status"] == "Running" {
        found.document["properties"]["status"] = json!("Stopped");
        found.turn = None;
    }
    Ok(Reply::empty(200))
}
