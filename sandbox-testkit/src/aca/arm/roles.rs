//! Role assignments and definitions, `Microsoft.Authorization`, at any scope.
//!
//! An assignment says nothing here about who may do what: that is for the switches.

use serde_json::{Value, json};

use super::super::call::Call;
use super::super::reply::Reply;
use super::super::state::State;
use super::{Resource, account, error, missing};

/// Roles by name.
const ROLES: &[(&str, &str)] = &[
    (
        "Azure ContainerApps Session Executor",
        "0fb8eba5-a2bb-4abe-b1c1-49dfad359bb0",
    ),
    (
        "Container Apps SandboxGroup Data Owner",
        "c24cf47c-5077-412d-a19c-45202126392c",
    ),
    ("Contributor", "b24988ac-6180-42a0-ab88-20f7382dd24c"),
    ("AcrPull", "7f951dda-4ed3-4680-a7ca-43fe172d538d"),
    ("AcrPush", "8311e382-0749-4cb8-b61a-304f252e45ec"),
];

/// The part of a path behind the scope, if it is one of these.
fn split<'a>(path: &'a [&'a str]) -> Option<(&'a [&'a str], &'static str, Option<&'a str>)> {
    let at = path
        .iter()
        .rposition(|part| part.eq_ignore_ascii_case("Microsoft.Authorization"))?;
    let scope = path.get(..at.checked_sub(1)?)?;
    let what = match path.get(at + 1)?.to_ascii_lowercase().as_str() {
        "roleassignments" => "roleassignments",
        "roledefinitions" => "roledefinitions",
        _ => return None,
    };
    match path.len() - at {
        2 => Some((scope, what, None)),
        3 => Some((scope, what, path.get(at + 2).copied())),
        _ => None,
    }
}

pub(super) fn is_path(path: &[&str]) -> bool {
    split(path).is_some()
}

pub(super) fn answer(state: &State, call: &Call, path: &[&str]) -> Result<Reply, Reply> {
    let (scope, what, name) = split(path).ok_or_else(missing)?;
    let scope = format!("/{}", scope.join("/"));
    let key = format!("/{}", path.join("/")).to_ascii_lowercase();
    match (call.method.as_str(), what, name) {
        ("GET", "roledefinitions", name) => definitions(call, &scope, name),
        ("PUT", _, Some(name)) => put(state, call, &scope, &key, name),
        ("GET", _, None) => list(state, call, &scope),
        ("GET", _, Some(_)) => {
            let kept = state.arm.kept();
            let found = kept.resources.get(&key).ok_or_else(missing)?;
            Ok(Reply::json(200, found.document.clone()))
        }
        ("DELETE", _, Some(_)) => match state.arm.kept().resources.remove(&key) {
            Some(found) => Ok(Reply::json(200, found.document)),
            None => Ok(Reply::empty(204)),
        },
        _ => Err(error(
            405,
            "MethodNotAllowed",
            "the path has no such method",
        )),
    }
}

fn definitions(call: &Call, scope: &str, name: Option<&str>) -> Result<Reply, Reply> {
    let subscription = scope.split('/').nth(2).unwrap_or(account::SUBSCRIPTION);
    let document = |(role, id): &(&str, &str)| {
        json!({"id": format!("/subscriptions/{subscription}/providers/Microsoft.Authorization/roleDefinitions/{id}"),
            "name": id, "type": "Microsoft.Authorization/roleDefinitions",
            "properties": {"roleName": role, "type": "BuiltInRole", "description": "",
                "assignableScopes": ["/"], "permissions": []}})
    };
    if let Some(name) = name {
        let found = ROLES
            .iter()
            .find(|(_, id)| *id == name)
            .ok_or_else(missing)?;
        return Ok(Reply::json(200, document(found)));
    }
    let filter = call.query.get("$filter").map_or("", String::as_str);
    let wanted = filter.split('\'').nth(1);
    let all = ROLES
        .iter()
        .filter(|(role, _)| wanted.is_none_or(|wanted| wanted == *role));
    let all: Vec<Value> = all.map(document).collect();
    Ok(Reply::json(200, json!({"value": all})))
}

fn put(state: &State, call: &Call, scope: &str, key: &str, name: &str) -> Result<Reply, Reply> {
    let body = call.json()?;
    let properties = &body["properties"];
    if uuid::Uuid::parse_str(name).is_err() {
        return Err(error(400, "InvalidRoleAssignmentId", "the name is no GUID"));
    }
    let (principal, role) = (&properties["principalId"], &properties["roleDefinitionId"]);
    let known = principal
        .as_str()
        .is_some_and(|id| uuid::Uuid::parse_str(id).is_ok());
    if !known || !role.is_string() {
        return Err(error(
            400,
            "BadRequestFormat",
            "a principal and a role are required",
        ));
    }
    if !properties["principalType"].is_string() && state.options().new_principals {
        let why =
            "the principal does not exist in the directory; a new one needs its principalType";
        return Err(error(400, "PrincipalNotFound", why));
    }
    let mut kept = state.arm.kept();
    let same = |(path, found): (&String, &Resource)| {
        let of = &found.document["properties"];
        path != key
            && of["scope"]
                .as_str()
                .is_some_and(|of| of.eq_ignore_ascii_case(scope))
            && of["principalId"] == *principal
            && of["roleDefinitionId"] == *role
    };
    if kept.resources.iter().any(same) {
        let why = "the role assignment already exists";
        return Err(error(409, "RoleAssignmentExists", why));
    }
    let kind = properties["principalType"]
        .as_str()
        .unwrap_or("ServicePrincipal");
    let document = json!({
        "id": format!("{scope}/providers/Microsoft.Authorization/roleAssignments/{name}"),
        "name": name,
        "type": "Microsoft.Authorization/roleAssignments",
        "properties": {"roleDefinitionId": role, "principalId": principal, "principalType": kind,
            "scope": scope, "createdOn": state.clock.timestamp()},
    });
    let before = kept
        .resources
        .insert(key.to_owned(), Resource::new(document.clone()));
    Ok(Reply::json(
        if before.is_some() { 200 } else { 201 },
        document,
    ))
}

fn list(state: &State, call: &Call, scope: &str) -> Result<Reply, Reply> {
    let filter = call.query.get("$filter").map_or("", String::as_str);
    let principal = filter
        .contains("principalId")
        .then(|| filter.split('\'').nth(1))
        .flatten();
    let scope = scope.to_ascii_lowercase();
    let kept = state.arm.kept();
    let all = kept.resources.values().filter(|found| {
        let of = &found.document["properties"];
        let there = of["scope"].as_str().map(str::to_ascii_lowercase);
        let fits =
            there.is_some_and(|there| scope.starts_with(&there) || there.starts_with(&scope));
        fits && principal.is_none_or(|principal| of["principalId"] == principal)
    });
    let all: Vec<Value> = all.map(|found| found.document.clone()).collect();
    Ok(Reply::json(200, json!({"value": all})))
}
