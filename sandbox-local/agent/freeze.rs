//! Holding every guest process still while the host copies files, and proving that it stood still.
//!
//! A stopped process can be continued by what it did before: a timer that sends it SIGCONT. So the
//! end of a freeze compares every thread with its beginning: one that was executed since has been
//! switched out again since, and the kernel counts that.
//!
//! Must never let go on what a guest had stopped itself, and never say that all stood still when
//! that was not seen.

#[allow(deprecated)] // There is no other keyed hash in core.
use core::hash::SipHasher;
use core::hash::{Hash, Hasher};

use crate::proc::{self, is_still};
use crate::spawn;
use crate::sys::{self, SIGCONT, SIGSTOP, slot};
use crate::table::Table;

/// Time that the processes get to come to rest, and number of passes at least: the agent may itself
/// have stood still for most of the time.
const PATIENCE_MS: u64 = 3000;
const PASSES: u32 = 20;

/// After this time a process that waits in the kernel is taken to stand still:
/// one whose vfork child was stopped before it could execute waits for ever. If
/// it goes on all the same, the end of the freeze shows it.
const WAITING_MS: u64 = 100;

/// State of all threads at one moment in which they stood still.
pub(crate) struct Stillness {
    key: [u64; 2],
    hash: u64,
}

impl Stillness {
    /// `None` if something moves. The key is the host's secret: who knew it could make two states
    /// look alike.
    fn see(proc: i32, key: [u64; 2]) -> Option<Self> {
        #[allow(deprecated)]
        let mut hasher = SipHasher::new_with_keys(key[0], key[1]);
        let mut still = true;
        let listed = proc::for_each_number(proc, |pid| {
            if pid > 1 {
                still = proc::for_each_live_thread(proc, pid, |thread, seen| {
                    let stands = is_still(seen.state) || seen.state == b'D';
                    (thread, seen.switches).hash(&mut hasher);
                    stands
                });
            }
            still
        });
        (still && listed.is_ok()).then(|| Self {
            key,
            hash: hasher.finish(),
        })
    }

    /// Whether nothing was executed since. A thread shows that it stops a moment before it is
    /// switched out, which is what is counted: so there is a second look, a millisecond later. Who
    /// ran since the beginning without a pause is seen then, wherever it was at the first look.
    pub(crate) fn lasts(self, proc: i32) -> bool {
        let is_same = || Self::see(proc, self.key).is_some_and(|now| now.hash == self.hash);
        if !is_same() {
            return false;
        }
        sys::pause_ms(1);
        is_same()
    }
}

/// Stops everything; `None` if something would not stand still.
pub(crate) fn freeze(
    table: &mut Table,
    stopped: &mut [i32],
    proc: i32,
    key: [u64; 2],
) -> sys::Result<Option<Stillness>> {
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
            && matches!(proc::state(proc, pid), Some(b'T' | b't'))
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
                // If it stood still before, another process has continued it: so does the thaw.
                if let Some(entry) = stopped.iter_mut().find(|entry| **entry == pid) {
                    *entry = 0;
                }
                let _ = sys::kill(pid, SIGSTOP);
            }
            true
        });
        if !moving
            && listed.is_ok()
            && let Some(stillness) = Stillness::see(proc, key)
        {
            return Ok(Some(stillness));
        }
        if sys::now_ms() >= deadline && passes >= PASSES {
            return Ok(None);
        }
        sys::pause_ms(1);
    }
}

/// Lets everything go on, except what a guest had stopped, or traces.
pub(crate) fn thaw(stopped: &mut [i32], proc: i32) {
    let _ = proc::for_each_number(proc, |pid| {
        if pid > 1 && !stopped.contains(&pid) {
            let _ = sys::kill(pid, SIGCONT);
        }
        true
    });
    stopped.fill(0);
}
