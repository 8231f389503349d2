//! Usage of a local sandbox: of its processes by procfs, of its memory by its cgroup where it has
//! one, of its disk by what lies in its layers.
//!
//! It must never show zero for what it could not see. Everything is looked up by numbers of ours or
//! from descriptors; nothing of the guest's is resolved by name.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sandbox_core::backend::blocking;
use sandbox_core::{Operation, Result, Usage};

use super::LocalSandbox;
use super::running::Written;
use crate::layers::Layer;
use crate::runtime;
use crate::walk::{Cancel, Limits};

const OP: Operation = Operation::Usage;

/// The greatest number of processes that are looked at.
const MOST: usize = 100_000;
/// Number of looks at a tree that changes meanwhile.
const LOOKS: usize = 3;

impl LocalSandbox {
    /// See [`Sandbox::usage`](sandbox_core::Sandbox::usage). It does not count as use.
    pub(super) async fn usage_now(&self) -> Result<Usage> {
        self.check_open(OP)?;
        runtime::require(OP).map_err(|error| self.named(error))?;
        let cancel = Cancel::default();
        let _stop = cancel.on_drop();
        let running = self.turn(OP, self.running.clone().read_owned()).await?;
        let Some(running) = running.as_ref() else {
            return Err(self.ended.error(OP, &self.id));
        };
        if let Some(why) = running.engine.lost() {
            return Err(self.lost(why, &running.cgroup, OP));
        }
        let init = running.engine.pid();
        let spent = running.spent.clone();
        let cgroup = running.cgroup.clone();
        let written = running.written();
        let written = written.map_err(|error| self.named(error))?;
        let limits = Limits::of(&self.host.config);
        let looked = blocking(OP, move || {
            let mut usage = Usage::new();
            if let Some(seen) = processes(init) {
                let before = Duration::from_nanos(spent.load(Ordering::Relaxed));
                usage = usage
                    .cpu(before.saturating_add(seen.cpu))
                    .memory(seen.resident)
                    // The init is ours.
                    .processes(seen.count.saturating_sub(1));
            }
            if let Some(cpu) = cgroup.cpu() {
                usage.cpu = Some(cpu);
            }
            if let Some(memory) = cgroup.memory() {
                usage.memory = Some(memory);
            }
            usage.memory_peak = cgroup.memory_peak();
            usage.disk = match written {
                Written::Tmpfs(directory) => rustix::fs::fstatfs(&directory).ok().map(|found| {
                    #[allow(clippy::unnecessary_cast)] // The type differs between platforms.
                    let block = found.f_bsize as u64;
                    found
                        .f_blocks
                        .saturating_sub(found.f_bfree)
                        .saturating_mul(block)
                }),
                Written::Layers(layers) => disk(&layers, limits, &cancel),
            };
            Ok(usage)
        });
        let mut usage = looked
            .await
            .map_err(|error| self.unless_closed(error, OP))?;
        if let Some(egress) = &self.egress {
            let (sent, received) = egress.traffic();
            usage.network_sent = Some(sent);
            usage.network_received = Some(received);
        }
        Ok(usage)
    }
}

/// Room on disk of what lies in layers, if they could be gone through.
fn disk(layers: &[Arc<Layer>], limits: Limits, cancel: &Cancel) -> Option<u64> {
    let mut sum = 0_u64;
    for layer in layers {
        let mut looks = (0..LOOKS).map(|_| layer.bytes(limits, cancel));
        sum = sum.saturating_add(looks.find_map(std::result::Result::ok)?);
    }
    Some(sum)
}

/// Figures of procfs for all processes below an init, itself included.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) cpu: Duration,
    resident: u64,
    count: u64,
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
