//! Runs a command in the guest, exactly once, and brings its output back byte for byte.
//!
//! A request that gets no answer is not sent again: what is asked then is what came of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sandbox_core::{
    Captured, CapturedOutput, Command, Error, ErrorKind, Exit, ExitStatus, GuestPath, Operation,
    Output, Ran, Result, Stdin,
};

use crate::carrier::Carrier;
use crate::handle::{Inner, fresh, kind_of};
use crate::http::Failure;
use crate::script::{EXEC, Script, decode, garbled, said};

const OP: Operation = Operation::Exec;
/// How long a request may take beyond what the guest waits.
const SLACK: Duration = Duration::from_secs(60);
/// The largest output that comes with the answer.
const INLINE: u64 = 256 << 10;
/// The longest argument that Linux takes, and all of them together.
const LONGEST: usize = 128 << 10;
const ALL: usize = 1900 << 10;
/// How often in a row nobody can tell what became of a command.
const UNKNOWN: u32 = 4;
/// Where programs are looked for if no environment says so.
const PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Kills a command whose caller has gone.
struct Guard<C: Carrier> {
    inner: Arc<Inner<C>>,
    dir: String,
    armed: bool,
}

impl<C: Carrier> Drop for Guard<C> {
    fn drop(&mut self) {
        self.inner.kept().running.retain(|dir| *dir != self.dir);
        if !self.armed {
            return;
        }
        let (inner, dir) = (Arc::clone(&self.inner), self.dir.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { inner.cancel(&[dir]).await });
        }
    }
}

impl<C: Carrier> Inner<C> {
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
            .http
            .shell(OP, self.id.as_str(), &line, true, timeout)
            .await;
        if let Err(failure) = done {
            tracing::debug!(status = ?failure.status, "a command could not be cancelled");
        }
    }

    pub(crate) async fn exec(self: Arc<Self>, command: Command) -> Result<Output> {
        let not_started = |error: Error| self.named(error).with_ran(Ran::NotStarted);
        self.open(OP).map_err(not_started)?;
        command.validate(OP).map_err(not_started)?;
        if command.user.is_some() {
            let caps = C::CAPABILITIES;
            caps.require(sandbox_core::Capability::User, OP)
                .map_err(not_started)?;
        }
        let cwd = match &command.cwd {
            Some(cwd) => self.resolve(cwd, OP).map_err(not_started)?,
            None => self.workdir(),
        };
        let (dir, nonce) = fresh(C::STAGING);
        let started = Instant::now();
        self.kept().running.push(dir.clone());
        let mut guard = Guard {
            inner: Arc::clone(&self),
            dir: dir.clone(),
            armed: true,
        };
        let input = match &command.stdin {
            Stdin::Bytes(bytes) if !bytes.is_empty() => {
                let file = format!("{dir}/in");
                let put = self
                    .http
                    .put_file(OP, self.id.as_str(), &file, bytes.clone())
                    .await;
                put.map_err(|failure| not_started(self.failed(failure)))?;
                file
            }
            _ => "/dev/null".to_owned(),
        };
        let script = self.script(&command, &dir, &nonce, &input, &cwd);
        let script = script.map_err(not_started)?;
        let answer = self.run(OP, &script, &dir, false, C::SLICE + SLACK).await;
        let text = self.settle(answer, &dir, &nonce, &command, started).await?;
        let done = self.outcome(&text, &dir, &command, &cwd, started).await;
        guard.armed = false;
        self.kept().litter.push(dir);
        done
    }

    /// Asks what became of a command until somebody knows.
    async fn settle(
        &self,
        mut answer: Result<String, Failure>,
        dir: &str,
        nonce: &str,
        command: &Command,
        started: Instant,
    ) -> Result<String> {
        let mut unknown = 0;
        loop {
            match answer {
                Ok(text) if text.trim_end() != "R" => return Ok(text),
                Ok(_) => {
                    unknown = 0;
                    tokio::time::sleep(C::pause(started.elapsed())).await;
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
                    let ran = match failure.unknown || unknown > 0 {
                        true => Ran::Unknown,
                        false => Ran::NotStarted,
                    };
                    return Err(self.failed(failure).with_ran(ran));
                }
            }
            let slice = C::SLICE.as_millis() / 10;
            let ask = Script::new(EXEC).text(&format!(
                "d={dir} n={nonce} L1={} L2={} I={INLINE} W={slice} T=\nawait\n",
                command.stdout_limit, command.stderr_limit
            ));
            answer = self.run(OP, &ask, dir, true, C::SLICE + SLACK).await;
        }
    }

    fn script(
        &self,
        command: &Command,
        dir: &str,
        nonce: &str,
        input: &str,
        cwd: &GuestPath,
    ) -> Result<Script> {
        let kept = self.kept();
        let mut env = kept.env.clone();
        let timeout = command.timeout.or(kept.info.command_timeout);
        let litter = kept.litter.clone();
        drop(kept);
        for (name, value) in command.env.iter() {
            env.insert(name.to_vec(), value.map(|value| value.value.clone()));
        }
        let marker = format!("SANDBOX_RUN={nonce}");
        // The arguments of `env`: what it unsets, what it sets, the program.
        let mut words: Vec<Vec<u8>> = Vec::new();
        for (name, _) in env.iter().filter(|(_, value)| value.is_none()) {
            words.push(b"-u".to_vec());
            words.push(name.clone());
        }
        words.push(b"--".to_vec());
        for (name, value) in &env {
            if let Some(value) = value {
                words.push([name, b"=".as_slice(), value.expose()].concat());
            }
        }
        words.push(marker.into_bytes());
        if command.program().contains(&b'=') {
            // `env` would take it for a variable.
            words.extend([&b"sh"[..], b"-c", b"exec \"$@\"", b"sh"].map(<[u8]>::to_vec));
        }
        words.extend(command.argv().iter().cloned());
        let total: usize = words.iter().map(|word| word.len() + 9).sum();
        if total > ALL || words.iter().any(|word| word.len() >= LONGEST) {
            return Err(Error::new(ErrorKind::LimitExceeded, OP)
                .with_message("arguments and environment are longer than Linux takes")
                .with_hint("128 KiB for one, 1.9 MiB for all; give more by stdin or a file"));
        }
        let limit = timeout.map_or(String::new(), |limit| {
            (limit.as_millis() / 10).max(1).to_string()
        });
        let slice = C::SLICE.as_millis() / 10;
        let mut script = Script::new(EXEC);
        if !litter.is_empty() {
            script = script.text("rm -rf");
            for dir in &litter {
                script = script.word(dir.as_bytes());
            }
            script = script.text("\n");
        }
        self.kept().litter.retain(|dir| !litter.contains(dir));
        script = script.text(&format!(
            "umask 022\nd={dir} n={nonce} T={limit} L1={} L2={} I={INLINE} W={slice}\npath=",
            command.stdout_limit.min(i64::MAX as u64 >> 8),
            command.stderr_limit.min(i64::MAX as u64 >> 8),
        ));
        match env.get(&b"PATH"[..]) {
            Some(Some(path)) => script.quoted(path.expose()),
            Some(None) => script.quoted(b"/bin:/usr/bin"),
            None => {
                script = script.text("${PATH:-");
                script = script.text(&String::from_utf8_lossy(PATH)).text("}");
            }
        }
        script = script
            .text("\nstart")
            .word(input.as_bytes())
            .word(cwd.as_bytes());
        script = script.word(command.program());
        for word in &words {
            script = script.word(word);
        }
        Ok(script.text("\n"))
    }

    /// Reads what the guest says of a command that ended or never started.
    async fn outcome(
        &self,
        text: &str,
        dir: &str,
        command: &Command,
        cwd: &GuestPath,
        started: Instant,
    ) -> Result<Output> {
        let unknown = |error: Error| self.named(error).with_ran(Ran::Unknown);
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
                        self.output(&format!("{dir}/o"), kept_out).await?,
                        self.output(&format!("{dir}/e"), kept_err).await?,
                    ),
                    first => (
                        decode(first, OP).map_err(unknown)?,
                        decode(said.rest.next(), OP).map_err(unknown)?,
                    ),
                };
                if stdout.len() as u64 != kept_out || stderr.len() as u64 != kept_err {
                    return Err(unknown(garbled(OP)));
                }
                let streams = CapturedOutput::new(
                    Captured::new(stdout, out),
                    Captured::new(stderr, err),
                    started.elapsed(),
                );
                self.ended(code, how, streams, command)
            }
            ["N"] | ["E", "CLAIMED", ..] => {
                let error = Error::new(ErrorKind::Unavailable, OP)
                    .with_message("the service lost the command before it started");
                let closed = self.open(OP).err();
                Err(self
                    .named(closed.unwrap_or(error))
                    .with_ran(Ran::NotStarted))
            }
            ["E", name, ..] => {
                let (kind, message) = kind_of(name);
                let of_program =
                    matches!(kind, ErrorKind::CommandNotFound | ErrorKind::NotExecutable);
                let path = match of_program {
                    true => GuestPath::new(command.program()),
                    false => cwd.clone(),
                };
                let error = Error::new(kind, OP).with_message(message).with_path(path);
                Err(self.named(error).with_ran(Ran::NotStarted))
            }
            _ => Err(unknown(garbled(OP))),
        }
    }

    async fn output(&self, file: &str, size: u64) -> Result<Bytes> {
        let read = self.http.get_file(OP, self.id.as_str(), file, size).await;
        read.map_err(|failure| self.failed(failure).with_ran(Ran::Unknown))
    }

    fn ended(
        &self,
        code: u64,
        how: &str,
        streams: CapturedOutput,
        command: &Command,
    ) -> Result<Output> {
        if how.contains('c') {
            let error = match self.open(OP) {
                Err(closed) => closed,
                Ok(()) => Error::new(ErrorKind::Lost, OP).with_message("the command was cancelled"),
            };
            return Err(self.named(error).with_partial_output(streams));
        }
        if how.contains('t') {
            let limit = command.timeout.or(self.kept().info.command_timeout);
            let error = Error::new(ErrorKind::Timeout, OP).with_message(format!(
                "the command was killed after its timeout of {:?}",
                limit.unwrap_or_default()
            ));
            return Err(self.named(error).with_partial_output(streams));
        }
        let status = match code & 0x7f {
            0 => ExitStatus::Code(u8::try_from(code >> 8 & 0xff).unwrap_or(u8::MAX)),
            signal => ExitStatus::Signal(i32::try_from(signal).unwrap_or(9)),
        };
        Ok(Output::new(Exit::new(status), streams))
    }
}
