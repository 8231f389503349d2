//! The agent's program as a descriptor that can be executed.
//! Must never be writable by anyone once it is handed out: a guest that reached
//! it through `/proc` could otherwise change what later sandboxes run.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;

static AGENT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sandbox-agent"));

static MEMORY: OnceLock<Result<OwnedFd, Errno>> = OnceLock::new();
static FILE: OnceLock<Result<OwnedFd, Errno>> = OnceLock::new();

/// The image as sealed memory: the same for all sandboxes of this process.
pub(super) fn in_memory() -> Result<BorrowedFd<'static>, Errno> {
    shared(MEMORY.get_or_init(create_memory))
}

/// The image as an unlinked file, for kernels that do not execute memory.
pub(super) fn on_disk() -> Result<BorrowedFd<'static>, Errno> {
    shared(FILE.get_or_init(create_file))
}

/// A copy of its own, for a program that a guest can reach: who runs as the owner could take the
/// shared image's permissions away, and no sandbox would start any more.
pub(super) fn private() -> Result<OwnedFd, Errno> {
    create_memory().or_else(|_| create_file())
}

fn shared(image: &'static Result<OwnedFd, Errno>) -> Result<BorrowedFd<'static>, Errno> {
    image.as_ref().map(AsFd::as_fd).map_err(|errno| *errno)
}

fn create_memory() -> Result<OwnedFd, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = match rustix::fs::memfd_create(c"sandbox-agent", flags | MemfdFlags::EXEC) {
        // Kernels before 6.3 do not know the flag and need none.
        Err(Errno::INVAL) => rustix::fs::memfd_create(c"sandbox-agent", flags)?,
        other => other?,
    };
    super::wire::write_all(fd.as_fd(), AGENT)?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&fd, seals)?;
    Ok(fd)
}

fn create_file() -> Result<OwnedFd, Errno> {
    let mut last = Errno::NOENT;
    let places = [
        std::env::temp_dir(),
        "/dev/shm".into(),
        "/var/tmp".into(),
        "/run".into(),
    ];
    for place in places {
        match create_file_in(&place) {
            Ok(fd) => return Ok(fd),
            Err(errno) => last = errno,
        }
    }
    Err(last)
}

fn create_file_in(place: &std::path::Path) -> Result<OwnedFd, Errno> {
    let mount = rustix::fs::statvfs(place)?;
    if mount.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC) {
        return Err(Errno::ACCESS);
    }
    let mode = Mode::RUSR | Mode::XUSR;
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let writable = rustix::fs::open(place, flags, mode)?;
    super::wire::write_all(writable.as_fd(), AGENT)?;
    // Opened again for reading: a file open for writing cannot be executed.
    let path = format!(
        "/proc/self/fd/{}",
        std::os::fd::AsRawFd::as_raw_fd(&writable)
    );
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}
