//! Runs commands: buffered, as text, for as long as a process holds the output, as the service does.
//!
//! A command runs once for each request, to its end, even if the client has gone.

use std::sync::Arc;
use std::time::Instant;

use sandbox_core::{Command, ErrorKind};
use serde_json::json;

use super::call::Call;
use super::reply::{Reply, invalid, problem};
use super::state::{Guest, State};

/// `direct`: the words are executed as they are, without a shell.
pub(super) async fn run(
    state: &Arc<State>,
    call: &Call,
    guest: Arc<Guest>,
    direct: bool,
) -> Result<Reply, Reply> {
    let busy = guest.busy(state)?;
    let body = call.json()?;
    let text = body["command"].as_str().filter(|text| !text.is_empty());
    let text = text.ok_or_else(|| invalid("command", "a command is required"))?;
    let mut words = vec![text];
    if direct {
        for word in body["args"].as_array().into_iter().flatten() {
            let word = word.as_str();
            words.push(word.ok_or_else(|| invalid("args", "must have strings"))?);
        }
    }
    if words.iter().any(|word| word.contains('\0')) {
        return Err(invalid("command", "must have no NUL character"));
    }
    // Each is one argument in the end, the line for a shell too.
    if words.iter().any(|word| word.len() >= 128 << 10) {
        return Err(problem(500, "ExecutionFailed", "argument list too long"));
    }
    if body["user"].is_string() {
        return Err(problem(400, "UserUnknown", "the emulator has one user"));
    }
    state.note_command(&words.join(" "));
    let mut command = match direct {
        true => Command::new("/bin/sh")
            .args(["-c", r#"exec "$0" "$@""#])
            .args(words),
        false => Command::new("/bin/sh").args(["-c", text]),
    };
    if call.newer() {
        for (name, value) in body["environment"].as_object().into_iter().flatten() {
            let value = value.as_str();
            let value = value.ok_or_else(|| invalid("environment", "must have strings"))?;
            command = command.env(name.as_str(), value);
        }
    }
    if let Some(dir) = body["workingDirectory"].as_str() {
        command = command.cwd(dir);
    }
    let started = Instant::now();
    // On a task of its own: neither the gateway nor a client that goes away ends the command.
    let running = tokio::spawn(async move {
        let done = guest.local.exec(command).await;
        drop(busy);
        done
    });
    let done = tokio::select! {
        done = running => done,
        () = state.clock.sleep(state.options().gateway) => {
            let why = "the command takes too long; it goes on";
            return Err(problem(504, "GatewayTimeout", why));
        }
    };
    let output = match done {
        Ok(Ok(output)) => output,
        Ok(Err(error)) if matches!(error.kind(), ErrorKind::Closed | ErrorKind::Lost) => {
            return Err(problem(404, "SandboxNotFound", "the sandbox was deleted"));
        }
        Ok(Err(error)) if error.path().is_some() => {
            let why = format!("the working directory can't be used: {}", error.message());
            return Err(invalid("workingDirectory", &why));
        }
        Ok(Err(error)) => return Err(problem(500, "ExecutionFailed", &error.to_string())),
        Err(_) => return Err(problem(500, "EmulatorFailed", "the command's task ended")),
    };
    let code = output.status.shell_code();
    let mut body = json!({
        "stdout": output.stdout.to_string_lossy(),
        "stderr": output.stderr.to_string_lossy(),
        "executionTimeMs": u64::try_from(started.elapsed().as_millis()).unwrap_or(0),
    });
    if !state.options().no_exit_code {
        body["exitCode"] = json!(code);
    }
    Ok(Reply::json(200, body))
}
