//! The double's memory: what ids name, what was counted, what goes wrong next.
//!
//! Invariant: an id names one value for the life of the double; nothing is evaluated by naming it.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sandbox_local::LocalProvider;
use serde_json::{Map, Value};

use crate::local;

use super::cache::Cache;
use super::container::Container;
use super::directory::{Directory, File};
use super::eval;
use super::host::HostCache;
use super::logs::Logs;
use super::query::Field;
use super::quirks::{Fault, Quirks};
use super::registry::Registries;
use super::service::Service;
use super::stat::Stat;
use super::state::States;

/// Number of queries that are remembered.
const SEEN: usize = 100;

/// Why a query failed, as the engine would put it.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) message: String,
    /// The extensions of a failed command.
    pub(super) exec: Option<Value>,
    /// The keys of the answer that lead to the field that failed.
    pub(super) path: VecDeque<String>,
}

impl Failure {
    pub(super) fn text(message: impl std::fmt::Display) -> Self {
        Self {
            message: message.to_string(),
            exec: None,
            path: VecDeque::new(),
        }
    }

    /// The failure of a field below this key.
    pub(super) fn below(mut self, key: &str) -> Self {
        self.path.push_front(key.to_owned());
        self
    }
}

impl From<sandbox_core::Error> for Failure {
    fn from(error: sandbox_core::Error) -> Self {
        Self::text(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::text(error)
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::text(message)
    }
}

/// Node that an id names.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Query,
    Host,
    Container(Arc<Container>),
    Directory(Arc<Directory>),
    File(Arc<File>),
    Secret(Arc<SecretValue>),
    Cache(Arc<Cache>),
    Service(Arc<Service>),
    EnvVariable(Arc<(String, String)>),
    Stat(Arc<Stat>),
}

/// A secret's name and text.
#[derive(Debug)]
pub(super) struct SecretValue {
    pub(super) name: String,
    pub(super) plaintext: String,
}

/// The engine.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) provider: Arc<LocalProvider>,
    pub(super) states: States,
    pub(super) host: HostCache,
    pub(super) registry: Registries,
    /// Output of commands.
    pub(super) logs: Logs,
    quirks: Mutex<Quirks>,
    /// The tokens of its sessions so far, the current one last.
    tokens: Mutex<Vec<String>>,
    faults: Mutex<VecDeque<Fault>>,
    nodes: Mutex<HashMap<String, Node>>,
    version: Mutex<String>,
    connections: AtomicU64,
    queries: AtomicU64,
    deepest: AtomicUsize,
    seen: Mutex<VecDeque<String>>,
    executions: AtomicU64,
    unique: AtomicU64,
}

/// A lock whose data a panic elsewhere can't have left half changed.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn new_token() -> String {
    // The keys of a hasher are the randomness that the standard library gives out.
    let random = RandomState::new();
    format!("{:016x}{:016x}", random.hash_one(1), random.hash_one(2))
}

impl Engine {
    pub(super) fn new(quirks: Quirks) -> io::Result<Self> {
        let provider = local::provider().map_err(io::Error::other)?;
        Ok(Self {
            tokens: Mutex::new(vec![new_token()]),
            provider,
            states: States::default(),
            host: HostCache::default(),
            registry: Registries::default(),
            logs: Logs::default(),
            quirks: Mutex::new(quirks),
            faults: Mutex::default(),
            nodes: Mutex::default(),
            version: Mutex::new("v0.21.11".to_owned()),
            connections: AtomicU64::new(0),
            queries: AtomicU64::new(0),
            deepest: AtomicUsize::new(0),
            seen: Mutex::default(),
            executions: AtomicU64::new(0),
            unique: AtomicU64::new(0),
        })
    }

    /// The token of the current session.
    pub(super) fn token(&self) -> String {
        lock(&self.tokens).last().cloned().unwrap_or_default()
    }

    /// Whether this is the token of a session before the last restart.
    pub(super) fn is_past(&self, is: impl Fn(&str) -> bool) -> bool {
        let tokens = lock(&self.tokens);
        let past = tokens.len().saturating_sub(1);
        tokens.iter().take(past).any(|token| is(token))
    }

    /// Forgets its sessions and everything that ids name.
    pub(super) fn restart(&self) {
        self.forget();
        lock(&self.tokens).push(new_token());
    }

    /// Forgets what ids name.
    pub(super) fn forget(&self) {
        lock(&self.nodes).clear();
    }

    pub(super) fn quirks(&self) -> Quirks {
        lock(&self.quirks).clone()
    }

    pub(super) fn set_quirks(&self, change: impl FnOnce(&mut Quirks)) {
        change(&mut lock(&self.quirks));
    }

    pub(super) fn inject(&self, fault: Fault) {
        lock(&self.faults).push_back(fault);
    }

    pub(super) fn next_fault(&self) -> Option<Fault> {
        lock(&self.faults).pop_front()
    }

    pub(super) fn version(&self) -> String {
        lock(&self.version).clone()
    }

    pub(super) fn set_version(&self, version: &str) {
        version.clone_into(&mut lock(&self.version));
    }

    pub(super) fn count_connection(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Depth of the deepest query, in fields.
    pub(super) fn deepest(&self) -> usize {
        self.deepest.load(Ordering::Relaxed)
    }

    /// Counts a query, and remembers it for a while.
    pub(super) fn count_query(&self, text: &str) {
        self.queries.fetch_add(1, Ordering::Relaxed);
        let mut seen = lock(&self.seen);
        seen.truncate(SEEN - 1);
        seen.push_front(text.to_owned());
    }

    /// Number of the last queries that have this text in them.
    pub(super) fn seen(&self, text: &str) -> usize {
        let seen = lock(&self.seen);
        seen.iter().filter(|query| query.contains(text)).count()
    }

    pub(super) fn count_execution(&self) {
        self.executions.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn queries(&self) -> u64 {
        self.queries.load(Ordering::Relaxed)
    }

    pub(super) fn executions(&self) -> u64 {
        self.executions.load(Ordering::Relaxed)
    }

    /// A number that was not given out before.
    pub(super) fn unique(&self) -> u64 {
        self.unique.fetch_add(1, Ordering::Relaxed)
    }

    /// The node of this digest: the one that is known, or this new one. Equal expressions are one
    /// node, so that what one evaluates the other has.
    pub(super) fn intern(&self, id: &str, node: Node) -> Node {
        let mut nodes = lock(&self.nodes);
        nodes.entry(id.to_owned()).or_insert(node).clone()
    }

    /// Node that an id names.
    pub(super) fn node(&self, id: &str) -> Result<Node, Failure> {
        let found = lock(&self.nodes).get(id).cloned();
        found.ok_or_else(|| {
            Failure::text(format_args!("resolve result {id:?}: missing shared result"))
        })
    }

    pub(super) fn directory(&self, id: &str) -> Result<Arc<Directory>, Failure> {
        match self.node(id)? {
            Node::Directory(directory) => Ok(directory),
            _ => Err(Failure::text(format_args!("{id} is not a directory"))),
        }
    }

    pub(super) fn file(&self, id: &str) -> Result<Arc<File>, Failure> {
        match self.node(id)? {
            Node::File(file) => Ok(file),
            _ => Err(Failure::text(format_args!("{id} is not a file"))),
        }
    }

    pub(super) fn secret(&self, id: &str) -> Result<Arc<SecretValue>, Failure> {
        match self.node(id)? {
            Node::Secret(secret) => Ok(secret),
            _ => Err(Failure::text(format_args!("{id} is not a secret"))),
        }
    }

    pub(super) fn cache(&self, id: &str) -> Result<Arc<Cache>, Failure> {
        match self.node(id)? {
            Node::Cache(cache) => Ok(cache),
            _ => Err(Failure::text(format_args!("{id} is not a cache volume"))),
        }
    }

    pub(super) fn service(&self, id: &str) -> Result<Arc<Service>, Failure> {
        match self.node(id)? {
            Node::Service(service) => Ok(service),
            _ => Err(Failure::text(format_args!("{id} is not a service"))),
        }
    }

    pub(super) async fn query(self: &Arc<Self>, fields: &[Field]) -> Result<Value, Failure> {
        self.deepest.fetch_max(depth(fields), Ordering::Relaxed);
        let mut data = Map::new();
        eval::select(self, &Node::Query, fields, &mut data).await?;
        Ok(Value::Object(data))
    }
}

fn depth(fields: &[Field]) -> usize {
    let below = fields.iter().map(|field| 1 + depth(&field.below));
    below.max().unwrap_or(0)
}

/// A digest of something, as ids have it.
pub(super) fn digest(of: impl Hash) -> String {
    let mut one = std::hash::DefaultHasher::new();
    of.hash(&mut one);
    let mut two = std::hash::DefaultHasher::new();
    (1_u8, one.finish()).hash(&mut two);
    of.hash(&mut two);
    format!("{:016x}{:016x}", one.finish(), two.finish())
}
