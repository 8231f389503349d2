//! The wire between the host and the agent: one fixed binary layout, compiled
//! into both (the agent includes this very file by path).
//!
//! Both ends come from one build and run on one machine, so there is no version
//! field and integers travel in native order; the magic only catches a stray
//! peer. This file must stay `no_std`, must not allocate and must never hold
//! anything that only one side needs.

/// First word of every message.
pub(crate) const MAGIC: u32 = 0x5342_4f58;

/// Descriptor number of the control socket inside the agent.
pub(crate) const CONTROL_FD: i32 = 3;
/// Most descriptors that come to the agent with one message.
pub(crate) const MAX_FDS: usize = 16;

/// Largest spawn payload that travels inside the message itself.
pub(crate) const INLINE_PAYLOAD: usize = 60 * 1024;
/// Largest spawn payload of all; beyond [`INLINE_PAYLOAD`] it comes as a memfd.
pub(crate) const MAX_PAYLOAD: usize = 8 * 1024 * 1024;
/// Largest plan, ops and data together.
pub(crate) const MAX_PLAN: usize = 4 * 1024 * 1024;
/// Slots a plan may use, inherited descriptors included.
pub(crate) const MAX_SLOTS: usize = 1024;
/// Descriptors a plan may export.
pub(crate) const MAX_EXPORTS: usize = 64;
/// Execs that run at the same time in one sandbox.
pub(crate) const MAX_RUNNING: usize = 1024;
/// Ids that one FORGET carries.
pub(crate) const MAX_FORGET: usize = 64;

/// Requests, host to agent.
pub(crate) mod request {
    /// The plan is in the memfd sent along; `a` = its length. Played on GO. The second descriptor
    /// is a pidfd of the host's process, with whose end the agent ends.
    pub(crate) const PLAN: u32 = 1;
    /// Start a process: `exec`, `flags` ([`super::spawn`]), `a` = payload length,
    /// `b` = arguments, `c` = environment entries, `d` = candidates.
    pub(crate) const SPAWN: u32 = 2;
    /// Signal the main process of `exec`; `a` = signal number.
    pub(crate) const SIGNAL: u32 = 3;
    /// Kill everything that descends from `exec`.
    pub(crate) const KILL_TREE: u32 = 4;
    /// Ask whether anything but the agent exists that a restart would lose: processes, System V
    /// shared memory, semaphores and queues; `a` = token.
    pub(crate) const IDLE: u32 = 5;
    /// Stop every guest process; `a` = token, `b`, `c` = a key that no guest knows.
    pub(crate) const FREEZE: u32 = 6;
    /// Let go on what FREEZE stopped; `a` = token.
    pub(crate) const THAW: u32 = 7;
    /// The host will not mention these execs again; `a` = how many ids follow.
    pub(crate) const FORGET: u32 = 8;
    /// After PLAN: descriptors for it, which take its next slots.
    pub(crate) const HOLD: u32 = 9;
    /// The last descriptors, as HOLD; the agent is who it is to be, and plays the plan.
    pub(crate) const GO: u32 = 10;
    /// Make a stream socket and send it along with the answer; `a` = token, `b` = address family.
    pub(crate) const SOCKET: u32 = 11;
}

/// Replies, agent to host.
pub(crate) mod reply {
    /// The plan is done. Descriptors: `/`, then the exported slots.
    pub(crate) const READY: u32 = 101;
    /// The plan stopped; `a` = index of the op, `b` = errno, `flags` = 1 when it
    /// was not an op but the start of serving ([`super::serving`] in `a`).
    pub(crate) const PLAN_FAILED: u32 = 102;
    /// `exec` runs its program (only when asked for).
    pub(crate) const STARTED: u32 = 103;
    /// `exec` did not start; `a` = stage ([`super::stage`]), `b` = errno.
    pub(crate) const FAILED: u32 = 104;
    /// The main process of `exec` ended; `a` = wait status, `b`, `c` = user and
    /// system time in µs, `d` = peak resident set in KiB.
    pub(crate) const EXITED: u32 = 105;
    /// The tree of `exec` is gone; `flags` ([`super::killed`]), `b` = how many processes of it
    /// still live, with LINGERING.
    pub(crate) const TREE_KILLED: u32 = 106;
    /// Answer to IDLE; `a` = token, `b` = 1 when there is nothing.
    pub(crate) const IDLE: u32 = 107;
    /// Answer to FREEZE; `a` = token, `b` = 1 when everything stands still.
    pub(crate) const FROZEN: u32 = 108;
    /// Answer to THAW; `a` = token, `b` = 1 when everything stood still all the time.
    pub(crate) const THAWED: u32 = 109;
    /// Answer to SOCKET; `a` = token, `b` = errno, or zero with the socket as descriptor.
    pub(crate) const SOCKET: u32 = 110;
}

/// Flags of SPAWN. Descriptors come in the order stdout, stderr, stdin,
/// program, payload; the last three only with their flag.
pub(crate) mod spawn {
    /// Answer with STARTED once the program runs.
    pub(crate) const CONFIRM: u32 = 1;
    /// A read end for standard input is sent along (else /dev/null).
    pub(crate) const STDIN: u32 = 2;
    /// The program itself is sent along as a descriptor.
    pub(crate) const PROGRAM: u32 = 4;
    /// The payload is a memfd.
    pub(crate) const PAYLOAD: u32 = 8;
    /// Standard input is a terminal, which becomes the process's controlling one.
    pub(crate) const TERMINAL: u32 = 16;
}

/// Stages at which a spawn can fail.
pub(crate) mod stage {
    /// No process could be made, or too many run.
    pub(crate) const FORK: u32 = 1;
    /// The new process could not set itself up (descriptors, session).
    pub(crate) const SETUP: u32 = 2;
    /// The working directory could not be entered.
    pub(crate) const CWD: u32 = 3;
    /// The program could not be executed.
    pub(crate) const EXEC: u32 = 4;
}

/// Parameters of the start of serving, beyond the plan.
pub(crate) mod serving {
    /// The directory `/`.
    pub(crate) const ROOT: u64 = 1;
    /// The sandbox's own proc mount at `/proc`.
    pub(crate) const PROC: u64 = 2;
    /// `/dev/null`.
    pub(crate) const NULL: u64 = 3;
}

/// Flags of TREE_KILLED.
pub(crate) mod killed {
    /// The tree outran the search: everything in the sandbox was killed.
    pub(crate) const EVERYTHING: u32 = 1;
    /// A process whose tree cannot be told was killed too.
    pub(crate) const UNREADABLE: u32 = 2;
    /// Killed processes had not ended yet when the time was up.
    pub(crate) const LINGERING: u32 = 4;
    /// The exec was not known (any more), nothing was done.
    pub(crate) const UNKNOWN: u32 = 8;
}

/// A message without its payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    /// One of [`request`] or [`reply`].
    pub(crate) kind: u32,
    /// Meaning depends on the kind.
    pub(crate) flags: u32,
    /// The exec concerned, zero if none.
    pub(crate) exec: u64,
    /// First argument.
    pub(crate) a: u64,
    /// Second argument.
    pub(crate) b: u64,
    /// Third argument.
    pub(crate) c: u64,
    /// Fourth argument.
    pub(crate) d: u64,
}

impl Message {
    /// Bytes of an encoded message; a payload starts here, eight-byte aligned.
    pub(crate) const SIZE: usize = 56;

    /// Lays the message out for the wire.
    pub(crate) fn encode(&self) -> [u8; Self::SIZE] {
        let mut out = [0; Self::SIZE];
        put(&mut out, 0, &MAGIC.to_ne_bytes());
        put(&mut out, 4, &self.kind.to_ne_bytes());
        put(&mut out, 8, &self.flags.to_ne_bytes());
        put(&mut out, 16, &self.exec.to_ne_bytes());
        put(&mut out, 24, &self.a.to_ne_bytes());
        put(&mut out, 32, &self.b.to_ne_bytes());
        put(&mut out, 40, &self.c.to_ne_bytes());
        put(&mut out, 48, &self.d.to_ne_bytes());
        out
    }

    /// Reads a message; `None` when it is too short or not one of ours.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        if get_u32(bytes, 0)? != MAGIC {
            return None;
        }
        Some(Self {
            kind: get_u32(bytes, 4)?,
            flags: get_u32(bytes, 8)?,
            exec: get_u64(bytes, 16)?,
            a: get_u64(bytes, 24)?,
            b: get_u64(bytes, 32)?,
            c: get_u64(bytes, 40)?,
            d: get_u64(bytes, 48)?,
        })
    }
}

/// The plan as laid out in its memfd: this header, then the ops, then the slots
/// to export (u32 each), then the data.
pub(crate) mod plan {
    /// Header: ops, exports, descriptors that came before by HOLD, zero; u32 each.
    pub(crate) const HEADER: usize = 16;
    /// A slot number that means "none".
    pub(crate) const NO_SLOT: u32 = u32::MAX;

    /// Make a system call.
    pub(crate) const OP_CALL: u8 = 0;
    /// Write the address of data offset `args[1]` to data offset `args[0]`.
    pub(crate) const OP_STORE_ADDRESS: u8 = 1;
    /// Write slot `args[1]`, a descriptor, as 32 bits to data offset `args[0]`.
    pub(crate) const OP_STORE_DESCRIPTOR: u8 = 2;
    /// Make a system call, and go on if it fails.
    pub(crate) const OP_TRY: u8 = 3;

    /// The argument is its value.
    pub(crate) const ARG_VALUE: u8 = 0;
    /// The argument is the address of a data offset.
    pub(crate) const ARG_DATA: u8 = 1;
    /// The argument is the value of a slot.
    pub(crate) const ARG_SLOT: u8 = 2;

    /// One step of a plan.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(crate) struct Op {
        /// `OP_*`.
        pub(crate) kind: u8,
        /// `ARG_*` per argument.
        pub(crate) arg_kinds: [u8; 6],
        /// System call number.
        pub(crate) number: u32,
        /// Slot that takes the result, or [`NO_SLOT`].
        pub(crate) result: u32,
        /// Arguments, read according to `arg_kinds`.
        pub(crate) args: [u64; 6],
    }

    impl Op {
        /// Bytes of an encoded op.
        pub(crate) const SIZE: usize = 64;

        /// Lays the op out.
        pub(crate) fn encode(&self) -> [u8; Self::SIZE] {
            let mut out = [0; Self::SIZE];
            super::put(&mut out, 0, &[self.kind]);
            super::put(&mut out, 1, &self.arg_kinds);
            super::put(&mut out, 8, &self.number.to_ne_bytes());
            super::put(&mut out, 12, &self.result.to_ne_bytes());
            for (i, arg) in self.args.iter().enumerate() {
                super::put(&mut out, 16 + 8 * i, &arg.to_ne_bytes());
            }
            out
        }

        /// Reads the op at `at`; `None` beyond the end.
        pub(crate) fn decode(bytes: &[u8], at: usize) -> Option<Self> {
            let bytes = bytes.get(at..at.checked_add(Self::SIZE)?)?;
            let mut op = Self {
                kind: *bytes.first()?,
                number: super::get_u32(bytes, 8)?,
                result: super::get_u32(bytes, 12)?,
                ..Self::default()
            };
            op.arg_kinds.copy_from_slice(bytes.get(1..7)?);
            for (i, arg) in op.args.iter_mut().enumerate() {
                *arg = super::get_u64(bytes, 16 + 8 * i)?;
            }
            Some(op)
        }
    }
}

/// Copies `value` to `at`, as far as it fits.
pub(crate) fn put(out: &mut [u8], at: usize, value: &[u8]) {
    for (to, from) in out.iter_mut().skip(at).zip(value) {
        *to = *from;
    }
}

/// Reads a u32 at `at`.
pub(crate) fn get_u32(bytes: &[u8], at: usize) -> Option<u32> {
    let found = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(found.try_into().ok()?))
}

/// Reads a u64 at `at`.
pub(crate) fn get_u64(bytes: &[u8], at: usize) -> Option<u64> {
    let found = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_ne_bytes(found.try_into().ok()?))
}
