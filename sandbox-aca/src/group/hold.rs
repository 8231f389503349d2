//! Stops the processes of a sandbox while a snapshot is taken: a restore that goes on with them has
//! none that runs before it has its egress policy and they are ended.
//!
//! It must never leave the source's processes stopped while it is told that all is well.

use std::time::Duration;

use sandbox_core::{Operation, Result};

use crate::guest::handle::{Guest, fresh};
use crate::guest::launch::MARKED;
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
        let line = format!(
            "mkdir -p {dir}; : > {dir}/held; round=0 mine=\n\
             while [ $round -lt 50 ]; do\n\
             found= round=$((round + 1))\n\
             for entry in $(grep -lsE '^Max realtime timeout +{MARKED}[0-9]{{14}} ' /proc/[0-9]*/limits); do\n\
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
             if [ -s {dir}/held ]; then echo HELD; else rm -rf {dir}; echo NONE; fi"
        );
        let done = self
            .transport
            .shell(op, self.id.as_str(), &line, false, TURN);
        match done.await {
            Ok(text) => match said(&text, op).map_err(|error| self.named(error))?.words[..] {
                ["HELD", ..] => Ok(Held(Some(dir))),
                _ => Ok(Held(None)),
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
}
