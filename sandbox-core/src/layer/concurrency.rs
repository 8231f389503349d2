//! A bound on how many calls are under way.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Around, Attempt, Call};
use crate::{Error, ErrorKind, Exit, Operation, Process, ProcessControl, Result, Signal};

/// Lets at most so many calls be under way at once, over a sandbox and all its forks; further ones
/// wait in the order in which they came. [`close`](crate::Sandbox::close) never waits.
///
/// A spawned process keeps its place until its handle is dropped or it was waited for.
#[derive(Clone, Debug)]
pub struct ConcurrencyLimit {
    places: Arc<Semaphore>,
}

impl ConcurrencyLimit {
    /// At most this many at once; zero is taken as one.
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
        let place = match call.operation {
            Operation::Close => None,
            operation => Some(self.place(operation).await?),
        };
        let result = attempt().await;
        if let (Operation::Spawn, Ok(_), Some(place)) = (call.operation, &result, place) {
            // `process` comes next and hands the place on to the process.
            place.forget();
        }
        result
    }

    fn process(&self, process: Process) -> Process {
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

#[derive(Debug)]
struct Placed {
    inner: Box<dyn ProcessControl>,
    place: Mutex<Option<Place>>,
}

#[async_trait]
impl ProcessControl for Placed {
    async fn wait(&self) -> Result<Exit> {
        let exit = self.inner.wait().await;
        self.place
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        exit
    }

    async fn signal(&self, signal: Signal) -> Result<()> {
        self.inner.signal(signal).await
    }

    async fn kill(&self) -> Result<()> {
        self.inner.kill().await
    }
}
