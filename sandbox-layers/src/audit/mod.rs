//! One line for each operation, chained by hashes.
//!
//! It must never hold content, the value of a variable, or an argument that was not asked for; a
//! call must never be answered before its line is written, unless the caller chose so, nor be left
//! out because its caller went away.

mod chain;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use sandbox_core::layer::{Answer, Around, Attempt, Call, Request, Target};
use sandbox_core::{
    Error, ErrorKind, Execution, Exit, Operation, Process, ProcessControl, Result, Signal,
    TerminalSize, async_trait,
};
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, oneshot};

use chain::Chain;
pub use chain::{AuditHead, verify};

use crate::policy::Refused;

/// Number of lines that may wait for the writer.
const WAITING: usize = 1024;

/// Outcome of a call whose line can't be written, as on a full disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnFailure {
    /// Failure, and refusal of later calls before they are made until a line can be written again.
    /// What was under way then has happened without a line.
    #[default]
    Refuse,
    /// Going on; how many lines are missing stands in the next one as `dropped`.
    Drop,
}

/// Writes one JSON line for each operation and for the end of each spawned process.
///
/// | Field | Meaning |
/// |---|---|
/// | `time`, `seq`, `prev` | seconds since 1970; number of the line; SHA-256 of the line before |
/// | `tenant`, `session` | what [`Audit::tenant`] and [`Audit::session`] say |
/// | `backend`, `sandbox`, `operation` | on what, and what |
/// | `subject` | the path, the program or the host's directory; `argv` beside it by opt-in |
/// | `decision`, `reason` | `allow`; `deny` with the reason of a [`Policy`](crate::Policy) inside of this layer |
/// | `ran` | of a command: `yes`, `started` (of `spawn`), `not_started`, `interrupted`, `unknown` |
/// | `exit`, `error` | the exit code as a shell has it; the kind of the error, or `Dropped` if the caller went away before the end |
/// | `ms`, `bytes` | duration; what was read, transferred or written by the command |
///
/// The line is written before the call is answered; one whose caller goes away is written then. [`verify`] finds a line that was changed,
/// removed or put in; that the last lines are missing shows only in comparison with a
/// [`head`](Audit::head) that is kept elsewhere.
///
/// A clone writes to the same file. One process at a time may have a file.
#[derive(Clone)]
pub struct Audit {
    tenant: Option<Arc<str>>,
    session: Option<Arc<str>>,
    argv: bool,
    on_failure: OnFailure,
    writer: Writer,
}

#[derive(Clone, Debug)]
struct Writer {
    sender: mpsc::Sender<Order>,
    /// The last line could not be written.
    failing: Arc<AtomicBool>,
    /// Number of lines that were not even handed to the thread that writes.
    missed: Arc<AtomicU64>,
    path: Arc<PathBuf>,
}

#[derive(Debug)]
enum Order {
    Line(Map<String, Value>, oneshot::Sender<std::io::Result<()>>),
    Head(oneshot::Sender<AuditHead>),
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audit")
            .field("path", &self.writer.path)
            .field("tenant", &self.tenant)
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

impl Audit {
    /// Opens a file to append to, readable by its owner only. The chain goes on where it ended; a
    /// last line that was torn is ended and stays in the chain.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] if another process has the file; what the operating system says.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let failed = |error| Error::from_io(error, Operation::Connect).with_host_path(path);
        let chain = Chain::open(path).map_err(failed)?;
        let Some(chain) = chain else {
            return Err(Error::new(ErrorKind::Busy, Operation::Connect)
                .with_message("another process has the audit log")
                .with_host_path(path)
                .with_hint("give each process a file of its own"));
        };
        let (sender, receiver) = mpsc::channel(WAITING);
        let missed = Arc::new(AtomicU64::new(0));
        let counted = missed.clone();
        std::thread::Builder::new()
            .name("sandbox-audit".into())
            .spawn(move || write(chain, receiver, &counted))
            .map_err(failed)?;
        Ok(Self {
            tenant: None,
            session: None,
            argv: false,
            on_failure: OnFailure::Refuse,
            writer: Writer {
                sender,
                failing: Arc::default(),
                missed,
                path: Arc::new(path.to_owned()),
            },
        })
    }

    /// Names the tenant in each line.
    #[must_use]
    pub fn tenant(mut self, tenant: &str) -> Self {
        self.tenant = Some(tenant.into());
        self
    }

    /// Names the session in each line.
    #[must_use]
    pub fn session(mut self, session: &str) -> Self {
        self.session = Some(session.into());
        self
    }

    /// Sets whether the arguments of commands are recorded. They may hold secrets. Default: false.
    #[must_use]
    pub fn argv(mut self, argv: bool) -> Self {
        self.argv = argv;
        self
    }

    /// Sets what happens to a call whose line can't be written.
    #[must_use]
    pub fn on_failure(mut self, on_failure: OnFailure) -> Self {
        self.on_failure = on_failure;
        self
    }

    /// Returns the end of the chain as it is now, to be kept elsewhere.
    ///
    /// # Errors
    /// If the writer has ended.
    pub async fn head(&self) -> Result<AuditHead> {
        let (done, head) = oneshot::channel();
        let sent = self.writer.sender.send(Order::Head(done)).await;
        match (sent, head.await) {
            (Ok(()), Ok(head)) => Ok(head),
            _ => Err(self
                .writer
                .failed(std::io::Error::other("the writer has ended"))),
        }
    }

    fn owe(&self, line: Map<String, Value>, ran: Option<&'static str>) -> Owed {
        Owed {
            writer: self.writer.clone(),
            line: Some(line),
            ran,
        }
    }

    fn line(&self, operation: &str) -> Map<String, Value> {
        let mut line = Map::new();
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        line.insert(
            "time".into(),
            json!(since.unwrap_or_default().as_secs_f64()),
        );
        if let Some(tenant) = &self.tenant {
            line.insert("tenant".into(), json!(&**tenant));
        }
        if let Some(session) = &self.session {
            line.insert("session".into(), json!(&**session));
        }
        line.insert("operation".into(), json!(operation));
        line
    }

    /// Everything about a call that is known before it is made.
    fn about(&self, call: &Call<'_>) -> Map<String, Value> {
        let mut line = self.line(call.operation().as_str());
        let backend = match call.target {
            Target::Sandbox(sandbox) => sandbox.info().backend.into_owned(),
            Target::Provider(provider) => provider.backend().to_owned(),
            _ => "unknown".to_owned(),
        };
        line.insert("backend".into(), json!(backend));
        if let Some(id) = call.sandbox_id() {
            line.insert("sandbox".into(), json!(id.as_str()));
        }
        if let Some(command) = call.command() {
            let program = String::from_utf8_lossy(command.program());
            line.insert("subject".into(), json!(program));
            if self.argv {
                let argv: Vec<_> = command
                    .argv()
                    .iter()
                    .map(|arg| String::from_utf8_lossy(arg).into_owned())
                    .collect();
                line.insert("argv".into(), json!(argv));
            }
        } else {
            let paths = call.paths();
            let shown: Vec<String> = paths.iter().map(|path| path.to_string()).collect();
            match &shown[..] {
                [] => {}
                [path] => drop(line.insert("subject".into(), json!(path))),
                paths => drop(line.insert("subject".into(), json!(paths))),
            }
            if let Some(host) = call.host_path() {
                line.insert("host".into(), json!(host.to_string_lossy()));
            }
        }
        line
    }

    /// Writes a line down, or does what was chosen for the case that it can't be.
    async fn write(&self, mut owed: Owed) -> Result<()> {
        let result = self.writer.write(&mut owed.line).await;
        match self.on_failure {
            OnFailure::Drop => Ok(()),
            OnFailure::Refuse => result,
        }
    }
}

/// A line that is owed from before its call is made: dropped before it is written, it says that the
/// caller went away.
#[derive(Debug)]
struct Owed {
    writer: Writer,
    line: Option<Map<String, Value>>,
    /// The `ran` of a command whose caller goes away.
    ran: Option<&'static str>,
}

impl Owed {
    fn insert(&mut self, field: &str, value: Value) {
        if let Some(line) = &mut self.line {
            line.insert(field.into(), value);
        }
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        let Some(mut line) = self.line.take() else {
            return;
        };
        line.entry("decision").or_insert(json!("allow"));
        line.entry("error").or_insert(json!("Dropped"));
        if let Some(ran) = self.ran {
            line.entry("ran").or_insert(json!(ran));
        }
        // There is no caller that an answer could reach.
        let (done, _) = oneshot::channel();
        if self
            .writer
            .sender
            .try_send(Order::Line(line, done))
            .is_err()
        {
            self.writer.missed.fetch_add(1, Ordering::Relaxed);
            self.writer.failing.store(true, Ordering::Relaxed);
        }
    }
}

impl Writer {
    fn failed(&self, error: std::io::Error) -> Error {
        let message = format!("the audit log was not written: {error}");
        Error::from_io(error, Operation::Connect)
            .with_message(message)
            .with_host_path(&*self.path)
            .with_hint("what is not recorded is not done: make room, then try again")
    }

    /// Hands the line to the thread that writes, once there is room; a caller that goes away before
    /// keeps it.
    async fn write(&self, line: &mut Option<Map<String, Value>>) -> Result<()> {
        let (done, written) = oneshot::channel();
        let ended = || std::io::Error::other("the writer has ended");
        let turn = self.sender.reserve().await;
        let result = match (turn, line.take()) {
            (Ok(turn), Some(line)) => {
                turn.send(Order::Line(line, done));
                written.await.unwrap_or_else(|_| Err(ended()))
            }
            (Ok(_), None) => Ok(()),
            (Err(_), _) => Err(ended()),
        };
        self.failing.store(result.is_err(), Ordering::Relaxed);
        result.map_err(|error| self.failed(error))
    }
}

fn write(mut chain: Chain, mut receiver: mpsc::Receiver<Order>, missed: &AtomicU64) {
    while let Some(order) = receiver.blocking_recv() {
        chain.miss(missed.swap(0, Ordering::Relaxed));
        // The caller may be gone.
        match order {
            Order::Line(line, done) => drop(done.send(chain.append(line))),
            Order::Head(done) => drop(done.send(chain.head())),
        }
    }
}

fn ms(time: Duration) -> Value {
    json!((time.as_secs_f64() * 1e6).round() / 1e3)
}

impl Around for Audit {
    async fn around<T: Answer>(&self, call: Call<'_>, attempt: Attempt<'_, T>) -> Result<T> {
        let frees = matches!(call.request, Request::Close | Request::Destroy(_));
        if self.on_failure == OnFailure::Refuse
            && !frees
            && self.writer.failing.load(Ordering::Relaxed)
        {
            // One line that says so: if it can be written, calls are made again.
            let mut line = self.line("audit");
            line.insert(
                "reason".into(),
                json!("lines before this one were not written"),
            );
            if let Err(error) = self.writer.write(&mut Some(line)).await {
                return Err(match call.command() {
                    Some(_) => error.with_execution(Execution::NotStarted),
                    None => error,
                });
            }
        }
        let mut line = self.owe(self.about(&call), call.command().map(|_| "unknown"));
        let started = Instant::now();
        let result = attempt().await;
        line.insert("ms", ms(started.elapsed()));
        line.insert("decision", json!("allow"));
        match &result {
            Ok(answer) => {
                if let Some(id) = answer.sandbox_id() {
                    line.insert("sandbox", json!(id.as_str()));
                }
                if let Some(output) = answer.output() {
                    line.insert("ran", json!("yes"));
                    line.insert("exit", json!(output.status.shell_code()));
                    let bytes = output.stdout.total.saturating_add(output.stderr.total);
                    line.insert("bytes", json!(bytes));
                } else if call.command().is_some() {
                    line.insert("ran", json!("started"));
                }
                if let Some(bytes) = answer.bytes() {
                    line.insert("bytes", json!(bytes));
                }
            }
            Err(error) => {
                use std::error::Error as _;
                line.insert("error", json!(format!("{:?}", error.kind())));
                let refused = error
                    .source()
                    .and_then(|source| source.downcast_ref::<Refused>());
                if let Some(refused) = refused {
                    line.insert("decision", json!("deny"));
                    line.insert("reason", json!(refused.reason()));
                }
                if call.command().is_some() {
                    let ran = match error.execution() {
                        Some(Execution::NotStarted) => "not_started",
                        Some(Execution::Interrupted) => "interrupted",
                        _ => "unknown",
                    };
                    line.insert("ran", json!(ran));
                }
            }
        }
        let written = self.write(line).await;
        match (written, frees) {
            // What has been freed is freed.
            (Err(_), true) | (Ok(()), _) => result,
            (Err(error), false) => Err(match call.command() {
                Some(_) => error.with_execution(Execution::Unknown),
                None => error,
            }),
        }
    }

    fn process(&self, call: Call<'_>, process: Process) -> Process {
        let mut line = self.about(&call);
        line.insert("operation".into(), json!("process"));
        line.remove("argv");
        // A process that is dropped is killed, unless it had ended.
        let line = self.owe(line, Some("interrupted"));
        let audit = self.clone();
        process.map_control(|inner| Audited {
            inner,
            audit,
            started: Instant::now(),
            line: std::sync::Mutex::new(Some(line)),
        })
    }
}

/// The control of a process whose end is recorded once.
#[derive(Debug)]
struct Audited {
    inner: Box<dyn ProcessControl>,
    audit: Audit,
    started: Instant,
    line: std::sync::Mutex<Option<Owed>>,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ProcessControl for Audited {
    async fn wait(&self) -> Result<Exit> {
        let exit = self.inner.wait().await;
        let line = {
            let mut line = self
                .line
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            line.take()
        };
        let Some(mut line) = line else { return exit };
        line.insert("ms", ms(self.started.elapsed()));
        line.insert("decision", json!("allow"));
        match &exit {
            Ok(exit) => {
                line.insert("ran", json!("yes"));
                line.insert("exit", json!(exit.status.shell_code()));
            }
            Err(error) => {
                line.insert("ran", json!("interrupted"));
                line.insert("error", json!(format!("{:?}", error.kind())));
            }
        }
        self.audit.write(line).await?;
        exit
    }

    async fn signal(&self, signal: Signal) -> Result<()> {
        self.inner.signal(signal).await
    }

    async fn resize(&self, size: TerminalSize) -> Result<()> {
        self.inner.resize(size).await
    }

    async fn kill(&self) -> Result<()> {
        self.inner.kill().await
    }
}
