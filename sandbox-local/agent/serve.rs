//! The agent's loop: what the host asks, who has ended, which tree still lives.
//! Must end as soon as the host is gone or stops making sense.

use crate::play::Handles;
use crate::protocol::{MAX_FORGET, Message, get_u64, reply, request};
use crate::sys::socket::{self, Fds};
use crate::sys::state::Memory;
use crate::sys::{self, EAGAIN, ECHILD, EINTR, Errno, slot};
use crate::{freeze, kill, spawn};

/// Exit codes: the host is gone; it does not speak the protocol; the kernel
/// refuses what it must not refuse.
const HOST_GONE: i32 = 0;
const MALFORMED: i32 = 3;
const BROKEN: i32 = 5;

/// Serves until the end.
pub(crate) fn run(memory: &mut Memory, handles: Handles) -> i32 {
    match serve(memory, handles) {
        Ok(code) | Err(code) => code,
    }
}

/// Children that are reaped in a row: under a storm of orphans the host must still be heard.
const REAPED_AT_ONCE: u32 = 64;
/// Number of such rounds before a sandbox is said not to be idle.
const MOST_REAPS: u32 = 512;

fn serve(memory: &mut Memory, handles: Handles) -> Result<i32, i32> {
    let mut more_ended = false;
    loop {
        let free = spawn::free_slot(&mut memory.table, handles);
        let owing = memory.table.iter_mut().any(|exec| exec.confirm);
        let busy = memory.kill.is_active() || owing || free.is_none();
        // Without a free slot there is nowhere to receive into: let it wait.
        let control = if free.is_some() {
            crate::protocol::CONTROL_FD
        } else {
            -1
        };
        let wait = if more_ended {
            Some(0)
        } else {
            busy.then_some(1)
        };
        let events = sys::wait_events(control, handles.host, wait).map_err(|_| BROKEN)?;
        // The end of the control socket alone does not tell: a process that the host forked and
        // that did not execute anything has a copy of the other end.
        if events.host_ended {
            return Ok(HOST_GONE);
        }
        if events.child || more_ended {
            more_ended = !reap(memory)?;
        }
        if let (true, Some(index)) = (events.control, free) {
            match receive(memory, handles, index) {
                Some(Ok(true)) => {}
                Some(Ok(false)) => return Ok(HOST_GONE),
                Some(Err(errno)) => return Err(gone(errno)),
                None => return Err(MALFORMED),
            }
        }
        if owing || free.is_none() || events.control {
            spawn::settle(&mut memory.table).map_err(gone)?;
        }
        if memory.kill.is_active() {
            spawn::settle(&mut memory.table).map_err(gone)?;
            kill::step(&mut memory.table, &mut memory.kill, handles.proc).map_err(gone)?;
        }
    }
}

/// A failed send means that the host is gone.
fn gone(_: Errno) -> i32 {
    HOST_GONE
}

/// Reaps children that have ended and reports the main processes among them. Says whether that was
/// all of them.
fn reap(memory: &mut Memory) -> Result<bool, i32> {
    for _ in 0..REAPED_AT_ONCE {
        let ended = match sys::reap() {
            Ok(Some(ended)) => ended,
            Ok(None) | Err(Errno(ECHILD)) => return Ok(true),
            Err(Errno(EINTR)) => continue,
            Err(_) => return Err(BROKEN),
        };
        let Some(exec) = memory.table.find_main(ended.pid) else {
            continue;
        };
        let id = exec.id;
        spawn::settle(&mut memory.table).map_err(gone)?;
        let Some(exec) = memory.table.find(id) else {
            continue;
        };
        let place = exec
            .slot
            .checked_sub(1)
            .and_then(|index| slot::all().get(index));
        let failure = place.and_then(slot::Slot::failure);
        if let Some(place) = place {
            place.release();
        }
        let keep = failure.is_none() && !exec.forgotten || exec.kill.active;
        memory.table.ended(id);
        if !keep {
            memory.table.remove(id);
        }
        match failure {
            Some((stage, errno)) => spawn::fail(id, stage, Errno(errno)),
            None => socket::send(
                &Message {
                    kind: reply::EXITED,
                    flags: 0,
                    exec: id,
                    a: u64::from(ended.status as u32),
                    b: ended.user_us,
                    c: ended.system_us,
                    d: ended.peak_kib,
                }
                .encode(),
                &[],
            ),
        }
        .map_err(gone)?;
    }
    Ok(false)
}

/// Handles one message. `Ok(false)`: the host is gone. `None`: it makes no sense.
pub(crate) fn receive(
    memory: &mut Memory,
    handles: Handles,
    index: usize,
) -> Option<sys::Result<bool>> {
    let (bytes, fds) = match slot::all().get(index)?.receive(false) {
        Ok(received) => received,
        Err(Errno(EAGAIN | EINTR)) => return Some(Ok(true)),
        Err(errno) => return Some(Err(errno)),
    };
    if bytes.is_empty() {
        return Some(Ok(false));
    }
    let message = Message::decode(bytes)?;
    let payload = bytes.get(Message::SIZE..)?;
    match handle(memory, handles, index, &message, payload, fds)? {
        Ok(()) => Some(Ok(true)),
        Err(errno) => Some(Err(errno)),
    }
}

fn handle(
    memory: &mut Memory,
    handles: Handles,
    index: usize,
    message: &Message,
    payload: &[u8],
    fds: Fds,
) -> Option<sys::Result<()>> {
    let answer = |kind: u32, b: bool| {
        let reply = Message {
            kind,
            a: message.a,
            b: u64::from(b),
            ..Message::default()
        };
        Some(socket::send(&reply.encode(), &[]))
    };
    match message.kind {
        request::SPAWN => spawn::start(
            &mut memory.table,
            handles,
            index,
            message,
            payload.len(),
            fds,
        ),
        request::SIGNAL => {
            if let Some(exec) = memory.table.find(message.exec)
                && exec.pid > 0
            {
                let _ = sys::kill(exec.pid, message.a as i32);
            }
            Some(Ok(()))
        }
        request::KILL_TREE => Some(kill::begin(
            &mut memory.table,
            &mut memory.kill,
            message.exec,
        )),
        request::IDLE => {
            // A child that has ended but was not reaped yet does not count.
            for _ in 0..MOST_REAPS {
                match reap(memory) {
                    Ok(true) => break,
                    Ok(false) => {}
                    Err(code) => sys::exit_group(code),
                }
            }
            answer(
                reply::IDLE,
                !sys::has_children() && !sys::has_shared_objects(),
            )
        }
        request::FREEZE => {
            let key = [message.b, message.c];
            match freeze::freeze(&mut memory.table, &mut memory.stopped, handles.proc, key) {
                Ok(stillness) => {
                    memory.stillness = stillness;
                    answer(reply::FROZEN, memory.stillness.is_some())
                }
                Err(errno) => Some(Err(errno)),
            }
        }
        request::THAW => {
            let before = memory.stillness.take();
            let stood = before.is_some_and(|before| before.lasts(handles.proc));
            freeze::thaw(&mut memory.stopped, handles.proc);
            answer(reply::THAWED, stood)
        }
        request::SOCKET => {
            let made = sys::stream_socket(message.b as u32);
            let reply = Message {
                kind: reply::SOCKET,
                a: message.a,
                b: made.err().map_or(0, |errno| errno.0 as u64),
                ..Message::default()
            };
            let sent = match made {
                Ok(socket) => {
                    let sent = socket::send(&reply.encode(), &[socket]);
                    sys::close(socket);
                    sent
                }
                Err(_) => socket::send(&reply.encode(), &[]),
            };
            Some(sent)
        }
        request::FORGET => {
            let count = message.a as usize;
            if count > MAX_FORGET || payload.len() != 8 * count {
                return None;
            }
            for i in 0..count {
                let id = get_u64(payload, 8 * i)?;
                match memory.table.find(id) {
                    Some(exec) if exec.pid > 0 || exec.kill.active => exec.forgotten = true,
                    Some(_) => memory.table.remove(id),
                    None => {}
                }
            }
            Some(Ok(()))
        }
        _ => None,
    }
}
