//! Containers as values: a chain of steps, evaluated when an answer needs it.
//!
//! Invariant: a step is evaluated at most once, unless it failed or its request went away.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use sandbox_core::{
    CapturedStream, Command, CreateDirOptions, ErrorKind, Exit, ExitStatus, FileBatch, GuestPath,
    Mode, Network, Output, PartialOutput, Provider as _, Sandbox, SandboxExt as _, SandboxSpec,
    Source,
};
use serde_json::json;
use tokio::sync::OnceCell;

use super::config::{Config, Mount};
use super::directory::{Directory, File};
use super::engine::{Engine, Failure};
use super::images::base;
use super::logs;
use super::quirks::Quirks;
use super::service;
use super::state::StateId;
use crate::distribution::unpack;

/// Bytes of each stream that an answer may have.
pub(super) const MAX_OUTPUT: u64 = 192 << 20;
/// Bytes of each stream that an error keeps.
const TAIL: usize = 100 << 10;

/// A container that may not have been evaluated yet.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) digest: String,
    pub(super) parent: Option<Arc<Container>>,
    pub(super) config: Config,
    pub(super) step: Step,
    pub(super) layers: u32,
    pub(super) done: OnceCell<Done>,
}

/// Step that makes a container out of its parent.
#[derive(Debug)]
pub(super) enum Step {
    /// Nothing in it.
    Scratch,
    /// An image.
    From(String),
    /// Only the configuration changes.
    Config,
    /// A command.
    Exec(Exec),
    /// Another root.
    Rootfs(Arc<Directory>),
    /// A directory merged into a path.
    Directory(String, Arc<Directory>),
    /// A layer of an image's archive.
    Layer(Arc<Vec<u8>>),
    /// A file put at a path, with a mode unless it keeps its own.
    File(String, Arc<File>, Option<u32>),
    /// A new text file with a mode.
    NewFile(String, String, u32),
    /// A file or directory taken away.
    Without(String),
}

/// A command.
#[derive(Debug)]
pub(super) struct Exec {
    pub(super) args: Vec<String>,
    pub(super) stdin: String,
    pub(super) expect: Expect,
}

/// The exit codes that are not an error.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expect {
    Success,
    Failure,
    Any,
}

impl Expect {
    /// The value of the argument; success if there is none.
    pub(super) fn new(argument: Option<&str>) -> Result<Self, Failure> {
        match argument {
            None | Some("SUCCESS") => Ok(Self::Success),
            Some("FAILURE") => Ok(Self::Failure),
            Some("ANY") => Ok(Self::Any),
            Some(other) => Err(Failure::text(format_args!(
                "Value {other:?} does not exist in \"ReturnType\" enum."
            ))),
        }
    }

    fn accepts(self, code: i32, quirks: &Quirks) -> bool {
        // Codes of signals are errors for the engine, whatever is expected.
        let signal = quirks.any_is_not_all && (128..=191).contains(&code);
        match self {
            Self::Success => code == 0,
            Self::Failure => code != 0 && !signal,
            Self::Any => !signal,
        }
    }
}

/// Result of an evaluated container.
#[derive(Clone, Debug)]
pub(super) struct Done {
    state: StateId,
    output: Option<Arc<Output>>,
}

impl Container {
    /// The files, as a sandbox that must not be changed.
    pub(super) async fn state(
        self: &Arc<Self>,
        engine: &Arc<Engine>,
    ) -> Result<Arc<dyn Sandbox>, Failure> {
        let done = self.evaluate(engine).await?;
        engine.states.get(done.state)
    }

    /// A state of these files that stays.
    pub(super) async fn pinned(self: &Arc<Self>, engine: &Arc<Engine>) -> Result<StateId, Failure> {
        let state = self.state(engine).await?;
        let copy = state.fork_one().await?;
        Ok(engine.states.keep_for_ever(copy))
    }

    /// The output of the last command.
    pub(super) async fn output(
        self: &Arc<Self>,
        engine: &Arc<Engine>,
    ) -> Result<Arc<Output>, Failure> {
        let mut at = self.clone();
        loop {
            let done = at.evaluate(engine).await?;
            if let Some(output) = done.output {
                return Ok(output);
            }
            let parent = at.parent.clone();
            at = parent.ok_or_else(|| Failure::text("no command has been set"))?;
        }
    }

    /// Does what the step says, after everything before it.
    pub(super) async fn evaluate(self: &Arc<Self>, engine: &Arc<Engine>) -> Result<Done, Failure> {
        let done = self
            .done
            .get_or_try_init(|| Box::pin(self.step(engine)))
            .await?;
        Ok(done.clone())
    }

    async fn step(self: &Arc<Self>, engine: &Arc<Engine>) -> Result<Done, Failure> {
        let files = |state| Done {
            state,
            output: None,
        };
        let state = match &self.step {
            Step::Scratch => return Err(Failure::text("an empty container has no files yet")),
            Step::From(image) => {
                if let Some(state) = engine.registry.pull(image, &self.config.logins)? {
                    return Ok(files(state));
                }
                return Ok(files(
                    engine.states.keep_for_ever(base(engine, image).await?),
                ));
            }
            Step::Config => return Ok(files(self.parent_done(engine).await?.state)),
            Step::Rootfs(directory) => {
                if let Some(root) = directory.whole_root() {
                    return Ok(files(root.evaluate(engine).await?.state));
                }
                let copied = directory.read(engine).await?;
                let spec = SandboxSpec::new()
                    .source(Source::RootDir(copied.path.clone()))
                    .network(Network::Open);
                let root = engine.provider.create(spec).await?;
                engine.host.pin(copied);
                return Ok(files(engine.states.keep_for_ever(root)));
            }
            Step::Layer(layer) => {
                let state = base(engine, "an archive").await?;
                unpack(&*state, layer).await?;
                return Ok(files(engine.states.keep_for_ever(state)));
            }
            Step::Exec(exec) => return self.exec(engine, exec).await,
            Step::Directory(path, directory) => {
                let copied = directory.read(engine).await?;
                let child = self.child(engine).await?;
                let to = GuestPath::from(path.as_str());
                child.import(&copied.path, &to).await?;
                child
            }
            Step::File(path, file, mode) => {
                let bytes = file.read(engine).await?;
                let child = self.child(engine).await?;
                let mode = Mode::new(mode.unwrap_or_else(|| file.mode()));
                let batch = FileBatch::new().file_with_mode(path.as_str(), bytes, mode);
                child.write_files(batch).await?;
                if let Some(time) = file.time() {
                    let time = format!("@{time}");
                    let touch = Command::new("touch").args(["-d", &time, "--", path]);
                    child.exec(touch.cwd("/")).await?;
                }
                child
            }
            Step::NewFile(path, contents, mode) => {
                let child = self.child(engine).await?;
                let batch = FileBatch::new().file_with_mode(
                    path.as_str(),
                    contents.clone(),
                    Mode::new(*mode),
                );
                child.write_files(batch).await?;
                child
            }
            Step::Without(path) => {
                let child = self.child(engine).await?;
                self.without(engine, &*child, path).await?;
                child
            }
        };
        Ok(files(engine.states.keep(state)))
    }

    /// The engine's way to remove: silently, recursively, by pattern.
    async fn without(
        &self,
        engine: &Engine,
        child: &dyn Sandbox,
        path: &str,
    ) -> Result<(), Failure> {
        let script = if engine.quirks().delete_globs {
            "IFS=; rm -rf -- $1"
        } else {
            "rm -rf -- \"$1\""
        };
        let removed = child
            .exec(Command::shell(script).cwd("/").args(["sh", path]))
            .await?;
        match removed.success() {
            true => Ok(()),
            false => Err(Failure::text(removed.stderr.to_string_lossy())),
        }
    }

    async fn parent_done(&self, engine: &Arc<Engine>) -> Result<Done, Failure> {
        let parent = self.parent.as_ref();
        parent
            .ok_or_else(|| Failure::text("no parent"))?
            .evaluate(engine)
            .await
    }

    async fn child(&self, engine: &Arc<Engine>) -> Result<Arc<dyn Sandbox>, Failure> {
        if let Some(limit) = engine.quirks().layer_limit
            && self.layers > limit
        {
            return Err(Failure::text(format_args!(
                "failed to mount rootfs: {} layers: invalid argument",
                self.layers
            )));
        }
        let parent = engine.states.get(self.parent_done(engine).await?.state)?;
        Ok(parent.fork_one().await?)
    }

    async fn exec(&self, engine: &Arc<Engine>, exec: &Exec) -> Result<Done, Failure> {
        self.config.check_user()?;
        let child = self.child(engine).await?;
        let mut caches = Vec::new();
        for (path, mount) in &self.config.mounts {
            let to = GuestPath::from(path.as_str());
            match mount {
                Mount::Directory(directory) => {
                    let copied = directory.read(engine).await?;
                    child.import(&copied.path, &to).await?;
                }
                Mount::Temp => {
                    let open = CreateDirOptions::new().mode(Mode::new(0o777));
                    child.create_dir(&to, open).await?;
                }
                Mount::Cache(cache, sharing) => {
                    caches.push(cache.mount(*sharing, &child, to).await?);
                }
            }
        }
        let Some((program, args)) = exec.args.split_first() else {
            return Err(Failure::text("no command has been set"));
        };
        let mut command = self.config.command(program, &engine.quirks()).args(args);
        command = command.stdin(exec.stdin.clone());
        command = command.output_limit(MAX_OUTPUT);
        let hosts = service::bind(engine, &self.config.bindings, &*child).await?;
        engine.count_execution();
        let ran = match logs::trace() {
            Some(trace) => logs::watch(engine, &*child, command, trace, &self.config.secrets).await,
            None => child.exec(command).await,
        };
        let output = match ran {
            Ok(output) => self.scrubbed(output),
            // The engine's init says so and exits with 1.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::CommandNotFound | ErrorKind::NotExecutable
                ) =>
            {
                let said = format!("fork/exec {program}: no such file or directory\n");
                let stderr = CapturedStream::new(said.clone(), said.len() as u64);
                let streams = PartialOutput::new(CapturedStream::default(), stderr, Duration::ZERO);
                Output::new(Exit::new(ExitStatus::Code(1)), streams)
            }
            Err(error) => {
                let _ = child.close().await;
                return Err(error.into());
            }
        };
        if let Some(failure) = refused(engine, exec, &output) {
            let _ = child.close().await;
            return Err(failure);
        }
        service::unbind(hosts, &*child).await?;
        for cache in caches {
            cache.unmount().await?;
        }
        for (path, _) in &self.config.mounts {
            child.remove_all(path.as_str()).await?;
        }
        Ok(Done {
            state: engine.states.keep(child),
            output: Some(Arc::new(output)),
        })
    }

    /// The engine takes secrets out of what a command writes.
    fn scrubbed(&self, mut output: Output) -> Output {
        for (_, secret) in &self.config.secrets {
            for stream in [&mut output.stdout, &mut output.stderr] {
                let text = String::from_utf8_lossy(&stream.bytes);
                if !secret.plaintext.is_empty() && text.contains(&secret.plaintext) {
                    let bytes = text.replace(&secret.plaintext, "***").into_bytes();
                    stream.total = bytes.len() as u64;
                    stream.bytes = bytes.into();
                }
            }
        }
        output
    }
}

/// The exit code as the engine gives it.
pub(super) fn exit_code(output: &Output) -> i32 {
    output.status.shell_code()
}

/// A stream as text.
pub(super) fn stream_text(engine: &Engine, bytes: &[u8]) -> String {
    if engine.quirks().lossy_text {
        String::from_utf8_lossy(bytes).into_owned()
    } else {
        String::from_utf8(bytes.to_vec())
            .unwrap_or_else(|_| base64::engine::general_purpose::STANDARD.encode(bytes))
    }
}

fn refused(engine: &Engine, exec: &Exec, output: &Output) -> Option<Failure> {
    let code = exit_code(output);
    let quirks = engine.quirks();
    if exec.expect.accepts(code, &quirks) {
        return None;
    }
    let tail = |bytes: &[u8]| {
        let from = match quirks.error_tails {
            true => bytes.len().saturating_sub(TAIL),
            false => 0,
        };
        let text = stream_text(engine, &bytes[from..]);
        match quirks.error_tails {
            true => text.trim().to_owned(),
            false => text,
        }
    };
    Some(Failure {
        path: Default::default(),
        message: format!("exit code: {code}"),
        exec: Some(json!({
            "_type": "EXEC_ERROR",
            "cmd": exec.args,
            "exitCode": code,
            "stdout": tail(&output.stdout.bytes),
            "stderr": tail(&output.stderr.bytes),
        })),
    })
}
