//! Runs a parsed script.
//!
//! Invariant: between any two commands the task yields and looks at its signals, so that no
//! script can keep the runtime or escape a kill.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use sandbox_core::{ErrorKind, ExitStatus, GuestPath, Operation};

use super::io::{In, Io, Out};
use super::parse::{Body, Cmd, List, Pipeline, Redirect, Step, parse};
use super::pipe::pipe;
use crate::model::core::Core;
use crate::model::process::{Group, Proc, lock};

/// Why a script ends before its last command.
#[derive(Clone, Copy, Debug)]
pub(super) enum Flow {
    Exit(u8),
    Signal(i32),
}

impl Flow {
    pub(super) fn status(self) -> ExitStatus {
        match self {
            Self::Exit(code) => ExitStatus::Code(code.into()),
            Self::Signal(signal) => ExitStatus::Signal(signal),
        }
    }
}

pub(super) type Run<'a> = Pin<Box<dyn Future<Output = Result<u8, Flow>> + Send + 'a>>;

/// A shell, or whatever a program needs to know of its process.
#[derive(Clone)]
pub(super) struct Sh {
    pub(super) core: Arc<Core>,
    pub(super) group: Arc<Group>,
    pub(super) proc: Arc<Proc>,
    /// Variables; whether they are exported.
    pub(super) vars: BTreeMap<Vec<u8>, (Vec<u8>, bool)>,
    pub(super) cwd: GuestPath,
    /// `$0`, `$1`, ….
    pub(super) args: Vec<Vec<u8>>,
    pub(super) last: u8,
    pub(super) children: Vec<Arc<Proc>>,
    pub(super) io: Io,
}

impl Sh {
    /// The absolute path that a program means.
    pub(super) fn path(&self, path: &[u8]) -> GuestPath {
        GuestPath::new(path)
            .resolve(&self.cwd, Operation::Exec)
            .unwrap_or_else(|_| GuestPath::new(b"/\xff".to_vec()))
    }

    /// Runs a script to its end.
    pub(super) async fn script(&mut self, script: &[u8]) -> Result<u8, Flow> {
        match parse(script) {
            Ok(list) => self.list(&list).await,
            Err(why) => {
                self.complain(format!("sh: syntax error: {why}")).await?;
                Err(Flow::Exit(2))
            }
        }
    }

    /// Lets others run and handles the signals that came.
    pub(super) async fn checkpoint(&mut self) -> Result<(), Flow> {
        tokio::task::yield_now().await;
        loop {
            let Some(signal) = lock(&self.proc.pending).pop_front() else {
                return Ok(());
            };
            let handler = lock(&self.proc.traps).get(&signal).cloned();
            if let Some(handler) = handler {
                let last = self.last;
                Box::pin(self.script(&handler)).await?;
                self.last = last;
            }
        }
    }

    pub(super) fn list<'a>(&'a mut self, list: &'a List) -> Run<'a> {
        Box::pin(async move {
            let mut code = 0;
            for step in &list.0 {
                self.checkpoint().await?;
                code = if step.background {
                    self.background(step.clone());
                    0
                } else {
                    self.chain(step).await?
                };
                self.last = code;
            }
            self.checkpoint().await?;
            Ok(code)
        })
    }

    async fn chain(&mut self, step: &Step) -> Result<u8, Flow> {
        let mut code = self.pipeline(&step.first).await?;
        self.last = code;
        for (and, next) in &step.rest {
            if (code == 0) == *and {
                code = self.pipeline(next).await?;
                self.last = code;
            }
        }
        Ok(code)
    }

    fn background(&mut self, mut step: Step) {
        step.background = false;
        let mut child = self.clone();
        child.io.stdin = In::Empty;
        let list = List(vec![step]);
        self.child(
            move |sh| Box::pin(async move { sh.list(&list).await }),
            child,
        );
    }

    /// Starts a process of its own.
    pub(super) fn child<F>(&mut self, body: F, mut child: Sh) -> Arc<Proc>
    where
        F: for<'a> FnOnce(&'a mut Sh) -> Run<'a> + Send + 'static,
    {
        let proc = self.core.new_proc(Vec::new());
        // Ignored signals are inherited, handlers are not.
        let ignored = lock(&self.proc.traps)
            .iter()
            .filter(|(_, script)| script.is_empty())
            .map(|(signal, script)| (*signal, script.clone()))
            .collect();
        *lock(&proc.traps) = ignored;
        child.proc = proc.clone();
        child.children.clear();
        let mine = proc.clone();
        let task = self.group.spawn(async move {
            let status = match body(&mut child).await {
                Ok(code) => ExitStatus::Code(code.into()),
                Err(flow) => flow.status(),
            };
            mine.ended(status);
        });
        proc.runs_as(task);
        self.children.push(proc.clone());
        proc
    }

    async fn pipeline(&mut self, pipeline: &Pipeline) -> Result<u8, Flow> {
        let code = match pipeline.commands.as_slice() {
            [only] => self.command(only).await?,
            commands => self.joined(commands).await,
        };
        Ok(if pipeline.negated {
            u8::from(code == 0)
        } else {
            code
        })
    }

    /// Runs commands at once, each reading what the one before it writes.
    async fn joined(&mut self, commands: &[Cmd]) -> u8 {
        let mut stdin = self.io.stdin.clone();
        let mut started = Vec::new();
        for (index, command) in commands.iter().enumerate() {
            let mut child = self.clone();
            child.io.stdin = std::mem::replace(&mut stdin, In::Empty);
            if index + 1 < commands.len() {
                let (reader, writer) = pipe();
                child.io.stdout = Out::Pipe(writer);
                stdin = In::Pipe(reader);
            }
            let command = command.clone();
            let body = self.child(
                move |sh| Box::pin(async move { sh.command(&command).await }),
                child,
            );
            started.push(body);
        }
        let mut code = 0;
        for proc in started {
            code = Self::code(proc.wait().await);
            self.children.retain(|child| child.pid != proc.pid);
        }
        code
    }

    pub(super) fn code(status: ExitStatus) -> u8 {
        // A shell keeps the lowest eight bits.
        status.shell_code() as u8
    }

    fn command<'a>(&'a mut self, command: &'a Cmd) -> Run<'a> {
        Box::pin(async move {
            let outer = self.io.clone();
            for redirect in &command.redirects {
                if let Err(code) = self.redirect(redirect).await? {
                    self.io = outer;
                    return Ok(code);
                }
            }
            let done = self.body(&command.body).await;
            if !command.is_bare_exec() {
                self.io = outer;
            }
            done
        })
    }

    async fn body(&mut self, body: &Body) -> Result<u8, Flow> {
        match body {
            Body::Simple { assignments, words } => {
                let mut argv = Vec::new();
                for word in words {
                    argv.extend(self.expand(word).await?);
                }
                let mut set = Vec::new();
                for (name, value) in assignments {
                    set.push((name.clone(), self.expand_one(value).await?));
                }
                self.simple(set, argv).await
            }
            Body::Subshell(list) => {
                let mut inner = self.clone();
                match inner.list(list).await {
                    Err(Flow::Exit(code)) => Ok(code),
                    other => other,
                }
            }
            Body::Group(list) => self.list(list).await,
            Body::While(condition, list) => {
                let mut code = 0;
                while self.list(condition).await? == 0 {
                    code = self.list(list).await?;
                }
                Ok(code)
            }
            Body::If(arms, otherwise) => {
                for (condition, list) in arms {
                    if self.list(condition).await? == 0 {
                        return self.list(list).await;
                    }
                }
                match otherwise {
                    Some(list) => self.list(list).await,
                    None => Ok(0),
                }
            }
            Body::For(name, words, list) => {
                let mut values = Vec::new();
                for word in words {
                    values.extend(self.expand(word).await?);
                }
                let mut code = 0;
                for value in values {
                    self.vars.insert(name.clone(), (value, false));
                    code = self.list(list).await?;
                }
                Ok(code)
            }
        }
    }

    async fn redirect(&mut self, redirect: &Redirect) -> Result<Result<(), u8>, Flow> {
        let target = self.expand_one(&redirect.target).await?;
        let out = match (redirect.op, target.as_slice()) {
            (">&", b"1") => Ok(self.io.stdout.clone()),
            (">&", b"2") => Ok(self.io.stderr.clone()),
            ("<", target) => {
                let opened = self.open(target);
                return Ok(match opened {
                    Ok(stdin) => {
                        self.io.stdin = stdin;
                        Ok(())
                    }
                    Err(kind) => Err(self.failed("sh", target, kind).await?),
                });
            }
            (_, b"/dev/null") => Ok(Out::Null),
            (_, b"/dev/stdout") => Ok(self.io.stdout.clone()),
            (_, b"/dev/stderr") => Ok(self.io.stderr.clone()),
            (op, target) => {
                let path = self.path(target);
                let opened = self
                    .core
                    .change(|tree| tree.open_for_writing(&path, op == ">>"));
                match opened {
                    Ok(path) => Ok(Out::File(path)),
                    Err(kind) => Err(self.failed("sh", target, kind).await?),
                }
            }
        };
        Ok(out.map(|out| match redirect.fd {
            2 => self.io.stderr = out,
            _ => self.io.stdout = out,
        }))
    }

    /// Opens a file to read from.
    pub(super) fn open(&self, target: &[u8]) -> Result<In, ErrorKind> {
        match target {
            b"-" | b"/dev/stdin" => return Ok(self.io.stdin.clone()),
            b"/dev/null" => return Ok(In::Empty),
            b"/dev/zero" => return Ok(In::Zero),
            _ => {}
        }
        match self.core.tree().read(&self.path(target), u64::MAX) {
            Ok(content) => Ok(In::File(Arc::new(std::sync::Mutex::new((content, 0))))),
            Err(ErrorKind::NotARegularFile) => Ok(In::Never),
            Err(kind) => Err(kind),
        }
    }

    /// Says on stderr that a program could not do something with a path.
    pub(super) async fn failed(
        &self,
        program: &str,
        path: &[u8],
        kind: ErrorKind,
    ) -> Result<u8, Flow> {
        let path = String::from_utf8_lossy(path);
        self.complain(format!("{program}: {path}: {kind:?}")).await
    }
}
