//! Starting processes. Must never wait for one without a bound, and must answer
//! every request with FAILED or, sooner or later, EXITED.

use crate::play::Handles;
use crate::proc;
use crate::protocol::{MAX_PAYLOAD, Message, reply, spawn, stage};
use crate::sys::slot::{self, Job, Slot};
use crate::sys::socket::{self, Fds};
use crate::sys::{self, EAGAIN, Errno, SIGKILL};
use crate::table::{Exec, Table};

/// Wait for a process whose start is to be confirmed; what
/// takes longer is confirmed in passing.
const CONFIRM_MS: u64 = 20;

/// Starts what the message asks for. `None`: the message makes no sense.
pub(crate) fn start(
    table: &mut Table,
    handles: Handles,
    index: usize,
    message: &Message,
    inline: usize,
    mut fds: Fds,
) -> Option<sys::Result<()>> {
    let slot = slot::all().get(index)?;
    if message.exec == 0 || table.find(message.exec).is_some() {
        return None;
    }
    let asked = |flag: u32| message.flags & flag != 0;
    let wanted = [spawn::STDIN, spawn::PROGRAM, spawn::PAYLOAD];
    if fds.len() != 2 + wanted.iter().filter(|flag| asked(**flag)).count() {
        return None;
    }
    // Without it, a terminal would be whatever standard input is.
    if asked(spawn::TERMINAL) && !asked(spawn::STDIN) {
        return None;
    }
    let given = [fds.take()?, fds.take()?];
    let stdin = if asked(spawn::STDIN) {
        fds.take()
    } else {
        None
    };
    let program = if asked(spawn::PROGRAM) {
        fds.take()
    } else {
        None
    };
    let payload = if asked(spawn::PAYLOAD) {
        fds.take()
    } else {
        None
    };
    let job = Job {
        stdin: stdin.unwrap_or(handles.null),
        stdout: given[0],
        stderr: given[1],
        terminal: asked(spawn::TERMINAL),
        program,
        proc: handles.proc,
        arguments: message.b as usize,
        environment: message.c as usize,
        candidates: message.d as usize,
    };
    let launched = launch(table, slot, job, message.a as usize, payload, inline);
    // The new process has its own copies.
    for fd in [Some(given[0]), Some(given[1]), stdin, program, payload]
        .into_iter()
        .flatten()
    {
        sys::close(fd);
    }
    let pid = match launched? {
        Ok(pid) => pid,
        Err(errno) => return Some(fail(message.exec, stage::FORK, errno)),
    };
    table.insert(Exec::starting(
        message.exec,
        pid,
        index,
        asked(spawn::CONFIRM),
    ));
    if asked(spawn::CONFIRM) {
        slot.wait(CONFIRM_MS);
    }
    Some(Ok(()))
}

fn launch(
    table: &Table,
    slot: &Slot,
    job: Job,
    len: usize,
    payload: Option<i32>,
    inline: usize,
) -> Option<sys::Result<i32>> {
    if len > MAX_PAYLOAD || (payload.is_none() && len != inline) {
        return None;
    }
    if table.is_full() {
        return Some(Err(Errno(EAGAIN)));
    }
    let mapping = match payload.map(|fd| sys::map(fd, len)).transpose() {
        Ok(mapping) => mapping,
        Err(errno) => return Some(Err(errno)),
    };
    slot.launch(job, len, mapping)
}

/// Tells the host that an exec did not start.
pub(crate) fn fail(id: u64, stage: u32, errno: Errno) -> sys::Result<()> {
    let (a, b) = (u64::from(stage), errno.0 as u64);
    let message = Message {
        kind: reply::FAILED,
        exec: id,
        a,
        b,
        ..Message::default()
    };
    socket::send(&message.encode(), &[])
}

/// Takes over what starting processes have found out, telling the host of those
/// whose start it wants confirmed.
pub(crate) fn settle(table: &mut Table) -> sys::Result<()> {
    let mut sent = Ok(());
    table.settle(|id| {
        let message = Message {
            kind: reply::STARTED,
            exec: id,
            ..Message::default()
        };
        if let Err(errno) = socket::send(&message.encode(), &[]) {
            sent = Err(errno);
        }
    });
    sent
}

/// Index of a free slot. While all are taken, a process that a guest stopped before it
/// got to run is killed: it would keep its slot for good.
pub(crate) fn free_slot(table: &mut Table, handles: Handles) -> Option<usize> {
    let free = slot::all().iter().position(|slot| !slot.is_busy());
    if free.is_some() {
        return free;
    }
    for exec in table
        .iter_mut()
        .filter(|exec| exec.slot != 0 && exec.pid > 0)
    {
        if proc::state(handles.proc, exec.pid) == Some(b'T') {
            let _ = sys::kill(exec.pid, SIGKILL);
        }
    }
    None
}
