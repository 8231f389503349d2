//! Messages with descriptors over the control socket.
//! Must never accept a message that was cut, and never leave a descriptor that
//! came with a refused one open.

use super::arch::nr;
use super::{Errno, Result, call, close};
use crate::protocol::{CONTROL_FD, MAX_EXPORTS, MAX_FDS};

const SOL_SOCKET: u64 = 1;
const SCM_RIGHTS: u64 = 1;
const MSG_CTRUNC: u32 = 0x8;
const MSG_TRUNC: u32 = 0x20;
const MSG_DONTWAIT: usize = 0x40;
const MSG_NOSIGNAL: usize = 0x4000;
const MSG_CMSG_CLOEXEC: usize = 0x4000_0000;

/// struct msghdr
#[repr(C)]
struct Header {
    name: usize,
    name_len: usize,
    parts: usize,
    part_count: usize,
    control: usize,
    control_len: usize,
    flags: u32,
}

/// Words of a control message with `fds` descriptors: length, level and type,
/// then the descriptors, rounded up.
const fn control_words(fds: usize) -> usize {
    2 + fds.div_ceil(2)
}

/// The descriptors of a message; whatever is not taken out is closed.
pub(crate) struct Fds {
    fds: [i32; MAX_FDS],
    next: usize,
    end: usize,
}

impl Fds {
    /// The next one, in the order they were sent. The caller closes it.
    pub(crate) fn take(&mut self) -> Option<i32> {
        if self.next >= self.end {
            return None;
        }
        let fd = *self.fds.get(self.next)?;
        self.next += 1;
        Some(fd)
    }

    /// Number of descriptors that are left.
    pub(crate) fn len(&self) -> usize {
        self.end - self.next
    }
}

impl Drop for Fds {
    fn drop(&mut self) {
        while let Some(fd) = self.take() {
            close(fd);
        }
    }
}

/// Receives one message of at most `len` bytes at `buffer`. An empty one is the
/// end of the host.
///
/// # Safety
/// `buffer` must be valid for writes of `len` bytes that nothing else looks at.
pub(crate) unsafe fn receive(buffer: *mut u8, len: usize, wait: bool) -> Result<(usize, Fds)> {
    let mut control = [0_u64; control_words(MAX_FDS)];
    let part = [buffer as usize, len];
    let mut header = Header {
        name: 0,
        name_len: 0,
        parts: part.as_ptr() as usize,
        part_count: 1,
        control: control.as_mut_ptr() as usize,
        control_len: size_of_val(&control),
        flags: 0,
    };
    let flags = MSG_CMSG_CLOEXEC | if wait { 0 } else { MSG_DONTWAIT };
    // SAFETY: header, part and control live through the call; the buffer is the
    // caller's promise.
    let len = unsafe {
        call(
            nr::RECVMSG,
            [
                CONTROL_FD as usize,
                &raw mut header as usize,
                flags,
                0,
                0,
                0,
            ],
        )?
    };
    let mut fds = Fds {
        fds: [0; MAX_FDS],
        next: 0,
        end: 0,
    };
    if header.control_len > 16 && control[1] == SOL_SOCKET | (SCM_RIGHTS << 32) {
        let count = (control[0] as usize).saturating_sub(16) / 4;
        for (i, slot) in fds.fds.iter_mut().enumerate().take(count) {
            let word = control.get(2 + i / 2).copied().unwrap_or(0);
            *slot = (word >> (32 * (i % 2))) as i32;
        }
        fds.end = count.min(MAX_FDS);
    }
    if header.flags & (MSG_TRUNC | MSG_CTRUNC) != 0 {
        const EMSGSIZE: i32 = 90;
        return Err(Errno(EMSGSIZE));
    }
    Ok((len, fds))
}

/// Sends a message, waiting for room: a host that does not read holds up
/// only itself, and a host that died makes this fail.
pub(crate) fn send(bytes: &[u8], fds: &[i32]) -> Result<()> {
    const MAX: usize = MAX_EXPORTS + 1;
    let mut control = [0_u64; control_words(MAX)];
    let fds = fds.get(..fds.len().min(MAX)).unwrap_or_default();
    control[0] = 16 + 4 * fds.len() as u64;
    control[1] = SOL_SOCKET | (SCM_RIGHTS << 32);
    for (i, fd) in fds.iter().enumerate() {
        if let Some(word) = control.get_mut(2 + i / 2) {
            *word |= u64::from(*fd as u32) << (32 * (i % 2));
        }
    }
    let part = [bytes.as_ptr() as usize, bytes.len()];
    let control_len = if fds.is_empty() {
        0
    } else {
        8 * control_words(fds.len())
    };
    let header = Header {
        name: 0,
        name_len: 0,
        parts: part.as_ptr() as usize,
        part_count: 1,
        control: if fds.is_empty() {
            0
        } else {
            control.as_ptr() as usize
        },
        control_len,
        flags: 0,
    };
    // SAFETY: everything the header points to lives through the call.
    unsafe {
        call(
            nr::SENDMSG,
            [
                CONTROL_FD as usize,
                &raw const header as usize,
                MSG_NOSIGNAL,
                0,
                0,
                0,
            ],
        )?;
    }
    Ok(())
}
