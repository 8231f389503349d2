//! A bound on how many calls are under way.
//!
//! It must never make what frees something wait: `close` and `destroy` pass.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Around, Attempt, Call, Request};
use crate::{
    Error, ErrorKind, Exit, Operation, Process, ProcessControl, Result, Signal, TerminalSize,
};

/// Lets a fixed number of calls be under way at once, over everything that the layer is around: a
/// sandbox with its forks, or a provider with its sandboxes. Further calls wait in the order in
/// which they came. [`close`](crate::Sandbox::close) and [`destroy`](crate::Provider::destroy)
/// never wait.
///
/// A spawned process keeps its place until it was waited for, was killed, or its handle is dropped:
/// a task that holds as many processes as the limit allows must let one go before it makes another
/// call. Dropping a call that waits gives its place in the queue up.
#[derive(Clone, Debug)]
pub struct ConcurrencyLimit {
    places: Arc<Semaphore>,
}

impl ConcurrencyLimit {
    /// Allows this many calls at once; zero is taken as one.
    pub fn new(limit: usize) -> Self {
        let limit = limit.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            places: Arc::new(Semaphore::new(limit)),
        }
    }

    async fn place(&self, operation: Operation) -> Result<OwnedSemaphorePermit> {
        self.places.clone().acquire_owned().await.map_err(|closed| {
            // The semaphore is never closed; if that changes, this says so.
            Error::new(ErrorKind::Other, operation).with_source(closed)
        })
    }
}

impl Around for ConcurrencyLimit {
    async fn around<T: Send>(&self, call: Call<'_>, attempt: Attempt<'_, T>) -> Result<T> {
        if matches!(call.request, Request::Close | Request::Destroy(_)) {
            return attempt().await;
        }
        let place = self.place(call.operation()).await?;
        let result = attempt().await;
        if let (Request::Spawn(_), Ok(_)) = (call.request, &result) {
            // `process` comes next and hands the place on to the process.
            place.forget();
        }
        result
    }

    fn process(&self, _: Call<'_>, process: Process) -> Process {
        let place = Mutex::new(Some(Place(self.places.clone())));
        process.map_control(|inner| Placed { inner, place })
    }
}

/// A place taken over from a finished call; given back when dropped.
#[derive(Debug)]
struct Place(Arc<Semaphore>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}

/// The control of a process that holds a place.
#[derive(Debug)]
struct Placed {
    inner: Box<dyn ProcessControl>,
    place: Mutex<Option<Place>>,
}

impl Placed {
    fn release(&self) {
        self.place
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ProcessControl for Placed {
    async fn wait(&self) -> Result<Exit> {
        let exit = self.inner.wait().await;
        self.release();
        exit
    }

    async fn signal(&self, signal: Signal) -> Result<()> {
        self.inner.signal(signal).await
    }

    async fn kill(&self) -> Result<()> {
        let killed = self.inner.kill().await;
        if killed.is_ok() {
            self.release();
        }
        killed
    }

    async fn resize(&self, size: TerminalSize) -> Result<()> {
        self.inner.resize(size).await
    }
}
