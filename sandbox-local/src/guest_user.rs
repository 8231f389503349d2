//! User that a guest runs as, seen from the host.
//!
//! An ordinary user's guests run as that user, kept apart by namespaces. Each of root's sandboxes
//! runs as a user that nothing else on the host runs as: whatever escapes has no rights, and limits
//! for a user hold and are not shared (the kernel does not apply them to root).

use std::io;
use std::os::unix::fs::{MetadataExt as _, lchown};
use std::path::Path;

use crate::engine;

/// An unprivileged kernel user and group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GuestUser {
    /// The kernel's user id.
    pub(crate) uid: u32,
    /// The kernel's group id.
    pub(crate) gid: u32,
}

/// Above systemd's container range and every range that distributions hand out.
const FIRST: u32 = 1_900_000_000;
const SPAN: u32 = 1 << 27;

impl GuestUser {
    /// For root, a random user, to which a provider's files belong; for an ordinary user, none.
    pub(crate) fn for_this_host() -> io::Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let mut bytes = [0u8; 4];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
        let id = FIRST + u32::from_ne_bytes(bytes) % SPAN;
        Ok(Some(Self { uid: id, gid: id }))
    }

    /// The user to which a directory of a provider belongs, as root.
    ///
    /// # Errors
    /// It is no user that such a directory is given to.
    pub(crate) fn owner_of(dir: &Path) -> io::Result<Self> {
        let found = std::fs::symlink_metadata(dir)?;
        let (uid, gid) = (found.uid(), found.gid());
        if !(FIRST..FIRST + SPAN).contains(&uid) || gid != uid {
            let message = format!("it belongs to user {uid}, which is none of a sandbox");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
        Ok(Self { uid, gid })
    }

    /// The user that comes so many after this one, in the same group.
    pub(crate) const fn following(self, many: u32) -> Self {
        let place = (self.uid - FIRST).wrapping_add(many) % SPAN;
        Self {
            uid: FIRST + place,
            ..self
        }
    }

    /// The user that the engine starts agents as.
    pub(crate) fn run_as(guest_user: Option<Self>) -> engine::RunAs {
        match guest_user {
            Some(Self { uid, gid }) => engine::RunAs::Mapped { uid, gid },
            None => engine::RunAs::Own,
        }
    }

    /// Gives a file, directory or link to this user.
    pub(crate) fn own(self, path: &Path) -> io::Result<()> {
        lchown(path, Some(self.uid), Some(self.gid))
    }
}
