//! The state machine of a sandbox: what it is now, and what becomes of it by itself.
//!
//! Nothing here resumes a sandbox without a request. Only what clients do with a sandbox
//! keeps it awake; what runs in it does not.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::options::AutoDeleteFrom;
use super::reply::Reply;
use super::state::{Guest, State, not_running};

/// State of a sandbox over time.
#[derive(Debug, Default)]
pub(super) struct Life {
    /// When a client last did something with it, by the clock.
    used: Duration,
    /// Number of clients' commands that are under way.
    busy: usize,
    /// When it was suspended, if it is.
    suspended: Option<Duration>,
    /// Next state, and the time of it.
    turn: Option<(Duration, &'static str)>,
}

/// A command of a client that is under way; dropping it is its end.
#[derive(Debug)]
pub(super) struct Busy {
    state: Arc<State>,
    guest: Arc<Guest>,
}

impl Drop for Busy {
    fn drop(&mut self) {
        let now = self.state.clock.now();
        let mut life = self.guest.life();
        life.busy = life.busy.saturating_sub(1);
        life.used = now;
    }
}

impl Guest {
    pub(super) fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters `through` for so long, and then `to`.
    pub(super) fn turn(&self, now: Duration, through: &str, time: Duration, to: &'static str) {
        let shown = match time.is_zero() {
            true => to,
            false => through,
        };
        self.document()["state"] = json!(shown);
        let mut life = self.life();
        life.used = now;
        life.suspended = (to == "Stopped").then(|| now.saturating_add(time));
        life.turn = (!time.is_zero()).then(|| (now.saturating_add(time), to));
    }

    /// Current state.
    pub(super) fn state(&self, state: &State) -> String {
        self.settle(state);
        let document = self.document();
        document["state"].as_str().unwrap_or_default().to_owned()
    }

    /// Refuses what needs a running sandbox, and counts as use of one; nothing is resumed by
    /// itself.
    pub(super) fn running(&self, state: &State) -> Result<(), Reply> {
        if self.state(state) != "Running" {
            return Err(not_running());
        }
        self.life().used = state.clock.now();
        Ok(())
    }

    /// Counts a command as busy for as long as it is under way.
    pub(super) fn busy(self: &Arc<Self>, state: &Arc<State>) -> Result<Busy, Reply> {
        self.running(state)?;
        self.life().busy += 1;
        Ok(Busy {
            state: Arc::clone(state),
            guest: Arc::clone(self),
        })
    }

    /// Brings its state up to date; says whether it is to be deleted.
    fn settle(&self, state: &State) -> bool {
        let now = state.clock.now();
        let (used, busy, due) = {
            let mut life = self.life();
            let due = life.turn.filter(|(at, _)| now >= *at);
            // What is to be gone stays so until it is: a request may see it before the sweep does.
            if due.is_some_and(|(_, to)| to != "Gone") {
                life.turn = None;
            }
            (life.used, life.busy, due)
        };
        let mut document = self.document();
        match due {
            Some((_, "Gone")) => return true,
            Some((_, to)) => document["state"] = json!(to),
            None => {}
        }
        if busy > 0 {
            return false;
        }
        let lifecycle = &document["lifecycle"];
        let suspend = after(&lifecycle["autoSuspendPolicy"], "interval");
        let delete = after(&lifecycle["autoDeletePolicy"], "deleteIntervalInSeconds");
        let from = match lifecycle["autoDeletePolicy"]["trigger"].as_str() {
            Some("AfterSuspend") => AutoDeleteFrom::Suspend,
            Some("AfterCreation") => AutoDeleteFrom::Creation,
            _ => state.options().auto_delete_from,
        };
        let due = suspend.map(|after| used.saturating_add(after));
        if document["state"] == "Running" && due.is_some_and(|due| now >= due) {
            document["state"] = json!("Stopped");
            document["stateDetails"] =
                json!({"stoppedReason": "Idle", "stoppedAt": state.clock.timestamp()});
            self.life().suspended = due;
        }
        let since = match from {
            AutoDeleteFrom::Suspend => self.life().suspended,
            AutoDeleteFrom::Creation => Some(self.since),
            AutoDeleteFrom::Use => Some(used),
        };
        if let (Some(since), Some(after)) = (since, delete) {
            return now >= since.saturating_add(after);
        }
        false
    }
}

/// After which time a policy takes effect, if it is on.
fn after(policy: &Value, key: &str) -> Option<Duration> {
    let on = policy["enabled"] == true;
    let seconds = policy[key].as_u64().filter(|_| on)?;
    Some(Duration::from_secs(seconds))
}

impl State {
    /// Brings every sandbox up to date and ends those whose time has come.
    pub(super) async fn sweep(&self) {
        let guests: Vec<Arc<Guest>> = self.store().guests.values().cloned().collect();
        for guest in guests {
            if guest.settle(self) {
                self.forget(&guest.id).await;
            }
        }
    }
}
