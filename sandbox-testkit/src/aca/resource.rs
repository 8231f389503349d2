//! Resources of a group beside sandboxes and snapshots: disk images, volumes, secrets.
//!
//! The values of a secret and the credentials of a registry must never be kept or shown.

use std::sync::Arc;
use std::time::Duration;

use sandbox_core::{Sandbox, SandboxExt as _};
use serde_json::{Map, Value, json};

use super::call::{Call, not_found};
use super::data::{PUBLIC, failed, labels};
use super::options::Lists;
use super::reply::{Reply, coded, invalid, problem};
use super::state::{Guest, State};
use super::volumes;

/// A list as the options say: bare, or in an envelope with pages.
pub(super) fn page(state: &State, call: &Call, all: Vec<Value>) -> Reply {
    let options = state.options();
    let lists = match (call.newer(), options.envelope) {
        (true, _) => options.lists,
        (false, true) => Lists::Envelope,
        (false, false) => Lists::Bare,
    };
    let number = |key: &str| {
        call.query
            .get(key)
            .and_then(|text| text.parse::<usize>().ok())
    };
    let size = options.page.map_or(usize::MAX, |size| size.max(1) as usize);
    let word = match call.newer() {
        true => "skipToken",
        false => "skip",
    };
    let skip = match lists {
        Lists::Bare => return Reply::json(200, json!(all)),
        Lists::Paged => {
            let size = number("pageSize").unwrap_or(size).clamp(1, size);
            let skip = (number("page").unwrap_or(1).max(1) - 1).saturating_mul(size);
            let end = skip.saturating_add(size).min(all.len());
            return Reply::json(200, json!(all.get(skip..end).unwrap_or_default()));
        }
        Lists::Envelope => number(word).unwrap_or(0),
    };
    let end = skip.saturating_add(size).min(all.len());
    let mut body = json!({"value": all.get(skip..end).unwrap_or_default()});
    if end < all.len() {
        let version = call.query.get("api-version").map_or("", String::as_str);
        let path = format!("{}/{}", call.group, call.rest.join("/"));
        let labels = call.query.get("labels");
        let labels = labels.map_or_else(String::new, |labels| format!("&labels={labels}"));
        let endpoint = match options.relative_links {
            true => String::new(),
            false => state.endpoint(),
        };
        body["nextLink"] = json!(format!(
            "{endpoint}{path}?api-version={version}&{word}={end}{labels}"
        ));
    }
    Reply::json(200, body)
}

pub(super) fn no_image() -> Reply {
    problem(404, "DiskImageNotFound", "there is no such disk image")
}

/// Content of an image that is ready; `None` for one that was not made from a sandbox.
pub(super) fn image(
    state: &State,
    group: &str,
    id: &str,
) -> Result<Option<Arc<dyn Sandbox>>, Reply> {
    let path = format!("{group}/diskimages/{id}");
    let store = state.store();
    let image = store.resources.get(&path).ok_or_else(no_image)?;
    match shown(state, image)["status"]["state"] == "Ready" {
        true => Ok(store.images.get(&path).cloned()),
        false => {
            let why = "the disk image is not ready";
            Err(coded(409, "DiskImageNotReady", why, json!(1)))
        }
    }
}

/// Makes an image of a sandbox.
pub(super) async fn commit(
    state: &Arc<State>,
    call: &Call,
    guest: &Arc<Guest>,
) -> Result<Reply, Reply> {
    let busy = guest.busy(state)?;
    let body = call.json()?;
    labels(&body["labels"])?;
    let (state, guest) = (Arc::clone(state), Arc::clone(guest));
    // On a task of its own: a client that goes away does not undo it.
    let made = tokio::spawn(async move {
        let local = guest.local.fork_one().await;
        drop(busy);
        let local = local.map_err(|error| failed(&error))?;
        let id = uuid::Uuid::new_v4().to_string();
        let path = format!("{}/diskimages/{id}", guest.group);
        state.store().images.insert(path.clone(), local);
        let image = json!({"labels": image_labels(&body), "sandboxId": guest.id});
        let image = build(&state, path, &id, image);
        Ok(Reply::json(
            200,
            match state.options().legacy_commit {
                true => json!({"diskImageId": id}),
                false => json!({"diskImage": image}),
            },
        ))
    });
    made.await
        .unwrap_or_else(|_| Err(problem(500, "EmulatorFailed", "the commit ended")))
}

/// Keeps an image that is building, and gives it as it is shown.
fn build(state: &State, path: String, id: &str, mut image: Value) -> Value {
    let options = state.options();
    let ready = state.clock.now().saturating_add(options.image_build);
    let name = image["labels"]["name"].clone();
    image["id"] = json!(id);
    image["name"] = name;
    image["becomes"] = json!({
        "at": u64::try_from(ready.as_millis()).unwrap_or(u64::MAX),
        "state": if options.image_fails { "Failed" } else { "Ready" },
    });
    let result = shown(state, &image);
    state.store().resources.insert(path, image);
    result
}

/// A resource as it is shown: an image has the status that it has come to.
fn shown(state: &State, resource: &Value) -> Value {
    let mut resource = resource.clone();
    let Some(object) = resource.as_object_mut() else {
        return resource;
    };
    if let Some(becomes) = object.remove("becomes") {
        let at = Duration::from_millis(becomes["at"].as_u64().unwrap_or(0));
        let status = match state.clock.now() >= at {
            true => json!({"state": becomes["state"]}),
            false => json!({"state": "Building"}),
        };
        object.insert("status".into(), status);
    }
    resource
}

pub(super) async fn operation(
    state: &State,
    call: &Call,
    kind: &str,
    tail: &[&str],
) -> Result<Reply, Reply> {
    let prefix = format!("{}/{kind}/", call.group);
    let missing = || problem(404, "NotFound", "there is no such resource");
    let get = |id: &str| {
        let store = state.store();
        let known = store.resources.get(&format!("{prefix}{id}"));
        known.map(|known| shown(state, known)).ok_or_else(missing)
    };
    let with_use = |known: Value| match kind {
        "volumes" => volumes::shown(state, &call.group, known),
        _ => known,
    };
    match (kind, call.method.as_str(), tail) {
        ("diskimages", "GET", ["public"]) => {
            let all = PUBLIC.iter().map(|name| public(name)).collect();
            Ok(page(state, call, all))
        }
        ("diskimages", "GET", ["public", name]) => {
            let known = PUBLIC.iter().find(|known| *known == name);
            Ok(Reply::json(200, public(known.ok_or_else(missing)?)))
        }
        ("diskimages", method, []) if method == call.writes() => {
            let body = call.json()?;
            labels(&body["labels"])?;
            let image = match call.newer() {
                true => json!({"labels": image_labels(&body), "source": image_source(&body)?}),
                false if body["image"]["base"].is_string() => {
                    json!({"labels": image_labels(&body), "image": body["image"]})
                }
                false => return Err(invalid("image", "a base is required")),
            };
            let id = uuid::Uuid::new_v4().to_string();
            let mut image = build(state, format!("{prefix}{id}"), &id, image);
            if body["name"].is_string() {
                image["name"] = body["name"].clone();
            }
            Ok(Reply::json(call.created(&state.options()), image))
        }
        ("volumes", "PUT", [name]) => volumes::put(state, call, name),
        ("volumes", "DELETE", [name]) => volumes::delete(state, call, name),
        ("secrets", "PUT", [id]) => {
            let body = call.json()?;
            let values = body["values"].as_object();
            let values = values.ok_or_else(|| invalid("values", "must be an object"))?;
            let keys: Vec<&String> = values.keys().collect();
            let now = state.clock.timestamp();
            let secret = json!({"id": id, "keys": keys, "createdAt": now, "updatedAt": now});
            if call.newer() && !(3..=64).contains(&id.len()) {
                return Err(invalid("id", "has 3 to 64 characters"));
            }
            let status = match get(id) {
                Ok(_) => 200,
                Err(_) => call.created(&state.options()),
            };
            keep(state, &prefix, id, &secret);
            Ok(Reply::json(status, peek(&secret)))
        }
        ("volumes", "GET", ["count"]) if call.newer() => {
            let store = state.store();
            let ours = store
                .resources
                .keys()
                .filter(|path| path.starts_with(&prefix));
            Ok(Reply::json(200, json!({"count": ours.count()})))
        }
        ("volumes", _, [_, "files" | "fork", ..]) if call.newer() => {
            let why = "the emulator gives no files of volumes but to sandboxes";
            Err(problem(501, "NotEmulated", why))
        }
        ("secrets", "GET", [id, "keys"]) => {
            let secret = get(id)?;
            Ok(Reply::json(200, json!({"keys": secret["keys"]})))
        }
        ("secrets", "POST", [id, "peek"]) => Ok(Reply::json(200, peek(&get(id)?))),
        (_, "GET", []) => {
            let all: Vec<Value> = {
                let store = state.store();
                let ours = store
                    .resources
                    .iter()
                    .filter(|(path, _)| path.starts_with(&prefix));
                ours.map(|(_, known)| shown(state, known)).collect()
            };
            let all = all.into_iter().map(with_use).collect::<Vec<Value>>();
            Ok(match kind {
                "secrets" => Reply::json(200, json!({"secrets": all})),
                _ => page(state, call, all),
            })
        }
        ("diskimages" | "volumes", "GET", [id]) => Ok(Reply::json(200, with_use(get(id)?))),
        (_, "DELETE", [id]) => {
            let path = format!("{prefix}{id}");
            let (gone, image) = {
                let mut store = state.store();
                (store.resources.remove(&path), store.images.remove(&path))
            };
            if let Some(image) = image {
                image.close().await.map_err(|error| failed(&error))?;
            }
            let reply = call.deleted(&state.options(), 202);
            gone.map(|_| reply).ok_or_else(missing)
        }
        _ => Err(not_found()),
    }
}

/// Source of an image in the newer version, without its credentials.
fn image_source(body: &Value) -> Result<Value, Reply> {
    let source = &body["source"];
    let (kind, key) = match source["kind"].as_str() {
        Some("registry") => ("registry", "imageUrl"),
        Some("blob") => ("blob", "blobSourceUri"),
        _ => return Err(invalid("source", "the kind must be registry or blob")),
    };
    match source[key].is_string() {
        true => Ok(json!({"kind": kind, key: source[key]})),
        false => Err(invalid(key, "is required")),
    }
}

fn keep(state: &State, prefix: &str, id: &str, resource: &Value) {
    let path = format!("{prefix}{id}");
    state.store().resources.insert(path, resource.clone());
}

/// A secret's values, none of which is shown.
fn peek(secret: &Value) -> Value {
    let keys = secret["keys"].as_array().into_iter().flatten();
    let values = keys.filter_map(|key| Some((key.as_str()?.to_owned(), json!("***"))));
    json!({"id": secret["id"], "values": values.collect::<Map<_, _>>()})
}

fn public(name: &str) -> Value {
    json!({"id": name, "name": name, "isPublic": true, "status": {"state": "Ready"}})
}

fn image_labels(body: &Value) -> Value {
    body.get("labels").cloned().unwrap_or_else(|| json!({}))
}
