//! Turns: of calls that change the same thing, one at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::OwnedMutexGuard;

type Lock = tokio::sync::Mutex<()>;

/// Turns at the standard input of jobs, by sandbox and key, and at making a sandbox, without a key.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<(String, String), Weak<Lock>>>);

impl Turns {
    /// Waits for the turn at a job, or with an empty key at the sandbox. Dropping the future gives it up.
    pub(crate) async fn at(&self, sandbox: &str, job: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            map.retain(|_, lock| lock.strong_count() > 0);
            let name = (sandbox.to_owned(), job.to_owned());
            let kept = map.get(&name).and_then(Weak::upgrade);
            kept.unwrap_or_else(|| {
                let lock = Arc::new(Lock::new(()));
                map.insert(name, Arc::downgrade(&lock));
                lock
            })
        };
        lock.lock_owned().await
    }
}
