//! Operations on one sandbox: stop and resume, its policies, and where the rest is.
//!
//! An egress policy is checked and kept; it must never be said to be enforced.

use std::sync::Arc;

use sandbox_core::Usage;
use serde_json::{Value, json};

use super::call::{Call, not_found};
use super::reply::{Reply, coded, invalid, problem};
use super::state::{Guest, State, not_running};
use super::{exec, files, ports, resource, snapshots};

pub(super) async fn operation(
    state: &Arc<State>,
    call: &Call,
    guest: Arc<Guest>,
    operation: &[&str],
) -> Result<Reply, Reply> {
    let newer = call.newer();
    match (call.method.as_str(), operation) {
        ("GET", []) => Ok(Reply::json(200, ports::shown(state, &guest))),
        ("POST", ["executeShellCommand"]) => exec::run(state, call, guest, false).await,
        ("POST", ["executeCommand"]) if newer => exec::run(state, call, guest, true).await,
        (_, ["files", tail @ ..]) => files::operation(state, call, &guest, tail).await,
        ("POST", ["stop"]) => stop(state, call, &guest).await,
        ("POST", ["stop", "async"]) if newer && state.options().stop_async => {
            stop(state, call, &guest).await.map(|_| Reply::empty(202))
        }
        ("POST", ["resume"]) => resume(state, &guest).await,
        ("POST", ["disable"]) if newer => disable(state, &guest),
        ("POST", ["enable"]) if newer => enable(state, &guest),
        ("POST", ["snapshot"]) => snapshots::take(state, call, &guest).await,
        ("POST", ["commit"]) => resource::commit(state, call, &guest).await,
        ("POST", ["lifecycle"]) => {
            // The whole policy: what is not in it is gone.
            let policy = call.json()?;
            guest.document()["lifecycle"] = policy.clone();
            Ok(Reply::json(200, policy))
        }
        ("POST", ["egresspolicy"]) => {
            guest.running(state)?;
            let policy = call.json()?;
            check_egress(&policy, newer)?;
            guest.document()["egressPolicy"] = policy.clone();
            Ok(Reply::json(200, policy))
        }
        ("GET", ["egressDecisions"]) if newer => Ok(Reply::json(
            200,
            json!({
                "http": {"allowed": [], "denied": []},
                "statefulTcp": {"allowed": [], "denied": []},
                "lastUpdated": state.clock.timestamp(),
            }),
        )),
        ("GET", ["egress-decisions"]) if !newer => Ok(Reply::json(
            200,
            json!({
                "networkEgress": {"allowed": [], "denied": []},
                "lastUpdated": state.clock.timestamp(),
            }),
        )),
        ("GET", ["stats"]) => {
            guest.running(state)?;
            // What this host can't measure is not there.
            let used = guest.local.usage().await.unwrap_or_default();
            let stats = match newer {
                true => newer_stats(&guest.document()["resources"], &used),
                false => stats(&guest.document()["resources"], &used),
            };
            Ok(Reply::json(200, stats))
        }
        ("POST", ["ports", "add"]) => {
            guest.running(state)?;
            ports::add(state, &guest, call.json()?).map(|shown| Reply::json(200, shown))
        }
        ("POST", ["ports", "remove"]) => {
            guest.running(state)?;
            ports::remove(&guest, &call.json()?)
        }
        // The service has these; a 404 would say that it has not.
        (
            _,
            ["logstream"]
            | ["processes", "stream"]
            | ["podVolumes", "add"]
            | ["connections", "add"]
            | ["downloadContentPackage"],
        ) if newer => Err(problem(
            501,
            "NotEmulated",
            "the emulator does not have this operation",
        )),
        ("PATCH", ["ports"]) if newer => {
            guest.running(state)?;
            ports::merge(state, &guest, &call.json()?)
        }
        ("GET", ["ports"]) if newer => {
            let shown = ports::shown(state, &guest);
            Ok(Reply::json(200, json!({"ports": shown["ports"]})))
        }
        ("PUT", ["ports"]) => {
            guest.running(state)?;
            ports::replace(state, &guest, &call.json()?)
        }
        ("POST", ["volumes", "add"]) => Err(problem(
            501,
            "NotEmulated",
            "the emulator mounts volumes only when a sandbox is created",
        )),
        _ => Err(not_found()),
    }
}

/// Parses a number of bytes, as the service writes sizes.
fn bytes(text: &Value) -> u64 {
    let text = text.as_str().unwrap_or_default();
    let gibi = text.strip_suffix("Gi").map(|n| (n, 1_u64 << 30));
    let (number, unit) = gibi
        .or_else(|| text.strip_suffix("Mi").map(|n| (n, 1 << 20)))
        .unwrap_or((text, 1));
    number.parse::<u64>().unwrap_or(0).saturating_mul(unit)
}

/// Use of a resource of so many bytes.
fn of_all(used: Option<u64>, total: &Value) -> Value {
    let total = bytes(total);
    match used {
        Some(used) => json!({"usedBytes": used, "totalBytes": total,
            "availableBytes": total.saturating_sub(used)}),
        None => json!({"totalBytes": total}),
    }
}

/// Statistics in the newer version, which has other names for them.
fn newer_stats(resources: &Value, used: &Usage) -> Value {
    json!({
        "cpu": {"user": 0, "nice": 0, "system": 0, "idle": 0, "loadAvg1": 0.0},
        "memory": of_all(used.memory, &resources["memory"]),
        "disk": [of_all(used.disk, &resources["disk"])],
        "network": {"rxBytes": 0, "txBytes": 0},
        "uptimeSecs": 0,
    })
}

/// Keeps a sandbox from running until it is enabled.
fn disable(state: &State, guest: &Guest) -> Result<Reply, Reply> {
    if guest.state(state) == "Deleting" {
        return Err(not_running());
    }
    guest.turn(state.clock.now(), "Stopping", Default::default(), "Stopped");
    guest.document()["stateDetails"] =
        json!({"stoppedReason": "Disabled", "stoppedAt": state.clock.timestamp()});
    Ok(Reply::json(200, ports::shown(state, guest)))
}

/// Lets a disabled sandbox be resumed; it does not run by that.
fn enable(state: &State, guest: &Guest) -> Result<Reply, Reply> {
    if guest.document()["stateDetails"]["stoppedReason"] == "Disabled" {
        guest.document()["stateDetails"]["stoppedReason"] = json!("UserStopped");
    }
    Ok(Reply::json(200, ports::shown(state, guest)))
}

/// Statistics of resources: what there is, and what is used of it.
fn stats(resources: &Value, used: &Usage) -> Value {
    let cpu = used.cpu.and_then(|cpu| u64::try_from(cpu.as_nanos()).ok());
    json!({
        "cpu": {"usageNanoCores": 0, "usageCoreNanoSeconds": cpu},
        "memory": of_all(used.memory, &resources["memory"]),
        "storage": of_all(used.disk, &resources["disk"]),
        "network": {"rxBytes": 0, "txBytes": 0},
    })
}

async fn stop(state: &State, call: &Call, guest: &Guest) -> Result<Reply, Reply> {
    let options = state.options();
    if call.body.is_empty() && !call.newer() && options.bodyless_stop_hangs {
        std::future::pending::<()>().await;
    }
    guest.running(state)?;
    let now = state.clock.now();
    if options.stop_fails {
        state.change(|options| options.stop_fails = false);
        guest.turn(now, "Stopping", options.stopping, "StopFailed");
        return Ok(Reply::json(200, snapshots::of_stop(state, guest)));
    }
    guest.turn(now, "Stopping", options.stopping, "Stopped");
    guest.document()["stateDetails"] =
        json!({"stoppedReason": "UserStopped", "stoppedAt": state.clock.timestamp()});
    Ok(Reply::json(200, snapshots::of_stop(state, guest)))
}

pub(super) async fn resume(state: &State, guest: &Guest) -> Result<Reply, Reply> {
    match guest.state(state).as_str() {
        "Stopped" if guest.document()["stateDetails"]["stoppedReason"] == "Disabled" => {
            let why = "the sandbox is disabled";
            return Err(coded(409, "SandboxDisabled", why, json!(1)));
        }
        "Stopped" | "Suspended" | "Idle" => {
            snapshots::end_of_stop(state, guest);
            if let Some(document) = guest.document().as_object_mut() {
                document.remove("stateDetails");
            }
            let takes = state.options().resuming;
            guest.turn(state.clock.now(), "Resuming", takes, "Running");
        }
        "Running" | "Resuming" => {}
        _ => return Err(not_running()),
    }
    Ok(Reply::json(200, ports::shown(state, guest)))
}

/// Whether a policy denies what it does not name, in either of its forms.
pub(super) fn denies(policy: &Value) -> bool {
    let section = match policy["http"].is_object() {
        true => &policy["http"],
        false => policy,
    };
    section["defaultAction"] == "Deny" && section["enforcementMode"] != "Audit"
}

/// Checks an egress policy, as the service refuses it.
pub(super) fn check_egress(policy: &Value, newer: bool) -> Result<(), Reply> {
    if policy.is_null() {
        return Ok(());
    }
    // The newer version has a section for it, and takes the older form too.
    let section = match policy["http"].is_object() {
        true => &policy["http"],
        false => policy,
    };
    let action = section["defaultAction"].as_str().unwrap_or("Allow");
    if !["Allow", "Deny"].contains(&action) {
        return Err(invalid("defaultAction", "must be Allow or Deny"));
    }
    if section["trafficInspection"] == "Partial" && action == "Deny" {
        return Err(invalid(
            "trafficInspection",
            "Partial does not go with Deny",
        ));
    }
    let mut rules = section["rules"].as_array().into_iter().flatten();
    if !newer && rules.any(|rule| !rule["match"]["scheme"].is_null()) {
        return Err(invalid("scheme", "this version does not have it"));
    }
    let rules = policy["transportRules"].as_array().map_or(0, Vec::len);
    match rules > 10 {
        true => Err(invalid("transportRules", "at most 10 rules")),
        false => Ok(()),
    }
}
