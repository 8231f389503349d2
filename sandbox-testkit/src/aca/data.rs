//! Sandboxes of a group: create, list, delete, and what a resource shows.
//!
//! The environment of a sandbox must never be shown.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use sandbox_core::{Command, Env, Sandbox, SandboxExt as _};
use serde_json::{Value, json};

use super::call::Call;
use super::memory::{self, Process};
use super::options::{Restore, RestoredEgress};
use super::reply::{Reply, invalid, problem};
use super::state::{Guest, State, too_many};
use super::{egress, ports, resource, volumes};

/// Disk images that the service offers to all its users; here all are the same.
pub(super) const PUBLIC: &[&str] = &["ubuntu", "python-3.13", "node-22"];

pub(super) fn failed(error: &sandbox_core::Error) -> Reply {
    problem(500, "EmulatorFailed", &error.to_string())
}

pub(super) async fn create(state: &Arc<State>, call: &Call) -> Result<Reply, Reply> {
    let mut body = call.json()?;
    check(state, &body, call.newer())?;
    if call.newer() {
        if let Some(policy) = egress::named(state, &call.group, &body)? {
            body["egressPolicy"] = policy;
        }
        if body["egressPolicy"]["http"]["trafficInspection"] == "Legacy" {
            return Err(invalid("trafficInspection", "Legacy is not taken any more"));
        }
    }
    // On a task of its own: a client that goes away does not undo a creation.
    let (state, group) = (Arc::clone(state), call.group.clone());
    let status = call.created(&state.options());
    let made = tokio::spawn(async move { make(&state, &group, &body, status).await });
    made.await
        .unwrap_or_else(|_| Err(problem(500, "EmulatorFailed", "creation ended")))
}

pub(super) fn count(state: &State, call: &Call) -> Result<Reply, Reply> {
    let guests = state.store().guests.values().cloned().collect::<Vec<_>>();
    let mut ours = guests;
    ours.retain(|guest| guest.group == call.group && state.visible(guest));
    Ok(Reply::json(200, json!({"count": ours.len()})))
}

/// Origin of a new sandbox.
struct Start {
    local: Arc<dyn Sandbox>,
    /// The snapshot, and the resources, volumes and egress policy that come with it.
    snapshot: Option<(String, Value, Value, Value)>,
    /// Processes that go on in it.
    processes: Vec<Process>,
}

async fn make(state: &Arc<State>, group: &str, body: &Value, status: u16) -> Result<Reply, Reply> {
    let options = state.options();
    let Start {
        local,
        snapshot,
        processes,
    } = start(state, group, body).await?;
    let id = uuid::Uuid::new_v4().to_string();
    let mut lifecycle = json!({
        "autoSuspendPolicy": {"enabled": true, "interval": 300, "mode": "Memory"},
    });
    // A restore that takes none starts with the default lifecycle, whatever the source's was.
    let holds = snapshot.is_none() || options.restore == Restore::Takes;
    if let (true, Some(given)) = (holds, body.get("lifecycle")) {
        lifecycle = given.clone();
        if let (true, Some(lifecycle)) = (options.ignore_auto_delete, lifecycle.as_object_mut()) {
            lifecycle.remove("autoDeletePolicy");
        }
    }
    let resources = match &snapshot {
        Some((_, resources, ..)) => resources.clone(),
        None => resources(body.get("resources")),
    };
    let volumes = match &snapshot {
        Some((_, _, volumes, _)) => volumes.clone(),
        None => body.get("volumes").cloned().unwrap_or_else(|| json!([])),
    };
    let inherited = snapshot.as_ref().map(|(_, _, _, egress)| egress.clone());
    let inherited = inherited.filter(|_| options.restored_egress == RestoredEgress::Inherited);
    let egress = match body.get("egressPolicy").filter(|_| holds) {
        Some(given) => given.clone(),
        None => inherited.unwrap_or(Value::Null),
    };
    let given = |key: &str, or: Value| body.get(key).cloned().unwrap_or(or);
    let mut document = json!({
        "id": id,
        "labels": given("labels", json!({})),
        "resources": resources,
        "sourcesRef": body.get("sourcesRef"),
        "lifecycle": lifecycle,
        "ports": [],
        "volumes": volumes,
        "connections": given("connections", json!([])),
        "egressPolicy": egress,
        "vmmType": given("vmmType", json!("CloudHypervisor")),
        "createdAt": state.clock.timestamp(),
        "region": "emulator",
        "managementUrl": state.endpoint(),
        "outboundIpAddresses": [],
    });
    for key in ["presetSandboxType", "entrypoint", "cmd"] {
        if let Some(value) = body.get(key) {
            document[key] = value.clone();
        }
    }
    if let Some((snapshot, ..)) = snapshot {
        document["snapshotId"] = json!(snapshot);
    }
    let now = state.clock.now();
    let guest = Arc::new(Guest {
        id: id.clone(),
        group: group.to_owned(),
        since: now,
        number: state.number(),
        local,
        document: Mutex::new(document),
        ports: Mutex::default(),
        life: Mutex::default(),
    });
    guest.turn(now, "Creating", options.creating, "Running");
    for port in body["ports"].as_array().into_iter().flatten() {
        ports::add(state, &guest, port.clone())?;
    }
    entrypoint(&guest, body);
    let shown = ports::shown(state, &guest);
    let local = Arc::clone(&guest.local);
    state.store().guests.insert(id.clone(), guest);
    memory::revive(state, &id, &local, processes).await;
    Ok(Reply::json(status, shown))
}

/// Starts what the body wants to run in the sandbox from the beginning.
fn entrypoint(guest: &Arc<Guest>, body: &Value) {
    let words = ["entrypoint", "cmd"].into_iter();
    let words = words.filter_map(|key| body[key].as_array()).flatten();
    let mut words = words.filter_map(Value::as_str);
    let Some(program) = words.next() else { return };
    let command = Command::new(program).args(words).output_limit(0);
    let guest = Arc::clone(guest);
    // How it ended is not reported; it ends with the sandbox at the latest.
    tokio::spawn(async move { guest.local.exec(command).await });
}

async fn start(state: &State, group: &str, body: &Value) -> Result<Start, Reply> {
    if let Some(id) = body["sourcesRef"]["snapshot"]["id"].as_str() {
        let (source, resources, volumes, egress, processes) = {
            let store = state.store();
            let known = store.snapshots.get(id).filter(|snap| snap.group == group);
            let known = known.map(|snap| {
                let resources = snap.document["resources"].clone();
                (
                    snap.local.clone(),
                    resources,
                    snap.volumes.clone(),
                    snap.egress.clone(),
                    snap.processes.clone(),
                )
            });
            known.ok_or_else(|| problem(404, "SnapshotNotFound", "there is no such snapshot"))?
        };
        let local = source.fork_one().await;
        return Ok(Start {
            local: local.map_err(|error| failed(&error))?,
            snapshot: Some((id.to_owned(), resources, volumes, egress)),
            processes,
        });
    }
    let image = &body["sourcesRef"]["diskImage"];
    let mut source = None;
    let known = match (image["name"].as_str(), image["id"].as_str()) {
        (Some(name), _) => PUBLIC.contains(&name),
        (None, Some(id)) => {
            source = resource::image(state, group, id)?;
            true
        }
        (None, None) => body["presetSandboxType"].is_string(),
    };
    if !known {
        return Err(resource::no_image());
    }
    let mounts = volumes::mounts(state, group, body)?;
    let local = match source {
        Some(_) if !mounts.is_empty() => {
            let why = "the emulator mounts volumes only into sandboxes of public images";
            return Err(problem(501, "NotEmulated", why));
        }
        Some(source) => source.fork_one().await,
        None => {
            let open = !super::policy::denies(&body["egressPolicy"]);
            state.member(open, mounts).await
        }
    };
    let local = local.map_err(|error| failed(&error))?;
    let mut env = Env::new();
    for (name, value) in body["environment"].as_object().into_iter().flatten() {
        env = env.set(name.as_str(), value.as_str().unwrap_or_default());
    }
    local.set_env(env).await.map_err(|error| failed(&error))?;
    Ok(Start {
        local,
        snapshot: None,
        processes: Vec::new(),
    })
}

fn check(state: &State, body: &Value, newer: bool) -> Result<(), Reply> {
    labels(&body["labels"])?;
    if body["sourcesRef"].is_null() && body["presetSandboxType"].is_null() {
        return Err(invalid("sourcesRef", "a source is required"));
    }
    for key in ["entrypoint", "cmd"] {
        if !body[key].is_null() && !body[key].is_array() {
            return Err(invalid(key, "must be an array"));
        }
    }
    for port in body["ports"].as_array().into_iter().flatten() {
        ports::check(port)?;
    }
    let options = state.options();
    let others = |body: &Value| body.as_object().map_or(0, serde_json::Map::len) > 1;
    if options.restore == Restore::Refuses
        && body["sourcesRef"]["snapshot"].is_object()
        && others(body)
    {
        let why = "a restore has a source and nothing else";
        return Err(invalid("sourcesRef", why));
    }
    let count = state.counts().0;
    if options.capacity.is_some_and(|most| count >= most as usize) {
        let why = "the group has as many sandboxes as it may";
        return Err(too_many(state, "SandboxQuotaExceeded", why, 30));
    }
    super::policy::check_egress(&body["egressPolicy"], newer)
}

pub(super) fn labels(labels: &Value) -> Result<(), Reply> {
    match labels {
        Value::Null => Ok(()),
        Value::Object(all) => {
            let long = |value: &Value| value.as_str().is_none_or(|text| text.len() > 63);
            match all.values().any(long) {
                true => Err(invalid(
                    "labels",
                    "a value is not a string, or is longer than 63 characters",
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
    guests.retain(|guest| guest.group == call.group && state.visible(guest));
    guests.sort_by_key(|guest| guest.number);
    let shown = guests.iter().filter_map(|guest| {
        let document = ports::shown(state, guest);
        let fits = |(key, value): (&&str, &&str)| document["labels"][*key] == json!(value);
        wanted.iter().all(fits).then_some(document)
    });
    Ok(resource::page(state, call, shown.collect()))
}

pub(super) async fn delete(state: &State, call: &Call, id: &str) -> Result<Reply, Reply> {
    let Ok(guest) = state.guest(&call.group, id) else {
        return Ok(Reply::empty(204));
    };
    let takes = state.options().deleting;
    if takes.is_zero() {
        state.forget(id).await;
    } else if guest.state(state) == "Deleting" {
        return Ok(Reply::empty(204));
    } else {
        guest.turn(state.clock.now(), "Deleting", takes, "Gone");
    }
    Ok(call.deleted(&state.options(), 200))
}
