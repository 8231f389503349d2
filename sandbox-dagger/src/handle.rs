//! What a sandbox is made of, and what its operations share: a query that starts at an id, a turn
//! to change something, the layers put together in time.
//!
//! Invariant: what fails or is dropped leaves the sandbox as it was.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use sandbox_core::{
    DirEntry, Env, EnvValue, Error, GuestPath, Labels, Operation, Result, SandboxId, SandboxSpec,
    Source,
};
use serde_json::Value;
use tokio::sync::watch;

use crate::chain::{Chain, Head, SQUASH_AT, Turn};
use crate::client::{Failed, SMALL_ANSWER};
use crate::connect::Session;
use crate::exec::SecretIds;
use crate::files;
use crate::frame::Frame;
use crate::guest::Script;
use crate::provider::Shared;
use crate::query::{self, find};
use crate::stage::Stage;

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The timeout of commands where neither they nor the spec name one.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(600);

/// One sandbox. Handles are `Arc`s of it.
#[derive(Debug)]
pub(crate) struct DaggerSandbox {
    pub(crate) id: SandboxId,
    pub(crate) parent: Option<SandboxId>,
    pub(crate) labels: Labels,
    pub(crate) created: SystemTime,
    pub(crate) shared: Arc<Shared>,
    pub(crate) session: Arc<Session>,
    pub(crate) chain: Chain,
    pub(crate) settings: RwLock<Settings>,
    pub(crate) command_timeout: Duration,
    pub(crate) closed: watch::Sender<bool>,
}

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) workdir: GuestPath,
    pub(crate) env: BTreeMap<Vec<u8>, EnvValue>,
    pub(crate) secrets: SecretIds,
}

/// Why no sandbox was created, and whether another session may help.
pub(crate) struct NotCreated {
    pub(crate) error: Error,
    pub(crate) reconnect: bool,
}

impl From<Error> for NotCreated {
    fn from(error: Error) -> Self {
        Self {
            error,
            reconnect: false,
        }
    }
}

impl From<Failed> for NotCreated {
    fn from(failed: Failed) -> Self {
        // A CLI outlives its engine and answers 502 ever after. What a create did before the
        // connection broke is a container that nobody names: it may be done again.
        let reconnect = matches!(
            failed,
            Failed::NotSent(_) | Failed::Stale(_) | Failed::Broken(_) | Failed::Status(..)
        );
        Self {
            error: failed.error(Operation::Create),
            reconnect,
        }
    }
}

/// A name that nobody else has: sixteen hexadecimal digits.
pub(crate) fn nonce() -> String {
    use std::hash::{BuildHasher as _, RandomState};
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    static KEYS: std::sync::OnceLock<RandomState> = std::sync::OnceLock::new();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // The keys of a hasher are the randomness that the standard library gives out.
    let random = KEYS
        .get_or_init(RandomState::new)
        .hash_one((count, std::process::id()));
    format!("{random:016x}{count:x}")
}

impl DaggerSandbox {
    pub(crate) async fn create(
        shared: &Arc<Shared>,
        session: &Arc<Session>,
        spec: &SandboxSpec,
    ) -> std::result::Result<Arc<Self>, NotCreated> {
        const OP: Operation = Operation::Create;
        let image = match &spec.source {
            Source::Image(image) => image,
            _ => &shared.config.image,
        };
        let workdir = spec.workdir.clone().unwrap_or_else(|| "/workspace".into());
        let workdir = workdir.resolve(&GuestPath::root(), OP)?;
        let nonce = nonce();
        let script = Script::new(&nonce).set("p", workdir.as_bytes()).files(
            "parents=yes mode=755; [ -d \"$p\" ] || mkdir -p -- \"$p\" || fail denied\n\
             begin; base64 </proc/self/environ; echo .; finish",
        );
        let below = query::run(&script, &nonce, "id stdout");
        let query = format!(
            "query {{ container {{ from(address: {}) {{ {below} }} }} }}",
            query::string(image)
        );
        let within = shared.config.operation_timeout;
        let answer = session.client.query(&query, SMALL_ANSWER, within).await?;
        let (Some(id), Some(stdout)) = (find(&answer, "id"), find(&answer, "stdout")) else {
            return Err(Failed::Garbage("no id".into()).into());
        };
        let mut frame = files::open(stdout, &nonce, OP, &workdir)?;
        let environment = frame
            .bytes()
            .map_err(|problem| files::broken(problem, OP))?;
        let mut settings = Settings {
            workdir,
            env: image_environment(&environment),
            secrets: BTreeMap::new(),
        };
        spec.env.apply_to(&mut settings.env);
        settings.secrets = keep_secrets(session, &spec.env, within).await?;
        let sandbox = Arc::new(Self {
            id: SandboxId::new(&nonce[..16]),
            parent: None,
            labels: spec.labels.clone(),
            created: SystemTime::now(),
            shared: shared.clone(),
            session: session.clone(),
            chain: Chain::new(Head {
                id: id.to_owned(),
                layers: 64,
            }),
            settings: RwLock::new(settings),
            command_timeout: spec.command_timeout.unwrap_or(COMMAND_TIMEOUT),
            closed: watch::Sender::new(false),
        });
        shared.enter(sandbox.id.clone(), &sandbox);
        Ok(sandbox)
    }

    pub(crate) fn settings(&self) -> Settings {
        // Settings are replaced whole: a panic elsewhere leaves them valid.
        self.settings
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Settings)) {
        change(
            &mut self
                .settings
                .write()
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    pub(crate) fn tell(&self, error: Error) -> Error {
        error.with_sandbox(self.id.clone())
    }

    pub(crate) fn resolve(&self, path: &GuestPath, operation: Operation) -> Result<GuestPath> {
        self.check_open(operation)?;
        path.resolve(&self.settings().workdir, operation)
            .map_err(|error| self.tell(error))
    }

    pub(crate) fn check_open(&self, operation: Operation) -> Result<()> {
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
        let mut closed = self.closed.subscribe();
        tokio::select! {
            biased;
            _ = closed.wait_for(|closed| *closed) => Err(Error::closed(operation, &self.id)),
            answer = self.session.client.query(query, largest, within) => {
                answer.map_err(|failed| self.tell(failed.error(operation)))
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
            _ => Err(self.tell(Failed::Garbage("no id".into()).error(operation))),
        }
    }

    /// Asks the guest something; its files stay as they are.
    pub(crate) async fn look(
        &self,
        script: impl FnOnce(Script) -> String + Send,
        operation: Operation,
        path: &GuestPath,
        largest: u64,
    ) -> Result<(String, String)> {
        let nonce = nonce();
        let script = script(Script::new(&nonce).set("p", path.as_bytes()));
        let below = query::run(&script, &nonce, "stdout");
        let query = query::on_container(&self.chain.head().id, &below);
        let answer = self
            .ask(&query, operation, largest, self.patience())
            .await?;
        let stdout = find(&answer, "stdout").unwrap_or("").to_owned();
        Ok((stdout, nonce))
    }

    /// Waits for the turn, and puts the layers together before there are too many.
    pub(crate) async fn turn(&self, operation: Operation) -> Result<Turn<'_>> {
        let turn = self.chain.turn().await;
        self.check_open(operation)?;
        let head = turn.head();
        if head.layers < SQUASH_AT {
            return Ok(turn);
        }
        let within = self.patience();
        let step = |query: String| async move {
            let answer = self.ask(&query, operation, SMALL_ANSWER, within).await?;
            let id = find(&answer, "id").map(str::to_owned);
            id.ok_or_else(|| self.tell(Failed::Garbage("no id".into()).error(operation)))
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

    /// Has the guest change something by a script.
    pub(crate) async fn alter(
        &self,
        script: impl FnOnce(Script) -> String + Send,
        operation: Operation,
        path: &GuestPath,
    ) -> Result<()> {
        let turn = self.turn(operation).await?;
        let nonce = nonce();
        let script = script(Script::new(&nonce).set("p", path.as_bytes()));
        let below = query::run(&script, &nonce, "id stdout");
        let query = query::on_container(&turn.head().id, &below);
        let answer = self
            .ask(&query, operation, SMALL_ANSWER, self.patience())
            .await?;
        let (id, stdout) = self.answer(&answer, operation)?;
        files::open(stdout, &nonce, operation, path).map_err(|error| self.tell(error))?;
        turn.advance(id, 1);
        Ok(())
    }

    /// Has the guest change something by a script that was staged with its data.
    pub(crate) async fn alter_staged(
        &self,
        stage: &Stage,
        nonce: &str,
        operation: Operation,
        path: &GuestPath,
    ) -> Result<()> {
        let turn = self.turn(operation).await?;
        let host = query::host_directory(&stage.path().to_string_lossy());
        let answer = self
            .ask(&host, operation, SMALL_ANSWER, self.patience())
            .await?;
        let directory = find(&answer, "id").unwrap_or("").to_owned();
        let below = query::run_staged(&directory, nonce, query::UNSTAGE);
        let query = query::on_container(&turn.head().id, &below);
        let answer = self
            .ask(&query, operation, SMALL_ANSWER, self.patience())
            .await?;
        let (id, stdout) = self.answer(&answer, operation)?;
        files::open(stdout, nonce, operation, path).map_err(|error| self.tell(error))?;
        turn.advance(id, 1);
        Ok(())
    }

    pub(crate) fn entries(
        &self,
        frame: &mut Frame<'_>,
        operation: Operation,
    ) -> Result<Vec<DirEntry>> {
        files::entries(frame).map_err(|problem| self.tell(files::broken(problem, operation)))
    }
}

/// The image's environment, without what the engine adds.
fn image_environment(environ: &[u8]) -> BTreeMap<Vec<u8>, EnvValue> {
    let mut env = BTreeMap::new();
    let base = Env::new()
        .set("PATH", PATH)
        .set("HOME", "/root")
        .set("LANG", "C.UTF-8");
    base.apply_to(&mut env);
    for entry in environ.split(|byte| *byte == 0) {
        let Some(equals) = entry.iter().position(|byte| *byte == b'=') else {
            continue;
        };
        let (name, value) = (&entry[..equals], &entry[equals + 1..]);
        let foreign = [
            &b"DAGGER"[..],
            b"_DAGGER",
            b"_EXPERIMENTAL",
            b"OTEL_",
            b"TRACEPARENT",
        ];
        let shell = [&b"PWD"[..], b"OLDPWD", b"SHLVL", b"_", b"LC_ALL"];
        if !foreign.iter().any(|prefix| name.starts_with(prefix)) && !shell.contains(&name) {
            Env::new().set(name, value).apply_to(&mut env);
        }
    }
    env
}

/// Gives the confidential values to the engine's secret store; their ids by name.
///
/// The engine replaces a secret's text by `***` wherever a command's output shows it, however short
/// it is: the secret "1" would spoil the supervisor's answer. So each is kept behind a name that no
/// output has, up to the first colon.
pub(crate) async fn keep_secrets(
    session: &Session,
    env: &Env,
    within: Duration,
) -> std::result::Result<SecretIds, Failed> {
    let mut ids = SecretIds::new();
    for (name, value) in env.iter() {
        let Some(value) = value.filter(|value| value.is_secret) else {
            continue;
        };
        // The store takes text only; other bytes travel as the rest of the environment does.
        let Ok(text) = std::str::from_utf8(value.value.expose()) else {
            continue;
        };
        let query = format!(
            "query {{ setSecret(name: \"{}\", plaintext: {}) {{ id }} }}",
            nonce(),
            query::string(&format!("{}:{text}", nonce()))
        );
        let answer = session.client.query(&query, SMALL_ANSWER, within).await?;
        let id = find(&answer, "id").ok_or_else(|| Failed::Garbage("no id".into()))?;
        ids.insert(name.to_vec(), id.to_owned());
    }
    Ok(ids)
}
