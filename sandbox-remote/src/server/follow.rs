//! Running processes as routes: output streams, input, waiting, killing.
//!
//! Invariant: nothing here ends a process but the call for it.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Response, StatusCode};
use sandbox_core::{Error, ErrorKind, Result};

use super::asked::Asked;
use super::body::Incoming;
use super::lease::Held;
use super::processes::Running;
use super::reply::{Reply, answered, refused, respond};
use super::routes::Action;
use super::state::State;
use crate::wire;

/// Most bytes of input that one request carries.
const INPUT: usize = 4 << 20;

/// The process that the path names.
pub(super) fn found(state: &State, asked: &Asked) -> Result<(Arc<Running>, Held<Arc<Running>>)> {
    state.processes.get(&asked.subject).ok_or_else(|| {
        let why = "the server holds no such process: its client let go of it, or was away for \
                   too long";
        Error::new(ErrorKind::Lost, asked.operation).with_message(why)
    })
}

/// One of the output streams of a process.
pub(super) fn follow(state: &State, asked: &Asked) -> Result<Response<Body>> {
    let from = asked.number("from")?;
    let (process, held) = found(state, asked)?;
    let pipe = match asked.action {
        Action::Stderr => &process.stderr,
        _ => &process.stdout,
    };
    let Some(pipe) = pipe else {
        return Err(refused(
            ErrorKind::NotFound,
            asked.operation,
            "there is no such stream",
        ));
    };
    let frames = pipe.frames(from, held).map_err(|wrong| {
        let (start, end) = wrong.kept;
        asked.invalid(format!(
            "the offset {from} is not among those that are kept: {start} to {end}"
        ))
    })?;
    let body = Body::from_stream(frames);
    Ok(respond(StatusCode::OK, "application/octet-stream", body))
}

/// Input, waiting and killing.
pub(super) async fn control(
    state: &Arc<State>,
    asked: &Asked,
    body: Body,
) -> Result<Response<Body>> {
    let operation = asked.operation;
    let body = Incoming::new(body, state.config.idle_time, operation)
        .buffer(asked.length(), INPUT, &state.buffered)
        .await?;
    let (process, _held) = found(state, asked)?;
    let wait = asked.wait()?;
    let reply = match asked.action {
        Action::Stdin => {
            let (offset, end) = (asked.number("offset")?, asked.query.contains_key("end"));
            if offset.checked_add(body.bytes.len() as u64).is_none() {
                return Err(asked.invalid("the offset is beyond every stream"));
            }
            match process.write(offset, &body.bytes, end, wait).await {
                Some(taken) => Reply::json(&taken, operation)?,
                None => return Err(asked.invalid("there is a gap before this input")),
            }
        }
        Action::Resize => {
            let wire::Resize { size } = asked.parse(&body)?;
            if let Some(alive) = process.alive() {
                alive.process.resize(size).await?;
            }
            Reply::json(&wire::Nothing {}, operation)?
        }
        Action::Kill => {
            if let Some(alive) = process.alive() {
                alive.process.kill().await?;
            }
            Reply::json(&wire::Nothing {}, operation)?
        }
        _ => {
            let Some(alive) = process.alive() else {
                return found(state, asked).map(|_| answered(None));
            };
            let mut gone = process.gone.subscribe();
            tokio::select! {
                exit = alive.process.wait() => {
                    Reply::json(&wire::Waited::Ended(exit?), operation)?
                }
                _ = gone.wait_for(|gone| *gone) => {
                    let why = "its client let go of the process";
                    return Err(Error::new(ErrorKind::Lost, operation).with_message(why));
                }
                () = tokio::time::sleep(wait) => Reply::json(&wire::Waited::Running, operation)?,
            }
        }
    };
    Ok(reply.into_response())
}
