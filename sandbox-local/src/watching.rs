//! The task behind a watch: takes what the kernel has noted, and tells it.
//!
//! Invariant: a watch takes at most a tenth of a processor of the host, whatever the guest does, and
//! ends with its sandbox.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sandbox_core::backend::{WatchSender, watch_channel};
use sandbox_core::{Error, FileWatch, GuestPath, Operation, Result, WatchOptions};
use tokio::time::sleep;

use crate::file_operations::FileOperations;
use crate::files::Watched;

/// Shortest pause after a look, in which events of one path become one.
const PAUSE: Duration = Duration::from_millis(20);

/// A pause is so many times as long as the look before it, and the noting of what it told.
const SHARE: u32 = 9;

/// Longest pause.
const LONGEST: Duration = Duration::from_secs(5);

/// Interval at which it is seen that the sandbox has ended, where no event says so.
const TICK: Duration = Duration::from_secs(1);

/// The sandbox of a watch.
pub(crate) trait Looked: Send + Sync {
    /// Tells what there is.
    fn look(&self, watched: Watched) -> impl Future<Output = Result<Watched>> + Send;

    /// Why there will be no more, once the sandbox has ended.
    fn end(&self) -> Option<Error>;
}

/// Watches a directory; the task behind it looks through what `sandbox` makes of the sender.
pub(crate) async fn start<W: Looked + 'static>(
    files: &impl FileOperations,
    path: GuestPath,
    options: WatchOptions,
    sandbox: impl FnOnce(Arc<WatchSender>) -> W + Send,
) -> Result<FileWatch> {
    let watched = files.on_files_until(Operation::Watch, move |root, cancel| {
        root.watch(&path, options.directories, &cancel)
    });
    let watched = watched.await?;
    let (sender, watch) = watch_channel(options.events);
    let sender = Arc::new(sender);
    let sandbox = sandbox(sender.clone());
    tokio::spawn(async move { carry(watched, &sender, sandbox).await });
    Ok(watch)
}

/// Tells what happens until the watch is dropped, or ends.
async fn carry(watched: Watched, sender: &WatchSender, sandbox: impl Looked) {
    tokio::select! {
        () = sender.dropped() => {}
        error = tell(watched, &sandbox) => sender.fail(sandbox.end().unwrap_or(error)),
    }
}

async fn tell(mut watched: Watched, sandbox: &impl Looked) -> Error {
    loop {
        tokio::select! {
            () = watched.ready() => {}
            () = sleep(TICK) => match sandbox.end() {
                Some(error) => return error,
                None => continue,
            },
        }
        let began = Instant::now();
        watched = match sandbox.look(watched).await {
            Ok(looked) => looked,
            Err(error) => return error,
        };
        let took = began.elapsed() + watched.noted_in();
        sleep((took * SHARE).clamp(PAUSE, LONGEST)).await;
    }
}
