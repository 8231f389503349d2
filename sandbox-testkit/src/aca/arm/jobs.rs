//! Jobs: executions, which run for real if their container has a command, and otherwise succeed
//! when their time is up.
//!
//! An execution is shown with its exit code unless a switch keeps it back.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::call::Call;
use super::super::container::{Job, Phase, Run};
use super::super::reply::Reply;
use super::super::state::State;
use super::{Resource, apps, error, missing, operations};

/// Answers what is asked of a job beside itself.
pub(super) async fn operation(
    state: &Arc<State>,
    call: &Call,
    key: &str,
    path: &[&str],
    tail: &[&str],
) -> Option<Result<Reply, Reply>> {
    let place = path.get(..8)?;
    let own = format!("/{}", place.join("/")).to_ascii_lowercase();
    let words: Vec<String> = tail.iter().map(|word| word.to_ascii_lowercase()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Some(match (call.method.as_str(), &words[..]) {
        ("POST", ["start"]) => start(state, call, place, &own).await,
        ("POST", ["stop"]) => stop_all(state, place, &own).await,
        // Both forms are posted: the second by `az`.
        ("POST", ["executions", one, "stop"] | ["stop", one]) => {
            stop(state, place, &format!("{own}/executions/{one}")).await
        }
        ("POST", ["suspend" | "resume"]) => suspend(state, place, &own, words[0]),
        ("POST", ["listsecrets"]) => apps::secrets(state, &own),
        ("POST", ["getauthtoken"]) => apps::token(state, &own),
        ("GET", ["executions", _, "replicas"]) => replicas(state, &own, tail[1]),
        ("GET", ["executions", _]) => {
            let kept = state.arm.kept();
            let found = kept.resources.get(key).ok_or_else(missing);
            found.map(|found| Reply::json(200, found.document.clone()))
        }
        _ => return None,
    })
}

async fn start(state: &Arc<State>, call: &Call, place: &[&str], own: &str) -> Result<Reply, Reply> {
    let changes = call.json()?;
    let takes = state.options().arm_operation;
    let end = state.clock.now().saturating_add(takes);
    let (path, name, job) = {
        let mut kept = state.arm.kept();
        let found = kept.resources.get_mut(own).ok_or_else(missing)?;
        if found.document["properties"]["runningState"] == "Suspended" {
            return Err(error(409, "JobSuspended", "the job is suspended"));
        }
        let id = found.document["id"].as_str().unwrap_or_default().to_owned();
        let random = uuid::Uuid::new_v4().simple().to_string();
        let name = format!("{}-{}", place.last().unwrap_or(&""), &random[..7]);
        // What is given replaces the containers whole.
        let template = match changes["containers"].is_array() {
            true => changes,
            false => found.document["properties"]["template"].clone(),
        };
        let container = template["containers"][0].clone();
        let image = container["image"].as_str().unwrap_or_default();
        let pulled = state.registry().is_some_and(|registry| registry.has(image));
        let runs = pulled || container["command"].is_array();
        let at_once = takes.is_zero() && !runs;
        let status = if at_once { "Succeeded" } else { "Running" };
        let document = json!({
            "id": format!("{id}/executions/{name}"),
            "name": name,
            "type": "Microsoft.App/jobs/executions",
            "properties": {"status": status, "startTime": state.clock.timestamp(),
                "template": template},
        });
        let job = Job {
            container,
            secrets: found.secrets.clone(),
            registries: apps::servers(&found.document["properties"]["configuration"]["registries"]),
            env: vec![
                (
                    "CONTAINER_APP_JOB_NAME",
                    (*place.last().unwrap_or(&"")).to_owned(),
                ),
                ("CONTAINER_APP_JOB_EXECUTION_NAME", name.clone()),
            ],
            egress: true,
            again: false,
        };
        let mut resource = Resource::new(document);
        resource.turn = (!takes.is_zero() && !runs).then_some((end, Some("Succeeded")));
        let path = format!("{own}/executions/{name}").to_ascii_lowercase();
        kept.resources.insert(path.clone(), resource);
        (path, name, runs.then_some(job))
    };
    if let Some(job) = job {
        let run = Run::start(state, job);
        state.arm.kept().runs.insert(path, run);
    }
    let id = format!("/{}/executions/{name}", place.join("/"));
    match state.options().arm_accepts {
        false => Ok(Reply::json(200, json!({"id": id, "name": name}))),
        true => Ok(operations::begin(state, place, Reply::empty(202), true)),
    }
}

/// Writes down what has become of executions that run.
pub(super) fn settle(state: &State) {
    let now = state.clock.timestamp();
    let detailed = !state.options().no_detailed_status;
    let mut kept = state.arm.kept();
    let kept = &mut *kept;
    for (path, run) in &kept.runs {
        let Phase::Ended(code) = run.phase().0 else {
            continue;
        };
        let Some(found) = kept.resources.get_mut(path) else {
            continue;
        };
        let document = &mut found.document;
        if document["type"] != "Microsoft.App/jobs/executions"
            || document["properties"]["status"] != "Running"
        {
            continue;
        }
        let name = document["name"].as_str().unwrap_or_default().to_owned();
        let properties = &mut document["properties"];
        properties["status"] = json!(if code == 0 { "Succeeded" } else { "Failed" });
        properties["endTime"] = json!(now);
        if detailed {
            let container = properties["template"]["containers"][0]["name"].clone();
            properties["detailedStatus"] = json!({"replicas": [{"name": format!("{name}-0"),
                "containers": [{"name": container, "code": code,
                    "status": if code == 0 { "Completed" } else { "Error" }}]}]});
        }
    }
}

async fn stop(state: &Arc<State>, place: &[&str], key: &str) -> Result<Reply, Reply> {
    let run = {
        let mut kept = state.arm.kept();
        let found = kept.resources.get_mut(key).ok_or_else(missing)?;
        if found.document["properties"]["status"] == "Running" {
            found.document["properties"]["status"] = json!("Stopped");
            found.document["properties"]["endTime"] = json!(state.clock.timestamp());
            found.turn = None;
        }
        kept.runs.get(key).cloned()
    };
    if let Some(run) = run {
        run.stop().await;
    }
    match state.options().arm_accepts {
        false => Ok(Reply::empty(200)),
        true => Ok(operations::begin(state, place, Reply::empty(202), true)),
    }
}

async fn stop_all(state: &Arc<State>, place: &[&str], own: &str) -> Result<Reply, Reply> {
    let below = format!("{own}/executions/");
    let all: Vec<String> = {
        let kept = state.arm.kept();
        kept.resources.get(own).ok_or_else(missing)?;
        let all = kept.resources.keys();
        all.filter(|path| path.starts_with(&below))
            .cloned()
            .collect()
    };
    for key in all {
        stop(state, place, &key).await?;
    }
    Ok(Reply::json(200, json!({"value": []})))
}

fn suspend(state: &State, place: &[&str], own: &str, word: &str) -> Result<Reply, Reply> {
    let mut kept = state.arm.kept();
    let found = kept.resources.get_mut(own).ok_or_else(missing)?;
    let to = if word == "suspend" {
        "Suspended"
    } else {
        "Ready"
    };
    found.document["properties"]["runningState"] = json!(to);
    let document = found.document.clone();
    drop(kept);
    match state.options().arm_accepts {
        false => Ok(Reply::json(200, document)),
        true => Ok(operations::begin(state, place, Reply::empty(202), true)),
    }
}

fn replicas(state: &State, own: &str, execution: &str) -> Result<Reply, Reply> {
    let key = format!("{own}/executions/{}", execution.to_ascii_lowercase());
    let kept = state.arm.kept();
    let found = kept.resources.get(&key).ok_or_else(missing)?;
    let id = found.document["id"].as_str().unwrap_or_default();
    let container = &found.document["properties"]["template"]["containers"][0]["name"];
    let container = container.as_str().unwrap_or("main");
    let replica = format!("{execution}-0");
    let all: Vec<Value> = kept.runs.get(&key).map_or_else(Vec::new, |run| {
        let place = id.replace("/providers/Microsoft.App", "");
        let stream = format!(
            "{}{place}/replicas/{replica}/containers/{container}/logstream",
            state.endpoint()
        );
        vec![json!({"name": replica, "properties": {
            "containers": [run.document(container, &stream)]}})]
    });
    Ok(Reply::json(200, json!({"value": all})))
}
