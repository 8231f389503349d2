//! Which limits are in force.

use sandbox_core::{Control, Enforcement};

use super::evidence::Evidence;
use crate::sandbox::running::Running;
use crate::start::blueprint::Blueprint;

/// Memory, processor time, processes and disk.
pub(super) fn report(
    running: &Running,
    blueprint: &Blueprint,
    evidence: &Evidence,
) -> Vec<(Control, Enforcement)> {
    let resources = blueprint.resources();
    let pid = running.engine.pid();
    let by_cgroup = |control, asked: bool| match (asked, running.cgroup.covers(control, pid)) {
        (false, _) => Enforcement::absent("the spec sets no limit"),
        (true, Some(by)) => Enforcement::enforced(by),
        (true, None) => Enforcement::absent("no cgroup of the sandbox limits it"),
    };
    vec![
        (
            Control::Memory,
            by_cgroup(Control::Memory, resources.memory.is_some()),
        ),
        (
            Control::Cpu,
            by_cgroup(Control::Cpu, resources.cpus.is_some()),
        ),
        (Control::Pids, pids(resources.pids, evidence.processes)),
        (Control::Disk, disk(resources.disk, evidence.root_size)),
    ]
}

fn pids(asked: Option<u32>, found: u64) -> Enforcement {
    match asked {
        // The agent itself counts as well.
        Some(limit) if found == u64::from(limit) + 1 => {
            Enforcement::enforced("a resource limit of the sandbox's own user namespace")
        }
        Some(_) => Enforcement::absent(format!("the limit in force is {found}")),
        None => Enforcement::enforced(format!("a resource limit, by default {found}")),
    }
}

fn disk(asked: Option<u64>, found: u64) -> Enforcement {
    const PAGE: u64 = 4096;
    match asked {
        Some(limit) if found <= limit.next_multiple_of(PAGE) => {
            Enforcement::enforced("a tmpfs of this size")
        }
        Some(_) => Enforcement::absent(format!("the root can hold {found} bytes")),
        None => Enforcement::absent("the spec sets no limit"),
    }
}
