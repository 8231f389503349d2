//! What the emulator keeps: sandboxes, snapshots and the other resources of its groups.
//!
//! Nothing here is held locked while a sandbox works; logs are bounded.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use sandbox_core::{Network, Provider as _, Sandbox, SandboxSpec};
use sandbox_local::LocalProvider;
use serde_json::{Value, json};

use super::Options;
use super::fault::Faults;
use super::reply::{Reply, coded, problem};
use super::sessions::Sessions;

/// How many commands and requests are remembered.
const REMEMBERED: usize = 8192;

/// How much of a command's text is remembered.
const TEXT: usize = 16 << 10;

/// A sandbox of the emulated service.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) id: String,
    pub(super) group: String,
    /// When and as which it came, for lists.
    pub(super) since: Instant,
    pub(super) number: u64,
    pub(super) local: Arc<dyn Sandbox>,
    /// The resource as it is shown.
    pub(super) document: Mutex<Value>,
    /// When each port was added.
    pub(super) ports: Mutex<Vec<(u64, Instant)>>,
}

/// A snapshot: a local sandbox that nobody runs anything in.
#[derive(Debug)]
pub(super) struct Snap {
    pub(super) group: String,
    pub(super) local: Arc<dyn Sandbox>,
    pub(super) document: Value,
    /// Those of `stop` are not listed.
    pub(super) listed: bool,
}

/// Everything that can be looked up.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) guests: BTreeMap<String, Arc<Guest>>,
    pub(super) snapshots: BTreeMap<String, Snap>,
    /// Images, volumes, secrets and groups by path.
    pub(super) resources: BTreeMap<String, Value>,
    commands: VecDeque<String>,
    requests: VecDeque<String>,
    recent: VecDeque<Instant>,
}

/// The emulator.
#[derive(Debug)]
pub(super) struct State {
    pub(super) options: Options,
    pub(super) signature: String,
    pub(super) faults: Faults,
    pub(super) sessions: Sessions,
    provider: LocalProvider,
    store: Mutex<Store>,
    endpoint: OnceLock<String>,
    numbers: AtomicU64,
}

impl State {
    pub(super) fn new(options: Options) -> sandbox_core::Result<Self> {
        let sessions = Sessions::default();
        for pool in &options.pools {
            sessions.put_pool(pool.clone());
        }
        Ok(Self {
            sessions,
            options,
            signature: uuid::Uuid::new_v4().simple().to_string(),
            faults: Faults::default(),
            provider: LocalProvider::new()?,
            store: Mutex::default(),
            endpoint: OnceLock::new(),
            numbers: AtomicU64::new(0),
        })
    }

    pub(super) fn endpoint(&self) -> String {
        self.endpoint.get().cloned().unwrap_or_default()
    }

    pub(super) fn listens_at(&self, endpoint: String) {
        // Set once, by the one that starts the server.
        let _ = self.endpoint.set(endpoint);
    }

    pub(super) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// A fresh local sandbox.
    pub(super) async fn local(&self, open: bool) -> sandbox_core::Result<Arc<dyn Sandbox>> {
        let network = match open && self.options.allow_network {
            true => Network::Open,
            false => Network::Off,
        };
        let spec = SandboxSpec::new().with_network(network).with_workdir("/");
        self.provider.create(spec).await
    }

    /// The sandbox of a request.
    pub(super) fn guest(&self, group: &str, id: &str) -> Result<Arc<Guest>, Reply> {
        let known = self.store().guests.get(id).cloned();
        known
            .filter(|guest| guest.group == group)
            .filter(|guest| guest.since.elapsed() >= self.options.hidden)
            .ok_or_else(|| problem(404, "SandboxNotFound", "there is no such sandbox"))
    }

    /// Takes a sandbox out; whoever gets it ends it.
    pub(super) fn take(&self, id: &str) -> Option<Arc<Guest>> {
        self.store().guests.remove(id)
    }

    pub(super) async fn forget(&self, id: &str) -> bool {
        match self.take(id) {
            Some(guest) => guest.local.close().await.is_ok(),
            None => false,
        }
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
        let store = self.store();
        store
            .requests
            .iter()
            .filter(|text| text.contains(needle))
            .count()
    }

    /// Counts a request against the limit; the answer if there are too many.
    pub(super) fn limit(&self) -> Result<(), Reply> {
        let Some(rate) = self.options.rate else {
            return Ok(());
        };
        let mut store = self.store();
        while store
            .recent
            .front()
            .is_some_and(|at| at.elapsed().as_secs() >= 60)
        {
            store.recent.pop_front();
        }
        if store.recent.len() >= usize::try_from(rate).unwrap_or(usize::MAX) {
            let body = json!({
                "title": "Rate limit exceeded", "status": 429,
                "detail": format!("too many requests (limit {rate} requests/min)."),
                "retryAfterSeconds": 30,
            });
            return Err(Reply::new(
                429,
                "application/problem+json",
                body.to_string(),
            ));
        }
        store.recent.push_back(Instant::now());
        Ok(())
    }
}

impl Guest {
    pub(super) fn document(&self) -> MutexGuard<'_, Value> {
        self.document.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its state now: creation takes the time that the options say.
    pub(super) fn state(&self, options: &Options) -> String {
        let mut document = self.document();
        if document["state"] == "Creating" && self.since.elapsed() >= options.creating {
            document["state"] = json!("Running");
        }
        document["state"].as_str().unwrap_or_default().to_owned()
    }

    /// Refuses what needs a running sandbox; nothing is resumed by itself.
    pub(super) fn running(&self, options: &Options) -> Result<(), Reply> {
        match self.state(options).as_str() {
            "Running" => Ok(()),
            _ => Err(not_running()),
        }
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

/// What `str::floor_char_boundary` will be once it is in every supported Rust.
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
