//! Capabilities of dynamic sessions, and the check of a spec against them.
//!
//! Nothing is declared here that the conformance kit does not prove; what can't be done is refused
//! before anything is sent.

use sandbox_core::{
    Capabilities, Capability, Control, Enforcement, Error, ErrorKind, IsolationReport, Operation,
    RequiredIsolation, Result, SandboxSpec,
};

const POOL: &str = "the service sizes the sessions of built-in pools";

const WHOLE: &str = "an execution is answered when it has ended; a pool of custom containers does it, by the sandbox-agent in them";

const RULES: &str = "a pool has egress or has none; the service knows no rules for it";

const COMMON: Capabilities = Capabilities::none("this backend does not have it")
    .with_each(&[
        Capability::Exec,
        Capability::Background,
        Capability::Symlinks,
        Capability::Modes,
        Capability::NonUtf8Names,
        Capability::FileStreams,
        Capability::NetworkOff,
        Capability::NetworkOpen,
    ])
    .without(Capability::Spawn, WHOLE)
    .without(Capability::StdinPipe, WHOLE)
    .without(Capability::Signals, WHOLE)
    .without(Capability::User, "commands run as the session's user")
    .partial(
        Capability::KillDaemons,
        "but for one that lowers the limit which marks it",
    )
    .partial(
        Capability::Fork,
        "files that changed are copied through this host, one by one",
    )
    .without(Capability::ForkMemory, "a fork is of files")
    .without(
        Capability::SnapshotList,
        "the service keeps nothing of a session",
    )
    .without(
        Capability::SnapshotDelete,
        "the service keeps nothing of a session",
    )
    .without(
        Capability::Snapshot,
        "the service keeps nothing of a session",
    )
    .partial(
        Capability::List,
        "those of this provider: the service keeps no labels",
    )
    .partial(
        Capability::Attach,
        "environment and workdir are kept by the first handle",
    )
    .without(Capability::Ttl, "the cooldown is the whole pool's")
    .without(Capability::Image, "built-in pools have their own image")
    .without(
        Capability::RootDir,
        "the service knows no directory of this host",
    )
    .without(
        Capability::Mounts,
        "the service knows no directory of this host",
    )
    .without(Capability::FilePermissions, "the guest's user is root")
    .without(Capability::EgressByName, RULES)
    .without(Capability::EgressPorts, RULES)
    .without(Capability::EgressCredentials, RULES)
    .without(Capability::Terminal, WHOLE)
    .without(Capability::Jobs, WHOLE)
    .without(
        Capability::Ports,
        "the service carries code and files; a pool of custom containers does it, by the sandbox-agent in them",
    )
    .without(
        Capability::GuestRoot,
        "commands run as the session's user, whom the service chooses",
    )
    .without(
        Capability::Lasting,
        "a session ends with its pool's cooldown",
    )
    .without(Capability::Watch, "the service tells of no changed file")
    .without(
        Capability::Changes,
        "what a session began with is not kept; compare it with its parent (changes_between)",
    )
    .without(
        Capability::Usage,
        "the service tells nothing of a session's use",
    )
    .without(Capability::Pause, "the service does not pause a session")
    .without(Capability::MemoryLimit, POOL)
    .without(Capability::CpuLimit, POOL)
    .without(Capability::PidsLimit, POOL)
    .without(Capability::DiskLimit, POOL)
    .without(
        Capability::Isolation,
        "a program inside can't see that it is in a Hyper-V machine",
    );

/// Capabilities in a pool without egress, which is the service's default.
pub(crate) const CLOSED: Capabilities = COMMON
    .partial(Capability::NetworkOff, "by the pool's configuration")
    .without(Capability::NetworkOpen, "the pool has no egress");

/// Capabilities in a pool with egress.
pub(crate) const OPEN: Capabilities = COMMON
    .without(Capability::NetworkOff, "the pool has egress")
    .partial(
        Capability::NetworkOpen,
        "the service's network, not this host's",
    );

/// Refuses what sessions can't do.
pub(crate) fn check(spec: &SandboxSpec, capabilities: &Capabilities) -> Result<()> {
    const OP: Operation = Operation::Create;
    spec.validate()?;
    spec.require(capabilities, OP)?;
    if let RequiredIsolation::Only(controls) = &spec.isolation
        && let Some(control) = controls.first()
    {
        return Err(Error::new(ErrorKind::Isolation, OP)
            .with_message(format!(
                "{control} can't be proven from inside of the service's machine"
            ))
            .with_hint("leave the requirement at its default to take the service's word"));
    }
    Ok(())
}

/// Report of the isolation: the service's word, which nothing inside can prove.
pub(crate) fn report(egress: bool) -> IsolationReport {
    let why = "that is the service's word and can't be probed from inside";
    let machine = || Enforcement::partial("the service's Hyper-V machine", why);
    let mut report = IsolationReport::new();
    for control in [
        Control::Filesystem,
        Control::Processes,
        Control::Ipc,
        Control::Memory,
        Control::Cpu,
        Control::Disk,
    ] {
        report = report.with(control, machine());
    }
    let network = match egress {
        true => Enforcement::absent("the pool has egress"),
        false => Enforcement::partial("the pool's configuration", why),
    };
    let kernel = Enforcement::absent("the guest has a kernel of its own");
    let root = Enforcement::absent("the guest's user may be root in its own machine");
    report
        .with(Control::Network, network)
        .with(Control::Privileges, root)
        .with(Control::SystemCalls, kernel)
        .with(
            Control::Pids,
            Enforcement::absent("the service has no such limit"),
        )
}
