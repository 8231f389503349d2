//! The management plane, `Microsoft.App` and the registries of `Microsoft.ContainerRegistry`:
//! resources that are made, changed and deleted by operations that take their time.
//!
//! Paths are compared without case. What is deleted is gone with everything below it.

mod account;
mod apps;
mod change;
mod jobs;
mod kinds;
mod operations;
mod roles;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::call::Call;
use super::container::Run;
use super::reply::Reply;
use super::sessions::{PoolKind, SessionPool};
use super::state::State;
use kinds::{KINDS, Kind, Place};
use operations::Operation;

const VERSIONS: &[&str] = &[
    "2025-01-01",
    "2025-07-01",
    "2026-01-01",
    "2026-07-01",
    "2023-11-02-preview",
    "2025-10-02-preview",
    "2026-02-01-preview",
    "2026-03-02-preview",
    "2026-09-01-preview",
];

/// Versions of the registries' interface.
const OF_REGISTRIES: &[&str] = &[
    "2023-07-01",
    "2025-04-01",
    "2025-11-01",
    "2026-09-01-preview",
];

/// State of the management plane.
#[derive(Debug, Default)]
pub(super) struct Arm(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// By path in lower case.
    resources: BTreeMap<String, Resource>,
    operations: BTreeMap<String, Operation>,
    /// Runs by the path of their revision or execution.
    runs: BTreeMap<String, Arc<Run>>,
}

#[derive(Debug)]
struct Resource {
    document: Value,
    /// Next state, and the time of it; nothing if the resource is to be gone.
    turn: Option<(Duration, Option<&'static str>)>,
    /// Secrets with their values, which the document does not show.
    secrets: Value,
}

impl Resource {
    fn new(document: Value) -> Self {
        Self {
            document,
            turn: None,
            secrets: Value::Null,
        }
    }
}

impl Arm {
    /// Ends everything that runs.
    pub(super) async fn close(&self) {
        let runs = std::mem::take(&mut self.kept().runs);
        for run in runs.into_values() {
            run.stop().await;
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn error(status: u16, code: &str, message: &str) -> Reply {
    let body = json!({"error": {"code": code, "message": message}});
    Reply::json(status, body)
}

/// A path taken apart.
enum Target<'a> {
    /// Resources of a kind, of a resource group or of all.
    List(&'static Kind),
    /// A resource, and what stands behind it.
    One(&'static Kind, Place<'a>, &'a [&'a str]),
    /// The state of an operation.
    Operation(&'a str, &'a str),
}

fn target<'a>(path: &'a [&'a str]) -> Option<Target<'a>> {
    let is = |at: usize, text: &str| path.get(at).is_some_and(|p| p.eq_ignore_ascii_case(text));
    if !is(0, "subscriptions") {
        return None;
    }
    let (at, resources) = match (is(2, "resourceGroups"), is(2, "providers")) {
        (true, _) if is(4, "providers") => (5, path.get(3).copied()),
        (_, true) => (3, None),
        _ => return None,
    };
    let provider = KINDS.iter().find(|kind| is(at, kind.provider))?.provider;
    let kind = |text: &str| {
        KINDS
            .iter()
            .find(|kind| kind.provider == provider && kind.name.eq_ignore_ascii_case(text))
    };
    let subscription = path.get(1)?;
    match (path.get(at + 1..)?, resources) {
        (["locations", _, what, id], None) => Some(Target::Operation(what, id)),
        ([name], _) => kind(name).map(Target::List),
        ([of, name, tail @ ..], Some(resources)) => {
            let kind = kind(of)?;
            let below = tail.first().is_none_or(|first| {
                let mut known = kind.actions.iter().chain(kind.children);
                known.any(|known| known.eq_ignore_ascii_case(first))
            });
            let place = Place {
                subscription,
                resources,
                name,
            };
            below.then_some(Target::One(kind, place, tail))
        }
        _ => None,
    }
}

/// Whether a path is the management plane's. Those of the data plane are not, whatever they start
/// with.
pub(super) fn is_path(path: &[&str]) -> bool {
    account::is_path(path) || roles::is_path(path) || target(path).is_some()
}

pub(super) use account::{is_query, query};
pub(super) use apps::{app_at, log_of, stream_log};

pub(super) async fn operation(
    state: &Arc<State>,
    call: &Call,
    path: &[&str],
) -> Result<Reply, Reply> {
    settle(state).await;
    jobs::settle(state);
    if roles::is_path(path) {
        return roles::answer(state, call, path);
    }
    if account::is_path(path) {
        return account::answer(state, call, path);
    }
    let version = call.query.get("api-version").map_or("", String::as_str);
    let of_app = path
        .iter()
        .any(|part| part.eq_ignore_ascii_case("Microsoft.App"));
    let known = if of_app { VERSIONS } else { OF_REGISTRIES };
    if !known.contains(&version) {
        let why = "api-version is missing or not one of this resource's";
        return Err(error(400, "InvalidApiVersionParameter", why));
    }
    let key = format!("/{}", path.join("/")).to_ascii_lowercase();
    if let Some(Target::One(kind, _, tail @ [_, ..])) = target(path) {
        let answered = match kind.name {
            "containerApps" => apps::operation(state, call, &key, path, tail).await,
            "jobs" => jobs::operation(state, call, &key, path, tail).await,
            _ => None,
        };
        if let Some(answered) = answered {
            return answered;
        }
    }
    match target(path) {
        Some(Target::Operation(what, id)) => operations::poll(state, what, id),
        Some(Target::List(kind)) => list(state, call, &key, Some(kind)),
        Some(Target::One(kind, place, [])) => match call.method.as_str() {
            "PUT" => put(state, call, &key, path, kind, &place).await,
            "PATCH" => change::patch(state, call, &key, kind, &place).await,
            method => plain(state, method, &key, path),
        },
        Some(Target::One(kind, _, [word])) if kind.actions.contains(word) => {
            change::act(state, call, path, word).await
        }
        Some(Target::One(_, _, [_])) => list(state, call, &key, None),
        Some(Target::One(_, _, [_, _])) => match call.method.as_str() {
            "PUT" => {
                parent(state, &key)?;
                let mut reply = keep(state, &key, path, call.json()?, Duration::ZERO)?;
                // No operation that takes its time.
                reply
                    .headers
                    .retain(|(name, _)| *name == axum::http::header::CONTENT_TYPE);
                reply.status = 200;
                Ok(reply)
            }
            "DELETE" => match state.arm.kept().resources.remove(&key) {
                Some(_) => Ok(Reply::empty(200)),
                None => Ok(Reply::empty(204)),
            },
            _ => get(state, &key),
        },
        _ => Err(error(404, "InvalidResourceType", "there is no such path")),
    }
}

/// Brings every resource up to date, and ends what was deleted.
async fn settle(state: &State) {
    let now = state.clock.now();
    let mut gone = Vec::new();
    state.arm.kept().resources.retain(|key, resource| {
        match resource.turn.filter(|(at, _)| now >= *at) {
            Some((_, None)) => {
                gone.push(key.clone());
                return false;
            }
            Some((_, Some(to))) => {
                let status = status_key(&resource.document);
                resource.document["properties"][status] = json!(to);
                resource.turn = None;
            }
            None => {}
        }
        true
    });
    for key in gone {
        let below = format!("{key}/");
        let own = |key: &String| key.starts_with(&below);
        let ended: Vec<Arc<Run>> = {
            let mut kept = state.arm.kept();
            kept.resources.retain(|key, _| !own(key));
            let ended: Vec<String> = kept.runs.keys().filter(|key| own(key)).cloned().collect();
            ended
                .iter()
                .filter_map(|key| kept.runs.remove(key))
                .collect()
        };
        for run in ended {
            run.stop().await;
        }
        let group = key.replace("/providers/microsoft.app", "");
        state.sessions.remove_pool(&group);
        let members: Vec<String> = {
            let mut store = state.store();
            store
                .groups
                .retain(|path, _| !path.eq_ignore_ascii_case(&group));
            let guests = store.guests.values();
            let ours = guests.filter(|guest| guest.group.eq_ignore_ascii_case(&group));
            ours.map(|guest| guest.id.clone()).collect()
        };
        for id in members {
            state.forget(&id).await;
        }
    }
}

/// Key under which a resource says how far it is: an execution of a job has another word for it.
fn status_key(document: &Value) -> &'static str {
    match document["type"].as_str() {
        Some(kind) if kind.ends_with("/executions") => "status",
        _ => "provisioningState",
    }
}

fn missing() -> Reply {
    error(404, "ResourceNotFound", "there is no such resource")
}

fn parent(state: &State, key: &str) -> Result<(), Reply> {
    let mut parts = key.rsplitn(3, '/');
    let parent = parts.nth(2).unwrap_or_default();
    match state.arm.kept().resources.contains_key(parent) {
        true => Ok(()),
        false => Err(error(
            404,
            "ParentResourceNotFound",
            "there is no such parent",
        )),
    }
}

fn get(state: &State, key: &str) -> Result<Reply, Reply> {
    let kept = state.arm.kept();
    let found = kept.resources.get(key).ok_or_else(missing)?;
    Ok(Reply::json(200, found.document.clone()))
}

/// Gets and deletes, the same for every resource.
fn plain(state: &State, method: &str, key: &str, path: &[&str]) -> Result<Reply, Reply> {
    match method {
        "GET" => get(state, key),
        "DELETE" => {
            if state.options().environment_kept && in_use(state, key) {
                let why = "the environment has container apps in it";
                return Err(error(409, "ManagedEnvironmentHasContainerApps", why));
            }
            let end = state
                .clock
                .now()
                .saturating_add(state.options().arm_operation);
            {
                let mut kept = state.arm.kept();
                if let Some(reply) = occupied(state, &kept, key) {
                    return Err(reply);
                }
                let Some(found) = kept.resources.get_mut(key) else {
                    return Ok(Reply::empty(204));
                };
                found.document["properties"]["provisioningState"] = json!("Deleting");
                found.turn = Some((end, None));
            }
            Ok(operations::begin(state, path, Reply::empty(202), true))
        }
        _ => Err(error(
            405,
            "MethodNotAllowed",
            "the resource has no such method",
        )),
    }
}

/// The refusal of a write that comes while another one is under way, or of the deletion of an
/// environment that is in use.
fn occupied(state: &State, kept: &Kept, key: &str) -> Option<Reply> {
    let options = state.options();
    let found = kept.resources.get(key)?;
    let kind = found.document["type"].as_str().unwrap_or_default();
    let busy = found.turn.is_some() && kind == "Microsoft.App/containerApps";
    if busy && !options.arm_queues {
        let why = "cannot modify a container app while another operation on it is in progress";
        return Some(error(409, "ContainerAppOperationInProgress", why));
    }
    None
}

/// Whether something is in an environment.
fn in_use(state: &State, key: &str) -> bool {
    let kept = state.arm.kept();
    let mut all = kept.resources.values();
    all.any(|one| {
        let of = &one.document["properties"]["environmentId"];
        of.as_str().is_some_and(|of| of.eq_ignore_ascii_case(key))
    })
}

fn list(state: &State, call: &Call, key: &str, kind: Option<&Kind>) -> Result<Reply, Reply> {
    if call.method != "GET" {
        return Err(error(405, "MethodNotAllowed", "a list is only read"));
    }
    // Of a subscription: those of all its resource groups.
    let (before, after) = match key.contains("/resourcegroups/") {
        true => (format!("{key}/"), String::new()),
        false => {
            let subscription = key.split("/providers/").next().unwrap_or_default();
            let of = kind.map(|kind| format!("/{}/{}/", kind.provider, kind.name));
            (
                format!("{subscription}/"),
                of.unwrap_or_default().to_ascii_lowercase(),
            )
        }
    };
    let kept = state.arm.kept();
    let all = kept.resources.iter().filter(|(path, _)| {
        let rest = path.strip_prefix(&before);
        let rest = match after.is_empty() {
            true => rest,
            false => rest.and_then(|rest| rest.split_once(&after).map(|(_, rest)| rest)),
        };
        rest.is_some_and(|rest| !rest.contains('/'))
    });
    let all: Vec<Value> = all.map(|(_, found)| found.document.clone()).collect();
    drop(kept);
    let skip = call.query.get("skip").and_then(|skip| skip.parse().ok());
    let skip: usize = skip.unwrap_or(0);
    let size = state
        .options()
        .page
        .map_or(usize::MAX, |size| size.max(1) as usize);
    let end = skip.saturating_add(size).min(all.len());
    let mut body = json!({"value": all.get(skip..end).unwrap_or_default()});
    if end < all.len() {
        let version = &call.query["api-version"];
        let endpoint = operations::links(state);
        body["nextLink"] = json!(format!("{endpoint}{key}?api-version={version}&skip={end}"));
    }
    Ok(Reply::json(200, body))
}

/// Takes out what is null: it is not shown, and `az` could not read it.
fn strip(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

async fn put(
    state: &Arc<State>,
    call: &Call,
    key: &str,
    path: &[&str],
    kind: &Kind,
    place: &Place<'_>,
) -> Result<Reply, Reply> {
    let mut body = call.json()?;
    strip(&mut body);
    let version = call.query.get("api-version").map_or("", String::as_str);
    if !(kind.valid)(place.name) {
        let why = "the name is not one that this resource may have";
        return Err(error(400, "InvalidResourceName", why));
    }
    if !body["location"].is_string() {
        return Err(error(400, "LocationRequired", "the location is required"));
    }
    let checked = (kind.check)(&body, version);
    checked.map_err(|why| error(400, "InvalidParameterValueInContainerTemplate", &why))?;
    if !body["properties"].is_object() {
        body["properties"] = json!({});
    }
    let before = {
        let kept = state.arm.kept();
        if let Some(reply) = occupied(state, &kept, key) {
            return Err(reply);
        }
        kept.resources
            .get(key)
            .map(|found| found.document["properties"].clone())
    };
    if kind.name == "sandboxGroups"
        && let Some(before) = &before
        && before["environmentId"].is_string()
        && before["environmentId"] != body["properties"]["environmentId"]
    {
        let why = "the environment of a group can't be changed";
        return Err(error(409, "EnvironmentIdImmutable", why));
    }
    if kind.name == "containerApps"
        && let Some(status) = before
            .as_ref()
            .map(|before| before["runningStatus"].clone())
    {
        body["properties"]["runningStatus"] = status;
    }
    let secrets = body["properties"]["configuration"]["secrets"].clone();
    let pool_secrets = body["properties"]["secrets"].clone();
    (kind.complete)(&mut body, &state.endpoint(), place);
    if kind.name == "sandboxGroups" {
        let Place {
            subscription,
            resources,
            name,
        } = place;
        let group = format!(
            "/subscriptions/{subscription}/resourceGroups/{resources}/sandboxGroups/{name}"
        );
        let now = state.clock.now();
        state.store().groups.entry(group).or_insert(now);
    }
    if let Some(mut pool) = session_pool(kind, key, &body) {
        pool.secrets = pool_secrets.clone();
        state.sessions.put_pool(pool);
    }
    let reply = keep(state, key, path, body, state.options().arm_operation)?;
    if let Some(found) = state.arm.kept().resources.get_mut(key) {
        found.secrets = secrets;
    }
    if kind.name == "containerApps" {
        apps::renew(state, key, before.as_ref()).await;
    }
    Ok(reply)
}

/// The pool of dynamic sessions that a resource is.
fn session_pool(kind: &Kind, key: &str, body: &Value) -> Option<SessionPool> {
    let properties = &body["properties"];
    let of = match properties["containerType"]
        .as_str()
        .filter(|_| kind.name == "sessionPools")?
    {
        "PythonLTS" => PoolKind::PythonLts,
        "Shell" => PoolKind::Shell,
        _ => PoolKind::CustomContainer,
    };
    let mut pool = SessionPool::new(key.replace("/providers/microsoft.app", ""), of);
    let most = properties["scaleConfiguration"]["maxConcurrentSessions"].as_u64();
    if let Some(most) = most.and_then(|most| usize::try_from(most).ok()) {
        pool.max_sessions = most;
    }
    let lifecycle = &properties["dynamicPoolConfiguration"]["lifecycleConfiguration"];
    if let Some(seconds) = lifecycle["cooldownPeriodInSeconds"].as_u64() {
        pool.cooldown = Duration::from_secs(seconds);
    }
    pool.egress = properties["sessionNetworkConfiguration"]["status"] == "EgressEnabled";
    pool.template = properties["customContainerTemplate"].clone();
    Some(pool)
}

/// Keeps a resource that is there after so long.
fn keep(
    state: &State,
    key: &str,
    path: &[&str],
    mut document: Value,
    takes: Duration,
) -> Result<Reply, Reply> {
    document["id"] = json!(format!("/{}", path.join("/")));
    document["name"] = json!(path.last());
    let kinds: Vec<&str> = path
        .get(6..)
        .unwrap_or_default()
        .iter()
        .step_by(2)
        .copied()
        .collect();
    let asked = path.get(5).copied().unwrap_or_default();
    let mut known = KINDS.iter().map(|kind| kind.provider);
    let provider = known.find(|known| known.eq_ignore_ascii_case(asked));
    let provider = provider.unwrap_or(asked);
    document["type"] = json!(format!("{provider}/{}", kinds.join("/")));
    let through = if takes.is_zero() {
        "Succeeded"
    } else {
        "InProgress"
    };
    document["properties"]["provisioningState"] = json!(through);
    let turn =
        (!takes.is_zero()).then(|| (state.clock.now().saturating_add(takes), Some("Succeeded")));
    let resource = Resource {
        turn,
        ..Resource::new(document.clone())
    };
    let before = state.arm.kept().resources.insert(key.to_owned(), resource);
    let status = if before.is_some() { 200 } else { 201 };
    let by_result = document["type"] == "Microsoft.App/managedEnvironments";
    let reply = Reply::json(status, document);
    // The specification has one link for environments, and `az` wants the other.
    let reply = match by_result {
        true => operations::begin(state, path, reply, true),
        false => reply,
    };
    Ok(operations::begin(state, path, reply, false))
}
