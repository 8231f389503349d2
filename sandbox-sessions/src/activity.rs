//! Activity of a session, and the time of its last use: a layer around its sandbox.
//!
//! A look must never count as use, and a running command always does.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use sandbox_core::layer::{Answer, Around, Attempt, Call, Request};
use sandbox_core::{
    Capability, Exit, Job, JobKey, Process, ProcessControl, Sandbox, SandboxId, Signal,
    TerminalSize, async_trait,
};

use crate::{Clock, Expired, Status, Why};

/// Told when a status may have changed, with the sandbox if one was found to be gone.
pub(crate) type Changed = Arc<dyn Fn(Option<&SandboxId>) + Send + Sync>;

/// The hint of an error of a suspended session.
const SUSPENDED: &str = "its session is suspended; ask for the session again";

/// Time until a backend that did not answer is asked again how a job fares.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The activity of one session.
pub(crate) struct Activity {
    clock: Clock,
    state: Mutex<State>,
    changed: Changed,
    handle: tokio::runtime::Handle,
    /// Ends those who wait for jobs when it is dropped.
    alive: tokio::sync::watch::Sender<()>,
    ended: tokio::sync::watch::Sender<bool>,
}

struct State {
    /// Commands that run, jobs included.
    commands: usize,
    /// Jobs whose end is waited for.
    jobs: HashSet<(SandboxId, JobKey)>,
    /// Calls and commands that are under way.
    uses: usize,
    last_use: SystemTime,
    failed: bool,
    reported: Option<Status>,
    keep_until: Option<SystemTime>,
    life: Life,
    /// Whether its files are being kept: what a call changed now would be lost.
    suspending: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Live,
    Suspended,
    Gone(Expired),
}

/// A copy of what an activity says at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) status: Status,
    pub(crate) in_use: bool,
    pub(crate) last_use: SystemTime,
    pub(crate) keep_until: Option<SystemTime>,
    pub(crate) life: Life,
}

impl std::fmt::Debug for Activity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Activity").field(&self.seen()).finish()
    }
}

impl Activity {
    pub(crate) fn new(
        clock: Clock,
        last_use: SystemTime,
        changed: Changed,
        handle: tokio::runtime::Handle,
    ) -> Self {
        Self {
            clock,
            handle,
            alive: tokio::sync::watch::channel(()).0,
            ended: tokio::sync::watch::channel(false).0,
            state: Mutex::new(State {
                commands: 0,
                jobs: HashSet::new(),
                uses: 0,
                last_use,
                failed: false,
                reported: None,
                keep_until: None,
                life: Life::Live,
                suspending: false,
            }),
            changed,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn seen(&self) -> Seen {
        let state = self.lock();
        let status = match (state.life, state.reported) {
            (Life::Gone(_), _) => Status::Gone,
            (Life::Suspended, _) => Status::Suspended,
            (Life::Live, Some(reported)) => reported,
            (Life::Live, None) if state.commands > 0 => Status::Working,
            (Life::Live, None) if state.failed => Status::Error,
            (Life::Live, None) => Status::Ready,
        };
        Seen {
            status,
            in_use: state.uses > 0,
            last_use: state.last_use,
            keep_until: state.keep_until,
            life: state.life,
        }
    }

    /// Number of jobs that run.
    pub(crate) fn jobs(&self) -> usize {
        self.lock().jobs.len()
    }

    /// Use without a call to the sandbox.
    pub(crate) fn touch(&self) {
        self.lock().last_use = self.clock.now();
    }

    /// Puts the idle timeout off until then; an earlier time than before changes nothing.
    pub(crate) fn keep_until(&self, until: SystemTime) {
        let mut state = self.lock();
        state.keep_until = state.keep_until.max(Some(until));
    }

    pub(crate) fn report(&self, status: Option<Status>) {
        self.lock().reported = status;
        (self.changed)(None);
    }

    /// Refuses calls from now on, until [`suspended`](Self::suspended) says how it went; `false` if
    /// it is in use.
    pub(crate) fn suspend(&self) -> bool {
        let mut state = self.lock();
        state.suspending = state.uses == 0;
        state.suspending
    }

    /// Ends what [`suspend`](Self::suspend) began.
    pub(crate) fn suspended(&self, done: bool) {
        {
            let mut state = self.lock();
            state.suspending = false;
            if done && state.life == Life::Live {
                state.life = Life::Suspended;
            }
        }
        (self.changed)(None);
    }

    /// Changes the life; an end is never taken back.
    pub(crate) fn set_life(&self, life: Life) {
        {
            let mut state = self.lock();
            if matches!(state.life, Life::Gone(_)) {
                return;
            }
            state.life = life;
        }
        if matches!(life, Life::Gone(_)) {
            self.ended.send_replace(true);
        }
        (self.changed)(None);
    }

    /// Waits for its end.
    pub(crate) async fn gone(&self) {
        let mut ended = self.ended.subscribe();
        // The sender lives as long as this.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// Begins a use, unless what it changed would be lost.
    fn admit(&self, command: bool) -> bool {
        let mut state = self.lock();
        if state.suspending || state.life == Life::Suspended {
            return false;
        }
        self.begin_in(&mut state, command);
        drop(state);
        if command {
            (self.changed)(None);
        }
        true
    }

    fn begin(&self, command: bool) {
        self.begin_in(&mut self.lock(), command);
        if command {
            (self.changed)(None);
        }
    }

    fn begin_in(&self, state: &mut State, command: bool) {
        state.uses += 1;
        state.last_use = self.clock.now();
        if command {
            state.commands += 1;
            state.failed = false;
            state.reported = None;
        }
    }

    fn end(&self, command: bool, failed: Option<bool>) {
        {
            let mut state = self.lock();
            state.uses = state.uses.saturating_sub(1);
            state.last_use = self.clock.now();
            if command {
                state.commands = state.commands.saturating_sub(1);
                state.reported = None;
                if let Some(failed) = failed {
                    state.failed = failed;
                }
            }
        }
        if command {
            (self.changed)(None);
        }
    }
}

impl Activity {
    /// Counts a job as a command that runs, until it has ended.
    fn follow(self: &Arc<Self>, sandbox: SandboxId, job: Job) {
        let name = (sandbox, job.key().clone());
        if !self.lock().jobs.insert(name.clone()) {
            return;
        }
        self.begin(true);
        // Neither this nor the job's handle keeps alive what nothing else does.
        let (activity, mut alive) = (Arc::downgrade(self), self.alive.subscribe());
        self.handle.spawn(async move {
            let failed = tokio::select! {
                failed = has_failed(&job) => failed,
                _ = alive.changed() => return,
            };
            drop(job);
            if let Some(activity) = activity.upgrade() {
                activity.lock().jobs.remove(&name);
                activity.end(true, Some(failed));
            }
        });
    }

    /// Follows the jobs that an earlier process started in a sandbox.
    pub(crate) fn follow_all(self: &Arc<Self>, raw: &Arc<dyn Sandbox>) {
        if !raw.capabilities().has(Capability::Jobs) {
            return;
        }
        let (activity, raw) = (Arc::downgrade(self), raw.clone());
        let mut alive = self.alive.subscribe();
        self.handle.spawn(async move {
            let listed = tokio::select! {
                listed = raw.list_jobs() => listed,
                _ = alive.changed() => return,
            };
            let jobs = match listed {
                Ok(jobs) => jobs,
                Err(error) => {
                    tracing::warn!(%error, "the jobs of a sandbox that was taken up are not known");
                    return;
                }
            };
            for info in jobs.iter().filter(|info| !info.state.is_final()) {
                let found = raw.find_job(&info.key).await;
                if let (Ok(job), Some(activity)) = (found, activity.upgrade()) {
                    activity.follow(raw.info().id, job);
                }
            }
        });
    }
}

/// Waits for the end of a job.
async fn has_failed(job: &Job) -> bool {
    loop {
        match job.wait().await {
            Ok(exit) => return !exit.status.success(),
            Err(error) if error.is_retryable() => tokio::time::sleep(ASK_AGAIN).await,
            Err(_) => return true,
        }
    }
}

/// One use; ends when dropped.
pub(crate) struct Use {
    /// `None` once another use has taken its place.
    activity: Option<Arc<Activity>>,
    command: bool,
    failed: Option<bool>,
}

impl Use {
    /// `None` while the session is being suspended, and once it is.
    pub(crate) fn admit(activity: &Arc<Activity>, command: bool) -> Option<Self> {
        let admitted = activity.admit(command);
        admitted.then(|| Self::of(activity, command))
    }

    /// A use that is not refused.
    fn begin(activity: &Arc<Activity>, command: bool) -> Self {
        activity.begin(command);
        Self::of(activity, command)
    }

    /// A use that has begun.
    fn of(activity: &Arc<Activity>, command: bool) -> Self {
        Self {
            activity: Some(activity.clone()),
            command,
            failed: None,
        }
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        if let Some(activity) = &self.activity {
            activity.end(self.command, self.failed);
        }
    }
}

/// The layer around a session's sandbox.
#[derive(Clone, Debug)]
pub(crate) struct Track {
    activity: Arc<Activity>,
    /// The session's own sandbox, as opposed to its forks.
    sandbox: SandboxId,
}

impl Track {
    pub(crate) fn new(activity: Arc<Activity>, sandbox: SandboxId) -> Self {
        Self { activity, sandbox }
    }

    /// The error of a call that comes while the session is suspended.
    fn suspended(&self, call: &Call<'_>) -> sandbox_core::Error {
        let error = sandbox_core::Error::closed(call.operation(), &self.sandbox);
        let error = error.with_hint(SUSPENDED);
        match call.command() {
            Some(_) => error.with_execution(sandbox_core::Execution::NotStarted),
            None => error,
        }
    }

    /// Looks at an error: a sandbox that is gone ends the session; one that ended says why.
    fn explain(&self, call: &Call<'_>, error: sandbox_core::Error) -> sandbox_core::Error {
        use sandbox_core::ErrorKind;
        if !matches!(
            error.kind(),
            ErrorKind::Closed | ErrorKind::Expired | ErrorKind::Lost
        ) || call.sandbox_id().as_ref() != Some(&self.sandbox)
        {
            return error;
        }
        match self.activity.seen().life {
            Life::Gone(Expired { why, .. }) => error.with_hint(format!(
                "its session ended because {why}; ask for the session again"
            )),
            Life::Suspended => error.with_hint(SUSPENDED),
            Life::Live => {
                (self.activity.changed)(Some(&self.sandbox));
                error.with_hint("ask for its session again")
            }
        }
    }
}

impl Around for Track {
    async fn around<T: Answer>(
        &self,
        call: Call<'_>,
        attempt: Attempt<'_, T>,
    ) -> sandbox_core::Result<T> {
        let command = call.command().is_some();
        let mut using = match call.request {
            Request::Isolation
            | Request::EgressDecisions(_)
            | Request::ListJobs
            | Request::Usage => None,
            Request::Close => Some(Use::begin(&self.activity, command)),
            _ => match Use::admit(&self.activity, command) {
                Some(using) => Some(using),
                // A fork's files are not those that a suspension keeps.
                None if call.sandbox_id().as_ref() != Some(&self.sandbox) => {
                    Some(Use::begin(&self.activity, command))
                }
                None => return Err(self.suspended(&call)),
            },
        };
        let mut result = attempt().await;
        if let Some(using) = &mut using {
            using.failed = match &result {
                Ok(answer) => answer.output().map(|output| !output.success()),
                Err(_) => command.then_some(true),
            };
        }
        match (&call.request, &mut result) {
            (Request::Spawn(_), Ok(_)) => {
                // `process` comes next and takes the use over.
                if let Some(using) = &mut using {
                    using.activity = None;
                }
            }
            (Request::StartJob(..), Ok(answer)) => {
                if let (Some(job), Some(sandbox)) = (answer.job(), call.sandbox_id()) {
                    self.activity.follow(sandbox, job.clone());
                }
                drop(using);
            }
            (
                Request::OpenRead(..) | Request::OpenWrite(..) | Request::ConnectPort(_),
                Ok(open),
            ) => {
                if let Some(using) = using {
                    open.keep_alive(Arc::new(using));
                }
            }
            (Request::Close, _) => {
                drop(using);
                if call.sandbox_id().as_ref() == Some(&self.sandbox) {
                    (self.activity.changed)(Some(&self.sandbox));
                }
            }
            _ => drop(using),
        }
        result.map_err(|error| self.explain(&call, error))
    }

    fn process(&self, _: Call<'_>, process: Process) -> Process {
        let using = Use {
            activity: Some(self.activity.clone()),
            command: true,
            failed: None,
        };
        process.map_control(|inner| Tracked {
            inner,
            using: Mutex::new(Some(using)),
        })
    }
}

/// The control of a process that holds a use.
#[derive(Debug)]
struct Tracked {
    inner: Box<dyn ProcessControl>,
    using: Mutex<Option<Use>>,
}

impl std::fmt::Debug for Use {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Use")
    }
}

impl Tracked {
    fn release(&self, failed: bool) {
        let using = self
            .using
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(mut using) = using {
            using.failed = Some(failed);
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ProcessControl for Tracked {
    async fn wait(&self) -> sandbox_core::Result<Exit> {
        let exit = self.inner.wait().await;
        self.release(!exit.as_ref().is_ok_and(|exit| exit.status.success()));
        exit
    }

    async fn signal(&self, signal: Signal) -> sandbox_core::Result<()> {
        self.inner.signal(signal).await
    }

    async fn resize(&self, size: TerminalSize) -> sandbox_core::Result<()> {
        self.inner.resize(size).await
    }

    async fn kill(&self) -> sandbox_core::Result<()> {
        let killed = self.inner.kill().await;
        if killed.is_ok() {
            self.release(true);
        }
        killed
    }
}

/// The end of a session for this reason, now.
pub(crate) fn ended(clock: &Clock, why: Why) -> Life {
    Life::Gone(Expired {
        at: clock.now(),
        why,
    })
}
