//! Plays the host's plan, one system call after the other, and says how it went.
//! Must stop at the first failure.

use crate::protocol::plan::{
    ARG_DATA, ARG_SLOT, ARG_VALUE, HEADER, NO_SLOT, OP_CALL, OP_STORE_ADDRESS, OP_STORE_DESCRIPTOR,
    OP_TRY, Op,
};
use crate::protocol::{
    MAX_EXPORTS, MAX_PLAN, MAX_SLOTS, Message, get_u32, put, reply, request, serving,
};
use crate::sys::{self, Errno, Open, slot, socket};

/// Descriptors that serving needs.
#[derive(Clone, Copy)]
pub(crate) struct Handles {
    /// The sandbox's own proc mount.
    pub(crate) proc: i32,
    /// `/dev/null`.
    pub(crate) null: i32,
    /// The host's process, as a pidfd: readable once it has ended.
    pub(crate) host: i32,
}

/// Exit code for a host that does not speak the protocol.
const MALFORMED: i32 = 3;
/// Exit code for a plan that failed; the host has the details.
const FAILED: i32 = 4;

/// Receives and plays the plan, up to READY.
pub(crate) fn run() -> Result<Handles, i32> {
    let (slot, _) = slot::all().split_first().ok_or(MALFORMED)?;
    let mut slots = [0; MAX_SLOTS];
    let mut held = 0;
    let mut plan = None;
    loop {
        let (bytes, mut fds) = slot.receive(true).map_err(|_| MALFORMED)?;
        let message = Message::decode(bytes).ok_or(MALFORMED)?;
        match message.kind {
            request::PLAN => {
                let (bytes, host) = (fds.take(), fds.take());
                plan = Some((message, bytes.ok_or(MALFORMED)?, host.ok_or(MALFORMED)?));
            }
            request::HOLD | request::GO => {
                while let Some(fd) = fds.take() {
                    *slots.get_mut(held).ok_or(MALFORMED)? = i64::from(fd);
                    held += 1;
                }
                if message.kind == request::GO {
                    break;
                }
            }
            _ => return Err(MALFORMED),
        }
    }
    let (message, fd, host) = plan.ok_or(MALFORMED)?;
    let len = message.a as usize;
    if !(HEADER..=MAX_PLAN).contains(&len) {
        return Err(MALFORMED);
    }
    let plan = sys::map(fd, len).map_err(|_| MALFORMED)?;
    sys::close(fd);
    let mut player = Player::new(plan, slots, held).ok_or(MALFORMED)?;
    let mut index = 0;
    while index < player.ops {
        match player.step(index) {
            Some(Ok(())) => index += 1,
            Some(Err(errno)) => return Err(report(index as u64, errno, 0)),
            None => return Err(MALFORMED),
        }
    }
    let handles = player.announce(host)?;
    sys::unmap(player.plan);
    Ok(handles)
}

fn report(index: u64, errno: Errno, flags: u32) -> i32 {
    let kind = reply::PLAN_FAILED;
    let message = Message {
        kind,
        flags,
        a: index,
        b: errno.0 as u64,
        ..Message::default()
    };
    let _ = socket::send(&message.encode(), &[]);
    FAILED
}

/// A plan being played.
pub(crate) struct Player<'a> {
    plan: &'a mut [u8],
    ops: usize,
    exports: usize,
    data: usize,
    slots: [i64; MAX_SLOTS],
}

impl<'a> Player<'a> {
    /// `slots` has `held` descriptors, as many as the plan counts on.
    pub(crate) fn new(plan: &'a mut [u8], slots: [i64; MAX_SLOTS], held: usize) -> Option<Self> {
        let ops = get_u32(plan, 0)? as usize;
        let exports = get_u32(plan, 4)? as usize;
        let inherited = get_u32(plan, 8)? as usize;
        let data = HEADER
            .checked_add(ops.checked_mul(Op::SIZE)?)?
            .checked_add(exports * 4)?;
        // The host rounds the start of the data up to eight bytes.
        let data = data.next_multiple_of(8);
        if data > plan.len() || exports > MAX_EXPORTS || inherited != held {
            return None;
        }
        Some(Self {
            plan,
            ops,
            exports,
            data,
            slots,
        })
    }

    /// Does one op. `None`: the plan makes no sense.
    pub(crate) fn step(&mut self, index: usize) -> Option<sys::Result<()>> {
        let op = Op::decode(self.plan, HEADER + index * Op::SIZE)?;
        match op.kind {
            OP_CALL => self.call(&op),
            OP_TRY => self.call(&op).map(|_| Ok(())),
            OP_STORE_ADDRESS => {
                let address = self.address(op.args[1])?;
                self.store(op.args[0], &address.to_ne_bytes())
            }
            OP_STORE_DESCRIPTOR => {
                let value = *self.slots.get(op.args[1] as usize)? as i32;
                self.store(op.args[0], &value.to_ne_bytes())
            }
            _ => None,
        }
    }

    fn address(&self, offset: u64) -> Option<u64> {
        let data = self.plan.get(self.data..)?;
        let at = data.get(offset as usize..)?;
        (!at.is_empty()).then_some(at.as_ptr() as u64)
    }

    fn store(&mut self, offset: u64, value: &[u8]) -> Option<sys::Result<()>> {
        let data = self.plan.get_mut(self.data..)?;
        let end = (offset as usize).checked_add(value.len())?;
        put(data.get_mut(offset as usize..end)?, 0, value);
        Some(Ok(()))
    }

    fn call(&mut self, op: &Op) -> Option<sys::Result<()>> {
        let mut args = [0; 6];
        for (i, to) in args.iter_mut().enumerate() {
            let arg = *op.args.get(i)?;
            *to = match *op.arg_kinds.get(i)? {
                ARG_VALUE => arg,
                ARG_DATA => self.address(arg)?,
                ARG_SLOT => *self.slots.get(arg as usize)? as u64,
                _ => return None,
            };
        }
        let result = match sys::plan_call(op.number, args) {
            Ok(value) => value as i64,
            Err(errno) => return Some(Err(errno)),
        };
        if op.result != NO_SLOT {
            *self.slots.get_mut(op.result as usize)? = result;
        }
        Some(Ok(()))
    }

    /// Does every op, whatever fails: the result slot of one that does has the
    /// negative errno.
    pub(crate) fn try_all(&mut self) -> Option<()> {
        for index in 0..self.ops {
            if let Err(errno) = self.step(index)? {
                let op = Op::decode(self.plan, HEADER + index * Op::SIZE)?;
                if op.result != NO_SLOT {
                    *self.slots.get_mut(op.result as usize)? = -i64::from(errno.0);
                }
            }
        }
        Some(())
    }

    /// The slots, and the data with what calls have written there.
    pub(crate) fn findings(&self) -> Option<(&[i64], &[u8])> {
        Some((&self.slots, self.plan.get(self.data..)?))
    }

    /// Opens what serving needs and tells the host that all is ready.
    fn announce(&self, host: i32) -> Result<Handles, i32> {
        let open = |what: u64, path, how| {
            sys::open(None, path, how).map_err(|errno| report(what, errno, 1))
        };
        let proc = open(serving::PROC, c"/proc", Open::Directory)?;
        let null = open(serving::NULL, c"/dev/null", Open::Read)?;
        // What commands inherit.
        sys::set_umask(0o022);
        slot::limit_files().map_err(|errno| report(serving::NULL, errno, 1))?;
        // Any process has a mark: without it, trees could not be told apart.
        sys::inode(proc, c"self/ns/uts").map_err(|errno| report(serving::PROC, errno, 1))?;
        let root = open(serving::ROOT, c"/", Open::Place)?;
        let mut fds = [root; MAX_EXPORTS + 1];
        for (i, fd) in fds.iter_mut().skip(1).enumerate().take(self.exports) {
            let slot = get_u32(self.plan, HEADER + self.ops * Op::SIZE + 4 * i);
            *fd = slot
                .and_then(|slot| self.slots.get(slot as usize))
                .map(|fd| *fd as i32)
                .ok_or(MALFORMED)?;
        }
        let message = Message {
            kind: reply::READY,
            ..Message::default()
        };
        let fds = fds.get(..1 + self.exports).unwrap_or_default();
        socket::send(&message.encode(), fds).map_err(|_| MALFORMED)?;
        for fd in fds {
            sys::close(*fd);
        }
        Ok(Handles { proc, null, host })
    }
}
