//! Places for sessions, and a queue for them that is fair between tenants.
//!
//! Round robin over the tenants that wait and may have another place; first come, first served
//! within a tenant. A place must never be given out twice, nor be lost when a caller goes away.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{oneshot, watch};

use crate::options::Told;
use crate::{Error, Limits, Result, Scope, Tenant, Wait};

#[derive(Debug)]
pub(crate) struct Queue {
    limits: Limits,
    state: Mutex<State>,
    /// Changes whenever a position may have changed.
    moved: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    in_use: usize,
    waiting: usize,
    tenants: HashMap<Tenant, Line>,
    /// Tenants that wait and may have another place, the next one first.
    ring: VecDeque<Tenant>,
    next: u64,
    closed: bool,
}

/// Places that one tenant has and waits for.
#[derive(Debug, Default)]
struct Line {
    in_use: usize,
    waiting: BTreeMap<u64, oneshot::Sender<Place>>,
    in_ring: bool,
}

/// A place for one session; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    queue: Arc<Queue>,
    tenant: Tenant,
}

impl Drop for Place {
    fn drop(&mut self) {
        let granted = {
            let mut state = self.queue.lock();
            state.in_use = state.in_use.saturating_sub(1);
            if let Some(line) = state.tenants.get_mut(&self.tenant) {
                line.in_use = line.in_use.saturating_sub(1);
            }
            self.queue.settle(&mut state, &self.tenant);
            self.queue.grant(&mut state)
        };
        deliver(granted);
    }
}

type Granted = Vec<(oneshot::Sender<Place>, Place)>;

/// Hands places over, outside of the lock: one whose receiver is gone gives itself back.
fn deliver(granted: Granted) {
    for (waiter, place) in granted {
        drop(waiter.send(place));
    }
}

impl Queue {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            state: Mutex::default(),
            moved: watch::channel(()).0,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn total(&self) -> usize {
        self.limits.total.unwrap_or(usize::MAX)
    }

    fn per_tenant(&self) -> usize {
        self.limits.per_tenant.unwrap_or(usize::MAX)
    }

    /// Puts a tenant into the ring or takes it out, as its line says now; forgets an empty line.
    fn settle(&self, state: &mut State, tenant: &Tenant) {
        let Some(line) = state.tenants.get_mut(tenant) else {
            return;
        };
        let eligible = !line.waiting.is_empty() && line.in_use < self.per_tenant();
        if eligible && !line.in_ring {
            line.in_ring = true;
            state.ring.push_back(tenant.clone());
        } else if !eligible && line.in_ring {
            line.in_ring = false;
            state.ring.retain(|other| other != tenant);
        }
        if line.in_use == 0 && line.waiting.is_empty() {
            state.tenants.remove(tenant);
        }
    }

    /// Gives free places to those who are next.
    fn grant(self: &Arc<Self>, state: &mut State) -> Granted {
        let mut granted = Vec::new();
        while state.in_use < self.total() {
            let Some(tenant) = state.ring.pop_front() else {
                break;
            };
            let Some(line) = state.tenants.get_mut(&tenant) else {
                continue;
            };
            line.in_ring = false;
            if let Some((_, waiter)) = line.waiting.pop_first() {
                line.in_use += 1;
                state.in_use += 1;
                state.waiting -= 1;
                let place = Place {
                    queue: self.clone(),
                    tenant: tenant.clone(),
                };
                granted.push((waiter, place));
            }
            self.settle(state, &tenant);
        }
        self.moved.send_replace(());
        granted
    }

    /// A place for a sandbox that exists already, whatever the limits say.
    pub(crate) fn take(self: &Arc<Self>, tenant: &Tenant) -> Place {
        let mut state = self.lock();
        state.in_use += 1;
        state.tenants.entry(tenant.clone()).or_default().in_use += 1;
        self.settle(&mut state, tenant);
        Place {
            queue: self.clone(),
            tenant: tenant.clone(),
        }
    }

    /// Waits for a place, until `late` is. Dropping the future leaves the queue.
    pub(crate) async fn enter(
        self: &Arc<Self>,
        tenant: &Tenant,
        wait: Wait,
        told: Option<&Told>,
        late: impl Future<Output = ()>,
    ) -> Result<Place> {
        let (mut place, waiter) = {
            let (granted, entered) = {
                let mut state = self.lock();
                self.join(&mut state, tenant, wait)?
            };
            deliver(granted);
            entered
        };
        let mut moved = self.moved.subscribe();
        let mut last = None;
        tokio::pin!(late);
        loop {
            tokio::select! {
                biased;
                place = &mut place => return place.map_err(|_| Error::shut_down()),
                () = &mut late => return Err(waiter.full()),
                changed = async {
                    if let Some(told) = told {
                        let position = self.position(tenant, waiter.number);
                        if position.is_some() && position != last {
                            last = position;
                            told(position.unwrap_or_default());
                        }
                        moved.changed().await
                    } else {
                        std::future::pending().await
                    }
                } => if changed.is_err() { return Err(Error::shut_down()) },
            }
        }
    }

    #[allow(clippy::type_complexity)]
    fn join(
        self: &Arc<Self>,
        state: &mut State,
        tenant: &Tenant,
        wait: Wait,
    ) -> Result<(Granted, (oneshot::Receiver<Place>, Waiter))> {
        if state.closed {
            return Err(Error::shut_down());
        }
        let full = self.full(state, tenant);
        if let Some(full) = full {
            if wait == Wait::Never {
                return Err(full);
            }
            if state.waiting >= self.limits.waiting {
                return Err(Error::full_of(Scope::Queue, self.limits.waiting));
            }
        }
        let number = state.next;
        state.next += 1;
        let (sender, place) = oneshot::channel();
        let line = state.tenants.entry(tenant.clone()).or_default();
        line.waiting.insert(number, sender);
        state.waiting += 1;
        self.settle(state, tenant);
        let granted = self.grant(state);
        let waiter = Waiter {
            queue: self.clone(),
            tenant: tenant.clone(),
            number,
        };
        Ok((granted, (place, waiter)))
    }

    /// Why callers of this tenant wait for a place, if some do.
    pub(crate) fn why_waiting(&self, tenant: &Tenant) -> Option<Error> {
        let state = self.lock();
        let waits = |line: &Line| !line.waiting.is_empty();
        match state.tenants.get(tenant).is_some_and(waits) {
            true => self.full(&state, tenant),
            false => None,
        }
    }

    /// Why a caller of this tenant would have to wait now.
    fn full(&self, state: &State, tenant: &Tenant) -> Option<Error> {
        let line = state.tenants.get(tenant);
        if line.is_some_and(|line| line.in_use >= self.per_tenant()) || self.per_tenant() == 0 {
            return Some(Error::full_of(Scope::Tenant, self.per_tenant()));
        }
        // Without a limit in all, a place is there for whom the tenant's limit lets pass.
        (state.in_use >= self.total()).then(|| Error::full_of(Scope::Total, self.total()))
    }

    /// Counts those served before this one, if each place that becomes free goes to who is next.
    fn position(&self, tenant: &Tenant, number: u64) -> Option<usize> {
        let state = self.lock();
        let line = state.tenants.get(tenant)?;
        if !line.waiting.contains_key(&number) {
            return None;
        }
        let own = line.waiting.range(..number).count();
        let mut ahead = own;
        let mut before_mine = true;
        for other in &state.ring {
            if other == tenant {
                before_mine = false;
                continue;
            }
            let waiting = state.tenants.get(other).map_or(0, |l| l.waiting.len());
            ahead += waiting.min(own + usize::from(before_mine));
        }
        Some(ahead)
    }

    /// Lets those who wait fail, and those who come later.
    pub(crate) fn close(&self) {
        let waiting: Vec<_> = {
            let mut state = self.lock();
            state.closed = true;
            state.waiting = 0;
            state.ring.clear();
            let lines = state.tenants.values_mut();
            lines
                .flat_map(|line| {
                    line.in_ring = false;
                    std::mem::take(&mut line.waiting).into_values()
                })
                .collect()
        };
        drop(waiting);
    }

    /// Counts the places that are taken, and the callers that wait.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let state = self.lock();
        (state.in_use, state.waiting)
    }
}

/// An entry in the queue; leaves it when dropped.
struct Waiter {
    queue: Arc<Queue>,
    tenant: Tenant,
    number: u64,
}

impl Waiter {
    fn full(&self) -> Error {
        let state = self.queue.lock();
        self.queue
            .full(&state, &self.tenant)
            .unwrap_or_else(|| Error::full_of(Scope::Total, self.queue.total()))
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        let Some(line) = state.tenants.get_mut(&self.tenant) else {
            return;
        };
        if let Some(sender) = line.waiting.remove(&self.number) {
            state.waiting -= 1;
            self.queue.settle(&mut state, &self.tenant);
            self.queue.moved.send_replace(());
            drop(state);
            drop(sender);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    fn tenant(name: &str) -> Tenant {
        Tenant::new(name).unwrap()
    }

    type Entering<'a> = Pin<Box<dyn Future<Output = Result<Place>> + 'a>>;

    fn poll(entering: &mut Entering<'_>) -> Option<Result<Place>> {
        match entering
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(place) => Some(place),
            Poll::Pending => None,
        }
    }

    /// A caller that waits: polled once.
    fn enter<'a>(queue: &'a Arc<Queue>, name: &'a str) -> Entering<'a> {
        let mut entering: Entering<'a> = Box::pin(async move {
            queue
                .enter(&tenant(name), Wait::Queue, None, pending())
                .await
        });
        assert!(poll(&mut entering).is_none());
        entering
    }

    #[test]
    fn places_go_round_the_tenants_and_in_order_within_one() {
        let queue = Queue::new(Limits::new().total(1));
        let first = queue.take(&tenant("z"));
        let mut waiting: Vec<(&str, Entering<'_>)> = ["a1", "a2", "a3", "b1", "c1", "b2"]
            .into_iter()
            .map(|name| (name, enter(&queue, &name[..1])))
            .collect();
        let mut held = first;
        let mut served = Vec::new();
        while !waiting.is_empty() {
            drop(held);
            let next = waiting
                .iter_mut()
                .enumerate()
                .find_map(|(at, (_, entering))| poll(entering).map(|place| (at, place)));
            let (at, place) = next.unwrap();
            held = place.unwrap();
            served.push(waiting.remove(at).0);
        }
        assert_eq!(served, ["a1", "b1", "c1", "a2", "b2", "a3"]);
        drop(held);
        assert_eq!(queue.counts(), (0, 0));
        assert!(queue.lock().tenants.is_empty());
    }

    #[test]
    fn a_tenant_at_its_limit_does_not_hold_the_others_up() {
        let queue = Queue::new(Limits::new().total(3).per_tenant(1));
        let held = queue.take(&tenant("a"));
        let mut a = enter(&queue, "a");
        let mut b: Entering<'_> = Box::pin(async {
            queue
                .enter(&tenant("b"), Wait::Queue, None, pending())
                .await
        });
        assert!(poll(&mut b).unwrap().is_ok());
        drop(held);
        assert!(poll(&mut a).unwrap().is_ok());
    }

    #[test]
    fn a_dropped_caller_leaves_the_queue_and_a_place_given_to_it_goes_on() {
        let queue = Queue::new(Limits::new().total(1));
        let held = queue.take(&tenant("z"));
        let gone = enter(&queue, "a");
        let granted = enter(&queue, "b");
        let mut last = enter(&queue, "c");
        drop(gone);
        assert_eq!(queue.counts(), (1, 2));
        drop(held);
        // The place lies in the channel of "b", which goes away without having looked.
        drop(granted);
        assert!(poll(&mut last).unwrap().is_ok());
        drop(last);
        assert_eq!(queue.counts(), (0, 0));
    }

    #[test]
    fn a_full_queue_and_a_caller_that_does_not_wait_are_told_the_limit() {
        let queue = Queue::new(Limits::new().total(1).waiting(1));
        let _held = queue.take(&tenant("a"));
        let full = |wait| {
            let mut entering: Entering<'_> =
                Box::pin(async { queue.enter(&tenant("b"), wait, None, pending()).await });
            poll(&mut entering).unwrap().unwrap_err().full().unwrap()
        };
        assert_eq!(
            (full(Wait::Never).scope, full(Wait::Never).limit),
            (Scope::Total, 1)
        );
        let _waits = enter(&queue, "c");
        assert_eq!(
            (full(Wait::Queue).scope, full(Wait::Queue).limit),
            (Scope::Queue, 1)
        );
    }

    #[test]
    fn positions_are_told_and_change() {
        let queue = Queue::new(Limits::new().total(1));
        let held = queue.take(&tenant("z"));
        let _a1 = enter(&queue, "a");
        let _a2 = enter(&queue, "a");
        let said = Arc::new(Mutex::new(Vec::new()));
        let told: Told = {
            let said = said.clone();
            Arc::new(move |position| said.lock().unwrap().push(position))
        };
        let mut b: Entering<'_> = Box::pin(async {
            queue
                .enter(&tenant("b"), Wait::Queue, Some(&told), pending())
                .await
        });
        assert!(poll(&mut b).is_none());
        drop(held);
        assert!(poll(&mut b).is_none());
        // Behind the first of "a", not behind its second; then next.
        assert_eq!(*said.lock().unwrap(), [1, 0]);
    }

    #[tokio::test]
    async fn who_waits_at_most_so_long_is_told_the_limit_then() {
        let (hand, time) = oneshot::channel::<()>();
        let queue = Queue::new(Limits::new().per_tenant(1));
        let _held = queue.take(&tenant("a"));
        let wait = Wait::AtMost(std::time::Duration::from_secs(5));
        let a = tenant("a");
        let late = async { drop(time.await) };
        let mut entering: Entering<'_> = Box::pin(queue.enter(&a, wait, None, late));
        assert!(poll(&mut entering).is_none());
        hand.send(()).unwrap();
        let error = entering.await.unwrap_err();
        assert_eq!(error.full().unwrap().scope, Scope::Tenant);
        assert_eq!(queue.counts(), (1, 0));
    }
}
