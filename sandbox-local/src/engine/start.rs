//! Bringing an agent up: namespaces, run_as, plan, ready. Blocking; about a
//! millisecond. Whatever fails on the way, nothing may stay behind.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::PidfdFlags;

use super::agent::{Agent, end, poll_readable};
use super::blank::{Blank, RunAs, at, control_pair, is_silent, map_user, namespaces};
use super::born::BornIn;
use super::error::StartError;
use super::plan::{Compiled, Plan};
use super::ready::Taken;
use super::wire;
use crate::protocol::{MAX_FDS, Message, reply, request, serving};

/// Description of a start.
pub(crate) struct StartConfig {
    /// Plan that the agent executes before it serves.
    pub(crate) plan: Plan,
    /// User that it is on the host.
    pub(crate) run_as: RunAs,
    /// Number of the guest's user and group inside.
    pub(crate) guest_id: u32,
    /// Whether it gets a network namespace of its own.
    pub(crate) isolate_network: bool,
    /// Control groups that it is born in; those of `taken`, if one is.
    pub(crate) born_in: Option<BornIn>,
    /// Limit of the time for the plan.
    pub(crate) timeout: Duration,
    /// An agent with a network of its own, if one was ready.
    pub(crate) taken: Option<Taken>,
}

/// Result of a start.
pub(crate) struct Started {
    /// Init that serves.
    pub(crate) init: Init,
    /// The sandbox's root directory (O_PATH).
    pub(crate) root: OwnedFd,
    /// Descriptors that the plan exported, in its order.
    pub(crate) exported: Vec<OwnedFd>,
}

/// An agent that serves and has no requests yet. Dropping it ends it and waits for that.
pub(crate) struct Init {
    // Before the agent, which ends with this.
    pub(super) socket: OwnedFd,
    pub(super) agent: Agent,
    pub(super) run_as: RunAs,
}

impl Init {
    /// Whether it is there still, and was not killed from outside.
    pub(crate) fn waits(&self) -> bool {
        is_silent(&self.socket)
    }
}

/// Starts an agent, or takes one that waits, and waits until it serves. Blocks for a millisecond or
/// two.
pub(crate) fn start(config: StartConfig) -> Result<Started, StartError> {
    let plan = config.plan.compile()?;
    let memory = wire::sealed("sandbox-plan", &[&plan.bytes]).map_err(at("lay out the plan"))?;
    // Until the agent serves: then it is replaced.
    let mut taken = config.taken;
    let blank = match taken.as_mut().and_then(Taken::blank) {
        Some(made) => {
            let blank = made?;
            send_plan(&blank.socket, &plan, &memory)?;
            blank
        }
        None => {
            // The plan is there before the agent is, which then waits for nothing but its user.
            let pair = control_pair()?;
            send_plan(&pair.0, &plan, &memory)?;
            let namespaces = namespaces(config.isolate_network);
            Blank::launch(pair, namespaces, config.born_in.as_ref())?
        }
    };
    map_user(blank.pid, config.run_as, config.guest_id)?;
    let Blank { socket, agent, .. } = blank;
    go(&socket, &plan)?;
    ready(agent, socket, &plan, config.run_as, config.timeout)
}

fn send_plan(socket: &OwnedFd, plan: &Compiled, memory: &OwnedFd) -> Result<(), StartError> {
    let message = Message {
        kind: request::PLAN,
        a: plan.bytes.len() as u64,
        ..Message::default()
    };
    let own = rustix::process::getpid();
    let host = rustix::process::pidfd_open(own, PidfdFlags::empty());
    let host = host.map_err(at("get hold of this process"))?;
    let fds = [memory.as_fd(), host.as_fd()];
    wire::send(socket.as_fd(), &message, &[], &fds).map_err(at("send the plan"))
}

/// Hands over what the plan inherits, and has the agent play it.
fn go(socket: &OwnedFd, plan: &Compiled) -> Result<(), StartError> {
    // At most one chunk goes along with the last message.
    let last = plan.inherited.len().saturating_sub(1) / MAX_FDS * MAX_FDS;
    let (first, last) = plan.inherited.split_at(last);
    let send = |kind, some: &[OwnedFd]| {
        let fds: Vec<BorrowedFd<'_>> = some.iter().map(AsFd::as_fd).collect();
        let message = Message {
            kind,
            ..Message::default()
        };
        wire::send(socket.as_fd(), &message, &[], &fds).map_err(at("hand over descriptors"))
    };
    for some in first.chunks(MAX_FDS) {
        send(request::HOLD, some)?;
    }
    send(request::GO, last)
}

fn ready(
    agent: Agent,
    socket: OwnedFd,
    plan: &Compiled,
    run_as: RunAs,
    timeout: Duration,
) -> Result<Started, StartError> {
    if !poll_readable(socket.as_fd(), timeout).map_err(at("wait for the agent"))? {
        return Err(StartError::TimedOut(timeout));
    }
    let mut payload = Vec::new();
    let mut fds = Vec::new();
    let received = match wire::receive_first(socket.as_fd(), &mut payload, &mut fds) {
        Ok(received) => received,
        // The agent closed its end without reading everything.
        Err(Errno::CONNRESET) => None,
        Err(errno) => return Err(at("hear from the agent")(errno)),
    };
    let Some(message) = received else {
        let status = agent.release().map(|launched| end(launched.pidfd.as_fd()));
        return Err(StartError::Died(status.unwrap_or_default()));
    };
    let errno = || wire::errno(message.b);
    if message.kind == reply::PLAN_FAILED {
        return Err(if message.flags == 0 {
            let index = usize::try_from(message.a).unwrap_or(usize::MAX);
            let label = plan.labels.get(index).cloned().unwrap_or_default();
            StartError::Op {
                label,
                index,
                errno: errno(),
            }
        } else {
            let what = match message.a {
                serving::PROC => "proc mount",
                serving::NULL => "/dev/null",
                _ => "root directory",
            };
            StartError::Serving {
                what,
                errno: errno(),
            }
        });
    }
    if message.kind != reply::READY || fds.is_empty() {
        return Err(at("understand the agent")(Errno::PROTO));
    }
    let exported = fds.split_off(1);
    let root = fds.pop().ok_or(StartError::Step {
        step: "receive the root",
        errno: Errno::PROTO,
    })?;
    Ok(Started {
        init: Init {
            socket,
            agent,
            run_as,
        },
        root,
        exported,
    })
}
