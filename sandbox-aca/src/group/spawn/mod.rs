//! `spawn`: a command whose streams are carried over the WebSocket of `exec/stream`.
//!
//! What the service executes is a shell with a script of ours: it starts the command, carries its
//! streams and says how it ended, which the service's own exit code does not (a signal looks like a
//! code). Signals and kills are requests of their own. A command is started at most once: the guest
//! claims it, as for `exec`.
//!
//! The older version knows one path to execute, no arguments and no end of input, so that the
//! script comes by the shell's input (`guest/spawn.sh`). In the newer one it is an argument, and
//! the shell's input is the command's (`guest/stream.sh`); official clients give input to terminals
//! alone, so that the guest confirms that any arrives before it starts a command with a pipe.
//!
//! A command with a terminal gets that of the shell which the service executes
//! (`guest/terminal.sh`): it leads the terminal's session, and what is typed goes to the command as it
//! is.
//!
//! Both streams come over one socket. Each has a bounded buffer; a program that fills one without a
//! reader holds up the other too.

mod control;
mod pump;
mod socket;
mod trailer;
#[cfg(test)]
pub(crate) use trailer::fuzzed;

use std::sync::Arc;
use std::time::Duration;

use sandbox_core::{
    Capability, Command, Error, ErrorKind, Execution, Operation, Process, ProcessStderr,
    ProcessStdin, ProcessStdout, Result, Stdin, TerminalSize,
};
use tokio::sync::watch;

use crate::group::protocol::Stream;
use crate::guest::exec::Guard;
use crate::guest::handle::Guest;
use crate::guest::launch::Launch;
use crate::guest::script::{COMMAND, COMMON, SPAWN, STREAM, Script, TERMINAL};
use crate::http::{Failure, Http};

use control::Control;
use pump::{Feed, Progress, Streams};
use socket::{Frame, Frames, Input};

const OP: Operation = Operation::Spawn;
/// Bytes that are kept of a stream that is not read.
const BUFFER: usize = 256 << 10;
/// Limit of the time for a start, its script and a guest that has to be woken included.
const START: Duration = Duration::from_secs(120);

impl Guest<Http> {
    /// Starts a command with streams; `op` is what asks for it.
    pub(crate) async fn spawn(self: Arc<Self>, op: Operation, command: Command) -> Result<Process> {
        let not_started = |error: Error| self.named(error).with_execution(Execution::NotStarted);
        let stream = self.transport.protocol().stream;
        let launch = self.prepare(op, &command).await.map_err(not_started)?;
        let launch = Arc::new(launch);
        let piped = matches!(command.stdin, Stdin::Piped);
        let mark = format!("end-{}", uuid::Uuid::new_v4().simple());
        let mut script = self.cleared().text(COMMON).text(COMMAND);
        script = match (command.terminal, stream) {
            (Some(terminal), _) => {
                let raw = if terminal.raw { "raw=1\n" } else { "raw=\n" };
                script.text(TERMINAL).text(raw)
            }
            (None, Stream::Path) => script.text(SPAWN),
            (None, Stream::Arguments) => script.text(SPAWN).text(STREAM),
        };
        let script = launch.settings(script).text(&format!("trailer={mark}\n"));
        let script = launch.call(script, "carry");
        let size = command.terminal.map(|terminal| terminal.size);
        let line = match stream {
            Stream::Path if size.is_some() => {
                let staged = self.as_program(op, &script, &launch).await;
                staged.map_err(not_started)?
            }
            Stream::Path => String::new(),
            Stream::Arguments => {
                let line = self.as_argument(op, script.0.clone(), &launch.dir).await;
                line.map_err(|failure| not_started(self.failed(failure)))?
            }
        };
        let versioned = stream == Stream::Arguments;
        let socket = self
            .transport
            .upgrade(op, &self.stream_path(), versioned)
            .await;
        let socket = socket.map_err(|failure| not_started(self.no_stream(op, failure)))?;
        let (mut input, mut frames) = socket::open(socket).await;
        let guard = Guard::apart(&self, &launch.dir);
        let begun = async {
            match (stream, size) {
                (Stream::Path, None) => begin(&mut input, &mut frames, &script).await,
                (Stream::Path, Some(_)) => {
                    input.start(&line, None, true, size).await?;
                    first_line(&mut frames, First::default()).await
                }
                (Stream::Arguments, _) => {
                    begin_with(&mut input, &mut frames, &line, piped, size).await
                }
            }
        };
        let First {
            out: line,
            err: said,
        } = match in_time(op, begun).await {
            Ok(first) => first,
            Err(error) => {
                // It is not known whether it runs: claimed, it never does.
                let (guard, ran) = self.claim(op, guard, &launch).await;
                drop(guard);
                return Err(self.named(error).with_execution(ran));
            }
        };
        let started = line.strip_prefix(b"S\n");
        // A terminal has its own ends of lines.
        let Some(first) = started.or_else(|| line.strip_prefix(b"S\r\n")) else {
            let line = String::from_utf8_lossy(&line).into_owned();
            let words: Vec<&str> = line.trim_end().split(' ').collect();
            return Err(Guest::not_started(&self, op, &words, &launch, &command));
        };
        let (sender, progress) = watch::channel(Progress::default());
        let (stdout, out) = tokio::io::duplex(BUFFER);
        let (stderr, err) = match size {
            None => {
                let (stderr, err) = tokio::io::duplex(BUFFER);
                (Some(ProcessStderr::new(stderr)), Some(err))
            }
            Some(_) => (None, None),
        };
        let streams = Streams {
            mark,
            out,
            err,
            first: first.to_vec(),
            first_err: said,
            progress: sender,
        };
        let (stdin, given) = match piped || size.is_some() {
            true => {
                let (stdin, given) = tokio::io::duplex(BUFFER);
                (Some(ProcessStdin::new(stdin)), Some(given))
            }
            false => (None, None),
        };
        let (size, sizes) = size.map(watch::channel).unzip();
        let feed = Feed {
            input,
            given,
            stream,
            sizes,
            nonce: launch.nonce.clone(),
        };
        tokio::spawn(feed.give(progress.clone(), Arc::clone(&self), launch.dir.clone()));
        let (guest, asked) = (Arc::clone(&self), Arc::clone(&launch));
        let runs = async move || guest.still_runs(&asked).await;
        let pump = tokio::spawn(streams.carry(frames, runs));
        let control = Control::new(guard, launch, progress, pump, size);
        let stdout = Some(ProcessStdout::new(stdout));
        Ok(Process::new(control, stdin, stdout, stderr))
    }

    /// The path of a file in the guest that executes a script, where the service takes no
    /// arguments.
    async fn as_program(&self, op: Operation, script: &Script, launch: &Launch) -> Result<String> {
        let Launch { dir, nonce, .. } = launch;
        let mut stage = Script::default().text(&format!(
            "mkdir -p {dir} && cat > {dir}/carry <<'{nonce}' && chmod 755 {dir}/carry && echo OK\n#!/bin/sh\n"
        ));
        stage.0.extend_from_slice(&script.0);
        let stage = stage.text(&format!("\n{nonce}\n"));
        // Once or twice is the same.
        let said = self.run(op, &stage, dir, true, START).await;
        let said = said.map_err(|failure| self.failed(failure))?;
        self.verdict(op, &said, &[])?;
        Ok(format!("{dir}/carry"))
    }

    fn stream_path(&self) -> [&str; 4] {
        ["sandboxes", self.id.as_str(), "exec", "stream"]
    }

    /// Why there is no stream: an older service has none at all.
    fn no_stream(&self, op: Operation, failure: Failure) -> Error {
        let absent = match failure.status {
            Some(404) => !failure.title.starts_with("Sandbox"),
            Some(status) => matches!(status, 405 | 426 | 501),
            None => false,
        };
        match absent {
            true => {
                let why = "this service has no exec/stream; exec works";
                self.named(Error::unsupported(op, Capability::Spawn, why))
                    .with_source(failure.error)
            }
            false => self.failed(failure),
        }
    }
}

/// Waits for a start, as long as one may take.
async fn in_time<T>(op: Operation, begun: impl Future<Output = Result<T>>) -> Result<T> {
    let begun = tokio::time::timeout(START, begun).await;
    begun.unwrap_or_else(|_| {
        let what = "the service did not start the command in two minutes";
        Err(Error::unanswered(op, what))
    })
}

/// Starts a shell, gives it the script, and reads the first line.
async fn begin(input: &mut Input, frames: &mut Frames, script: &Script) -> Result<First> {
    input.start("/bin/sh", None, true, None).await?;
    let size = script.0.len();
    // A shell reads ahead on its input: only this line may be there until it says that it waits for
    // so many bytes. The dot keeps newlines at the script's end.
    let line = format!("exec /bin/sh -c 'echo; x=$(head -c {size}; echo .); eval \"${{x%.}}\"'\n");
    input.stdin(line.as_bytes()).await?;
    let mut ready = first_line(frames, First::default()).await?;
    ready.out.drain(..1.min(ready.out.len()));
    input.stdin(&script.0).await?;
    first_line(frames, ready).await
}

/// Starts a shell with the script as its argument, and reads the first line.
async fn begin_with(
    input: &mut Input,
    frames: &mut Frames,
    line: &str,
    piped: bool,
    size: Option<TerminalSize>,
) -> Result<First> {
    let given = piped || size.is_some();
    let words = ["-c", line];
    input.start("/bin/sh", Some(&words), given, size).await?;
    if piped {
        // Read before the command starts, which shows that input arrives.
        input.stdin(b"input\n").await?;
    }
    first_line(frames, First::default()).await
}

/// Output that comes before the streams are carried.
#[derive(Debug, Default)]
struct First {
    out: Vec<u8>,
    err: Vec<u8>,
}

/// The most that is kept of what comes on stderr before the first line of stdout.
const MOST_FIRST: usize = 1 << 20;

/// Reads stdout until there is a line, and gives all that came.
async fn first_line(frames: &mut Frames, mut got: First) -> Result<First> {
    let broke = |why: &str| {
        Error::new(ErrorKind::Unavailable, OP)
            .with_message(format!("the command's shell did not start: {why}"))
    };
    while !got.out.contains(&b'\n') {
        match frames.next().await? {
            Some(Frame::Stdout(bytes)) => got.out.extend(bytes),
            // The command's may overtake the line; what the shell itself says is told from it by a mark.
            Some(Frame::Stderr(bytes)) => {
                got.err.extend(bytes);
                if got.err.len() > MOST_FIRST {
                    return Err(broke("it writes to stderr instead"));
                }
            }
            // How long it takes is bounded elsewhere.
            Some(Frame::Silence) => {}
            Some(Frame::Refused(why)) => return Err(broke(&why)),
            Some(Frame::Exit) | None => return Err(broke("it ended")),
        }
    }
    Ok(got)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_start_that_is_never_answered_ends() {
        let begun = tokio::time::Instant::now();
        let never = std::future::pending::<Result<()>>();
        let error = in_time(Operation::Spawn, never).await.expect_err("an end");
        assert!(error.message().contains("two minutes"), "{error}");
        let waited = begun.elapsed();
        assert!((START..START * 2).contains(&waited), "{waited:?}");
    }
}
