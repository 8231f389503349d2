//! Reads strace's log: which process is whose, and how many calls of each name lie between marks.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::work::{MARK, NAMES, ROUNDS};

/// Calls by name, per round.
pub(crate) type Calls = BTreeMap<String, f64>;

/// By work, by who makes them.
pub(crate) type Counts = BTreeMap<String, BTreeMap<String, Calls>>;

/// Waiting and memory: how often depends on who is first, not on what is done.
const NOT_COUNTED: &[&str] = &[
    "brk",
    "clock_nanosleep",
    "epoll_pwait",
    "epoll_wait",
    "futex",
    "madvise",
    "mmap",
    "mprotect",
    "mremap",
    "munmap",
    "restart_syscall",
    "rt_sigreturn",
    "sched_yield",
];

/// A line that begins a call: `PID  name(…`.
fn begun(line: &str) -> Option<(u32, &str, &str)> {
    let (pid, rest) = line.split_once(' ')?;
    let rest = rest.trim_start();
    let (name, _) = rest.split_once('(')?;
    let is_name = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    (is_name && !name.is_empty()).then_some((pid.parse().ok()?, name, rest))
}

/// The threads of the host and the processes that it started: the agents. All others are started
/// by an agent.
fn families(log: &str) -> (HashSet<u32>, HashSet<u32>) {
    let mut births: Vec<(u32, u32, bool)> = Vec::new();
    let mut unfinished: HashMap<u32, bool> = HashMap::new();
    let mut first = None;
    for line in log.lines() {
        let Some((pid, rest)) = line.split_once(' ') else {
            continue;
        };
        let Ok(pid) = pid.parse::<u32>() else {
            continue;
        };
        first.get_or_insert(pid);
        let rest = rest.trim_start();
        let starts = ["clone(", "clone3(", "vfork(", "fork("]
            .iter()
            .any(|call| rest.starts_with(call));
        let resumes = rest.starts_with("<... clone") || rest.starts_with("<... vfork");
        let thread = match (starts, resumes) {
            (true, _) => rest.contains("CLONE_THREAD"),
            (false, true) => unfinished.remove(&pid).unwrap_or(false),
            (false, false) => continue,
        };
        if rest.ends_with("<unfinished ...>") {
            unfinished.insert(pid, thread);
            continue;
        }
        let child = rest
            .rsplit_once("= ")
            .and_then(|(_, child)| child.parse().ok());
        if let Some(child) = child {
            births.push((pid, child, thread));
        }
    }
    let mut host: HashSet<u32> = first.into_iter().collect();
    // A thread's own threads may stand before it in the log.
    for _ in 0..births.len() {
        let before = host.len();
        for (parent, child, thread) in &births {
            if *thread && host.contains(parent) {
                host.insert(*child);
            }
        }
        if host.len() == before {
            break;
        }
    }
    let agents = births
        .iter()
        .filter(|(parent, _, thread)| !thread && host.contains(parent))
        .map(|(_, child, _)| *child)
        .collect();
    (host, agents)
}

/// Counts what lies between the marks.
pub(crate) fn count(log: &str) -> Counts {
    let (host, agents) = families(log);
    let mut counts = Counts::new();
    let mut running = HashSet::new();
    let mut current: Option<&str> = None;
    for line in log.lines() {
        let Some((pid, name, call)) = begun(line) else {
            continue;
        };
        if call.contains(MARK) {
            let begins = |work: &&&str| call.contains(&format!("{MARK}/begin/{work}\""));
            current = NAMES.iter().find(begins).copied();
            continue;
        }
        let who = if host.contains(&pid) {
            "host"
        } else if agents.contains(&pid) {
            "agent"
        } else if running.contains(&pid) {
            continue;
        } else {
            // Its own program begins with this; until then it is our code that runs.
            if name.starts_with("execve") {
                running.insert(pid);
            }
            "command, before its program"
        };
        let Some(work) = current else { continue };
        if NOT_COUNTED.contains(&name) {
            continue;
        }
        let calls = counts.entry(work.to_owned()).or_default();
        let calls = calls.entry(who.to_owned()).or_default();
        *calls.entry(name.to_owned()).or_default() += 1.0 / f64::from(ROUNDS);
    }
    // One digit: a tenth of a call is one call in all rounds.
    for calls in counts.values_mut().flat_map(BTreeMap::values_mut) {
        for count in calls.values_mut() {
            *count = (*count * 10.0).round() / 10.0;
        }
    }
    counts
}
