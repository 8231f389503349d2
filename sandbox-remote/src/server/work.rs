//! Calls: what each does on the provider or a sandbox.
//!
//! Invariant: a call with a name is found and not run twice; what is refused here was not started.

use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::body::Body;
use axum::http::Response;
use sandbox_core::{
    Capabilities, Capability, Command, Error, ErrorKind, Execution, Operation, Result, Sandbox,
    SandboxId, Signal, SnapshotId,
};
use tokio::sync::OwnedSemaphorePermit;

use super::asked::Asked;
use super::body::Buffered;
use super::calls::Undo;
use super::follow::found;
use super::job_calls;
use super::lease::Held;
use super::processes::Running;
use super::reply::{Reply, answered, refused};
use super::routes::Action;
use super::sandboxes::{Known, Open};
use super::state::State;
use super::streams;
use super::used::{Work, sandbox_of};
use crate::wire::{self, Supports};

/// The most output of one stream that the answer of `exec` carries; what is more is followed as a
/// process.
pub(crate) const EXEC_OUTPUT: u64 = 64 << 20;

/// Runs a call, or finds it, and waits for its answer.
pub(super) async fn run<F>(
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
        state.calls.start(&call, async move {
            let _place = place;
            match work.await {
                Ok(done) => done,
                Err(error) => (Reply::error(error), None),
            }
        });
    }
    Ok(answered(call.wait(wait).await))
}

/// Returns what a named call does. What this refuses was not started.
pub(super) fn work(state: &Arc<State>, asked: &Asked, name: &str, body: Buffered) -> Result<Work> {
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
            if spec.source.names_host_path() && !state.config.host_paths {
                let why = "this server shows none of its host's files: name an image of a registry";
                return Err(Error::unsupported(operation, Capability::Image, why));
            }
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
        Action::Commit => {
            let (process, held) = found(&state, asked)?;
            let wire::Commit { size } = asked.parse(&body)?;
            Box::pin(async move {
                let _held = held;
                match &process.file {
                    Some(file) => done(file.commit(size, process.taken().await).await),
                    None => {
                        let why = "this is not a file that is written";
                        Err(refused(ErrorKind::InvalidInput, operation, why))
                    }
                }
            })
        }
        Action::Release => {
            let id = asked.subject.clone();
            Box::pin(async move {
                state.sandboxes.release(&id);
                done(Ok(()))
            })
        }
        Action::ChangeJob => job_calls::change(state, asked, &body)?,
        Action::StartJob => {
            let used = sandbox_of(&state, asked)?;
            job_calls::start(state, asked, &body, used)?
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
                let process = Arc::new(Running::new(process, Some(held), permit, None));
                let spawned = wire::Spawned {
                    stdin: process.has_stdin().await,
                    stdout: process.stdout.is_some(),
                    stderr: process.stderr.is_some(),
                };
                let reply = Reply::json(&spawned, operation)?;
                Ok((reply, Some(followed(&state, name, process))))
            })
        }
        Action::ConnectPort | Action::OpenRead | Action::OpenWrite | Action::Watch => {
            let opening = streams::opening(asked, body)?;
            let permit = state.command_place(operation)?;
            let name = name.to_owned();
            Box::pin(async move {
                let (reply, process, file) = opening.open(&*sandbox, operation).await?;
                let failed = Some(streams::FAILED);
                // A watch does not keep its sandbox, and is no use of it.
                let held = (operation != Operation::Watch).then_some(held);
                let process = Running::new(process, held, permit, failed).writes(file);
                let process = Arc::new(process);
                Ok((reply, Some(followed(&state, name, process))))
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
        Action::Pause => plain!(sandbox.pause()),
        Action::Unpause => plain!(sandbox.resume()),
        Action::RestrictEgress => {
            let wire::Policy { policy } = asked.parse(body)?;
            plain!(sandbox.restrict_egress(policy))
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

/// Takes in a process, and ends it if the client never hears of it.
fn followed(state: &Arc<State>, name: String, process: Arc<Running>) -> Undo {
    state.processes.insert(name.clone(), process);
    let state = Arc::downgrade(state);
    Box::new(move || {
        if let Some(state) = state.upgrade() {
            state.processes.remove(&name);
        }
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
    if let Some(state) = state.upgrade() {
        state.do_behind(work(Arc::clone(&state)));
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

/// A call that changes nothing: it may be made again at any time.
pub(super) async fn read(state: &Arc<State>, asked: &Asked, body: &Buffered) -> Result<Reply> {
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
            if let Some(sandbox) = state.sandboxes.attach(&id) {
                return Reply::json(&handle(state, &*sandbox), operation);
            }
            let place = state.sandbox_place(operation)?;
            let sandbox = state.provider.attach(&SandboxId::new(id)).await?;
            let reply = Reply::json(&handle(state, &*sandbox), operation)?;
            state.sandboxes.insert(sandbox, Some(place));
            return Ok(reply);
        }
        Action::AskJob => return job_calls::read(state, asked, body).await,
        _ => {}
    }
    let (_held, sandbox) = sandbox_of(state, asked)?;
    match asked.action {
        Action::Isolation => Reply::json(&sandbox.isolation().await?, operation),
        Action::Usage => Reply::json(&sandbox.usage().await?, operation),
        Action::FindJob => {
            let wire::Key { key } = asked.parse(body)?;
            let job = sandbox.find_job(&key).await?;
            Reply::json(&job.info().await?, operation)
        }
        Action::ListJobs => {
            let jobs = sandbox.list_jobs().await?;
            Reply::json(&wire::Jobs { jobs }, operation)
        }
        Action::EgressDecisions => {
            let wire::After { after } = asked.parse(body)?;
            Reply::json(&sandbox.egress_decisions(after).await?, operation)
        }
        Action::Changes => {
            let wire::Differ { path, mut options } = asked.parse(body)?;
            options.max_bytes = options.max_bytes.min(state.config.max_read);
            let changes = sandbox.changes(&path, options).await?;
            Reply::json(&wire::WireChanges::from(changes), operation)
        }
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
