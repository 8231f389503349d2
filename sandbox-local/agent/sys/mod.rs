//! The agent's unsafe code: system calls as safe functions, the entry point and
//! the memory shared with processes that are being started. Must never hold
//! policy, and must never keep a guest's pointer.

#[cfg(target_arch = "aarch64")]
#[path = "aarch64.rs"]
mod arch;
#[cfg(target_arch = "x86_64")]
#[path = "x86_64.rs"]
mod arch;
mod child;
#[cfg(test)]
pub(crate) mod fake;
mod launch;
#[cfg(not(test))]
mod runtime;
pub(crate) mod slot;
pub(crate) mod socket;
pub(crate) mod state;

use arch::nr;
#[cfg(not(test))]
use arch::syscall;
#[cfg(test)]
use fake::syscall;

/// An errno.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) i32);

pub(crate) const ENOENT: i32 = 2;
pub(crate) const ESRCH: i32 = 3;
pub(crate) const EINTR: i32 = 4;
pub(crate) const ECHILD: i32 = 10;
pub(crate) const EAGAIN: i32 = 11;
pub(crate) const EACCES: i32 = 13;
pub(crate) const ENOTDIR: i32 = 20;
pub(crate) const ETXTBSY: i32 = 26;

pub(crate) const SIGKILL: i32 = 9;
pub(crate) const SIGCONT: i32 = 18;
pub(crate) const SIGSTOP: i32 = 19;

const SIGCHLD: usize = 17;
const AT_FDCWD: usize = -100_isize as usize;
const O_CLOEXEC: usize = 0o2_000_000;
const O_PATH: usize = 0o10_000_000;
const SIGSET_BYTES: usize = 8;

/// Result of a system call.
pub(crate) type Result<T> = core::result::Result<T, Errno>;

/// Rust's side of the entry point.
#[cfg(not(test))]
extern "C" fn main() -> ! {
    exit_group(crate::agent())
}

/// # Safety
/// As for [`arch::syscall`].
unsafe fn call(number: usize, args: [usize; 6]) -> Result<usize> {
    // SAFETY: the caller's promise.
    let result = unsafe { syscall(number, args) };
    if (-4095..0).contains(&result) {
        Err(Errno(-result as i32))
    } else {
        Ok(result as usize)
    }
}

/// For calls that neither read nor write this program's memory.
fn plain(number: usize, args: [usize; 6]) -> Result<usize> {
    // SAFETY: private to this module and only used with numbers and descriptors.
    unsafe { call(number, args) }
}

/// Ends the agent.
pub(crate) fn exit_group(code: i32) -> ! {
    loop {
        let _ = plain(nr::EXIT_GROUP, [code as usize, 0, 0, 0, 0, 0]);
    }
}

/// One system call of the plan.
///
/// The plan comes from the host, which could do all of it by itself; that its
/// pointers point into the plan's own memory is checked where it is decoded.
pub(crate) fn plan_call(number: u32, args: [u64; 6]) -> Result<usize> {
    // SAFETY: the host compiles plans from typed calls, see above.
    unsafe { call(number as usize, args.map(|arg| arg as usize)) }
}

/// Makes this process a quiet init: its own session, every signal at its default
/// disposition and blocked, descriptors 0 to 2 taken by a signalfd for SIGCHLD,
/// so that nothing opened later lands there.
pub(crate) fn prepare_init() -> Result<()> {
    let _ = plain(nr::SETSID, [0; 6]);
    // Until the plan is played: what it makes has the modes that it says.
    set_umask(0);
    set_mask(u64::MAX)?;
    let default = [0_usize; 4];
    for signal in 1..=64 {
        // SIGKILL, SIGSTOP and libc's own numbers may refuse: they need nothing.
        // SAFETY: four zero words are a valid `struct sigaction` (SIG_DFL).
        let _ = unsafe {
            call(
                nr::RT_SIGACTION,
                [signal, default.as_ptr() as usize, 0, SIGSET_BYTES, 0, 0],
            )
        };
    }
    let mask = 1_u64 << (SIGCHLD - 1);
    const SFD_NONBLOCK: usize = 0o4000;
    // SAFETY: the mask lives through the call.
    let fd = unsafe {
        let flags = SFD_NONBLOCK | O_CLOEXEC;
        call(
            nr::SIGNALFD4,
            [
                usize::MAX,
                &raw const mask as usize,
                SIGSET_BYTES,
                flags,
                0,
                0,
            ],
        )?
    };
    if fd != SIGNAL_FD as usize {
        return Err(Errno(EAGAIN));
    }
    for _ in 1..=2 {
        plain(nr::DUP, [fd, 0, 0, 0, 0, 0])?;
    }
    Ok(())
}

/// Number at which [`prepare_init`] puts the signalfd.
const SIGNAL_FD: i32 = 0;

fn set_mask(mask: u64) -> Result<()> {
    const SIG_SETMASK: usize = 2;
    // SAFETY: the mask lives through the call.
    unsafe {
        call(
            nr::RT_SIGPROCMASK,
            [SIG_SETMASK, &raw const mask as usize, 0, SIGSET_BYTES, 0, 0],
        )?;
    }
    Ok(())
}

/// Sets the file mode mask, which every process inherits.
pub(crate) fn set_umask(mask: u32) {
    let _ = plain(nr::UMASK, [mask as usize, 0, 0, 0, 0, 0]);
}

/// Events that [`wait_events`] found.
#[derive(Clone, Copy, Default)]
pub(crate) struct Events {
    /// The control socket has something to say, or has ended.
    pub(crate) control: bool,
    /// A child changed state.
    pub(crate) child: bool,
    /// The host's process has ended.
    pub(crate) host_ended: bool,
}

/// Waits until the host or a child has news, or `timeout_ms` passed. `host` is the host's pidfd.
pub(crate) fn wait_events(control: i32, host: i32, timeout_ms: Option<u32>) -> Result<Events> {
    const POLLIN: u64 = 1;
    // struct pollfd { int fd; short events; short revents }
    let entry = |fd: i32| u64::from(fd as u32) | (POLLIN << 32);
    let mut fds = [entry(control), entry(SIGNAL_FD), entry(host)];
    let time = timeout_ms.map(|ms| [u64::from(ms / 1000), u64::from(ms % 1000) * 1_000_000]);
    let time_at = time.as_ref().map_or(0, |time| time.as_ptr() as usize);
    // SAFETY: `fds` and `time` live through the call and have the layout of three
    // `pollfd` (little endian, as both supported architectures are) and a timespec.
    let ready = unsafe { call(nr::PPOLL, [fds.as_mut_ptr() as usize, 3, time_at, 0, 8, 0]) };
    match ready {
        Ok(0) | Err(Errno(EINTR)) => return Ok(Events::default()),
        Ok(_) => {}
        Err(errno) => return Err(errno),
    }
    let events = Events {
        control: fds[0] >> 48 != 0,
        child: fds[1] >> 48 != 0,
        host_ended: fds[2] >> 48 != 0,
    };
    if events.child {
        let mut info = [0_u8; 128];
        // SAFETY: the buffer is as long as said; one SIGCHLD at most is queued.
        let _ = unsafe {
            call(
                nr::READ,
                [SIGNAL_FD as usize, info.as_mut_ptr() as usize, 128, 0, 0, 0],
            )
        };
    }
    Ok(events)
}

/// A reaped child.
pub(crate) struct Reaped {
    pub(crate) pid: i32,
    pub(crate) status: i32,
    pub(crate) user_us: u64,
    pub(crate) system_us: u64,
    pub(crate) peak_kib: u64,
}

/// Reaps one ended child, if there is one. ECHILD: there are no children at all.
pub(crate) fn reap() -> Result<Option<Reaped>> {
    const WNOHANG: usize = 1;
    const WALL: usize = 0x4000_0000;
    let mut status = 0_i32;
    // struct rusage: utime, stime (two words each), maxrss, 13 more words.
    let mut usage = [0_u64; 18];
    // SAFETY: both outputs live through the call and are large enough.
    let pid = unsafe {
        let out = [&raw mut status as usize, usage.as_mut_ptr() as usize];
        call(
            nr::WAIT4,
            [usize::MAX, out[0], WNOHANG | WALL, out[1], 0, 0],
        )?
    };
    if pid == 0 {
        return Ok(None);
    }
    Ok(Some(Reaped {
        pid: pid as i32,
        status,
        user_us: usage[0] * 1_000_000 + usage[1],
        system_us: usage[2] * 1_000_000 + usage[3],
        peak_kib: usage[4],
    }))
}

/// Whether any child is left, ended or not. Everything in the sandbox descends
/// from this process, so no children means no processes.
pub(crate) fn has_children() -> bool {
    const WNOHANG_WEXITED_WNOWAIT: usize = 1 | 4 | 0x0100_0000;
    const WALL: usize = 0x4000_0000;
    let mut info = [0_u64; 16];
    // SAFETY: siginfo_t is 128 bytes and lives through the call.
    let found = unsafe {
        let options = WNOHANG_WEXITED_WNOWAIT | WALL;
        call(
            nr::WAITID,
            [0, 0, info.as_mut_ptr() as usize, options, 0, 0],
        )
    };
    found != Err(Errno(ECHILD))
}

/// Whether the sandbox has System V shared memory, semaphores or message queues: they outlive the
/// processes that made them, but not the sandbox's init.
pub(crate) fn has_shared_objects() -> bool {
    const MSG_INFO: usize = 12;
    const SHM_INFO: usize = 14;
    const SEM_INFO: usize = 19;
    // How many there are: the first word of struct shm_info, the eighth of struct seminfo, the
    // first of struct msginfo.
    let calls = [
        (nr::SHMCTL, [0, SHM_INFO], 2, 0),
        (nr::SEMCTL, [0, 0], 3, 7),
        (nr::MSGCTL, [0, MSG_INFO], 2, 0),
    ];
    calls
        .into_iter()
        .any(|(number, [first, second], place, word)| {
            let mut info = [0_u32; 32];
            let mut args = [first, second, 0, 0, 0, 0];
            if number == nr::SEMCTL {
                args[2] = SEM_INFO;
            }
            if let Some(out) = args.get_mut(place) {
                *out = info.as_mut_ptr() as usize;
            }
            // SAFETY: the buffer is larger than any of the three structures and lives through the call.
            let done = unsafe { call(number, args) };
            // Without System V IPC in the kernel there are none.
            done.is_ok() && info.get(word).is_some_and(|count| *count > 0)
        })
}

/// Sends a signal; `pid` as for kill(2), so negative is a group and -1 is all.
pub(crate) fn kill(pid: i32, signal: i32) -> Result<()> {
    plain(
        nr::KILL,
        [pid as isize as usize, signal as usize, 0, 0, 0, 0],
    )
    .map(drop)
}

/// The process group of `pid`.
pub(crate) fn process_group(pid: i32) -> Result<i32> {
    plain(nr::GETPGID, [pid as usize, 0, 0, 0, 0, 0]).map(|group| group as i32)
}

/// Milliseconds of the monotonic clock.
pub(crate) fn now_ms() -> u64 {
    const CLOCK_MONOTONIC: usize = 1;
    let mut time = [0_u64; 2];
    // SAFETY: a timespec is two words and lives through the call.
    let _ = unsafe {
        call(
            nr::CLOCK_GETTIME,
            [CLOCK_MONOTONIC, time.as_mut_ptr() as usize, 0, 0, 0, 0],
        )
    };
    time[0] * 1000 + time[1] / 1_000_000
}

/// Closes a descriptor.
pub(crate) fn close(fd: i32) {
    let _ = plain(nr::CLOSE, [fd as usize, 0, 0, 0, 0, 0]);
}

/// Makes a stream socket of this family in the sandbox's network.
pub(crate) fn stream_socket(family: u32) -> Result<i32> {
    const STREAM: usize = 1;
    const NONBLOCK: usize = 0o4000;
    let kind = STREAM | NONBLOCK | O_CLOEXEC;
    plain(nr::SOCKET, [family as usize, kind, 0, 0, 0, 0]).map(|fd| fd as i32)
}

/// Modes of [`open`].
#[derive(Clone, Copy)]
pub(crate) enum Open {
    /// For reading.
    Read,
    /// A directory to list.
    Directory,
    /// A directory, as a place only.
    Place,
}

/// Opens `path`, relative to `dir` if it is one.
pub(crate) fn open(dir: Option<i32>, path: &core::ffi::CStr, how: Open) -> Result<i32> {
    let flags = match how {
        Open::Read => O_CLOEXEC,
        Open::Directory => O_CLOEXEC | arch::O_DIRECTORY,
        Open::Place => O_CLOEXEC | arch::O_DIRECTORY | O_PATH,
    };
    let dir = dir.map_or(AT_FDCWD, |fd| fd as usize);
    // SAFETY: a C string, alive through the call.
    let fd = unsafe { call(nr::OPENAT, [dir, path.as_ptr() as usize, flags, 0, 0, 0])? };
    Ok(fd as i32)
}

/// Reads into `buffer`.
pub(crate) fn read(fd: i32, buffer: &mut [u8]) -> Result<usize> {
    let at = buffer.as_mut_ptr() as usize;
    // SAFETY: the buffer is as long as said.
    unsafe { call(nr::READ, [fd as usize, at, buffer.len(), 0, 0, 0]) }
}

/// Writes from `bytes`.
pub(crate) fn write(fd: i32, bytes: &[u8]) -> Result<usize> {
    let at = bytes.as_ptr() as usize;
    // SAFETY: the buffer is as long as said.
    unsafe { call(nr::WRITE, [fd as usize, at, bytes.len(), 0, 0, 0]) }
}

/// Length of a file.
pub(crate) fn length(fd: i32) -> Result<usize> {
    const END: usize = 2;
    plain(nr::LSEEK, [fd as usize, 0, END, 0, 0, 0])
}

/// Whether this process is the first of its pid namespace.
pub(crate) fn is_init() -> bool {
    plain(nr::GETPID, [0; 6]) == Ok(1)
}

/// Reads directory entries into `buffer`.
pub(crate) fn read_dir(fd: i32, buffer: &mut [u8]) -> Result<usize> {
    let at = buffer.as_mut_ptr() as usize;
    // SAFETY: the buffer is as long as said.
    unsafe { call(nr::GETDENTS64, [fd as usize, at, buffer.len(), 0, 0, 0]) }
}

/// Goes back to the start of a directory.
pub(crate) fn rewind(fd: i32) -> Result<()> {
    plain(nr::LSEEK, [fd as usize, 0, 0, 0, 0, 0]).map(drop)
}

/// Inode number of what `path` under `dir` leads to.
pub(crate) fn inode(dir: i32, path: &core::ffi::CStr) -> Result<u64> {
    // struct stat begins with st_dev, st_ino on both architectures.
    let mut stat = [0_u64; 32];
    // SAFETY: a C string and a buffer larger than any struct stat.
    unsafe {
        let out = [path.as_ptr() as usize, stat.as_mut_ptr() as usize];
        call(nr::NEWFSTATAT, [dir as usize, out[0], out[1], 0, 0, 0])?;
    }
    Ok(stat[1])
}

/// Maps `len` bytes of a memfd, privately and writable.
pub(crate) fn map(fd: i32, len: usize) -> Result<&'static mut [u8]> {
    const READ_WRITE: usize = 3;
    // All pages at once: there are few, and each would cost a fault.
    const PRIVATE_POPULATED: usize = 2 | 0x8000;
    let arguments = [0, len, READ_WRITE, PRIVATE_POPULATED, fd as usize, 0];
    // SAFETY: a new mapping at an address the kernel picks touches nothing else.
    let at = unsafe { call(nr::MMAP, arguments)? };
    // SAFETY: the mapping is `len` bytes long, readable, writable and in no
    // other use. It stays until `unmap`, which takes the slice back. The host does
    // not shrink the file: it sealed it before sending.
    Ok(unsafe { core::slice::from_raw_parts_mut(at as *mut u8, len) })
}

/// Gives a mapping back.
pub(crate) fn unmap(mapping: &'static mut [u8]) {
    // SAFETY: `map` made it, and the only reference ends here.
    let _ = unsafe {
        call(
            nr::MUNMAP,
            [mapping.as_mut_ptr() as usize, mapping.len(), 0, 0, 0, 0],
        )
    };
}

/// Sleeps.
pub(crate) fn pause_ms(ms: u64) {
    let time = [ms / 1000, ms % 1000 * 1_000_000];
    // SAFETY: the timespec lives through the call; no descriptors are given.
    let _ = unsafe { call(nr::PPOLL, [0, 0, time.as_ptr() as usize, 0, 8, 0]) };
}
