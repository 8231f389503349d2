//! Way from a request to an answer: which route it is for.
//!
//! Invariant: nothing of a request is used before its caller is admitted; what is refused here was
//! not started.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, Response};
use sandbox_core::{ErrorKind, Result};

use super::asked::Asked;
use super::body::Incoming;
use super::follow::{control, follow};
use super::openapi;
use super::reply::{Reply, answered, refused};
use super::routes::Action;
use super::state::State;
use super::transfer::{export, import};
use super::work::{read, run, work};
use crate::wire::{self, INSTANCE, Supports};

/// Answers a request of a caller that is admitted.
pub(super) async fn answer(
    state: Arc<State>,
    action: Action,
    subject: String,
    request: Request<Body>,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let query = parts.uri.query().unwrap_or_default();
    let query = query.split('&').filter_map(|pair| pair.split_once('='));
    let asked = Asked {
        action,
        operation: action.operation(),
        subject,
        query: query.map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        headers: parts.headers,
    };
    match try_answer(state, &asked, body).await {
        Ok(response) => response,
        Err(error) => Reply::error(error).into_response(),
    }
}

async fn try_answer(state: Arc<State>, asked: &Asked, body: Body) -> Result<Response<Body>> {
    let instance = asked.headers.get(INSTANCE);
    if instance.is_some_and(|instance| instance.as_bytes() != state.instance.as_bytes()) {
        let why = "the server was started anew; what it held before is gone";
        // Whether an earlier request reached the server before its end, the client knows.
        return Err(refused(ErrorKind::Lost, asked.operation, why));
    }
    let operation = asked.operation;
    match asked.action {
        Action::Health => Ok(Reply::json(&wire::Nothing {}, operation)?.into_response()),
        Action::OpenApi => Ok(Reply::json(&openapi::document(), operation)?.into_response()),
        Action::Info => {
            let hello = wire::Hello {
                backend: state.provider.backend().to_owned(),
                capabilities: Supports::from(&state.capabilities),
                sandbox: state.own.clone(),
                instance: state.instance.clone(),
            };
            Ok(Reply::json(&hello, operation)?.into_response())
        }
        Action::Answer => match state.calls.get(&asked.subject) {
            Some(call) => Ok(answered(call.wait(asked.wait()?).await)),
            None => {
                let why = "the server knows no such call";
                Err(refused(ErrorKind::NotFound, operation, why))
            }
        },
        Action::GiveUp => {
            state.calls.give_up(&asked.subject);
            Ok(Reply::json(&wire::Nothing {}, operation)?.into_response())
        }
        Action::LetGo => {
            state.processes.remove(&asked.subject);
            Ok(Reply::json(&wire::Nothing {}, operation)?.into_response())
        }
        Action::Stdout | Action::Stderr => follow(&state, asked),
        Action::Stdin | Action::Wait | Action::Kill | Action::Resize => {
            control(&state, asked, body).await
        }
        Action::Export => export(&state, asked, body).await,
        Action::Import => import(&state, asked, body).await,
        _ => {
            let idle = state.config.idle_time;
            let body = Incoming::new(body, idle, operation)
                .buffer(asked.length(), state.config.max_body, &state.buffered)
                .await?;
            match asked.action.is_named() {
                true => {
                    let (name, wait) = (asked.name()?, asked.wait()?);
                    let work = work(&state, asked, &name, body);
                    run(&state, asked, name, wait, work).await
                }
                false => {
                    let _place = state.place(operation)?;
                    Ok(read(&state, asked, &body).await?.into_response())
                }
            }
        }
    }
}
