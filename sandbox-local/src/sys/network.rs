//! A network namespace for the threads of this process that start agents.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// Moves this thread, for good, into a new network namespace with nothing in it but a loopback
/// interface that is up. Needs the right to administer the host's.
///
/// References: unshare(2), netdevice(7).
pub(crate) fn enter_new() -> Result<(), Errno> {
    let failed = || Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO);
    // SAFETY: takes no memory; what threads share of it, files and sockets, is left as it is.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } < 0 {
        return Err(failed());
    }
    let socket = rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: integers, arrays and unions of them: zeros are a value of each.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the socket is open and the request a whole structure, which the kernel only reads.
    match unsafe { libc::ioctl(fd, libc::SIOCSIFFLAGS as _, &raw const request) } {
        0 => Ok(()),
        _ => Err(failed()),
    }
}
