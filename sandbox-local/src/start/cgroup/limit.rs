//! Limits as files of a control group and what to write into them.

use std::fs;
use std::io;
use std::path::Path;

use sandbox_core::{Control, Resources};

/// Processor time is given per this many microseconds.
const PERIOD: u64 = 100_000;

/// Absent where the kernel was built without swap accounting; then there is nothing to limit.
const OPTIONAL: &[&str] = &[
    "memory.swap.max",
    "memory.memsw.limit_in_bytes",
    "memory.kmem.tcp.limit_in_bytes",
    "memory.oom.group",
];

/// A limit: v2's and v1's names of its files, and what to write.
pub(super) struct Limit {
    pub(super) control: Control,
    pub(super) controller: &'static str,
    pub(super) v2: Vec<(&'static str, String)>,
    pub(super) v1: Vec<(&'static str, String)>,
}

pub(super) fn limits(resources: &Resources) -> Vec<Limit> {
    let mut limits = Vec::new();
    if let Some(memory) = resources.memory {
        limits.push(Limit {
            control: Control::Memory,
            controller: "memory",
            v2: vec![
                ("memory.max", memory.to_string()),
                ("memory.swap.max", "0".into()),
                ("memory.oom.group", "0".into()),
            ],
            v1: vec![
                ("memory.limit_in_bytes", memory.to_string()),
                ("memory.memsw.limit_in_bytes", memory.to_string()),
                // v1 charges what waits in TCP sockets only where this is set.
                ("memory.kmem.tcp.limit_in_bytes", memory.to_string()),
            ],
        });
    }
    if let Some(cpus) = resources.cpus {
        // A quota under a millisecond is refused by the kernel.
        let quota = ((cpus * PERIOD as f64) as u64).max(1_000);
        limits.push(Limit {
            control: Control::Cpu,
            controller: "cpu",
            v2: vec![("cpu.max", format!("{quota} {PERIOD}"))],
            v1: vec![
                ("cpu.cfs_period_us", PERIOD.to_string()),
                ("cpu.cfs_quota_us", quota.to_string()),
            ],
        });
    }
    limits
}

pub(super) fn write_all(dir: &Path, files: &[(&str, String)]) -> io::Result<()> {
    for (file, value) in files {
        match fs::write(dir.join(file), value) {
            Err(_) if OPTIONAL.contains(file) && dir.exists() => {}
            result => result.map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("{}: {error}", dir.join(file).display()),
                )
            })?,
        }
    }
    Ok(())
}
