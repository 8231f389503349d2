//! Capabilities of the local backend, the same for every sandbox.

use sandbox_core::{Capabilities, Capability};

pub(crate) const CAPABILITIES: Capabilities = Capabilities::none("this backend does not have it")
    .with_each(&[
        Capability::Exec,
        Capability::Spawn,
        Capability::StdinPipe,
        Capability::Signals,
        Capability::KillDaemons,
        Capability::Background,
        Capability::Fork,
        Capability::SnapshotList,
        Capability::SnapshotDelete,
        Capability::Ttl,
        Capability::RootDir,
        Capability::Mounts,
        Capability::Symlinks,
        Capability::Modes,
        Capability::NonUtf8Names,
        Capability::FilePermissions,
        Capability::NetworkOff,
        Capability::NetworkOpen,
        Capability::EgressByName,
        Capability::EgressCredentials,
        Capability::PidsLimit,
        Capability::Isolation,
        Capability::Jobs,
        Capability::Terminal,
        Capability::Ports,
        Capability::FileStreams,
        Capability::Changes,
        Capability::Usage,
    ])
    .without(
        Capability::User,
        "a sandbox has one user; its namespace maps no other",
    )
    .without(Capability::ForkMemory, "a fork copies files, not processes")
    .partial(
        Capability::Snapshot,
        "not of a sandbox from a root directory; without an image, for hosts of the same release",
    )
    .partial(
        Capability::Image,
        "oci:DIR, oci-archive:FILE, docker-archive:FILE; of registries with the feature `registry`; as \
         root, needs Linux 5.19",
    )
    .partial(
        Capability::GuestRoot,
        "one user: changes of owners and users succeed and change nothing, no device is made",
    )
    .partial(
        Capability::EgressPorts,
        "ports from 1024 on for exact names",
    )
    .partial(
        Capability::List,
        "the sandboxes of this provider in this process, and lasting ones",
    )
    .partial(
        Capability::Attach,
        "the sandboxes of this provider in this process, and lasting ones",
    )
    .partial(
        Capability::Lasting,
        "not with a limit on disk or credentials in the egress policy",
    )
    .partial(
        Capability::Pause,
        "processes are stopped; one with a timer that continues another can undo it",
    )
    .partial(
        Capability::Watch,
        "what a program writes through a shared memory map is not told",
    )
    .partial(Capability::MemoryLimit, "needs a delegated cgroup, or root")
    .partial(Capability::CpuLimit, "needs a delegated cgroup, or root")
    .partial(
        Capability::DiskLimit,
        "what is written is kept in memory; Linux 6.6 or later",
    );
