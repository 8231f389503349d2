//! Landlock's system calls, for which no crate of ours has functions.
//!
//! Reference: landlock(7), landlock_create_ruleset(2), landlock_add_rule(2).

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::io::{Errno, Result as Sys};

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

/// `struct landlock_ruleset_attr` of version 6: what is refused unless a rule allows it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Handled {
    /// `LANDLOCK_ACCESS_FS_*`.
    pub(crate) files: u64,
    /// `LANDLOCK_ACCESS_NET_*`.
    pub(crate) network: u64,
    /// `LANDLOCK_SCOPE_*`.
    pub(crate) scopes: u64,
}

/// Makes a set of rules that allows nothing yet of what it handles.
pub(crate) fn ruleset(handled: &Handled) -> Sys<OwnedFd> {
    // SAFETY: the structure has the layout of the interface and lives through the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::from_ref(handled),
            size_of::<Handled>(),
            0,
        )
    };
    if fd < 0 {
        return Err(last());
    }
    // SAFETY: the kernel returned a new descriptor that has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Allows `access` (`LANDLOCK_ACCESS_FS_*`) at a file, or at and below a directory.
pub(crate) fn allow(rules: impl AsFd, access: u64, place: impl AsFd) -> Sys<()> {
    /// `LANDLOCK_RULE_PATH_BENEATH`.
    const PATH_BENEATH: libc::c_int = 1;
    /// `struct landlock_path_beneath_attr`.
    #[repr(C, packed)]
    struct Beneath {
        access: u64,
        place: i32,
    }
    let beneath = Beneath {
        access,
        place: place.as_fd().as_raw_fd(),
    };
    // SAFETY: the structure has the layout of the interface and lives through the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            rules.as_fd().as_raw_fd(),
            PATH_BENEATH,
            &raw const beneath,
            0,
        )
    };
    if done < 0 { Err(last()) } else { Ok(()) }
}

fn last() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}
