//! A plan: the system calls that the agent makes before it serves, compiled on
//! the host in ordinary Rust so that the agent can stay dumb.
//!
//! An argument is a value, the address of data in the plan, or a slot: the result
//! of an earlier call, or an inherited descriptor. A plan must name every step,
//! so that a failure can be told in words, and must never depend on what a guest
//! has written: guests do not exist yet while it runs.

use std::borrow::Cow;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::error::PlanError;
use crate::protocol::plan::{
    ARG_DATA, ARG_SLOT, ARG_VALUE, HEADER, NO_SLOT, OP_STORE_ADDRESS, OP_STORE_DESCRIPTOR, OP_TRY,
    Op,
};
use crate::protocol::{MAX_EXPORTS, MAX_PLAN, MAX_SLOTS};

/// Marks numbers of result slots until the number of inherited ones is known.
const RESULT: u32 = 0x8000_0000;

/// A place for the result of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(u32);

impl Slot {
    /// Number among the results, in a plan that inherits nothing.
    pub(super) fn result_index(self) -> usize {
        (self.0 & !RESULT) as usize
    }
}

/// Bytes in the plan, eight-byte aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Data(u64);

impl Data {
    /// Position in the plan's data.
    pub(super) fn offset(self) -> usize {
        self.0 as usize
    }

    /// The address `offset` bytes further on.
    pub(crate) fn at(self, offset: u64) -> Self {
        Self(self.0 + offset)
    }
}

/// An argument of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arg {
    /// A number.
    Value(u64),
    /// The address of data.
    Data(Data),
    /// The result of an earlier call.
    Slot(Slot),
    /// A null pointer.
    Null,
}

impl From<Data> for Arg {
    fn from(data: Data) -> Self {
        Self::Data(data)
    }
}

impl From<Slot> for Arg {
    fn from(slot: Slot) -> Self {
        Self::Slot(slot)
    }
}

impl From<u64> for Arg {
    fn from(value: u64) -> Self {
        Self::Value(value)
    }
}

impl From<u32> for Arg {
    fn from(value: u32) -> Self {
        Self::Value(value.into())
    }
}

impl From<i32> for Arg {
    fn from(value: i32) -> Self {
        // Sign-extended, as the C library does: AT_FDCWD is negative.
        Self::Value(i64::from(value) as u64)
    }
}

/// Directory that a relative path starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dir {
    /// The agent's working directory.
    Cwd,
    /// A directory opened earlier or inherited.
    Slot(Slot),
}

impl From<Dir> for Arg {
    fn from(dir: Dir) -> Self {
        match dir {
            Dir::Cwd => libc::AT_FDCWD.into(),
            Dir::Slot(slot) => slot.into(),
        }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Plan {
    ops: Vec<Op>,
    labels: Vec<Cow<'static, str>>,
    data: Vec<u8>,
    results: u32,
    exports: Vec<Slot>,
    inherited: Vec<OwnedFd>,
    error: Option<PlanError>,
}

/// The op added last, to say more about it.
pub(crate) struct Step<'a> {
    plan: &'a mut Plan,
}

impl Step<'_> {
    /// Goes on with the plan if the call fails. Nothing may depend on its result.
    pub(crate) fn tolerate(self) {
        if let Some(op) = self.plan.ops.last_mut() {
            op.kind = OP_TRY;
        }
    }

    /// Keeps the result for later calls.
    pub(crate) fn result(self) -> Slot {
        let slot = self.plan.results | RESULT;
        self.plan.results += 1;
        if let Some(op) = self.plan.ops.last_mut() {
            op.result = slot;
        }
        Slot(slot)
    }
}

impl Plan {
    /// A plan that does nothing.
    pub(crate) fn new() -> Self {
        Self {
            ops: Vec::new(),
            labels: Vec::new(),
            data: Vec::new(),
            results: 0,
            exports: Vec::new(),
            inherited: Vec::new(),
            error: None,
        }
    }

    /// Hands a descriptor to the agent.
    pub(crate) fn inherit(&mut self, fd: OwnedFd) -> Slot {
        self.inherited.push(fd);
        Slot(self.inherited.len() as u32 - 1)
    }

    /// Sends the descriptor in `slot` to the host once the plan is done; the
    /// agent closes its own.
    pub(crate) fn export(&mut self, slot: Slot) {
        self.exports.push(slot);
    }

    /// Adds bytes that calls can point to.
    pub(crate) fn data(&mut self, bytes: &[u8]) -> Data {
        let at = self.data.len() as u64;
        self.data.extend_from_slice(bytes);
        self.data
            .resize(self.data.len().next_multiple_of(8).max(at as usize + 8), 0);
        Data(at)
    }

    /// Adds a zero-terminated path.
    pub(crate) fn path(&mut self, path: impl AsRef<Path>) -> Data {
        let path = path.as_ref();
        let mut bytes = path.as_os_str().as_bytes().to_vec();
        if bytes.contains(&0) {
            self.fail(PlanError::Nul(path.to_string_lossy().into_owned()));
        }
        bytes.push(0);
        self.data(&bytes)
    }

    /// Adds any system call.
    pub(crate) fn call(
        &mut self,
        label: impl Into<Cow<'static, str>>,
        number: libc::c_long,
        args: &[Arg],
    ) -> Step<'_> {
        let mut op = Op {
            number: number as u32,
            result: NO_SLOT,
            ..Op::default()
        };
        for ((kind, value), arg) in op.arg_kinds.iter_mut().zip(&mut op.args).zip(args) {
            (*kind, *value) = match *arg {
                Arg::Value(value) => (ARG_VALUE, value),
                Arg::Null => (ARG_VALUE, 0),
                Arg::Data(data) => (ARG_DATA, data.0),
                Arg::Slot(slot) => (ARG_SLOT, slot.0.into()),
            };
        }
        self.push(label.into(), op)
    }

    /// Before the next call, writes the address of `target` to `at`: for
    /// structures that contain pointers.
    pub(crate) fn store_address(&mut self, at: Data, target: Data) {
        let mut op = Op {
            kind: OP_STORE_ADDRESS,
            result: NO_SLOT,
            ..Op::default()
        };
        op.args[0] = at.0;
        op.args[1] = target.0;
        self.push("prepare a structure".into(), op);
    }

    /// Before the next call, writes the descriptor in `slot` to `at`: for
    /// structures that contain descriptors.
    pub(crate) fn store_descriptor(&mut self, at: Data, slot: Slot) {
        let mut op = Op {
            kind: OP_STORE_DESCRIPTOR,
            result: NO_SLOT,
            ..Op::default()
        };
        op.args[0] = at.0;
        // As an argument, so that it is numbered like those of calls.
        op.arg_kinds[1] = ARG_SLOT;
        op.args[1] = slot.0.into();
        self.push("prepare a structure".into(), op);
    }

    fn push(&mut self, label: Cow<'static, str>, op: Op) -> Step<'_> {
        self.ops.push(op);
        self.labels.push(label);
        Step { plan: self }
    }

    fn fail(&mut self, error: PlanError) {
        self.error.get_or_insert(error);
    }

    /// Lays the plan out for the agent.
    pub(super) fn compile(self) -> Result<Compiled, PlanError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let check = |what, count: usize, limit| {
            if count > limit {
                Err(PlanError::TooLarge { what, limit })
            } else {
                Ok(())
            }
        };
        let inherited = self.inherited.len() as u32;
        check(
            "slots",
            self.inherited.len() + self.results as usize,
            MAX_SLOTS,
        )?;
        check("exports", self.exports.len(), MAX_EXPORTS)?;
        let number = |slot: u32| match slot {
            NO_SLOT => NO_SLOT,
            slot if slot & RESULT != 0 => (slot & !RESULT) + inherited,
            slot => slot,
        };
        let head = [
            self.ops.len() as u32,
            self.exports.len() as u32,
            inherited,
            0,
        ];
        let mut bytes = Vec::with_capacity(HEADER + self.ops.len() * Op::SIZE + self.data.len());
        for word in head {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        for mut op in self.ops {
            op.result = number(op.result);
            for (kind, arg) in op.arg_kinds.iter().zip(&mut op.args) {
                if *kind == ARG_SLOT {
                    *arg = number(*arg as u32).into();
                }
            }
            bytes.extend_from_slice(&op.encode());
        }
        for slot in &self.exports {
            bytes.extend_from_slice(&number(slot.0).to_ne_bytes());
        }
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes.extend_from_slice(&self.data);
        check("bytes", bytes.len(), MAX_PLAN)?;
        Ok(Compiled {
            bytes,
            labels: self.labels,
            inherited: self.inherited,
        })
    }
}

/// A plan ready to be sent.
pub(super) struct Compiled {
    /// Bytes that the agent reads.
    pub(super) bytes: Vec<u8>,
    /// Label of each operation.
    pub(super) labels: Vec<Cow<'static, str>>,
    /// Descriptors that the agent inherits.
    pub(super) inherited: Vec<OwnedFd>,
}
