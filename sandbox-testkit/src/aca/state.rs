//! State of the emulator: sandboxes, snapshots and the other resources of its groups.
//!
//! Nothing here is held locked while a sandbox works; logs are bounded.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use axum::http::HeaderName;
use sandbox_core::{
    GuestPath, Mount, Network, Operation, Provider as _, Sandbox, SandboxSpec, Source,
};
use sandbox_local::LocalProvider;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::local;

use super::arm::Arm;
use super::clock::Clock;
use super::fault::Faults;
use super::life::Life;
use super::log::Lines;
use super::memory::Process;
use super::options::{Options, RetryAfter};
use super::registry::Registry;
use super::reply::{Reply, coded, problem};
use super::sessions::Sessions;

/// Number of commands and requests that are remembered.
const REMEMBERED: usize = 8192;

/// Bytes of a command's text that are remembered.
const TEXT: usize = 16 << 10;

/// A sandbox of the emulated service.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) id: String,
    pub(super) group: String,
    /// When, by the clock, and as which it came.
    pub(super) since: Duration,
    pub(super) number: u64,
    pub(super) local: Arc<dyn Sandbox>,
    /// The resource as it is shown.
    pub(super) document: Mutex<Value>,
    /// When each port was added.
    pub(super) ports: Mutex<Vec<(u64, Duration)>>,
    /// State, and changes that come by themselves.
    pub(super) life: Mutex<Life>,
}

/// A snapshot: a local sandbox in which nothing runs.
#[derive(Debug)]
pub(super) struct Snap {
    pub(super) group: String,
    pub(super) local: Arc<dyn Sandbox>,
    pub(super) document: Value,
    /// Volumes that its source had mounted, and that a sandbox from it has too.
    pub(super) volumes: Value,
    pub(super) egress: Value,
    /// Processes that ran in its source.
    pub(super) processes: Vec<Process>,
    /// Whether it is listed: those of `stop` are not, and end with their sandbox.
    pub(super) listed: bool,
}

/// Everything that can be looked up.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) guests: BTreeMap<String, Arc<Guest>>,
    pub(super) snapshots: BTreeMap<String, Snap>,
    /// Images, volumes, secrets and groups by path.
    pub(super) resources: BTreeMap<String, Value>,
    /// Contents of committed images, by path.
    pub(super) images: BTreeMap<String, Arc<dyn Sandbox>>,
    /// Directories of volumes on this host, by path.
    pub(super) volumes: BTreeMap<String, PathBuf>,
    /// When each group was made, by path.
    pub(super) groups: BTreeMap<String, Duration>,
    /// Number of times that each sandbox tried to reach something, and that it could.
    outside: BTreeMap<String, (usize, usize)>,
    commands: VecDeque<String>,
    requests: VecDeque<String>,
    recent: VecDeque<Duration>,
}

/// The emulator.
#[derive(Debug)]
pub(super) struct State {
    /// Signs tokens.
    pub(super) secret: String,
    pub(super) faults: Faults,
    pub(super) clock: Arc<Clock>,
    pub(super) arm: Arm,
    pub(super) log: Lines,
    /// Directory of the volumes' content; goes with the emulator.
    pub(super) volumes: TempDir,
    options: RwLock<Arc<Options>>,
    pub(super) sessions: Sessions,
    /// Made for the first command: the management plane alone needs none.
    provider: OnceCell<Arc<LocalProvider>>,
    /// Whose commands last as long as a process holds their output, as those of groups do.
    patient: OnceCell<Arc<LocalProvider>>,
    store: Mutex<Store>,
    endpoint: OnceLock<String>,
    /// The registry, if there is one.
    registry: OnceLock<Registry>,
    numbers: AtomicU64,
}

impl State {
    pub(super) fn new(options: Options, log: Lines) -> sandbox_core::Result<Self> {
        let clock = Arc::new(Clock::new());
        let sessions = Sessions::new(Arc::clone(&clock));
        for pool in &options.pools {
            sessions.put_pool(pool.clone());
        }
        Ok(Self {
            sessions,
            clock,
            secret: uuid::Uuid::new_v4().simple().to_string(),
            faults: Faults::default(),
            arm: Arm::default(),
            log,
            volumes: tempfile::tempdir()
                .map_err(|e| sandbox_core::Error::from_io(e, Operation::Connect))?,
            options: RwLock::new(Arc::new(options)),
            provider: OnceCell::new(),
            patient: OnceCell::new(),
            store: Mutex::default(),
            endpoint: OnceLock::new(),
            registry: OnceLock::new(),
            numbers: AtomicU64::new(0),
        })
    }

    /// The options as they are now.
    pub(super) fn options(&self) -> Arc<Options> {
        let options = self.options.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&options)
    }

    pub(super) fn change<T>(&self, how: impl FnOnce(&mut Options) -> T) -> T {
        let mut options = self.options.write().unwrap_or_else(PoisonError::into_inner);
        how(Arc::make_mut(&mut options))
    }

    pub(super) fn endpoint(&self) -> String {
        self.endpoint.get().cloned().unwrap_or_default()
    }

    pub(super) fn listens_at(&self, endpoint: String) {
        // Set once, by the one that starts the server.
        let _ = self.endpoint.set(endpoint);
    }

    /// The registry that images are pulled from.
    pub(super) fn registry(&self) -> Option<&Registry> {
        self.registry.get()
    }

    pub(super) fn has_registry(&self, registry: Registry) {
        // Set once, by the one that starts the server.
        let _ = self.registry.set(registry);
    }

    pub(super) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// A fresh local sandbox for a session or a container.
    pub(super) async fn local(
        &self,
        open: bool,
        mounts: Vec<Mount>,
    ) -> sandbox_core::Result<Arc<dyn Sandbox>> {
        let provider = self
            .provider
            .get_or_try_init(|| async { local::provider() });
        let spec = self.spec(open, mounts);
        provider.await?.create(spec).await
    }

    /// A fresh local sandbox for a sandbox of a group.
    pub(super) async fn member(
        &self,
        open: bool,
        mounts: Vec<Mount>,
    ) -> sandbox_core::Result<Arc<dyn Sandbox>> {
        let provider = self.patient.get_or_try_init(|| async { local::patient() });
        let mut spec = self.spec(open, mounts);
        if let Some(root) = self.options().root.clone() {
            spec = spec.source(Source::RootDir(root));
        }
        provider.await?.create(spec).await
    }

    fn spec(&self, open: bool, mounts: Vec<Mount>) -> SandboxSpec {
        let options = self.options();
        let network = match options.asks_outside || open && options.allow_network {
            true => Network::Open,
            false => Network::Off,
        };
        let mut spec = SandboxSpec::new().network(network).workdir("/");
        spec.mounts = mounts;
        spec
    }

    /// A fresh local sandbox for a container of an app, a job or a session pool.
    pub(super) async fn container(&self, open: bool) -> sandbox_core::Result<Arc<dyn Sandbox>> {
        let programs = self.options().programs.clone();
        let mounts = programs.map(|path| {
            let within = GuestPath::from(path.as_os_str().as_encoded_bytes());
            Mount::read_only(path, within)
        });
        self.local(open, mounts.into_iter().collect()).await
    }

    /// The sandbox of a request.
    pub(super) fn guest(&self, group: &str, id: &str) -> Result<Arc<Guest>, Reply> {
        let known = self.store().guests.get(id).cloned();
        known
            .filter(|guest| guest.group == group && self.visible(guest))
            .ok_or_else(|| problem(404, "SandboxNotFound", "there is no such sandbox"))
    }

    /// Whether a sandbox can be found yet.
    pub(super) fn visible(&self, guest: &Guest) -> bool {
        self.clock.now() >= guest.since.saturating_add(self.options().hidden)
    }

    /// Whether a group can be found; the answer if not.
    pub(super) fn group(&self, group: &str) -> Result<(), Reply> {
        let options = self.options();
        let made = self.store().groups.get(group).copied();
        let since = match (made, options.strict_groups) {
            (Some(made), _) => Some(made),
            (None, false) => Some(Duration::ZERO),
            (None, true) => None,
        };
        let known = since
            .is_some_and(|since| self.clock.now() >= since.saturating_add(options.group_after));
        match known {
            true => Ok(()),
            false => Err(problem(
                404,
                "SandboxGroupNotFound",
                "there is no such sandbox group",
            )),
        }
    }

    /// Takes a sandbox out; the caller ends it.
    pub(super) fn take(&self, id: &str) -> Option<Arc<Guest>> {
        let mut store = self.store();
        // The snapshot of its last stop is the sandbox itself.
        let own =
            |_: &String, snap: &mut Snap| snap.listed || snap.document["sandboxId"] != json!(id);
        store.snapshots.retain(own);
        store.guests.remove(id)
    }

    pub(super) async fn forget(&self, id: &str) -> bool {
        match self.take(id) {
            Some(guest) => guest.local.close().await.is_ok(),
            None => false,
        }
    }

    /// Ends everything that runs.
    pub(super) async fn close(&self) {
        let store = std::mem::take(&mut *self.store());
        let guests = store
            .guests
            .into_values()
            .map(|guest| Arc::clone(&guest.local));
        let snaps = store.snapshots.into_values().map(|snap| snap.local);
        for local in guests.chain(snaps).chain(store.images.into_values()) {
            // What does not end now is collected by the next start.
            let _ = local.close().await;
        }
        self.sessions.close().await;
        self.arm.close().await;
    }

    /// Returns how often a sandbox tried to reach something, and how often it could.
    pub(super) fn outside(&self, id: &str) -> (usize, usize) {
        self.store().outside.get(id).copied().unwrap_or_default()
    }

    /// Notes such a try.
    pub(super) fn tried(&self, id: &str, could: bool) {
        let mut store = self.store();
        let tries = store.outside.entry(id.to_owned()).or_default();
        tries.0 += 1;
        tries.1 += usize::from(could);
    }

    pub(super) fn counts(&self) -> (usize, usize) {
        let store = self.store();
        (store.guests.len(), store.snapshots.len())
    }

    pub(super) fn note_command(&self, text: &str) {
        let end = text.floor_char_boundary_at(TEXT);
        push(&mut self.store().commands, text[..end].to_owned());
    }

    pub(super) fn note_request(&self, text: &str) {
        push(&mut self.store().requests, text.to_owned());
    }

    pub(super) fn executions(&self, needle: &str) -> usize {
        let store = self.store();
        store
            .commands
            .iter()
            .filter(|text| text.contains(needle))
            .count()
    }

    pub(super) fn requests(&self, needle: &str) -> usize {
        self.requested(needle).len()
    }

    pub(super) fn requested(&self, needle: &str) -> Vec<String> {
        let store = self.store();
        let fit = store.requests.iter().filter(|text| text.contains(needle));
        fit.cloned().collect()
    }

    /// Counts a request against the limit; the answer if there are too many.
    pub(super) fn limit(&self) -> Result<(), Reply> {
        const MINUTE: Duration = Duration::from_secs(60);
        let options = self.options();
        let Some(rate) = options.rate else {
            return Ok(());
        };
        let now = self.clock.now();
        let mut store = self.store();
        while let Some(first) = store.recent.front()
            && now.saturating_sub(*first) >= MINUTE
        {
            store.recent.pop_front();
        }
        if store.recent.len() >= usize::try_from(rate).unwrap_or(usize::MAX) {
            let oldest = store.recent.front().copied().unwrap_or(now);
            drop(store);
            let wait = MINUTE.saturating_sub(now.saturating_sub(oldest));
            return Err(too_many(
                self,
                "Rate limit exceeded",
                &format!("too many requests (limit {rate} requests/min)."),
                // Whole seconds, and not one too few.
                wait.as_secs() + 1,
            ));
        }
        store.recent.push_back(now);
        Ok(())
    }
}

/// A 429 that says when to come again as the options want it.
pub(super) fn too_many(state: &State, title: &str, detail: &str, seconds: u64) -> Reply {
    const DAY: u64 = 86_400;
    let form = state.options().retry_after;
    let mut body = json!({"title": title, "status": 429, "detail": detail});
    if form == RetryAfter::Body {
        body["retryAfterSeconds"] = json!(seconds);
    }
    let reply = Reply::new(429, "application/problem+json", body.to_string());
    let wall = state.clock.wall().as_secs();
    let header = match form {
        RetryAfter::Body | RetryAfter::Absent => return reply,
        RetryAfter::Millis => {
            let name = HeaderName::from_static("x-ms-retry-after-ms");
            return reply.with(name, (seconds * 1000).to_string());
        }
        RetryAfter::Seconds => seconds.to_string(),
        RetryAfter::Huge => DAY.to_string(),
        // The answer is dated a moment later, perhaps in the next second.
        RetryAfter::Date => date(wall + seconds + 1),
        RetryAfter::Past => date(wall.saturating_sub(DAY)),
    };
    reply.with(axum::http::header::RETRY_AFTER, header)
}

fn date(seconds: u64) -> String {
    httpdate::fmt_http_date(std::time::UNIX_EPOCH + Duration::from_secs(seconds))
}

impl Guest {
    pub(super) fn document(&self) -> MutexGuard<'_, Value> {
        self.document.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn not_running() -> Reply {
    let detail = "the sandbox is not running";
    coded(409, "GlobalSandboxNotRunning", detail, json!(501))
}

fn push(queue: &mut VecDeque<String>, text: String) {
    if queue.len() >= REMEMBERED {
        queue.pop_front();
    }
    queue.push_back(text);
}

/// Stand-in for `str::floor_char_boundary` until it is in every supported Rust.
trait Boundary {
    fn floor_char_boundary_at(&self, at: usize) -> usize;
}

impl Boundary for str {
    fn floor_char_boundary_at(&self, at: usize) -> usize {
        let mut at = at.min(self.len());
        while !self.is_char_boundary(at) {
            at -= 1;
        }
        at
    }
}
