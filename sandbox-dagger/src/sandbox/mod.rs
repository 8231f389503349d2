//! The sandbox, and the parts that its operations share: a query that starts at an id, a turn
//! to change something, the layers put together in time.
//!
//! Invariant: what fails or is dropped leaves the sandbox as it was.

pub(crate) mod batch;
pub(crate) mod capability;
pub(crate) mod chain;
mod control;
mod direct;
pub(crate) mod exec;
pub(crate) mod files;
mod live;
mod operations;
mod process;
mod put;
mod run;
pub(crate) mod settings;
pub(crate) mod shared;
pub(crate) mod snapshot;
mod spawn;
pub(crate) mod transfer;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use sandbox_core::backend::Registry;
use sandbox_core::{DirEntry, Error, ErrorKind, GuestPath, Labels, Operation, Result, SandboxId};
use serde_json::Value;
use tokio::sync::watch;

use self::chain::{Chain, SQUASH_AT, Spawned, Turn};
use self::shared::Shared;
use crate::guest::Script;
use crate::guest::frame::Frame;
use crate::guest::stage::Stage;
use crate::sandbox::settings::DaggerSettings;
use crate::session::client::{SMALL_ANSWER, Trace, runtime};
use crate::session::connect::Session;
use crate::session::failure::Failed;
use crate::session::nonce::nonce;
use crate::session::query::owner;
use crate::session::query::{self, find};

/// One sandbox. Handles are `Arc`s of it.
#[derive(Debug)]
pub(crate) struct DaggerSandbox {
    pub(crate) id: SandboxId,
    pub(crate) parent: Option<SandboxId>,
    pub(crate) labels: Labels,
    pub(crate) created: SystemTime,
    pub(crate) shared: Arc<Shared>,
    /// The open sandboxes of the provider, this one among them.
    pub(crate) open: Arc<Registry<Self>>,
    pub(crate) session: Arc<Session>,
    /// The user of the container; empty for the image's root.
    pub(crate) user: String,
    pub(crate) chain: Chain,
    pub(crate) settings: RwLock<DaggerSettings>,
    pub(crate) command_timeout: Duration,
    pub(crate) closed: watch::Sender<bool>,
}

impl DaggerSandbox {
    pub(crate) fn settings(&self) -> DaggerSettings {
        // Settings are replaced whole: a panic elsewhere leaves them valid.
        self.settings
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut DaggerSettings)) {
        change(
            &mut self
                .settings
                .write()
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    pub(crate) fn named(&self, error: Error) -> Error {
        error.with_sandbox(self.id.clone())
    }

    pub(crate) fn resolve(&self, path: &GuestPath, operation: Operation) -> Result<GuestPath> {
        self.check_open(operation)?;
        let settings = self.settings().common;
        settings
            .resolve(path, operation)
            .map_err(|error| self.named(error))
    }

    pub(crate) fn check_open(&self, operation: Operation) -> Result<()> {
        runtime(operation)?;
        match *self.closed.borrow() {
            true => Err(Error::closed(operation, &self.id)),
            false => Ok(()),
        }
    }

    /// A query that `close` ends.
    pub(crate) async fn ask(
        &self,
        query: &str,
        operation: Operation,
        largest: u64,
        within: Duration,
    ) -> Result<Value> {
        self.ask_traced(query, None, operation, largest, within)
            .await
    }

    /// The same, under a name with which the engine shows what its commands write.
    pub(crate) async fn ask_traced(
        &self,
        query: &str,
        trace: Option<&Trace>,
        operation: Operation,
        largest: u64,
        within: Duration,
    ) -> Result<Value> {
        let mut closed = self.closed.subscribe();
        tokio::select! {
            biased;
            _ = closed.wait_for(|closed| *closed) => Err(Error::closed(operation, &self.id)),
            answer = self.session.query_traced(query, trace, largest, within) => {
                answer.map_err(|failed| self.named(failed.error(operation)))
            }
        }
    }

    pub(crate) fn patience(&self) -> Duration {
        self.shared.config.operation_timeout
    }

    pub(crate) fn answer<'a>(
        &self,
        answer: &'a Value,
        operation: Operation,
    ) -> Result<(&'a str, &'a str)> {
        match (find(answer, "id"), find(answer, "stdout")) {
            (Some(id), Some(stdout)) => Ok((id, stdout)),
            _ => Err(self.named(Failed::Garbage("no id".into()).error(operation))),
        }
    }

    /// Asks the guest something; its files stay as they are.
    pub(crate) async fn query(
        &self,
        script: impl FnOnce(Script) -> String + Send,
        operation: Operation,
        path: &GuestPath,
        largest: u64,
    ) -> Result<(String, String)> {
        let nonce = nonce();
        let script = script(Script::new(&nonce).set("path", path.as_bytes()));
        let below = query::run(&script, &nonce, "stdout");
        let query = query::on_container(&self.chain.head().id, &below);
        let answer = self
            .ask(&query, operation, largest, self.patience())
            .await?;
        let stdout = find(&answer, "stdout").unwrap_or("").to_owned();
        Ok((stdout, nonce))
    }

    /// Waits for the turn, and puts the layers together before there are too many.
    pub(crate) async fn turn(&self, operation: Operation) -> Result<Turn> {
        let turn = self.chain.turn().await.map_err(|Spawned| {
            let why = "a process that was spawned runs in this sandbox: what it writes becomes the \
                       sandbox's when it ends";
            self.named(Error::new(ErrorKind::Busy, operation))
                .with_message(why)
                .with_hint("wait for the process or kill it; a fork made now can be used meanwhile")
        })?;
        self.check_open(operation)?;
        let head = turn.head();
        if head.layers < SQUASH_AT {
            return Ok(turn);
        }
        let within = self.patience();
        let step = |query: String| async move {
            let answer = self.ask(&query, operation, SMALL_ANSWER, within).await?;
            let id = find(&answer, "id").map(str::to_owned);
            id.ok_or_else(|| self.named(Failed::Garbage("no id".into()).error(operation)))
        };
        let root = step(query::on_container(&head.id, "rootfs { id }")).await?;
        let root = query::string(&root);
        let flat = format!(
            "query {{ directory {{ withDirectory(path: \"/\", source: {root}) {{ id }} }} }}"
        );
        let flat = query::string(&step(flat).await?);
        let below = format!("withRootfs(directory: {flat}) {{ id }}");
        let id = step(query::on_container(&head.id, &below)).await?;
        turn.squashed(&id);
        Ok(turn)
    }

    /// Runs a script in the guest that changes something.
    pub(crate) async fn mutate(
        &self,
        script: impl FnOnce(Script) -> String + Send,
        operation: Operation,
        path: &GuestPath,
    ) -> Result<()> {
        let turn = self.turn(operation).await?;
        let nonce = nonce();
        let script = script(Script::new(&nonce).set("path", path.as_bytes()));
        let below = query::run(&script, &nonce, "id stdout");
        let query = query::on_container(&turn.head().id, &below);
        let answer = self
            .ask(&query, operation, SMALL_ANSWER, self.patience())
            .await?;
        let (id, stdout) = self.answer(&answer, operation)?;
        files::open(stdout, &nonce, operation, path).map_err(|error| self.named(error))?;
        turn.advance(id, 1);
        Ok(())
    }

    /// Runs a script in the guest that was staged with its data and changes something.
    pub(crate) async fn mutate_staged(
        &self,
        stage: &Stage,
        nonce: &str,
        operation: Operation,
        path: &GuestPath,
    ) -> Result<()> {
        let turn = self.turn(operation).await?;
        self.session.hand_over(stage.size());
        let host = query::host_directory(&stage.path().to_string_lossy());
        let answer = self
            .ask(&host, operation, SMALL_ANSWER, self.patience())
            .await?;
        let directory = find(&answer, "id").unwrap_or("").to_owned();
        let below = query::run_staged(&directory, &owner(&self.user), nonce, query::UNSTAGE);
        let query = query::on_container(&turn.head().id, &below);
        let answer = self
            .ask(&query, operation, SMALL_ANSWER, self.patience())
            .await?;
        let (id, stdout) = self.answer(&answer, operation)?;
        files::open(stdout, nonce, operation, path).map_err(|error| self.named(error))?;
        turn.advance(id, 1);
        Ok(())
    }

    pub(crate) fn entries(
        &self,
        frame: &mut Frame<'_>,
        operation: Operation,
    ) -> Result<Vec<DirEntry>> {
        files::entries(frame).map_err(|problem| self.named(files::broken(problem, operation)))
    }
}
