//! Capabilities of sandboxes of Azure Container Apps.
//!
//! Nothing is declared here that the conformance kit does not prove.

use crate::group::manage::EgressAction;
use sandbox_core::{Capabilities, Capability, Control, Enforcement, IsolationReport};

const EGRESS: &str = "the service resolves every name and limits none; AcaOptions::egress takes EgressPolicy::of_rules";
const NO_BEGINNING: &str =
    "what a sandbox began with is not kept; compare it with its parent (changes_between)";
const TIERS: &str = "the service has tiers; choose one in the configuration";

pub(crate) const CAPABILITIES: Capabilities = Capabilities::none("this backend does not have it")
    .with_each(&[
        Capability::Exec,
        Capability::StdinPipe,
        Capability::Signals,
        Capability::Background,
        Capability::Fork,
        Capability::Snapshot,
        Capability::SnapshotList,
        Capability::SnapshotDelete,
        Capability::List,
        Capability::Symlinks,
        Capability::Modes,
        Capability::NonUtf8Names,
        Capability::FileStreams,
        Capability::Terminal,
    ])
    .partial(
        Capability::Spawn,
        "where the service has exec/stream; a stream that is not read holds up the other",
    )
    .without(Capability::User, "commands run as the image's user")
    .without(
        Capability::GuestRoot,
        "commands run as the image's user, which is root in the service's own images",
    )
    .without(
        Capability::Lasting,
        "every sandbox outlives this program, until it is closed or auto_delete ends it",
    )
    .partial(
        Capability::KillDaemons,
        "but for one that lowers the limit which marks it",
    )
    .without(
        Capability::ForkMemory,
        "a fork's inherited processes are ended",
    )
    .partial(
        Capability::Attach,
        "environment and workdir are kept by the first handle",
    )
    .without(
        Capability::Ttl,
        "the provider's auto_delete is for the whole group",
    )
    .partial(Capability::Image, "public disk images by name")
    .without(
        Capability::RootDir,
        "the service knows no directory of this host",
    )
    .without(
        Capability::Mounts,
        "the service knows no directory of this host",
    )
    .without(Capability::FilePermissions, "the guest's user is root")
    .partial(Capability::NetworkOff, "names are still resolved")
    .partial(
        Capability::NetworkOpen,
        "the service's network, not this host's",
    )
    .without(Capability::MemoryLimit, TIERS)
    .without(Capability::CpuLimit, TIERS)
    .without(Capability::PidsLimit, "the service has no such limit")
    .without(Capability::DiskLimit, TIERS)
    .without(
        Capability::Isolation,
        "a program inside can't see that it is in a microVM",
    )
    .without(Capability::EgressByName, EGRESS)
    .without(Capability::EgressPorts, EGRESS)
    .without(Capability::EgressCredentials, EGRESS)
    .partial(
        Capability::Jobs,
        "this program keeps their logs; they end with its last handle",
    )
    .partial(
        Capability::Ports,
        "by python3 or perl of the image; AcaHandle::add_port opens a URL to others",
    )
    .without(Capability::Watch, "the service tells of no changed file")
    .without(Capability::Changes, NO_BEGINNING)
    .partial(
        Capability::Usage,
        "of the whole machine; processes and network are not told, processor time by the older version",
    )
    .partial(
        Capability::Pause,
        "processes are stopped, but for one that lowers the limit which marks it; it is billed: AcaHandle::suspend is not",
    );

/// Report of the isolation: the service's word, which nothing inside can prove.
pub(crate) fn report(egress: Option<EgressAction>) -> IsolationReport {
    let vm = |control| {
        let why = "that is the service's word and can't be probed from inside";
        (control, Enforcement::partial("the service's microVM", why))
    };
    let mut report = IsolationReport::new();
    for (control, enforcement) in [
        vm(Control::Filesystem),
        vm(Control::Processes),
        vm(Control::Ipc),
        vm(Control::Memory),
        vm(Control::Cpu),
        vm(Control::Disk),
        (
            Control::Network,
            match egress {
                Some(EgressAction::Deny) => {
                    Enforcement::partial("the egress policy", "names are still resolved")
                }
                Some(EgressAction::Allow) => Enforcement::absent("the spec opens the network"),
                None => {
                    Enforcement::absent("the service shows no egress policy that is understood")
                }
            },
        ),
        (
            Control::Privileges,
            Enforcement::absent("the guest's user is root in its own machine"),
        ),
        (
            Control::SystemCalls,
            Enforcement::absent("the guest has a kernel of its own"),
        ),
        (
            Control::Pids,
            Enforcement::absent("the service has no such limit"),
        ),
    ] {
        report = report.with(control, enforcement);
    }
    report
}
