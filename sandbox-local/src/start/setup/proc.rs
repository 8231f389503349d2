//! `/proc`: what it tells of the whole machine is an allow-list.
//!
//! What is not on it is hidden by a mount, one call for each. What the host's own `/proc` refuses
//! to ordinary users needs none. Must never let through a file that a later kernel adds.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::LazyLock;

use crate::engine::Plan;
use crate::mutation::{self, Part};
use crate::start::dev::{NO_DIRECTORY, NO_FILE};

/// Allow-list of files that programs look at, or that tell a guest no more than that the machine is
/// there: statistics, descriptions of hardware, and addresses that read as zeros without a
/// capability.
const VISIBLE: &[&str] = &[
    "acpi",
    "buddyinfo",
    "bus",
    "cgroups",
    "consoles",
    "cpuinfo",
    "crypto",
    "devices",
    "diskstats",
    "dma",
    "driver",
    "execdomains",
    "fb",
    "filesystems",
    "iomem",
    "ioports",
    "irq",
    "loadavg",
    "locks",
    "meminfo",
    "misc",
    "mounts",
    "mtrr",
    "net",
    "partitions",
    "pressure",
    "schedstat",
    "self",
    "softirqs",
    "stat",
    "swaps",
    "sys",
    "sysvipc",
    "thread-self",
    "tty",
    "uptime",
    "version",
    "vmstat",
    "zoneinfo",
];

/// Paths to be hidden on this host, each with what hides it.
static HIDDEN: LazyLock<Vec<(String, &str)>> = LazyLock::new(|| {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut hidden: Vec<_> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let is_process = name.bytes().all(|byte| byte.is_ascii_digit());
            let found = entry.metadata().ok()?;
            let is_readable = found.permissions().mode() & 0o004 != 0;
            if is_process || !is_readable || VISIBLE.contains(&name.as_str()) {
                return None;
            }
            let by = if found.is_dir() {
                NO_DIRECTORY
            } else {
                NO_FILE
            };
            Some((format!("/proc/{name}"), by))
        })
        .collect();
    hidden.sort();
    hidden
});

/// Needs `/proc` and `/dev` in their places, before a guest has been there.
pub(super) fn hide(plan: &mut Plan) {
    if mutation::is_off(Part::Proc) {
        return;
    }
    for (path, by) in HIDDEN.iter() {
        plan.mount(
            format!("hide {path}"),
            Some(Path::new(by)),
            path,
            None,
            libc::MS_BIND,
            None,
        );
    }
}
