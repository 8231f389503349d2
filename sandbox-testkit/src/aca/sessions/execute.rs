//! Executions: Python code and shell commands, answered in the shape that was asked for.
//!
//! Each runs once for its request, to its end, even if the client has gone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderName};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sandbox_core::{Command, ErrorKind};
use serde_json::{Value, json};

use super::kernel::{Ended, Kernel};
use super::pool::{InUse, PoolKind, SessionPool};
use super::reply::error;
use crate::aca::call::{Call, not_found};
use crate::aca::reply::{Reply, invalid};
use crate::aca::state::State;

/// Bytes of each output stream that the service keeps by default.
const KEPT: u64 = 4096;

/// Result of an execution.
struct Outcome {
    ok: bool,
    /// The exit code of a shell command; -1 for one that took too long.
    code: i32,
    out: String,
    err: String,
    result: Value,
    took: u64,
    error: Value,
}

pub(super) async fn answer(
    state: &Arc<State>,
    headers: &HeaderMap,
    call: &Call,
    pool: &SessionPool,
    used: &Arc<InUse>,
    old: bool,
) -> Result<Reply, Reply> {
    let rest: Vec<&str> = call.rest.iter().map(String::as_str).collect();
    match (call.method.as_str(), &rest[..], pool.kind) {
        ("POST", ["code", "execute"], PoolKind::PythonLts) if old => {
            let body = call.json()?;
            let asked = Asked::of(state, &body["properties"], 60)?;
            let code = asked.code()?;
            state.note_command(&code);
            let done = python(used, &code, &asked).await?;
            let result = match done.result {
                Value::Null => json!(""),
                result => result,
            };
            let status = if done.ok { "Success" } else { "Failure" };
            let properties = json!({
                "status": status, "result": result, "stdout": done.out, "stderr": done.err,
                "executionTimeInMilliseconds": done.took,
            });
            let id = uuid::Uuid::new_v4().to_string();
            Ok(Reply::json(
                200,
                json!({"$id": id, "properties": properties}),
            ))
        }
        ("POST", ["executions"], PoolKind::PythonLts) => {
            let body = call.json()?;
            let asked = Asked::of(state, &body, 120)?;
            let code = asked.code()?;
            state.note_command(&code);
            started(state, headers, call, used, asked, code).await
        }
        ("POST", ["executions"], PoolKind::Shell) => {
            let body = call.json()?;
            let asked = Asked::of(state, &body, 180)?;
            let text = body["shellCommand"]
                .as_str()
                .filter(|text| !text.is_empty());
            let text = text.ok_or_else(|| invalid("shellCommand", "a command is required"))?;
            state.note_command(text);
            let done = shell(used, text, &asked).await?;
            let body = json!({
                "identifier": used.session.identifier, "status": done.code.to_string(),
                "result": {
                    "stdout": done.out, "stderr": done.err,
                    "executionTimeInMilliseconds": done.took,
                },
            });
            Ok(Reply::json(200, body))
        }
        ("GET", ["executions", id], PoolKind::PythonLts) => {
            let known = used.session.executions().get(*id).cloned();
            known
                .map(|shown| Reply::json(200, shown))
                .ok_or_else(|| error(404, "ExecutionNotFound", "there is no such execution"))
        }
        _ => Err(not_found()),
    }
}

/// Runs Python code now, or goes on with it after the answer.
async fn started(
    state: &State,
    headers: &HeaderMap,
    call: &Call,
    used: &Arc<InUse>,
    asked: Asked,
    code: String,
) -> Result<Reply, Reply> {
    let given = headers.get("operation-id").and_then(|id| id.to_str().ok());
    let id = given.map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned);
    let version = call.query.get("api-version").map_or("", String::as_str);
    let location = format!(
        "{}{}/executions/{id}?api-version={version}&identifier={}",
        state.endpoint(),
        call.group,
        used.session.identifier
    );
    let (kind, later) = match asked.later {
        true => ("Asynchronous", true),
        false => ("Synchronous", false),
    };
    let shown = json!({
        "id": id, "identifier": used.session.identifier, "executionType": kind,
        "status": "Running", "error": null, "result": null,
    });
    used.session.executions().insert(id.clone(), shown.clone());
    let run = {
        let (used, id) = (Arc::clone(used), id.clone());
        let mut shown = shown.clone();
        async move {
            let done = python(&used, &code, &asked).await?;
            shown["status"] = json!(if done.ok { "Succeeded" } else { "Failed" });
            shown["error"] = done.error;
            shown["result"] = json!({
                "stdout": done.out, "stderr": done.err, "executionResult": done.result,
                "executionTimeInMilliseconds": done.took,
            });
            used.session.executions().insert(id, shown.clone());
            Ok::<Value, Reply>(shown)
        }
    };
    let reply = match later || state.options().answers_running {
        true => {
            tokio::spawn(run);
            Reply::json(202, shown)
        }
        false => Reply::json(200, run.await?),
    };
    Ok(reply
        .with(HeaderName::from_static("operation-id"), id)
        .with(HeaderName::from_static("operation-location"), location))
}

/// Parameters that every kind of execution has.
struct Asked {
    code: Value,
    packed: bool,
    later: bool,
    timeout: Duration,
    limit: u64,
}

impl Asked {
    fn of(state: &State, body: &Value, default: u64) -> Result<Self, Reply> {
        let word = |field: &str| body[field].as_str().map(str::to_ascii_lowercase);
        let packed = match word("codeInputType").as_deref() {
            None | Some("inline" | "inlinetext") => false,
            Some("inlinebase64") => true,
            Some(_) => return Err(invalid("codeInputType", "is of no known type")),
        };
        let later = match word("executionType").as_deref() {
            None | Some("synchronous") => false,
            Some("asynchronous") => true,
            Some(_) => return Err(invalid("executionType", "is of no known type")),
        };
        let cap = state.options().execution_cap;
        let timeout = match &body["timeoutInSeconds"] {
            Value::Null => Duration::from_secs(default).min(cap),
            given => match given.as_u64().map(Duration::from_secs) {
                Some(given) if !given.is_zero() && given <= cap => given,
                _ => {
                    let why = format!("must be 1 to {}", cap.as_secs());
                    return Err(invalid("timeoutInSeconds", &why));
                }
            },
        };
        let limit = &body["outputStreamsMaxLength"];
        Ok(Self {
            code: body["code"].clone(),
            packed,
            later,
            timeout,
            limit: limit.as_u64().unwrap_or(KEPT),
        })
    }

    fn code(&self) -> Result<String, Reply> {
        let code = self.code.as_str().filter(|code| !code.is_empty());
        let code = code.ok_or_else(|| invalid("code", "the field is required"))?;
        if !self.packed {
            return Ok(code.to_owned());
        }
        let code = STANDARD.decode(code).ok();
        code.and_then(|code| String::from_utf8(code).ok())
            .ok_or_else(|| invalid("code", "is not text in base64"))
    }
}

async fn python(used: &InUse, code: &str, asked: &Asked) -> Result<Outcome, Reply> {
    let mut kernel = used.session.kernel.lock().await;
    if kernel.is_none() {
        *kernel = Kernel::start(&*used.session.local).await;
    }
    let Some(running) = kernel.as_mut() else {
        return Err(error(
            500,
            "KernelNotStarted",
            "python3 can't be started here",
        ));
    };
    let began = Instant::now();
    let ended = running.run(code, asked.limit, asked.timeout).await;
    let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let failed = |name: &str, text: String| Outcome {
        ok: false,
        code: -1,
        out: String::new(),
        error: json!({"code": name, "message": text}),
        err: text,
        result: Value::Null,
        took,
    };
    Ok(match ended {
        Ended::Answered(answer) => Outcome {
            ok: answer["ok"] == true,
            code: 0,
            out: answer["out"].as_str().unwrap_or_default().to_owned(),
            err: answer["err"].as_str().unwrap_or_default().to_owned(),
            result: answer["result"].clone(),
            took,
            error: Value::Null,
        },
        Ended::Late => failed("Timeout", format!("timed out after {:?}", asked.timeout)),
        Ended::Died => {
            *kernel = None;
            failed("ConnectionClosed", "the kernel ended".into())
        }
    })
}

async fn shell(used: &InUse, text: &str, asked: &Asked) -> Result<Outcome, Reply> {
    let began = Instant::now();
    let command = Command::new("/bin/bash")
        .args(["-lc", text])
        .timeout(asked.timeout);
    let done = used.session.local.exec(command).await;
    let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let text = |bytes: &[u8]| -> String {
        let limit = usize::try_from(asked.limit).unwrap_or(usize::MAX);
        let text = String::from_utf8_lossy(bytes);
        // No text has more characters than bytes.
        let end = (text.len() > limit).then(|| text.char_indices().nth(limit));
        match end.flatten() {
            Some((end, _)) => text[..end].to_owned(),
            None => text.into_owned(),
        }
    };
    let outcome = |code: i32, out: &[u8], err: &[u8]| Outcome {
        ok: code == 0,
        code,
        out: text(out),
        err: text(err),
        result: Value::Null,
        took,
        error: Value::Null,
    };
    match done {
        Ok(done) => {
            let code = done.status.shell_code();
            Ok(outcome(code, &done.stdout.bytes, &done.stderr.bytes))
        }
        Err(error) if error.kind() == ErrorKind::Timeout => {
            let said = error.partial_output();
            Ok(match said {
                Some(said) => outcome(-1, &said.stdout.bytes, &said.stderr.bytes),
                None => outcome(-1, b"", b""),
            })
        }
        Err(e) if e.kind() == ErrorKind::LimitExceeded => {
            Ok(outcome(126, b"", b"argument list too long"))
        }
        Err(e) => Err(error(500, "InternalServerError", &e.to_string())),
    }
}
