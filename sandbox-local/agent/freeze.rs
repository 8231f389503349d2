//! Holding every guest process still while the host copies files.
//! Must never let go on what a guest had stopped itself.

use crate::proc;
use crate::spawn;
use crate::sys::{self, SIGCONT, SIGSTOP, slot};
use crate::table::Table;

/// How long the processes get to come to rest, and how many passes at least: the agent may itself
/// have stood still for most of the time.
const PATIENCE_MS: u64 = 3000;
const PASSES: u32 = 20;

/// After this time a process that waits in the kernel is taken to stand still:
/// one whose vfork child was stopped before it could execute waits for ever, and
/// nothing else can run meanwhile. The most that can still move is one write.
const WAITING_MS: u64 = 100;

/// Stops everything; says whether all of it stands still.
pub(crate) fn freeze(table: &mut Table, stopped: &mut [i32], proc: i32) -> sys::Result<bool> {
    let start = sys::now_ms();
    let deadline = start + PATIENCE_MS;
    // A process that has not executed its program yet borrows this one's memory
    // and a slot: let it get out first.
    for slot in slot::all() {
        while slot.is_running() && sys::now_ms() < deadline {
            slot.wait(10);
        }
    }
    spawn::settle(table)?;
    stopped.fill(0);
    let mut next = stopped.iter_mut();
    let _ = proc::for_each_number(proc, |pid| {
        if pid > 1
            && proc::state(proc, pid) == Some(b'T')
            && let Some(entry) = next.next()
        {
            *entry = pid;
        }
        true
    });
    let mut passes = 0;
    loop {
        passes += 1;
        let patient = sys::now_ms() >= start + WAITING_MS;
        let mut moving = false;
        let listed = proc::for_each_number(proc, |pid| {
            if pid > 1 && !proc::stands_still(proc, pid, patient) {
                moving = true;
                let _ = sys::kill(pid, SIGSTOP);
            }
            true
        });
        if !moving && listed.is_ok() {
            return Ok(true);
        }
        if sys::now_ms() >= deadline && passes >= PASSES {
            return Ok(false);
        }
        sys::pause_ms(1);
    }
}

/// Lets everything go on, except what stood still before the freeze.
pub(crate) fn thaw(stopped: &mut [i32], proc: i32) {
    let _ = proc::for_each_number(proc, |pid| {
        if pid > 1 && !stopped.contains(&pid) {
            let _ = sys::kill(pid, SIGCONT);
        }
        true
    });
    stopped.fill(0);
}
