//! Peers that are programs: how each is called, and the work in terms of that.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::peer::{Peer, Place, Work};
use crate::support::measure::timed;
use crate::support::{Outcome, host};

const TRUE: &[&str] = &["/bin/true"];

/// Workspace that the sandbox writes to.
#[derive(Clone, Debug)]
pub(crate) enum Workspace {
    /// Nothing of the host's.
    None,
    /// A directory of the host, at [`Call::workspace`].
    Dir(PathBuf),
    /// A directory of the host, read; what is written goes elsewhere.
    Over(PathBuf),
}

/// Calls of a peer's program.
pub(crate) trait Call {
    /// The program's name.
    fn program(&self) -> &'static str;

    /// A sandbox that runs this and is gone when it has ended.
    fn fresh(&self, place: &Place, workspace: &Workspace, argv: &[&str]) -> Outcome<Command>;

    /// Path at which the workspace is seen.
    fn workspace(&self, dir: &Path) -> PathBuf {
        let _ = dir;
        PathBuf::from("/workspace")
    }

    /// Whether it can put a layer over a directory by itself.
    fn layers(&self) -> bool {
        false
    }

    /// Whether it can run a command in a running sandbox.
    fn enters(&self) -> bool {
        false
    }

    /// Starts a sandbox that stays; only if it [`enters`](Call::enters).
    fn start(&self, place: &Place, workspace: &Workspace) -> Outcome<Running> {
        let _ = (place, workspace);
        Err("it has no running sandboxes".into())
    }

    /// Way in which the second sandbox with the same files is made, for a reader of the table.
    fn fork_by(&self) -> &'static str {
        if self.layers() {
            "its own overlay"
        } else {
            "`cp -a`"
        }
    }
}

/// A sandbox that stays until it is stopped.
pub(crate) struct Running {
    /// The program and the arguments that run a command in it; the command comes behind.
    pub(crate) inside: Vec<String>,
    /// Arguments that end it.
    pub(crate) stop: Vec<String>,
    /// The process that waits for it, if there is one.
    pub(crate) child: Option<Child>,
}

impl Running {
    pub(crate) fn inside(&self, argv: &[&str]) -> Command {
        command(&self.inside, argv)
    }

    pub(crate) fn stop(mut self) -> Outcome<()> {
        host::run(&mut command(&self.stop, &[]))?;
        if let Some(child) = &mut self.child {
            child.wait()?;
        }
        Ok(())
    }
}

pub(crate) fn command(words: &[String], more: &[&str]) -> Command {
    let mut words = words.iter();
    let mut command = Command::new(words.next().map_or("", String::as_str));
    command.args(words).args(more);
    command
}

/// A program as a peer.
pub(crate) struct Program<C: Call> {
    call: C,
    version: String,
    place: Rc<Place>,
    running: Option<Running>,
}

impl<C: Call> Program<C> {
    pub(crate) fn new(call: C, version: String, place: Rc<Place>) -> Self {
        Self {
            call,
            version,
            place,
            running: None,
        }
    }

    fn running(&mut self) -> Outcome<&Running> {
        let running = match self.running.take() {
            Some(running) => running,
            None => self.call.start(&self.place, &Workspace::None)?,
        };
        Ok(self.running.insert(running))
    }

    fn whole(&self) -> Outcome<Duration> {
        let mut command = self.call.fresh(&self.place, &Workspace::None, TRUE)?;
        timed(|| host::run(&mut command))
    }

    fn hundred(&self) -> Outcome<Duration> {
        timed(|| {
            if !self.call.enters() {
                for _ in 0..self.place.hundred() {
                    self.whole()?;
                }
                return Ok(());
            }
            let running = self.call.start(&self.place, &Workspace::None)?;
            for _ in 0..self.place.hundred() {
                host::run(&mut running.inside(TRUE))?;
            }
            running.stop()
        })
    }

    fn fork(&self) -> Outcome<Duration> {
        let tree = self.place.tree();
        fs::write(tree.join("changed"), "x")?;
        let copy = self.place.fresh("copy");
        let time = timed(|| {
            let workspace = if self.call.layers() {
                Workspace::Over(tree)
            } else {
                host::run(Command::new("cp").arg("-a").arg(&tree).arg(&copy))?;
                Workspace::Dir(copy.clone())
            };
            host::run(&mut self.call.fresh(&self.place, &workspace, TRUE)?)
        })?;
        if copy.exists() {
            fs::remove_dir_all(copy)?;
        }
        Ok(time)
    }

    /// An archive on standard input of `tar` inside: in a running sandbox where it has one,
    /// otherwise in one that is created for it.
    fn files(&self) -> Outcome<Duration> {
        let dir = self.place.fresh("files");
        fs::create_dir(&dir)?;
        let at = self.call.workspace(&dir).to_string_lossy().into_owned();
        let argv = ["/bin/tar", "-xf", "-", "--no-same-owner", "-C", &at];
        let workspace = Workspace::Dir(dir.clone());
        let running = match self.call.enters() {
            true => Some(self.call.start(&self.place, &workspace)?),
            false => None,
        };
        let mut command = match &running {
            Some(running) => running.inside(&argv),
            None => self.call.fresh(&self.place, &workspace, &argv)?,
        };
        command.stdin(File::open(self.place.archive())?);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let started = Instant::now();
        let output = command.output()?;
        let time = started.elapsed();
        if let Some(running) = running {
            running.stop()?;
        }
        let last = (self.place.files.saturating_sub(1) / 100).to_string();
        let all_there = dir.join(last).is_dir();
        fs::remove_dir_all(dir)?;
        if !output.status.success() || !all_there {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("the files did not arrive: {said}").into());
        }
        Ok(time)
    }
}

impl<C: Call> Peer for Program<C> {
    fn name(&self) -> String {
        format!("{} {}", self.call.program(), self.version)
    }

    fn note(&self) -> String {
        let stays = match self.call.enters() {
            true => "runs commands in a running sandbox",
            false => "a sandbox for each command",
        };
        format!(
            "{stays}; files by `tar` inside; same files by {}",
            self.call.fork_by()
        )
    }

    fn offers(&self, work: Work) -> bool {
        work != Work::Exec || self.call.enters()
    }

    fn round(&mut self, work: Work) -> Outcome<Duration> {
        match work {
            Work::True => self.whole(),
            Work::Exec => self
                .running()
                .and_then(|running| timed(|| host::run(&mut running.inside(TRUE)))),
            Work::Hundred => self.hundred(),
            Work::Fork => self.fork(),
            Work::Files => self.files(),
        }
    }

    fn probe(&mut self, script: &str) -> Outcome<String> {
        let argv = ["/bin/sh", "-c", script];
        let mut command = self.call.fresh(&self.place, &Workspace::None, &argv)?;
        host::run(&mut command)
    }

    fn finish(&mut self) {
        if let Some(running) = self.running.take() {
            // What could not be stopped ends with its root directory; the figures are taken.
            let _ = running.stop();
        }
    }
}
