//! Parts that a provider and its sandboxes share: the sessions that were made here and not closed,
//! how they begin, and how they are found again.
//!
//! They are found also when their last handle was dropped, by their secret identifier, which is why
//! [`sandbox_core::backend::Registry`] does not do.
//!
//! It must never leave a session behind whose creation was given up, and never show an identifier.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use sandbox_core::{
    Error, ErrorKind, GuestPath, Labels, Operation, Result, SandboxId, SandboxInfo,
};

use super::client::{Pool, Session};
use super::config::AcaSessionConfig;
use super::identifier::Identifier;
use super::transport::beginning;
use crate::guest::handle::{Guest, State, Variables};
use crate::guest::script::Script;
use crate::guest::transport::Transport as _;
use crate::http::runtime;

pub(super) const BACKEND: &str = "aca-sessions";
pub(super) const WORKDIR: &str = "/workspace";

/// A sandbox that was made here and not closed.
#[derive(Debug)]
struct Known {
    identifier: Identifier,
    info: SandboxInfo,
    handle: Weak<Guest<Session>>,
}

/// Parts that a provider and its sandboxes share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(super) pool: Arc<Pool>,
    pub(super) config: AcaSessionConfig,
    known: Mutex<BTreeMap<String, Known>>,
}

impl Shared {
    pub(super) fn new(pool: Arc<Pool>, config: AcaSessionConfig) -> Self {
        Self {
            pool,
            config,
            known: Mutex::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes a sandbox and forgets it.
    pub(super) async fn close(self: &Arc<Self>, guest: &Arc<Guest<Session>>) -> Result<()> {
        let (shared, id) = (Arc::clone(self), guest.id.clone());
        let forget = move || drop(shared.known().remove(id.as_str()));
        guest.close(forget).await
    }

    /// The sandboxes that have these labels, the oldest first.
    pub(super) fn list(&self, labels: &Labels) -> Vec<SandboxInfo> {
        let known = self.known();
        let fits = |info: &SandboxInfo| {
            let mut wanted = labels.iter();
            wanted.all(|(key, value)| info.labels.get(key) == Some(value))
        };
        let all = known.values().map(|known| &known.info);
        let mut all: Vec<SandboxInfo> = all.filter(|info| fits(info)).cloned().collect();
        all.sort_by_key(|info| info.created);
        all
    }

    /// A new sandbox. Runs to its end even if the caller has gone; then the session is deleted.
    pub(super) async fn make(
        self: &Arc<Self>,
        op: Operation,
        info: SandboxInfo,
        env: Variables,
    ) -> Result<Arc<Guest<Session>>> {
        runtime(op)?;
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            let made = Arc::clone(&shared).begin(op, info, env).await;
            if let Err(Ok(unwanted)) = sender.send(made) {
                drop(shared.close(&unwanted).await);
            }
        });
        receiver.await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Other, op)
                .with_message("the task that creates the sandbox ended early"))
        })
    }

    async fn begin(
        self: Arc<Self>,
        op: Operation,
        mut info: SandboxInfo,
        env: Variables,
    ) -> Result<Arc<Guest<Session>>> {
        let identifier = Identifier::random();
        info.id = identifier.public();
        let session = Session::new(Arc::clone(&self.pool), identifier.clone());
        let made = self.handle(session, info, env);
        let begun = Self::workdir(op, &made).await;
        if let Err(error) = begun {
            // What may have been allocated is not left behind; the first error is the one to tell.
            let _ = self.close(&made).await;
            return Err(error);
        }
        made.transport.begun.store(true, Ordering::Release);
        made.keep(self.config.keep_alive);
        Ok(made)
    }

    /// The first line: the marker and the workdir.
    async fn workdir(op: Operation, guest: &Guest<Session>) -> Result<()> {
        let workdir = guest.workdir();
        let (dir, _) = crate::guest::handle::fresh(Session::STAGING);
        let script = Script::default().text(&beginning());
        let script = script
            .text(crate::guest::script::COMMON)
            .text(crate::guest::script::FILES);
        let script = script
            .text("make_workdir")
            .word(workdir.as_bytes())
            .text("\n");
        let minutes = Duration::from_secs(120);
        let said = guest.run(op, &script, &dir, true, minutes).await;
        let said = said.map_err(|failure| guest.named(failure.error))?;
        guest.verdict(op, &said, &[&workdir])
    }

    fn handle(
        self: &Arc<Self>,
        session: Session,
        info: SandboxInfo,
        env: Variables,
    ) -> Arc<Guest<Session>> {
        let identifier = session.identifier.clone();
        let id = info.id.clone();
        let known = info.clone();
        let (session, state) = (Arc::new(session), State::new(info, env));
        let made = Arc::new(Guest::new(session, state, self.config.output_grace));
        let known = Known {
            identifier,
            info: known,
            handle: Arc::downgrade(&made),
        };
        self.known().insert(id.as_str().to_owned(), known);
        made
    }

    /// A handle to a session that was made here, or that the service knows.
    pub(super) async fn find(
        self: &Arc<Self>,
        op: Operation,
        id: &SandboxId,
    ) -> Result<Arc<Guest<Session>>> {
        let known = {
            let known = self.known();
            known.get(id.as_str()).map(|known| {
                let handle = known.handle.upgrade();
                (handle, known.identifier.clone(), known.info.clone())
            })
        };
        let (identifier, info, foreign) = match known {
            Some((Some(handle), ..)) => return Ok(handle),
            Some((None, identifier, info)) => (identifier, info, false),
            None => {
                let all = self.pool.identifiers(op).await;
                let all = all.map_err(|failure| failure.error)?;
                let found = all.into_iter().find(|one| one.public() == *id);
                let found = found.ok_or_else(|| missing(op, id))?;
                let info = SandboxInfo::new(id.clone(), BACKEND, GuestPath::from(WORKDIR));
                (found, info, true)
            }
        };
        let session = Session::new(Arc::clone(&self.pool), identifier);
        // From now on a session that the service makes anew is a loss, and is not left behind.
        session.begun.store(true, Ordering::Release);
        if foreign {
            let ours = session.is_ours(op).await.map_err(|failure| failure.error)?;
            if !ours {
                let hint = "another program's session has this identifier; it was not changed";
                return Err(missing(op, id).with_hint(hint));
            }
        }
        let found = self.handle(session, info, Variables::new());
        found.keep(self.config.keep_alive);
        Ok(found)
    }
}

pub(super) fn missing(op: Operation, id: &SandboxId) -> Error {
    Error::new(ErrorKind::NotFound, op)
        .with_message("the pool has no such session")
        .with_sandbox(id.clone())
}
