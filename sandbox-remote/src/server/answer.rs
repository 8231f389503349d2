//! Way from a request to an answer: parsing, limits, the call on the sandbox.
//!
//! Invariant: nothing of a request is used before its caller is admitted; what is refused here was
//! not started.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Request, Response, StatusCode, header};
use bytes::{Bytes, BytesMut};
use sandbox_core::{
    Capabilities, Capability, Command, Error, ErrorKind, Execution, Operation, Result, Sandbox,
    SandboxId, Signal, SnapshotId,
};
use serde::de::DeserializeOwned;
use tokio::io::AsyncReadExt as _;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::body::{Buffered, Incoming};
use super::calls::{Calls, Undo};
use super::lease::Held;
use super::processes::Running;
use super::reply::{Reply, refused, respond};
use super::routes::Action;
use super::sandboxes::{Known, Open};
use super::state::State;
use super::{archive, openapi};
use crate::wire::{self, INSTANCE, REQUEST_ID, Supports, frame};

/// Time that a request waits for its answer if it does not say.
const WAIT: Duration = Duration::from_secs(20);

/// The longest that a request may ask to wait.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The most output of one stream that the answer of `exec` carries; what is more is followed as a
/// process.
pub(crate) const EXEC_OUTPUT: u64 = 64 << 20;

/// Most bytes of input that one request carries.
const INPUT: usize = 4 << 20;

/// The parts of a request that are understood.
struct Asked {
    action: Action,
    operation: Operation,
    /// The sandbox, the process or the call that the path names.
    subject: String,
    query: HashMap<String, String>,
    headers: HeaderMap,
}

impl Asked {
    fn invalid(&self, why: impl Into<String>) -> Error {
        refused(ErrorKind::InvalidInput, self.operation, why)
    }

    /// The name of the call.
    fn name(&self) -> Result<String> {
        let name = self
            .headers
            .get(REQUEST_ID)
            .and_then(|name| name.to_str().ok());
        let name =
            name.ok_or_else(|| self.invalid(format!("the header {REQUEST_ID} is missing")))?;
        let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if !(16..=64).contains(&name.len()) || !name.bytes().all(fits) {
            let why = format!("{REQUEST_ID} must be 16 to 64 letters, digits and hyphens");
            return Err(self.invalid(why));
        }
        Ok(name.to_owned())
    }

    fn number(&self, key: &str) -> Result<u64> {
        let number = self.query.get(key).map(|text| text.parse());
        match number {
            Some(Ok(number)) => Ok(number),
            _ => Err(self.invalid(format!("the query needs {key}, a number"))),
        }
    }

    fn wait(&self) -> Result<Duration> {
        match self.query.contains_key("wait") {
            true => Ok(Duration::from_secs(self.number("wait")?).min(LONGEST_WAIT)),
            false => Ok(WAIT),
        }
    }

    fn length(&self) -> Option<usize> {
        let length = self.headers.get(header::CONTENT_LENGTH)?;
        length.to_str().ok()?.parse().ok()
    }

    fn parse<T: DeserializeOwned>(&self, body: &Buffered) -> Result<T> {
        let bytes = match body.bytes.is_empty() {
            true => b"{}",
            false => &body.bytes[..],
        };
        serde_json::from_slice(bytes).map_err(|error| {
            // Where, not what: the body may hold secrets.
            let at = format!("line {} column {}", error.line(), error.column());
            self.invalid(format!("the body is not what this route takes, at {at}"))
        })
    }
}

/// Answers a request of a caller that is admitted.
pub(super) async fn answer(
    state: Arc<State>,
    action: Action,
    subject: String,
    request: Request<Body>,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let query = parts.uri.query().unwrap_or_default();
    let query = query.split('&').filter_map(|pair| pair.split_once('='));
    let asked = Asked {
        action,
        operation: action.operation(),
        subject,
        query: query.map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        headers: parts.headers,
    };
    match try_answer(state, &asked, body).await {
        Ok(response) => response,
        Err(error) => Reply::error(error).into_response(),
    }
}

async fn try_answer(state: Arc<State>, asked: &Asked, body: Body) -> Result<Response<Body>> {
    let instance = asked.headers.get(INSTANCE);
    if instance.is_some_and(|instance| instance.as_bytes() != state.instance.as_bytes()) {
        let why = "the server was started anew; what it held before is gone";
        // Whether an earlier request reached the server before its end, the client knows.
        return Err(refused(ErrorKind::Lost, asked.operation, why));
    }
    let operation = asked.operation;
    match asked.action {
        Action::Health => Ok(Reply::json(&wire::Nothing {}, operation)?.into_response()),
        Action::OpenApi => Ok(Reply::json(&openapi::document(), operation)?.into_response()),
        Action::Info => {
            let hello = wire::Hello {
                backend: state.provider.backend().to_owned(),
                capabilities: Supports::from(&state.capabilities),
                sandbox: state.own.clone(),
                instance: state.instance.clone(),
            };
            Ok(Reply::json(&hello, operation)?.into_response())
        }
        Action::Answer => match state.calls.get(&asked.subject) {
            Some(call) => Ok(answered(call.wait(asked.wait()?).await)),
            None => {
                let why = "the server knows no such call";
                Err(refused(ErrorKind::NotFound, operation, why))
            }
        },
        Action::GiveUp => {
            state.calls.give_up(&asked.subject);
            Ok(Reply::json(&wire::Nothing {}, operation)?.into_response())
        }
        Action::LetGo => {
            state.processes.remove(&asked.subject);
            Ok(Reply::json(&wire::Nothing {}, operation)?.into_response())
        }
        Action::Stdout | Action::Stderr => follow(&state, asked),
        Action::Stdin | Action::Wait | Action::Kill | Action::Resize => {
            control(&state, asked, body).await
        }
        Action::Export => export(&state, asked, body).await,
        Action::Import => import(&state, asked, body).await,
        _ => {
            let idle = state.config.idle_time;
            let body = Incoming::new(body, idle, operation)
                .buffer(asked.length(), state.config.max_body, &state.buffered)
                .await?;
            match asked.action.is_named() {
                true => {
                    let (name, wait) = (asked.name()?, asked.wait()?);
                    let work = work(&state, asked, &name, body);
                    run(&state, asked, name, wait, work).await
                }
                false => {
                    let _place = state.place(operation)?;
                    Ok(read(&state, asked, &body).await?.into_response())
                }
            }
        }
    }
}

/// An answer, or that there is none yet.
fn answered(reply: Option<Reply>) -> Response<Body> {
    match reply {
        Some(reply) => reply.into_response(),
        None => {
            let body = Body::from(r#"{"state":"running"}"#);
            respond(StatusCode::ACCEPTED, "application/json", body)
        }
    }
}

/// Runs a call, or finds it, and waits for its answer.
async fn run<F>(
    state: &Arc<State>,
    asked: &Asked,
    name: String,
    wait: Duration,
    work: Result<F>,
) -> Result<Response<Body>>
where
    F: Future<Output = Result<(Reply, Option<Undo>)>> + Send + 'static,
{
    // A call that is known takes no place, and whatever holds of a new one.
    if let Some(call) = state.calls.get(&name) {
        if call.operation != asked.operation && call.operation != Operation::Connect {
            return Err(asked.invalid("the name of another call was used again"));
        }
        return Ok(answered(call.wait(wait).await));
    }
    let work = work?;
    let place = state.place(asked.operation)?;
    let (call, is_new) = state.calls.enter(&name, asked.operation);
    if is_new {
        Calls::start(&call, async move {
            let _place = place;
            match work.await {
                Ok(done) => done,
                Err(error) => (Reply::error(error), None),
            }
        });
    }
    Ok(answered(call.wait(wait).await))
}

type Work = std::pin::Pin<Box<dyn Future<Output = Result<(Reply, Option<Undo>)>> + Send>>;

/// Returns what a named call does. What this refuses was not started.
fn work(state: &Arc<State>, asked: &Asked, name: &str, body: Buffered) -> Result<Work> {
    let operation = asked.operation;
    let done = move |result: Result<()>| {
        result?;
        Ok((Reply::json(&wire::Nothing {}, operation)?, None))
    };
    let state = Arc::clone(state);
    Ok(match asked.action {
        Action::Create => {
            let wire::Create { mut spec, env } = asked.parse(&body)?;
            spec.env = wire::environment(env);
            spec.validate()?;
            spec.require(&state.capabilities, operation)?;
            let place = state.sandbox_place(operation)?;
            Box::pin(async move {
                let sandbox = state.provider.create(spec).await?;
                opened(&state, sandbox, place, operation)
            })
        }
        Action::Destroy => {
            let wire::Id { id } = asked.parse(&body)?;
            Box::pin(async move {
                let destroyed = state.provider.destroy(&SandboxId::new(&id)).await;
                if destroyed.is_ok() {
                    state.sandboxes.closed(&id);
                }
                done(destroyed)
            })
        }
        Action::DeleteSnapshot => {
            let wire::Id { id } = asked.parse(&body)?;
            Box::pin(
                async move { done(state.provider.delete_snapshot(&SnapshotId::new(id)).await) },
            )
        }
        Action::Signal => {
            let wire::SendSignal { signal } = asked.parse(&body)?;
            let (process, held) = found(&state, asked)?;
            Box::pin(async move {
                let _held = held;
                match process.alive() {
                    Some(alive) => done(alive.process.signal(Signal(signal)).await),
                    None => done(Ok(())),
                }
            })
        }
        _ => {
            let (held, sandbox) = sandbox_of(&state, asked)?;
            on_sandbox(state, asked, name, &body, held, sandbox)?
        }
    })
}

/// A call that changes something in a sandbox.
fn on_sandbox(
    state: Arc<State>,
    asked: &Asked,
    name: &str,
    body: &Buffered,
    held: Held<Arc<Open>>,
    sandbox: Arc<dyn Sandbox>,
) -> Result<Work> {
    let operation = asked.operation;
    let id = asked.subject.clone();
    let nothing = move |result: Result<()>| {
        result?;
        Ok((Reply::json(&wire::Nothing {}, operation)?, None))
    };
    macro_rules! plain {
        ($call:expr) => {
            Box::pin(async move {
                let _held = held;
                nothing($call.await)
            })
        };
    }
    Ok(match asked.action {
        Action::Exec => {
            let command = Command::from(asked.parse::<wire::Run>(body)?);
            if command.stdout_limit > EXEC_OUTPUT || command.stderr_limit > EXEC_OUTPUT {
                let why = format!("exec keeps at most {EXEC_OUTPUT} bytes of a stream here");
                let error = refused(ErrorKind::LimitExceeded, operation, why);
                return Err(error.with_hint("follow it as a process: spawn"));
            }
            let permit = state.command_place(operation)?;
            Box::pin(async move {
                let _held = (held, permit);
                let output = sandbox.exec(command).await?;
                Ok((
                    Reply::json(&wire::WireOutput::from(output), operation)?,
                    None,
                ))
            })
        }
        Action::Spawn => {
            let command = Command::from(asked.parse::<wire::Run>(body)?);
            if command.terminal.is_some() {
                let required = state.capabilities.require(Capability::Terminal, operation);
                required.map_err(|error| error.with_execution(Execution::NotStarted))?;
            }
            let permit = state.command_place(operation)?;
            let name = name.to_owned();
            Box::pin(async move {
                let process = sandbox.spawn(command).await?;
                let process = Arc::new(Running::new(process, held, permit));
                let spawned = wire::Spawned {
                    stdin: process.has_stdin().await,
                    stdout: process.stdout.is_some(),
                    stderr: process.stderr.is_some(),
                };
                let reply = Reply::json(&spawned, operation)?;
                state.processes.insert(name.clone(), process);
                let state = Arc::downgrade(&state);
                let undo: Undo = Box::new(move || {
                    if let Some(state) = state.upgrade() {
                        state.processes.remove(&name);
                    }
                });
                Ok((reply, Some(undo)))
            })
        }
        Action::WriteFiles => {
            let batch = wire::batch(asked.parse::<wire::WriteFiles>(body)?.files);
            plain!(sandbox.write_files(batch))
        }
        Action::Remove => {
            let wire::Remove { path, options } = asked.parse(body)?;
            plain!(sandbox.remove(&path, options))
        }
        Action::CreateDir => {
            let wire::CreateDir { path, options } = asked.parse(body)?;
            plain!(sandbox.create_dir(&path, options))
        }
        Action::Rename => {
            let wire::Rename { from, to, options } = asked.parse(body)?;
            plain!(sandbox.rename(&from, &to, options))
        }
        Action::SetEnv => {
            let env = wire::environment(asked.parse::<wire::SetEnv>(body)?.env);
            plain!(sandbox.set_env(env))
        }
        Action::SetWorkdir => {
            let wire::Path { path } = asked.parse(body)?;
            Box::pin(async move {
                let _held = held;
                sandbox.set_workdir(&path).await?;
                Ok((Reply::json(&handle(&state, &*sandbox), operation)?, None))
            })
        }
        Action::Fork => {
            let wire::Fork { options } = asked.parse(body)?;
            let place = state.sandbox_place(operation)?;
            Box::pin(async move {
                let _held = held;
                let fork = sandbox.fork(options).await?;
                opened(&state, fork, place, operation)
            })
        }
        Action::Snapshot => {
            let wire::TakeSnapshot { options } = asked.parse(body)?;
            Box::pin(async move {
                let _held = held;
                let snapshot = sandbox.snapshot(options).await?;
                let reply = Reply::json(&snapshot, operation)?;
                let state = Arc::downgrade(&state);
                let undo: Undo = Box::new(move || {
                    in_background(&state, move |state| async move {
                        // The client never learned of it; there is no one left to tell.
                        let _ = state.provider.delete_snapshot(&snapshot.id).await;
                    });
                });
                Ok((reply, Some(undo)))
            })
        }
        Action::Close => Box::pin(async move {
            let _held = held;
            let closed = sandbox.close().await;
            state.sandboxes.closed(&id);
            nothing(closed)
        }),
        _ => return Err(asked.invalid("this is not a call on a sandbox")),
    })
}

/// Takes in a sandbox that a call made, and closes it if the client never hears of it.
fn opened(
    state: &Arc<State>,
    sandbox: Arc<dyn Sandbox>,
    place: OwnedSemaphorePermit,
    operation: Operation,
) -> Result<(Reply, Option<Undo>)> {
    let reply = Reply::json(&handle(state, &*sandbox), operation)?;
    let id = sandbox.info().id.as_str().to_owned();
    state.sandboxes.insert(sandbox, Some(place));
    let state = Arc::downgrade(state);
    let undo: Undo = Box::new(move || {
        in_background(&state, move |state| async move {
            if let Known::Open(_, sandbox) = state.sandboxes.get(&id) {
                state.close(&*sandbox).await;
            }
        });
    });
    Ok((reply, Some(undo)))
}

fn in_background<F>(state: &Weak<State>, work: impl FnOnce(Arc<State>) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    if let (Some(state), Ok(runtime)) = (state.upgrade(), tokio::runtime::Handle::try_current()) {
        runtime.spawn(work(state));
    }
}

/// Returns what a client needs for a handle.
fn handle(state: &State, sandbox: &dyn Sandbox) -> wire::Handle {
    let capabilities: Capabilities = state.config.serves(sandbox.capabilities());
    wire::Handle {
        info: sandbox.info(),
        capabilities: Supports::from(&capabilities),
    }
}

/// A sandbox that is held open while it is used.
type Used = (Held<Arc<Open>>, Arc<dyn Sandbox>);

/// The open sandbox that the path names.
fn sandbox_of(state: &State, asked: &Asked) -> Result<Used> {
    let id = SandboxId::new(&asked.subject);
    match state.sandboxes.get(&asked.subject) {
        Known::Open(held, sandbox) => Ok((held, sandbox)),
        Known::Closed => {
            let error = Error::closed(asked.operation, &id);
            Err(match asked.operation {
                Operation::Exec | Operation::Spawn => {
                    error.with_execution(sandbox_core::Execution::NotStarted)
                }
                _ => error,
            })
        }
        Known::Unknown => {
            let why = "the server holds no such sandbox";
            let error = refused(ErrorKind::Lost, asked.operation, why).with_sandbox(id);
            Err(error.with_hint("attach to it first, or create another"))
        }
    }
}

/// A call that changes nothing: it may be made again at any time.
async fn read(state: &Arc<State>, asked: &Asked, body: &Buffered) -> Result<Reply> {
    let operation = asked.operation;
    match asked.action {
        Action::List => {
            let wire::WithLabels { labels } = asked.parse(body)?;
            let sandboxes = state.provider.list(&labels).await?;
            return Reply::json(&wire::Sandboxes { sandboxes }, operation);
        }
        Action::ListSnapshots => {
            let wire::WithLabels { labels } = asked.parse(body)?;
            let snapshots = state.provider.list_snapshots(&labels).await?;
            return Reply::json(&wire::Snapshots { snapshots }, operation);
        }
        Action::Attach => {
            let wire::Id { id } = asked.parse(body)?;
            if let Known::Open(_, sandbox) = state.sandboxes.get(&id) {
                return Reply::json(&handle(state, &*sandbox), operation);
            }
            let place = state.sandbox_place(operation)?;
            let sandbox = state.provider.attach(&SandboxId::new(id)).await?;
            let reply = Reply::json(&handle(state, &*sandbox), operation)?;
            state.sandboxes.insert(sandbox, Some(place));
            return Ok(reply);
        }
        _ => {}
    }
    let (_held, sandbox) = sandbox_of(state, asked)?;
    match asked.action {
        Action::Isolation => Reply::json(&sandbox.isolation().await?, operation),
        Action::ReadFile => {
            let wire::ReadFile { path, mut options } = asked.parse(body)?;
            options.limit = options.limit.min(state.config.max_read);
            Ok(Reply::bytes(sandbox.read_file(&path, options).await?))
        }
        Action::ListDir => {
            let wire::ListDir { path, options } = asked.parse(body)?;
            let entries = sandbox.list_dir(&path, options).await?;
            let entries = entries.into_iter().map(wire::Entry::from).collect();
            Reply::json(&wire::Entries { entries }, operation)
        }
        Action::Metadata => {
            let wire::Describe { path, options } = asked.parse(body)?;
            let metadata = sandbox.metadata(&path, options).await?;
            Reply::json(&wire::WireMetadata::from(metadata), operation)
        }
        _ => Err(asked.invalid("this route has no such call")),
    }
}

/// The process that the path names.
fn found(state: &State, asked: &Asked) -> Result<(Arc<Running>, Held<Arc<Running>>)> {
    state.processes.get(&asked.subject).ok_or_else(|| {
        let why = "the server holds no such process: its client let go of it, or was away for \
                   too long";
        Error::new(ErrorKind::Lost, asked.operation).with_message(why)
    })
}

/// One of the output streams of a process.
fn follow(state: &State, asked: &Asked) -> Result<Response<Body>> {
    let from = asked.number("from")?;
    let (process, held) = found(state, asked)?;
    let pipe = match asked.action {
        Action::Stderr => &process.stderr,
        _ => &process.stdout,
    };
    let Some(pipe) = pipe else {
        return Err(refused(
            ErrorKind::NotFound,
            asked.operation,
            "there is no such stream",
        ));
    };
    let frames = pipe.frames(from, held).map_err(|wrong| {
        let (start, end) = wrong.kept;
        asked.invalid(format!(
            "the offset {from} is not among those that are kept: {start} to {end}"
        ))
    })?;
    let body = Body::from_stream(frames);
    Ok(respond(StatusCode::OK, "application/octet-stream", body))
}

/// Input, waiting and killing.
async fn control(state: &Arc<State>, asked: &Asked, body: Body) -> Result<Response<Body>> {
    let operation = asked.operation;
    let body = Incoming::new(body, state.config.idle_time, operation)
        .buffer(asked.length(), INPUT, &state.buffered)
        .await?;
    let (process, _held) = found(state, asked)?;
    let wait = asked.wait()?;
    let reply = match asked.action {
        Action::Stdin => {
            let (offset, end) = (asked.number("offset")?, asked.query.contains_key("end"));
            if offset.checked_add(body.bytes.len() as u64).is_none() {
                return Err(asked.invalid("the offset is beyond every stream"));
            }
            match process.write(offset, &body.bytes, end, wait).await {
                Some(taken) => Reply::json(&taken, operation)?,
                None => return Err(asked.invalid("there is a gap before this input")),
            }
        }
        Action::Resize => {
            let wire::Resize { size } = asked.parse(&body)?;
            if let Some(alive) = process.alive() {
                alive.process.resize(size).await?;
            }
            Reply::json(&wire::Nothing {}, operation)?
        }
        Action::Kill => {
            if let Some(alive) = process.alive() {
                alive.process.kill().await?;
            }
            Reply::json(&wire::Nothing {}, operation)?
        }
        _ => {
            let Some(alive) = process.alive() else {
                return found(state, asked).map(|_| answered(None));
            };
            let mut gone = process.gone.subscribe();
            tokio::select! {
                exit = alive.process.wait() => {
                    Reply::json(&wire::Waited::Ended(exit?), operation)?
                }
                _ = gone.wait_for(|gone| *gone) => {
                    let why = "its client let go of the process";
                    return Err(Error::new(ErrorKind::Lost, operation).with_message(why));
                }
                () = tokio::time::sleep(wait) => Reply::json(&wire::Waited::Running, operation)?,
            }
        }
    };
    Ok(reply.into_response())
}

async fn import(state: &Arc<State>, asked: &Asked, body: Body) -> Result<Response<Body>> {
    let operation = asked.operation;
    let (name, wait) = (asked.name()?, asked.wait()?);
    let most = state.config.max_archive;
    let stored = Incoming::new(body, state.config.idle_time, operation).store(most);
    let (head, archive) = stored.await?;
    let work = || {
        let request: wire::Import = serde_json::from_slice(&head).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            asked.invalid(format!(
                "the head is not an import's, at line {line} column {column}"
            ))
        })?;
        let (held, sandbox) = sandbox_of(state, asked)?;
        Ok(async move {
            let _held = held;
            let report = archive::import(sandbox, request, archive, most).await?;
            Ok((Reply::json(&wire::Imported { report }, operation)?, None))
        })
    };
    run(state, asked, name, wait, work()).await
}

async fn export(state: &Arc<State>, asked: &Asked, body: Body) -> Result<Response<Body>> {
    let operation = asked.operation;
    let body = Incoming::new(body, state.config.idle_time, operation)
        .buffer(asked.length(), wire::MAX_HEAD, &state.buffered)
        .await?;
    let request: wire::Export = asked.parse(&body)?;
    let (held, sandbox) = sandbox_of(state, asked)?;
    let place = state.place(operation)?;
    let most = state.config.max_archive;
    let (sender, receiver) = mpsc::channel::<Bytes>(4);
    tokio::spawn(async move {
        let _held = (held, place);
        let work = async {
            if let Err(error) = send_export(&sender, sandbox, request, most).await {
                let problem = serde_json::to_vec(&wire::Problem::new(error));
                let problem = problem.unwrap_or_default();
                let _ = sender.send(framed(frame::ERROR, &problem)).await;
            }
        };
        let beat = async {
            loop {
                tokio::time::sleep(Duration::from_secs(5)).await;
                // A client that is slow has frames enough.
                let _ = sender.try_send(framed(frame::HEARTBEAT, b""));
            }
        };
        tokio::select! {
            () = work => {}
            () = sender.closed() => {}
            () = beat => {}
        }
    });
    let frames = futures_util::stream::unfold(receiver, |mut receiver| async {
        let bytes = receiver.recv().await?;
        Some((Ok::<_, std::io::Error>(bytes), receiver))
    });
    let body = Body::from_stream(frames);
    Ok(respond(StatusCode::OK, "application/octet-stream", body))
}

/// Sends an export as frames; an error if it can't be made.
async fn send_export(
    sender: &mpsc::Sender<Bytes>,
    sandbox: Arc<dyn Sandbox>,
    request: wire::Export,
    most: u64,
) -> Result<()> {
    const OP: Operation = Operation::ExportDir;
    let (head, archive) = archive::export(sandbox, request, most).await?;
    let head = Reply::json(&head, OP)?.body;
    let length = u32::try_from(head.len()).unwrap_or(u32::MAX).to_be_bytes();
    let first = [&length[..], &head].concat();
    // The client has gone if it takes no more.
    if sender.send(framed(frame::DATA, &first)).await.is_err() {
        return Ok(());
    }
    let mut archive = tokio::fs::File::from_std(archive);
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = archive.read(&mut buffer).await;
        let read = read.map_err(|error| Error::from_io(error, OP))?;
        if read == 0 {
            let _ = sender.send(framed(frame::END, b"")).await;
            return Ok(());
        }
        let part = buffer.get(..read).unwrap_or_default();
        if sender.send(framed(frame::DATA, part)).await.is_err() {
            return Ok(());
        }
    }
}

fn framed(kind: u8, bytes: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(frame::HEAD + bytes.len());
    frame.extend_from_slice(&frame::head(kind, bytes.len()));
    frame.extend_from_slice(bytes);
    frame.freeze()
}
