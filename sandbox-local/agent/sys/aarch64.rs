//! Differences of AArch64: entry, system call numbers and instruction, clone.
//! Must never contain anything that an architecture does not force. In unit tests only the numbers
//! are used: the kernel is `fake.rs`.

#[cfg(not(test))]
use core::arch::{asm, global_asm};

pub(crate) mod nr {
    //! System call numbers.
    pub(crate) const DUP: usize = 23;
    pub(crate) const PRLIMIT64: usize = 261;
    pub(crate) const DUP3: usize = 24;
    pub(crate) const IOCTL: usize = 29;
    pub(crate) const SOCKET: usize = 198;
    pub(crate) const CHDIR: usize = 49;
    pub(crate) const OPENAT: usize = 56;
    pub(crate) const CLOSE: usize = 57;
    pub(crate) const GETDENTS64: usize = 61;
    pub(crate) const LSEEK: usize = 62;
    pub(crate) const READ: usize = 63;
    pub(crate) const WRITE: usize = 64;
    pub(crate) const PPOLL: usize = 73;
    pub(crate) const SIGNALFD4: usize = 74;
    pub(crate) const NEWFSTATAT: usize = 79;
    pub(crate) const EXIT: usize = 93;
    pub(crate) const EXIT_GROUP: usize = 94;
    pub(crate) const WAITID: usize = 95;
    pub(crate) const FUTEX: usize = 98;
    pub(crate) const CLOCK_GETTIME: usize = 113;
    pub(crate) const KILL: usize = 129;
    pub(crate) const RT_SIGACTION: usize = 134;
    pub(crate) const RT_SIGPROCMASK: usize = 135;
    pub(crate) const GETPGID: usize = 155;
    pub(crate) const GETPID: usize = 172;
    pub(crate) const MSGCTL: usize = 187;
    pub(crate) const SEMCTL: usize = 191;
    pub(crate) const SHMCTL: usize = 195;
    pub(crate) const SETSID: usize = 157;
    pub(crate) const UMASK: usize = 166;
    pub(crate) const SENDMSG: usize = 211;
    pub(crate) const RECVMSG: usize = 212;
    pub(crate) const MUNMAP: usize = 215;
    pub(crate) const EXECVE: usize = 221;
    pub(crate) const MMAP: usize = 222;
    pub(crate) const WAIT4: usize = 260;
    pub(crate) const EXECVEAT: usize = 281;
    pub(crate) const CLOSE_RANGE: usize = 436;
}

/// O_DIRECTORY is one of the flags whose value depends on the architecture.
pub(crate) const O_DIRECTORY: usize = 0o40_000;

#[cfg(not(test))]
global_asm!(
    ".globl _start",
    "_start:",
    "mov x29, xzr",
    "mov x30, xzr",
    "mov x9, sp",
    "and sp, x9, #-16",
    "bl {main}",
    "brk #1",
    // (flags, stack top, entry, argument, child tid)
    ".globl agent_clone",
    "agent_clone:",
    "sub x1, x1, #16",
    "stp x2, x3, [x1]",
    "mov x2, xzr",
    "mov x3, xzr",
    "mov x8, #220",
    "svc #0",
    "cbz x0, 1f",
    "ret",
    "1:",
    "mov x29, xzr",
    "mov x30, xzr",
    "ldp x9, x0, [sp], #16",
    "blr x9",
    "brk #1",
    main = sym super::main,
);

/// Makes a system call.
///
/// # Safety
/// The arguments must be valid for the call, pointers for as long as it runs.
#[cfg(not(test))]
pub(crate) unsafe fn syscall(number: usize, args: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the kernel preserves all registers but x0; what the call does to
    // memory is the caller's promise.
    unsafe {
        asm!(
            "svc #0",
            in("x8") number,
            inlateout("x0") args[0] as isize => result,
            in("x1") args[1],
            in("x2") args[2],
            in("x3") args[3],
            in("x4") args[4],
            in("x5") args[5],
            options(nostack),
        );
    }
    result
}

/// The compiler's runtime asks for CPU features by this C function, in
/// constructors that a program without start files does not run.
#[cfg(not(test))]
#[unsafe(no_mangle)]
extern "C" fn getauxval(_: u64) -> u64 {
    0
}
