//! Runs a command in the guest, exactly once, and brings its output back byte for byte.
//!
//! A request that gets no answer is not sent again: what is asked then is what came of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sandbox_core::backend::command_not_found;
use sandbox_core::{
    CapturedStream, Command, Error, ErrorKind, Execution, Exit, ExitStatus, Operation, Output,
    PartialOutput, Result,
};

use crate::guest::handle::{Guest, kind_of};
use crate::guest::launch::Launch;
use crate::guest::script::{COMMAND, COMMON, EXEC, Script, decode, garbled, said};
use crate::guest::transport::Transport;
use crate::http::Failure;

const OP: Operation = Operation::Exec;
/// Time that a request may take beyond what the guest waits.
const SLACK: Duration = Duration::from_secs(60);
/// The largest output that comes with the answer.
const INLINE: u64 = 256 << 10;
/// Number of unknown answers in a row after which a command is given up.
const UNKNOWN: u32 = 4;

/// Kills a command whose caller has gone.
#[derive(Debug)]
pub(crate) struct Guard<T: Transport> {
    pub(crate) guest: Arc<Guest<T>>,
    pub(crate) dir: String,
    pub(crate) armed: bool,
}

impl<T: Transport> Guard<T> {
    /// Guard from which on the command is killed with its sandbox, or when this is dropped.
    pub(crate) fn new(guest: &Arc<Guest<T>>, dir: &str) -> Self {
        guest.state().running.push(dir.to_owned());
        Self::apart(guest, dir)
    }

    /// Guard for a command that closing does not wait for.
    pub(crate) fn apart(guest: &Arc<Guest<T>>, dir: &str) -> Self {
        Self {
            guest: Arc::clone(guest),
            dir: dir.to_owned(),
            armed: true,
        }
    }
}

impl<T: Transport> Drop for Guard<T> {
    fn drop(&mut self) {
        self.guest.state().running.retain(|dir| *dir != self.dir);
        if !self.armed {
            return;
        }
        let (guest, dir) = (Arc::clone(&self.guest), self.dir.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { guest.cancel(&[dir]).await });
        }
    }
}

impl<T: Transport> Guest<T> {
    /// Ends commands, or keeps them from starting. What fails here the sandbox's end makes good.
    pub(crate) async fn cancel(&self, dirs: &[String]) {
        let mut line = String::new();
        for dir in dirs {
            line.push_str(&format!(
                "mkdir -p {dir}; mkdir {dir}/claim 2>/dev/null; : >{dir}/cancel; "
            ));
        }
        let timeout = Duration::from_secs(20);
        let done = self
            .transport
            .shell(OP, self.id.as_str(), &line, true, timeout)
            .await;
        if let Err(failure) = done {
            tracing::debug!(status = ?failure.status, "a command could not be cancelled");
        }
    }

    pub(crate) async fn exec(self: Arc<Self>, command: Command) -> Result<Output> {
        let not_started = |error: Error| self.named(error).with_execution(Execution::NotStarted);
        let started = Instant::now();
        let launch = self.prepare(OP, &command).await.map_err(not_started)?;
        let mut guard = Guard::new(&self, &launch.dir);
        let limits = format!(
            "out_limit={} err_limit={} inline={INLINE} slice={}\n",
            command.stdout_limit.min(i64::MAX as u64 >> 8),
            command.stderr_limit.min(i64::MAX as u64 >> 8),
            T::SLICE.as_millis() / 10
        );
        let mut script = self.cleared();
        for text in [COMMON, COMMAND, EXEC, &limits] {
            script = script.text(text);
        }
        let script = launch.call(launch.settings(script), "start");
        // A service that wants to be left alone is, but not for longer than the command may take.
        let patience = launch.timeout.unwrap_or(T::SLICE).min(T::SLICE) + SLACK;
        let answer = self.run(OP, &script, &launch.dir, false, patience).await;
        let text = self.settle(answer, &launch, &limits, started).await?;
        let done = self.outcome(&text, &launch, &command, started).await;
        guard.armed = false;
        self.state().stale_dirs.push(launch.dir);
        done
    }

    /// Asks what became of a command until it is known.
    async fn settle(
        &self,
        mut answer: Result<String, Failure>,
        launch: &Launch,
        limits: &str,
        started: Instant,
    ) -> Result<String> {
        let mut unknown = 0;
        // Of the first request alone a refusal means that the command did not start.
        let mut asked = false;
        loop {
            match answer {
                Ok(text) if text.trim_end() != "R" => return Ok(text),
                Ok(_) => {
                    unknown = 0;
                    tokio::time::sleep(T::pause(started.elapsed())).await;
                }
                Err(failure)
                    if failure.unknown
                        && unknown < UNKNOWN
                        && !self.closing.load(Ordering::Acquire) =>
                {
                    unknown += 1;
                    tokio::time::sleep(Duration::from_millis(200) * unknown).await;
                }
                Err(failure) => {
                    let ran = match failure.unknown || asked {
                        true => Execution::Unknown,
                        false => Execution::NotStarted,
                    };
                    return Err(self.failed(failure).with_execution(ran));
                }
            }
            let Launch { dir, nonce, .. } = launch;
            let mut ask = Script::default();
            for text in [COMMON, COMMAND, EXEC, limits] {
                ask = ask.text(text);
            }
            let ask = ask.text(&format!("dir={dir} nonce={nonce} timeout=\nawait\n"));
            answer = self.run(OP, &ask, dir, true, T::SLICE + SLACK).await;
            asked = true;
        }
    }

    /// Reads what the guest says of a command that ended or never started.
    async fn outcome(
        &self,
        text: &str,
        launch: &Launch,
        command: &Command,
        started: Instant,
    ) -> Result<Output> {
        let unknown = |error: Error| self.named(error).with_execution(Execution::Unknown);
        let mut said = said(text, OP).map_err(unknown)?;
        match said.words[..] {
            ["D", code, out, err, kept_out, kept_err, _, how, ..] => {
                let number = |text: &str| text.parse::<u64>().map_err(|_| unknown(garbled(OP)));
                let (out, err) = (number(out)?, number(err)?);
                let (kept_out, kept_err) = (number(kept_out)?, number(kept_err)?);
                let code = number(code)?;
                let first = said.rest.next();
                let (stdout, stderr) = match first {
                    Some("F") => (
                        self.output(&format!("{}/out", launch.dir), kept_out)
                            .await?,
                        self.output(&format!("{}/err", launch.dir), kept_err)
                            .await?,
                    ),
                    first => (
                        decode(first, OP).map_err(unknown)?,
                        decode(said.rest.next(), OP).map_err(unknown)?,
                    ),
                };
                if stdout.len() as u64 != kept_out || stderr.len() as u64 != kept_err {
                    return Err(unknown(garbled(OP)));
                }
                let streams = PartialOutput::new(
                    CapturedStream::new(stdout, out),
                    CapturedStream::new(stderr, err),
                    started.elapsed(),
                );
                self.ended(code, how, streams, launch)
            }
            _ => Err(self.not_started(OP, &said.words, launch, command)),
        }
    }

    /// Why a command did not start, by what the guest says.
    pub(crate) fn not_started(
        &self,
        op: Operation,
        words: &[&str],
        launch: &Launch,
        command: &Command,
    ) -> Error {
        let error = match words {
            ["N"] | ["E", "CLAIMED", ..] => {
                let error = Error::new(ErrorKind::Unavailable, op)
                    .with_message("the service lost the command before it started");
                self.open(op).err().unwrap_or(error)
            }
            ["E", name, ..] => {
                let (kind, message) = kind_of(name);
                if kind == ErrorKind::CommandNotFound {
                    return self.named(command_not_found(op, command.program(), message));
                }
                let error = Error::new(kind, op).with_message(message);
                match kind {
                    ErrorKind::NotExecutable => error.with_path(command.program()),
                    _ => error.with_path(&launch.cwd),
                }
            }
            _ => return self.named(garbled(op)).with_execution(Execution::Unknown),
        };
        self.named(error).with_execution(Execution::NotStarted)
    }

    async fn output(&self, file: &str, size: u64) -> Result<Bytes> {
        let read = self.get_large(OP, file, size).await;
        read.map_err(|failure| self.failed(failure).with_execution(Execution::Unknown))
    }

    fn ended(
        &self,
        code: u64,
        how: &str,
        streams: PartialOutput,
        launch: &Launch,
    ) -> Result<Output> {
        if how.contains('c') {
            let error = match self.open(OP) {
                Err(closed) => closed,
                Ok(()) => Error::new(ErrorKind::Lost, OP).with_message("the command was cancelled"),
            };
            return Err(self.named(error).with_partial_output(streams));
        }
        if how.contains('t') {
            let error = timed_out(OP, launch.timeout);
            return Err(self.named(error).with_partial_output(streams));
        }
        Ok(Output::new(exit(code), streams))
    }
}

pub(crate) fn timed_out(op: Operation, limit: Option<Duration>) -> Error {
    sandbox_core::backend::timed_out(op, limit.unwrap_or_default())
}

/// End of a command, by what `wait` would say.
pub(crate) fn exit(code: u64) -> Exit {
    Exit::new(match code & 0x7f {
        0 => ExitStatus::Code(i32::try_from(code >> 8 & 0xff).unwrap_or(255)),
        signal => ExitStatus::Signal(i32::try_from(signal).unwrap_or(9)),
    })
}
