//! Requests to Azure before clients get to work: subscriptions, providers, resource groups,
//! the list of resources by tag, quotas, queries of logs.
//!
//! Every subscription and resource group that is asked for is there.

use serde_json::{Value, json};

use super::super::call::Call;
use super::super::reply::Reply;
use super::super::state::State;
use super::error;
use super::kinds::{KINDS, registry_name};

/// The subscription of the emulator.
pub(super) const SUBSCRIPTION: &str = "00000000-0000-0000-0000-000000000000";

fn subscription(id: &str) -> Value {
    json!({"id": format!("/subscriptions/{id}"), "subscriptionId": id, "tenantId": SUBSCRIPTION,
        "displayName": "emulator", "state": "Enabled",
        "subscriptionPolicies": {"locationPlacementId": "Public_2014-09-01", "quotaId": "Emulator",
            "spendingLimit": "Off"}})
}

fn provider(id: &str, namespace: &str) -> Value {
    let types = KINDS.iter().map(|kind| {
        json!({"resourceType": kind.name, "locations": ["West US 2", "East US"],
            "apiVersions": super::VERSIONS})
    });
    let types: Vec<Value> = types.collect();
    json!({"id": format!("/subscriptions/{id}/providers/{namespace}"), "namespace": namespace,
        "registrationState": "Registered", "resourceTypes": types})
}

fn group(subscription: &str, name: &str) -> Value {
    json!({"id": format!("/subscriptions/{subscription}/resourceGroups/{name}"), "name": name,
        "type": "Microsoft.Resources/resourceGroups", "location": "westus2",
        "properties": {"provisioningState": "Succeeded"}})
}

/// Whether a path is one of these.
pub(super) fn is_path(path: &[&str]) -> bool {
    let lower: Vec<String> = path.iter().map(|part| part.to_ascii_lowercase()).collect();
    let parts: Vec<&str> = lower.iter().map(String::as_str).collect();
    matches!(
        parts[..],
        ["subscriptions"]
            | ["tenants"]
            | ["subscriptions", _]
            | ["subscriptions", _, "locations"]
            | ["subscriptions", _, "providers"]
            | ["subscriptions", _, "providers", _]
            | ["subscriptions", _, "providers", _, "register"]
            | [
                "subscriptions",
                _,
                "providers",
                "microsoft.containerregistry",
                "checknameavailability"
            ]
            | ["subscriptions", _, "resourcegroups"]
            | ["subscriptions", _, "resourcegroups", _]
            | ["subscriptions", _, "resourcegroups", _, "resources"]
            | ["subscriptions", _, "resources"]
            | [
                "subscriptions",
                _,
                "providers",
                "microsoft.app",
                "locations",
                _,
                "usages"
            ]
            | [
                "subscriptions",
                _,
                "resourcegroups",
                _,
                "providers",
                "microsoft.app",
                "managedenvironments",
                _,
                "usages"
            ]
    )
}

pub(super) fn answer(state: &State, call: &Call, path: &[&str]) -> Result<Reply, Reply> {
    let lower: Vec<String> = path.iter().map(|part| part.to_ascii_lowercase()).collect();
    let parts: Vec<&str> = lower.iter().map(String::as_str).collect();
    let ok = |body: Value| Ok(Reply::json(200, body));
    match (call.method.as_str(), &parts[..]) {
        ("GET", ["subscriptions"]) => ok(json!({"value": [subscription(SUBSCRIPTION)]})),
        ("GET", ["tenants"]) => ok(json!({"value": [{"id": format!("/tenants/{SUBSCRIPTION}"),
            "tenantId": SUBSCRIPTION}]})),
        ("GET", ["subscriptions", _]) => ok(subscription(path[1])),
        ("GET", ["subscriptions", _, "locations"]) => ok(json!({"value": [
            {"name": "westus2", "displayName": "West US 2"},
            {"name": "eastus", "displayName": "East US"}]})),
        ("GET", ["subscriptions", _, "providers"]) => {
            ok(json!({"value": [provider(path[1], "Microsoft.App")]}))
        }
        ("POST", [.., "checknameavailability"]) => name_of_registry(state, call),
        ("GET" | "POST", ["subscriptions", _, "providers", ..]) if !parts.contains(&"usages") => {
            ok(provider(path[1], path[3]))
        }
        ("GET", ["subscriptions", _, "resourcegroups"]) => {
            ok(json!({"value": [group(path[1], "rg")]}))
        }
        ("GET" | "PUT", ["subscriptions", _, "resourcegroups", _]) => ok(group(path[1], path[3])),
        ("HEAD", ["subscriptions", _, "resourcegroups", _]) => Ok(Reply::empty(204)),
        ("GET", [.., "resources"]) => resources(state, call, path),
        ("GET", ["subscriptions", _, "resourcegroups", .., "usages"]) => {
            let key = format!("/{}", parts[..8].join("/"));
            match state.arm.kept().resources.contains_key(&key) {
                true => ok(json!({"value": [
                    usage("ManagedEnvironmentConsumptionCores", 0, 100),
                    usage("ManagedEnvironmentGeneralPurposeCores", 0, 100)]})),
                false => Err(super::missing()),
            }
        }
        ("GET", [.., "usages"]) => {
            let before = format!("/subscriptions/{}/", parts[1]);
            let count = |kind: &str| {
                let kept = state.arm.kept();
                let all = kept.resources.keys().filter(|key| key.starts_with(&before));
                all.filter(|key| key.split('/').nth_back(1) == Some(kind))
                    .count()
            };
            let (environments, pools) = (count("managedenvironments"), count("sessionpools"));
            ok(json!({"value": [
                usage("ManagedEnvironmentCount", environments, 15),
                usage("SessionPoolCount", pools, 6)]}))
        }
        _ => Err(error(
            405,
            "MethodNotAllowed",
            "the path has no such method",
        )),
    }
}

fn usage(name: &str, used: usize, limit: usize) -> Value {
    json!({"name": {"value": name, "localizedValue": name}, "unit": "Count",
        "currentValue": used, "limit": limit})
}

/// Whether a registry may be called so: names are those of hosts, and of all subscriptions.
fn name_of_registry(state: &State, call: &Call) -> Result<Reply, Reply> {
    let body = call.json()?;
    let name = body["name"].as_str().unwrap_or_default();
    let taken = || {
        let kept = state.arm.kept();
        let end = format!(
            "/microsoft.containerregistry/registries/{}",
            name.to_ascii_lowercase()
        );
        kept.resources.keys().any(|key| key.ends_with(&end))
    };
    let refusal = if !registry_name(name) {
        Some(("Invalid", "a name has 5 to 50 letters and digits"))
    } else if taken() {
        Some(("AlreadyExists", "the registry is already in use"))
    } else {
        None
    };
    Ok(Reply::json(
        200,
        match refusal {
            Some((reason, message)) => {
                json!({"nameAvailable": false, "reason": reason, "message": message})
            }
            None => json!({"nameAvailable": true,
            "availableLoginServerName": format!("{}.azurecr.io", name.to_ascii_lowercase())}),
        },
    ))
}

/// The resources of a group or of all: all of them, those with a tag or those of a type.
fn resources(state: &State, call: &Call, path: &[&str]) -> Result<Reply, Reply> {
    let before = path.get(..path.len() - 1).unwrap_or_default().join("/");
    let before = format!("/{before}/").to_ascii_lowercase();
    let filter = call.query.get("$filter").map_or("", String::as_str);
    let quoted: Vec<&str> = filter.split('\'').skip(1).step_by(2).collect();
    // `az` writes tags in small letters.
    let by = filter.split(' ').next().unwrap_or_default();
    let by = by.to_ascii_lowercase();
    let fits = |document: &Value| match (by.as_str(), &quoted[..]) {
        ("", _) => true,
        ("tagname", [name]) => document["tags"][*name].is_string(),
        ("tagname", [name, value]) => document["tags"][*name] == *value,
        ("resourcetype", [kind]) => {
            let of = document["type"].as_str();
            of.is_some_and(|of| of.eq_ignore_ascii_case(kind))
        }
        _ => false,
    };
    let kept = state.arm.kept();
    let all = kept.resources.iter().filter(|(key, found)| {
        let rest = key.split("/providers/").nth(1).unwrap_or_default();
        let top = rest.split('/').count() == 3 && !key.contains("/microsoft.authorization/");
        top && key.starts_with(&before) && fits(&found.document)
    });
    let all = all.map(|(_, found)| {
        let of = &found.document;
        json!({"id": of["id"], "name": of["name"], "type": of["type"],
            "location": of["location"], "tags": of["tags"]})
    });
    let all: Vec<Value> = all.collect();
    Ok(Reply::json(200, json!({"value": all})))
}

/// Whether a path is that of a query of logs.
pub(in super::super) fn is_query(path: &[&str]) -> bool {
    matches!(path, ["v1", "workspaces", _, "query"])
}

/// Returns what containers of the apps named in a query have written. Of its language only that
/// is understood.
pub(in super::super) async fn query(state: &State, call: &Call) -> Result<Reply, Reply> {
    let body = call.json()?;
    let text = body["query"].as_str().unwrap_or_default();
    if !text.contains("ContainerAppConsoleLogs") {
        return Err(error(400, "BadArgumentError", "the table is not known"));
    }
    let names: Vec<&str> = text.split('\'').skip(1).step_by(2).collect();
    let runs: Vec<_> = {
        let kept = state.arm.kept();
        let all = kept.runs.iter().filter(|(key, _)| {
            let app = key
                .split("/containerapps/")
                .nth(1)
                .and_then(|rest| rest.split('/').next());
            app.is_some_and(|app| names.contains(&app))
        });
        all.map(|(key, run)| {
            (
                key.rsplit('/').next().unwrap_or_default().to_owned(),
                run.clone(),
            )
        })
        .collect()
    };
    let now = state.clock.timestamp();
    let mut rows = Vec::new();
    for (revision, run) in runs {
        let Some((lines, _)) = run.lines(0, false).await else {
            continue;
        };
        for line in lines.iter().rev() {
            rows.push(json!([
                now,
                revision,
                "main",
                String::from_utf8_lossy(line)
            ]));
        }
    }
    let columns = ["TimeGenerated", "RevisionName", "ContainerName", "Log"];
    let columns = columns.map(|name| json!({"name": name, "type": "string"}));
    Ok(Reply::json(
        200,
        json!({"tables": [
        {"name": "PrimaryResult", "columns": columns, "rows": rows}]}),
    ))
}
