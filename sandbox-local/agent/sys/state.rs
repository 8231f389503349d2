//! The agent's memory, all of it static: it never allocates.
//! Must never hand out the mutable part twice.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::freeze::Stillness;
use crate::kill::KillState;
use crate::table::Table;

/// Everything that only the agent's own thread touches.
pub(crate) struct Memory {
    /// The execs.
    pub(crate) table: Table,
    /// State of the tree killer between passes.
    pub(crate) kill: KillState,
    /// Processes that stood still before a freeze.
    pub(crate) stopped: [i32; 256],
    /// State of all processes when they were frozen.
    pub(crate) stillness: Option<Stillness>,
}

struct Once {
    memory: UnsafeCell<Memory>,
    taken: AtomicBool,
}

// SAFETY: `take` gives the cell's content out once only.
unsafe impl Sync for Once {}

static MEMORY: Once = Once {
    memory: UnsafeCell::new(Memory {
        table: Table::new(),
        kill: KillState::new(),
        stopped: [0; 256],
        stillness: None,
    }),
    taken: AtomicBool::new(false),
};

/// The agent's memory; `None` from the second call on.
pub(crate) fn take() -> Option<&'static mut Memory> {
    if MEMORY.taken.swap(true, Ordering::Relaxed) {
        return None;
    }
    // SAFETY: this is the only reference that ever leaves the cell. Processes
    // being started share this address space but get no reference to it.
    Some(unsafe { &mut *MEMORY.memory.get() })
}
