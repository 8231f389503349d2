//! Container apps: revisions, replicas, secrets, logs.
//!
//! A change of the template makes a revision, a change of the configuration none. One replica runs,
//! that of the newest revision.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::Response;
use futures_util::stream;
use serde_json::{Value, json};

use super::super::call::Call;
use super::super::container::{Job, Phase, Run};
use super::super::reply::Reply;
use super::super::state::State;
use super::{Resource, error, missing};

/// The one container's replica.
const REPLICA: &str = "0";

/// An app as its ingress needs it.
pub(in super::super) struct At {
    pub(in super::super) document: Value,
    /// Callers that are let in, if that was said.
    pub(in super::super) auth: Option<Value>,
    /// The container of the newest revision, if one runs.
    pub(in super::super) run: Option<Arc<Run>>,
}

/// The app of this host name.
pub(in super::super) fn app_at(state: &State, host: &str) -> Option<At> {
    let kept = state.arm.kept();
    let (key, found) = kept.resources.iter().find(|(_, one)| {
        let fqdn = &one.document["properties"]["configuration"]["ingress"]["fqdn"];
        one.document["type"] == "Microsoft.App/containerApps"
            && fqdn.as_str().is_some_and(|fqdn| fqdn == host)
    })?;
    let properties = &found.document["properties"];
    let latest = properties["latestRevisionName"].as_str();
    let latest = latest.unwrap_or_default().to_ascii_lowercase();
    let auth = kept.resources.get(&format!("{key}/authconfigs/current"));
    Some(At {
        document: found.document.clone(),
        auth: auth.map(|auth| auth.document.clone()),
        run: kept.runs.get(&format!("{key}/revisions/{latest}")).cloned(),
    })
}

/// Makes a revision of an app whose template has changed, and runs it.
pub(super) async fn renew(state: &Arc<State>, key: &str, before: Option<&Value>) {
    let (revision, old, start) = {
        let mut kept = state.arm.kept();
        let Some(found) = kept.resources.get_mut(key) else {
            return;
        };
        let document = &mut found.document;
        let properties = &mut document["properties"];
        let changed = before.is_none_or(|before| before["template"] != properties["template"]);
        let latest = before.map_or(Value::Null, |before| before["latestRevisionName"].clone());
        if !changed {
            properties["latestRevisionName"] = latest;
            return;
        }
        let last = latest.as_str().and_then(|name| name.rsplit_once("--"));
        let number = last.and_then(|(_, number)| number.parse::<u32>().ok());
        let number = number.unwrap_or(0) + 1;
        let name = key.rsplit('/').next().unwrap_or_default();
        let suffix = properties["template"]["revisionSuffix"].as_str();
        let suffix = suffix.filter(|suffix| !suffix.is_empty());
        let revision = suffix.map_or_else(
            || format!("{name}--{number:07}"),
            |suffix| format!("{name}--{suffix}"),
        );
        properties["latestRevisionName"] = json!(revision);
        let running = properties["runningStatus"] != "Stopped";
        let template = properties["template"].clone();
        let job = job(&found.document, &found.secrets, &revision);
        let id = found.document["id"].as_str().unwrap_or_default();
        let document = json!({
            "id": format!("{id}/revisions/{revision}"),
            "name": revision,
            "type": "Microsoft.App/containerApps/revisions",
            "properties": {"active": true, "createdTime": state.clock.timestamp(),
                "template": template},
        });
        let multiple =
            found.document["properties"]["configuration"]["activeRevisionsMode"] == "Multiple";
        let below = format!("{key}/revisions/");
        let mut old = Vec::new();
        if !multiple {
            for (path, one) in kept.resources.range_mut(below.clone()..) {
                if !path.starts_with(&below) {
                    break;
                }
                one.document["properties"]["active"] = json!(false);
                old.push(path.clone());
            }
        }
        let resource = Resource::new(document);
        let path = format!("{below}{}", revision.to_ascii_lowercase());
        kept.resources.insert(path.clone(), resource);
        let old: Vec<Arc<Run>> = old
            .iter()
            .filter_map(|path| kept.runs.remove(path))
            .collect();
        (path, old, running.then_some(job))
    };
    for run in old {
        run.stop().await;
    }
    if let Some(job) = start {
        let run = Run::start(state, job);
        state.arm.kept().runs.insert(revision, run);
    }
}

/// Runs or ends the replica of the newest revision.
pub(super) async fn turn(state: &Arc<State>, key: &str, on: bool) {
    let (path, job) = {
        let kept = state.arm.kept();
        let Some(found) = kept.resources.get(key) else {
            return;
        };
        let properties = &found.document["properties"];
        let latest = properties["latestRevisionName"]
            .as_str()
            .unwrap_or_default();
        let path = format!("{key}/revisions/{}", latest.to_ascii_lowercase());
        (path, job(&found.document, &found.secrets, latest))
    };
    let before = state.arm.kept().runs.remove(&path);
    if let Some(before) = before {
        before.stop().await;
    }
    if on {
        let run = Run::start(state, job);
        state.arm.kept().runs.insert(path, run);
    }
}

/// The container of an app's revision, with what the service tells it about itself.
fn job(document: &Value, secrets: &Value, revision: &str) -> Job {
    let properties = &document["properties"];
    let name = document["name"].as_str().unwrap_or_default();
    let configuration = &properties["configuration"];
    let mut env = vec![
        ("CONTAINER_APP_NAME", name.to_owned()),
        ("CONTAINER_APP_REVISION", revision.to_owned()),
        (
            "CONTAINER_APP_REPLICA_NAME",
            format!("{revision}-{REPLICA}"),
        ),
    ];
    let ingress = &configuration["ingress"];
    if let Some(fqdn) = ingress["fqdn"].as_str() {
        env.push(("CONTAINER_APP_HOSTNAME", fqdn.to_owned()));
        env.push(("CONTAINER_APP_PORT", ingress["targetPort"].to_string()));
    }
    Job {
        container: properties["template"]["containers"][0].clone(),
        secrets: secrets.clone(),
        registries: servers(&configuration["registries"]),
        env,
        egress: true,
        again: true,
    }
}

/// The servers of registries that are pulled from as an identity.
pub(super) fn servers(registries: &Value) -> Vec<String> {
    let all = registries.as_array().into_iter().flatten();
    let known = all.filter(|one| one["identity"].is_string());
    let servers = known.filter_map(|one| one["server"].as_str());
    servers.map(str::to_owned).collect()
}

/// Answers what is asked of an app beside itself.
pub(super) async fn operation(
    state: &Arc<State>,
    call: &Call,
    key: &str,
    path: &[&str],
    tail: &[&str],
) -> Option<Result<Reply, Reply>> {
    let own = format!("/{}", path.get(..8)?.join("/")).to_ascii_lowercase();
    let word = |at: usize| tail.get(at).map(|word| word.to_ascii_lowercase());
    Some(
        match (call.method.as_str(), word(0)?.as_str(), tail.len()) {
            ("POST", "listsecrets", 1) => secrets(state, &own),
            ("POST", "getauthtoken", 1) => token(state, &own),
            ("GET", "revisions", 1) => revisions(state, &own),
            ("GET", "revisions", 2) => revision(state, key),
            ("POST", "revisions", 3) => act(state, &own, tail[1], &word(2)?).await,
            ("GET", "revisions", 3..) if word(2)? == "replicas" => replicas(
                state,
                &own,
                tail[1],
                tail.get(3).filter(|name| !name.is_empty()),
            ),
            _ => return None,
        },
    )
}

pub(super) fn secrets(state: &State, key: &str) -> Result<Reply, Reply> {
    let kept = state.arm.kept();
    let found = kept.resources.get(key).ok_or_else(missing)?;
    let secrets = match found.secrets.is_array() {
        true => found.secrets.clone(),
        false => json!([]),
    };
    Ok(Reply::json(200, json!({"value": secrets})))
}

pub(super) fn token(state: &State, key: &str) -> Result<Reply, Reply> {
    let document = {
        let kept = state.arm.kept();
        kept.resources
            .get(key)
            .ok_or_else(missing)?
            .document
            .clone()
    };
    let token = state.mint(&audience(key), 3600);
    Ok(Reply::json(
        200,
        json!({"id": document["id"], "name": document["name"],
        "type": document["type"], "location": document["location"],
        "properties": {"token": token, "expires": state.clock.timestamp()}}),
    ))
}

/// Returns what the token of a log is for.
fn audience(key: &str) -> String {
    format!("log:{}", key.replace("/providers/microsoft.app", ""))
}

/// The share of an app's requests that a revision gets.
fn weight(app: &Value, revision: &Value) -> u64 {
    let properties = &app["properties"];
    let newest = properties["latestRevisionName"] == *revision;
    let configuration = &properties["configuration"];
    let traffic = configuration["ingress"]["traffic"].as_array();
    let (true, Some(traffic)) = (configuration["activeRevisionsMode"] != "Single", traffic) else {
        return if newest { 100 } else { 0 };
    };
    let own = traffic
        .iter()
        .filter(|one| match one["latestRevision"] == true {
            true => newest,
            false => one["revisionName"] == *revision,
        });
    own.filter_map(|one| one["weight"].as_u64()).sum()
}

/// A revision as it is now.
fn shown(state: &State, path: &str, mut document: Value) -> Value {
    let run = state.arm.kept().runs.get(path).cloned();
    let (phase, replicas) = match &run {
        Some(run) => (Some(run.phase().0), 1),
        None => (None, 0),
    };
    let (health, running, provisioning) = match phase {
        Some(Phase::Running) if run.is_some_and(|run| run.is_ready()) => {
            ("Healthy", "Running", "Provisioned")
        }
        Some(Phase::Running | Phase::Waiting) => ("None", "Processing", "Provisioning"),
        Some(Phase::Ended(_)) => ("Unhealthy", "Degraded", "Provisioned"),
        Some(Phase::Looping) => ("Unhealthy", "Failed", "Provisioned"),
        Some(Phase::NoImage) => ("Unhealthy", "Failed", "Provisioning"),
        None => ("None", "Stopped", "Deprovisioned"),
    };
    let app = path.split("/revisions/").next().unwrap_or_default();
    let app = state
        .arm
        .kept()
        .resources
        .get(app)
        .map(|app| app.document.clone());
    let weight = app.map_or(0, |app| weight(&app, &document["name"]));
    let properties = &mut document["properties"];
    properties["trafficWeight"] = json!(weight);
    properties["replicas"] = json!(replicas);
    properties["healthState"] = json!(health);
    properties["runningState"] = json!(running);
    properties["provisioningState"] = json!(provisioning);
    document
}

fn revisions(state: &State, own: &str) -> Result<Reply, Reply> {
    let below = format!("{own}/revisions/");
    let all: Vec<(String, Value)> = {
        let kept = state.arm.kept();
        kept.resources.get(own).ok_or_else(missing)?;
        let all = kept.resources.range(below.clone()..);
        let all = all.take_while(|(path, _)| path.starts_with(&below));
        all.map(|(path, one)| (path.clone(), one.document.clone()))
            .collect()
    };
    let all = all.into_iter().map(|(path, one)| shown(state, &path, one));
    let all: Vec<Value> = all.collect();
    Ok(Reply::json(200, json!({"value": all})))
}

fn revision(state: &State, key: &str) -> Result<Reply, Reply> {
    let document = {
        let kept = state.arm.kept();
        kept.resources
            .get(key)
            .ok_or_else(missing)?
            .document
            .clone()
    };
    Ok(Reply::json(200, shown(state, key, document)))
}

async fn act(state: &Arc<State>, own: &str, revision: &str, word: &str) -> Result<Reply, Reply> {
    let key = format!("{own}/revisions/{}", revision.to_ascii_lowercase());
    {
        let mut kept = state.arm.kept();
        let found = kept.resources.get_mut(&key).ok_or_else(missing)?;
        match word {
            "activate" => found.document["properties"]["active"] = json!(true),
            "deactivate" => found.document["properties"]["active"] = json!(false),
            "restart" => {}
            _ => return Err(error(404, "InvalidResourceType", "there is no such path")),
        }
    }
    let latest = {
        let kept = state.arm.kept();
        let found = kept.resources.get(own).ok_or_else(missing)?;
        found.document["properties"]["latestRevisionName"].clone()
    };
    if latest == json!(revision) {
        state.note_command(&format!("{word} {revision}"));
        turn(state, own, word != "deactivate").await;
    }
    // `az` takes the answer for JSON.
    Ok(Reply::json(200, json!(format!("{word} succeeded"))))
}

fn replicas(state: &State, own: &str, revision: &str, name: Option<&&str>) -> Result<Reply, Reply> {
    let key = format!("{own}/revisions/{}", revision.to_ascii_lowercase());
    let kept = state.arm.kept();
    let found = kept.resources.get(&key).ok_or_else(missing)?;
    let id = found.document["id"].as_str().unwrap_or_default();
    let container = &found.document["properties"]["template"]["containers"][0]["name"];
    let container = container.as_str().unwrap_or("main");
    let replica = format!("{}-{REPLICA}", revision.to_ascii_lowercase());
    let document = kept.runs.get(&key).map(|run| {
        let place = id.replace("/providers/Microsoft.App", "");
        let stream = format!(
            "{}{place}/replicas/{replica}/containers/{container}/logstream",
            state.endpoint()
        );
        let running = match run.phase().0 {
            Phase::Running => "Running",
            _ => "NotRunning",
        };
        json!({
            "id": format!("{id}/replicas/{replica}"),
            "name": replica,
            "type": "Microsoft.App/containerApps/revisions/replicas",
            "properties": {"createdTime": found.document["properties"]["createdTime"],
                "runningState": running, "containers": [run.document(container, &stream)]},
        })
    });
    match (name, document) {
        (None, document) => {
            let all: Vec<Value> = document.into_iter().collect();
            Ok(Reply::json(200, json!({"value": all})))
        }
        (Some(name), Some(document)) if *name == replica => Ok(Reply::json(200, document)),
        (Some(_), _) => Err(missing()),
    }
}

/// The log of a container, if a path leads to one: its resource and the run's key.
pub(in super::super) fn log_of(path: &[&str]) -> Option<(String, String)> {
    let lower: Vec<String> = path.iter().map(|part| part.to_ascii_lowercase()).collect();
    let parts: Vec<&str> = lower.iter().map(String::as_str).collect();
    match parts[..] {
        [
            "subscriptions",
            s,
            "resourcegroups",
            g,
            kind @ ("containerapps" | "jobs"),
            name,
            of @ ("revisions" | "executions"),
            one,
            "replicas",
            _,
            "containers",
            _,
            "logstream",
        ] => {
            let own = format!(
                "/subscriptions/{s}/resourcegroups/{g}/providers/microsoft.app/{kind}/{name}"
            );
            let run = format!("{own}/{of}/{one}");
            Some((own, run))
        }
        _ => None,
    }
}

/// Streams the log of a container to who has the token for it.
pub(in super::super) fn stream_log(
    state: &State,
    call: &Call,
    header: Option<&str>,
    (own, run): (String, String),
) -> Result<Reply, Reply> {
    if state.genuine(header)? != audience(&own) {
        return Err(error(401, "Unauthorized", "the token is for another log"));
    }
    let run = state
        .arm
        .kept()
        .runs
        .get(&run)
        .cloned()
        .ok_or_else(missing)?;
    let tail = call
        .query
        .get("tailLines")
        .and_then(|tail| tail.parse().ok());
    let follow = call
        .query
        .get("follow")
        .is_some_and(|follow| follow.eq_ignore_ascii_case("true"));
    let json = call
        .query
        .get("output")
        .is_some_and(|output| output == "json");
    let now = state.clock.timestamp();
    let from = run.tail(tail.unwrap_or(20));
    let lines = stream::unfold(from, move |from| {
        let (run, now) = (Arc::clone(&run), now.clone());
        async move {
            let (lines, next) = run.lines(from, follow).await?;
            let mut chunk = Vec::new();
            for line in lines {
                match json {
                    true => {
                        let text = String::from_utf8_lossy(&line);
                        let line = json!({"TimeStamp": now, "Log": text});
                        chunk.extend_from_slice(line.to_string().as_bytes());
                    }
                    false => chunk.extend_from_slice(&line),
                }
                chunk.push(b'\n');
            }
            Some((Ok::<_, std::io::Error>(Bytes::from(chunk)), next))
        }
    });
    let mut response = Response::new(Body::from_stream(lines));
    let kind = axum::http::HeaderValue::from_static("text/plain; charset=utf-8");
    response
        .headers_mut()
        .insert(axum::http::header::CONTENT_TYPE, kind);
    Ok(Reply::switching(response))
}
