//! The execs that the host may still ask about.
//!
//! An exec stays known after its main process ended, because what it left behind
//! can still be killed; the host says when it has lost interest. Must stay
//! bounded: a full table refuses, it never forgets on its own.

use crate::protocol::MAX_RUNNING;
use crate::sys::slot;

const CAPACITY: usize = 2 * MAX_RUNNING;

/// A tree being killed.
#[derive(Clone, Copy)]
pub(crate) struct Kill {
    /// Whether this exec's tree is being killed at all.
    pub(crate) active: bool,
    /// When it began.
    pub(crate) since: u64,
    /// Flags of the reply.
    pub(crate) flags: u32,
    /// Passes so far.
    pub(crate) passes: u32,
    /// Passes in a row that met no member.
    pub(crate) calm: u32,
    /// Members met in this pass.
    pub(crate) seen: u32,
    /// Members met in this pass for the first time.
    pub(crate) fresh: u32,
    /// The last pass found nothing more to do.
    pub(crate) done: bool,
}

impl Kill {
    /// No killing; all zero.
    pub(crate) const NONE: Self = Self {
        active: false,
        since: 0,
        flags: 0,
        passes: 0,
        calm: 0,
        seen: 0,
        fresh: 0,
        done: false,
    };
}

/// One exec.
#[derive(Clone, Copy)]
pub(crate) struct Exec {
    /// The host's name for it; zero marks a free entry.
    pub(crate) id: u64,
    /// Main process, zero once reaped.
    pub(crate) pid: i32,
    /// The mark of its tree (inode of the UTS namespace), zero while unknown and
    /// again once nothing of the tree can be left.
    pub(crate) mark: u64,
    /// Index of the slot in which it is being started, plus one.
    pub(crate) slot: usize,
    /// STARTED is owed to the host.
    pub(crate) confirm: bool,
    /// The host will not mention it again.
    pub(crate) forgotten: bool,
    /// The killing of its tree.
    pub(crate) kill: Kill,
}

impl Exec {
    const FREE: Self = Self {
        id: 0,
        pid: 0,
        mark: 0,
        slot: 0,
        confirm: false,
        forgotten: false,
        kill: Kill::NONE,
    };

    /// An exec whose process was just cloned.
    pub(crate) fn starting(id: u64, pid: i32, slot: usize, confirm: bool) -> Self {
        Self {
            id,
            pid,
            slot: slot + 1,
            confirm,
            ..Self::FREE
        }
    }
}

/// See the module's documentation.
pub(crate) struct Table {
    execs: [Exec; CAPACITY],
    used: usize,
    running: usize,
}

impl Table {
    /// An empty table, all zero so that it costs no space in the program.
    pub(crate) const fn new() -> Self {
        Self {
            execs: [Exec::FREE; CAPACITY],
            used: 0,
            running: 0,
        }
    }

    /// Whether there is no room for another running exec.
    pub(crate) fn is_full(&self) -> bool {
        self.running >= MAX_RUNNING || self.free_index() >= CAPACITY
    }

    fn free_index(&self) -> usize {
        let used = self.execs.get(..self.used).unwrap_or_default();
        used.iter()
            .position(|exec| exec.id == 0)
            .unwrap_or(self.used)
    }

    /// Adds a running exec; the caller asked [`Self::is_full`] before.
    pub(crate) fn insert(&mut self, exec: Exec) {
        let index = self.free_index();
        if let Some(entry) = self.execs.get_mut(index) {
            *entry = exec;
            self.used = self.used.max(index + 1);
            self.running += 1;
        }
    }

    /// All known execs.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Exec> {
        self.execs
            .get_mut(..self.used)
            .unwrap_or_default()
            .iter_mut()
            .filter(|exec| exec.id != 0)
    }

    /// The exec called `id`.
    pub(crate) fn find(&mut self, id: u64) -> Option<&mut Exec> {
        self.iter_mut().find(|exec| exec.id == id)
    }

    /// The exec whose main process is `pid`.
    pub(crate) fn find_main(&mut self, pid: i32) -> Option<&mut Exec> {
        self.iter_mut().find(|exec| exec.pid == pid)
    }

    /// The exec whose tree bears `mark`.
    pub(crate) fn find_mark(&mut self, mark: u64) -> Option<&mut Exec> {
        self.iter_mut().find(|exec| exec.mark == mark)
    }

    /// The main process of `id` was reaped.
    pub(crate) fn ended(&mut self, id: u64) {
        if let Some(exec) = self.find(id) {
            exec.pid = 0;
            exec.slot = 0;
            self.running = self.running.saturating_sub(1);
        }
    }

    /// Drops `id`, whose main process has ended.
    pub(crate) fn remove(&mut self, id: u64) {
        if let Some(exec) = self.find(id) {
            *exec = Exec::FREE;
        }
        while self.used > 0
            && self
                .execs
                .get(self.used - 1)
                .is_some_and(|exec| exec.id == 0)
        {
            self.used -= 1;
        }
    }

    /// Takes over what processes being started have found out, and frees the
    /// slots that they left. `started` is told of execs that owe a STARTED.
    pub(crate) fn settle(&mut self, mut started: impl FnMut(u64)) {
        for (index, slot) in slot::all().iter().enumerate() {
            if !slot.is_busy() {
                continue;
            }
            let left = !slot.is_running();
            let mark = slot.mark();
            let failed = slot.failure().is_some();
            if mark != 0 {
                // Inode numbers of namespaces are reused, but only after the last
                // process in one is gone: an older tree with this mark is dead.
                for exec in self.iter_mut() {
                    if exec.mark == mark && exec.slot != index + 1 {
                        exec.mark = 0;
                    }
                }
            }
            if let Some(exec) = self.iter_mut().find(|exec| exec.slot == index + 1) {
                exec.mark = mark;
                if left && !failed {
                    // A failure keeps its slot until the process is reaped.
                    exec.slot = 0;
                    if exec.confirm {
                        exec.confirm = false;
                        started(exec.id);
                    }
                }
                if left && failed {
                    continue;
                }
            }
            if left {
                slot.release();
            }
        }
    }
}
