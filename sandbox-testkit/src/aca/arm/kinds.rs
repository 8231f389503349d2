//! Kinds of resources of the management plane: one row for each.
//!
//! A row says what its names look like, what is refused, and what the service adds.

use serde_json::{Value, json};

use super::super::ingress::DOMAIN;

/// A kind of resource.
#[derive(Debug)]
pub(super) struct Kind {
    /// Provider of the resource, as it stands in paths.
    pub(super) provider: &'static str,
    /// Name as it stands in paths.
    pub(super) name: &'static str,
    /// Whether this can be a resource's name.
    pub(super) valid: fn(&str) -> bool,
    /// Actions that can be posted to a resource.
    pub(super) actions: &'static [&'static str],
    /// Resources below one.
    pub(super) children: &'static [&'static str],
    /// Whether a change takes its time.
    pub(super) slow_patch: bool,
    /// Check of a body, as the service refuses it, for a version.
    pub(super) check: fn(&Value, &str) -> Result<(), String>,
    /// Properties that the service adds, given its own address and the resource's path.
    pub(super) complete: fn(&mut Value, &str, &Place<'_>),
}

/// Location of a resource.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) subscription: &'a str,
    pub(super) resources: &'a str,
    pub(super) name: &'a str,
}

/// The provider of container apps and of what they run in.
const APP: &str = "Microsoft.App";

pub(super) const KINDS: &[Kind] = &[
    Kind {
        provider: APP,
        name: "sandboxGroups",
        valid: |name| {
            let known = |c: char| c.is_ascii_alphanumeric() || c == '-';
            (1..=32).contains(&name.len()) && name.chars().all(known) && !name.starts_with('-')
        },
        actions: &[],
        children: &["vnetConnections"],
        slow_patch: false,
        check: |_, _| Ok(()),
        complete: |document, endpoint, _| {
            document["properties"]["managementEndpoint"] = json!(endpoint);
            document["properties"]["defaultDomain"] = json!(DOMAIN);
        },
    },
    Kind {
        provider: APP,
        name: "sessionPools",
        valid: |name| {
            let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
            (3..=63).contains(&name.len())
                && name.chars().all(known)
                && name.starts_with(|c: char| c.is_ascii_lowercase())
        },
        actions: &["fetchMCPServerCredentials"],
        children: &[],
        slow_patch: true,
        check: pool,
        complete: |document, endpoint, place| {
            document["properties"]["poolManagementEndpoint"] = json!(format!(
                "{endpoint}/subscriptions/{}/resourceGroups/{}/sessionPools/{}",
                place.subscription, place.resources, place.name
            ));
            hide(&mut document["properties"]["secrets"]);
            let properties = &mut document["properties"];
            // Either spelling is taken; a custom container's is dropped in silence.
            let settings = &properties["mcpServerSettings"];
            let on = ["isMcpServerEnabled", "isMCPServerEnabled"]
                .iter()
                .any(|key| settings[*key] == true);
            properties["mcpServerSettings"] =
                match on && properties["containerType"] != "CustomContainer" {
                    true => json!({"isMcpServerEnabled": true, "mcpServerEndpoint": format!(
                        "{endpoint}/subscriptions/{}/resourceGroups/{}/sessionPools/{}/mcp",
                        place.subscription, place.resources, place.name)}),
                    false => Value::Null,
                };
        },
    },
    Kind {
        provider: APP,
        name: "containerApps",
        valid: app_name,
        actions: &["start", "stop", "listSecrets", "getAuthToken"],
        children: &["authConfigs", "revisions"],
        slow_patch: true,
        check: app,
        complete: |document, endpoint, place| {
            let name = place.name;
            let properties = &mut document["properties"];
            if properties["runningStatus"].is_null() {
                properties["runningStatus"] = json!("Running");
            }
            if properties["configuration"]["activeRevisionsMode"].is_null() {
                properties["configuration"]["activeRevisionsMode"] = json!("Single");
            }
            properties["eventStreamEndpoint"] = json!(format!(
                "{endpoint}/subscriptions/{}/resourceGroups/{}/containerApps/{name}/eventstream",
                place.subscription, place.resources
            ));
            let ingress = &mut properties["configuration"]["ingress"];
            if ingress.is_object() {
                let inner = if ingress["external"] == true {
                    ""
                } else {
                    ".internal"
                };
                ingress["fqdn"] = json!(format!("{name}{inner}.{DOMAIN}"));
                if ingress["traffic"].is_null() {
                    ingress["traffic"] = json!([{"latestRevision": true, "weight": 100}]);
                }
            }
            hide(&mut properties["configuration"]["secrets"]);
        },
    },
    Kind {
        provider: APP,
        name: "jobs",
        valid: app_name,
        actions: &[
            "start",
            "stop",
            "suspend",
            "resume",
            "listSecrets",
            "getAuthToken",
        ],
        children: &["executions", "stop"],
        slow_patch: true,
        check: |body, _| {
            let configuration = &body["properties"]["configuration"];
            environment(body)?;
            match configuration["triggerType"].as_str() {
                Some("Manual" | "Schedule" | "Event") => Ok(()),
                _ => Err("configuration.triggerType must be Manual, Schedule or Event".into()),
            }
        },
        complete: |document, _, _| hide(&mut document["properties"]["configuration"]["secrets"]),
    },
    Kind {
        provider: APP,
        name: "managedEnvironments",
        valid: |name| (1..=60).contains(&name.len()),
        actions: &[],
        children: &["usages"],
        slow_patch: true,
        check: |_, _| Ok(()),
        complete: |document, endpoint, _| {
            document["properties"]["defaultDomain"] = json!(DOMAIN);
            document["properties"]["staticIp"] = json!("127.0.0.1");
            document["properties"]["eventStreamEndpoint"] = json!(format!("{endpoint}/"));
        },
    },
    Kind {
        provider: "Microsoft.ContainerRegistry",
        name: "registries",
        valid: registry_name,
        actions: &[],
        children: &[],
        slow_patch: true,
        check: |body, _| match body["sku"]["name"].as_str() {
            Some("Basic" | "Standard" | "Premium") => Ok(()),
            _ => Err("sku.name must be Basic, Standard or Premium".into()),
        },
        complete: |document, _, place| {
            // Its own names; the registry that the emulator serves has another.
            let server = format!("{}.azurecr.io", place.name.to_ascii_lowercase());
            let properties = &mut document["properties"];
            properties["loginServer"] = json!(server);
            if properties["adminUserEnabled"].is_null() {
                properties["adminUserEnabled"] = json!(false);
            }
        },
    },
];

pub(super) fn registry_name(name: &str) -> bool {
    (5..=50).contains(&name.len()) && name.chars().all(|c| c.is_ascii_alphanumeric())
}

fn app_name(name: &str) -> bool {
    let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (2..=32).contains(&name.len())
        && name.chars().all(known)
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && !name.contains("--")
}

/// The values of secrets are not shown.
fn hide(secrets: &mut Value) {
    for secret in secrets.as_array_mut().into_iter().flatten() {
        if let Some(secret) = secret.as_object_mut() {
            secret.remove("value");
        }
    }
}

fn environment(body: &Value) -> Result<(), String> {
    let properties = &body["properties"];
    let known = ["environmentId", "managedEnvironmentId"];
    match known.iter().any(|key| properties[key].is_string()) {
        true => Ok(()),
        false => Err("properties.environmentId is required".into()),
    }
}

fn app(body: &Value, _: &str) -> Result<(), String> {
    environment(body)?;
    let ingress = &body["properties"]["configuration"]["ingress"];
    if let Some(mode) = ingress["clientCertificateMode"].as_str()
        && !["ignore", "accept", "require"].contains(&mode.to_ascii_lowercase().as_str())
    {
        return Err("clientCertificateMode must be ignore, accept or require".into());
    }
    let rules = ingress["ipSecurityRestrictions"].as_array();
    let mut actions = rules.into_iter().flatten().map(|rule| &rule["action"]);
    let first = actions.next();
    match actions.all(|action| Some(action) == first) {
        true => Ok(()),
        false => Err("ipSecurityRestrictions must all allow or all deny".into()),
    }
}

fn pool(body: &Value, version: &str) -> Result<(), String> {
    let properties = &body["properties"];
    let kind = properties["containerType"].as_str().unwrap_or_default();
    let built_in = match kind {
        "CustomContainer" => false,
        "PythonLTS" => true,
        "Shell" | "NodeLTS" if version.ends_with("-preview") => true,
        "Shell" | "NodeLTS" => return Err(format!("{kind} needs a preview version")),
        _ => return Err("the containerType is unknown".into()),
    };
    let scale = &properties["scaleConfiguration"];
    let most = scale["maxConcurrentSessions"].as_u64();
    if built_in {
        if properties["environmentId"].is_string() {
            return Err("a built-in type has no environment".into());
        }
        if most.is_some_and(|most| most > 600) {
            return Err("maxConcurrentSessions is at most 600".into());
        }
    } else {
        environment(body)?;
        let ready = scale["readySessionInstances"].as_u64().unwrap_or(0);
        if ready < 1 || most.is_some_and(|most| ready >= most) {
            return Err("readySessionInstances is at least 1 and below the maximum".into());
        }
    }
    let lifecycle = &properties["dynamicPoolConfiguration"]["lifecycleConfiguration"];
    let cooldown = lifecycle["cooldownPeriodInSeconds"].as_u64();
    match cooldown.is_none_or(|seconds| (300..=3600).contains(&seconds)) {
        true => Ok(()),
        false => Err("cooldownPeriodInSeconds is 300 to 3600".into()),
    }
}
