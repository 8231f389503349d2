//! Egress policies that a group has by name, for sandboxes to be created with.
//!
//! A sandbox has the policy as it was when it was created: what is changed later is not its own.

use serde_json::{Value, json};

use super::call::{Call, not_found};
use super::policy::check_egress;
use super::reply::{Reply, invalid, problem};
use super::resource::page;
use super::state::State;

const COLLECTION: &str = "egressPolicies";

fn path(group: &str, name: &str) -> String {
    format!("{group}/{COLLECTION}/{name}")
}

pub(super) fn operation(state: &State, call: &Call, tail: &[&str]) -> Result<Reply, Reply> {
    let missing = || problem(404, "NotFound", "there is no such policy");
    match (call.method.as_str(), tail) {
        ("GET", []) => {
            let prefix = path(&call.group, "");
            let all = {
                let store = state.store();
                let known = store.resources.iter();
                let ours = known.filter(|(path, _)| path.starts_with(&prefix));
                ours.map(|(_, policy)| policy.clone()).collect()
            };
            Ok(page(state, call, all))
        }
        ("GET", [name]) => {
            let store = state.store();
            let known = store.resources.get(&path(&call.group, name));
            Ok(Reply::json(200, known.ok_or_else(missing)?.clone()))
        }
        ("PUT", [name]) => {
            let mut policy = call.json()?;
            check_egress(&policy, call.newer())?;
            policy["id"] = json!(name);
            policy["name"] = json!(name);
            let path = path(&call.group, name);
            let before = state.store().resources.insert(path, policy.clone());
            let status = match before {
                Some(_) => 200,
                None => call.created(&state.options()),
            };
            Ok(Reply::json(status, policy))
        }
        ("DELETE", [name]) => {
            let gone = state.store().resources.remove(&path(&call.group, name));
            let reply = call.deleted(&state.options(), 200);
            gone.map(|_| reply).ok_or_else(missing)
        }
        _ => Err(not_found()),
    }
}

/// The policy that a creation names; `None` if it names none.
pub(super) fn named(state: &State, group: &str, body: &Value) -> Result<Option<Value>, Reply> {
    let Some(name) = body["egressPolicyId"].as_str() else {
        return Ok(None);
    };
    if body["egressPolicy"].is_object() {
        return Err(invalid("egressPolicyId", "either this or egressPolicy"));
    }
    let name = name.rsplit('/').next().unwrap_or(name);
    let known = state.store().resources.get(&path(group, name)).cloned();
    let known = known.ok_or_else(|| problem(404, "NotFound", "there is no such egress policy"))?;
    Ok(Some(known))
}
