//! Memory that a snapshot keeps: processes, which a restore starts anew as they were; and the
//! network that they try to reach, which asks the egress policy.
//!
//! A process that was stopped must never run before it is let go.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sandbox_core::{Command, Sandbox};

use super::policy;
use super::reply::{Reply, problem};
use super::state::State;

/// A process of a snapshot.
#[derive(Clone, Debug)]
pub(super) struct Process {
    words: Vec<String>,
    /// Limit of locks of files, by which clients know what is theirs.
    limit: String,
    stopped: bool,
}

/// Number of waits of a restore for what goes on in it to have tried the network.
const TRIES: u32 = 500;

/// State, limit and command line of each process that has such a limit and `$0` in its words.
const LIST: &str = r#"
for p in /proc/[0-9]*; do
  tr '\0' '\n' 2> /dev/null < $p/cmdline | grep -qsF -e "$0" || continue
  l=$(sed -n 's/^Max file locks *\([0-9][0-9]*\) .*/\1/p' $p/limits 2> /dev/null)
  s=$(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' $p/status 2> /dev/null)
  [ -z "$l" ] || echo "$s $l $(base64 -w0 $p/cmdline)"
done
"#;

/// The processes of a sandbox that have this in their words.
pub(super) async fn kept(local: &dyn Sandbox, needle: &str) -> Vec<Process> {
    let listed = local.exec(Command::new("/bin/sh").args(["-c", LIST, needle]));
    let Ok(output) = listed.await else {
        return Vec::new();
    };
    let text = output.stdout.to_string_lossy().into_owned();
    let process = |line: &str| {
        let [state, limit, words] = line.split(' ').collect::<Vec<_>>()[..] else {
            return None;
        };
        let words = String::from_utf8(STANDARD.decode(words).ok()?).ok()?;
        let words = words.trim_end_matches('\0').split('\0');
        Some(Process {
            words: words.map(str::to_owned).collect(),
            limit: limit.to_owned(),
            stopped: state == "T",
        })
    };
    text.lines().filter_map(process).collect()
}

/// Starts processes as they were, and waits until those that run have tried the network.
pub(super) async fn revive(
    state: &State,
    id: &str,
    local: &Arc<dyn Sandbox>,
    processes: Vec<Process>,
) {
    let running = processes.iter().any(|process| !process.stopped);
    for process in processes {
        let stop = if process.stopped {
            "kill -STOP $$; "
        } else {
            ""
        };
        let command = Command::new("prlimit")
            .arg(format!("--locks={}", process.limit))
            .args(["sh", "-c", &format!("{stop}exec \"$@\""), "sh"])
            .args(process.words)
            .env("EMULATED_SANDBOX", id)
            .output_limit(0);
        let local = Arc::clone(local);
        // It ends with its sandbox at the latest.
        tokio::spawn(async move { local.exec(command).await });
    }
    for _ in 0..TRIES {
        if !running || state.outside(id).0 > 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Answers a sandbox that tries to reach something.
pub(super) fn outside(state: &State, id: &str) -> Reply {
    let guest = state.store().guests.get(id).cloned();
    let lets = guest.is_some_and(|guest| {
        guest.state(state) == "Running" && !policy::denies(&guest.document()["egressPolicy"])
    });
    state.tried(id, lets);
    match lets {
        true => Reply::empty(204),
        false => problem(403, "Denied", "the egress policy denies it"),
    }
}
