//! What can be done with one sandbox: stop and resume, its policies, and where the rest is.
//!
//! An egress policy is checked and kept; it must never be said to be enforced.

use std::sync::Arc;

use serde_json::{Value, json};

use super::call::{Call, not_found};
use super::reply::{Reply, invalid, problem};
use super::state::{Guest, State, not_running};
use super::{exec, files, ports, resource, snapshots};

pub(super) async fn operation(
    state: &Arc<State>,
    call: &Call,
    guest: Arc<Guest>,
    operation: &[&str],
) -> Result<Reply, Reply> {
    match (call.method.as_str(), operation) {
        ("GET", []) => Ok(Reply::json(200, ports::shown(state, &guest))),
        ("POST", ["executeShellCommand"]) => exec::run(state, call, guest).await,
        (_, ["files", tail @ ..]) => files::operation(state, call, &guest, tail).await,
        ("POST", ["stop"]) => stop(state, call, &guest).await,
        ("POST", ["resume"]) => resume(state, &guest).await,
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
            check_egress(&policy)?;
            guest.document()["egressPolicy"] = policy.clone();
            Ok(Reply::json(200, policy))
        }
        ("GET", ["egress-decisions"]) => Ok(Reply::json(
            200,
            json!({
                "networkEgress": {"allowed": [], "denied": []},
                "lastUpdated": state.clock.timestamp(),
            }),
        )),
        ("GET", ["stats"]) => {
            guest.running(state)?;
            Ok(Reply::json(200, stats(&guest.document()["resources"])))
        }
        ("POST", ["ports", "add"]) => {
            guest.running(state)?;
            ports::add(state, &guest, call.json()?).map(|shown| Reply::json(200, shown))
        }
        ("POST", ["ports", "remove"]) => {
            guest.running(state)?;
            ports::remove(&guest, &call.json()?)
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

/// What there is of resources; what is used of them is not measured.
fn stats(resources: &Value) -> Value {
    let bytes = |text: &Value| {
        let text = text.as_str().unwrap_or_default();
        let gibi = text.strip_suffix("Gi").map(|n| (n, 1_u64 << 30));
        let (number, unit) = gibi
            .or_else(|| text.strip_suffix("Mi").map(|n| (n, 1 << 20)))
            .unwrap_or((text, 1));
        number.parse::<u64>().unwrap_or(0).saturating_mul(unit)
    };
    let usage = |total: u64| json!({"usedBytes": 0, "totalBytes": total, "availableBytes": total});
    json!({
        "cpu": {"usageNanoCores": 0, "usageCoreNanoSeconds": 0},
        "memory": usage(bytes(&resources["memory"])),
        "storage": usage(bytes(&resources["disk"])),
        "network": {"rxBytes": 0, "txBytes": 0},
    })
}

async fn stop(state: &State, call: &Call, guest: &Guest) -> Result<Reply, Reply> {
    let options = state.options();
    if call.body.is_empty() && options.bodyless_stop_hangs {
        std::future::pending::<()>().await;
    }
    guest.running(state)?;
    let now = state.clock.now();
    guest.turn(now, "Stopping", options.stopping, "Stopped");
    guest.document()["stateDetails"] =
        json!({"stoppedReason": "UserStopped", "stoppedAt": state.clock.timestamp()});
    Ok(Reply::json(200, snapshots::of_stop(state, guest)))
}

pub(super) async fn resume(state: &State, guest: &Guest) -> Result<Reply, Reply> {
    match guest.state(state).as_str() {
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
