//! Options: of all sessions, of one, of limits and the pool.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sandbox_core::{Labels, SandboxSpec};

use crate::Clock;

/// Limits on the sessions there may be, and on the callers that may wait for one.
///
/// ```
/// use sandbox_sessions::Limits;
/// let limits = Limits::new().total(200).per_tenant(5);
/// assert_eq!(limits.waiting, 1_000);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Limits {
    /// Sessions of all tenants with a sandbox. Default: no limit.
    pub total: Option<usize>,
    /// Sessions of one tenant with a sandbox. Default: no limit.
    pub per_tenant: Option<usize>,
    /// Callers that wait for a place, over all tenants. Default: 1,000.
    pub waiting: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            total: None,
            per_tenant: None,
            waiting: 1_000,
        }
    }
}

impl Limits {
    /// The defaults: no limit on sessions; 1,000 callers may wait.
    pub fn new() -> Self {
        Self::default()
    }

    sandbox_core::setters! {
        /// Allows this many sessions in all.
        total: Some(usize),

        /// Allows each tenant this many sessions.
        per_tenant: Some(usize),

        /// Lets this many callers wait.
        waiting: usize,
    }
}

/// Sandboxes of one shape that are created before they are asked for.
///
/// A session whose specification is equal to this one, secrets included, takes a sandbox from the
/// pool; another is put in its place in the background. A sandbox that no longer answers is thrown
/// away instead of being handed out. What is in the pool does not count against [`Limits`].
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Pool {
    /// Specification that the sandboxes are created from.
    #[serde(default)]
    pub spec: SandboxSpec,
    /// Number of sandboxes that are kept ready.
    pub size: usize,
}

impl Pool {
    /// Keeps `size` sandboxes of this shape ready.
    pub fn new(spec: SandboxSpec, size: usize) -> Self {
        Self { spec, size }
    }
}

/// Treatment of a session that was not used for its idle timeout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum OnIdle {
    /// Closing the session.
    #[default]
    Close,
    /// Keeping its files as a snapshot and closing its sandbox; the next use creates one from
    /// them. Needs [`Capability::Snapshot`](sandbox_core::Capability::Snapshot).
    Suspend,
}

/// Configuration of how [`Sessions`](crate::Sessions) keep sandboxes.
///
/// ```
/// use std::time::Duration;
/// use sandbox_core::SandboxSpec;
/// use sandbox_sessions::{Limits, Pool, SessionsConfig};
/// let config = SessionsConfig::new()
///     .limits(Limits::new().per_tenant(3))
///     .idle_timeout(Duration::from_secs(15 * 60))
///     .max_life(Duration::from_secs(24 * 3600))
///     .pool(Pool::new(SandboxSpec::new(), 4));
/// assert!(config.journal.is_none());
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SessionsConfig {
    /// The directory of the journal; one process at a time may have it. Default: none, so that
    /// nothing is found again after a restart.
    pub journal: Option<PathBuf>,
    /// Whether each record reaches the disk before the call goes on, so that it survives a loss of
    /// power. Without it, a record survives the death of the process only. Default: true.
    pub sync: bool,
    /// Limits on the sessions there may be.
    pub limits: Limits,
    /// After this time without use a session ends, unless its options say otherwise. Default:
    /// never.
    pub idle_timeout: Option<Duration>,
    /// After this time a session ends, used or not, unless its options say otherwise. Default:
    /// never.
    pub max_life: Option<Duration>,
    /// Treatment of a session after the idle timeout.
    pub on_idle: OnIdle,
    /// Sandboxes that are created ahead.
    pub pools: Vec<Pool>,
    /// Sweep interval: the backend's list is compared with the known, leftovers are destroyed, the
    /// pool is checked. Default: a minute.
    pub sweep_every: Duration,
    /// Limit of the time to create, attach to or destroy a sandbox. Default: five minutes.
    pub backend_timeout: Duration,
    /// The clock. Default: the system's.
    pub clock: Clock,
}

impl Default for SessionsConfig {
    fn default() -> Self {
        Self {
            journal: None,
            sync: true,
            limits: Limits::default(),
            idle_timeout: None,
            max_life: None,
            on_idle: OnIdle::Close,
            pools: Vec::new(),
            sweep_every: Duration::from_secs(60),
            backend_timeout: Duration::from_secs(300),
            clock: Clock::system(),
        }
    }
}

impl SessionsConfig {
    /// The defaults: no journal, no limits, no expiry, no pool.
    pub fn new() -> Self {
        Self::default()
    }

    sandbox_core::setters! {
        /// Keeps a journal in this directory, which is created if missing.
        journal: Some(into PathBuf),

        /// Sets whether records reach the disk before a call goes on.
        sync: bool,

        /// Sets how many there may be.
        limits: Limits,

        /// Ends a session after this time without use.
        idle_timeout: Some(Duration),

        /// Ends a session after this time, used or not.
        max_life: Some(Duration),

        /// Sets what happens after the idle timeout.
        on_idle: OnIdle,
    }

    /// Keeps sandboxes of one more shape ready.
    #[must_use]
    pub fn pool(mut self, pool: Pool) -> Self {
        self.pools.push(pool);
        self
    }

    sandbox_core::setters! {
        /// Sets how often what is known is compared with the backend.
        sweep_every: Duration,

        /// Sets how long one step of the backend may take.
        backend_timeout: Duration,

        /// Sets the clock.
        clock: Clock,
    }
}

/// Behaviour of a call when there is no place for another session, or when another call makes or
/// ends the session of its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wait {
    /// Waiting for a turn.
    #[default]
    Queue,
    /// Waiting this long, and then failing with [`ErrorKind::Full`](crate::ErrorKind::Full) without
    /// a place, with [`ErrorKind::Busy`](crate::ErrorKind::Busy) behind another call. A creation
    /// that has begun takes the time that it takes.
    AtMost(Duration),
    /// Failing at once with the same.
    Never,
}

pub(crate) type Told = Arc<dyn Fn(usize) + Send + Sync>;

/// Options of one session.
///
/// ```
/// use std::time::Duration;
/// use sandbox_sessions::{SessionOptions, Wait};
/// let options = SessionOptions::new()
///     .label("branch", "main")
///     .idle_timeout(Duration::from_secs(60))
///     .wait(Wait::AtMost(Duration::from_secs(30)))
///     .on_position(|ahead| println!("{ahead} callers are served before"));
/// assert_eq!(options.labels["branch"], "main");
/// ```
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct SessionOptions {
    /// Labels to find it by; those of an existing session stay as they are.
    pub labels: Labels,
    /// The idle timeout of this session. Default: that of the configuration.
    pub idle_timeout: Option<Duration>,
    /// The maximum life of this session. Default: that of the configuration.
    pub max_life: Option<Duration>,
    /// Behaviour of the call when there is no place.
    pub wait: Wait,
    pub(crate) told: Option<Told>,
}

impl SessionOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    sandbox_core::setters! {
        /// Ends it after this time without use.
        idle_timeout: Some(Duration),

        /// Ends it after this time, used or not.
        max_life: Some(Duration),

        /// Sets what the call does when there is no place.
        wait: Wait,
    }

    /// Calls this with the number of callers that are served before, when the call starts to wait
    /// and whenever the number changes. It runs on the caller's task and should return at once.
    #[must_use]
    pub fn on_position(mut self, told: impl Fn(usize) + Send + Sync + 'static) -> Self {
        self.told = Some(Arc::new(told));
        self
    }
}

impl fmt::Debug for SessionOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionOptions")
            .field("labels", &self.labels)
            .field("idle_timeout", &self.idle_timeout)
            .field("max_life", &self.max_life)
            .field("wait", &self.wait)
            .finish_non_exhaustive()
    }
}
