//! A watch with one fault.
//!
//! It must never hold back what its fault does not concern.

use sandbox_core::backend::watch_channel;
use sandbox_core::{Error, FileEvent, FileWatch};

/// The watch, with those events that this keeps.
pub(super) fn only(
    watch: FileWatch,
    keeps: impl Fn(&FileEvent) -> bool + Send + 'static,
) -> FileWatch {
    changed(watch, keeps, |error| error)
}

/// The watch, with this instead of its end.
pub(super) fn ending(watch: FileWatch, end: impl Fn(Error) -> Error + Send + 'static) -> FileWatch {
    changed(watch, |_| true, end)
}

fn changed(
    mut watch: FileWatch,
    keeps: impl Fn(&FileEvent) -> bool + Send + 'static,
    end: impl Fn(Error) -> Error + Send + 'static,
) -> FileWatch {
    let (sender, changed) = watch_channel(usize::MAX);
    tokio::spawn(async move {
        loop {
            let told = tokio::select! {
                () = sender.dropped() => return,
                told = watch.next() => told,
            };
            match told {
                Ok(events) => events
                    .into_iter()
                    .filter(&keeps)
                    .for_each(|event| sender.send(event)),
                Err(error) => return sender.fail(end(error)),
            }
        }
    });
    changed
}
