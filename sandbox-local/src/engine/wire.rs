//! Messages over the control socket, and memory handed over with them.
//! Must never block, except where told to, and never raise SIGPIPE.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::protocol::{MAX_EXPORTS, MAX_FDS, Message};

/// The host's and the agent's end of a control socket.
pub(super) fn control_pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
}

/// Sends one message; `EAGAIN` if there is no room.
pub(super) fn send(
    socket: BorrowedFd<'_>,
    message: &Message,
    payload: &[u8],
    fds: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    let head = message.encode();
    let parts = [IoSlice::new(&head), IoSlice::new(payload)];
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::INVAL);
    }
    let mut try_it = || {
        loop {
            match rustix::net::sendmsg(socket, &parts, &mut control, flags) {
                Err(Errno::INTR) => {}
                result => return result.map(drop),
            }
        }
    };
    match try_it() {
        Err(Errno::TOOMANYREFS) => with_all_files(try_it),
        result => result,
    }
}

/// The kernel counts descriptors on their way through sockets for all processes of a user, against
/// the limit on open files of the one that sends. An ordinary user's guests count with their host;
/// they can use up the soft limit, but have less than half of the hard one (see `setup`).
fn with_all_files(work: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let own = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: own.maximum,
            ..own
        },
    )?;
    let result = work();
    setrlimit(Resource::Nofile, own)?;
    result
}

/// Receives one message, with the descriptor that may come with it; `None` is the end of the agent.
pub(super) fn receive(socket: BorrowedFd<'_>) -> Result<Option<(Message, Option<OwnedFd>)>, Errno> {
    let mut bytes = [0_u8; Message::SIZE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [std::io::IoSliceMut::new(&mut bytes)];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = rustix::net::recvmsg(socket, &mut parts, &mut control, flags)?;
    let mut fd = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut received) = message {
            fd = received.next();
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    let message = Message::decode(&bytes).ok_or(Errno::PROTO)?;
    Ok(Some((message, fd)))
}

/// Receives the agent's first message, with payload and descriptors.
pub(super) fn receive_first(
    socket: BorrowedFd<'_>,
    payload: &mut Vec<u8>,
    fds: &mut Vec<OwnedFd>,
) -> Result<Option<Message>, Errno> {
    let mut bytes = [0_u8; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_EXPORTS + 1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [std::io::IoSliceMut::new(&mut bytes)];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = rustix::net::recvmsg(socket, &mut parts, &mut control, flags)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    // There is room for all that it sends: this process may open no more.
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(Errno::MFILE);
    }
    let bytes = bytes.get(..received.bytes).unwrap_or_default();
    payload.extend_from_slice(bytes.get(Message::SIZE..).unwrap_or_default());
    Message::decode(bytes).map(Some).ok_or(Errno::PROTO)
}

/// `parts` one after the other in sealed memory.
pub(super) fn sealed(name: &str, parts: &[&[u8]]) -> Result<OwnedFd, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = match rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        // Kernels before 6.3 do not know the flag.
        Err(Errno::INVAL) => rustix::fs::memfd_create(name, flags)?,
        other => other?,
    };
    for part in parts {
        write_all(fd.as_fd(), part)?;
    }
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&fd, seals)?;
    Ok(fd)
}

/// Writes all of `bytes`.
pub(super) fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(0) => return Err(Errno::IO),
            Ok(len) => bytes = bytes.get(len..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// The errno that an agent reports; `EIO` for a number that is none, which no agent of ours sends.
pub(super) fn errno(reported: u64) -> Errno {
    match i32::try_from(reported) {
        Ok(number @ 1..=4095) => Errno::from_raw_os_error(number),
        _ => Errno::IO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_errno_is_read_as_one_that_is() {
        for strange in [0, 4096, 0x7fff_ffff, 0x8000_0000, 1 << 63, u64::MAX] {
            assert_eq!(errno(strange), Errno::IO, "{strange:#x}");
        }
        assert_eq!((errno(1), errno(11)), (Errno::PERM, Errno::AGAIN));
        assert_eq!(errno(4095).raw_os_error(), 4095);
    }
}
