//! Heartbeats that show whether something lives, for several groups of cases.
//!
//! Invariant: a heart is first shown to beat, then shown to have stopped; silence alone proves
//! nothing.

use std::time::{Duration, Instant};

use sandbox_core::{Command, ErrorKind, Sandbox, SandboxExt as _};

use crate::kit::{Context, Failed, Verdict, eventually, patience};

/// Time after a kill in which the dead may still be seen to beat: the contract's second and much
/// for a busy host.
fn dying() -> Duration {
    patience() / 2
}

/// Time that a heart is watched, twice, to be sure that it stands still and is not merely kept
/// waiting: several beats.
const WATCH: Duration = Duration::from_millis(400);

/// Timeouts for what has to beat before its time is up: where a busy host lets it do nothing
/// within one it gets the next.
pub(super) const LIFETIMES: [Duration; 2] = [Duration::from_millis(1500), Duration::from_secs(10)];

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

/// A script that starts a heart in a session of its own, where the guest has `setsid`; otherwise
/// as [`daemon`] does.
pub(super) async fn far_daemon(cx: &Context, file: &str) -> Verdict<String> {
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

/// Counts the beats of a heart.
pub(super) async fn beats(sandbox: &dyn Sandbox, file: &str) -> Verdict<u64> {
    match sandbox.stat(file).await {
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
    let mut last = beats(sandbox, file).await?;
    let mut still = 0;
    loop {
        let watched = Instant::now();
        tokio::time::sleep(WATCH).await;
        let late = watched.elapsed() > WATCH * 2;
        let now = beats(sandbox, file).await?;
        still = match now == last {
            // A host that holds this up may hold the heart up as well.
            true if late => still,
            true => still + 1,
            false => 0,
        };
        last = now;
        if still == 2 {
            return Ok(());
        }
        if still == 0 && start.elapsed() > dying() {
            return Err(Failed::new(format_args!(
                "still alive {:?} after it should have been killed",
                dying()
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
