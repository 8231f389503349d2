//! Differences of x86-64: entry, system call numbers and instruction, clone.
//! Must never contain anything that an architecture does not force. In unit tests only the numbers
//! are used: the kernel is `fake.rs`.

#[cfg(not(test))]
use core::arch::{asm, global_asm};

pub(crate) mod nr {
    //! System call numbers.
    pub(crate) const READ: usize = 0;
    pub(crate) const WRITE: usize = 1;
    pub(crate) const CLOSE: usize = 3;
    pub(crate) const LSEEK: usize = 8;
    pub(crate) const IOCTL: usize = 16;
    pub(crate) const SOCKET: usize = 41;
    pub(crate) const MMAP: usize = 9;
    pub(crate) const MUNMAP: usize = 11;
    pub(crate) const RT_SIGACTION: usize = 13;
    pub(crate) const RT_SIGPROCMASK: usize = 14;
    pub(crate) const SHMCTL: usize = 31;
    pub(crate) const DUP: usize = 32;
    pub(crate) const SENDMSG: usize = 46;
    pub(crate) const RECVMSG: usize = 47;
    pub(crate) const GETPID: usize = 39;
    pub(crate) const EXECVE: usize = 59;
    pub(crate) const EXIT: usize = 60;
    pub(crate) const WAIT4: usize = 61;
    pub(crate) const KILL: usize = 62;
    pub(crate) const SEMCTL: usize = 66;
    pub(crate) const MSGCTL: usize = 71;
    pub(crate) const CHDIR: usize = 80;
    pub(crate) const UMASK: usize = 95;
    pub(crate) const SETSID: usize = 112;
    pub(crate) const GETPGID: usize = 121;
    pub(crate) const FUTEX: usize = 202;
    pub(crate) const GETDENTS64: usize = 217;
    pub(crate) const CLOCK_GETTIME: usize = 228;
    pub(crate) const EXIT_GROUP: usize = 231;
    pub(crate) const WAITID: usize = 247;
    pub(crate) const OPENAT: usize = 257;
    pub(crate) const NEWFSTATAT: usize = 262;
    pub(crate) const PPOLL: usize = 271;
    pub(crate) const SIGNALFD4: usize = 289;
    pub(crate) const PRLIMIT64: usize = 302;
    pub(crate) const DUP3: usize = 292;
    pub(crate) const EXECVEAT: usize = 322;
    pub(crate) const CLOSE_RANGE: usize = 436;
}

/// O_DIRECTORY is one of the flags whose value depends on the architecture.
pub(crate) const O_DIRECTORY: usize = 0o200_000;

#[cfg(not(test))]
global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "and rsp, -16",
    "call {main}",
    "ud2",
    // (flags, stack top, entry, argument, child tid)
    ".globl agent_clone",
    "agent_clone:",
    "sub rsi, 16",
    "mov [rsi], rdx",
    "mov [rsi + 8], rcx",
    "mov r10, r8",
    "xor edx, edx",
    "xor r8d, r8d",
    "mov eax, 56",
    "syscall",
    "test rax, rax",
    "jz 1f",
    "ret",
    "1:",
    "xor ebp, ebp",
    "pop rax",
    "pop rdi",
    "call rax",
    "ud2",
    main = sym super::main,
);

/// Makes a system call.
///
/// # Safety
/// The arguments must be valid for the call, pointers for as long as it runs.
#[cfg(not(test))]
pub(crate) unsafe fn syscall(number: usize, args: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the kernel preserves all registers but rax, rcx and r11; what the
    // call does to memory is the caller's promise.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            in("r9") args[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}
