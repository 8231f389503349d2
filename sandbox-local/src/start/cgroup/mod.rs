//! Limits on a whole sandbox by control groups, where the host grants them.
//!
//! cgroup v2 with delegation first; as root on a v1 or hybrid host, the v1 hierarchies. What can't
//! be had is an error with the remedy, never a silent nothing.
//!
//! References: cgroups(7), Documentation/admin-guide/cgroup-v2.rst.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use sandbox_core::{Control, Resources};

use crate::layers::{Journal, Kind, Record};
use crate::mutation::{self, Part};

const MOUNT: &str = "/sys/fs/cgroup";
/// Processor time is given per this many microseconds.
const PERIOD: u64 = 100_000;

/// The cgroups of one sandbox; removed when dropped, once its processes are dead.
#[derive(Debug)]
pub(crate) struct Cgroup {
    dirs: Vec<Made>,
    /// Controls that are limited, and by what, for the isolation report.
    controls: Vec<(Control, &'static str)>,
    /// Counts, among other things, what was killed for lack of memory.
    memory_events: Option<fs::File>,
}

/// A cgroup, and its entry in the journal until it is removed.
#[derive(Debug)]
struct Made {
    path: PathBuf,
    record: Record,
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

/// A limit as files to write: v2's and v1's name, and what to write.
struct Limit {
    control: Control,
    controller: &'static str,
    v2: Vec<(&'static str, String)>,
    v1: Vec<(&'static str, String)>,
}

fn limits(resources: &Resources) -> Vec<Limit> {
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

/// Absent where the kernel was built without swap accounting; then there is nothing to limit.
const OPTIONAL: &[&str] = &[
    "memory.swap.max",
    "memory.memsw.limit_in_bytes",
    "memory.kmem.tcp.limit_in_bytes",
    "memory.oom.group",
];

impl Cgroup {
    /// No limits.
    pub(crate) fn none() -> Self {
        Self {
            dirs: Vec::new(),
            controls: Vec::new(),
            memory_events: None,
        }
    }

    /// Makes cgroups with these limits, as far as they can be had; `Err` for each that can't.
    /// The number of processes is not limited here: a resource limit does that on every host.
    pub(crate) fn create(
        name: &str,
        resources: &Resources,
        configured: Option<&Path>,
        journal: &Journal,
    ) -> (Self, Vec<NoCgroup>) {
        let mut made = Self::none();
        let mut missing = Vec::new();
        let limits = limits(resources);
        if limits.is_empty() {
            return (made, missing);
        }
        let v2 =
            v2_parent(configured).and_then(|parent| made.v2_child(&parent, name, &limits, journal));
        for limit in &limits {
            let by_v2 = v2
                .as_ref()
                .map_err(|error| error.to_string())
                .and_then(|child| {
                    write_all(child, &limit.v2).map_err(|error| format!("cgroup v2: {error}"))
                });
            let result = match by_v2 {
                Ok(()) => Ok("cgroup v2"),
                Err(v2) if configured.is_some() => Err(v2),
                Err(v2) => made
                    .v1_child(name, limit, journal)
                    .map(|()| "cgroup v1")
                    .map_err(|v1| format!("{v2}; cgroup v1: {v1}")),
            };
            match result {
                Ok(by) => made.controls.push((limit.control, by)),
                Err(reason) => missing.push(NoCgroup {
                    control: limit.control,
                    reason: format!("{reason}; {REMEDY}"),
                }),
            }
        }
        if resources.memory.is_some() {
            // v2's name and v1's.
            let named = |name| {
                let mut dirs = made.dirs.iter();
                dirs.find_map(|dir| fs::File::open(dir.path.join(name)).ok())
            };
            made.memory_events = named("memory.events").or_else(|| named("memory.oom_control"));
        }
        (made, missing)
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

    fn v2_child(
        &mut self,
        parent: &Path,
        name: &str,
        limits: &[Limit],
        journal: &Journal,
    ) -> io::Result<PathBuf> {
        let wanted: Vec<&str> = limits.iter().map(|limit| limit.controller).collect();
        for controller in &wanted {
            // Fails where it is on already or may not be switched; the child shows which.
            let _ = fs::write(
                parent.join("cgroup.subtree_control"),
                format!("+{controller}"),
            );
        }
        let child = parent.join(format!("sandbox-{name}"));
        self.make(&child, journal)?;
        Ok(child)
    }

    /// Makes a cgroup, after it was written down for the case that this process dies.
    fn make(&mut self, path: &Path, journal: &Journal) -> io::Result<()> {
        let record = journal.record(Kind::Cgroup, path)?;
        fs::create_dir(path)?;
        let path = path.to_owned();
        self.dirs.push(Made { path, record });
        Ok(())
    }

    fn v1_child(&mut self, name: &str, limit: &Limit, journal: &Journal) -> io::Result<()> {
        let parent = v1_parent(limit.controller)?;
        let child = parent.join(format!("sandbox-{name}"));
        self.make(&child, journal)?;
        write_all(&child, &limit.v1)
    }

    /// Puts a process, and so all that it will start, under the limits.
    pub(crate) fn attach(&self, pid: u32) -> io::Result<()> {
        if mutation::is_off(Part::Cgroup) {
            return Ok(());
        }
        self.dirs
            .iter()
            .try_for_each(|dir| fs::write(dir.path.join("cgroup.procs"), pid.to_string()))
    }

    /// Whether the kernel has killed a process because the limit on memory was reached.
    pub(crate) fn has_killed(&self) -> bool {
        let counted = |dir: &Made| {
            ["memory.events", "memory.oom_control"]
                .iter()
                .filter_map(|file| fs::read_to_string(dir.path.join(file)).ok())
                .any(|text| text.lines().any(is_kill))
        };
        let is_limited = |(control, _): &(Control, _)| *control == Control::Memory;
        self.controls.iter().any(is_limited) && self.dirs.iter().any(counted)
    }

    /// By what a control is limited, if the process is found under it.
    pub(crate) fn covers(&self, control: Control, pid: u32) -> Option<&'static str> {
        let (_, by) = self.controls.iter().find(|(known, _)| *known == control)?;
        let pid = pid.to_string();
        let listed = |dir: &Made| {
            fs::read_to_string(dir.path.join("cgroup.procs"))
                .is_ok_and(|list| list.lines().any(|line| line == pid))
        };
        self.dirs.iter().all(listed).then_some(*by)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if self.dirs.is_empty() {
            return;
        }
        let dirs = std::mem::take(&mut self.dirs);
        // The kernel empties a cgroup a moment after the last process died: not something to wait
        // for here.
        let remove = move || {
            let deadline = Instant::now() + Duration::from_secs(5);
            for Made { path, record } in dirs {
                let is_busy = |error: io::Error| error.kind() == io::ErrorKind::ResourceBusy;
                while fs::remove_dir(&path).is_err_and(is_busy) && Instant::now() < deadline {
                    thread::sleep(Duration::from_millis(5));
                }
                if path.exists() {
                    // Its entry stays, and the next start tries again.
                    std::mem::forget(record);
                }
            }
        };
        let _ = thread::Builder::new()
            .name("sandbox-cgroup".into())
            .spawn(remove);
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

fn write_all(dir: &Path, files: &[(&str, String)]) -> io::Result<()> {
    for (file, value) in files {
        match fs::write(dir.join(file), value) {
            Err(_) if OPTIONAL.contains(file) => {}
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

/// Parent of v2 children: the configured directory, or this process's own cgroup.
fn v2_parent(configured: Option<&Path>) -> io::Result<PathBuf> {
    if let Some(parent) = configured {
        return Ok(parent.to_owned());
    }
    let own = own_cgroup(|id, controllers| id == "0" && controllers.is_empty())?;
    let mounts = [
        Path::new(MOUNT).to_owned(),
        Path::new(MOUNT).join("unified"),
    ];
    let mount = mounts
        .iter()
        .find(|mount| mount.join("cgroup.controllers").exists())
        .ok_or_else(|| io::Error::other("cgroup v2 is not mounted"))?;
    let parent = below(mount, &own);
    let controllers = fs::read_to_string(parent.join("cgroup.controllers"))?;
    if controllers.trim().is_empty() {
        return Err(io::Error::other("cgroup v2 has no controllers here"));
    }
    Ok(parent)
}

fn v1_parent(controller: &str) -> io::Result<PathBuf> {
    let own = own_cgroup(|_, controllers| controllers.split(',').any(|c| c == controller))?;
    let mount = Path::new(MOUNT).join(controller);
    if !mount.exists() {
        return Err(io::Error::other(format!(
            "the {controller} hierarchy is not mounted"
        )));
    }
    Ok(below(&mount, &own))
}

/// The path of this process in the hierarchy that the predicate picks from /proc/self/cgroup.
fn own_cgroup(pick: impl Fn(&str, &str) -> bool) -> io::Result<String> {
    let table = fs::read_to_string("/proc/self/cgroup")?;
    let mut lines = table.lines().map(|line| line.splitn(3, ':'));
    lines
        .find_map(|mut fields| {
            let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            pick(id, controllers).then(|| path.to_owned())
        })
        .ok_or_else(|| io::Error::other("this process is in no such hierarchy"))
}

fn below(mount: &Path, path: &str) -> PathBuf {
    let dir = mount.join(path.trim_start_matches('/'));
    // In a container the path may be the host's, which is not visible.
    if dir.exists() { dir } else { mount.to_owned() }
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
