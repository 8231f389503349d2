//! Plain mode: commands run as ordinary child processes in a temporary directory.
//!
//! For macOS, Windows and hosts that forbid isolation, used only by name. It must never be what
//! another backend falls back to, and must never report a control as enforced.

mod batch;
mod config;
mod copy;
mod export;
mod files;
pub(crate) mod group;
mod import;
mod os;
pub(crate) mod process;
pub(crate) mod program;
mod provider;
pub(crate) mod sandbox;
mod stream;
pub(crate) mod tree;

pub use config::PlainConfig;
pub use provider::PlainProvider;

use sandbox_core::{Capabilities, Capability, Control, Enforcement, IsolationReport};

/// Prefix of the names of its directories.
const PREFIX: &str = "sandbox-plain-";

/// Why plain mode lacks what it lacks.
const WHY: &str = "plain mode: ordinary processes of the host's user";

/// Capabilities of plain mode on this platform.
const CAPABILITIES: Capabilities = platform(
    Capabilities::none(WHY)
        .with(Capability::Exec)
        .with(Capability::Spawn)
        .with(Capability::StdinPipe)
        .with(Capability::Background)
        .partial(
            Capability::Fork,
            "copies every file, so that the cost grows with the tree, and while programs go on; \
             FIFOs and sockets are left out",
        )
        .with(Capability::NetworkOpen)
        .without(
            Capability::KillDaemons,
            "plain mode kills a process group; a daemon that leaves it is not reached",
        )
        .without(
            Capability::Snapshot,
            "plain mode keeps nothing beyond its sandboxes",
        )
        .without(
            Capability::List,
            "plain mode keeps no record of its sandboxes",
        )
        .without(
            Capability::Attach,
            "plain mode keeps no record of its sandboxes",
        )
        .without(
            Capability::EgressByName,
            "plain mode has the host's network; `local:` has rules by name",
        )
        .without(
            Capability::Watch,
            "plain mode runs on every platform; `local:` and `local-landlock:` watch",
        )
        .without(Capability::Ttl, "plain mode has no collector"),
);

#[cfg(unix)]
const fn platform(capabilities: Capabilities) -> Capabilities {
    let capabilities = capabilities
        .with(Capability::Signals)
        .with(Capability::Symlinks)
        .with(Capability::Modes)
        .with(Capability::FilePermissions);
    if cfg!(target_os = "macos") {
        capabilities.without(
            Capability::NonUtf8Names,
            "the filesystems of macOS refuse them",
        )
    } else {
        capabilities.with(Capability::NonUtf8Names)
    }
}

#[cfg(not(unix))]
const fn platform(capabilities: Capabilities) -> Capabilities {
    capabilities
        .without(Capability::Signals, "the host has no signals")
        .without(
            Capability::Symlinks,
            "the host's user may usually not make links",
        )
        .without(Capability::Modes, "the host has no permission bits")
        .without(
            Capability::NonUtf8Names,
            "names of the host are not byte strings",
        )
}

/// Report of the isolation in force: none.
fn isolation_report() -> IsolationReport {
    Control::ALL
        .iter()
        .fold(IsolationReport::new(), |report, control| {
            report.with(*control, Enforcement::absent(WHY))
        })
}
