//! A spawned command while it runs: its query, its output as it comes, and its end.
//!
//! Invariant: what is handed on is what the supervisor wrote, in order, nothing lost or doubled: what
//! can't be had while it comes is taken from what the engine kept. Memory does not grow with what
//! the command writes.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use sandbox_core::backend::timed_out;
use sandbox_core::{Command, Error, ErrorKind, Execution, Exit, GuestPath, Operation, Result};
use tokio::io::{AsyncWriteExt as _, DuplexStream};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::sandbox::DaggerSandbox;
use crate::sandbox::chain::Turn;
use crate::sandbox::exec::{self, GRACE, Prepared};
use crate::sandbox::live::Live;
use crate::session::client::{SMALL_ANSWER, Trace};
use crate::session::failure::Failed;
use crate::session::logs::Logs;
use crate::session::query::{self, find};

const OP: Operation = Operation::Spawn;
/// Time for which output that may still come is waited for when the command has ended: the engine
/// shows it every 100 ms.
const SETTLE: Duration = Duration::from_secs(2);
/// Time for the same where there is no other way to it.
const LAST: Duration = Duration::from_secs(60);
/// Limit of both streams together as the engine keeps them, in base64.
const KEPT: u64 = 96 << 20;

/// State of a spawned command, as far as it is known.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    pub(super) started: bool,
    pub(super) outcome: Option<Result<Exit>>,
}

/// A spawned command.
#[derive(Debug)]
pub(super) struct Running {
    sandbox: Arc<DaggerSandbox>,
    command: (Command, GuestPath, Duration),
    prepared: Prepared,
    live: Live,
    /// Output as it comes; none once it can't be relied on.
    logs: Option<Logs>,
    /// The last record that was read.
    last: u64,
    /// Output that its readers have not taken yet.
    pending: [BytesMut; 2],
}

impl Running {
    pub(super) fn new(
        sandbox: Arc<DaggerSandbox>,
        command: (Command, GuestPath, Duration),
        prepared: Prepared,
        logs: Logs,
        last: u64,
    ) -> Self {
        Self {
            live: Live::new(&prepared.nonce),
            sandbox,
            command,
            prepared,
            logs: Some(logs),
            last,
            pending: Default::default(),
        }
    }

    /// Runs the query of a command to its end, and hands on what the command writes.
    pub(super) async fn carry(
        mut self,
        query: String,
        trace: Trace,
        turn: Turn,
        ends: [DuplexStream; 2],
        progress: watch::Sender<Progress>,
    ) {
        let mut ends = ends.map(Some);
        let outcome = self.until_it_ends(&query, &trace, &turn, &mut ends, &progress);
        let outcome = outcome.await.map_err(|error| self.sandbox.named(error));
        // The sandbox is free, and the end is known, whether or not the output is read.
        drop(turn);
        self.logs = None;
        progress.send_modify(|progress| progress.outcome = Some(outcome));
        while self.pending.iter().any(|pending| !pending.is_empty()) {
            self.hand_on(&mut ends).await;
        }
    }

    /// Writes what is pending to one of the readers. One that is gone gets nothing any more.
    async fn hand_on(&mut self, ends: &mut [Option<DuplexStream>; 2]) {
        let [out, err] = &mut self.pending;
        let [stdout, stderr] = ends;
        tokio::select! {
            () = write(stdout, out), if !out.is_empty() => {}
            () = write(stderr, err), if !err.is_empty() => {}
        }
    }

    async fn until_it_ends(
        &mut self,
        query: &str,
        trace: &Trace,
        turn: &Turn,
        ends: &mut [Option<DuplexStream>; 2],
        progress: &watch::Sender<Progress>,
    ) -> Result<Exit> {
        let sandbox = self.sandbox.clone();
        let within = self.command.2.saturating_add(GRACE);
        let asked = sandbox.ask_traced(query, Some(trace), OP, SMALL_ANSWER, within);
        let mut asked = std::pin::pin!(asked);
        let name = trace.base64();
        let mut id = None;
        let mut until = Instant::now();
        while id.is_none() || (self.logs.is_some() && !self.live.ended() && Instant::now() < until)
        {
            tokio::select! {
                answer = &mut asked, if id.is_none() => {
                    let answer = answer.map_err(interrupted)?;
                    let garbage = || Failed::Garbage("no id".into()).error(OP);
                    id = Some(find(&answer, "id").ok_or_else(garbage)?.to_owned());
                    until = Instant::now() + SETTLE;
                }
                came = self.step(&name, ends) => {
                    if self.live.started && !progress.borrow().started {
                        progress.send_modify(|progress| progress.started = true);
                    }
                    if came {
                        until = Instant::now() + SETTLE;
                    }
                }
                () = tokio::time::sleep_until(until), if id.is_some() => {}
            }
        }
        let id = id.unwrap_or_default();
        let exit = self.end(&id, &name, ends).await;
        self.sandbox.session.hand_over(self.live.written);
        let ran = match &exit {
            Ok(_) => true,
            Err(error) => error.execution() == Some(Execution::Interrupted),
        };
        if ran {
            turn.advance(&id, 1);
        }
        exit
    }

    /// Hands on what is pending, or reads what comes next: whether something came.
    async fn step(&mut self, trace: &str, ends: &mut [Option<DuplexStream>; 2]) -> bool {
        if self.pending.iter().any(|pending| !pending.is_empty()) {
            self.hand_on(ends).await;
            return false;
        }
        let Some(logs) = &mut self.logs else {
            return std::future::pending().await;
        };
        if let Some(event) = logs.next(trace).await {
            self.last = event.last;
            self.sandbox.session.saw(event.last);
            let mut records = event.records.iter();
            if records.any(|record| self.live.record(record, &mut self.pending).is_err()) {
                self.logs = None;
            }
            return !event.records.is_empty();
        }
        // It was cut: the engine shows again what came after the last record.
        let again = self.sandbox.session.logs(self.last, SETTLE).await;
        self.logs = again.ok();
        tokio::time::sleep(Duration::from_millis(100)).await;
        false
    }

    /// Tells the end of the command, from what came or else from what the engine kept, which goes on where
    /// the other stopped.
    async fn end(
        &mut self,
        id: &str,
        trace: &str,
        ends: &mut [Option<DuplexStream>; 2],
    ) -> Result<Exit> {
        if !(self.live.ended() && (self.live.refused.is_some() || self.live.code().is_ok())) {
            let query = query::on_container(id, "stdout stderr");
            let within = self.sandbox.patience();
            let asked = self.sandbox.ask(&query, OP, KEPT, within);
            match asked.await {
                Ok(answer) => {
                    let text = |name| find(&answer, name).unwrap_or_default();
                    let streams = [text("stdout"), text("stderr")];
                    let whole = Live::whole(&self.prepared.nonce, streams);
                    let (whole, bytes) = whole.map_err(|broken| exec::ended(broken, OP))?;
                    let handed = self.live.handed();
                    for (index, mut bytes) in bytes.into_iter().enumerate() {
                        let handed = usize::try_from(handed[index]).unwrap_or(usize::MAX);
                        bytes.advance(handed.min(bytes.len()));
                        self.pending[index].unsplit(bytes);
                    }
                    self.live = whole;
                }
                // More than can be had at once: it is only to be had as it comes.
                Err(error) if error.kind() == ErrorKind::LimitExceeded => {
                    let mut until = Instant::now() + LAST;
                    while self.logs.is_some() && !self.live.ended() {
                        let step = tokio::time::timeout_at(until, self.step(trace, ends)).await;
                        match step {
                            Ok(_) => until = Instant::now() + LAST,
                            Err(_) if self.pending.iter().all(|pending| pending.is_empty()) => {
                                break;
                            }
                            Err(_) => until = Instant::now() + LAST,
                        }
                    }
                }
                Err(error) => return Err(interrupted(error)),
            }
        }
        let (command, cwd, allowed) = &self.command;
        if let Some(why) = &self.live.refused {
            return Err(exec::not_started(why, command, cwd).with_operation(OP));
        }
        let code = self.live.code().map_err(|broken| exec::ended(broken, OP))?;
        if code == "timeout" {
            return Err(timed_out(OP, *allowed));
        }
        let lost = crate::guest::frame::Broken("its exit code is lost");
        exec::exit(code).ok_or_else(|| exec::ended(lost, OP))
    }
}

async fn write(end: &mut Option<DuplexStream>, pending: &mut BytesMut) {
    let wrote = match end {
        Some(stream) => stream.write(pending).await.unwrap_or(0),
        None => 0,
    };
    if wrote == 0 {
        *end = None;
        pending.clear();
    }
    pending.advance(wrote);
}

/// The error of a command that ran: where it is not said otherwise, it was ended.
fn interrupted(error: Error) -> Error {
    match (error.kind(), error.execution()) {
        (ErrorKind::Closed, _) => error.with_execution(Execution::Interrupted),
        _ => error,
    }
}
