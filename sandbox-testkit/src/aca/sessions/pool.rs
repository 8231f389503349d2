//! Pools and their sessions: allocation by identifier, capacity, cooldown.
//!
//! A session that expired must never be found again: the next call gets a new and empty one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use sandbox_core::Sandbox;
use serde_json::{Value, json};

use super::kernel::Kernel;
use super::reply::{error, full};
use crate::aca::clock::{Clock, rfc3339};
use crate::aca::container::{Job, Run};
use crate::aca::reply::Reply;
use crate::aca::state::State;

/// Kind of a pool's sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolKind {
    /// Python code with the state of its kernel.
    PythonLts,
    /// Commands of a shell.
    Shell,
    /// Custom containers, each behind its port.
    CustomContainer,
}

/// A session pool.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SessionPool {
    /// The last part of its path; a name without a slash fits in every resource group.
    pub name: String,
    /// Kind of the sessions.
    pub kind: PoolKind,
    /// Maximum of sessions at once. Default: 600.
    pub max_sessions: usize,
    /// After this time without a call a session is deleted. Default: 300 seconds.
    pub cooldown: Duration,
    /// Whether its sessions reach the network, if the emulator allows it. Default: no.
    pub egress: bool,
    /// The container of each session (`customContainerTemplate` of the resource), of a pool of
    /// custom ones.
    pub template: Value,
    /// Secrets that the container's environment refers to.
    pub secrets: Value,
}

impl SessionPool {
    /// A pool with this name and the service's defaults.
    pub fn new(name: impl Into<String>, kind: PoolKind) -> Self {
        Self {
            name: name.into(),
            kind,
            max_sessions: 600,
            cooldown: Duration::from_secs(300),
            egress: false,
            template: Value::Null,
            secrets: Value::Null,
        }
    }

    /// The port that requests to a session go to.
    pub(super) fn port(&self) -> u16 {
        let port = self.template["ingress"]["targetPort"].as_u64();
        port.and_then(|port| u16::try_from(port).ok()).unwrap_or(80)
    }
}

/// A session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) identifier: String,
    pub(super) local: Arc<dyn Sandbox>,
    /// Container of the session, in a pool of custom ones.
    pub(super) run: Option<Arc<Run>>,
    /// Held while a piece of Python code runs.
    pub(super) kernel: tokio::sync::Mutex<Option<Kernel>>,
    /// Executions by their operation.
    pub(super) executions: Mutex<BTreeMap<String, Value>>,
    created: SystemTime,
    touched: Mutex<Duration>,
    busy: AtomicUsize,
}

impl Session {
    /// Ends what runs in it.
    async fn end(&self) -> bool {
        if let Some(run) = &self.run {
            run.stop().await;
        }
        self.local.close().await.is_ok()
    }

    fn touched(&self) -> MutexGuard<'_, Duration> {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn executions(&self) -> MutexGuard<'_, BTreeMap<String, Value>> {
        self.executions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session that is in use, and does not expire meanwhile.
#[derive(Debug)]
pub(super) struct InUse {
    pub(super) session: Arc<Session>,
    /// Whether it was made for this call.
    pub(super) fresh: bool,
    clock: Arc<Clock>,
}

impl Drop for InUse {
    fn drop(&mut self) {
        *self.session.touched() = self.clock.now();
        self.session.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

type Key = (String, String);

/// Every pool and every session.
#[derive(Debug)]
pub(in crate::aca) struct Sessions {
    pools: Mutex<BTreeMap<String, SessionPool>>,
    sessions: tokio::sync::Mutex<BTreeMap<Key, Arc<Session>>>,
    clock: Arc<Clock>,
}

impl Sessions {
    pub(in crate::aca) fn new(clock: Arc<Clock>) -> Self {
        Self {
            pools: Mutex::default(),
            sessions: tokio::sync::Mutex::default(),
            clock,
        }
    }

    /// Adds a pool, or replaces what is known of it. Its name is a whole path or a last part.
    pub(in crate::aca) fn put_pool(&self, pool: SessionPool) {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.insert(pool.name.to_lowercase(), pool);
    }

    /// The pool of a path.
    pub(super) fn pool(&self, path: &str) -> Option<SessionPool> {
        let path = path.to_lowercase();
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let last = path.rsplit('/').next().unwrap_or_default();
        pools.get(&path).or_else(|| pools.get(last)).cloned()
    }

    /// Takes a pool away; its sessions end when they expire.
    pub(in crate::aca) fn remove_pool(&self, path: &str) {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.remove(&path.to_lowercase());
    }

    /// Ends every session.
    pub(in crate::aca) async fn close(&self) {
        let sessions = std::mem::take(&mut *self.sessions.lock().await);
        for session in sessions.into_values() {
            // What does not end now is collected by the next start.
            session.end().await;
        }
    }

    /// The identifiers of all sessions.
    pub(in crate::aca) async fn identifiers(&self) -> Vec<String> {
        let sessions = self.sessions.lock().await;
        sessions.keys().map(|(_, name)| name.clone()).collect()
    }

    /// Ends what expired.
    async fn expire(&self, sessions: &mut BTreeMap<Key, Arc<Session>>) {
        let now = self.clock.now();
        let gone: Vec<Key> = sessions
            .iter()
            .filter(|((path, _), session)| {
                let cooldown = self.pool(path).map_or(Duration::ZERO, |pool| pool.cooldown);
                session.busy.load(Ordering::Acquire) == 0
                    && now.saturating_sub(*session.touched()) >= cooldown
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            if let Some(session) = sessions.remove(&key) {
                // What can't be closed ends with the emulator.
                session.end().await;
            }
        }
    }

    /// The session of an identifier, made if there is none.
    pub(super) async fn allocate(
        &self,
        state: &Arc<State>,
        path: &str,
        pool: &SessionPool,
        identifier: &str,
    ) -> Result<InUse, Reply> {
        let mut sessions = self.sessions.lock().await;
        self.expire(&mut sessions).await;
        let key = (path.to_lowercase(), identifier.to_owned());
        let (session, fresh) = match sessions.get(&key) {
            Some(session) => (Arc::clone(session), false),
            None => {
                let taken = sessions.keys().filter(|(of, _)| *of == key.0).count();
                if taken >= pool.max_sessions {
                    return Err(full(state.options().full_as, pool.max_sessions));
                }
                let session = Arc::new(self.make(state, pool, identifier).await?);
                sessions.insert(key, Arc::clone(&session));
                (session, true)
            }
        };
        session.busy.fetch_add(1, Ordering::AcqRel);
        *session.touched() = self.clock.now();
        Ok(InUse {
            session,
            fresh,
            clock: Arc::clone(&self.clock),
        })
    }

    async fn make(
        &self,
        state: &Arc<State>,
        pool: &SessionPool,
        identifier: &str,
    ) -> Result<Session, Reply> {
        let failed = |e: sandbox_core::Error| error(500, "InternalServerError", &e.to_string());
        if pool.kind == PoolKind::CustomContainer {
            let (run, local) = contained(state, pool).await?;
            return Ok(self.session(identifier, local, Some(run)));
        }
        let local = state.local(pool.egress, Vec::new()).await.map_err(failed)?;
        let dir = sandbox_core::GuestPath::from("/mnt/data");
        local
            .create_dir(&dir, Default::default())
            .await
            .map_err(failed)?;
        local.set_workdir(&dir).await.map_err(failed)?;
        Ok(self.session(identifier, local, None))
    }

    fn session(&self, identifier: &str, local: Arc<dyn Sandbox>, run: Option<Arc<Run>>) -> Session {
        Session {
            identifier: identifier.to_owned(),
            local,
            run,
            kernel: tokio::sync::Mutex::new(None),
            executions: Mutex::default(),
            created: self.clock.date(),
            touched: Mutex::new(self.clock.now()),
            busy: AtomicUsize::new(0),
        }
    }

    /// Shows a session.
    pub(super) async fn show(&self, path: &str, identifier: &str) -> Option<Value> {
        let mut sessions = self.sessions.lock().await;
        self.expire(&mut sessions).await;
        let session = sessions.get(&(path.to_lowercase(), identifier.to_owned()))?;
        Some(self.shown(path, session))
    }

    /// Shows every session of a pool.
    pub(super) async fn list(&self, path: &str) -> Vec<Value> {
        let mut sessions = self.sessions.lock().await;
        self.expire(&mut sessions).await;
        let of = path.to_lowercase();
        let all = sessions.iter().filter(|((path, _), _)| *path == of);
        all.map(|(_, session)| self.shown(path, session)).collect()
    }

    fn shown(&self, path: &str, session: &Session) -> Value {
        let cooldown = self.pool(path).map_or(Duration::ZERO, |pool| pool.cooldown);
        let idle = self.clock.now().saturating_sub(*session.touched());
        let now = self.clock.date();
        let accessed = now.checked_sub(idle).unwrap_or(now);
        json!({
            "identifier": session.identifier,
            "createdAt": rfc3339(session.created),
            "lastAccessedAt": rfc3339(accessed),
            "expireAt": rfc3339(accessed + cooldown),
            "etag": format!("{:x}", Arc::as_ptr(&session.local).cast::<u8>() as usize),
        })
    }

    /// Deletes a session, in whichever pool it is if no path is given.
    pub(in crate::aca) async fn delete(&self, path: Option<&str>, identifier: &str) -> bool {
        let path = path.map(str::to_lowercase);
        let found = {
            let mut sessions = self.sessions.lock().await;
            let fits = |(of, name): &&Key| {
                name == identifier && path.as_ref().is_none_or(|path| path == of)
            };
            let key = sessions.keys().find(fits).cloned();
            key.and_then(|key| sessions.remove(&key))
        };
        match found {
            Some(session) => session.end().await,
            None => false,
        }
    }
}

/// Starts a session's container and waits until something listens at its port.
async fn contained(
    state: &Arc<State>,
    pool: &SessionPool,
) -> Result<(Arc<Run>, Arc<dyn Sandbox>), Reply> {
    let credentials = &pool.template["registryCredentials"];
    let server = credentials["server"].as_str();
    let server = server.filter(|_| credentials["identity"].is_string());
    let job = Job {
        container: pool.template["containers"][0].clone(),
        secrets: pool.secrets.clone(),
        registries: server.into_iter().map(str::to_owned).collect(),
        env: Vec::new(),
        egress: pool.egress,
        again: false,
    };
    let run = Run::start(state, job);
    let listens = run.connect(pool.port()).await.is_some();
    match run.local().filter(|_| listens) {
        Some(local) => Ok((run, local)),
        None => {
            let lines = run.lines(run.tail(3), false).await.unwrap_or_default().0;
            run.stop().await;
            let said = lines.iter().map(|line| String::from_utf8_lossy(line));
            let said = said.collect::<Vec<_>>().join("; ");
            let why = format!("the container does not listen at its port: {said}");
            Err(error(503, "SessionContainerNotReady", &why))
        }
    }
}
