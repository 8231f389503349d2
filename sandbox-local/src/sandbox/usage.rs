//! Usage of a local sandbox: of its processes by procfs, of its memory by its cgroup where it has
//! one, of its disk by what lies in its layers.
//!
//! It must never show zero for what it could not see. Everything is looked up by numbers of ours or
//! from descriptors; nothing of the guest's is resolved by name.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sandbox_core::backend::blocking;
use sandbox_core::{Operation, Result, Usage};

use super::LocalSandbox;
use super::processes::processes;
use super::running::Written;
use crate::layers::Layer;
use crate::runtime;
use crate::walk::{Cancel, Limits};

const OP: Operation = Operation::Usage;

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
