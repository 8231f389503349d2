//! An agent that runs: its lines, the status that they tell, its end.
//!
//! It must never hold more of what an agent writes than two lines and the end of its errors.

use std::collections::VecDeque;

use sandbox_core::{Exit, ExitStatus, Process, ProcessStderr, ProcessStdout};
use sandbox_sessions::{Session, Status};
use tokio::io::AsyncReadExt as _;

use crate::stream::{Lines, status};
use crate::{Result, StreamRule};

/// Bytes of standard error that are kept.
const ERRORS: usize = 64 << 10;
const PIECE: usize = 16 << 10;

/// One line of an agent's standard output.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AgentLine {
    /// Text of the line; what is not UTF-8 is replaced. It is the agent's, and may say anything.
    pub text: String,
    /// Whether it was longer than the mebibyte that is kept of it.
    pub truncated: bool,
    /// Status that it tells by the rules of the preset.
    pub status: Option<Status>,
}

/// The end of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AgentExit {
    /// Status with which its process ended.
    pub status: ExitStatus,
    /// The last of what it wrote to standard error, at most 64 KiB.
    pub errors: String,
}

/// An agent that was spawned. Dropping it kills the agent and all that it started.
///
/// What the agent writes is read as [`next_line`](AgentRun::next_line) or [`wait`](AgentRun::wait) is
/// called; an agent that nothing reads waits when the pipe is full. As lines are read, the session's
/// status follows them.
#[derive(Debug)]
pub struct AgentRun {
    session: Session,
    rules: Vec<StreamRule>,
    process: Process,
    stdout: Option<ProcessStdout>,
    stderr: Option<ProcessStderr>,
    lines: Lines,
    errors: VecDeque<u8>,
}

impl AgentRun {
    pub(crate) fn new(session: Session, rules: Vec<StreamRule>, mut process: Process) -> Self {
        Self {
            session,
            rules,
            stdout: process.stdout.take(),
            stderr: process.stderr.take(),
            process,
            lines: Lines::default(),
            errors: VecDeque::new(),
        }
    }

    /// The session that the agent runs in.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The next line of the agent's standard output; `None` when it has ended.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// None at present: a stream that can't be read ends, and [`wait`](AgentRun::wait) says why.
    pub async fn next_line(&mut self) -> Result<Option<AgentLine>> {
        loop {
            if let Some((line, truncated)) = self.lines.next() {
                let text = String::from_utf8_lossy(&line).into_owned();
                let told = if truncated {
                    None
                } else {
                    status(&self.rules, &text)
                };
                match told {
                    // That a command runs is seen.
                    Some(Status::Working) => self.session.report(None)?,
                    Some(told) => self.session.report(told)?,
                    None => {}
                }
                return Ok(Some(AgentLine {
                    text,
                    truncated,
                    status: told,
                }));
            }
            if self.stdout.is_none() && self.stderr.is_none() {
                return Ok(None);
            }
            self.read().await;
        }
    }

    /// Reads one piece of either stream.
    async fn read(&mut self) {
        let (mut out, mut err) = ([0; PIECE], [0; PIECE]);
        let (stdout, stderr) = (&mut self.stdout, &mut self.stderr);
        let from_out = async {
            match stdout {
                Some(stdout) => stdout.read(&mut out).await.unwrap_or(0),
                None => std::future::pending().await,
            }
        };
        let from_err = async {
            match stderr {
                Some(stderr) => stderr.read(&mut err).await.unwrap_or(0),
                None => std::future::pending().await,
            }
        };
        let (is_out, count) = tokio::select! {
            count = from_out => (true, count),
            count = from_err => (false, count),
        };
        match (is_out, count) {
            (true, 0) => {
                self.stdout = None;
                self.lines.end();
            }
            (true, count) => self.lines.push(&out[..count]),
            (false, 0) => self.stderr = None,
            (false, count) => {
                self.errors.extend(&err[..count]);
                let over = self.errors.len().saturating_sub(ERRORS);
                self.errors.drain(..over);
            }
        }
    }

    /// Reads the agent's output to its end, and waits for the agent's.
    ///
    /// Dropping the future kills the agent.
    ///
    /// # Errors
    /// [`Sandbox`](crate::ErrorKind::Sandbox) if the agent was ended early: at its timeout, with its
    /// sandbox.
    pub async fn wait(mut self) -> Result<AgentExit> {
        while self.next_line().await?.is_some() {}
        let exit: Exit = self.process.wait().await?;
        let errors: Vec<u8> = self.errors.into();
        Ok(AgentExit {
            status: exit.status,
            errors: String::from_utf8_lossy(&errors).into_owned(),
        })
    }

    /// Kills the agent and all that it started.
    ///
    /// # Errors
    /// [`Sandbox`](crate::ErrorKind::Sandbox) with what the backend says.
    pub async fn kill(&self) -> Result<()> {
        Ok(self.process.kill().await?)
    }
}
