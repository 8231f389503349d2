//! Starts a command of the model: finds the program, connects the streams, begins the task.
//!
//! Invariant: whatever can be wrong with a command is said before anything of it runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use sandbox_core::backend::{command_not_found, require_time};
use sandbox_core::{
    Capability, Command, Error, ErrorKind, Execution, ExitStatus, GuestPath, Operation, Process,
    ProcessStderr, ProcessStdin, ProcessStdout, Result, Stdin,
};
use tokio::io::AsyncWriteExt as _;

use super::io::{In, Io, Out};
use super::pipe::pipe;
use super::programs::PROGRAMS;
use super::run::Sh;
use crate::model::core::Core;
use crate::model::mock::{End, MockOutcome, Step};
use crate::model::process::{Group, ModelControl, lock};
use crate::model::tree::{Kind, Tree};

/// Longest argument, with its NUL byte: as on Linux.
const MAX_ARG: usize = 128 << 10;
/// Longest argument vector.
const MAX_ARGS: usize = 2 << 20;

/// A program that was found by its name.
pub(super) enum Target {
    /// One of the model's own.
    Program(&'static str),
    /// A file that starts with `#!`.
    Script(GuestPath),
    /// A scripted command of a test.
    Mock(MockOutcome),
}

/// Finds a program as `execvp` does.
pub(super) fn find(
    tree: &Tree,
    cwd: &GuestPath,
    search: Option<&[u8]>,
    name: &[u8],
) -> std::result::Result<Target, ErrorKind> {
    let known = |name: &[u8]| PROGRAMS.iter().find(|known| known.as_bytes() == name);
    if name.contains(&b'/') {
        let path = GuestPath::new(name)
            .resolve(cwd, Operation::Exec)
            .map_err(|_| ErrorKind::CommandNotFound)?;
        let own = path
            .strip_prefix(&"/bin".into())
            .or_else(|| path.strip_prefix(&"/usr/bin".into()))
            .and_then(|name| known(name.as_bytes()));
        if let Some(program) = own {
            return Ok(Target::Program(program));
        }
        let node = tree.get(&path, true).map_err(|kind| match kind {
            ErrorKind::PermissionDenied => ErrorKind::NotExecutable,
            _ => ErrorKind::CommandNotFound,
        })?;
        return match &node.kind {
            Kind::File(content) if node.allows(1) && content.starts_with(b"#!") => {
                let line = content.split(|b| *b == b'\n').next().unwrap_or_default();
                if line.ends_with(b"/sh") {
                    Ok(Target::Script(path))
                } else {
                    Err(ErrorKind::CommandNotFound)
                }
            }
            _ => Err(ErrorKind::NotExecutable),
        };
    }
    let mut found = ErrorKind::CommandNotFound;
    for dir in search.unwrap_or(b"/bin").split(|b| *b == b':') {
        let candidate = GuestPath::new(if dir.is_empty() { b"." } else { dir }).join(name);
        match find(tree, cwd, None, candidate.as_bytes()) {
            Err(ErrorKind::NotExecutable) => found = ErrorKind::NotExecutable,
            Err(_) => {}
            target => return target,
        }
    }
    Err(found)
}

/// Starts a command. The caller has checked that the sandbox is open.
pub(crate) fn start(core: &Arc<Core>, command: &Command, operation: Operation) -> Result<Process> {
    let named = |error: Error| {
        let error = match error.execution() {
            None => error.with_execution(Execution::NotStarted),
            Some(_) => error,
        };
        error.with_sandbox(core.id.clone())
    };
    let refuse = |kind, message: &str| Error::new(kind, operation).with_message(message);
    require_time(operation).map_err(named)?;
    command.validate(operation).map_err(named)?;
    if command.user.is_some() {
        let known = core
            .shared
            .capabilities
            .require(Capability::User, operation);
        known.map_err(named)?;
    }
    if command.terminal.is_some() {
        let capabilities = &core.shared.capabilities;
        let known = capabilities.require(Capability::Terminal, operation);
        known.map_err(named)?;
    }
    let long = |arg: &Vec<u8>| arg.len() >= MAX_ARG;
    let total: usize = command.argv().iter().map(|arg| arg.len() + 9).sum();
    if command.argv().iter().any(long) || total > MAX_ARGS {
        let error = refuse(
            ErrorKind::LimitExceeded,
            "the argument vector is too long: 128 KiB an argument, 2 MiB in all",
        );
        return Err(named(error));
    }
    let tree = core.tree();
    let given = command.cwd.clone().unwrap_or_else(|| ".".into());
    let cwd = core.resolve(&given, operation).map_err(named)?;
    let at_cwd = |kind| named(core.error(kind, operation, &given));
    let dir = tree.get(&cwd, true).map_err(at_cwd)?;
    if !dir.is_dir() {
        return Err(at_cwd(ErrorKind::NotADirectory));
    }
    if !dir.allows(1) {
        return Err(at_cwd(ErrorKind::PermissionDenied));
    }
    let env = core.environment(&command.env);
    if let Some(outcome) = core.shared.scripted(command) {
        if let End::NotStarted(kind) = outcome.end {
            return Err(named(refuse(kind, "scripted").with_path(command.program())));
        }
        return launch(core, command, operation, cwd, env, Target::Mock(outcome));
    }
    let search = env.get(b"PATH".as_slice()).map(Vec::as_slice);
    let target = find(&tree, &cwd, search, command.program()).map_err(|kind| {
        let text = match kind {
            ErrorKind::NotExecutable => "not executable",
            _ => "no such program",
        };
        named(match kind {
            ErrorKind::CommandNotFound => command_not_found(operation, command.program(), text),
            _ => refuse(kind, text).with_path(command.program()),
        })
    })?;
    launch(core, command, operation, cwd, env, target)
}

fn launch(
    core: &Arc<Core>,
    command: &Command,
    operation: Operation,
    cwd: GuestPath,
    env: BTreeMap<Vec<u8>, Vec<u8>>,
    target: Target,
) -> Result<Process> {
    let (stdout, stdout_writer) = pipe();
    let (stderr, stderr_writer) = pipe();
    let group = Arc::<Group>::default();
    let main = core.new_proc(vec![stdout_writer.clone(), stderr_writer.clone()]);
    let mut stdin = None;
    let input = match &command.stdin {
        Stdin::Bytes(bytes) => {
            let (reader, mut writer) = pipe();
            let bytes = bytes.clone();
            group.spawn(async move {
                // A program that does not want its input is not an error.
                let _ = writer.write_all(&bytes).await;
            });
            In::Pipe(reader)
        }
        Stdin::Piped => {
            let (reader, writer) = pipe();
            stdin = Some(ProcessStdin::new(writer));
            In::Pipe(reader)
        }
        _ => In::Empty,
    };
    let mut sh = Sh {
        core: core.clone(),
        group: group.clone(),
        proc: main.clone(),
        vars: env
            .into_iter()
            .map(|(name, value)| (name, (value, true)))
            .collect(),
        cwd,
        args: Vec::new(),
        last: 0,
        children: Vec::new(),
        io: Io {
            stdin: input,
            stdout: Out::Pipe(stdout_writer),
            stderr: Out::Pipe(stderr_writer),
        },
    };
    let argv = command.argv().to_vec();
    let proc = main.clone();
    let task = group.spawn(async move {
        let done = match target {
            Target::Program("sh") => sh.shell(&argv).await,
            Target::Program(program) => sh.run_program(program, &argv).await,
            Target::Script(path) => sh.interpret(&path, &argv).await,
            Target::Mock(outcome) => sh.mock(&outcome).await,
        };
        // What it held open closes before its end is told.
        drop(sh);
        proc.ended(match done {
            Ok(code) => ExitStatus::Code(code.into()),
            Err(flow) => flow.status(),
        });
    });
    main.runs_as(task);
    if !core.started(&group, &main) {
        group.kill();
        return Err(Error::closed(operation, &core.id).with_execution(Execution::Unknown));
    }
    // `exec` keeps its own.
    if operation != Operation::Exec
        && let Some(timeout) = command.timeout.or(core.command_timeout)
    {
        let (group, main) = (group.clone(), main.clone());
        tokio::spawn(async move {
            if tokio::time::timeout(timeout, main.wait()).await.is_err() {
                group.fail(ErrorKind::Timeout);
                group.kill();
                main.ended(ExitStatus::Signal(9));
            }
        });
    }
    let control = ModelControl {
        sandbox: core.id.clone(),
        group,
        main,
    };
    Ok(Process::new(
        control,
        stdin,
        Some(ProcessStdout::new(stdout)),
        Some(ProcessStderr::new(stderr)),
    ))
}

impl Sh {
    /// The shell itself: `sh -c SCRIPT [NAME ARG…]`, `sh FILE [ARG…]`, or a script on stdin.
    pub(super) async fn shell(&mut self, argv: &[Vec<u8>]) -> Result<u8, super::run::Flow> {
        match argv.get(1).map(Vec::as_slice) {
            Some(b"-c") => {
                let script = argv.get(2).cloned().unwrap_or_default();
                self.args = argv.get(3..).unwrap_or_default().to_vec();
                if self.args.is_empty() {
                    self.args.push(b"sh".to_vec());
                }
                Box::pin(self.script(&script)).await
            }
            Some(file) => {
                let path = self.path(file);
                self.interpret(&path, &argv[1..]).await
            }
            None => {
                let script = self.io.stdin.read_all().await;
                Box::pin(self.script(&script)).await
            }
        }
    }

    /// Takes the steps of a scripted command.
    async fn mock(&self, outcome: &MockOutcome) -> Result<u8, super::run::Flow> {
        for step in &outcome.steps {
            match step {
                Step::Stdout(bytes) => self.out(bytes).await?,
                Step::Stderr(bytes) => self.write(&self.io.stderr, bytes).await?,
                Step::Pause(time) => tokio::time::sleep(*time).await,
                Step::Write(path, content) => {
                    let path = self.path(path.as_bytes());
                    let written = self
                        .core
                        .change(|tree| tree.write(&path, content, None, false));
                    if let Err(kind) = written {
                        return self.failed("mock", path.as_bytes(), kind).await;
                    }
                }
            }
        }
        match outcome.end {
            // A shell keeps the lowest eight bits.
            End::Exit(code) => Ok(code as u8),
            End::Signal(signal) => Err(super::run::Flow::Signal(signal)),
            End::Hang | End::NotStarted(_) => std::future::pending().await,
        }
    }

    /// Runs a script file.
    pub(super) async fn interpret(
        &mut self,
        path: &GuestPath,
        argv: &[Vec<u8>],
    ) -> Result<u8, super::run::Flow> {
        let script = match self.core.tree().read(path, u64::MAX) {
            Ok(script) => script,
            Err(kind) => return self.failed("sh", path.as_bytes(), kind).await,
        };
        self.args = argv.to_vec();
        Box::pin(self.script(&script)).await
    }

    /// The `PATH` of the process.
    pub(super) fn search(&self) -> Option<&[u8]> {
        self.vars
            .get(b"PATH".as_slice())
            .map(|(value, _)| value.as_slice())
    }

    /// Makes the process ignore a signal, handle it or die of it.
    pub(super) fn trap(&self, signal: i32, script: Option<&[u8]>) {
        let mut traps = lock(&self.proc.traps);
        match script {
            Some(script) => traps.insert(signal, script.to_vec()),
            None => traps.remove(&signal),
        };
    }
}
