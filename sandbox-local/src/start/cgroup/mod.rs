//! Limits on a whole sandbox by control groups, where the host grants them.
//!
//! cgroup v2 with delegation first; as root on a v1 or hybrid host, the v1 hierarchies. What can't
//! be had is an error with the remedy, never a silent nothing.
//!
//! References: cgroups(7), Documentation/admin-guide/cgroup-v2.rst.

mod freezer;
mod limit;
mod place;
mod store;

use std::fs;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use sandbox_core::{Control, Resources};

use self::limit::{Limit, limits};
use self::place::{Dir, Fresh, Version};
use self::store::Remover;
use crate::engine::BornIn;
use crate::mutation::{self, Part};

pub(crate) use store::Groups;

/// The cgroups of one sandbox; removed when dropped, once its processes are dead.
#[derive(Debug)]
pub(crate) struct Cgroup {
    dirs: Vec<Dir>,
    /// Controls that are limited, and by what, for the isolation report.
    controls: Vec<(Control, &'static str)>,
    /// Counts, among other things, what was killed for lack of memory.
    memory_events: Option<fs::File>,
    remover: Option<Remover>,
}

/// A limit that can't be had here.
#[derive(Debug, thiserror::Error)]
#[error("no cgroup to limit {control} with: {reason}")]
pub(crate) struct NoCgroup {
    pub(crate) control: Control,
    pub(crate) reason: String,
}

const REMEDY: &str = "start the program under `systemd-run --user --scope -p Delegate=yes`, or give \
    LocalConfig a delegated cgroup, or run it as root";

impl Cgroup {
    /// No limits.
    pub(crate) fn none() -> Self {
        Self {
            dirs: Vec::new(),
            controls: Vec::new(),
            memory_events: None,
            remover: None,
        }
    }

    /// Cgroups with these limits, as far as they can be had; `Err` for each that can't.
    /// The number of processes is not limited here: a resource limit does that on every host.
    pub(crate) fn create(groups: &Groups, resources: &Resources) -> (Self, Vec<NoCgroup>) {
        let limits = limits(resources);
        if limits.is_empty() {
            return (Self::none(), Vec::new());
        }
        let controllers = limits.iter().map(|limit| limit.controller).collect();
        let spare = groups.spare(&controllers);
        if let Some(spare) = spare {
            let (made, missing) = Self::limited(groups, spare, &limits);
            // One may have been removed from outside since it was made.
            if missing.is_empty() {
                return (made, missing);
            }
        }
        Self::limited(groups, groups.make(&controllers), &limits)
    }

    /// Sets limits on fresh cgroups.
    fn limited(groups: &Groups, fresh: Fresh, limits: &[Limit]) -> (Self, Vec<NoCgroup>) {
        let Fresh { dirs, homes } = fresh;
        let mut made = Self {
            dirs,
            controls: Vec::new(),
            memory_events: None,
            remover: Some(groups.remover()),
        };
        let mut missing = Vec::new();
        for (limit, home) in limits.iter().zip(homes) {
            let set = home.and_then(|home| {
                let dir = made.dirs.get(home).ok_or("it is not there")?;
                let (by, files) = match dir.version {
                    Version::V1 => ("cgroup v1", &limit.v1),
                    Version::V2 => ("cgroup v2", &limit.v2),
                };
                let written = limit::write_all(&dir.path, files);
                written.map_err(|error| format!("{by}: {error}"))?;
                Ok(by)
            });
            match set {
                Ok(by) => made.controls.push((limit.control, by)),
                Err(reason) => missing.push(NoCgroup {
                    control: limit.control,
                    reason: format!("{reason}; {REMEDY}"),
                }),
            }
        }
        if limits.iter().any(|limit| limit.control == Control::Memory) {
            // v2's name and v1's.
            let named = |name| {
                let mut dirs = made.dirs.iter();
                dirs.find_map(|dir| fs::File::open(dir.path.join(name)).ok())
            };
            made.memory_events = named("memory.events").or_else(|| named("memory.oom_control"));
        }
        (made, missing)
    }

    /// Groups in which the sandbox's first process is born, so that it and all that it starts are
    /// under the limits; `None` without limits.
    pub(crate) fn born_in(&self) -> Option<BornIn> {
        if self.dirs.is_empty() || mutation::is_off(Part::Cgroup) {
            return None;
        }
        let of = |version| {
            let dirs = self.dirs.iter().filter(move |dir| dir.version == version);
            dirs.map(|dir| dir.path.clone())
        };
        Some(BornIn {
            v1: of(Version::V1).collect(),
            v2: of(Version::V2).next(),
        })
    }

    /// Returns how many processes of the sandbox the kernel has killed as memory ran out. `None` if
    /// memory is not limited, or the kernel does not count.
    pub(crate) fn oom_kills(&self) -> Option<u64> {
        let mut text = [0; 1024];
        let events = self.memory_events.as_ref()?;
        let read = events.read_at(&mut text, 0).ok()?;
        oom_kills(text.get(..read)?)
    }

    /// A number of one of its cgroups: v2's name of the file, or v1's.
    fn number(&self, names: [&str; 2]) -> Option<u64> {
        let mut dirs = self.dirs.iter();
        dirs.find_map(|dir| {
            let text = |name| fs::read_to_string(dir.path.join(name)).ok();
            names
                .iter()
                .find_map(|name| text(name)?.trim().parse().ok())
        })
    }

    /// Memory that is charged to it now, in bytes, page cache included.
    pub(crate) fn memory(&self) -> Option<u64> {
        self.number(["memory.current", "memory.usage_in_bytes"])
    }

    /// The most memory that was charged to it, in bytes.
    pub(crate) fn memory_peak(&self) -> Option<u64> {
        self.number(["memory.peak", "memory.max_usage_in_bytes"])
    }

    /// Processor time of everything that was ever in it.
    pub(crate) fn cpu(&self) -> Option<Duration> {
        let mut dirs = self.dirs.iter();
        dirs.find_map(|dir| {
            let text = fs::read_to_string(dir.path.join("cpu.stat")).ok()?;
            let micros = text
                .lines()
                .find_map(|line| line.strip_prefix("usage_usec "))?;
            micros.trim().parse().ok().map(Duration::from_micros)
        })
    }

    /// Whether the kernel has killed a process because the limit on memory was reached.
    pub(crate) fn has_killed(&self) -> bool {
        let counted = |dir: &Dir| {
            ["memory.events", "memory.oom_control"]
                .iter()
                .filter_map(|file| fs::read_to_string(dir.path.join(file)).ok())
                .any(|text| text.lines().any(is_kill))
        };
        let is_limited = |(control, _): &(Control, _)| *control == Control::Memory;
        self.controls.iter().any(is_limited) && self.dirs.iter().any(counted)
    }

    /// Whether the limit on memory, of so many bytes, was reached.
    pub(crate) fn is_full(&self, limit: u64) -> bool {
        // The kernel charges in batches of pages.
        const BATCH: u64 = 64 * 4096;
        let peak = self.memory_peak();
        self.has_killed() || peak.is_some_and(|peak| peak.saturating_add(BATCH) >= limit)
    }

    /// By what a control is limited, if the process is found under it.
    pub(crate) fn covers(&self, control: Control, pid: u32) -> Option<&'static str> {
        let (_, by) = self.controls.iter().find(|(known, _)| *known == control)?;
        let pid = pid.to_string();
        let listed = |dir: &Dir| {
            fs::read_to_string(dir.path.join("cgroup.procs"))
                .is_ok_and(|list| list.lines().any(|line| line == pid))
        };
        self.dirs.iter().all(listed).then_some(*by)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let dirs = std::mem::take(&mut self.dirs);
        if let (Some(remover), false) = (&self.remover, dirs.is_empty()) {
            remover.remove(dirs);
        }
    }
}

/// Whether a line of a group's statistics counts processes that were killed.
fn is_kill(line: &str) -> bool {
    let count = line.strip_prefix("oom_kill ");
    count.is_some_and(|count| count.trim() != "0")
}

/// The line of `memory.events` (v2) and `memory.oom_control` (v1) that counts kills.
fn oom_kills(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::oom_kills;

    #[test]
    fn kills_are_counted_in_the_words_of_both_versions() {
        let v2 = b"low 0\nhigh 0\nmax 12\noom 2\noom_kill 3\noom_group_kill 0\n";
        let v1 = b"oom_kill_disable 0\nunder_oom 0\noom_kill 1\n";
        assert_eq!((oom_kills(v2), oom_kills(v1)), (Some(3), Some(1)));
        assert_eq!(oom_kills(b"oom_kill_disable 0\nunder_oom 0\n"), None);
    }
}
