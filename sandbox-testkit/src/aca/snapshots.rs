//! Snapshots of a group, and the one that a stop takes.
//!
//! A snapshot outlives its source. The one of a stop does not: it is the stopped sandbox itself.

use sandbox_core::SandboxExt as _;
use std::sync::Arc;

use serde_json::{Value, json};

use super::call::{Call, not_found};
use super::data::{failed, labels};
use super::memory;
use super::reply::{Reply, problem};
use super::resource::page;
use super::state::{Guest, Snap, State};

fn document(state: &State, id: &str, guest: &Guest, labels: Value) -> Value {
    json!({
        "id": id,
        "labels": labels,
        "sandboxId": guest.id,
        "status": {"state": "Ready"},
        "vmmType": "CloudHypervisor",
        "createdAtUtc": state.clock.timestamp(),
        "resources": guest.document()["resources"].clone(),
        "sizeInMB": 1,
    })
}

/// Parts that a restore has of its source beside files and resources: volumes, egress policy.
fn inherited(guest: &Guest) -> (Value, Value) {
    let document = guest.document();
    (
        document["volumes"].clone(),
        document["egressPolicy"].clone(),
    )
}

/// The snapshot of a sandbox that has just been stopped.
pub(super) fn of_stop(state: &State, guest: &Guest) -> Value {
    let id = uuid::Uuid::new_v4().to_string();
    let document = document(state, &id, guest, json!({}));
    let (volumes, egress) = inherited(guest);
    let snap = Snap {
        group: guest.group.clone(),
        local: Arc::clone(&guest.local),
        document: document.clone(),
        volumes,
        egress,
        processes: Vec::new(),
        listed: false,
    };
    state.store().snapshots.insert(id, snap);
    document
}

/// Removes the snapshot of a stop, which vanishes when the sandbox resumes.
pub(super) fn end_of_stop(state: &State, guest: &Guest) {
    let own = |snap: &Snap| !snap.listed && snap.document["sandboxId"] == json!(guest.id);
    state.store().snapshots.retain(|_, snap| !own(snap));
}

pub(super) async fn take(
    state: &Arc<State>,
    call: &Call,
    guest: &Arc<Guest>,
) -> Result<Reply, Reply> {
    let busy = guest.busy(state)?;
    let body = call.json()?;
    labels(&body["labels"])?;
    let newer = call.newer();
    let (state, guest) = (Arc::clone(state), Arc::clone(guest));
    // On a task of its own: a client that goes away does not undo a snapshot.
    let taken = tokio::spawn(async move {
        state.clock.sleep(state.options().snapshot).await;
        let processes = match &state.options().inherited {
            Some(needle) => memory::kept(&*guest.local, needle).await,
            None => Vec::new(),
        };
        let local = guest.local.fork_one().await;
        drop(busy);
        let local = local.map_err(|error| failed(&error))?;
        let id = uuid::Uuid::new_v4().to_string();
        let labels = body.get("labels").cloned().unwrap_or_else(|| json!({}));
        let mut document = document(&state, &id, &guest, labels);
        if newer {
            // The newer version writes it as text.
            document["sizeInMB"] = json!("1");
        }
        let (volumes, egress) = inherited(&guest);
        let snap = Snap {
            group: guest.group.clone(),
            local,
            document: document.clone(),
            volumes,
            egress,
            processes,
            listed: true,
        };
        state.store().snapshots.insert(id, snap);
        Ok(Reply::json(200, document))
    });
    taken
        .await
        .unwrap_or_else(|_| Err(problem(500, "EmulatorFailed", "the snapshot ended")))
}

pub(super) async fn operation(state: &State, call: &Call, tail: &[&str]) -> Result<Reply, Reply> {
    let missing = || problem(404, "SnapshotNotFound", "there is no such snapshot");
    let ours = |snap: &Snap| snap.group == call.group;
    match (call.method.as_str(), tail) {
        ("GET", []) => {
            let all = {
                let store = state.store();
                let listed = store
                    .snapshots
                    .values()
                    .filter(|snap| ours(snap) && snap.listed);
                listed.map(|snap| snap.document.clone()).collect()
            };
            Ok(page(state, call, all))
        }
        ("GET", [id]) => {
            let store = state.store();
            let snap = store.snapshots.get(*id).filter(|snap| ours(snap));
            Ok(Reply::json(200, snap.ok_or_else(missing)?.document.clone()))
        }
        ("DELETE", [id]) => {
            let snap = {
                let mut store = state.store();
                let found = store.snapshots.get(*id);
                match found.is_some_and(|snap| ours(snap) && snap.listed) {
                    true => store.snapshots.remove(*id),
                    false => None,
                }
            };
            let snap = snap.ok_or_else(missing)?;
            snap.local.close().await.map_err(|error| failed(&error))?;
            Ok(call.deleted(&state.options(), 202))
        }
        _ => Err(not_found()),
    }
}
