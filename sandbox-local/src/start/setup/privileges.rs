//! Privileges of the guest: user, capabilities, Landlock, system calls.
//!
//! References: capabilities(7), prctl(2), landlock(7), seccomp(2).

use std::sync::LazyLock;

use super::seccomp;
use crate::engine::{Dir, Plan};
use crate::mutation::{self, Part};

/// Of the watches on files that the kernel counts for all processes of a user, in all user
/// namespaces together, a sandbox gets this part of what the host's user has; and half of the
/// instances, of which there are few, and of which a watcher of a web project takes dozens.
const SHARE: u64 = 8;
const INOTIFY_INSTANCES: u64 = 1024;
const INOTIFY_WATCHES: u64 = 65_536;

/// Capabilities that the agent itself goes on needing, in its own user namespace: to kill, to read
/// whose namespaces are whose, to make a namespace for each command.
const KEPT: u64 = 1 << CAP_KILL | 1 << CAP_SYS_PTRACE | 1 << CAP_SYS_ADMIN;
/// Capability of a guest that is root: over files of the one user that its namespace has.
const OF_ROOT: u64 = 1 << CAP_DAC_OVERRIDE;
const CAP_DAC_OVERRIDE: u64 = 1;
const CAP_KILL: u64 = 5;
const CAP_SYS_PTRACE: u64 = 19;
const CAP_SYS_ADMIN: u64 = 21;

/// `SECBIT_NOROOT` and `SECBIT_NO_CAP_AMBIENT_RAISE`, both locked: no program gains anything by
/// being run, by whatever user.
const SECURE_BITS: u64 = 1 | 2 | 1 << 6 | 1 << 7;

/// Features of this host's kernel, asked once: it takes more calls than all the rest of a plan.
static KERNEL: LazyLock<Kernel> = LazyLock::new(Kernel::ask);

struct Kernel {
    /// Files below `/proc/sys/user` and what goes into them; a kernel may be built without any.
    namespace_limits: Vec<(String, u64)>,
    /// The highest capability that it knows.
    last_capability: u64,
    /// The version of Landlock.
    landlock: u32,
}

impl Kernel {
    fn ask() -> Self {
        let number = |path: &str| -> Option<u64> {
            let text = std::fs::read_to_string(path).ok()?;
            text.trim().parse().ok()
        };
        let of_host = |name| number(&format!("/proc/sys/fs/inotify/{name}")).unwrap_or(u64::MAX);
        let instances = (of_host("max_user_instances") / 2).clamp(1, INOTIFY_INSTANCES);
        let watches = (of_host("max_user_watches") / SHARE).clamp(1, INOTIFY_WATCHES);
        let namespace_limits = [
            ("max_inotify_instances", instances),
            ("max_inotify_watches", watches),
            ("max_user_namespaces", 0),
            ("max_mnt_namespaces", 0),
            ("max_net_namespaces", 0),
            ("max_pid_namespaces", 0),
        ];
        Self {
            namespace_limits: namespace_limits
                .into_iter()
                .map(|(name, value)| (format!("/proc/sys/user/{name}"), value))
                .filter(|(path, _)| std::path::Path::new(path).exists())
                .collect(),
            last_capability: number("/proc/sys/kernel/cap_last_cap").unwrap_or(40),
            landlock: crate::sys::landlock_version(),
        }
    }
}

/// Makes the agent the guest's user: as root it starts as a user that its namespace does not map.
pub(super) fn become_guest(plan: &mut Plan, guest_id: u32) {
    plan.clear_groups("leave the host's groups");
    plan.setgid("become the guest's group", guest_id);
    plan.setuid("become the guest's user", guest_id);
}

/// Takes the kernel's settings from a guest that is root, to whom some of them belong.
pub(super) fn close_settings(plan: &mut Plan) {
    const PLACE: &str = "/proc/sys";
    let kept = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    let bind = libc::MS_BIND;
    let from = Some(std::path::Path::new(PLACE));
    plan.mount("hold /proc/sys", from, PLACE, None, bind, None);
    let only_read = bind | libc::MS_REMOUNT | libc::MS_RDONLY | kept;
    plan.mount("close /proc/sys", None, PLACE, None, only_read, None);
}

/// Limits of the sandbox's own user namespace, below those that it shares with the host's user; and
/// no namespace in it, should the filter ever let a call through. Needs the sandbox's own `/proc`.
pub(super) fn limit_namespace(plan: &mut Plan) {
    if mutation::is_off(Part::NamespaceLimits) {
        return;
    }
    for (path, value) in &KERNEL.namespace_limits {
        set(plan, path, &value.to_string());
    }
}

/// Lets the guest send echo requests, which a new network namespace allows to no group, and listen
/// on every port, unless the host listens there for its egress policy. Not needed in a namespace
/// that was made ahead of time.
pub(super) fn open_own_network(plan: &mut Plan, guest_id: u32, has_egress: bool) {
    set(
        plan,
        "/proc/sys/net/ipv4/ping_group_range",
        &format!("{guest_id} {guest_id}"),
    );
    if !has_egress {
        set(plan, "/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
    }
}

/// Writes to a file of `/proc/sys`.
fn set(plan: &mut Plan, path: &str, text: &str) {
    let label = format!("set {path}");
    let flags = libc::O_WRONLY | libc::O_CLOEXEC;
    let file = plan.open(label.clone(), Dir::Cwd, path, flags, 0).result();
    let data = plan.data(text.as_bytes());
    let args = [file.into(), data.into(), (text.len() as u64).into()];
    plan.call(label.clone(), libc::SYS_write, &args);
    plan.close(label, file);
}

/// Gives up every right, for good; root of the sandbox's own files keeps one.
pub(super) fn drop(plan: &mut Plan, writes_to_host: bool, root: bool) {
    if !mutation::is_off(Part::HiddenAgent) {
        plan.prctl("hide the agent's memory", libc::PR_SET_DUMPABLE, [0; 4]);
    }
    if !mutation::is_off(Part::Capabilities) {
        drop_capabilities(plan, if root { OF_ROOT } else { 0 });
    }
    plan.prctl(
        "forbid new privileges",
        libc::PR_SET_NO_NEW_PRIVS,
        [1, 0, 0, 0],
    );
    if !mutation::is_off(Part::Landlock) {
        landlock(plan);
    }
    if !mutation::is_off(Part::Seccomp) {
        plan.seccomp_filter(
            "put up the system call filter",
            &seccomp::filter(writes_to_host, root),
            0,
        );
    }
}

/// Gives up all capabilities but those that every program is to have.
fn drop_capabilities(plan: &mut Plan, of_all: u64) {
    // Before nothing can be added any more.
    let clear = libc::PR_CAP_AMBIENT_CLEAR_ALL as u64;
    plan.prctl(
        "clear the ambient capabilities",
        libc::PR_CAP_AMBIENT,
        [clear, 0, 0, 0],
    );
    let raise = libc::PR_CAP_AMBIENT_RAISE as u64;
    for capability in (0..64).filter(|capability| of_all & (1 << capability) != 0) {
        let args = [raise, capability, 0, 0];
        plan.prctl("keep a capability", libc::PR_CAP_AMBIENT, args);
    }
    plan.prctl(
        "lock the secure bits",
        libc::PR_SET_SECUREBITS,
        [SECURE_BITS, 0, 0, 0],
    );
    for capability in 0..=KERNEL.last_capability {
        let args = [capability, 0, 0, 0];
        plan.prctl(
            "drop a capability from the bounding set",
            libc::PR_CAPBSET_DROP,
            args,
        );
    }
    let agents = KEPT | of_all;
    plan.capset("give up capabilities", agents, agents, of_all);
}

/// Applies Landlock where the kernel has it: no device can be made, and signals and abstract
/// sockets stay within the sandbox even where it shares the host's network.
///
/// Rules that do not speak of `REFER` forbid every rename from one directory to another, so it is
/// granted everywhere; the first version cannot grant it and is left alone.
fn landlock(plan: &mut Plan) {
    const MAKE_CHAR: u64 = 1 << 6;
    const MAKE_BLOCK: u64 = 1 << 11;
    const REFER: u64 = 1 << 13;
    const SCOPE_ABSTRACT_UNIX_SOCKET: u64 = 1;
    const SCOPE_SIGNAL: u64 = 2;
    const NET: u64 = 0;
    let files = MAKE_CHAR | MAKE_BLOCK | REFER;
    // struct landlock_ruleset_attr as far as the kernel knows it: files, network, scopes.
    let attributes = match KERNEL.landlock {
        0..=1 => return,
        2..=3 => vec![files],
        4..=5 => vec![files, NET],
        _ => vec![files, NET, SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL],
    };
    let rules = plan
        .landlock_ruleset("make Landlock rules", &attributes)
        .result();
    let place = libc::O_PATH | libc::O_CLOEXEC;
    let root = plan
        .open("open the root for Landlock", Dir::Cwd, "/", place, 0)
        .result();
    plan.landlock_allow("allow renames in Landlock", rules, REFER, root);
    plan.landlock_restrict("put up Landlock", rules, 0);
    plan.close("close the root", root);
    plan.close("close the Landlock rules", rules);
}
