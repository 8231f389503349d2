//! Network namespaces, for a thread that starts agents in them.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::LinkNameSpaceType;

/// Makes a network namespace with nothing in it but a loopback interface that is up, to which
/// processes of this group may send echo requests, and in which any process may listen on any port.
/// This thread is in it then, for good. Needs the right to administer the host's.
///
/// References: unshare(2), netdevice(7).
pub(crate) fn make(gid: u32) -> Result<OwnedFd, Errno> {
    // SAFETY: takes no memory; what threads share of it, files and sockets, is left as it is.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } < 0 {
        return Err(last());
    }
    let (family, kind) = (AddressFamily::INET, SocketType::DGRAM);
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    // SAFETY: integers, arrays and unions of them: zeros are a value of each.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    let set_flags = libc::SIOCSIFFLAGS as _;
    // SAFETY: the socket is open and the request a whole structure, which the kernel only reads.
    if unsafe { libc::ioctl(socket.as_raw_fd(), set_flags, &raw const request) } < 0 {
        return Err(last());
    }
    for (file, value) in [
        ("ping_group_range", format!("{gid} {gid}")),
        ("ip_unprivileged_port_start", "0".into()),
    ] {
        let file = format!("/proc/sys/net/ipv4/{file}");
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::open(file, flags, Mode::empty())?;
        rustix::io::write(file, value.as_bytes())?;
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::open("/proc/thread-self/ns/net", flags, Mode::empty())
}

/// Moves this thread, for good, into a namespace that it has made.
pub(crate) fn enter(namespace: OwnedFd) -> Result<(), Errno> {
    rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
}

fn last() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
