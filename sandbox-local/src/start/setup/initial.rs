//! The state that every sandbox starts from, whatever its host has: resource limits, scheduling,
//! I/O priority, keyring, file mode mask.
//!
//! All of it is inherited from the process that creates the sandbox, so all of it is set here, or
//! listed here as set elsewhere:
//!
//! | What | Becomes | Where |
//! |---|---|---|
//! | resource limits | the table in [`limits`] | here |
//! | scheduling policy, niceness | `SCHED_OTHER`, 0; a host that is nicer stays so | here |
//! | I/O priority | none, which follows the niceness | here |
//! | session keyring | a new, empty one | here |
//! | file mode mask | 0 during set-up, 022 for commands | `agent/sys/mod.rs`, `agent/play.rs` |
//! | `oom_score_adj` | 500, or the host's if that is higher | `engine/blank.rs` |
//! | signal mask and dispositions | nothing blocked, all default | `agent/sys/mod.rs` |
//! | supplementary groups | none for root's guests; an ordinary user can't leave its own, which no file inside belongs to | `privileges.rs` |
//! | descriptors, environment, memory | none | `sys/launch.rs` |
//!
//! Must never give a guest more than its host has: where the host's own limit is lower, that is
//! what the guest gets.
//!
//! References: getrlimit(2), sched(7), ioprio_set(2), session-keyring(7).

use rustix::process::Resource;

use super::inputs::Setup;
use crate::engine::{Arg, Plan};
use crate::mutation::{self, Part};

/// Processes and threads, where the spec sets no limit: what stops a fork bomb from taking the
/// host along.
const DEFAULT_PROCESSES: u64 = 4096;
/// Open files of the agent; its guests get half.
const OPEN_FILES: u64 = 131_072;
/// Memory for each open file of the agent, where memory is limited, but at least some files: not
/// every kernel charges to the limit what waits in each kind of socket.
const MEMORY_OF_A_FILE: u64 = 32 << 10;
const LEAST_FILES: u64 = 2048;
/// Of what the kernel counts for all processes of a user, and for the owner of their user
/// namespaces too, a sandbox gets this part of what the host's user has.
const SHARE: u64 = 8;
const SIGNALS: u64 = 4096;
/// A queue of the default size takes a tenth of the default limit: two must fit.
const QUEUE_SHARE: u64 = 4;
const LOCKED: u64 = 8 << 20;
const STACK: u64 = 8 << 20;
const UNLIMITED: u64 = u64::MAX;

/// A resource limit of a guest: soft and hard.
struct Limit {
    label: &'static str,
    resource: Resource,
    soft: u64,
    hard: u64,
}

/// Every resource limit that Linux has, as the guest gets it.
fn limits(setup: &Setup<'_>) -> [Limit; 16] {
    let of_host = |resource| rustix::process::getrlimit(resource);
    let most = |resource, wanted: u64| wanted.min(of_host(resource).maximum.unwrap_or(UNLIMITED));
    let same = |label, resource, wanted: u64| {
        let value = most(resource, wanted);
        Limit {
            label,
            resource,
            soft: value,
            hard: value,
        }
    };
    let share = |resource, part| of_host(resource).current.unwrap_or(UNLIMITED) / part;
    // One more than the spec grants: the agent counts as well.
    let processes = 1 + match setup.blueprint.resources().pids {
        Some(pids) => u64::from(pids),
        // Root itself is not limited.
        None if setup.guest_user.is_some() => DEFAULT_PROCESSES,
        None => DEFAULT_PROCESSES.min(share(Resource::Nproc, SHARE)),
    };
    let files = match setup.blueprint.resources().memory {
        Some(memory) => (memory / MEMORY_OF_A_FILE).clamp(LEAST_FILES, OPEN_FILES),
        None => OPEN_FILES,
    };
    let signals = SIGNALS.min(share(Resource::Sigpending, SHARE));
    let queues = share(Resource::Msgqueue, QUEUE_SHARE);
    let unlimited = |label, resource| same(label, resource, UNLIMITED);
    let stack = Limit {
        soft: most(Resource::Stack, STACK),
        ..unlimited("limit the stack", Resource::Stack)
    };
    [
        same("limit processes", Resource::Nproc, processes),
        same("limit open files", Resource::Nofile, files),
        same("limit timers and signals", Resource::Sigpending, signals),
        same("limit message queues", Resource::Msgqueue, queues),
        // Zero is not obeyed where a program on the host takes core dumps from a pipe; one is.
        same("switch core dumps off", Resource::Core, 1),
        same("limit locked memory", Resource::Memlock, LOCKED),
        same("limit niceness", Resource::Nice, 0),
        same("limit real-time priority", Resource::Rtprio, 0),
        stack,
        unlimited("lift the limit on processor time", Resource::Cpu),
        unlimited("lift the limit on file sizes", Resource::Fsize),
        unlimited("lift the limit on data", Resource::Data),
        unlimited("lift the limit on resident memory", Resource::Rss),
        unlimited("lift the limit on address space", Resource::As),
        unlimited("lift the limit on file locks", Resource::Locks),
        unlimited(
            "lift the limit on real-time processor time",
            Resource::Rttime,
        ),
    ]
}

/// Drops what the agent has from the host, and sets the limits that every descendant inherits and
/// cannot raise.
pub(super) fn set(plan: &mut Plan, setup: &Setup<'_>) {
    for Limit {
        label,
        resource,
        soft,
        hard,
    } in limits(setup)
    {
        if mutation::is_off(Part::Limits) {
            break;
        }
        plan.set_limit(label, resource, soft, hard);
    }
    if mutation::is_off(Part::Inherited) {
        return;
    }
    // After the limits, so that what is given up here does not come back.
    let priority = plan.data(&[0; 8]).into();
    // Refused where the host is idle (SCHED_IDLE), and so is the sandbox then.
    let args = [0.into(), (libc::SCHED_OTHER).into(), priority];
    let label = "leave the host's scheduling policy";
    plan.call(label, libc::SYS_sched_setscheduler, &args)
        .tolerate();
    // Refused where the host is nicer.
    let args = [libc::PRIO_PROCESS.into(), 0.into(), 0.into()];
    plan.call("leave the host's niceness", libc::SYS_setpriority, &args)
        .tolerate();
    // A kernel may be built without the following two.
    const WHO_PROCESS: u32 = 1;
    let args = [WHO_PROCESS.into(), 0.into(), 0.into()];
    plan.call("leave the host's I/O priority", libc::SYS_ioprio_set, &args)
        .tolerate();
    let join = [libc::KEYCTL_JOIN_SESSION_KEYRING.into(), Arg::Null];
    plan.call("leave the host's session keyring", libc::SYS_keyctl, &join)
        .tolerate();
}
