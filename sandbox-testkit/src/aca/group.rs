//! What a group has beside sandboxes: snapshots, disk images, volumes, secrets.
//!
//! The values of a secret must never be shown.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use sandbox_core::ForkOptions;
use serde_json::{Value, json};

use super::data::{PUBLIC, failed, labels};
use super::reply::{Reply, problem};
use super::route::{Call, not_found};
use super::state::{Guest, Snap, State};

/// Now, as RFC 3339 in UTC.
pub(super) fn timestamp() -> String {
    rfc3339(SystemTime::now())
}

/// A time as RFC 3339 in UTC.
pub(super) fn rfc3339(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Days to a date: the era of 400 years, the year in it, the day in that.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{date:02}T{:02}:{:02}:{:02}.{:06}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        since.subsec_micros()
    )
}

/// A list as the options say: bare, or in an envelope with pages.
pub(super) fn page(state: &State, call: &Call, all: Vec<Value>) -> Reply {
    if !state.options.envelope {
        return Reply::json(200, json!(all));
    }
    let skip = call
        .query
        .get("skip")
        .and_then(|skip| skip.parse().ok())
        .unwrap_or(0_usize);
    let size = state.options.page.unwrap_or(usize::MAX).max(1);
    let end = skip.saturating_add(size).min(all.len());
    let mut body = json!({"value": all.get(skip..end).unwrap_or_default()});
    if end < all.len() {
        let version = call.query.get("api-version").map_or("", String::as_str);
        let path = format!("{}/{}", call.group, call.rest.join("/"));
        let labels = call.query.get("labels");
        let labels = labels.map_or_else(String::new, |labels| format!("&labels={labels}"));
        let endpoint = state.endpoint();
        body["nextLink"] = json!(format!(
            "{endpoint}{path}?api-version={version}&skip={end}{labels}"
        ));
    }
    Reply::json(200, body)
}

pub(super) fn snapshot_document(id: &str, guest: &Guest, labels: Value) -> Value {
    json!({
        "id": id,
        "labels": labels,
        "sandboxId": guest.id,
        "status": {"state": "Ready"},
        "vmmType": "CloudHypervisor",
        "createdAtUtc": timestamp(),
        "resources": guest.document()["resources"].clone(),
        "sizeInMB": 1,
    })
}

pub(super) async fn snapshot(
    state: &Arc<State>,
    call: &Call,
    guest: &Arc<Guest>,
) -> Result<Reply, Reply> {
    guest.running(&state.options)?;
    let body = call.json()?;
    labels(&body["labels"])?;
    let (state, guest) = (Arc::clone(state), Arc::clone(guest));
    // On a task of its own: a client that goes away does not undo a snapshot.
    let taken = tokio::spawn(async move {
        tokio::time::sleep(state.options.snapshot).await;
        let local = guest.local.fork(ForkOptions::default()).await;
        let local = local.map_err(|error| failed(&error))?;
        let id = uuid::Uuid::new_v4().to_string();
        let labels = body.get("labels").cloned().unwrap_or_else(|| json!({}));
        let document = snapshot_document(&id, &guest, labels);
        let snap = Snap {
            group: guest.group.clone(),
            local,
            document: document.clone(),
            listed: true,
        };
        state.store().snapshots.insert(id, snap);
        Ok(Reply::json(200, document))
    });
    taken
        .await
        .unwrap_or_else(|_| Err(problem(500, "EmulatorFailed", "the snapshot ended")))
}

pub(super) async fn snapshots(state: &State, call: &Call, tail: &[&str]) -> Result<Reply, Reply> {
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
                match store.snapshots.get(*id).is_some_and(ours) {
                    true => store.snapshots.remove(*id),
                    false => None,
                }
            };
            let snap = snap.ok_or_else(missing)?;
            snap.local.close().await.map_err(|error| failed(&error))?;
            Ok(Reply::empty(202))
        }
        _ => Err(not_found()),
    }
}

pub(super) fn commit(state: &State, call: &Call, guest: &Guest) -> Result<Reply, Reply> {
    guest.running(&state.options)?;
    let _ = call;
    Err(problem(
        501,
        "NotEmulated",
        "the emulator does not make images of sandboxes yet",
    ))
}

/// Whether there is such an image, and it is ready.
pub(super) fn image_ready(state: &State, group: &str, id: &str) -> bool {
    let store = state.store();
    let image = store.resources.get(&format!("{group}/diskimages/{id}"));
    image.is_some_and(|image| image["status"]["state"] == "Ready")
}

/// Images, volumes and secrets: kept as they were given.
pub(super) fn resource(
    state: &State,
    call: &Call,
    kind: &str,
    tail: &[&str],
) -> Result<Reply, Reply> {
    let prefix = format!("{}/{kind}/", call.group);
    let missing = || problem(404, "NotFound", "there is no such resource");
    match (call.method.as_str(), tail) {
        ("GET", ["public"]) if kind == "diskimages" => {
            let all = PUBLIC.iter().map(|name| public(name)).collect();
            Ok(page(state, call, all))
        }
        ("GET", ["public", name]) if kind == "diskimages" => {
            let known = PUBLIC.iter().find(|known| *known == name);
            Ok(Reply::json(200, public(known.ok_or_else(missing)?)))
        }
        ("GET", []) => {
            let store = state.store();
            let all = store
                .resources
                .iter()
                .filter(|(path, _)| path.starts_with(&prefix));
            let all: Vec<Value> = all.map(|(_, value)| value.clone()).collect();
            drop(store);
            Ok(match kind {
                "secrets" => Reply::json(200, json!({"secrets": all})),
                _ => page(state, call, all),
            })
        }
        ("PUT", [] | [_]) => {
            let mut body = call.json()?;
            let id = match tail {
                [id] => (*id).to_owned(),
                _ if kind == "diskimages" => uuid::Uuid::new_v4().to_string(),
                _ => return Err(not_found()),
            };
            body["id"] = json!(id);
            body["name"] = json!(id);
            body["status"] = json!({"state": "Ready"});
            if let Some(body) = body.as_object_mut() {
                body.remove("values");
                body.remove("registryCredentials");
            }
            state
                .store()
                .resources
                .insert(format!("{prefix}{id}"), body.clone());
            Ok(Reply::json(200, body))
        }
        ("GET", [id]) => {
            let known = state
                .store()
                .resources
                .get(&format!("{prefix}{id}"))
                .cloned();
            Ok(Reply::json(200, known.ok_or_else(missing)?))
        }
        ("DELETE", [id]) => {
            let gone = state.store().resources.remove(&format!("{prefix}{id}"));
            gone.map(|_| Reply::empty(202)).ok_or_else(missing)
        }
        _ => Err(not_found()),
    }
}

fn public(name: &str) -> Value {
    json!({"id": name, "name": name, "isPublic": true, "status": {"state": "Ready"}})
}
