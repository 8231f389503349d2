//! Facts about arm64 that the seccomp filter needs.

/// `AUDIT_ARCH_AARCH64` of linux/audit.h.
pub(super) const AUDIT_ARCH: u32 = 0xc000_00b7;

/// No second ABI under the same architecture.
pub(super) const X32_BIT: Option<u32> = None;

pub(super) const MKNOD: Option<i64> = None;

pub(super) const OPEN: Option<i64> = None;

pub(super) const SET_MODE: &[i64] = &[];

pub(super) const CHOWN: &[i64] = &[];

/// Calls that only this architecture has (by number where libc has no name).
pub(super) const DENIED: &[i64] = &[
    // kexec_file_load
    294,
];
