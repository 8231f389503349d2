//! Starts the agent in namespaces of its own.
//!
//! `clone` with CLONE_VM and CLONE_VFORK: the child borrows this process's memory
//! until it executes the agent, so nothing is copied and the cost does not grow
//! with the application. Between clone and exec the child must only make system
//! calls on memory prepared before: no allocation, no lock, no panic.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::{Mutex, RwLock, RwLockReadGuard};

use rustix::io::Errno;

use crate::protocol::CONTROL_FD;

/// The agent's process.
pub(crate) struct Launched {
    /// Number in this process's pid namespace.
    pub(crate) pid: u32,
    /// Descriptor of the process, immune to reuse of the number.
    pub(crate) pidfd: OwnedFd,
}

/// Error of starting the agent: the step, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LaunchError {
    /// The step.
    pub(crate) step: &'static str,
    /// The kernel's reason.
    pub(crate) errno: Errno,
}

/// The step that makes the process.
pub(crate) const CREATE_STEP: &str = "create namespaces";

/// The step that executes the agent's image.
pub(crate) const EXEC_STEP: &str = "execute the agent";

const STEPS: [&str; 5] = [
    CREATE_STEP,
    "hand over descriptors",
    "close other descriptors",
    "keep capabilities across exec",
    EXEC_STEP,
];

const STACK: usize = 64 * 1024;

/// Descriptor of the agent's image until it is executed.
const IMAGE_FD: c_int = CONTROL_FD + 1;

/// Memory that parent and child share. The child writes the atomics and `fds`, while the
/// parent stands still.
struct Shared {
    /// Control socket, agent image.
    fds: [RawFd; 2],
    step: AtomicU32,
    errno: AtomicI32,
}

/// Held shared while a child has a copy of this process's descriptors.
static COPIED: RwLock<()> = RwLock::new(());

/// Waits until every child that is just being started has let go of this process's descriptors, a
/// few milliseconds at most.
///
/// For a caller that has closed a file which it wrote: as long as a child has a copy, the kernel
/// takes the file for one that is still being written and does not execute it (ETXTBSY).
pub(crate) fn let_go() {
    drop(COPIED.write());
}

/// Held while a child that is started elsewhere has a copy of this process's descriptors.
pub(super) fn copied() -> Option<RwLockReadGuard<'static, ()>> {
    COPIED.read().ok()
}

/// Starts `agent` with `control` as its only descriptor, in new namespaces according
/// to the CLONE_NEW* `namespaces`, and in a control group of v2 if one is given.
pub(crate) fn launch(
    agent: BorrowedFd<'_>,
    control: BorrowedFd<'_>,
    namespaces: c_int,
    group: Option<BorrowedFd<'_>>,
) -> Result<Launched, LaunchError> {
    let mut shared = Shared {
        fds: [control.as_raw_fd(), agent.as_raw_fd()],
        step: AtomicU32::new(0),
        errno: AtomicI32::new(0),
    };
    let stack = Stack::take().map_err(|errno| LaunchError {
        step: "map a stack",
        errno,
    })?;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | namespaces;
    let mut pidfd: RawFd = -1;
    let copied = COPIED.read();
    let blocked = BlockedSignals::new();
    let shared_ptr = (&raw mut shared).cast::<c_void>();
    let pid = match group {
        // SAFETY: the stack is private, unused and large enough; `child` follows the
        // rules in the module's documentation; `shared` outlives the child's use of
        // it, as CLONE_VFORK returns only once the child has executed or ended; the
        // thread pointer is shared, which is fine while this thread stands still.
        None => unsafe {
            libc::clone(
                child,
                stack.top(),
                flags | libc::SIGCHLD,
                shared_ptr,
                &raw mut pidfd,
            )
        },
        Some(group) => {
            let args = CloneArgs::new(flags, &raw mut pidfd, &stack, group);
            // SAFETY: as above.
            unsafe { clone3(&args, child, shared_ptr) }
        }
    };
    let clone_errno = match pid {
        // Of `clone`, by the C library.
        -1 if group.is_none() => Errno::from_io_error(&std::io::Error::last_os_error()),
        _ => Some(Errno::from_raw_os_error(pid.saturating_neg().max(1))),
    };
    drop(blocked);
    drop(copied);
    stack.put_back();
    if pid < 0 {
        let errno = clone_errno.unwrap_or(Errno::AGAIN);
        return Err(LaunchError {
            step: STEPS[0],
            errno,
        });
    }
    // SAFETY: the kernel stored a new descriptor that has no other owner.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let errno = shared.errno.load(Ordering::Acquire);
    if errno != 0 {
        reap(&pidfd);
        let step = STEPS.get(shared.step.load(Ordering::Acquire) as usize);
        let step = step.copied().unwrap_or("start the agent");
        return Err(LaunchError {
            step,
            errno: Errno::from_raw_os_error(errno),
        });
    }
    Ok(Launched {
        pid: pid.unsigned_abs(),
        pidfd,
    })
}

/// `struct clone_args` of clone3(2), up to the control group.
#[repr(C)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

impl CloneArgs {
    fn new(flags: c_int, pidfd: *mut RawFd, stack: &Stack, group: BorrowedFd<'_>) -> Self {
        const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
        Self {
            flags: u64::from(flags.cast_unsigned()) | CLONE_INTO_CGROUP,
            pidfd: pidfd as u64,
            child_tid: 0,
            parent_tid: 0,
            exit_signal: libc::SIGCHLD as u64,
            stack: stack.base as u64,
            stack_size: stack.len as u64,
            tls: 0,
            set_tid: 0,
            set_tid_size: 0,
            cgroup: group.as_raw_fd() as u64,
        }
    }
}

/// clone3(2), which the C library does not offer: the child calls a function on its new stack and
/// ends with what that returns. A negative result is an errno.
///
/// # Safety
/// As for `clone` with a stack.
unsafe fn clone3(
    args: &CloneArgs,
    entry: extern "C" fn(*mut c_void) -> c_int,
    arg: *mut c_void,
) -> c_int {
    let size = size_of::<CloneArgs>();
    let result: isize;
    // SAFETY: the parent's registers are as the kernel leaves them; the child never gets past the
    // block, and has a stack of its own, aligned as a call wants it.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r13",
            "call r12",
            "mov edi, eax",
            "mov eax, {exit}",
            "syscall",
            "ud2",
            "2:",
            exit = const libc::SYS_exit,
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") std::ptr::from_ref(args),
            in("rsi") size,
            in("r12") entry,
            in("r13") arg,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x30, xzr",
            "mov x0, x21",
            "blr x20",
            "mov x8, {exit}",
            "svc 0",
            "brk 1",
            "2:",
            exit = const libc::SYS_exit,
            inlateout("x0") std::ptr::from_ref(args) as isize => result,
            in("x1") size,
            in("x8") libc::SYS_clone3,
            in("x20") entry,
            in("x21") arg,
        );
    }
    // A pid, or an errno: both are small.
    result as c_int
}

fn reap(pidfd: &OwnedFd) {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    while let Err(Errno::INTR) = waitid(
        WaitId::PidFd(std::os::fd::AsFd::as_fd(pidfd)),
        WaitIdOptions::EXITED,
    ) {}
}

extern "C" fn child(shared: *mut c_void) -> c_int {
    // SAFETY: `launch` passes a `Shared` that outlives this process's use of it
    // and that no other thread touches meanwhile.
    let shared = unsafe { &mut *shared.cast::<Shared>() };
    if let Err(step) = become_agent(&mut shared.fds) {
        // SAFETY: the thread's errno, which is shared with the waiting parent.
        let errno = unsafe { *libc::__errno_location() };
        shared.step.store(step, Ordering::Release);
        shared.errno.store(errno.max(1), Ordering::Release);
    }
    1
}

/// Only returns the index of the step that failed.
fn become_agent(fds: &mut [RawFd; 2]) -> Result<(), u32> {
    let done = |step: u32, result: c_int| if result < 0 { Err(step) } else { Ok(()) };
    let first_free = IMAGE_FD + 1;
    // Out of the way of the final places first, so that none is overwritten.
    for fd in fds.iter_mut() {
        // SAFETY: works on this process's own descriptor table.
        *fd = unsafe { libc::fcntl(*fd, libc::F_DUPFD_CLOEXEC, first_free) };
        done(1, *fd)?;
    }
    let [control, image] = *fds;
    for (from, to, flags) in [(control, CONTROL_FD, 0), (image, IMAGE_FD, libc::O_CLOEXEC)] {
        // SAFETY: as above.
        done(1, unsafe { libc::dup3(from, to, flags) })?;
    }
    // SAFETY: as above; the table is not shared (no CLONE_FILES).
    unsafe {
        let none: c_int = 0;
        done(
            2,
            libc::syscall(libc::SYS_close_range, 0, CONTROL_FD - 1, none) as c_int,
        )?;
        done(
            2,
            libc::syscall(libc::SYS_close_range, first_free, c_int::MAX, none) as c_int,
        )?;
    }
    keep_capabilities().map_err(|()| 3_u32)?;
    let argv = [c"sandbox-agent".as_ptr(), std::ptr::null()];
    let envp = [std::ptr::null::<libc::c_char>()];
    // SAFETY: both arrays are null-ended and live until the exec.
    unsafe {
        let (argv, envp) = (argv.as_ptr(), envp.as_ptr());
        libc::syscall(
            libc::SYS_execveat,
            IMAGE_FD,
            c"".as_ptr(),
            argv,
            envp,
            libc::AT_EMPTY_PATH,
        );
    }
    Err(4)
}

/// The agent is not root in its user namespace, so only ambient capabilities
/// survive its exec.
fn keep_capabilities() -> Result<(), ()> {
    /// _LINUX_CAPABILITY_VERSION_3, this process.
    const HEADER: [u32; 2] = [0x2008_0522, 0];
    let mut header = HEADER;
    // Two of effective, permitted, inheritable.
    let mut sets = [[0_u32; 3]; 2];
    // SAFETY: header and sets have the layout of version 3 and live through it.
    if unsafe { libc::syscall(libc::SYS_capget, header.as_mut_ptr(), sets.as_mut_ptr()) } < 0 {
        return Err(());
    }
    for set in &mut sets {
        set[2] = set[1];
    }
    header = HEADER;
    // SAFETY: as above.
    if unsafe { libc::syscall(libc::SYS_capset, header.as_mut_ptr(), sets.as_ptr()) } < 0 {
        return Err(());
    }
    let held = |capability: &usize| sets[capability / 32][1] & (1 << (capability % 32)) != 0;
    for capability in (0..64_usize).filter(held) {
        // SAFETY: takes and changes nothing but this process's capabilities.
        let raised = unsafe {
            let (raise, none) = (
                libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong,
                0 as libc::c_ulong,
            );
            libc::prctl(
                libc::PR_CAP_AMBIENT,
                raise,
                capability as libc::c_ulong,
                none,
                none,
            )
        };
        if raised < 0 {
            return Err(());
        }
    }
    Ok(())
}

/// A stack with a guard page below.
pub(super) struct Stack {
    base: *mut c_void,
    len: usize,
}

// SAFETY: the mapping is this value's own, whichever thread has it.
unsafe impl Send for Stack {}

/// One that was used before: mapping and unmapping take longer than what runs on it.
static SPARE_STACK: Mutex<Option<Stack>> = Mutex::new(None);

impl Stack {
    pub(super) fn take() -> Result<Self, Errno> {
        let spare = SPARE_STACK.lock().ok().and_then(|mut spare| spare.take());
        spare.map_or_else(Self::new, Ok)
    }

    /// Keeps it for the next child; the last one has left it.
    pub(super) fn put_back(self) {
        if let Ok(mut spare) = SPARE_STACK.lock() {
            *spare = Some(self);
        }
    }

    fn new() -> Result<Self, Errno> {
        let page = rustix::param::page_size();
        let len = STACK.next_multiple_of(page) + page;
        let last =
            || Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::NOMEM);
        // SAFETY: a new mapping at an address the kernel picks; then its own
        // lowest page is made inaccessible.
        unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
            let base = libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0);
            if base == libc::MAP_FAILED {
                return Err(last());
            }
            let stack = Self { base, len };
            if libc::mprotect(base, page, libc::PROT_NONE) < 0 {
                return Err(last());
            }
            Ok(stack)
        }
    }

    pub(super) fn top(&self) -> *mut c_void {
        self.base.wrapping_byte_add(self.len)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own and nothing runs on it.
        unsafe { libc::munmap(self.base, self.len) };
    }
}

/// Keeps signals from this thread while a child shares its memory: a handler
/// would run in the child. The child starts with all of them blocked.
pub(super) struct BlockedSignals(MaybeUninit<libc::sigset_t>);

impl BlockedSignals {
    pub(super) fn new() -> Self {
        let mut all = MaybeUninit::uninit();
        let mut old = MaybeUninit::uninit();
        // SAFETY: the first call initialises `all`, the second `old`.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), old.as_mut_ptr());
        }
        Self(old)
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // SAFETY: `new` initialised the set.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, self.0.as_ptr(), std::ptr::null_mut()) };
    }
}
