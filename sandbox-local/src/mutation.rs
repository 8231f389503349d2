//! Turning one control off, to show that the hostile suite notices (`tests/hostile/mutations`).
//!
//! Must never be there in a library that is used: it is compiled in only where the build script
//! finds `SANDBOX_LOCAL_MUTATIONS` in its environment, and without it nothing can be turned off.

/// The controls that can be turned off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The system call filter.
    Seccomp,
    /// Landlock.
    Landlock,
    /// Dropping capabilities, and the secure bits.
    Capabilities,
    /// The network namespace.
    Network,
    /// The IPC namespace.
    Ipc,
    /// Read-only mounts of the host's directories.
    ReadOnly,
    /// The read-only `/dev`.
    Devices,
    /// The list of what `/proc` shows.
    Proc,
    /// Resource limits.
    Limits,
    /// Limits of the user namespace.
    NamespaceLimits,
    /// Leaving the host's scheduling, I/O priority and keyring.
    Inherited,
    /// A user of each sandbox's own, as root.
    Users,
    /// Control groups.
    Cgroup,
    /// Hiding the agent's memory and files (`PR_SET_DUMPABLE`).
    HiddenAgent,
    /// Of `local-landlock:`, the list of files.
    FenceFiles,
    /// Of `local-landlock:`, the system call filter.
    FenceFilter,
    /// Of `local-landlock:`, the rules on TCP, which stand behind the filter.
    FenceTcp,
    /// Of `local-landlock:`, the scopes of abstract sockets, which stand behind the filter, and of
    /// signals between a command and what keeps it. A host's processes stay out of reach: without that
    /// nothing is started.
    FenceScopes,
}

/// Whether a control is turned off, by its name in `SANDBOX_MUTATION`, which may have several with
/// commas between them.
#[cfg(sandbox_mutation)]
pub(crate) fn is_off(part: Part) -> bool {
    let part = format!("{part:?}");
    std::env::var("SANDBOX_MUTATION").is_ok_and(|names| names.split(',').any(|name| name == part))
}

/// Whether any control is turned off.
#[cfg(sandbox_mutation)]
pub(crate) fn is_any_off() -> bool {
    std::env::var_os("SANDBOX_MUTATION").is_some_and(|name| !name.is_empty())
}

/// Whether a control is turned off: not in this build.
#[cfg(not(sandbox_mutation))]
pub(crate) const fn is_off(_: Part) -> bool {
    false
}

/// Whether any control is turned off: not in this build.
#[cfg(not(sandbox_mutation))]
pub(crate) const fn is_any_off() -> bool {
    false
}
