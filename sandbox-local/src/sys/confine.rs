//! Restrictions of a command without namespaces, put up between fork and exec, and the attempts that
//! find out whether they hold.
//!
//! Everything between fork and exec is a system call on memory prepared before: no allocation, no
//! lock, no panic. It must never execute a program unless every step has succeeded.

use std::ffi::{CString, c_int, c_long};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;

/// Restrictions of one command.
#[derive(Debug)]
pub(crate) struct Cage {
    /// Landlock rules.
    pub(crate) rules: OwnedFd,
    /// Filter of system calls: an array of `struct sock_filter`.
    pub(crate) filter: Vec<u8>,
    /// The user and group to become, as root.
    pub(crate) user: Option<(u32, u32)>,
    /// The most processes of its user.
    pub(crate) processes: u64,
}

/// Restricts the calling thread, and what it starts from now on, by Landlock rules.
pub(crate) fn restrict_thread(rules: &OwnedFd) -> Result<(), Errno> {
    // SAFETY: changes nothing but this thread's own rights.
    unsafe {
        check(no_new_privileges())?;
        check(restrict(rules.as_raw_fd()))
    }
}

/// Puts a filter over the calling thread that watches calls, and gives the descriptor on which they
/// are told: it hangs up when nothing runs under the filter any more.
pub(crate) fn watch_thread(filter: &[u8]) -> Result<OwnedFd, Errno> {
    use std::os::fd::FromRawFd;
    /// `SECCOMP_FILTER_FLAG_NEW_LISTENER`.
    const NEW_LISTENER: usize = 1 << 3;
    // SAFETY: the program lives through the call, which changes nothing but this thread's filters.
    unsafe {
        let listener = put_up(filter, NEW_LISTENER);
        check(listener)?;
        Ok(OwnedFd::from_raw_fd(listener as i32))
    }
}

impl Cage {
    /// Makes the command enter it before its program is executed.
    pub(crate) fn arm(self: &Arc<Self>, command: &mut tokio::process::Command) {
        let cage = Arc::clone(self);
        // SAFETY: `enter` makes only system calls, on memory that the closure holds.
        unsafe {
            command.pre_exec(move || cage.enter().map_err(io::Error::from));
        }
    }

    fn enter(&self) -> Result<(), Errno> {
        let core = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        let processes = libc::rlimit {
            rlim_cur: self.processes,
            rlim_max: self.processes,
        };
        // SAFETY: these change only this process; what they point to lives through them.
        unsafe {
            check(libc::setrlimit(libc::RLIMIT_CORE, &raw const core).into())?;
            check(libc::setrlimit(libc::RLIMIT_NPROC, &raw const processes).into())?;
            libc::umask(0o022);
            if let Some((uid, gid)) = self.user {
                for stream in 0..3 {
                    give(stream, uid, gid);
                }
                check(libc::syscall(
                    libc::SYS_setgroups,
                    0,
                    std::ptr::null::<u32>(),
                ))?;
                check(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
                check(libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
            }
            check(no_new_privileges())?;
            check(restrict(self.rules.as_raw_fd()))?;
            // The host's own descriptors that it forgot to mark.
            check(libc::syscall(
                libc::SYS_close_range,
                3,
                c_int::MAX,
                libc::CLOSE_RANGE_CLOEXEC,
            ))?;
            check(put_up(&self.filter, 0))
        }
    }
}

/// Gives a pipe to the guest's user, so that it may be opened by its name in `/dev`. Nothing else: a
/// device is the host's.
///
/// # Safety
/// As of what is called between fork and exec.
unsafe fn give(stream: c_int, uid: u32, gid: u32) {
    let mut found = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the call fills the structure, or says that it has not.
    unsafe {
        let is_known = libc::fstat(stream, found.as_mut_ptr()) == 0;
        if is_known && found.assume_init_ref().st_mode & libc::S_IFMT == libc::S_IFIFO {
            libc::fchown(stream, uid, gid);
        }
    }
}

/// Paths that the attempts need.
#[derive(Debug)]
pub(crate) struct Targets {
    /// A file of the host that its user may read and write.
    pub(crate) file: CString,
    /// The directory that it is in.
    pub(crate) dir: CString,
}

/// Number of [`attempts`](attempt_all).
pub(crate) const ATTEMPTS: usize = 18;

/// Makes the command try what it should not be able to do, write the errno of each attempt (zero for
/// success) to its standard output, and end without executing anything.
pub(crate) fn arm_attempts(command: &mut tokio::process::Command, targets: Targets) {
    let host = rustix::process::getpid().as_raw_nonzero().get();
    // SAFETY: `attempt_all` makes only system calls, on memory that the closure holds.
    unsafe {
        command.pre_exec(move || {
            // Nothing of the host's, as for a program; and this tells it that the start is over.
            libc::syscall(libc::SYS_close_range, 3, c_int::MAX, 0);
            let found = attempt_all(&targets, host);
            let bytes = std::mem::size_of_val(&found);
            libc::write(1, found.as_ptr().cast(), bytes);
            libc::_exit(0);
        });
    }
}

/// In the order in which the report reads them.
fn attempt_all(targets: &Targets, host: c_int) -> [i32; ATTEMPTS] {
    let (file, dir) = (targets.file.as_ptr(), targets.dir.as_ptr());
    let temporary = libc::O_TMPFILE | libc::O_WRONLY | libc::O_CLOEXEC;
    let at = libc::AT_FDCWD;
    let mut capabilities = [[0_u32; 3]; 2];
    // _LINUX_CAPABILITY_VERSION_3, this process.
    let mut header = [0x2008_0522_u32, 0];
    // SAFETY: each call takes only memory of this function, and fails or changes only this process,
    // which ends afterwards.
    unsafe {
        let tried = |result: c_long| if result < 0 { errno() } else { 0 };
        libc::syscall(
            libc::SYS_capget,
            header.as_mut_ptr(),
            capabilities.as_mut_ptr(),
        );
        [
            // 0: what the host has, read, written, made, removed and closed to its owner.
            tried(libc::syscall(libc::SYS_openat, at, file, libc::O_RDONLY, 0)),
            tried(libc::syscall(libc::SYS_openat, at, file, libc::O_WRONLY, 0)),
            tried(libc::syscall(libc::SYS_openat, at, dir, temporary, 0o600)),
            tried(libc::syscall(
                libc::SYS_openat,
                at,
                c"/usr".as_ptr(),
                temporary,
                0o600,
            )),
            tried(libc::syscall(libc::SYS_fchmodat, at, file, 0o600)),
            // 5: processes of the host.
            tried(libc::syscall(libc::SYS_kill, host, 0)),
            tried(libc::syscall(
                libc::SYS_ptrace,
                libc::PTRACE_SEIZE,
                host,
                0,
                0,
            )),
            // 7: the network.
            tried(libc::syscall(
                libc::SYS_socket,
                libc::AF_INET,
                libc::SOCK_STREAM,
                0,
            )),
            tried(libc::syscall(
                libc::SYS_socket,
                libc::AF_INET6,
                libc::SOCK_DGRAM,
                0,
            )),
            // 9: sockets with names in files, and memory and queues of other processes.
            tried(libc::syscall(
                libc::SYS_socket,
                libc::AF_UNIX,
                libc::SOCK_STREAM,
                0,
            )),
            tried(libc::syscall(
                libc::SYS_shmget,
                libc::IPC_PRIVATE,
                4096,
                0o600,
            )),
            tried(libc::syscall(libc::SYS_msgget, libc::IPC_PRIVATE, 0o600)),
            // 12: privileges.
            i32::from(libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1),
            i32::from(capabilities.iter().all(|sets| sets[..2] == [0, 0])),
            // 14: the filter.
            tried(libc::syscall(libc::SYS_bpf, 0, 0, 0)),
            tried(libc::syscall(libc::SYS_io_uring_setup, 0, 0)),
            tried(libc::syscall(libc::SYS_keyctl, 0, 0, 0, 0, 0)),
            tried(libc::syscall(libc::SYS_unshare, libc::CLONE_NEWUSER)),
        ]
    }
}

/// # Safety
/// None beyond the call's; an `unsafe fn` because it is called between fork and exec.
unsafe fn no_new_privileges() -> c_long {
    // SAFETY: takes no memory.
    unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into() }
}

/// # Safety
/// As above.
unsafe fn restrict(rules: c_int) -> c_long {
    // SAFETY: takes no memory.
    unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules, 0) }
}

/// # Safety
/// As above.
unsafe fn put_up(filter: &[u8], flags: usize) -> c_long {
    /// `SECCOMP_SET_MODE_FILTER`.
    const SET_MODE_FILTER: usize = 1;
    /// `struct sock_fprog`.
    #[repr(C)]
    struct Program {
        len: u16,
        filter: *const u8,
    }
    let program = Program {
        len: (filter.len() / 8) as u16,
        filter: filter.as_ptr(),
    };
    // SAFETY: the program lives through the call.
    unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    }
}

fn errno() -> i32 {
    // SAFETY: the thread's own.
    unsafe { *libc::__errno_location() }
}

fn check(result: c_long) -> Result<(), Errno> {
    match result {
        0.. => Ok(()),
        _ => Err(Errno::from_raw_os_error(errno())),
    }
}
