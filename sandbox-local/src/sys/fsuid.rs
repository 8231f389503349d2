//! The user with which the calling thread touches files.
//!
//! Invariant: only the calling thread changes, and it changes back; nothing else of the process
//! (its uids, other threads, its dumpable flag) differs after a guard is gone.

#![allow(unsafe_code)]

use std::io;
use std::marker::PhantomData;
use std::sync::{Mutex, PoisonError};

use rustix::process::{DumpableBehavior, dumpable_behavior, getgroups, set_dumpable_behavior};
use rustix::thread::{Gid, set_thread_groups};

/// Not a valid identifier: setting it fails, and the call returns the one in force.
const QUERY: u32 = u32::MAX;

/// While this lives, the kernel checks this thread's file accesses as those of another user, and
/// what the thread creates belongs to that user.
///
/// Supplementary groups are dropped too: root's own would open files that the user may not read.
#[derive(Debug)]
pub(crate) struct FsUser {
    uid: u32,
    gid: u32,
    groups: Vec<Gid>,
    // The user is the thread's: dropping the guard on another one would leave it changed.
    not_send: PhantomData<*const ()>,
}

impl FsUser {
    /// Takes on this user and group.
    ///
    /// # Errors
    /// If the thread may not; its user is then as before.
    pub(crate) fn assume(uid: u32, gid: u32) -> io::Result<Self> {
        let groups = getgroups()?;
        Dumpable::note();
        if !groups.is_empty()
            && let Err(error) = set_thread_groups(&[])
        {
            Dumpable::restore();
            return Err(error.into());
        }
        // The group first: with the user goes the right to change it.
        let old_gid = setfsgid(gid);
        let old_uid = setfsuid(uid);
        let guard = Self {
            uid: old_uid,
            gid: old_gid,
            groups,
            not_send: PhantomData,
        };
        // Neither call reports failure; asking again does.
        if setfsuid(QUERY) != uid || setfsgid(QUERY) != gid {
            return Err(io::Error::from(io::ErrorKind::PermissionDenied));
        }
        Ok(guard)
    }
}

impl Drop for FsUser {
    fn drop(&mut self) {
        // Going back to one's own effective user is always allowed, so none of this can fail; if
        // it did, the thread would keep the lesser rights.
        setfsuid(self.uid);
        setfsgid(self.gid);
        if !self.groups.is_empty() {
            let _ = set_thread_groups(&self.groups);
        }
        Dumpable::restore();
    }
}

/// Whether the process can be dumped and debugged. The kernel turns that off whenever a thread
/// changes its guest_user; as it is the whole process's, it is turned on again with the last guard.
struct Dumpable {
    guards: usize,
    before: bool,
}

static DUMPABLE: Mutex<Dumpable> = Mutex::new(Dumpable {
    guards: 0,
    before: false,
});

impl Dumpable {
    fn note() {
        let mut state = DUMPABLE.lock().unwrap_or_else(PoisonError::into_inner);
        if state.guards == 0 {
            state.before = matches!(dumpable_behavior(), Ok(DumpableBehavior::Dumpable));
        }
        state.guards += 1;
    }

    fn restore() {
        let mut state = DUMPABLE.lock().unwrap_or_else(PoisonError::into_inner);
        state.guards = state.guards.saturating_sub(1);
        if state.guards == 0 && state.before {
            // Only a debugger would notice the failure of this.
            let _ = set_dumpable_behavior(DumpableBehavior::Dumpable);
        }
    }
}

fn setfsuid(uid: u32) -> u32 {
    // SAFETY: the call takes a number and touches no memory of ours; an invalid one is refused.
    let old = unsafe { libc::setfsuid(uid) };
    old.cast_unsigned()
}

fn setfsgid(gid: u32) -> u32 {
    // SAFETY: as above.
    let old = unsafe { libc::setfsgid(gid) };
    old.cast_unsigned()
}
