//! `local-landlock:`: less than [`LocalProvider`](crate::LocalProvider), on hosts that grant no user
//! namespaces.
//!
//! A command is an ordinary process of the host under Landlock, a filter of system calls and
//! `no_new_privs`; there are no namespaces. It must never be what another backend falls back to, and
//! must never run a command unless every one of these is in force.

mod domain;
mod path_calls;
mod provider;
mod report;
mod rules;
mod sandbox;
mod watch;

pub use provider::{LandlockConfig, LandlockProvider};

use sandbox_core::{Capabilities, Capability};

/// Beginning of the reasons.
const WHY: &str = "local-landlock: has no namespaces";

const CAPABILITIES: Capabilities = Capabilities::none(WHY)
    .with_each(&[
        Capability::Exec,
        Capability::Spawn,
        Capability::StdinPipe,
        Capability::Signals,
        Capability::KillDaemons,
        Capability::Background,
        Capability::Symlinks,
        Capability::Modes,
        Capability::NonUtf8Names,
        Capability::FilePermissions,
        Capability::NetworkOpen,
        Capability::Jobs,
    ])
    .partial(
        Capability::Watch,
        "what a program writes through a shared memory map is not told",
    )
    .partial(
        Capability::NetworkOff,
        "no loopback either, and no Unix sockets but connected pairs",
    )
    .without(
        Capability::Isolation,
        "names, sizes and owners of the host's files and the numbers of its processes stay visible; \
         `isolation` says for each control what holds",
    )
    .without(
        Capability::Mounts,
        "local-landlock: has no mount namespace",
    )
    .without(
        Capability::RootDir,
        "local-landlock: has no mount namespace: programs see the host's paths",
    )
    .without(
        Capability::Image,
        "local-landlock: has no mount namespace: programs see the host's paths",
    )
    .without(
        Capability::Fork,
        "local-landlock: has no overlay, so that a fork would copy every file",
    )
    .without(
        Capability::EgressByName,
        "local-landlock: has no network namespace, so that the network is off or the host's",
    )
    .without(
        Capability::Ports,
        "local-landlock: has no network namespace, so that nothing listens in it",
    )
    .without(
        Capability::PidsLimit,
        "local-landlock: has no user namespace: the kernel counts a user's processes together",
    )
    .without(
        Capability::Pause,
        "local-landlock: has no pid namespace to find what is running",
    );
