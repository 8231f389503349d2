//! Ports of a sandbox: what may be asked for, and the URLs that come later.
//!
//! A URL leads to the emulator, which carries HTTP on: its host is not the service's, whose names
//! no resolver here would know.

use std::net::IpAddr;
use std::sync::PoisonError;

use serde_json::{Value, json};

use super::forward;
use super::reply::{Reply, coded, invalid, problem};
use super::state::{Guest, State};

/// The resource as it is shown; a port has no URL at first.
pub(super) fn shown(state: &State, guest: &Guest) -> Value {
    // Its state may have changed since it was last brought up to date.
    guest.state(state);
    let mut document = guest.document().clone();
    if let Some(list) = document["ports"].as_array_mut() {
        without_fresh_urls(state, guest, list);
    }
    document
}

fn without_fresh_urls(state: &State, guest: &Guest, list: &mut [Value]) {
    let (now, late) = (state.clock.now(), state.options().port_url);
    let added = guest.ports.lock().unwrap_or_else(PoisonError::into_inner);
    let fresh = |port: &Value| {
        added
            .iter()
            .any(|(number, at)| port["port"] == json!(number) && now < at.saturating_add(late))
    };
    for port in list {
        if fresh(port)
            && let Some(port) = port.as_object_mut()
        {
            port.remove("url");
        }
    }
}

/// Checks a port, as the service refuses it.
pub(super) fn check(port: &Value) -> Result<(), Reply> {
    number(port)?;
    let auth = &port["auth"];
    if auth["anonymous"] == true && auth["entraId"].is_object() {
        return Err(invalid("auth", "either anonymous or entraId"));
    }
    let one_of = |key: &str, known: &[&str]| match port[key].as_str() {
        Some(value) if !known.contains(&value) => {
            Err(invalid(key, &format!("must be one of {known:?}")))
        }
        _ => Ok(()),
    };
    one_of("protocol", &["Http", "Http2"])?;
    one_of("activationMode", &["Manual", "OnDemand"])?;
    match &port["ipAccessControl"] {
        Value::Null => Ok(()),
        access => check_access(access).map_err(|why| invalid("ipAccessControl", &why)),
    }
}

fn number(port: &Value) -> Result<u64, Reply> {
    port["port"]
        .as_u64()
        .filter(|port| (1..=65_535).contains(port))
        .ok_or_else(|| invalid("port", "must be a port"))
}

fn check_access(access: &Value) -> Result<(), String> {
    let action = |value: &Value| match value.as_str() {
        Some("Allow" | "Deny") => Ok(()),
        _ => Err("an action is Allow or Deny"),
    };
    action(&access["defaultAction"])?;
    let rules = access["rules"].as_array().map_or(&[][..], Vec::as_slice);
    if rules.len() > 10 {
        return Err("at most 10 rules".into());
    }
    let mut names = Vec::new();
    let mut priorities = Vec::new();
    for rule in rules {
        action(&rule["action"])?;
        let name = rule["name"].as_str().unwrap_or_default();
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let bare = !name.starts_with('-') && !name.ends_with('-');
        if !(1..=63).contains(&name.len()) || !bare || !name.chars().all(inner) {
            return Err(format!("{name:?} is not a valid name for a rule"));
        }
        names.push(name.to_ascii_lowercase());
        let priority = rule["priority"].as_u64().filter(|n| *n <= 1000);
        priorities.push(priority.ok_or("a priority is 0 to 1000")?);
        let cidrs = rule["sourceCidrs"].as_array();
        let cidrs = cidrs.map_or(&[][..], Vec::as_slice);
        let fits = |cidr: &Value| cidr.as_str().is_some_and(aligned);
        if !(1..=10).contains(&cidrs.len()) || !cidrs.iter().all(fits) {
            return Err("a rule has 1 to 10 networks, without host bits".into());
        }
    }
    let (all, mut kinds) = (rules.len(), (names, priorities));
    kinds.0.sort();
    kinds.0.dedup();
    kinds.1.sort_unstable();
    kinds.1.dedup();
    match (kinds.0.len(), kinds.1.len()) == (all, all) {
        true => Ok(()),
        false => Err("names and priorities of rules are distinct".into()),
    }
}

/// Whether this is a network without host bits, such as `10.0.0.0/8`.
fn aligned(cidr: &str) -> bool {
    let Some((address, length)) = cidr.split_once('/') else {
        return false;
    };
    let (Ok(address), Ok(length)) = (address.parse::<IpAddr>(), length.parse::<u32>()) else {
        return false;
    };
    match address {
        IpAddr::V4(address) => {
            length <= 32 && u32::MAX.checked_shr(length).unwrap_or(0) & u32::from(address) == 0
        }
        IpAddr::V6(address) => {
            length <= 128 && u128::MAX.checked_shr(length).unwrap_or(0) & u128::from(address) == 0
        }
    }
}

/// Adds a port; the answer has all of them.
pub(super) fn add(state: &State, guest: &Guest, mut port: Value) -> Result<Value, Reply> {
    check(&port)?;
    let number = number(&port)?;
    let (endpoint, id) = (state.endpoint(), &guest.id);
    port["url"] = json!(format!("{endpoint}{}{id}/{number}/", forward::PREFIX));
    {
        let mut document = guest.document();
        let Some(ports) = document["ports"].as_array_mut() else {
            return Err(problem(500, "EmulatorFailed", "the sandbox has no ports"));
        };
        if ports.iter().any(|known| known["port"] == port["port"]) {
            let why = "the port is there already";
            return Err(coded(409, "PortExists", why, json!(1)));
        }
        ports.push(port);
    }
    let mut added = guest.ports.lock().unwrap_or_else(PoisonError::into_inner);
    added.push((number, state.clock.now()));
    drop(added);
    Ok(json!({"ports": shown(state, guest)["ports"]}))
}

/// Adds ports and changes those that are there; the others stay.
pub(super) fn merge(state: &State, guest: &Guest, body: &Value) -> Result<Reply, Reply> {
    let ports = body["ports"].as_array();
    let ports = ports.ok_or_else(|| invalid("ports", "must be an array"))?;
    for port in ports {
        check(port)?;
    }
    for port in ports {
        // One that is there is taken away first, with what was said of it before.
        let _ = remove(guest, port);
        add(state, guest, port.clone())?;
    }
    Ok(Reply::json(
        200,
        json!({"ports": shown(state, guest)["ports"]}),
    ))
}

pub(super) fn remove(guest: &Guest, body: &Value) -> Result<Reply, Reply> {
    let number = number(body)?;
    let mut document = guest.document();
    let ports = document["ports"].as_array_mut();
    let missing = || problem(404, "PortNotFound", "the sandbox has no such port");
    let ports = ports.ok_or_else(missing)?;
    let before = ports.len();
    ports.retain(|known| known["port"] != json!(number));
    if ports.len() == before {
        return Err(missing());
    }
    let left = json!({"ports": ports});
    drop(document);
    let mut added = guest.ports.lock().unwrap_or_else(PoisonError::into_inner);
    added.retain(|(known, _)| *known != number);
    Ok(Reply::json(200, left))
}

/// The form that replaces all ports wants their URLs too, which only the service knows.
pub(super) fn replace(state: &State, guest: &Guest, body: &Value) -> Result<Reply, Reply> {
    let ports = body["ports"].as_array();
    let ports = ports.ok_or_else(|| invalid("ports", "must be an array"))?;
    for port in ports {
        check(port)?;
        if !port["url"].is_string() {
            return Err(invalid("url", "The Url field is required."));
        }
    }
    guest.document()["ports"] = json!(ports);
    Ok(Reply::json(
        200,
        json!({"ports": shown(state, guest)["ports"]}),
    ))
}
