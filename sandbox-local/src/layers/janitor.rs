//! One thread per provider that removes directories, and makes a few in advance, so that nobody
//! waits for it who does not want to.

use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};
use std::{io, thread};

use super::{State, collect, remove};

/// Done when the directories given to the janitor before are gone.
pub(crate) type Removed = tokio::sync::oneshot::Receiver<()>;

/// How long after a start directories are made for the next ones: the start itself, and the first
/// command, would have to share the processors.
const PAUSE: Duration = Duration::from_millis(3);

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
    /// Starts the thread, and one that collects what dead providers left in `root` and ends then:
    /// what this provider removes must not wait for what others left.
    pub(super) fn start(root: PathBuf, own: PathBuf) -> io::Result<Self> {
        let (jobs, queue) = channel();
        thread::Builder::new()
            .name("sandbox-collect".into())
            .spawn(move || collect::dead(&root, &own))?;
        thread::Builder::new()
            .name("sandbox-janitor".into())
            .spawn(move || work(&queue))?;
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

/// Does what comes, and in between what was put off.
fn work(queue: &Receiver<Job>) {
    let mut put_off: Option<(Instant, Weak<State>)> = None;
    loop {
        let job = match &put_off {
            Some((until, _)) => queue.recv_timeout(until.saturating_duration_since(Instant::now())),
            None => queue.recv().map_err(RecvTimeoutError::from),
        };
        match job {
            Ok(Job::Remove(path)) => clear(&path),
            Ok(Job::Prepare(state)) => {
                put_off.get_or_insert_with(|| (Instant::now() + PAUSE, state));
            }
            // Who asked may have gone.
            Ok(Job::Report(done)) => drop(done.send(())),
            Err(RecvTimeoutError::Timeout) => {
                let state = put_off.take().and_then(|(_, state)| state.upgrade());
                // Who needs one then meets the error and says it.
                if let Some(Err(error)) = state.map(|state| state.make_spares()) {
                    tracing::debug!(%error, "no directories could be made in advance");
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn clear(path: &Path) {
    if let Err(error) = remove::tree(path) {
        tracing::warn!(path = %path.display(), %error, "could not be removed");
    }
}
