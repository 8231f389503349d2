//! Starts an agent in its control groups.
//!
//! Moving a process into a group makes the kernel wait for all processors to pass a point of rest,
//! which takes longer than all the rest of a start. One that is born there costs next to nothing:
//! in v2 the kernel starts it in a group (`CLONE_INTO_CGROUP`), in v1 it is born in the groups of
//! the thread that starts it, and a thread may put itself into a group without that wait. So it is
//! a thread of its own, which ends after that: no other thread of the host is ever in a group of a
//! guest, and none has to be brought back.
//!
//! References: clone(2), cgroups(7), Documentation/admin-guide/cgroup-v1/cgroups.rst.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::thread;

use super::agent::end;
use super::error::StartError;
use crate::sys::launch::Launched;

/// Control groups, by their directories.
#[derive(Clone, Debug, Default)]
pub(crate) struct BornIn {
    /// At most one of each v1 hierarchy.
    pub(crate) v1: Vec<PathBuf>,
    /// The one of the v2 hierarchy.
    pub(crate) v2: Option<PathBuf>,
}

impl BornIn {
    /// Starts a process in them: `launch` is given the group of v2, and may be called on another
    /// thread.
    pub(super) fn launch(
        &self,
        launch: impl Fn(Option<BorrowedFd<'_>>) -> Result<Launched, StartError> + Sync,
    ) -> Result<Launched, StartError> {
        let v2 = self.v2.as_ref().map(File::open).transpose();
        let v2 = v2.map_err(StartError::Groups)?;
        let group = v2.as_ref().map(AsFd::as_fd);
        let in_v2 = || match (launch(group), &self.v2) {
            // The kernel is older than 5.7, or a filter does not know the call.
            (Err(_), Some(v2)) => moved(launch(None)?, v2),
            (launched, _) => launched,
        };
        if self.v1.is_empty() {
            return in_v2();
        }
        let in_v1 = || {
            self.enter().map_err(StartError::Groups)?;
            in_v2()
        };
        thread::scope(|scope| {
            let starter = thread::Builder::new()
                .name("sandbox-start".into())
                .spawn_scoped(scope, in_v1)
                .map_err(StartError::Groups)?;
            let ended = || StartError::Groups(io::Error::other("the thread that starts it died"));
            starter.join().unwrap_or_else(|_| Err(ended()))
        })
    }

    /// Puts this thread into the groups of v1.
    fn enter(&self) -> io::Result<()> {
        // Zero stands for the thread that writes it.
        let mut groups = self.v1.iter();
        groups.try_for_each(|group| fs::write(group.join("tasks"), "0"))
    }
}

/// Moves a process that was born elsewhere into a group of v2.
fn moved(launched: Launched, group: &Path) -> Result<Launched, StartError> {
    let moved = fs::write(group.join("cgroup.procs"), launched.pid.to_string());
    if let Err(error) = moved {
        end(launched.pidfd.as_fd());
        return Err(StartError::Groups(error));
    }
    Ok(launched)
}
