//! Sandboxes of a group: create, list, delete, and what a resource shows.
//!
//! The environment of a sandbox must never be shown.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use sandbox_core::{Env, ForkOptions, Sandbox};
use serde_json::{Value, json};

use super::group;
use super::reply::{Reply, invalid, problem};
use super::route::Call;
use super::state::{Guest, State};

/// Disk images that the service offers to everybody; here all are the same.
pub(super) const PUBLIC: &[&str] = &["ubuntu", "python-3.13", "node-22"];

pub(super) fn failed(error: &sandbox_core::Error) -> Reply {
    problem(500, "EmulatorFailed", &error.to_string())
}

pub(super) async fn create(state: &Arc<State>, call: &Call) -> Result<Reply, Reply> {
    let body = call.json()?;
    check(&body)?;
    // On a task of its own: a client that goes away does not undo a creation.
    let (state, group) = (Arc::clone(state), call.group.clone());
    let made = tokio::spawn(async move { make(&state, &group, &body).await });
    made.await
        .unwrap_or_else(|_| Err(problem(500, "EmulatorFailed", "creation ended")))
}

async fn make(state: &State, group: &str, body: &Value) -> Result<Reply, Reply> {
    let (local, snapshot) = local(state, group, body).await?;
    let id = uuid::Uuid::new_v4().to_string();
    let defaults = json!({
        "autoSuspendPolicy": {"enabled": true, "interval": 300, "mode": "Memory"},
    });
    // A restore starts with the default lifecycle, whatever the source's was.
    let lifecycle = match (&snapshot, body.get("lifecycle")) {
        (None, Some(lifecycle)) => lifecycle.clone(),
        _ => defaults,
    };
    let state_now = match state.options.creating.is_zero() {
        true => "Running",
        false => "Creating",
    };
    let mut document = json!({
        "id": id,
        "state": state_now,
        "labels": body.get("labels").cloned().unwrap_or_else(|| json!({})),
        "resources": resources(body.get("resources")),
        "sourcesRef": body.get("sourcesRef"),
        "lifecycle": lifecycle,
        "ports": [],
        "volumes": body.get("volumes").cloned().unwrap_or_else(|| json!([])),
        "connections": [],
        "egressPolicy": body.get("egressPolicy"),
        "vmmType": "CloudHypervisor",
        "createdAt": group::timestamp(),
        "region": "emulator",
        "managementUrl": state.endpoint(),
        "outboundIpAddresses": [],
    });
    if let Some(snapshot) = snapshot {
        document["snapshotId"] = json!(snapshot);
    }
    let guest = Guest {
        id: id.clone(),
        group: group.to_owned(),
        since: Instant::now(),
        number: state.number(),
        local,
        document: Mutex::new(document.clone()),
        ports: Mutex::default(),
    };
    state.store().guests.insert(id, Arc::new(guest));
    Ok(Reply::json(200, document))
}

/// What the sandbox runs in, and the snapshot that it comes from.
async fn local(
    state: &State,
    group: &str,
    body: &Value,
) -> Result<(Arc<dyn Sandbox>, Option<String>), Reply> {
    if let Some(id) = body["sourcesRef"]["snapshot"]["id"].as_str() {
        let source = {
            let store = state.store();
            let known = store.snapshots.get(id).filter(|snap| snap.group == group);
            known.map(|snap| snap.local.clone())
        };
        let source =
            source.ok_or_else(|| problem(404, "SnapshotNotFound", "there is no such snapshot"))?;
        let local = source.fork(ForkOptions::default()).await;
        return Ok((local.map_err(|error| failed(&error))?, Some(id.to_owned())));
    }
    let image = &body["sourcesRef"]["diskImage"];
    let known = match (image["name"].as_str(), image["id"].as_str()) {
        (Some(name), _) => PUBLIC.contains(&name),
        (None, Some(id)) => group::image_ready(state, group, id),
        (None, None) => body["presetSandboxType"].is_string(),
    };
    if !known {
        return Err(problem(
            404,
            "DiskImageNotFound",
            "there is no such disk image",
        ));
    }
    let open = body["egressPolicy"]["defaultAction"] != "Deny";
    let local = state.local(open).await.map_err(|error| failed(&error))?;
    let mut env = Env::new();
    if let Some(variables) = body["environment"].as_object() {
        for (name, value) in variables {
            env = env.set(name.as_str(), value.as_str().unwrap_or_default());
        }
    }
    local.set_env(env).await.map_err(|error| failed(&error))?;
    Ok((local, None))
}

fn check(body: &Value) -> Result<(), Reply> {
    labels(&body["labels"])?;
    if body["sourcesRef"].is_null() && body["presetSandboxType"].is_null() {
        return Err(invalid("sourcesRef", "a source is required"));
    }
    if !body["entrypoint"].is_null() && !body["entrypoint"].is_array() {
        return Err(invalid("entrypoint", "must be an array"));
    }
    super::policy::check_egress(&body["egressPolicy"])
}

pub(super) fn labels(labels: &Value) -> Result<(), Reply> {
    match labels {
        Value::Null => Ok(()),
        Value::Object(all) => {
            let long = |value: &Value| value.as_str().is_none_or(|text| text.len() > 63);
            match all.values().any(long) {
                true => Err(invalid(
                    "labels",
                    "a value is no string or over 63 characters",
                )),
                false => Ok(()),
            }
        }
        _ => Err(invalid("labels", "must be an object")),
    }
}

/// Resources as the service shows them: memory in Mi, processors in m.
fn resources(asked: Option<&Value>) -> Value {
    let mut shown = json!({"cpu": "1000m", "memory": "2048Mi", "disk": "20Gi"});
    for key in ["cpu", "memory", "disk"] {
        if let Some(text) = asked.and_then(|asked| asked[key].as_str()) {
            let gibibytes = text.strip_suffix("Gi").and_then(|n| n.parse::<f64>().ok());
            shown[key] = match gibibytes.filter(|_| key == "memory") {
                Some(number) => json!(format!("{}Mi", number * 1024.0)),
                None => json!(text),
            };
        }
    }
    shown
}

pub(super) fn list(state: &State, call: &Call) -> Result<Reply, Reply> {
    let wanted: BTreeMap<&str, &str> =
        call.query.get("labels").map_or_else(BTreeMap::new, |text| {
            text.split(',')
                .filter_map(|pair| pair.split_once('='))
                .collect()
        });
    let mut guests: Vec<Arc<Guest>> = state.store().guests.values().cloned().collect();
    guests
        .retain(|guest| guest.group == call.group && guest.since.elapsed() >= state.options.hidden);
    guests.sort_by_key(|guest| guest.number);
    let shown = guests.iter().filter_map(|guest| {
        guest.state(&state.options);
        let document = guest.document().clone();
        let fits = |(key, value): (&&str, &&str)| document["labels"][*key] == json!(value);
        wanted.iter().all(fits).then_some(document)
    });
    Ok(group::page(state, call, shown.collect()))
}

pub(super) async fn delete(state: &State, group: &str, id: &str) -> Result<Reply, Reply> {
    if state.guest(group, id).is_err() {
        return Ok(Reply::empty(204));
    }
    let Some(guest) = state.take(id) else {
        return Ok(Reply::empty(204));
    };
    guest.local.close().await.map_err(|error| failed(&error))?;
    let stopped = format!("stop-{id}");
    let snapshot = state.store().snapshots.remove(&stopped);
    if let Some(snapshot) = snapshot {
        snapshot
            .local
            .close()
            .await
            .map_err(|error| failed(&error))?;
    }
    Ok(Reply::json(200, json!({})))
}
