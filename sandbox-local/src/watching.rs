//! The task behind a watch: takes what the kernel has noted, and tells it.
//!
//! Invariant: a watch takes at most a tenth of a processor of the host, whatever the guest does, and
//! ends with its sandbox.

use std::io;
use std::time::{Duration, Instant};

use sandbox_core::backend::WatchSender;
use sandbox_core::{Error, Operation, Result};
use tokio::io::Interest;
use tokio::time::sleep;

use crate::files::Watched;
use crate::sys::watch::watch;

/// Shortest pause after a look, in which events of one path become one.
const PAUSE: Duration = Duration::from_millis(20);

/// A pause is so many times as long as the look before it.
const SHARE: u32 = 9;

/// Longest pause.
const LONGEST: Duration = Duration::from_secs(5);

/// Interval at which it is seen that the sandbox has ended, where no event says so.
const TICK: Duration = Duration::from_secs(1);

/// The sandbox of a watch.
pub(crate) trait Looked: Send + Sync {
    /// Tells what there is, and says whether that was all.
    fn look(&self, watched: Watched) -> impl Future<Output = Result<(Watched, bool)>> + Send;

    /// Why there will be no more, once the sandbox has ended.
    fn end(&self) -> Option<Error>;
}

/// Tells what happens until the watch is dropped, or ends.
pub(crate) async fn carry(watched: Watched, sender: &WatchSender, sandbox: impl Looked) {
    tokio::select! {
        () = sender.dropped() => {}
        error = tell(watched, &sandbox) => sender.fail(sandbox.end().unwrap_or(error)),
    }
}

async fn tell(mut watched: Watched, sandbox: &impl Looked) -> Error {
    let failed = |error: io::Error| Error::from_io(error, Operation::Watch);
    let ready = match watched.ready().and_then(|fd| watch(fd, Interest::READABLE)) {
        Ok(ready) => ready,
        Err(error) => return failed(error),
    };
    loop {
        let ready = tokio::select! {
            ready = ready.readable() => ready,
            () = sleep(TICK) => match sandbox.end() {
                Some(error) => return error,
                None => continue,
            },
        };
        match ready {
            // Before it is read: what comes after that makes it ready again.
            Ok(mut ready) => ready.clear_ready(),
            Err(error) => return failed(error),
        }
        let mut all = false;
        while !all {
            let began = Instant::now();
            (watched, all) = match sandbox.look(watched).await {
                Ok(looked) => looked,
                Err(error) => return error,
            };
            sleep((began.elapsed() * SHARE).clamp(PAUSE, LONGEST)).await;
        }
    }
}
