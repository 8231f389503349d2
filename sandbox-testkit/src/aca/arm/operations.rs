//! Operations of the management plane that take their time, and how a client follows them.
//!
//! Links are on the emulator's own host: clients refuse others.

use std::time::Duration;

use axum::http::{HeaderName, header};
use serde_json::json;

use super::super::reply::Reply;
use super::super::state::State;
use super::{error, missing};

/// The version in links; clients send it back.
const VERSION: &str = "2026-02-01-preview";

#[derive(Debug)]
pub(super) struct Operation {
    end: Duration,
    started: String,
    /// The resource that it works on, as its key.
    key: String,
    link: String,
}

/// Begins an operation that ends when the resource at `path` is done, and adds to the answer where
/// to follow it: by its result (`Location`) or by its status (`Azure-AsyncOperation`).
pub(super) fn begin(state: &State, path: &[&str], reply: Reply, by_result: bool) -> Reply {
    let id = uuid::Uuid::new_v4().to_string();
    let subscription = path.get(1).copied().unwrap_or_default();
    let (what, header) = match by_result {
        true => ("operationResults", header::LOCATION),
        false => (
            "operationStatuses",
            HeaderName::from_static("azure-asyncoperation"),
        ),
    };
    let link = format!(
        "{}/subscriptions/{subscription}/providers/Microsoft.App/locations/emulator/{what}/{id}\
         ?api-version={VERSION}",
        links(state),
    );
    let operation = Operation {
        end: state
            .clock
            .now()
            .saturating_add(state.options().arm_operation),
        started: state.clock.timestamp(),
        key: format!("/{}", path.join("/")).to_ascii_lowercase(),
        link: link.clone(),
    };
    state.arm.kept().operations.insert(id, operation);
    reply
        .with(header, link)
        .with(header::RETRY_AFTER, soon(state))
}

/// Returns what links begin with.
pub(super) fn links(state: &State) -> String {
    match state.options().relative_links {
        true => String::new(),
        false => state.endpoint(),
    }
}

/// When to ask again, in whole seconds.
fn soon(state: &State) -> &'static str {
    match state.options().arm_operation < Duration::from_secs(1) {
        true => "0",
        false => "1",
    }
}

pub(super) fn poll(state: &State, what: &str, id: &str) -> Result<Reply, Reply> {
    let kept = state.arm.kept();
    let operation = kept.operations.get(id).ok_or_else(missing)?;
    let done = state.clock.now() >= operation.end;
    match (what.to_ascii_lowercase().as_str(), done) {
        ("operationstatuses", true) if state.options().arm_fails => Ok(Reply::json(
            200,
            json!({"id": operation.link, "name": id, "status": "Failed",
                "error": {"code": "ContainerAppOperationError", "message": "it was told to fail"}}),
        )),
        ("operationstatuses", done) => {
            let status = if done { "Succeeded" } else { "InProgress" };
            let body = json!({"id": operation.link, "name": id, "status": status,
                "startTime": operation.started});
            let reply = Reply::json(200, body);
            Ok(match done {
                true => reply,
                false => reply.with(header::RETRY_AFTER, soon(state)),
            })
        }
        ("operationresults", false) => Ok(Reply::empty(202)
            .with(header::LOCATION, operation.link.clone())
            .with(header::RETRY_AFTER, soon(state))),
        ("operationresults", true) => Ok(match kept.resources.get(&operation.key) {
            Some(resource) => Reply::json(200, resource.document.clone()),
            None => Reply::empty(204),
        }),
        _ => Err(error(404, "InvalidResourceType", "there is no such path")),
    }
}
