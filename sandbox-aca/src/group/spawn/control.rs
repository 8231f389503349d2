//! Control of a spawned command: wait, signal, kill.
//!
//! Signals and kills never wait behind the command's streams: each is a request of its own.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use sandbox_core::{
    Error, ErrorKind, Execution, Exit, Operation, ProcessControl, Result, Signal, TerminalSize,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::pump::{End, Progress, told};
use crate::guest::exec::{Guard, timed_out};
use crate::guest::handle::Guest;
use crate::guest::launch::Launch;
use crate::guest::script::said;
use crate::http::Http;

const OP: Operation = Operation::Spawn;
/// Time that the guest waits for the end of a command whose output is not read.
const SLICE: Duration = Duration::from_secs(10);
/// Time that a killed command may take to be dead.
const KILL: Duration = Duration::from_secs(20);
/// Time that a request may take beyond that.
const SLACK: Duration = Duration::from_secs(20);

/// A spawned command.
#[derive(Debug)]
pub(super) struct Control {
    guard: Guard<Http>,
    launch: Arc<Launch>,
    progress: watch::Receiver<Progress>,
    /// End of the command that the guest said apart from the stream.
    known: OnceLock<End>,
    pump: JoinHandle<()>,
    /// Size of the command's terminal, if it has one.
    size: Option<watch::Sender<TerminalSize>>,
}

/// Answer of the guest when it is asked about a command.
enum Told {
    /// The command never starts.
    Never,
    Runs,
    Ended(End),
}

impl Guest<Http> {
    /// Asks how a command is, and kills it before if so wanted; waits so long for its end.
    async fn ask(
        &self,
        op: Operation,
        launch: &Launch,
        kill: bool,
        wait: Duration,
    ) -> Result<Told> {
        let dir = &launch.dir;
        let kill = if kill {
            format!(": > {dir}/cancel")
        } else {
            ":".into()
        };
        let line = format!(
            "mkdir -p {dir}; mkdir {dir}/claim 2> /dev/null && {{ {kill}; echo N; exit; }}; {kill}; looks={}; \
             while ! [ -e {dir}/done ]; do [ $((looks -= 1)) -gt 0 ] || {{ echo R; exit; }}; sleep 0.05; done; cat {dir}/done",
            wait.as_millis() / 50
        );
        let text = self
            .transport
            .shell(op, self.id.as_str(), &line, true, wait + SLACK)
            .await;
        let text = text.map_err(|failure| self.failed(failure))?;
        let words = said(&text, op).map_err(|error| self.named(error))?.words;
        match words[..] {
            ["N", ..] => Ok(Told::Never),
            ["D", code, _, _, _, _, _, why] => {
                let end = told(code, why);
                end.map(Told::Ended)
                    .ok_or_else(|| self.named(crate::guest::script::garbled(op)))
            }
            _ => Ok(Told::Runs),
        }
    }

    /// Whether a command goes on, as far as the guest can be asked.
    pub(super) async fn still_runs(&self, launch: &Launch) -> bool {
        let asked = self.ask(OP, launch, false, Duration::ZERO).await;
        matches!(asked, Ok(Told::Runs))
    }

    /// Whether a command runs whose start was not confirmed; if it does not, it never will.
    pub(super) async fn claim(
        &self,
        op: Operation,
        mut guard: Guard<Http>,
        launch: &Launch,
    ) -> (Guard<Http>, Execution) {
        match self.ask(op, launch, true, Duration::ZERO).await {
            Ok(Told::Never) => {
                guard.armed = false;
                (guard, Execution::NotStarted)
            }
            _ => (guard, Execution::Unknown),
        }
    }
}

impl Control {
    pub(super) fn new(
        guard: Guard<Http>,
        launch: Arc<Launch>,
        progress: watch::Receiver<Progress>,
        pump: JoinHandle<()>,
        size: Option<watch::Sender<TerminalSize>>,
    ) -> Self {
        Self {
            guard,
            launch,
            progress,
            known: OnceLock::new(),
            pump,
            size,
        }
    }

    fn guest(&self) -> &Arc<Guest<Http>> {
        &self.guard.guest
    }

    fn end(&self) -> Option<End> {
        let known = self.known.get().cloned();
        known.or_else(|| self.progress.borrow().end.clone())
    }

    fn outcome(&self, end: End) -> Result<Exit> {
        let guest = self.guest();
        let error = match end {
            _ if guest.open(OP).is_err() => Error::closed(OP, &guest.id),
            End::Exit { why, .. } if why.contains('t') => timed_out(OP, self.launch.timeout),
            End::Exit { exit, .. } => return Ok(exit),
            End::Broke(why) => Error::new(ErrorKind::Unavailable, OP)
                .with_message(format!("the command's stream broke off: {why}"))
                .with_hint("it may still run, unseen; drop the process to kill it"),
        };
        Err(guest.named(error).with_execution(Execution::Interrupted))
    }
}

#[async_trait]
impl ProcessControl for Control {
    async fn wait(&self) -> Result<Exit> {
        let mut progress = self.progress.clone();
        loop {
            if let Some(end) = self.end() {
                return self.outcome(end);
            }
            let stalled = progress.borrow_and_update().stalled;
            if !stalled {
                // The task that carries the streams reports the end before it ends.
                if progress.changed().await.is_err() {
                    return self.outcome(End::Broke("the task that carries it ended".into()));
                }
                continue;
            }
            // The end may be behind bytes that are not read.
            tokio::select! {
                changed = progress.changed() => drop(changed),
                asked = self.guest().ask(OP, &self.launch, false, SLICE) => {
                    if let Told::Ended(end) = asked? {
                        let _ = self.known.set(end);
                    }
                }
            }
        }
    }

    async fn signal(&self, signal: Signal) -> Result<()> {
        const OP: Operation = Operation::Signal;
        let guest = self.guest();
        if !(1..=64).contains(&signal.0) {
            let error = Error::new(ErrorKind::InvalidInput, OP)
                .with_message(format!("there is no signal number {}", signal.0));
            return Err(guest.named(error));
        }
        guest.open(OP)?;
        if self.end().is_some() {
            return Ok(());
        }
        let dir = &self.launch.dir;
        let line = format!(
            "[ -e {dir}/done ] || {{ read -r pid < {dir}/pid && kill -{} \"$pid\"; }} 2> /dev/null; echo OK",
            signal.0
        );
        let sent = guest
            .transport
            .shell(OP, guest.id.as_str(), &line, false, SLACK)
            .await;
        sent.map(drop).map_err(|failure| guest.failed(failure))
    }

    async fn kill(&self) -> Result<()> {
        if self.end().is_some() {
            return Ok(());
        }
        let guest = self.guest();
        guest.open(OP)?;
        match guest.ask(OP, &self.launch, true, KILL).await? {
            Told::Ended(end) => {
                let _ = self.known.set(end);
                Ok(())
            }
            Told::Never => Ok(()),
            Told::Runs => {
                let error = Error::new(ErrorKind::Busy, OP)
                    .with_message("the command was killed but has not ended yet")
                    .with_hint("kill again to wait on, or close the sandbox")
                    .with_retryable(true);
                Err(guest.named(error))
            }
        }
    }

    async fn resize(&self, size: TerminalSize) -> Result<()> {
        match &self.size {
            // One that has ended has no receiver.
            Some(sizes) => {
                sizes.send_replace(size);
                Ok(())
            }
            None => Err(self.guest().named(
                Error::new(ErrorKind::InvalidInput, Operation::Resize)
                    .with_message("the command has no terminal")
                    .with_hint("start it with Command::terminal"),
            )),
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        match self.end() {
            // How it ended is known: its directory goes with the next request, its streams with
            // their reader.
            Some(End::Exit { .. }) => {
                self.guard.armed = false;
                let dir = self.launch.dir.clone();
                self.guest().state().stale_dirs.push(dir);
            }
            Some(End::Broke(_)) => {}
            None => {
                // The guard kills it; then nothing is left to carry, or only what is not wanted.
                self.pump.abort();
            }
        }
    }
}
