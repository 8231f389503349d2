//! An agent in namespaces of its own that waits for its plan: all that is costly about a start and
//! does not depend on what is started. Dropping one must never leave a process behind.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::agent::{Agent, poll_readable};
use super::born::BornIn;
use super::error::StartError;
use super::{image, wire};
use crate::mutation::{self, Part};
use crate::sys::holder::Holder;
use crate::sys::launch::{EXEC_STEP, LaunchError, Launched, launch};

/// User that the sandbox is on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunAs {
    /// The caller's effective user and group: all that an ordinary user can do.
    Own,
    /// Others, which takes the rights to say so. The plan must still change to
    /// the guest's user and group.
    Mapped {
        /// User on the host.
        uid: u32,
        /// Group on the host.
        gid: u32,
    },
}

/// Whether the other end has said nothing and has not hung up.
pub(super) fn is_silent(socket: &OwnedFd) -> bool {
    poll_readable(socket.as_fd(), Duration::ZERO) == Ok(false)
}

/// Attaches the step's name to an errno.
pub(super) fn at<E: Into<Errno>>(step: &'static str) -> impl FnOnce(E) -> StartError {
    move |error| StartError::Step {
        step,
        errno: error.into(),
    }
}

impl From<LaunchError> for StartError {
    fn from(error: LaunchError) -> Self {
        Self::Step {
            step: error.step,
            errno: error.errno,
        }
    }
}

/// An agent in namespaces of its own that waits for its plan. All that is costly about a
/// start and does not depend on what is started.
pub(crate) struct Blank {
    // Before the agent, which is waited for when it is dropped and ends with this.
    pub(super) socket: OwnedFd,
    pub(super) agent: Agent,
    pub(super) pid: u32,
    loopback_is_up: bool,
}

impl Blank {
    /// Starts one.
    pub(super) fn new(isolate_network: bool) -> Result<Self, StartError> {
        Self::launch(control_pair()?, namespaces(isolate_network), None)
    }

    /// Starts one in the network namespace that this thread is in, whose loopback interface is up.
    pub(super) fn here(born_in: Option<&BornIn>) -> Result<Self, StartError> {
        let blank = Self::launch(control_pair()?, namespaces(false), born_in)?;
        Ok(Self {
            loopback_is_up: true,
            ..blank
        })
    }

    pub(super) fn launch(
        (socket, agent_end): (OwnedFd, OwnedFd),
        namespaces: libc::c_int,
        born_in: Option<&BornIn>,
    ) -> Result<Self, StartError> {
        let launched = match born_in {
            Some(groups) => groups.launch(|v2| launch_agent(&agent_end, namespaces, v2))?,
            None => launch_agent(&agent_end, namespaces, None)?,
        };
        let pid = launched.pid;
        let agent = Agent::new(launched);
        Ok(Self {
            socket,
            agent,
            pid,
            loopback_is_up: false,
        })
    }

    pub(super) fn loopback_is_up(&self) -> bool {
        self.loopback_is_up
    }

    /// Whether it waits still, and was not killed from outside.
    pub(crate) fn waits(&self) -> bool {
        is_silent(&self.socket)
    }
}

pub(super) fn control_pair() -> Result<(OwnedFd, OwnedFd), StartError> {
    wire::control_pair().map_err(at("create the control socket"))
}

pub(super) fn namespaces(network: bool) -> libc::c_int {
    let always = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    let always = if mutation::is_off(Part::Ipc) {
        always & !libc::CLONE_NEWIPC
    } else {
        always
    };
    if network {
        always | libc::CLONE_NEWNET
    } else {
        always
    }
}

fn launch_agent(
    agent_end: &OwnedFd,
    namespaces: libc::c_int,
    group: Option<BorrowedFd<'_>>,
) -> Result<Launched, StartError> {
    let refused = match image::in_memory() {
        Ok(image) => match launch(image, agent_end.as_fd(), namespaces, group) {
            Err(error)
                if error.step == EXEC_STEP
                    && matches!(error.errno, Errno::ACCESS | Errno::PERM) =>
            {
                error.into()
            }
            result => return Ok(result?),
        },
        Err(errno) => StartError::Step {
            step: "create the agent's image",
            errno,
        },
    };
    // A policy against executable memory (vm.memfd_noexec, an LSM): use a file.
    let Ok(image) = image::on_disk() else {
        return Err(refused);
    };
    Ok(launch(image, agent_end.as_fd(), namespaces, group)?)
}

/// Gives the agent's namespace its one user and group, with this number inside.
pub(super) fn map_user(pid: u32, run_as: RunAs, guest_id: u32) -> Result<(), StartError> {
    let (uid, gid) = match run_as {
        RunAs::Own => {
            tell(pid, "setgroups", "give up setgroups", "deny".to_owned())?;
            let uid = rustix::process::geteuid().as_raw();
            (uid, rustix::process::getegid().as_raw())
        }
        RunAs::Mapped { uid, gid } => (uid, gid),
    };
    map(pid, (guest_id, uid), (guest_id, gid))?;
    // By the host: only its rights make this the least that a guest can go back to. Refused where
    // the host itself is to go even earlier, and then that is what the sandbox has.
    let _ = tell(
        pid,
        "oom_score_adj",
        "set the memory score",
        OOM_SCORE.to_owned(),
    );
    Ok(())
}

/// If memory runs out the kernel ends sandboxes before the application.
const OOM_SCORE: &str = "500";

/// Maps one user and one group, each from the inside to the outside.
fn map(pid: u32, user: (u32, u32), group: (u32, u32)) -> Result<(), StartError> {
    tell(
        pid,
        "uid_map",
        "map the user",
        format!("{} {} 1\n", user.0, user.1),
    )?;
    tell(
        pid,
        "gid_map",
        "map the group",
        format!("{} {} 1\n", group.0, group.1),
    )
}

fn tell(pid: u32, name: &str, step: &'static str, text: String) -> Result<(), StartError> {
    // One write: the kernel takes a map at once or not at all.
    std::fs::OpenOptions::new()
        .write(true)
        .open(format!("/proc/{pid}/{name}"))
        .and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()))
        .map_err(|error| StartError::Step {
            step,
            errno: Errno::from_io_error(&error).unwrap_or(Errno::IO),
        })
}

/// A user namespace without a process, for a mount whose owners are translated by its maps: from
/// the owner on disk to the owner that the kernel shall see.
///
/// The kernel makes no namespace without a process: one that does nothing holds it open for as long
/// as it takes to get a descriptor.
pub(crate) fn idmap_namespace(user: (u32, u32), group: (u32, u32)) -> Result<OwnedFd, StartError> {
    // Reaped at the end; until then its number is its own.
    let holder = Holder::new().map_err(at("create a user namespace"))?;
    map(holder.pid, user, group)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let path = format!("/proc/{}/ns/user", holder.pid);
    rustix::fs::open(path, flags, Mode::empty()).map_err(at("open the user namespace"))
}
