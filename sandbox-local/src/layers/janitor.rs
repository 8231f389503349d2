//! One thread per provider that removes directories, and makes a few in advance, so that nothing
//! waits for it that need not.
//!
//! Directories are removed in turns, so that a small one does not wait for a large one.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};
use std::{io, thread};

use sandbox_core::backend::FileLock;

use super::{LEASE, OUTSIDE, State, collect, handed_on, journal};
use crate::walk::{self, Progress};

/// Number of directories that were given to the janitor up to some moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark(u64);

/// Done when the directories given to the janitor in between are gone.
pub(crate) type Removed = tokio::sync::oneshot::Receiver<()>;

/// Pause after a start before directories are made for the next ones: the start itself, and the
/// first command, would have to share the processors.
const PAUSE: Duration = Duration::from_millis(3);

/// Time that one directory is removed before the next has its turn.
const TURN: Duration = Duration::from_millis(20);

enum Job {
    Remove(Doomed),
    Prepare(Weak<State>),
    /// A provider's directory, whose base layer nothing uses any more.
    HandOn(PathBuf),
    Report(Report),
    /// The lease of a directory that stays: given up when the rest is done.
    Release(Option<FileLock>),
}

/// A directory to be removed.
struct Doomed {
    number: u64,
    path: PathBuf,
    /// A provider's own directory: its lease is held until it is gone.
    lease: Option<FileLock>,
}

/// Waiter until the directories with these numbers are gone.
struct Report {
    numbers: Range<u64>,
    done: tokio::sync::oneshot::Sender<()>,
}

/// The sending end. The thread ends when this is dropped and the work is done; if the process ends
/// before, the next start collects the rest.
#[derive(Debug)]
pub(super) struct Janitor {
    // Unbounded, but nearly every job is a directory that exists: the disk bounds it.
    jobs: Sender<Job>,
    given: AtomicU64,
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
            .spawn(move || Worker::new(&queue).work())?;
        Ok(Self {
            jobs,
            given: AtomicU64::new(0),
        })
    }

    pub(super) fn remove(&self, path: PathBuf) {
        self.remove_last(path, None);
    }

    /// Removes a provider's directory, with its lease last.
    pub(super) fn remove_last(&self, path: PathBuf, lease: Option<FileLock>) {
        let number = self.given.fetch_add(1, Ordering::AcqRel);
        // Fails only if the thread has ended; the next start collects then.
        let _ = self.jobs.send(Job::Remove(Doomed {
            number,
            path,
            lease,
        }));
    }

    /// Gives up a lease when everything that was given to the janitor is done.
    pub(super) fn release(&self, lease: Option<FileLock>) {
        let _ = self.jobs.send(Job::Release(lease));
    }

    pub(super) fn mark(&self) -> Mark {
        Mark(self.given.load(Ordering::Acquire))
    }

    pub(super) fn prepare(&self, state: Weak<State>) {
        let _ = self.jobs.send(Job::Prepare(state));
    }

    /// Hands on the base layer in a provider's directory. What of it is given to be removed after that is
    /// not there any more then.
    pub(super) fn hand_on(&self, provider: PathBuf) {
        let _ = self.jobs.send(Job::HandOn(provider));
    }

    pub(super) fn settled(&self, Mark(since): Mark) -> Removed {
        let (done, settled) = tokio::sync::oneshot::channel();
        let Mark(until) = self.mark();
        let numbers = since..until;
        let _ = self.jobs.send(Job::Report(Report { numbers, done }));
        settled
    }
}

/// Work of the thread.
struct Worker<'a> {
    queue: &'a Receiver<Job>,
    doomed: VecDeque<Doomed>,
    reports: Vec<Report>,
    put_off: Option<(Instant, Weak<State>)>,
    /// Held to the end.
    released: Option<FileLock>,
}

impl<'a> Worker<'a> {
    fn new(queue: &'a Receiver<Job>) -> Self {
        Self {
            queue,
            doomed: VecDeque::new(),
            reports: Vec::new(),
            put_off: None,
            released: None,
        }
    }

    fn work(mut self) {
        loop {
            match self.receive() {
                Ok(Job::Remove(doomed)) => self.doomed.push_back(doomed),
                Ok(Job::Prepare(state)) => {
                    self.put_off
                        .get_or_insert_with(|| (Instant::now() + PAUSE, state));
                }
                Ok(Job::HandOn(provider)) => handed_on::hand_on(&provider),
                Ok(Job::Report(report)) => self.reports.push(report),
                Ok(Job::Release(lease)) => self.released = lease,
                Err(RecvTimeoutError::Timeout) => self.turn(),
                Err(RecvTimeoutError::Disconnected) => {
                    while !self.doomed.is_empty() {
                        self.turn();
                    }
                    return;
                }
            }
            self.report();
        }
    }

    /// The next job, for as long as there is nothing else to do.
    fn receive(&self) -> Result<Job, RecvTimeoutError> {
        let now = Instant::now();
        let time = match &self.put_off {
            _ if !self.doomed.is_empty() => Duration::ZERO,
            Some((until, _)) => until.saturating_duration_since(now),
            None => return self.queue.recv().map_err(RecvTimeoutError::from),
        };
        self.queue.recv_timeout(time)
    }

    /// Does a part of what there is to do.
    fn turn(&mut self) {
        let due = |(until, _): &mut (Instant, _)| *until <= Instant::now();
        if let Some((_, state)) = self.put_off.take_if(due)
            // What needs one then meets the error and says it.
            && let Some(Err(error)) = state.upgrade().map(|state| state.make_spares())
        {
            tracing::debug!(%error, "no directories could be made in advance");
        }
        let Some(doomed) = self.doomed.pop_front() else {
            return;
        };
        let last = doomed.lease.as_ref().map(|_| LEASE);
        if last.is_some() && journal::collect(&doomed.path.join(OUTSIDE)).is_err() {
            // The next start tries again.
            return;
        }
        match walk::remove(&doomed.path, last, Some(Instant::now() + TURN)) {
            Ok(Progress::Gone) => {}
            Ok(Progress::Left) => self.doomed.push_back(doomed),
            Err(error) => {
                tracing::warn!(path = %doomed.path.display(), %error, "could not be removed");
            }
        }
    }

    /// Answers what waits for nothing any more.
    fn report(&mut self) {
        let doomed = &self.doomed;
        let is_done = |report: &mut Report| {
            let numbers = &report.numbers;
            !doomed.iter().any(|doomed| numbers.contains(&doomed.number))
        };
        for report in self.reports.extract_if(.., is_done) {
            // It may not be waited for any more.
            let _ = report.done.send(());
        }
    }
}
