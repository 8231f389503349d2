//! Which Landlock the kernel has.

/// The version of Landlock's interface, zero if the kernel has none.
///
/// Reference: landlock_create_ruleset(2), `LANDLOCK_CREATE_RULESET_VERSION`.
pub(crate) fn landlock_version() -> u32 {
    const VERSION: libc::c_ulong = 1;
    // SAFETY: with this flag the call takes no attributes, and only returns a number.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0_usize,
            VERSION,
        )
    };
    u32::try_from(version).unwrap_or(0)
}
