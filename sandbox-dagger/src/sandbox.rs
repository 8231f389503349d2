//! A sandbox in an engine: the trait's methods over a chain of immutable containers.
//!
//! Invariant: each operation is one query that starts at an id; what fails or is dropped leaves the
//! sandbox as it was.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use sandbox_core::{
    Capabilities, Capability, CapturedOutput, Command, CreateDirOptions, DirEntry, Env, EnvValue,
    Error, ErrorKind, ExportOptions, FileBatch, ForkOptions, GuestPath, ImportOptions,
    IsolationReport, Labels, ListOptions, Metadata, Operation, Output, Process, Ran, ReadOptions,
    RemoveOptions, RenameOptions, Result, Sandbox, SandboxId, SandboxInfo, SandboxSpec, Snapshot,
    SnapshotOptions, Source, Stdin, TransferReport, WriteMode,
};
use serde_json::Value;
use tokio::sync::watch;

use crate::chain::{Chain, Head, SQUASH_AT, Turn};
use crate::client::{Failed, SMALL_ANSWER};
use crate::connect::Session;
use crate::exec::{self, SecretIds};
use crate::frame::Frame;
use crate::guest::Script;
use crate::provider::{CAPABILITIES, Shared};
use crate::query::{self, find};
use crate::stage::Stage;
use crate::{files, transfer};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The timeout of commands where neither they nor the spec name one.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(600);

/// One sandbox. Handles are `Arc`s of it.
#[derive(Debug)]
pub(crate) struct DaggerSandbox {
    id: SandboxId,
    parent: Option<SandboxId>,
    labels: Labels,
    created: SystemTime,
    pub(crate) shared: Arc<Shared>,
    session: Arc<Session>,
    pub(crate) chain: Chain,
    settings: RwLock<Settings>,
    command_timeout: Duration,
    closed: watch::Sender<bool>,
}

#[derive(Clone, Debug)]
struct Settings {
    workdir: GuestPath,
    env: BTreeMap<Vec<u8>, EnvValue>,
    secrets: SecretIds,
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
        let reconnect = matches!(failed, Failed::NotSent(_) | Failed::Stale(_));
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

    fn settings(&self) -> Settings {
        // Settings are replaced whole: a panic elsewhere leaves them valid.
        self.settings
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn change(&self, change: impl FnOnce(&mut Settings)) {
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

    fn check_open(&self, operation: Operation) -> Result<()> {
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

    fn answer<'a>(&self, answer: &'a Value, operation: Operation) -> Result<(&'a str, &'a str)> {
        match (find(answer, "id"), find(answer, "stdout")) {
            (Some(id), Some(stdout)) => Ok((id, stdout)),
            _ => Err(self.tell(Failed::Garbage("no id".into()).error(operation))),
        }
    }

    /// Asks the guest something; its files stay as they are.
    async fn look(
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
    async fn alter(
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

    /// Hands over standard input that is too large for a query.
    async fn stage_stdin(&self, command: &Command) -> Result<Option<(Stage, String)>> {
        const OP: Operation = Operation::Exec;
        let Stdin::Bytes(bytes) = &command.stdin else {
            return Ok(None);
        };
        if bytes.len() <= exec::INLINE_STDIN {
            return Ok(None);
        }
        let stage = Stage::new(OP)?;
        stage.file("f/stdin", bytes, 0o644)?;
        let host = query::host_directory(&stage.path().to_string_lossy());
        let answer = self.ask(&host, OP, SMALL_ANSWER, self.patience()).await?;
        Ok(find(&answer, "id").map(str::to_owned).map(|id| (stage, id)))
    }

    async fn run(&self, command: Command) -> Result<Output> {
        const OP: Operation = Operation::Exec;
        let started = Instant::now();
        let not_started = |error: Error| self.tell(error).with_ran(Ran::NotStarted);
        command.validate(OP).map_err(|error| self.tell(error))?;
        if command.user.is_some() {
            CAPABILITIES
                .require(Capability::User, OP)
                .map_err(not_started)?;
        }
        self.check_open(OP).map_err(not_started)?;
        let settings = self.settings();
        let cwd = command.cwd.clone().unwrap_or_else(|| ".".into());
        let cwd = cwd.resolve(&settings.workdir, OP).map_err(not_started)?;
        let mut env = settings.env;
        let mut secrets = settings.secrets;
        command.env.apply_to(&mut env);
        for (name, _) in command.env.iter() {
            secrets.remove(name);
        }
        let own = keep_secrets(&self.session, &command.env, self.patience()).await;
        secrets.extend(own.map_err(|failed| not_started(failed.error(OP)))?);
        let timeout = Some(command.timeout.unwrap_or(self.command_timeout));
        let prepared = exec::prepare(&command, &cwd, &env, &secrets, timeout, nonce());
        let prepared = prepared.map_err(|error| self.tell(error))?;
        let turn = self.turn(OP).await.map_err(not_started)?;
        let staged = self.stage_stdin(&command).await.map_err(not_started)?;
        let mut below = match &staged {
            None => query::run(&prepared.script, &prepared.nonce, "id stdout"),
            Some((_, directory)) => {
                let run = query::run(&prepared.script, &prepared.nonce, query::UNSTAGE);
                query::staged(directory, &run)
            }
        };
        for (variable, secret) in &prepared.secrets {
            below = format!(
                "withSecretVariable(name: \"{variable}\", secret: {}) {{ {below} }}",
                query::string(secret)
            );
        }
        let query = query::on_container(&turn.head().id, &below);
        let within = timeout
            .unwrap_or(self.command_timeout)
            .saturating_add(exec::GRACE);
        let answer = self.ask(&query, OP, prepared.largest, within).await;
        let answer = answer.map_err(|error| match error.kind() {
            ErrorKind::Closed => error.with_partial_output(CapturedOutput::default()),
            _ => error,
        })?;
        let (id, stdout) = self.answer(&answer, OP)?;
        let output = exec::read(stdout, &prepared.nonce, &command, &cwd, timeout, started);
        // The files of a command that failed or was cut are kept too; one that did not start left
        // none.
        match &output {
            Err(error) if error.ran() != Some(Ran::Cut) => {}
            _ => turn.advance(id, 1),
        }
        output.map_err(|error| self.tell(error))
    }

    fn entries(&self, frame: &mut Frame<'_>, operation: Operation) -> Result<Vec<DirEntry>> {
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
async fn keep_secrets(
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
            query::string(text)
        );
        let answer = session.client.query(&query, SMALL_ANSWER, within).await?;
        let id = find(&answer, "id").ok_or_else(|| Failed::Garbage("no id".into()))?;
        ids.insert(name.to_vec(), id.to_owned());
    }
    Ok(ids)
}

#[async_trait]
impl Sandbox for DaggerSandbox {
    fn info(&self) -> SandboxInfo {
        let mut info = SandboxInfo::new(self.id.clone(), "dagger", self.settings().workdir)
            .with_labels(self.labels.clone())
            .with_command_timeout(Some(self.command_timeout));
        info.parent.clone_from(&self.parent);
        info.created = self.created;
        info
    }

    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn isolation(&self) -> Result<IsolationReport> {
        self.check_open(Operation::Isolation)?;
        let report = transfer::unprobed();
        Ok(report)
    }

    async fn exec(&self, command: Command) -> Result<Output> {
        self.run(command).await
    }

    async fn spawn(&self, command: Command) -> Result<Process> {
        const OP: Operation = Operation::Spawn;
        self.check_open(OP)
            .map_err(|error| error.with_ran(Ran::NotStarted))?;
        command.validate(OP).map_err(|error| self.tell(error))?;
        let refused = CAPABILITIES.require(Capability::Spawn, OP).err();
        let refused = refused.unwrap_or_else(|| Error::new(ErrorKind::Other, OP));
        Err(self.tell(refused).with_ran(Ran::NotStarted))
    }

    async fn write_files(&self, batch: FileBatch) -> Result<()> {
        const OP: Operation = Operation::WriteFiles;
        self.check_open(OP)?;
        let files = batch
            .resolve(&self.settings().workdir)
            .map_err(|error| self.tell(error))?;
        let Some((first, _)) = files.first() else {
            return Ok(());
        };
        let stage = Stage::new(OP).map_err(|error| self.tell(error))?;
        let nonce = nonce();
        let mut script = Script::new(&nonce).line(&format!("stage={}", query::STAGE));
        for (number, (path, file)) in files.iter().enumerate() {
            let mode = file.mode.map(|mode| mode.bits());
            let staged = mode.unwrap_or(0o644) | 0o600;
            let written = stage.file(&format!("f/{number}"), &file.content, staged);
            written.map_err(|error| self.tell(error))?;
            let number = number.to_string();
            let mode = match mode {
                None => "-".to_owned(),
                Some(mode) if mode == staged => "staged".to_owned(),
                Some(mode) => format!("{mode:o}"),
            };
            let how = match file.write_mode {
                WriteMode::CreateNew => &b"new"[..],
                WriteMode::Replace => b"replace",
            };
            script = script.call(
                "put",
                &[number.as_bytes(), path.as_bytes(), mode.as_bytes(), how],
            );
        }
        let script = script.files("begin; finish");
        let written = stage.file("run.sh", script.as_bytes(), 0o755);
        written.map_err(|error| self.tell(error))?;
        self.alter_staged(&stage, &nonce, OP, first).await
    }

    async fn read_file(&self, path: &GuestPath, options: ReadOptions) -> Result<Bytes> {
        const OP: Operation = Operation::ReadFile;
        let path = self.resolve(path, OP)?;
        let limit = options.limit;
        let largest = limit.saturating_mul(3).saturating_add(SMALL_ANSWER) / 2 + SMALL_ANSWER;
        let script = move |script: Script| script.line(&format!("limit={limit}")).files("op_read");
        let (stdout, nonce) = self.look(script, OP, &path, largest).await?;
        let opened = files::open(&stdout, &nonce, OP, &path).map_err(|error| match error.kind() {
            ErrorKind::LimitExceeded => error.with_message(format!(
                "the file is larger than the limit of {limit} bytes"
            )),
            _ => error,
        });
        let mut frame = opened.map_err(|error| self.tell(error))?;
        let bytes = frame
            .bytes()
            .map_err(|problem| self.tell(files::broken(problem, OP)))?;
        Ok(bytes.into())
    }

    async fn list_dir(&self, path: &GuestPath, options: ListOptions) -> Result<Vec<DirEntry>> {
        const OP: Operation = Operation::ListDir;
        let path = self.resolve(path, OP)?;
        let limit = options.limit;
        let depth = if options.recursive { "" } else { "-maxdepth 1" };
        let settings = format!("limit=0 depth='{depth}'");
        let script = move |script: Script| script.line(&settings).files("op_list");
        let (stdout, nonce) = self.look(script, OP, &path, 256 << 20).await?;
        let opened = files::open(&stdout, &nonce, OP, &path);
        let mut frame = opened.map_err(|error| self.tell(error))?;
        let mut entries = self.entries(&mut frame, OP)?;
        if entries.len() > limit {
            return Err(self
                .tell(Error::new(ErrorKind::LimitExceeded, OP))
                .with_message(format!("more than {limit} entries"))
                .with_path(path));
        }
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(entries)
    }

    async fn metadata(&self, path: &GuestPath) -> Result<Metadata> {
        const OP: Operation = Operation::Metadata;
        let path = self.resolve(path, OP)?;
        let script = |script: Script| script.files("op_metadata");
        let (stdout, nonce) = self.look(script, OP, &path, SMALL_ANSWER).await?;
        let opened = files::open(&stdout, &nonce, OP, &path);
        let mut frame = opened.map_err(|error| self.tell(error))?;
        let entry = self.entries(&mut frame, OP)?.into_iter().next();
        entry.map(|entry| entry.metadata).ok_or_else(|| {
            self.tell(Error::new(ErrorKind::Other, OP).with_message("the guest said nothing"))
        })
    }

    async fn remove(&self, path: &GuestPath, options: RemoveOptions) -> Result<()> {
        const OP: Operation = Operation::Remove;
        let path = self.resolve(path, OP)?;
        if path == GuestPath::root() {
            return Err(self
                .tell(Error::new(ErrorKind::InvalidInput, OP))
                .with_message("the root can't be removed")
                .with_path(path));
        }
        let recursive = if options.recursive { "yes" } else { "no" };
        let settings = format!("recursive={recursive}");
        self.alter(
            move |script| script.line(&settings).files("op_remove"),
            OP,
            &path,
        )
        .await
    }

    async fn create_dir(&self, path: &GuestPath, options: CreateDirOptions) -> Result<()> {
        const OP: Operation = Operation::CreateDir;
        let path = self.resolve(path, OP)?;
        let parents = if options.parents { "yes" } else { "no" };
        let settings = format!("parents={parents} mode={:o}", options.mode.bits());
        self.alter(
            move |script| script.line(&settings).files("op_create_dir"),
            OP,
            &path,
        )
        .await
    }

    async fn rename(&self, from: &GuestPath, to: &GuestPath, options: RenameOptions) -> Result<()> {
        const OP: Operation = Operation::Rename;
        let from = self.resolve(from, OP)?;
        let to = self.resolve(to, OP)?;
        if let Some(root) = [&from, &to]
            .into_iter()
            .find(|path| **path == GuestPath::root())
        {
            return Err(self
                .tell(Error::new(ErrorKind::InvalidInput, OP))
                .with_message("the root can't be renamed or replaced")
                .with_path(root));
        }
        let replace = if options.replace {
            "replace=yes"
        } else {
            "replace=no"
        };
        let target = to.clone();
        let script = move |script: Script| {
            script
                .set("to", target.as_bytes())
                .line(replace)
                .files("op_rename")
        };
        self.alter(script, OP, &from).await
    }

    async fn import_dir(
        &self,
        from: &Path,
        to: &GuestPath,
        options: ImportOptions,
    ) -> Result<TransferReport> {
        let to = self.resolve(to, Operation::ImportDir)?;
        transfer::import(self, from, &to, options)
            .await
            .map_err(|error| self.tell(error))
    }

    async fn export_dir(
        &self,
        from: &GuestPath,
        to: &Path,
        options: ExportOptions,
    ) -> Result<TransferReport> {
        let from = self.resolve(from, Operation::ExportDir)?;
        transfer::export(self, &from, to, options)
            .await
            .map_err(|error| self.tell(error))
    }

    async fn set_workdir(&self, path: &GuestPath) -> Result<()> {
        const OP: Operation = Operation::SetWorkdir;
        let path = self.resolve(path, OP)?;
        let script = |script: Script| script.files("op_check_dir");
        let (stdout, nonce) = self.look(script, OP, &path, SMALL_ANSWER).await?;
        files::open(&stdout, &nonce, OP, &path).map_err(|error| self.tell(error))?;
        self.change(|settings| settings.workdir = path);
        Ok(())
    }

    async fn set_env(&self, changes: Env) -> Result<()> {
        const OP: Operation = Operation::SetEnv;
        self.check_open(OP)?;
        changes.validate(OP).map_err(|error| self.tell(error))?;
        let secrets = keep_secrets(&self.session, &changes, self.patience()).await;
        let secrets = secrets.map_err(|failed| self.tell(failed.error(OP)))?;
        self.change(|settings| {
            changes.apply_to(&mut settings.env);
            for (name, _) in changes.iter() {
                settings.secrets.remove(name);
            }
            settings.secrets.extend(secrets);
        });
        Ok(())
    }

    async fn fork(&self, options: ForkOptions) -> Result<Arc<dyn Sandbox>> {
        // A command that runs is not waited for: the child has the files as of now.
        self.check_open(Operation::Fork)?;
        let sandbox = Arc::new(Self {
            id: SandboxId::new(&nonce()[..16]),
            parent: Some(self.id.clone()),
            labels: options.labels,
            created: SystemTime::now(),
            shared: self.shared.clone(),
            session: self.session.clone(),
            chain: Chain::new(self.chain.head()),
            settings: RwLock::new(self.settings()),
            command_timeout: self.command_timeout,
            closed: watch::Sender::new(false),
        });
        self.shared.enter(sandbox.id.clone(), &sandbox);
        Ok(sandbox)
    }

    async fn snapshot(&self, _: SnapshotOptions) -> Result<Snapshot> {
        const OP: Operation = Operation::Snapshot;
        self.check_open(OP)?;
        let refused = CAPABILITIES.require(Capability::Snapshot, OP).err();
        Err(self.tell(refused.unwrap_or_else(|| Error::new(ErrorKind::Other, OP))))
    }

    async fn close(&self) -> Result<()> {
        // What runs sees this and drops its connection, upon which the engine ends it.
        self.closed.send_replace(true);
        self.shared.leave(&self.id);
        Ok(())
    }
}
