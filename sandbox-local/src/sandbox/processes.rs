//! Figures of a sandbox's processes as procfs has them.
//!
//! Must never look anything up by a name of the guest's: by numbers only.

use std::path::Path;
use std::time::Duration;

/// The greatest number of processes that are looked at.
const MOST: usize = 100_000;

/// Figures of procfs for all processes below an init, itself included.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) cpu: Duration,
    pub(super) resident: u64,
    pub(super) count: u64,
}

/// Looks at an init and all that it and its children started. What ends meanwhile is counted with
/// its parent, or not at all.
pub(super) fn processes(init: u32) -> Option<Seen> {
    let mut seen = Seen::default();
    let mut todo = vec![init];
    while let Some(pid) = todo.pop() {
        let proc = Path::new("/proc").join(pid.to_string());
        let Some((ticks, pages)) = stat(&proc.join("stat")) else {
            if pid == init {
                return None;
            }
            continue;
        };
        seen.count += 1;
        let per_second = rustix::param::clock_ticks_per_second().max(1);
        let nanos = u128::from(ticks) * 1_000_000_000 / u128::from(per_second);
        let cpu = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        seen.cpu = seen.cpu.saturating_add(cpu);
        let page = rustix::param::page_size() as u64;
        seen.resident = seen.resident.saturating_add(pages.saturating_mul(page));
        // A child may be any thread's.
        let tasks = std::fs::read_dir(proc.join("task"));
        for task in tasks.into_iter().flatten().flatten() {
            let children = std::fs::read_to_string(task.path().join("children"));
            let children = children.unwrap_or_default();
            todo.extend(
                children
                    .split_ascii_whitespace()
                    .filter_map(|pid| pid.parse::<u32>().ok()),
            );
        }
        if todo.len() > MOST || seen.count > MOST as u64 {
            return None;
        }
    }
    Some(seen)
}

/// Of a process: its time and that of the children that it has waited for, in ticks, and its
/// resident pages (proc_pid_stat(5)).
fn stat(path: &Path) -> Option<(u64, u64)> {
    let text = std::fs::read(path).ok()?;
    // The name of the program is the guest's, and ends at the last parenthesis.
    let end = text.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(text.get(end + 1..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // The first is field 3, the state.
    let number = |field: usize| fields.get(field - 3)?.parse::<i64>().ok();
    let mut ticks = 0;
    for field in [14, 15, 16, 17] {
        ticks += u64::try_from(number(field)?).unwrap_or(0);
    }
    Some((ticks, u64::try_from(number(24)?).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::processes;

    #[test]
    fn a_process_and_its_children_are_seen() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let seen = processes(std::process::id()).unwrap();
        assert!(seen.count >= 2, "{}", seen.count);
        assert!(seen.resident > 1 << 20, "{}", seen.resident);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(processes(u32::MAX).is_none());
    }
}
