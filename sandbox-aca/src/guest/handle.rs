//! Parts that the operations of one sandbox share: identity, state, errors.
//!
//! It must never take a sandbox that is gone for an empty one.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sandbox_core::backend::Jobs;
use sandbox_core::{
    Env, Error, ErrorKind, GuestPath, Operation, Result, SandboxId, SandboxInfo, Secret,
};

use crate::guest::script::{COMMON, FILES, Script, garbled, lacking, said};
use tokio::task::AbortHandle;

use crate::guest::transport::{PART, Transport};
use crate::http::{Failure, Http, runtime};

/// Time that a helper in the guest may take.
const HELPER: Duration = Duration::from_secs(300);
/// Time for which a command's output is waited for after its end, if no configuration says so.
pub(crate) const OUTPUT_GRACE: Duration = Duration::from_millis(100);

/// Variables by their names; `None` unsets.
pub(crate) type Variables = BTreeMap<Vec<u8>, Option<Secret>>;

/// The variables of an environment, their values secret.
pub(crate) fn variables(env: &Env) -> impl Iterator<Item = (Vec<u8>, Option<Secret>)> {
    env.iter().map(|(name, value)| {
        let value = value.map(|value| value.value.clone());
        (name.to_vec(), value)
    })
}

/// State that a handle keeps of its sandbox.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) info: SandboxInfo,
    /// Changes to the image's environment.
    pub(crate) env: Variables,
    /// Directories of ended commands in the guest, to be removed.
    pub(crate) stale_dirs: Vec<String>,
    /// Commands that run now.
    pub(crate) running: Vec<String>,
}

impl State {
    pub(crate) fn new(info: SandboxInfo, env: Variables) -> Self {
        Self {
            info,
            env,
            stale_dirs: Vec::new(),
            running: Vec::new(),
        }
    }
}

/// The task that keeps one sandbox alive; dropping this ends it.
#[derive(Debug)]
pub(crate) struct KeepAlive(AbortHandle);

impl KeepAlive {
    pub(crate) fn new(task: AbortHandle) -> Self {
        Self(task)
    }
}

impl Drop for KeepAlive {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Result of closing a sandbox.
#[derive(Debug, Default)]
pub(crate) struct Closing {
    /// Number of attempts that have ended.
    pub(crate) attempts: u64,
    /// The outcome of the last one, if there was one.
    pub(crate) outcome: Option<Result<()>>,
}

/// A guest as its handles know it: how it is reached, and what holds for its commands.
#[derive(Debug)]
pub(crate) struct Guest<T = Http> {
    pub(crate) transport: Arc<T>,
    pub(crate) id: SandboxId,
    /// Time for which a command's output is waited for after its end.
    pub(crate) output_grace: Duration,
    pub(crate) state: Mutex<State>,
    pub(crate) closing: AtomicBool,
    /// Result of closing, if it was tried: see [`close`](super::close).
    pub(crate) closed: tokio::sync::Mutex<Closing>,
    /// Jobs of its handles, which keep them: their processes keep this.
    pub(crate) jobs: Mutex<Weak<Jobs>>,
    /// Whether no command may begin, and what is held still.
    pub(crate) paused: AtomicBool,
    pub(crate) pausing: tokio::sync::Mutex<()>,
    /// Read while files are put in place, written to while a fork looks.
    pub(crate) files: Arc<tokio::sync::RwLock<()>>,
    /// When it was last used.
    used: Mutex<Instant>,
    /// After how long without use the service may end it.
    expires: Option<Duration>,
    /// Whether it was unused for so long before the last use.
    overdue: AtomicBool,
    /// Whether it is known to have ended by that.
    expired: AtomicBool,
    /// Task that keeps the sandbox alive, if that was asked for; held while it is touched.
    pub(crate) keep_alive: OnceLock<KeepAlive>,
    pub(crate) touching: tokio::sync::Mutex<()>,
}

/// A fresh name for something of ours that begins like this.
pub(crate) fn fresh(staging: &str) -> (String, String) {
    let nonce = uuid::Uuid::new_v4().simple().to_string();
    (format!("{staging}{nonce}"), nonce)
}

impl<T: Transport> Guest<T> {
    pub(crate) fn new(transport: Arc<T>, state: State, output_grace: Duration) -> Self {
        Self {
            transport,
            id: state.info.id.clone(),
            output_grace,
            state: Mutex::new(state),
            closing: AtomicBool::new(false),
            closed: tokio::sync::Mutex::default(),
            jobs: Mutex::default(),
            paused: AtomicBool::new(false),
            pausing: tokio::sync::Mutex::default(),
            files: Arc::default(),
            used: Mutex::new(Instant::now()),
            expires: None,
            overdue: AtomicBool::new(false),
            expired: AtomicBool::new(false),
            keep_alive: OnceLock::new(),
            touching: tokio::sync::Mutex::default(),
        }
    }

    /// Lets the service end the guest when it was not used for so long.
    pub(crate) fn expires_after(mut self, idle: Duration) -> Self {
        self.expires = Some(idle);
        self
    }

    /// Notes a use of it.
    pub(crate) fn used(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// For how long it has been idle.
    pub(crate) fn idle(&self) -> Duration {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.elapsed()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn workdir(&self) -> GuestPath {
        self.state().info.workdir.clone()
    }

    /// Refuses every operation on a closed sandbox; any other is a use of it.
    pub(crate) fn open(&self, op: Operation) -> Result<()> {
        let overdue = self.expires.is_some_and(|expires| self.idle() >= expires);
        self.overdue.store(overdue, Ordering::Relaxed);
        self.used();
        runtime(op)?;
        match self.closing.load(Ordering::Acquire) {
            true => Err(Error::closed(op, &self.id)),
            false => Ok(()),
        }
    }

    /// The jobs that its handles share, made by the first of them.
    pub(crate) fn jobs(&self) -> Arc<Jobs> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.upgrade().unwrap_or_else(|| {
            let made = Arc::new(Jobs::new(self.id.clone()));
            *jobs = Arc::downgrade(&made);
            made
        })
    }

    /// Refuses what needs programs of a sandbox that is paused.
    pub(crate) fn awake(&self, op: Operation) -> Result<()> {
        match self.paused.load(Ordering::Acquire) {
            false => Ok(()),
            true => Err(self.named(
                Error::new(ErrorKind::Busy, op)
                    .with_message("the sandbox is paused")
                    .with_hint("resume it first"),
            )),
        }
    }

    pub(crate) fn named(&self, error: Error) -> Error {
        match error.sandbox() {
            Some(_) => error,
            None => error.with_sandbox(self.id.clone()),
        }
    }

    /// Error for a failed request to this sandbox.
    pub(crate) fn failed(&self, failure: Failure) -> Error {
        let op = failure.error.operation();
        if self.closing.load(Ordering::Acquire) {
            return Error::closed(op, &self.id);
        }
        let missing = failure.status == Some(404) && !failure.is_of_group();
        if missing && failure.title != "FileNotFound" {
            // What was unused for so long the service has ended by its rule.
            if self.overdue.load(Ordering::Relaxed) {
                self.expired.store(true, Ordering::Relaxed);
            }
            if self.expired.load(Ordering::Relaxed) {
                return Error::expired(op, &self.id).with_source(failure.error);
            }
            let lost = Error::new(ErrorKind::Lost, op)
                .with_message("the service no longer has this sandbox")
                .with_source(failure.error);
            return self.named(lost);
        }
        if failure.status == Some(409) && failure.title.contains("NotRunning") {
            let error = failure
                .error
                .with_hint("the service stopped it; resume it first");
            return self.named(error);
        }
        self.named(failure.error)
    }

    pub(crate) fn resolve(&self, path: &GuestPath, op: Operation) -> Result<GuestPath> {
        let resolved = path.resolve(&self.workdir(), op);
        let resolved = resolved.map_err(|error| self.named(error))?;
        if resolved.components().any(|part| part.len() > 255) {
            let error = Error::new(ErrorKind::InvalidInput, op)
                .with_message("a name is longer than 255 bytes")
                .with_path(path);
            return Err(self.named(error));
        }
        Ok(resolved)
    }

    /// Runs a script of ours and gives what it says. A long one goes as a file first.
    pub(crate) async fn run(
        &self,
        op: Operation,
        script: &Script,
        dir: &str,
        repeat: bool,
        timeout: Duration,
    ) -> Result<String, Failure> {
        let line = self.as_argument(op, script.0.clone(), dir).await?;
        let id = self.id.as_str();
        self.transport.shell(op, id, &line, repeat, timeout).await
    }

    /// A script as one argument of a shell; a long one goes as a file first.
    pub(crate) async fn as_argument(
        &self,
        op: Operation,
        script: Vec<u8>,
        dir: &str,
    ) -> Result<String, Failure> {
        let script = Script(script);
        match script.inline() {
            Some(line) => Ok(line),
            None => {
                let file = format!("{dir}/script");
                let id = self.id.as_str();
                let put = self.transport.put_file(op, id, &file, script.0.into());
                put.await?;
                Ok(format!("exec sh {file}"))
            }
        }
    }

    /// Starts a script on files, whose staging directory is the given one.
    pub(crate) fn files_script(&self, dir: &str) -> Script {
        self.cleared()
            .text(COMMON)
            .text(FILES)
            .text(&format!("stage={dir}\ntrap 'rm -rf $stage' EXIT\n"))
    }

    /// Runs a script on files. Gives the words after OK, or the error at one of `paths`.
    pub(crate) async fn helper(
        &self,
        op: Operation,
        script: Script,
        dir: &str,
        paths: &[&GuestPath],
    ) -> Result<String> {
        self.open(op)?;
        let said_ = self.run(op, &script, dir, false, HELPER).await;
        let text = said_.map_err(|failure| self.failed(failure))?;
        self.verdict(op, &text, paths)?;
        Ok(text)
    }

    /// Whether a script says OK.
    pub(crate) fn verdict(&self, op: Operation, text: &str, paths: &[&GuestPath]) -> Result<()> {
        let words = said(text, op).map_err(|error| self.named(error))?.words;
        let (kind, message) = match words[..] {
            ["OK", ..] => return Ok(()),
            ["E", "NOTOOL", ref tool @ ..] => return Err(self.named(lacking(op, &tool.join(" ")))),
            ["E", name, ..] => kind_of(name),
            _ => return Err(self.named(garbled(op))),
        };
        let at = words
            .get(2)
            .and_then(|text| text.parse::<usize>().ok())
            .unwrap_or(1);
        let mut error = Error::new(kind, op).with_message(message);
        if let Some(path) = paths.get(at.saturating_sub(1)) {
            error = error.with_path(*path);
        }
        Err(self.named(error))
    }

    /// The content that a script emitted, within its answer or as a file.
    pub(crate) async fn emitted(
        &self,
        op: Operation,
        text: &str,
        dir: &str,
        limit: u64,
    ) -> Result<Bytes> {
        let mut said = said(text, op).map_err(|error| self.named(error))?;
        match said.words[..] {
            ["OK", "B", ..] => {
                crate::guest::script::decode(said.rest.next(), op).map_err(|e| self.named(e))
            }
            ["OK", "F", size, ..] => {
                let file = format!("{dir}/out");
                let size = self.announced(op, size, limit)?;
                let read = self.get_large(op, &file, size).await;
                self.state().stale_dirs.push(dir.to_owned());
                let read = read.map_err(|failure| self.failed(failure))?;
                match read.len() as u64 == size {
                    true => Ok(read),
                    false => Err(self.named(garbled(op))),
                }
            }
            _ => Err(self.named(garbled(op))),
        }
    }

    /// Size of a file that a script speaks of: no more of it is taken, whatever comes.
    fn announced(&self, op: Operation, size: &str, limit: u64) -> Result<u64> {
        let size = size.parse().ok().filter(|size| *size <= limit);
        size.ok_or_else(|| self.named(garbled(op)))
    }

    /// Reads one of our files in the guest, of which a script has told the size.
    pub(crate) async fn get_large(
        &self,
        op: Operation,
        path: &str,
        size: u64,
    ) -> Result<Bytes, Failure> {
        let parts = self.in_parts(op, path, size).await?;
        if let [whole] = &parts[..] {
            return self.get_part(op, whole, size).await;
        }
        let mut all = bytes::BytesMut::new();
        for part in parts {
            all.extend_from_slice(&self.get_part(op, &part, size).await?);
        }
        Ok(all.freeze())
    }

    /// The names of the parts that a file of ours is fetched in: a service has a limit for one
    /// request, and memory does not grow with the file.
    async fn in_parts(&self, op: Operation, path: &str, size: u64) -> Result<Vec<String>, Failure> {
        let part = PART as u64;
        if size <= part {
            return Ok(vec![path.to_owned()]);
        }
        // Once or twice is the same: what was cut is no longer there.
        let line = format!(
            "! [ -e {path} ] || {{ split -b {part} -a 6 -d {path} {path}. && rm -f {path}; }} && echo OK"
        );
        let id = self.id.as_str();
        let cut = self.transport.shell(op, id, &line, true, HELPER).await?;
        if cut.trim_end() != "OK" {
            let error = Error::new(ErrorKind::StorageFull, op)
                .with_message("the guest has no room to cut a large file in parts");
            return Err(Failure::before(error));
        }
        let parts = 0..size.div_ceil(part);
        Ok(parts.map(|number| format!("{path}.{number:06}")).collect())
    }

    async fn get_part(&self, op: Operation, path: &str, size: u64) -> Result<Bytes, Failure> {
        let (id, most) = (self.id.as_str(), size.min(PART as u64));
        self.transport.get_file(op, id, path, most).await
    }

    /// Brings a file into a temporary file, read from its beginning; memory does not grow with it.
    pub(crate) async fn emitted_to_file(
        &self,
        op: Operation,
        text: &str,
        dir: &str,
        limit: u64,
    ) -> Result<File> {
        use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};
        let io = |e| self.named(Error::from_io(e, op));
        let mut file = tokio::fs::File::from_std(tempfile::tempfile().map_err(io)?);
        let words = said(text, op).map_err(|error| self.named(error))?.words;
        if let ["OK", "F", size, ..] = words[..] {
            let path = format!("{dir}/out");
            let size = self.announced(op, size, limit)?;
            self.state().stale_dirs.push(dir.to_owned());
            let parts = self.in_parts(op, &path, size).await;
            for part in parts.map_err(|failure| self.failed(failure))? {
                let got = self.get_part(op, &part, size).await;
                let got = got.map_err(|failure| self.failed(failure))?;
                file.write_all(&got).await.map_err(io)?;
            }
            file.flush().await.map_err(io)?;
            if file.metadata().await.map_err(io)?.len() != size {
                return Err(self.named(garbled(op)));
            }
        } else {
            let bytes = self.emitted(op, text, dir, limit).await?;
            file.write_all(&bytes).await.map_err(io)?;
            file.flush().await.map_err(io)?;
        }
        file.rewind().await.map_err(io)?;
        Ok(file.into_std().await)
    }
}

/// Kind and message of an error of the guest's scripts.
pub(crate) fn kind_of(name: &str) -> (ErrorKind, &'static str) {
    match name {
        "NOENT" => (ErrorKind::NotFound, "no such file or directory"),
        "NOTDIR" => (ErrorKind::NotADirectory, "not a directory"),
        "ISDIR" => (ErrorKind::IsADirectory, "a directory is there"),
        "NOTREG" => (ErrorKind::NotARegularFile, "neither a file nor a directory"),
        "LOOP" => (ErrorKind::InvalidInput, "links lead in a circle"),
        "EXIST" => (ErrorKind::AlreadyExists, "already exists"),
        "NOTEMPTY" => (ErrorKind::DirectoryNotEmpty, "the directory is not empty"),
        "PERM" => (ErrorKind::PermissionDenied, "permission denied"),
        "RO" => (ErrorKind::ReadOnly, "the place is read-only"),
        "NOSPACE" => (ErrorKind::StorageFull, "no space left"),
        "BUSY" => (ErrorKind::Busy, "in use"),
        "NOINPUT" => (
            ErrorKind::Unsupported,
            "the service gives a command on a stream no input without a terminal",
        ),
        "LIMIT" => (ErrorKind::LimitExceeded, "over the limit"),
        "NOCMD" => (ErrorKind::CommandNotFound, "the program was not found"),
        "NOEXEC" => (ErrorKind::NotExecutable, "the program can't be executed"),
        _ => (ErrorKind::Other, "the guest reported an error"),
    }
}
