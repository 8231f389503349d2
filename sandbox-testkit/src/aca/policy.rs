//! What can be done with one sandbox: its state machine, its policies, its ports.
//!
//! Nothing here resumes a sandbox that nobody asked to resume.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use serde_json::{Value, json};

use super::reply::{Reply, coded, invalid, problem};
use super::route::{Call, not_found};
use super::state::{Guest, State, not_running};
use super::{exec, files, group};

pub(super) async fn operation(
    state: &Arc<State>,
    call: &Call,
    guest: Arc<Guest>,
    operation: &[&str],
) -> Result<Reply, Reply> {
    match (call.method.as_str(), operation) {
        ("GET", []) => {
            guest.state(&state.options);
            Ok(Reply::json(200, shown(state, &guest)))
        }
        ("POST", ["executeShellCommand"]) => exec::run(state, call, guest).await,
        (_, ["files", tail @ ..]) => files::operation(state, call, &guest, tail).await,
        ("POST", ["stop"]) => stop(state, call, &guest).await,
        ("POST", ["resume"]) => resume(state, &guest).await,
        ("POST", ["snapshot"]) => group::snapshot(state, call, &guest).await,
        ("POST", ["commit"]) => group::commit(state, call, &guest),
        ("POST", ["lifecycle"]) => {
            // The whole policy: what is not in it is gone.
            guest.document()["lifecycle"] = call.json()?;
            Ok(Reply::json(200, guest.document()["lifecycle"].clone()))
        }
        ("POST", ["egresspolicy"]) => {
            guest.running(&state.options)?;
            let policy = call.json()?;
            check_egress(&policy)?;
            guest.document()["egressPolicy"] = policy.clone();
            Ok(Reply::json(200, policy))
        }
        ("GET", ["egress-decisions"]) => Ok(Reply::json(200, json!({"decisions": []}))),
        ("GET", ["stats"]) => {
            guest.running(&state.options)?;
            Ok(Reply::json(200, json!({"cpuUsage": 0.0, "memoryUsage": 0})))
        }
        ("POST", ["ports", "add"]) => add_port(state, call, &guest),
        ("POST", ["ports", "remove"]) => remove_port(state, call, &guest),
        _ => Err(not_found()),
    }
}

/// The resource; a port has no URL at first.
fn shown(state: &State, guest: &Guest) -> Value {
    let mut document = guest.document().clone();
    let ports = guest.ports.lock().unwrap_or_else(PoisonError::into_inner);
    let fresh = |port: &Value| {
        ports.iter().any(|(number, at)| {
            port["port"] == json!(number) && at.elapsed() < state.options.port_url
        })
    };
    if let Some(list) = document["ports"].as_array_mut() {
        for port in list {
            if fresh(port)
                && let Some(port) = port.as_object_mut()
            {
                port.remove("url");
            }
        }
    }
    document
}

async fn stop(state: &State, call: &Call, guest: &Guest) -> Result<Reply, Reply> {
    if call.body.is_empty() && state.options.bodyless_stop_hangs {
        std::future::pending::<()>().await;
    }
    guest.running(&state.options)?;
    {
        let mut document = guest.document();
        document["state"] = json!("Stopped");
        document["stateDetails"] =
            json!({"stoppedReason": "UserStopped", "stoppedAt": group::timestamp()});
    }
    let id = format!("stop-{}", guest.id);
    Ok(Reply::json(
        200,
        group::snapshot_document(&id, guest, json!({})),
    ))
}

async fn resume(state: &State, guest: &Guest) -> Result<Reply, Reply> {
    match guest.state(&state.options).as_str() {
        "Stopped" | "Suspended" | "Idle" => guest.document()["state"] = json!("Running"),
        "Running" => {}
        _ => return Err(not_running()),
    }
    Ok(Reply::json(200, shown(state, guest)))
}

/// What the service refuses in an egress policy.
pub(super) fn check_egress(policy: &Value) -> Result<(), Reply> {
    if policy.is_null() {
        return Ok(());
    }
    let action = policy["defaultAction"].as_str().unwrap_or("Allow");
    if !["Allow", "Deny"].contains(&action) {
        return Err(invalid("defaultAction", "must be Allow or Deny"));
    }
    if policy["trafficInspection"] == "Partial" && action == "Deny" {
        return Err(invalid(
            "trafficInspection",
            "Partial does not go with Deny",
        ));
    }
    Ok(())
}

fn port_of(body: &Value) -> Result<u64, Reply> {
    body["port"]
        .as_u64()
        .filter(|port| (1..=65_535).contains(port))
        .ok_or_else(|| invalid("port", "must be a port"))
}

fn add_port(state: &State, call: &Call, guest: &Guest) -> Result<Reply, Reply> {
    guest.running(&state.options)?;
    let mut body = call.json()?;
    let port = port_of(&body)?;
    check_access(&body["ipAccessControl"])?;
    body["url"] = json!(format!("https://{}--{port}.emulator.adcproxy.io", guest.id));
    let mut document = guest.document();
    if let Some(ports) = document["ports"].as_array_mut() {
        if ports.iter().any(|known| known["port"] == json!(port)) {
            return Err(coded(
                409,
                "PortExists",
                "the port is there already",
                json!(1),
            ));
        }
        ports.push(body.clone());
    }
    let mut since = guest.ports.lock().unwrap_or_else(PoisonError::into_inner);
    since.push((port, Instant::now()));
    let ports = document["ports"].clone();
    if !state.options.port_url.is_zero()
        && let Some(body) = body.as_object_mut()
    {
        body.remove("url");
    }
    body["ports"] = ports;
    Ok(Reply::json(200, body))
}

fn check_access(access: &Value) -> Result<(), Reply> {
    let Some(rules) = access["rules"].as_array() else {
        return Ok(());
    };
    let distinct = |key: &str| {
        let mut seen: Vec<String> = rules.iter().map(|rule| rule[key].to_string()).collect();
        seen.sort();
        seen.dedup();
        seen.len() == rules.len()
    };
    if rules.len() > 10 || !distinct("name") || !distinct("priority") {
        return Err(invalid(
            "ipAccessControl",
            "at most 10 rules, of distinct names and priorities",
        ));
    }
    Ok(())
}

fn remove_port(state: &State, call: &Call, guest: &Guest) -> Result<Reply, Reply> {
    guest.running(&state.options)?;
    let port = port_of(&call.json()?)?;
    let mut document = guest.document();
    let Some(ports) = document["ports"].as_array_mut() else {
        return Err(problem(404, "PortNotFound", "the sandbox has no such port"));
    };
    let before = ports.len();
    ports.retain(|known| known["port"] != json!(port));
    if ports.len() == before {
        return Err(problem(404, "PortNotFound", "the sandbox has no such port"));
    }
    Ok(Reply::json(200, json!({"ports": ports})))
}
