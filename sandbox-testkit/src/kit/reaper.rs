//! The processes that a run leaves on this host: found, ended and told.
//!
//! It must never end a process that was there before the run, or that the run did not start.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Time that a process may take to end after the last case.
const ENDING: Duration = Duration::from_secs(5);

/// The children of this process when the run began.
#[derive(Debug)]
pub(crate) struct Reaper {
    before: BTreeSet<i32>,
}

#[cfg(target_os = "linux")]
impl Reaper {
    /// Makes this process the one that inherits the orphans of a run. What is a child already is
    /// left alone.
    pub(crate) fn new() -> Self {
        use rustix::process::{getpid, set_child_subreaper};
        // Where it is refused, orphans go to init and are not seen; those that stay are.
        let _ = set_child_subreaper(Some(getpid()));
        Self {
            before: children().into_keys().collect(),
        }
    }

    /// The processes that the run started and that do not end, each with its command line. They are
    /// killed.
    pub(crate) fn left(&self) -> Vec<String> {
        let start = Instant::now();
        loop {
            let left: Vec<(i32, String)> = children()
                .into_iter()
                .filter(|(pid, _)| !self.before.contains(pid))
                .collect();
            if left.is_empty() {
                return Vec::new();
            }
            if start.elapsed() > ENDING {
                for (pid, _) in &left {
                    if let Some(pid) = rustix::process::Pid::from_raw(*pid) {
                        // It may have ended in this moment.
                        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                    }
                }
                return left.into_iter().map(|(_, line)| line).collect();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The children of this process that have not ended, with number and command line.
#[cfg(target_os = "linux")]
fn children() -> std::collections::BTreeMap<i32, String> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let mut found = std::collections::BTreeMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // Each of these may have ended since it was listed.
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let Some((_, fields)) = stat.rsplit_once(')') else {
            continue;
        };
        let mut fields = fields.split_whitespace();
        let (state, parent) = (fields.next(), fields.next());
        if parent.and_then(|parent| parent.parse().ok()) != Some(own) || state == Some("Z") {
            continue;
        }
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        found.insert(pid, format!("{pid} {line}"));
    }
    found
}

#[cfg(not(target_os = "linux"))]
impl Reaper {
    /// Elsewhere orphans can't be inherited.
    pub(crate) fn new() -> Self {
        Self {
            before: BTreeSet::new(),
        }
    }

    pub(crate) fn left(&self) -> Vec<String> {
        let _ = (&self.before, Instant::now() + ENDING);
        Vec::new()
    }
}
