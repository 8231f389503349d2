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

use rustix::io::Errno;

use super::agent::end;
use super::error::StartError;
use crate::sys::launch::{CREATE_STEP, Launched};

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
            (Err(error), Some(v2)) => match Refusal::of(&error) {
                Refusal::Unknown => moved(launch(None)?, v2),
                Refusal::Group(errno) => Err(StartError::Groups(errno.into())),
                Refusal::Other => Err(error),
            },
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

/// Reason for which a start in a group of v2 failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// The kernel can't do it (before 5.7), or a filter of the host's does not know the call.
    Unknown,
    /// The group takes no process.
    Group(Errno),
    /// Something that has nothing to do with the group.
    Other,
}

impl Refusal {
    fn of(error: &StartError) -> Self {
        match error {
            StartError::Step { step, errno } if *step == CREATE_STEP => match *errno {
                Errno::NOSYS | Errno::INVAL | Errno::TOOBIG | Errno::PERM => Self::Unknown,
                Errno::BADF | Errno::ACCESS | Errno::BUSY | Errno::OPNOTSUPP | Errno::NODEV => {
                    Self::Group(*errno)
                }
                _ => Self::Other,
            },
            _ => Self::Other,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_kernel_that_lacks_the_call_is_asked_again_without_it() {
        let step = |step, errno| Refusal::of(&StartError::Step { step, errno });
        for errno in [Errno::NOSYS, Errno::INVAL, Errno::TOOBIG, Errno::PERM] {
            assert_eq!(step(CREATE_STEP, errno), Refusal::Unknown, "{errno}");
            assert_eq!(step("execute the agent", errno), Refusal::Other, "{errno}");
        }
        for errno in [Errno::BADF, Errno::ACCESS, Errno::BUSY] {
            assert_eq!(step(CREATE_STEP, errno), Refusal::Group(errno));
        }
        // Processes or namespaces have run out, or memory.
        for errno in [Errno::AGAIN, Errno::NOSPC, Errno::NOMEM] {
            assert_eq!(step(CREATE_STEP, errno), Refusal::Other, "{errno}");
        }
        assert_eq!(Refusal::of(&StartError::NoRuntime), Refusal::Other);
    }
}
