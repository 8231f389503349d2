//! The process engine: starts a sandbox's agent by a plan of system calls and
//! runs processes through it.
//!
//! Layers, bottom up: [`image`] (the agent as a file), [`plan`] (what the agent
//! is to do before it serves), [`start`] (bringing it up, blocking), [`ready`]
//! (agents brought up ahead of time), [`client`]
//! (talking to it), [`process`] (one process: its streams and its end). The
//! engine must never know what a sandbox is for: which directories, limits and
//! filters there are is in the plan that it is given.

mod agent;
mod blank;
mod born;
mod client;
mod connection;
mod drain;
mod error;
mod image;
mod listen;
mod outcome;
mod plan;
mod plan_calls;
mod plan_limits;
mod probe;
mod process;
mod ready;
mod request;
mod spawn;
mod start;
mod stream;
mod wire;

#[cfg(test)]
mod tests;

pub(crate) use blank::{RunAs, idmap_namespace};
pub(crate) use born::BornIn;
pub(crate) use client::{Engine, Frozen, Killer};
pub(crate) use connection::Killed;
pub(crate) use error::{ExitError, Failure, FailureKind, Lost, SpawnError, StartError};
pub(crate) use outcome::Exit;
pub(crate) use plan::{Arg, Data, Dir, Plan, Slot};
pub(crate) use probe::{Findings, ProbeError};
pub(crate) use process::{ExitFuture, Running, Tree};
pub(crate) use ready::{Ready, Taken};
pub(crate) use request::{SpawnRequest, Stdin, Terminal};
pub(crate) use start::{Init, StartConfig, start};
pub(crate) use stream::StdinWriter;

/// Reads a message as an agent's first and as a later one, for [`crate::fuzzing`].
#[cfg(test)]
pub(crate) fn fuzzed(bytes: &[u8]) {
    use std::os::fd::AsFd as _;

    for first in [true, false] {
        let Ok((ours, theirs)) = wire::control_pair() else {
            continue;
        };
        let sent = rustix::net::send(&theirs, bytes, rustix::net::SendFlags::DONTWAIT);
        if sent.is_err() {
            continue;
        }
        let message = if first {
            let (mut payload, mut fds) = (Vec::new(), Vec::new());
            let message = wire::receive_first(ours.as_fd(), &mut payload, &mut fds);
            assert!(payload.len() <= bytes.len() && fds.is_empty());
            message.ok().flatten()
        } else {
            let message = wire::receive(ours.as_fd());
            message.ok().flatten().map(|(message, fd)| {
                assert!(fd.is_none());
                message
            })
        };
        let Some(message) = message else { continue };
        let again = crate::protocol::Message::decode(&message.encode());
        assert!(again.is_some_and(|again| again.encode() == message.encode()));
        for end in [outcome::Progress::exited, outcome::Progress::failed] {
            let progress = outcome::Progress::default();
            end(&progress, &message);
            assert!(progress.has_ended());
            let _ = format!("{:?}", progress.outcome());
        }
    }
}
