//! Stops the processes of a sandbox: while it is paused, and while a snapshot is taken, so that a
//! restore that goes on with them has none that runs before it has its egress policy and they are
//! ended.
//!
//! It must never leave the source's processes stopped while it is told that all is well.

use std::sync::atomic::Ordering;
use std::time::Duration;

use sandbox_core::{Error, ErrorKind, Operation, Result};

use crate::guest::handle::{Guest, fresh};
use crate::guest::launch::{GATE, MARKED};
use crate::guest::script::said;
use crate::guest::transport::Transport;
use crate::http::Http;

/// Time that stopping and letting go may take.
const TURN: Duration = Duration::from_secs(60);

/// Processes that were stopped, by the directory in the guest that has the list.
#[derive(Debug)]
pub(crate) struct Held(Option<String>);

impl Guest<Http> {
    /// Stops what commands of this crate have started and what runs still. What was stopped already
    /// is left alone.
    pub(crate) async fn hold(&self, op: Operation) -> Result<Held> {
        let (dir, _) = fresh(Http::STAGING);
        self.hold_in(op, dir, "rm -rf").await.map(|(held, _)| held)
    }

    /// Stops them with the list in this directory, which `left` is done to if it is empty; tells
    /// whether some have not stopped.
    async fn hold_in(&self, op: Operation, dir: String, left: &str) -> Result<(Held, bool)> {
        let line = format!(
            "mkdir -p {dir}; : >> {dir}/held; round=0 mine=\n\
             while [ $round -lt 50 ]; do\n\
             found= round=$((round + 1))\n\
             for entry in $(grep -lsE '^Max file locks +{MARKED}[0-9]{{14}} ' /proc/[0-9]*/limits); do\n\
             entry=${{entry#/proc/}}; entry=${{entry%/limits}}\n\
             case $(grep -s '^State:' /proc/$entry/status) in\n\
             '' | *'(stopped)'* | *'(tracing stop)'* | *'(zombie)'* | *'(dead)'*) continue ;;\n\
             esac\n\
             [ -e {dir}/held ] && echo \"$entry\" >> {dir}/held || break\n\
             kill -STOP \"$entry\" 2> /dev/null && found=1 mine=\"$mine $entry\"\n\
             done\n\
             [ \"$found\" ] || break\n\
             done\n\
             [ -e {dir}/held ] || [ -z \"$mine\" ] || kill -CONT $mine 2> /dev/null\n\
             if [ \"$found\" ]; then echo MORE; elif [ -s {dir}/held ]; then echo HELD; else {left} {dir}; echo NONE; fi"
        );
        let done = self
            .transport
            .shell(op, self.id.as_str(), &line, false, TURN);
        match done.await {
            Ok(text) => match said(&text, op).map_err(|error| self.named(error))?.words[..] {
                ["MORE", ..] => Ok((Held(Some(dir)), true)),
                ["HELD", ..] => Ok((Held(Some(dir)), false)),
                _ => Ok((Held(None), false)),
            },
            Err(failure) => {
                // They may be stopped although no answer came.
                if failure.unknown {
                    self.let_go(op, Held(Some(dir))).await?;
                }
                Err(self.failed(failure))
            }
        }
    }

    /// Lets go on what was stopped.
    pub(crate) async fn let_go(&self, op: Operation, held: Held) -> Result<()> {
        let Held(Some(dir)) = held else {
            return Ok(());
        };
        let line = format!(
            "if [ -e {dir}/held ]; then while read -r pid; do kill -CONT \"$pid\" 2> /dev/null; done < {dir}/held; fi; \
             rm -rf {dir}; echo OK"
        );
        let done = self
            .transport
            .shell(op, self.id.as_str(), &line, true, TURN);
        done.await.map(drop).map_err(|failure| {
            let error = self.failed(failure);
            error.with_hint("its processes may be stopped: run kill -CONT -1 in it")
        })
    }

    /// Holds everything still until [`resume`](Self::resume): no command begins, and what runs is
    /// stopped. Files are read and written as before.
    pub(crate) async fn pause(&self) -> Result<()> {
        const OP: Operation = Operation::Pause;
        self.open(OP)?;
        let _one = self.pausing.lock().await;
        // From here on, even if this is given up: only `resume` lets go on what may be stopped.
        self.paused.store(true, Ordering::Release);
        let why = match self.hold_in(OP, gate(), ":").await {
            Ok((_, false)) => return Ok(()),
            Ok((_, true)) => self.named(
                Error::new(ErrorKind::Busy, OP)
                    .with_message("new processes came faster than they could be stopped")
                    .with_hint("pause again, or kill what starts them")
                    .with_retryable(true),
            ),
            Err(error) => error,
        };
        if self.let_go(OP, Held(Some(gate()))).await.is_ok() {
            self.paused.store(false, Ordering::Release);
        }
        Err(why)
    }

    /// Lets go on what [`pause`](Self::pause) held still.
    pub(crate) async fn resume(&self) -> Result<()> {
        const OP: Operation = Operation::Resume;
        self.open(OP)?;
        let _one = self.pausing.lock().await;
        if self.paused.load(Ordering::Acquire) {
            self.let_go(OP, Held(Some(gate()))).await?;
            self.paused.store(false, Ordering::Release);
        }
        Ok(())
    }
}

/// The directory that is there while a sandbox is paused.
fn gate() -> String {
    format!("{}{GATE}", Http::STAGING)
}
