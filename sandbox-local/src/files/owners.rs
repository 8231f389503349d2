//! Owners of files as the guest sees them.
//!
//! The guest's user namespace knows one user and one group. It must never show a number of the
//! host.

/// Identifier shown for a user or group that a namespace does not know: user_namespaces(7).
const OVERFLOW_ID: u32 = 65_534;

/// The user and group of the host that are the guest's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owners {
    uid: u32,
    gid: u32,
    /// Their number inside.
    inside: u32,
}

impl Owners {
    pub(super) fn new(uid: u32, gid: u32, inside: u32) -> Self {
        Self { uid, gid, inside }
    }

    /// A user of the host as the guest sees it.
    pub(super) fn uid(self, host: u32) -> u32 {
        if host == self.uid {
            self.inside
        } else {
            OVERFLOW_ID
        }
    }

    /// A group of the host as the guest sees it.
    pub(super) fn gid(self, host: u32) -> u32 {
        if host == self.gid {
            self.inside
        } else {
            OVERFLOW_ID
        }
    }
}
