//! Volumes of a group: directories of this host, mounted into sandboxes when they are created.
//!
//! One that a sandbox has is never taken away under it. Sizes are kept and not enforced.

use sandbox_core::{GuestPath, Mount};
use serde_json::{Value, json};

use super::call::Call;
use super::reply::{Reply, coded, invalid, problem};
use super::state::State;

const KINDS: &[&str] = &["AzureBlob", "DataDisk", "AzureBlobByo"];

fn path(group: &str, name: &str) -> String {
    format!("{group}/volumes/{name}")
}

/// Makes a volume; one that is there keeps what is on it.
pub(super) fn put(state: &State, call: &Call, name: &str) -> Result<Reply, Reply> {
    let mut body = call.json()?;
    if !KINDS.contains(&body["type"].as_str().unwrap_or_default()) {
        return Err(invalid("type", "is not a type of volume"));
    }
    if body["type"] == "DataDisk" && !body["size"].is_string() {
        return Err(invalid("size", "a data disk has a size"));
    }
    body["volumeName"] = json!(name);
    let path = path(&call.group, name);
    let mut store = state.store();
    if !store.volumes.contains_key(&path) {
        let dir = state.volumes.path().join(uuid::Uuid::new_v4().to_string());
        std::fs::create_dir(&dir).map_err(|e| problem(500, "EmulatorFailed", &e.to_string()))?;
        store.volumes.insert(path.clone(), dir);
    }
    store.resources.insert(path, body.clone());
    drop(store);
    let status = call.created(&state.options());
    Ok(Reply::json(status, shown(state, &call.group, body)))
}

/// A volume with whether a sandbox has it.
pub(super) fn shown(state: &State, group: &str, mut volume: Value) -> Value {
    volume["isAttached"] = json!(attached(state, group, &volume["volumeName"]));
    volume
}

fn attached(state: &State, group: &str, name: &Value) -> bool {
    let store = state.store();
    let mut guests = store.guests.values().filter(|guest| guest.group == group);
    guests.any(|guest| {
        let document = guest.document();
        let mut mounted = document["volumes"].as_array().into_iter().flatten();
        mounted.any(|mounted| mounted["volumeName"] == *name)
    })
}

pub(super) fn delete(state: &State, call: &Call, name: &str) -> Result<Reply, Reply> {
    let group = &call.group;
    if attached(state, group, &json!(name)) {
        let why = "a sandbox has the volume";
        return Err(coded(409, "VolumeInUse", why, json!(1)));
    }
    let path = path(group, name);
    let dir = {
        let mut store = state.store();
        store.resources.remove(&path);
        store.volumes.remove(&path)
    };
    let dir = dir.ok_or_else(|| problem(404, "NotFound", "there is no such resource"))?;
    std::fs::remove_dir_all(dir).map_err(|e| problem(500, "EmulatorFailed", &e.to_string()))?;
    Ok(call.deleted(&state.options(), 202))
}

/// Volumes that the body of a creation mounts.
pub(super) fn mounts(state: &State, group: &str, body: &Value) -> Result<Vec<Mount>, Reply> {
    let asked = body["volumes"].as_array().into_iter().flatten();
    asked
        .map(|asked| {
            let name = asked["volumeName"].as_str();
            let name = name.ok_or_else(|| invalid("volumes", "a volumeName is required"))?;
            let point = asked["mountpoint"].as_str().unwrap_or_default();
            if !point.starts_with('/') {
                return Err(invalid("volumes", "a mountpoint is an absolute path"));
            }
            let dir = state.store().volumes.get(&path(group, name)).cloned();
            let missing = || problem(404, "VolumeNotFound", "there is no such volume");
            let (dir, point) = (dir.ok_or_else(missing)?, GuestPath::from(point));
            Ok(match asked["readOnly"] == true {
                true => Mount::read_only(dir, point),
                false => Mount::read_write(dir, point),
            })
        })
        .collect()
}
