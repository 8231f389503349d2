//! The jobs that a server started, until a while after their sandbox was closed, so that a log can be
//! read to its end.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sandbox_core::{Job, JobKey};

/// The jobs that were started here, by the sandbox and the key.
#[derive(Default)]
pub(super) struct Jobs(Mutex<HashMap<(String, JobKey), Started>>);

struct Started {
    job: Job,
    /// Since when its sandbox is known to be closed.
    closed: Option<Instant>,
}

impl Jobs {
    fn lock(&self) -> MutexGuard<'_, HashMap<(String, JobKey), Started>> {
        // Every change is a single call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a job, and says whether it was not kept yet.
    pub(super) fn insert(&self, sandbox: &str, job: &Job) -> bool {
        let started = Started {
            job: job.clone(),
            closed: None,
        };
        let name = (sandbox.to_owned(), job.key().clone());
        self.lock().insert(name, started).is_none()
    }

    pub(super) fn get(&self, sandbox: &str, key: &JobKey) -> Option<Job> {
        let jobs = self.lock();
        let found = jobs.get(&(sandbox.to_owned(), key.clone()));
        found.map(|started| started.job.clone())
    }

    pub(super) fn remove(&self, sandbox: &str, key: &JobKey) {
        let removed = self.lock().remove(&(sandbox.to_owned(), key.clone()));
        drop(removed);
    }

    /// Lets go of those whose sandbox was closed longer ago than the grace.
    pub(super) fn tidy(&self, grace: Duration, is_open: impl Fn(&str) -> bool) {
        let mut over = Vec::new();
        let mut jobs = self.lock();
        for ((sandbox, key), started) in jobs.iter_mut() {
            if is_open(sandbox) {
                continue;
            }
            let closed = started.closed.get_or_insert_with(Instant::now);
            if closed.elapsed() > grace {
                over.push((sandbox.clone(), key.clone()));
            }
        }
        let over: Vec<_> = over.iter().map(|name| jobs.remove(name)).collect();
        drop(jobs);
        // The last handle of a sandbox may be among them.
        drop(over);
    }
}
