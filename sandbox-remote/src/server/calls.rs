//! The calls that run or ran: a call that comes a second time is found, not run again.
//!
//! Invariant: what a call started ends when its client has given it up or has not asked for it in
//! the grace; a name is never used for two runs.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sandbox_core::{Error, ErrorKind, Operation};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::lease::Lease;
use super::reply::Reply;

/// For how long the name of a call is remembered after its end; a client asks again for a small
/// part of it.
const REMEMBERED: Duration = Duration::from_secs(300);

/// Most names that are remembered.
const NAMES: usize = 100_000;

/// Most bytes of answers that are kept for clients that may ask again.
const KEPT: usize = 128 << 20;

/// Action on the result of a call that its client never got: close a sandbox, end a process.
pub(super) type Undo = Box<dyn FnOnce() + Send>;

/// A call that runs or has run.
pub(super) struct Call {
    pub(super) operation: Operation,
    answer: watch::Sender<Option<Reply>>,
    undo: Mutex<Option<Undo>>,
    abort: Mutex<Option<AbortHandle>>,
    lease: Lease,
    ended: Mutex<Option<Instant>>,
    /// Refused again when it comes a second time, as its answer is not kept.
    spent: bool,
}

impl AsRef<Lease> for Arc<Call> {
    fn as_ref(&self) -> &Lease {
        &self.lease
    }
}

impl Call {
    fn new(operation: Operation) -> Self {
        Self {
            operation,
            answer: watch::Sender::new(None),
            undo: Mutex::default(),
            abort: Mutex::default(),
            lease: Lease::default(),
            ended: Mutex::default(),
            spent: false,
        }
    }

    /// Waits for the answer, for no longer than this.
    pub(super) async fn wait(self: &Arc<Self>, time: Duration) -> Option<Reply> {
        let _held = Lease::hold(Arc::clone(self));
        let mut answer = self.answer.subscribe();
        let answered = tokio::time::timeout(time, answer.wait_for(Option::is_some)).await;
        // The sender is this call's own.
        answered.ok()?.ok()?.clone()
    }

    /// Gives the answer, once. What comes after the first is undone.
    fn answer(&self, reply: Reply, mut undo: Option<Undo>) -> bool {
        let mut first = false;
        self.answer.send_if_modified(|answer| {
            if answer.is_none() {
                *lock(&self.undo) = undo.take();
                *lock(&self.ended) = Some(Instant::now());
                *answer = Some(reply);
                first = true;
            }
            first
        });
        if let Some(undo) = undo {
            undo();
        }
        first
    }

    /// Ends it, and undoes what it did if its client never got the answer.
    fn give_up(&self) {
        let error = Error::new(ErrorKind::Other, self.operation)
            .with_message("the call was given up, by its client or at the server's end");
        if self.answer(Reply::error(error), None) {
            if let Some(abort) = lock(&self.abort).take() {
                abort.abort();
            }
            return;
        }
        let undo = lock(&self.undo).take();
        if let Some(undo) = undo {
            undo();
        }
    }
}

/// Answers for a call whose task ends without an answer: it panicked.
struct Answers(Arc<Call>);

impl Drop for Answers {
    fn drop(&mut self) {
        let error = Error::new(ErrorKind::Other, self.0.operation)
            .with_message("the call ended early: a fault of the server");
        self.0.answer(Reply::error(error), None);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All calls by their names.
#[derive(Default)]
pub(super) struct Calls(Mutex<Table>);

#[derive(Default)]
struct Table {
    calls: HashMap<String, Arc<Call>>,
    /// In the order in which they were made.
    order: VecDeque<String>,
    /// Tasks of the calls that run. One that is given up ends where it waits next, and not before.
    tasks: JoinSet<()>,
    /// Whether the server ends: no call is started any more.
    over: bool,
}

impl Calls {
    /// Finds a call by its name, or makes it; says whether it is new, and so to be started.
    pub(super) fn enter(&self, name: &str, operation: Operation) -> (Arc<Call>, bool) {
        let mut table = lock(&self.0);
        if let Some(call) = table.calls.get(name) {
            return (Arc::clone(call), false);
        }
        let call = Arc::new(Call::new(operation));
        table.add(name, Arc::clone(&call));
        let over = table.over;
        drop(table);
        if over {
            call.give_up();
        }
        (call, !over)
    }

    /// Gives up every call that has not ended, and those that still come. When it returns, nothing
    /// runs for a call any more, so that none brings a sandbox or a process later.
    pub(super) async fn end(&self) {
        let (calls, mut tasks) = {
            let mut table = lock(&self.0);
            table.over = true;
            let running = table.calls.values();
            let running = running.filter(|call| lock(&call.ended).is_none());
            let running: Vec<Arc<Call>> = running.cloned().collect();
            (running, std::mem::take(&mut table.tasks))
        };
        for call in calls {
            call.give_up();
        }
        while tasks.join_next().await.is_some() {}
    }

    /// The call of this name.
    pub(super) fn get(&self, name: &str) -> Option<Arc<Call>> {
        lock(&self.0).calls.get(name).cloned()
    }

    /// Runs what a new call is for.
    pub(super) fn start(
        &self,
        call: &Arc<Call>,
        work: impl Future<Output = (Reply, Option<Undo>)> + Send + 'static,
    ) {
        let task = {
            let mut table = lock(&self.0);
            // Given up already, with every other.
            if table.over {
                return;
            }
            while table.tasks.try_join_next().is_some() {}
            let answers = Answers(Arc::clone(call));
            table.tasks.spawn(async move {
                let (reply, undo) = work.await;
                answers.0.answer(reply, undo);
            })
        };
        *lock(&call.abort) = Some(task.clone());
        let ended = lock(&call.ended).is_some();
        // Given up before there was a task to end.
        if ended {
            task.abort();
        }
    }

    /// Gives a call up, also one that has not come yet.
    pub(super) fn give_up(&self, name: &str) {
        let call = {
            let mut table = lock(&self.0);
            match table.calls.get(name) {
                Some(call) => Arc::clone(call),
                None => {
                    let call = Arc::new(Call::new(Operation::Connect));
                    table.add(name, Arc::clone(&call));
                    call
                }
            }
        };
        call.give_up();
    }

    /// Ends calls whose clients have gone, and forgets what is old.
    pub(super) fn tidy(&self, grace: Duration) {
        let mut gone = Vec::new();
        {
            let mut table = lock(&self.0);
            table.calls.retain(|_, call| {
                let ended = *lock(&call.ended);
                if ended.is_none() && call.lease.is_over(grace) {
                    gone.push(Arc::clone(call));
                }
                ended.is_none_or(|ended| ended.elapsed() < REMEMBERED)
            });
            let Table { calls, order, .. } = &mut *table;
            order.retain(|name| calls.contains_key(name));
            while calls.len() > NAMES {
                let Some(oldest) = order.pop_front() else {
                    break;
                };
                let ended = calls
                    .get(&oldest)
                    .is_some_and(|call| lock(&call.ended).is_some());
                match ended {
                    true => drop(calls.remove(&oldest)),
                    false => break,
                }
            }
            let mut kept = 0_usize;
            for name in order.iter().rev() {
                let Some(call) = calls.get_mut(name) else {
                    continue;
                };
                let size = call.answer.borrow().as_ref().map_or(0, |r| r.body.len());
                kept = kept.saturating_add(size);
                if kept > KEPT && size > 4096 && !call.spent {
                    *call = Arc::new(spent(call.operation));
                    kept -= size;
                }
            }
        }
        for call in gone {
            tracing::debug!(operation = %call.operation, "a call was ended: its client is gone");
            call.give_up();
        }
    }
}

/// Stands for a call that ran and whose answer is no longer kept.
fn spent(operation: Operation) -> Call {
    let mut error = Error::new(ErrorKind::Other, operation)
        .with_message("the call ran, and its answer is no longer kept");
    if matches!(
        operation,
        Operation::Exec | Operation::Spawn | Operation::StartJob
    ) {
        error = error.with_execution(sandbox_core::Execution::Unknown);
    }
    let mut call = Call::new(operation);
    call.answer(Reply::error(error), None);
    call.spent = true;
    call
}

impl Table {
    fn add(&mut self, name: &str, call: Arc<Call>) {
        self.order.push_back(name.to_owned());
        self.calls.insert(name.to_owned(), call);
    }
}
