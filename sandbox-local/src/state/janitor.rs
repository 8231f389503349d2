//! One thread per provider that removes directories, and makes a few in advance, so that nobody
//! waits for it who does not want to.

use std::path::PathBuf;
use std::sync::Weak;
use std::sync::mpsc::{Sender, channel};
use std::{io, thread};

use super::{State, collect, remove};

/// Done when the directories given to the janitor before are gone.
pub(crate) type Removed = tokio::sync::oneshot::Receiver<()>;

enum Job {
    Remove(PathBuf),
    Prepare(Weak<State>),
    Report(tokio::sync::oneshot::Sender<()>),
}

/// The sending end. The thread ends when this is dropped and the work is done; if the process ends
/// before, the next start collects the rest.
#[derive(Debug)]
pub(super) struct Janitor {
    // Unbounded, but nearly every job is a directory that exists: the disk bounds it.
    jobs: Sender<Job>,
}

impl Janitor {
    /// Starts the thread; its first work is to collect what dead providers left in `root`.
    pub(super) fn start(root: PathBuf, own: PathBuf) -> io::Result<Self> {
        let (jobs, queue) = channel();
        thread::Builder::new().name("sandbox-janitor".into()).spawn(move || {
            collect::dead(&root, &own);
            for job in queue {
                match job {
                    Job::Remove(path) => {
                        if let Err(error) = remove::tree(&path) {
                            tracing::warn!(path = %path.display(), %error, "could not be removed");
                        }
                    }
                    Job::Prepare(state) => {
                        // Who needs one then meets the error and says it.
                        if let Some(Err(error)) = state.upgrade().map(|state| state.make_spares()) {
                            tracing::debug!(%error, "no directories could be made in advance");
                        }
                    }
                    // Who asked may have gone.
                    Job::Report(done) => drop(done.send(())),
                }
            }
        })?;
        Ok(Self { jobs })
    }

    pub(super) fn remove(&self, path: PathBuf) {
        // Fails only if the thread panicked; the next start collects then.
        let _ = self.jobs.send(Job::Remove(path));
    }

    pub(super) fn prepare(&self, state: Weak<State>) {
        let _ = self.jobs.send(Job::Prepare(state));
    }

    pub(super) fn settled(&self) -> Removed {
        let (done, settled) = tokio::sync::oneshot::channel();
        let _ = self.jobs.send(Job::Report(done));
        settled
    }
}
