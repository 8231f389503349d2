//! Parts that calls of several tools share: a command from its arguments, progress and cancellation.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::{Duration, Instant};

use rmcp::model::{ProgressNotificationParam, ProgressToken, RequestMetaObject};
use rmcp::service::RequestContext;
use rmcp::{Peer, RoleServer};
use sandbox_core::{Command, GuestPath};

/// Most entries of a list.
pub(super) const ENTRIES: usize = 1_000;
/// Most paths that were left out, in a result.
pub(super) const SKIPPED: usize = 100;
/// Interval at which a client that asked for it is told that a command still runs.
const PROGRESS: Duration = Duration::from_secs(1);

pub(super) fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

pub(super) fn path(text: Option<String>) -> GuestPath {
    GuestPath::from(text.unwrap_or_else(|| ".".to_owned()))
}

pub(super) fn command(
    argv: Vec<String>,
    script: Option<String>,
    cwd: Option<String>,
    env: BTreeMap<String, String>,
) -> Result<Command, String> {
    let mut command = match (argv.split_first(), script) {
        (Some((program, arguments)), None) => Command::new(program).args(arguments),
        (None, Some(script)) => Command::shell(script),
        (None, None) => return Err("give argv or script".into()),
        (Some(_), Some(_)) => return Err("give argv or script, not both".into()),
    };
    if let Some(cwd) = cwd {
        command = command.cwd(cwd);
    }
    for (name, value) in env {
        command = command.env(name, value);
    }
    Ok(command)
}

/// Makes a call unless it is cancelled first; tells a client that asked for it that it still goes on.
pub(super) async fn under<T>(
    meta: &RequestMetaObject,
    peer: &Peer<RoleServer>,
    context: &RequestContext<RoleServer>,
    call: impl Future<Output = T>,
) -> Result<T, String> {
    let started = Instant::now();
    let token: Option<ProgressToken> = meta.get_progress_token();
    let tell = async {
        let Some(token) = token else {
            return std::future::pending::<()>().await;
        };
        loop {
            tokio::time::sleep(PROGRESS).await;
            let seconds = started.elapsed().as_secs_f64();
            let progress = ProgressNotificationParam::new(token.clone(), seconds);
            // A client that does not listen any more is told by its cancellation.
            let _ = peer.notify_progress(progress).await;
        }
    };
    tokio::select! {
        biased;
        () = context.ct.cancelled() => Err("cancelled; what ran was killed".into()),
        result = call => Ok(result),
        () = tell => Err("cancelled; what ran was killed".into()),
    }
}
