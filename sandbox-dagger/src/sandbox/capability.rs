//! Capabilities of sandboxes in an engine, and the report of their isolation.

use sandbox_core::{Capabilities, Capability, Control, Enforcement, IsolationReport};

const NO_TERMINAL: &str = "the engine has a terminal for its own client only";
const PRIVATE_FILES: &str = "where the engine has /v1/logs (0.21); the command has the files as of its \
    start, the sandbox gets them when it ends, and is in use until then; its output is kept by the \
    engine, not held up";
const BY_COMMANDS: &str = "each takes a short command in a container of its own";
const SHARED_NETWORK: &str = "the engine has no switch for the network: its sandboxes reach each \
    other's ports, across sessions too, and what the engine's host reaches";
const NO_CATALOGUE: &str = "archives and tags are the embedder's, who knows their names";
const NO_LIMITS: &str = "the engine sets no limits on containers";

pub(crate) const CAPABILITIES: Capabilities = Capabilities::none("this backend does not have it")
    .with_each(&[
        Capability::Exec,
        Capability::User,
        Capability::Fork,
        Capability::Snapshot,
        Capability::Image,
        Capability::RootDir,
        Capability::Symlinks,
        Capability::Modes,
        Capability::NonUtf8Names,
        Capability::NetworkOpen,
    ])
    .without(Capability::SnapshotList, NO_CATALOGUE)
    .without(Capability::SnapshotDelete, NO_CATALOGUE)
    .partial(Capability::Spawn, PRIVATE_FILES)
    .partial(Capability::StdinPipe, BY_COMMANDS)
    .partial(Capability::Signals, BY_COMMANDS)
    .without(Capability::Terminal, NO_TERMINAL)
    .without(
        Capability::Jobs,
        "every command has a container of its own, which is asked for as a whole",
    )
    .without(
        Capability::Ports,
        "the engine leads to no port of a command; a program that listens is a service of it",
    )
    .without(
        Capability::Changes,
        "what a sandbox began with is not kept; compare it with its parent (changes_between)",
    )
    .without(
        Capability::Usage,
        "the engine tells nothing of a container's use",
    )
    .without(Capability::Watch, "the engine tells of no changed file")
    .without(Capability::Pause, "the engine holds no container still")
    .without(
        Capability::FileStreams,
        "the engine gives and takes a file as a whole",
    )
    .without(
        Capability::Background,
        "every command has a container of its own, which ends with it",
    )
    .without(
        Capability::ForkMemory,
        "the engine copies files, not processes",
    )
    .without(
        Capability::Ttl,
        "an unused sandbox holds nothing but disk of the engine",
    )
    .without(
        Capability::Mounts,
        "a directory of the host can be brought in, not mounted",
    )
    .without(
        Capability::FilePermissions,
        "file operations have the rights of the image's user, root as a rule",
    )
    .without(Capability::NetworkOff, SHARED_NETWORK)
    .without(Capability::EgressByName, SHARED_NETWORK)
    .without(Capability::EgressPorts, SHARED_NETWORK)
    .without(Capability::EgressCredentials, SHARED_NETWORK)
    .without(Capability::MemoryLimit, NO_LIMITS)
    .without(Capability::CpuLimit, NO_LIMITS)
    .without(Capability::PidsLimit, NO_LIMITS)
    .without(Capability::DiskLimit, NO_LIMITS)
    .without(
        Capability::Isolation,
        "it is the engine's, and not probed by this backend",
    )
    .partial(
        Capability::KillDaemons,
        "a program with the supervisor's rights may kill the supervisor; the engine then ends both",
    )
    .partial(
        Capability::List,
        "the sandboxes of this provider in this process",
    )
    .partial(
        Capability::Attach,
        "the sandboxes of this provider in this process",
    );

/// Report of an engine's isolation without a probe: nothing is claimed.
pub(crate) fn unprobed() -> IsolationReport {
    let why = "it is the engine's, and not probed by this backend";
    Control::ALL
        .iter()
        .fold(IsolationReport::new(), |report, control| {
            let why = match control {
                Control::Network => SHARED_NETWORK,
                _ => why,
            };
            report.with(*control, Enforcement::absent(why))
        })
}
