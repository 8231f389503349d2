//! Containers of apps and jobs: their command runs for real, in a local sandbox, and what it writes
//! is kept as a log.
//!
//! The image is this host's, whatever it is called. A container without a command runs nothing. It
//! must never be started again once its app is stopped.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use sandbox_core::{Command, Sandbox};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::super::state::State;

/// Number of lines that are kept.
const LINES: usize = 1000;

/// Number of restarts of a container before its app is a crash loop.
const RESTARTS: u32 = 3;

/// Time that a container must have run before it gets requests.
const READY: Duration = Duration::from_millis(300);

/// Phase of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// About to run.
    Waiting,
    Running,
    /// Ended with this code.
    Ended(i32),
    /// Ending again and again.
    Looping,
    /// Missing its image.
    NoImage,
}

#[derive(Debug)]
struct Kept {
    phase: Phase,
    restarts: u32,
    /// When its command began; nothing for one without.
    since: Option<Instant>,
    /// The number of the first line, and the lines from there on.
    first: u64,
    lines: VecDeque<Bytes>,
}

/// A container that runs or has run.
#[derive(Debug)]
pub(super) struct Run {
    kept: Mutex<Kept>,
    changed: watch::Sender<()>,
    local: Mutex<Option<Arc<dyn Sandbox>>>,
    task: Mutex<Option<AbortHandle>>,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Run {
    /// Starts a container; `again` as long as it ends, for an app.
    pub(super) fn start(
        state: &Arc<State>,
        container: &Value,
        secrets: &Value,
        again: bool,
    ) -> Arc<Self> {
        let run = Arc::new(Self {
            kept: Mutex::new(Kept {
                phase: Phase::Waiting,
                restarts: 0,
                since: None,
                first: 0,
                lines: VecDeque::new(),
            }),
            changed: watch::Sender::new(()),
            local: Mutex::default(),
            task: Mutex::default(),
        });
        if state.options().image_pull_fails {
            run.turn(Phase::NoImage);
            return run;
        }
        let Some(command) = command(container, secrets) else {
            run.note(Bytes::from_static(
                b"(the image's own program is not run here)",
            ));
            run.turn(if again {
                Phase::Running
            } else {
                Phase::Ended(0)
            });
            return run;
        };
        let (state, of) = (Arc::clone(state), Arc::clone(&run));
        let task = tokio::spawn(async move { of.live(&state, command, again).await });
        *lock(&run.task) = Some(task.abort_handle());
        run
    }

    async fn live(self: &Arc<Self>, state: &State, command: Command, again: bool) {
        loop {
            let code = self.once(state, command.clone()).await.unwrap_or(128);
            if !again {
                self.turn(Phase::Ended(code));
                return;
            }
            let restarts = {
                let mut kept = lock(&self.kept);
                kept.restarts += 1;
                kept.restarts
            };
            if restarts >= RESTARTS {
                self.turn(Phase::Looping);
                return;
            }
        }
    }

    /// Runs it once; its exit code.
    async fn once(&self, state: &State, command: Command) -> sandbox_core::Result<i32> {
        let local = state.local(false, Vec::new()).await?;
        *lock(&self.local) = Some(Arc::clone(&local));
        state.note_command(&String::from_utf8_lossy(&command.argv().join(&b' ')));
        let mut process = local.spawn(command).await?;
        lock(&self.kept).since = Some(Instant::now());
        self.turn(Phase::Running);
        let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
        tokio::join!(self.read(stdout), self.read(stderr));
        let exit = process.wait().await?;
        drop(process);
        // What does not end now ends with the emulator.
        let _ = local.close().await;
        Ok(exit.status.shell_code())
    }

    async fn read(&self, stream: Option<impl AsyncRead + Unpin>) {
        let Some(stream) = stream else { return };
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while let Ok(1..) = stream.read_until(b'\n', &mut line).await {
            if line.last() == Some(&b'\n') {
                line.pop();
            }
            self.note(Bytes::from(std::mem::take(&mut line)));
        }
    }

    fn note(&self, line: Bytes) {
        let mut kept = lock(&self.kept);
        if kept.lines.len() >= LINES {
            kept.lines.pop_front();
            kept.first += 1;
        }
        kept.lines.push_back(line);
        drop(kept);
        self.changed.send_modify(|()| {});
    }

    fn turn(&self, phase: Phase) {
        lock(&self.kept).phase = phase;
        self.changed.send_modify(|()| {});
    }

    /// Returns what it does, and how often it was started again.
    pub(super) fn phase(&self) -> (Phase, u32) {
        let kept = lock(&self.kept);
        (kept.phase, kept.restarts)
    }

    /// Whether it gets requests.
    pub(super) fn is_ready(&self) -> bool {
        let kept = lock(&self.kept);
        let ran = kept.since.is_none_or(|since| since.elapsed() >= READY);
        kept.phase == Phase::Running && ran
    }

    /// Whether it writes nothing more.
    fn is_over(&self) -> bool {
        !matches!(self.phase().0, Phase::Waiting | Phase::Running)
    }

    /// The number of the first of the last so many lines.
    pub(super) fn tail(&self, lines: u64) -> u64 {
        let kept = lock(&self.kept);
        let end = kept.first + kept.lines.len() as u64;
        end.saturating_sub(lines).max(kept.first)
    }

    /// The lines from this number on, and the number of the next. Waits for one if there is none
    /// and `follow`; `None` at the end.
    pub(super) async fn lines(&self, from: u64, follow: bool) -> Option<(Vec<Bytes>, u64)> {
        let mut changes = self.changed.subscribe();
        loop {
            let over = self.is_over();
            {
                let kept = lock(&self.kept);
                let skip = usize::try_from(from.saturating_sub(kept.first)).unwrap_or(usize::MAX);
                let lines: Vec<Bytes> = kept.lines.iter().skip(skip).cloned().collect();
                if !lines.is_empty() {
                    return Some((lines, kept.first + kept.lines.len() as u64));
                }
            }
            if over || !follow || changes.changed().await.is_err() {
                return None;
            }
        }
    }

    /// Ends it.
    pub(super) async fn stop(&self) {
        if let Some(task) = lock(&self.task).take() {
            task.abort();
        }
        let local = lock(&self.local).take();
        if let Some(local) = local {
            // What does not end now ends with the emulator.
            let _ = local.close().await;
        }
        let mut kept = lock(&self.kept);
        if matches!(kept.phase, Phase::Waiting | Phase::Running) {
            kept.phase = Phase::Ended(137);
        }
        drop(kept);
        self.changed.send_modify(|()| {});
    }

    /// The container as a replica shows it.
    pub(super) fn document(&self, name: &str, stream: &str) -> Value {
        let (phase, restarts) = self.phase();
        let (state, details) = match phase {
            Phase::Waiting => ("Waiting", "ContainerCreating"),
            Phase::Running => ("Running", ""),
            Phase::Ended(_) => ("Terminated", "Completed"),
            Phase::Looping => ("Waiting", "CrashLoopBackOff"),
            Phase::NoImage => ("Waiting", "ImagePullBackOff"),
        };
        let runs = phase == Phase::Running;
        json!({"name": name, "ready": self.is_ready(), "started": runs, "restartCount": restarts,
            "runningState": state, "runningStateDetails": details, "logStreamEndpoint": stream})
    }
}

/// Returns what a container runs; `None` if it names no command.
fn command(container: &Value, secrets: &Value) -> Option<Command> {
    let words = |key: &str| -> Vec<String> {
        let words = container[key].as_array().into_iter().flatten();
        words
            .filter_map(|word| word.as_str().map(str::to_owned))
            .collect()
    };
    let mut argv = words("command");
    if argv.is_empty() {
        return None;
    }
    argv.extend(words("args"));
    let mut command = Command::new(&argv[0]).args(&argv[1..]);
    for variable in container["env"].as_array().into_iter().flatten() {
        let name = variable["name"].as_str().unwrap_or_default();
        let known = secrets.as_array().into_iter().flatten();
        let secret = |of: &&Value| of["name"] == variable["secretRef"];
        let value = variable["value"]
            .as_str()
            .or_else(|| known.into_iter().find(secret)?["value"].as_str());
        command = command.env(name, value.unwrap_or_default());
    }
    Some(command)
}
