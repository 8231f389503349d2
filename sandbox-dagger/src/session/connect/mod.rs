//! Opening a session: one that is given, that of the environment, or that of a CLI.
//!
//! Invariant: a broken setting is an error, never a reason to try the next way.

mod cli;
mod sdk;
mod version;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use sandbox_core::{Error, ErrorKind, Operation};
use serde_json::Value;

use crate::config::DaggerConfig;
use crate::session::client::{self, Client, SMALL_ANSWER, Trace};
use crate::session::failure::Failed;
use crate::session::logs::Logs;
use crate::session::prepared::Prepared;
use crate::session::query::find;

/// A connection to an engine; the CLI that serves it, if there is one, ends with it.
///
/// What was made in a session is kept by the engine until the session ends.
#[derive(Debug)]
pub(crate) struct Session {
    client: Client,
    cli: Option<cli::Cli>,
    /// Whether the engine has said that it does not know this session any more.
    lost: AtomicBool,
    /// Number of sandboxes created in the session.
    sandboxes: AtomicU32,
    /// Number of bytes handed to the engine, or written by commands, in the session.
    bytes: AtomicU64,
    /// Containers that its sandboxes began with.
    pub(crate) prepared: Prepared,
    /// Number of the last record of what commands wrote that was seen.
    seen: AtomicU64,
}

fn invalid(why: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, Operation::Connect).with_message(why)
}

impl Session {
    fn new(client: Client, cli: Option<cli::Cli>) -> Self {
        Self {
            client,
            cli,
            lost: AtomicBool::new(false),
            sandboxes: AtomicU32::new(0),
            bytes: AtomicU64::new(0),
            prepared: Prepared::default(),
            seen: AtomicU64::new(0),
        }
    }

    /// Sends a query and gives the answer's data. In a session that the engine has lost nothing is
    /// sent: the engine would let every query wait for a client that never comes.
    ///
    /// Dropping the future closes the connection, upon which the engine cancels the query.
    pub(crate) async fn query(
        &self,
        query: &str,
        largest: u64,
        within: Duration,
    ) -> Result<Value, Failed> {
        self.query_traced(query, None, largest, within).await
    }

    /// A query under whose name the engine shows what its commands write.
    pub(crate) async fn query_traced(
        &self,
        query: &str,
        trace: Option<&Trace>,
        largest: u64,
        within: Duration,
    ) -> Result<Value, Failed> {
        if self.is_lost() {
            return Err(Failed::SessionLost);
        }
        self.hand_over(query.len() as u64);
        let answer = self.client.query(query, trace, largest, within).await;
        match &answer {
            Err(Failed::Stale(_)) => self.lost.store(true, Ordering::Relaxed),
            Err(Failed::NotBegun(_) | Failed::Ending(_)) => self.let_go(),
            _ => {}
        }
        answer
    }

    /// Lets an engine go that is being stopped and will not answer this session again: it waits for the
    /// CLI. A session that was given is its owner's to end.
    fn let_go(&self) {
        if let Some(cli) = &self.cli {
            self.lost.store(true, Ordering::Relaxed);
            cli.let_go();
        }
    }

    /// Stream of what commands write, from the records after this one on.
    pub(crate) async fn logs(&self, since: u64, within: Duration) -> Result<Logs, Failed> {
        match self.is_lost() {
            true => Err(Failed::SessionLost),
            false => self.client.logs(since, within).await,
        }
    }

    /// Number of the last record that was seen by any reader: what is written later comes later.
    pub(crate) fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    /// Notes that the records up to this one were seen.
    pub(crate) fn saw(&self, record: u64) {
        self.seen.fetch_max(record, Ordering::Relaxed);
    }

    /// Whether the engine has lost this session, and with it everything that was made in it.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Counts a sandbox that is created in it.
    pub(crate) fn count_sandbox(&self) {
        self.sandboxes.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts bytes that are handed to the engine, or that a command wrote.
    pub(crate) fn hand_over(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether new sandboxes belong in another session, so that the engine can free what the closed
    /// ones of this session left. A session that was given to the provider can't be replaced.
    pub(crate) fn is_used_up(&self, config: &DaggerConfig) -> bool {
        self.is_ours()
            && (self.sandboxes.load(Ordering::Relaxed) >= config.session_sandboxes
                || self.bytes.load(Ordering::Relaxed) >= config.session_bytes)
    }

    /// Whether it is served by a CLI that the provider started.
    pub(crate) fn is_ours(&self) -> bool {
        self.cli.is_some()
    }

    /// Opens a session and asks its engine's version.
    pub(crate) async fn open(config: &DaggerConfig) -> sandbox_core::Result<Self> {
        client::runtime(Operation::Connect)?;
        let session = Self::find(config).await?;
        let asked = session.client.query(
            "query { version }",
            None,
            SMALL_ANSWER,
            config.connect_timeout,
        );
        let answer = asked
            .await
            .map_err(|failed| failed.error(Operation::Connect))?;
        version::check(find(&answer, "version").unwrap_or("unknown"))?;
        Ok(session)
    }

    async fn find(config: &DaggerConfig) -> sandbox_core::Result<Self> {
        if let Some((port, token)) = &config.session {
            let token = std::str::from_utf8(token.expose());
            let token = token.map_err(|_| invalid("the session's token is not UTF-8"))?;
            return Ok(Self::new(Client::new(*port, token), None));
        }
        if let Some((port, token)) = from_environment()? {
            return Ok(Self::new(Client::new(port, &token), None));
        }
        let given = config.cli.clone();
        let named = || std::env::var_os("_EXPERIMENTAL_DAGGER_CLI_BIN").map(Into::into);
        let program = match given.or_else(named).or_else(|| cli::on_path("dagger")) {
            Some(program) => program,
            None if config.download => sdk::download().await?,
            None => {
                let why = "there is no Dagger session and no Dagger CLI";
                return Err(Error::new(ErrorKind::Unavailable, Operation::Connect)
                    .with_message(why)
                    .with_retryable(false)
                    .with_hint(format!(
                        "install the CLI {} (https://docs.dagger.io/install), name it with \
                         DaggerConfig::cli, or allow its download",
                        sdk::MADE_FOR
                    )));
            }
        };
        let (cli, port, token) = cli::Cli::start(&program, config.connect_timeout).await?;
        Ok(Self::new(Client::new(port, &token), Some(cli)))
    }

    /// Ends the CLI in bounded time.
    pub(crate) async fn stop(self) {
        if let Some(cli) = self.cli {
            cli.stop().await;
        }
    }
}

fn from_environment() -> sandbox_core::Result<Option<(u16, String)>> {
    let Some(port) = std::env::var_os("DAGGER_SESSION_PORT") else {
        return Ok(None);
    };
    let port = port.to_str().and_then(|port| port.parse().ok());
    let port = port.ok_or_else(|| invalid("DAGGER_SESSION_PORT is not a port number"))?;
    let token = std::env::var("DAGGER_SESSION_TOKEN")
        .map_err(|_| invalid("DAGGER_SESSION_PORT is set without DAGGER_SESSION_TOKEN"))?;
    Ok(Some((port, token)))
}
