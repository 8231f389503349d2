//! What several groups of cases share: heartbeats that show whether something lives.
//!
//! Invariant: a heart is first shown to beat, then shown to have stopped; silence alone proves
//! nothing.

use std::time::{Duration, Instant};

use sandbox_core::{Command, ErrorKind, Sandbox, SandboxExt as _};

use crate::kit::{Cx, Failed, Verdict, eventually};

/// How long after a kill the dead may still be seen to beat: the contract's second and some for a
/// busy host.
const DYING: Duration = Duration::from_secs(2);

/// How long a heart is watched to be sure that it stands still: several beats.
const WATCH: Duration = Duration::from_millis(400);

/// A script that writes to a file twenty times a second.
pub(super) fn heart(file: &str) -> String {
    format!("while :; do printf x >> {file}; sleep 0.05; done")
}

/// A script that starts a heart in the background and lets it go: no child of the shell waits.
pub(super) fn daemon(file: &str) -> String {
    format!(
        "( ( {} ) > /dev/null 2> /dev/null < /dev/null & )",
        heart(file)
    )
}

/// The same in a session of its own where the guest has `setsid`.
pub(super) async fn far_daemon(cx: &Cx, file: &str) -> Verdict<String> {
    let setsid = Command::new("setsid").arg("true");
    match cx.sandbox.exec(setsid).await {
        Ok(output) if output.success() => Ok(format!(
            "( setsid sh -c '{}' > /dev/null 2> /dev/null < /dev/null & )",
            heart(file)
        )),
        Ok(_) => Ok(daemon(file)),
        Err(error) if error.kind() == ErrorKind::CommandNotFound => Ok(daemon(file)),
        Err(error) => Err(error.into()),
    }
}

/// How often a heart has beaten.
async fn beats(sandbox: &dyn Sandbox, file: &str) -> Verdict<u64> {
    match sandbox.metadata(&file.into()).await {
        Ok(metadata) => Ok(metadata.size),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// Waits until a heart is seen to beat.
pub(super) async fn beating(sandbox: &dyn Sandbox, file: &str) -> Verdict {
    let first = beats(sandbox, file).await?;
    eventually("the process shows that it is alive", || async move {
        Ok(beats(sandbox, file).await? > first + 1)
    })
    .await
}

/// Checks that a heart has stopped or stops within the time that the contract gives it.
pub(super) async fn stopped(sandbox: &dyn Sandbox, file: &str) -> Verdict {
    let start = Instant::now();
    loop {
        let before = beats(sandbox, file).await?;
        tokio::time::sleep(WATCH).await;
        let after = beats(sandbox, file).await?;
        if before == after {
            return Ok(());
        }
        if start.elapsed() > DYING {
            return Err(Failed::new(format_args!(
                "still alive {DYING:?} after it should have been killed"
            )));
        }
    }
}

/// Waits for a file.
pub(super) async fn appears(sandbox: &dyn Sandbox, file: &str) -> Verdict {
    eventually(&format!("{file} appears"), || async move {
        Ok(sandbox.exists(file).await?)
    })
    .await
}

/// The standard output as text.
pub(super) fn text(output: &sandbox_core::Output) -> String {
    output.stdout.to_string_lossy().into_owned()
}
