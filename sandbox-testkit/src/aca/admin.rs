//! `/.emulator/…`: the clock, the switches, the faults and the counters, for tests in any language.
//!
//! It needs no token: who reaches the emulator may turn it. It must never be served where
//! the service itself would be looked for.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::call::{Call, not_found};
use super::fault::{Action, Fault};
use super::reply::{Reply, invalid, problem};
use super::state::State;
use super::{memory, switches};

pub(super) async fn operation(
    state: &Arc<State>,
    call: &Call,
    path: &[&str],
) -> Result<Reply, Reply> {
    let counted = |count: usize| Ok(Reply::json(200, json!({"count": count})));
    let needle = call.query.get("contains").map_or("", String::as_str);
    match (call.method.as_str(), path) {
        ("GET", [] | [""]) => Ok(Reply::json(200, overview(state))),
        ("POST", ["clock"]) => {
            let seconds = call.json()?["advanceSeconds"].as_f64();
            let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
            let time = time.ok_or_else(|| invalid("advanceSeconds", "must be a number from 0"))?;
            state.clock.advance(time);
            state.sweep().await;
            Ok(Reply::json(200, json!({"now": state.clock.timestamp()})))
        }
        ("GET", ["outside", id]) => Ok(memory::outside(state, id)),
        ("GET", ["switches"]) => Ok(Reply::json(200, switches::all(&state.options()))),
        ("POST" | "PATCH" | "PUT", ["switches"]) => {
            let changes = call.json()?;
            let changed = state.change(|options| switches::apply(options, &changes));
            changed.map_err(|why| invalid("switches", &why))?;
            Ok(Reply::json(200, switches::all(&state.options())))
        }
        ("POST", ["faults"]) => {
            state.faults.push(fault(&call.json()?)?);
            Ok(Reply::empty(204))
        }
        ("DELETE", ["faults"]) => {
            state.faults.clear();
            Ok(Reply::empty(204))
        }
        ("GET", ["executions"]) => counted(state.executions(needle)),
        ("GET", ["requests"]) => counted(state.requests(needle)),
        ("POST", ["token"]) => {
            let body = call.json()?;
            let audience = body["audience"].as_str();
            let audience = audience.unwrap_or("https://dynamicsessions.io");
            let token = state.mint(audience, body["seconds"].as_i64().unwrap_or(86_400));
            Ok(Reply::json(200, json!({"token": token})))
        }
        ("DELETE", ["sandboxes", id]) => match state.forget(id).await {
            true => Ok(Reply::empty(204)),
            false => Err(problem(404, "SandboxNotFound", "there is no such sandbox")),
        },
        _ => Err(not_found()),
    }
}

fn overview(state: &State) -> Value {
    let (sandboxes, snapshots) = state.counts();
    json!({
        "endpoint": state.endpoint(),
        "now": state.clock.timestamp(),
        "sandboxes": sandboxes,
        "snapshots": snapshots,
        "switches": switches::all(&state.options()),
    })
}

/// `{"on": "POST /…", "action": "status", "status": 429, "retryAfter": "1"}`.
fn fault(body: &Value) -> Result<Fault, Reply> {
    let status = || {
        let status = body["status"].as_u64().and_then(|n| u16::try_from(n).ok());
        let status = status.filter(|status| (100..=599).contains(status));
        status.ok_or_else(|| invalid("status", "must be a status of HTTP"))
    };
    let action = match body["action"].as_str().unwrap_or_default() {
        "status" => {
            let after = body["retryAfter"].as_str().map(str::to_owned);
            Action::Status(status()?, after)
        }
        "status-after" => Action::StatusAfter(status()?),
        "drop-before" => Action::DropBefore,
        "drop-after" => Action::DropAfter,
        "garbage" => Action::Garbage,
        "cut-stream" => {
            let frames = body["frames"]
                .as_u64()
                .and_then(|n| usize::try_from(n).ok());
            Action::CutStream(frames.ok_or_else(|| invalid("frames", "must be a number"))?)
        }
        "silence-stream" => {
            let frames = body["frames"]
                .as_u64()
                .and_then(|n| usize::try_from(n).ok());
            Action::SilenceStream(frames.ok_or_else(|| invalid("frames", "must be a number"))?)
        }
        _ => {
            let known = "must be status, status-after, drop-before, drop-after, garbage, \
                         cut-stream or silence-stream";
            return Err(invalid("action", known));
        }
    };
    let on = body["on"].as_str();
    let on = on.ok_or_else(|| invalid("on", "a part of the method and path is required"))?;
    Ok(Fault::new(on, action))
}
