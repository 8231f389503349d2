//! Commands that change the shell itself, and how every other is found.
//!
//! Invariant: a builtin never outlives the command that names it.

use std::sync::Arc;
use std::time::Duration;

use sandbox_core::ErrorKind;

use super::run::{Flow, Sh};
use super::start::{Target, find};
use crate::model::process::lock;

impl Sh {
    /// Runs a simple command with variables set for it alone.
    pub(super) async fn simple(
        &mut self,
        set: Vec<(Vec<u8>, Vec<u8>)>,
        argv: Vec<Vec<u8>>,
    ) -> Result<u8, Flow> {
        if argv.is_empty() {
            let code = if set.is_empty() { 0 } else { self.last };
            for (name, value) in set {
                let exported = self.vars.get(&name).is_some_and(|(_, exported)| *exported);
                self.vars.insert(name, (value, exported));
            }
            // Only a substitution among the values can have failed.
            return Ok(if self.children.is_empty() { 0 } else { code });
        }
        if let Some(done) = self.builtin(&argv).await {
            return done;
        }
        let before = (!set.is_empty()).then(|| self.vars.clone());
        for (name, value) in set {
            self.vars.insert(name, (value, true));
        }
        let done = self.dispatch(&argv).await;
        if let Some(before) = before {
            self.vars = before;
        }
        done
    }

    /// Finds a program and runs it.
    pub(super) async fn dispatch(&mut self, argv: &[Vec<u8>]) -> Result<u8, Flow> {
        let name = argv.first().cloned().unwrap_or_default();
        match find(&self.core.tree(), &self.cwd, self.search(), &name) {
            Ok(Target::Program("sh")) => {
                let argv = argv.to_vec();
                self.in_front(move |sh| Box::pin(async move { sh.shell(&argv).await }))
                    .await
            }
            Ok(Target::Program(program)) => Box::pin(self.run_program(program, argv)).await,
            Ok(Target::Script(path)) => {
                let argv = argv.to_vec();
                self.in_front(move |sh| Box::pin(async move { sh.interpret(&path, &argv).await }))
                    .await
            }
            // Only the start of a command asks for scripted outcomes.
            Ok(Target::Mock(_)) => Ok(0),
            Err(kind) => {
                let code = if kind == ErrorKind::NotExecutable {
                    126
                } else {
                    127
                };
                self.failed("sh", &name, kind).await?;
                Ok(code)
            }
        }
    }

    /// Runs a process of its own and waits for it.
    async fn in_front<F>(&mut self, body: F) -> Result<u8, Flow>
    where
        F: for<'a> FnOnce(&'a mut Sh) -> super::run::Run<'a> + Send + 'static,
    {
        let child = self.child(body, self.clone());
        let status = child.wait().await;
        self.children.retain(|known| !Arc::ptr_eq(known, &child));
        Ok(Self::code(status))
    }

    async fn builtin(&mut self, argv: &[Vec<u8>]) -> Option<Result<u8, Flow>> {
        let arg = |index: usize| argv.get(index).map(Vec::as_slice);
        let code = |text: Option<&[u8]>| {
            text.and_then(|text| std::str::from_utf8(text).ok()?.parse().ok())
        };
        Some(match argv[0].as_slice() {
            b":" => Ok(0),
            b"exit" => Err(Flow::Exit(code(arg(1)).unwrap_or(self.last))),
            b"cd" => {
                let path = self.path(arg(1).unwrap_or(b"/"));
                match self.core.tree().get(&path, true) {
                    Ok(node) if node.is_dir() => {
                        self.cwd = path;
                        Ok(0)
                    }
                    _ => self.complain("cd: no such directory").await,
                }
            }
            b"export" => {
                for word in &argv[1..] {
                    let mut parts = word.splitn(2, |b| *b == b'=');
                    let name = parts.next().unwrap_or_default().to_vec();
                    let old = self.vars.get(&name).map(|(value, _)| value.clone());
                    let value = parts.next().map(<[u8]>::to_vec).or(old);
                    self.vars.insert(name, (value.unwrap_or_default(), true));
                }
                Ok(0)
            }
            b"unset" => {
                for name in &argv[1..] {
                    self.vars.remove(name);
                }
                Ok(0)
            }
            b"set" | b"umask" => Ok(0),
            b"shift" => {
                if self.args.len() > 1 {
                    self.args.remove(1);
                }
                Ok(0)
            }
            b"read" => {
                let line = self.io.stdin.read_line().await;
                let found = line.is_some();
                if let Some(name) = argv.iter().skip(1).find(|word| !word.starts_with(b"-")) {
                    self.vars
                        .insert(name.clone(), (line.unwrap_or_default(), false));
                }
                Ok(u8::from(!found))
            }
            b"trap" => {
                let script = arg(1).filter(|script| *script != b"-");
                for name in argv.iter().skip(2) {
                    if let Some(signal) = signal_number(name) {
                        self.trap(signal, script);
                    }
                }
                Ok(0)
            }
            b"wait" => self.wait(code_of_pid(arg(1))).await,
            // Redirections of a bare `exec` last; the caller leaves them in place.
            b"exec" if argv.len() == 1 => Ok(0),
            b"exec" => match self.dispatch(&argv[1..]).await {
                Ok(code) => Err(Flow::Exit(code)),
                ended => ended,
            },
            b"kill" => self.kill(argv).await,
            _ => return None,
        })
    }

    async fn wait(&mut self, pid: Option<u32>) -> Result<u8, Flow> {
        let mut code = 0;
        for child in std::mem::take(&mut self.children) {
            if pid.is_some_and(|pid| pid != child.pid) {
                self.children.push(child);
                continue;
            }
            loop {
                // Signals are handled while waiting.
                let poll = Duration::from_millis(10);
                match tokio::time::timeout(poll, child.wait()).await {
                    Ok(status) => {
                        code = if pid.is_some() { Self::code(status) } else { 0 };
                        break;
                    }
                    Err(_) => self.checkpoint().await?,
                }
            }
        }
        Ok(code)
    }

    pub(super) async fn kill(&mut self, argv: &[Vec<u8>]) -> Result<u8, Flow> {
        let mut signal = 15;
        let mut found = true;
        let mut words = argv[1..].iter();
        while let Some(word) = words.next() {
            if word == b"-s" {
                let name = words.next().cloned().unwrap_or_default();
                signal = signal_number(&name).unwrap_or(15);
            } else if let Some(name) = word.strip_prefix(b"-") {
                match signal_number(name) {
                    Some(number) => signal = number,
                    None => return self.complain("kill: unknown signal").await,
                }
            } else {
                let pid = code_of_pid(Some(word));
                match pid.and_then(|pid| self.core.find_proc(pid)) {
                    Some(target) if target.pid == self.proc.pid => self.own(signal).await?,
                    Some(target) => target.signal(signal),
                    None => found = false,
                }
            }
        }
        if found {
            return Ok(0);
        }
        self.complain("kill: no such process").await
    }

    /// A signal that the process sends to itself.
    async fn own(&mut self, signal: i32) -> Result<(), Flow> {
        let handled = lock(&self.proc.traps).contains_key(&signal);
        match signal {
            0 | 17 | 18 | 28 => Ok(()),
            // Stopped, and never continued.
            19 | 20 => std::future::pending().await,
            9 => Err(Flow::Signal(9)),
            _ if handled => {
                self.proc.signal(signal);
                self.checkpoint().await
            }
            _ => Err(Flow::Signal(signal)),
        }
    }
}

fn code_of_pid(text: Option<&[u8]>) -> Option<u32> {
    std::str::from_utf8(text?).ok()?.parse().ok()
}

fn signal_number(name: &[u8]) -> Option<i32> {
    let name = std::str::from_utf8(name).ok()?;
    let name = name.strip_prefix("SIG").unwrap_or(name);
    Some(match name {
        "HUP" => 1,
        "INT" => 2,
        "QUIT" => 3,
        "KILL" => 9,
        "USR1" => 10,
        "USR2" => 12,
        "PIPE" => 13,
        "TERM" => 15,
        "CONT" => 18,
        "STOP" => 19,
        _ => name.parse().ok()?,
    })
}
