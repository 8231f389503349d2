//! Facts about x86-64 that the seccomp filter needs.

/// `AUDIT_ARCH_X86_64` of linux/audit.h.
pub(super) const AUDIT_ARCH: u32 = 0xc000_003e;

/// Calls of the x32 ABI have this bit in their number.
pub(super) const X32_BIT: Option<u32> = Some(0x4000_0000);

pub(super) const MKNOD: Option<i64> = Some(libc::SYS_mknod);

pub(super) const OPEN: Option<i64> = Some(libc::SYS_open);

/// Calls that give a file the mode in their second argument, and that only this architecture has.
pub(super) const SET_MODE: &[i64] = &[libc::SYS_chmod, libc::SYS_creat];

/// Calls that give a file the owner in their second and third argument.
pub(super) const CHOWN: &[i64] = &[libc::SYS_chown, libc::SYS_lchown];

/// Calls that only this architecture has.
pub(super) const DENIED: &[i64] = &[
    libc::SYS_kexec_file_load,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_uselib,
    libc::SYS_ustat,
    libc::SYS_sysfs,
    libc::SYS__sysctl,
];
