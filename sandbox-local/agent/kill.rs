//! Killing everything that descends from an exec.
//!
//! Every exec runs in a UTS namespace of its own, which its descendants inherit
//! and cannot leave without a capability; so the namespace tells the tree even of
//! a daemon that left its session and whose parents are gone. The search repeats
//! until it meets no member. Must never kill another exec's tree unless a fork bomb
//! leaves no other way, and must say so then.

use crate::proc::{self, Mark};
use crate::protocol::{Message, killed, reply};
use crate::sys::{self, SIGKILL, socket};
use crate::table::{Kill, Table};

/// Time that new members may keep turning up before everything is killed.
const PATIENCE_MS: u64 = 300;
/// Further sign of a fork bomb, as the clock also runs while the agent does not: so many
/// passes, or members in a pass that does not end.
const PASSES: u32 = 20;
const MANY: u32 = 256;
/// Time that killed processes may take to end.
const LINGER_MS: u64 = 5000;
/// Passes without a member that outweigh processes vanishing while looked at:
/// those have parents that reap them, and if no parent is a member, another exec
/// is just busy.
const CALM: u32 = 3;

const REMEMBERED: usize = 4096;

/// Which processes were killed already: those that are merely slow to end must
/// not pass for a fork bomb. Entries overwrite each other; that only costs
/// patience.
pub(crate) struct KillState {
    killed: [u64; REMEMBERED],
    generation: u32,
    active: usize,
    last_pass: u64,
}

impl KillState {
    /// All zero, so that it costs no space in the program.
    pub(crate) const fn new() -> Self {
        Self {
            killed: [0; REMEMBERED],
            generation: 0,
            active: 0,
            last_pass: 0,
        }
    }

    /// Whether any tree is being killed.
    pub(crate) fn is_active(&self) -> bool {
        self.active > 0
    }

    /// Notes `pid` and says whether it was not known.
    fn is_fresh(&mut self, pid: i32) -> bool {
        let key = u64::from(pid.unsigned_abs()) | (u64::from(self.generation) << 32);
        match self
            .killed
            .get_mut(pid.unsigned_abs() as usize % REMEMBERED)
        {
            Some(entry) if *entry == key => false,
            Some(entry) => {
                *entry = key;
                true
            }
            None => true,
        }
    }
}

/// Begins to kill the tree of `id`.
pub(crate) fn begin(table: &mut Table, state: &mut KillState, id: u64) -> sys::Result<()> {
    let Some(exec) = table.find(id) else {
        return answer(id, killed::UNKNOWN, 0);
    };
    if exec.kill.active {
        return Ok(());
    }
    exec.kill = Kill {
        active: true,
        since: sys::now_ms(),
        ..Kill::NONE
    };
    if exec.pid > 0 {
        // Not reaped, so both numbers are still its own.
        let _ = sys::kill(-exec.pid, SIGKILL);
        let _ = sys::kill(exec.pid, SIGKILL);
    }
    if state.active == 0 {
        state.generation = state.generation.wrapping_add(1);
        state.last_pass = 0;
    }
    state.active += 1;
    Ok(())
}

/// Makes one pass for all trees being killed, at most one per millisecond.
pub(crate) fn step(table: &mut Table, state: &mut KillState, proc: i32) -> sys::Result<()> {
    if state.active == 0 {
        return Ok(());
    }
    if !sys::has_children() {
        return finish(table, state, |_| true);
    }
    let now = sys::now_ms();
    if state.last_pass == now {
        return Ok(());
    }
    state.last_pass = now;
    for exec in table.iter_mut() {
        exec.kill.passes = exec.kill.passes.saturating_add(1);
        exec.kill.seen = 0;
        exec.kill.fresh = 0;
    }
    let mut vanished = false;
    let mut count = 0_u32;
    let listed = proc::for_each_number(proc, |pid| {
        count = count.wrapping_add(1);
        if count.is_multiple_of(64) {
            // Under a fork bomb this pass may not end: the clock decides.
            escalate(table, sys::now_ms());
        }
        visit(table, state, proc, pid, &mut vanished);
        true
    });
    let now = sys::now_ms();
    escalate(table, now);
    finish(table, state, |kill| {
        if kill.seen > 0 || listed.is_err() {
            kill.calm = 0;
        } else {
            kill.calm += 1;
        }
        let converged = kill.calm > 0 && (!vanished || kill.calm >= CALM);
        if !converged && now.saturating_sub(kill.since) > LINGER_MS {
            kill.flags |= killed::LINGERING;
            return true;
        }
        converged
    })
}

fn visit(table: &mut Table, state: &mut KillState, proc: i32, pid: i32, vanished: &mut bool) {
    if pid <= 1 {
        return;
    }
    // A main process is known by its number, also before it bears its mark.
    let known = table.find_main(pid).map(|exec| exec.id);
    let owner = match known {
        Some(id) => Some(id),
        None => match proc::mark(proc, pid) {
            Mark::Known(mark) => match table.find_mark(mark) {
                Some(exec) => Some(exec.id),
                None => return,
            },
            Mark::Ended => return,
            Mark::Dying => {
                // Whose it was cannot be told any more; it will not be long.
                for exec in table.iter_mut().filter(|exec| exec.kill.active) {
                    exec.kill.seen += 1;
                }
                return;
            }
            Mark::Vanished => {
                *vanished = true;
                return;
            }
            // A process that hides from its own init does so to survive.
            Mark::Unreadable => None,
        },
    };
    if let Some(id) = owner
        && !table.find(id).is_some_and(|exec| exec.kill.active)
    {
        return;
    }
    let fresh = state.is_fresh(pid);
    if fresh && owner.is_some() {
        // A group lies within one session, and a session within one tree: this
        // reaches the members in one step, also those just being forked.
        if let Ok(group) = sys::process_group(pid)
            && group > 1
        {
            let _ = sys::kill(-group, SIGKILL);
        }
    }
    let _ = sys::kill(pid, SIGKILL);
    for exec in table.iter_mut().filter(|exec| exec.kill.active) {
        if owner.is_none() {
            exec.kill.flags |= killed::UNREADABLE;
        }
        if owner.is_none_or(|id| id == exec.id) {
            exec.kill.seen += 1;
            exec.kill.fresh += u32::from(fresh);
        }
    }
}

/// Kills everything once a tree keeps growing for too long.
fn escalate(table: &mut Table, now: u64) {
    let outrun = |kill: &Kill| {
        let grows = kill.fresh >= MANY || kill.fresh > 0 && kill.passes >= PASSES;
        kill.active && grows && now.saturating_sub(kill.since) > PATIENCE_MS
    };
    if !table.iter_mut().any(|exec| outrun(&exec.kill)) {
        return;
    }
    // One step of the kernel's: nothing can fork its way around it.
    let _ = sys::kill(-1, SIGKILL);
    for exec in table.iter_mut().filter(|exec| exec.kill.active) {
        exec.kill.flags |= killed::EVERYTHING;
        exec.kill.fresh = 0;
    }
}

/// Ends the killing of trees that are `done` and whose main process was reaped.
fn finish(
    table: &mut Table,
    state: &mut KillState,
    mut done: impl FnMut(&mut Kill) -> bool,
) -> sys::Result<()> {
    for exec in table.iter_mut().filter(|exec| exec.kill.active) {
        exec.kill.done = done(&mut exec.kill);
    }
    loop {
        let over = table.iter_mut().find(|exec| {
            let lingers = exec.kill.flags & killed::LINGERING != 0;
            exec.kill.active && exec.kill.done && (exec.pid == 0 || lingers)
        });
        let Some(exec) = over else {
            return Ok(());
        };
        let (id, flags, ended) = (exec.id, exec.kill.flags, exec.pid == 0);
        // The main process alone may be what is left, not yet seen by its mark.
        let living = exec.kill.seen.max(u32::from(!ended));
        exec.kill.active = false;
        state.active = state.active.saturating_sub(1);
        if ended {
            table.remove(id);
        }
        answer(id, flags, living)?;
    }
}

fn answer(id: u64, flags: u32, living: u32) -> sys::Result<()> {
    let message = Message {
        kind: reply::TREE_KILLED,
        flags,
        exec: id,
        b: u64::from(living),
        ..Message::default()
    };
    socket::send(&message.encode(), &[])
}
