//! Containers of apps, jobs and session pools: their command runs for real, in a local sandbox, and
//! what it writes is kept as a log.
//!
//! An image of the emulator's own registry is pulled and its files are there; any other is this
//! host's, whatever it is called, and without a command runs nothing. A container must never be
//! started again once its app is stopped.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use sandbox_core::{Command, PortStream, Sandbox};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::registry::Image;
use super::state::State;

/// Number of lines that are kept.
const LINES: usize = 1000;

/// Number of restarts of a container before its app is a crash loop.
const RESTARTS: u32 = 3;

/// Time that a container must have run before it gets requests.
const READY: Duration = Duration::from_millis(300);

/// Time that a request waits for its container to listen: less than its client waits for an answer.
const LISTENS: Duration = Duration::from_secs(25);

/// Phase of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::aca) enum Phase {
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
pub(in crate::aca) struct Run {
    kept: Mutex<Kept>,
    changed: watch::Sender<()>,
    local: Mutex<Option<Arc<dyn Sandbox>>>,
    task: Mutex<Option<AbortHandle>>,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A container to run.
#[derive(Clone, Debug)]
pub(in crate::aca) struct Job {
    /// The container as a template has it.
    pub(in crate::aca) container: Value,
    pub(in crate::aca) secrets: Value,
    /// Servers that images may be pulled from as an identity.
    pub(in crate::aca) registries: Vec<String>,
    /// Variables that the service adds to its environment.
    pub(in crate::aca) env: Vec<(&'static str, String)>,
    /// Whether it reaches the network, if the emulator allows it.
    pub(in crate::aca) egress: bool,
    /// Whether it is started again when it ends, as an app's is.
    pub(in crate::aca) again: bool,
}

impl Run {
    /// Starts a container.
    pub(in crate::aca) fn start(state: &Arc<State>, job: Job) -> Arc<Self> {
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
        let again = job.again;
        let name = job.container["image"].as_str().unwrap_or_default();
        let registry = state.registry().filter(|registry| registry.has(name));
        if registry.is_none() && job.command(None).is_none() {
            run.note(Bytes::from_static(
                b"(the image's own program is not run here)",
            ));
            run.turn(if again {
                Phase::Running
            } else {
                Phase::Ended(0)
            });
            return run;
        }
        let (state, of) = (Arc::clone(state), Arc::clone(&run));
        let task = tokio::spawn(async move { of.live(&state, &job).await });
        *lock(&run.task) = Some(task.abort_handle());
        run
    }

    async fn live(self: &Arc<Self>, state: &State, job: &Job) {
        let name = job.container["image"].as_str().unwrap_or_default();
        let image = match state.registry().filter(|registry| registry.has(name)) {
            Some(registry) => match registry.pull(name, &job.registries).await {
                Ok(image) => Some(image),
                Err(why) => {
                    self.note(Bytes::from(format!("the image can't be pulled: {why}")));
                    return self.turn(Phase::NoImage);
                }
            },
            None => None,
        };
        let Some(command) = job.command(image.as_ref()) else {
            self.note(Bytes::from_static(b"the image has no program to run"));
            return self.turn(Phase::NoImage);
        };
        loop {
            let once = self.once(state, job, image.as_ref(), command.clone());
            let code = once.await.unwrap_or_else(|error| {
                self.note(Bytes::from(error.to_string()));
                128
            });
            if !job.again {
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
    async fn once(
        &self,
        state: &State,
        job: &Job,
        image: Option<&Image>,
        command: Command,
    ) -> sandbox_core::Result<i32> {
        let local = state.container(job.egress).await?;
        if let Some(image) = image {
            image.unpack(&*local).await?;
        }
        state.note_command(&String::from_utf8_lossy(&command.argv().join(&b' ')));
        let mut process = local.spawn(command).await?;
        *lock(&self.local) = Some(Arc::clone(&local));
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

    /// The sandbox that it runs in, once it does.
    pub(in crate::aca) fn local(&self) -> Option<Arc<dyn Sandbox>> {
        lock(&self.local).clone()
    }

    /// Connects to a port of it, as soon as something listens there; nothing if nothing does.
    pub(in crate::aca) async fn connect(&self, port: u16) -> Option<PortStream> {
        let end = Instant::now() + LISTENS;
        loop {
            if let Some(local) = self.local()
                && let Ok(stream) = local.connect_port(port).await
            {
                return Some(stream);
            }
            if self.is_over() || Instant::now() >= end {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
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
    pub(in crate::aca) fn phase(&self) -> (Phase, u32) {
        let kept = lock(&self.kept);
        (kept.phase, kept.restarts)
    }

    /// Whether it gets requests.
    pub(in crate::aca) fn is_ready(&self) -> bool {
        let kept = lock(&self.kept);
        let ran = kept.since.is_none_or(|since| since.elapsed() >= READY);
        kept.phase == Phase::Running && ran
    }

    /// Whether it writes nothing more.
    fn is_over(&self) -> bool {
        !matches!(self.phase().0, Phase::Waiting | Phase::Running)
    }

    /// The number of the first of the last so many lines.
    pub(in crate::aca) fn tail(&self, lines: u64) -> u64 {
        let kept = lock(&self.kept);
        let end = kept.first + kept.lines.len() as u64;
        end.saturating_sub(lines).max(kept.first)
    }

    /// The lines from this number on, and the number of the next. Waits for one if there is none
    /// and `follow`; `None` at the end.
    pub(in crate::aca) async fn lines(&self, from: u64, follow: bool) -> Option<(Vec<Bytes>, u64)> {
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
    pub(in crate::aca) async fn stop(&self) {
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
    pub(in crate::aca) fn document(&self, name: &str, stream: &str) -> Value {
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

impl Job {
    /// Returns what it runs; `None` if neither the container nor its image names a command.
    fn command(&self, image: Option<&Image>) -> Option<Command> {
        let words = |key: &str| -> Vec<String> {
            let words = self.container[key].as_array().into_iter().flatten();
            words
                .filter_map(|word| word.as_str().map(str::to_owned))
                .collect()
        };
        let mut argv = words("command");
        if argv.is_empty() {
            argv = image.map(Image::entrypoint).unwrap_or_default();
        }
        if argv.is_empty() {
            return None;
        }
        argv.extend(words("args"));
        let mut command = Command::new(&argv[0]).args(&argv[1..]);
        if let Some(image) = image {
            for (name, value) in image.env() {
                command = command.env(name, value);
            }
            command = command.cwd(image.workdir());
        }
        for (name, value) in &self.env {
            command = command.env(*name, value.as_str());
        }
        for variable in self.container["env"].as_array().into_iter().flatten() {
            let name = variable["name"].as_str().unwrap_or_default();
            let known = self.secrets.as_array().into_iter().flatten();
            let secret = |of: &&Value| of["name"] == variable["secretRef"];
            let value = variable["value"]
                .as_str()
                .or_else(|| known.into_iter().find(secret)?["value"].as_str());
            command = command.env(name, value.unwrap_or_default());
        }
        Some(command)
    }
}
