//! Holding everything in a sandbox still but its init, by the freezer of cgroup v2.
//!
//! Init has to go on: it ends everything when the host is gone. So the others are moved into a
//! group below the sandbox's own, and that one is frozen. They stay there when they go on, under the
//! same limits; what init starts afterwards is moved the next time. The freezer of v1 is not used:
//! what it froze does not die when it is killed, so it would outlive its host.
//! Must never say that everything stands still without the kernel having said so.
//!
//! References: Documentation/admin-guide/cgroup-v2.rst, "cgroup.freeze" and "cgroup.events".

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::Cgroup;
use super::place::Version;
use crate::layers::group;

/// Time that everything gets to come to rest.
const PATIENCE: Duration = Duration::from_secs(3);

/// Pause between two looks.
const AGAIN: Duration = Duration::from_millis(1);

/// Everything in a sandbox but its init stands still. It goes on when this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    /// The sandbox's group.
    group: PathBuf,
    /// The one below it, that is frozen.
    inner: PathBuf,
    init: u32,
}

impl Cgroup {
    /// Freezes everything in the sandbox but `init`. The caller keeps init from starting anything.
    /// Blocks, for three seconds at most.
    ///
    /// `Ok(None)` if the sandbox has no group of v2, or the kernel no freezer (before 5.2).
    ///
    /// # Errors
    /// Something did not come to rest in time, or the group can't be used.
    pub(crate) fn freeze(&self, init: u32) -> io::Result<Option<Held>> {
        let is_v2 = |dir: &&super::Dir| dir.version == Version::V2;
        let Some(group) = self.dirs.iter().find(is_v2) else {
            return Ok(None);
        };
        Held::new(&group.path, init)
    }
}

impl Held {
    fn new(group: &Path, init: u32) -> io::Result<Option<Self>> {
        let inner = group::inner(group);
        match fs::create_dir(&inner) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        if !inner.join("cgroup.freeze").exists() {
            return Ok(None);
        }
        let held = Self {
            group: group.to_owned(),
            inner,
            init,
        };
        held.switch("1")?;
        let deadline = Instant::now() + PATIENCE;
        // What is moved is frozen by that. One that was not might make others meanwhile.
        while !(held.move_all()? && held.is_frozen()?) {
            if Instant::now() >= deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            thread::sleep(AGAIN);
        }
        Ok(Some(held))
    }

    /// Whether everything has stood still since the beginning.
    pub(crate) fn lasts(&self) -> bool {
        // Init's own, of which there can't be any: it was kept from starting one.
        let alone = || self.move_all();
        alone().is_ok_and(|alone| alone) && self.is_frozen().is_ok_and(|frozen| frozen)
    }

    /// Moves what is in the sandbox's own group. Says whether there was nothing but init.
    fn move_all(&self) -> io::Result<bool> {
        let list = fs::read_to_string(self.group.join("cgroup.procs"))?;
        let init = self.init.to_string();
        let mut alone = true;
        for pid in list.lines().filter(|pid| *pid != init) {
            alone = false;
            match fs::write(self.inner.join("cgroup.procs"), pid) {
                // It has ended.
                Err(error) if Errno::from_io_error(&error) == Some(Errno::SRCH) => {}
                moved => moved?,
            }
        }
        Ok(alone)
    }

    /// Whether the kernel says that all in the inner group stand still.
    fn is_frozen(&self) -> io::Result<bool> {
        let events = fs::read_to_string(self.inner.join("cgroup.events"))?;
        Ok(events.lines().any(|line| line == "frozen 1"))
    }

    fn switch(&self, value: &str) -> io::Result<()> {
        fs::write(self.inner.join("cgroup.freeze"), value)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Err(error) = self.switch("0") {
            // The sandbox, and its groups, are gone.
            tracing::debug!(group = %self.inner.display(), %error, "not thawed");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use rustix::process::{Pid, Signal, kill_process};

    use super::*;
    use crate::layers::group::remove;

    /// Longer than only a hang.
    const LONG: Duration = Duration::from_secs(120);

    /// Clock ticks of processor time in the user's code.
    fn ticks(of: &Child) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", of.id())).unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        fields.split_whitespace().nth(11).unwrap().parse().unwrap()
    }

    fn until(what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + LONG;
        while !holds() {
            assert!(Instant::now() < deadline, "{what}");
            thread::sleep(AGAIN);
        }
    }

    /// A group of v2, where it is mounted and this user may make one.
    fn group() -> Option<PathBuf> {
        let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
        let mount = mounts
            .into_iter()
            .find(|mount| mount.join("cgroup.controllers").exists())?;
        let group = mount.join(format!("sandbox-freezer-{}", std::process::id()));
        match fs::create_dir(&group).map_err(|error| error.kind()) {
            Ok(()) => Some(group),
            Err(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => None,
            Err(kind) => panic!("{}: {kind}", group.display()),
        }
    }

    fn process(group: &Path, script: &str) -> Child {
        let child = Command::new("sh").args(["-c", script]).spawn().unwrap();
        fs::write(group.join("cgroup.procs"), child.id().to_string()).unwrap();
        child
    }

    #[test]
    fn everything_but_init_is_held_whatever_signals_come_and_goes_on() {
        let Some(group) = group() else {
            return;
        };
        let mut init = process(&group, "while :; do :; done");
        let mut guest = process(&group, "while :; do :; done");
        let held = Held::new(&group, init.id()).unwrap().unwrap();
        let before = (ticks(&init), ticks(&guest));
        kill_process(Pid::from_child(&guest), Signal::STOP).unwrap();
        kill_process(Pid::from_child(&guest), Signal::CONT).unwrap();
        // The control: time goes by in which it could run.
        until("init runs", || ticks(&init) > before.0 + 10);
        assert_eq!(ticks(&guest), before.1);
        assert!(held.lasts());
        // Started by an init that was not held back.
        let mut late = process(&group, "while :; do :; done");
        assert!(!held.lasts());
        // What is killed dies all the same.
        late.kill().unwrap();
        late.wait().unwrap();
        drop(held);
        until("it goes on", || ticks(&guest) > before.1 + 1);
        // Again, where it is now.
        drop(Held::new(&group, init.id()).unwrap().unwrap());
        for child in [&mut init, &mut guest] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        until("the group is removed", || remove(&group).is_ok());
        assert!(!group.exists());
    }
}
