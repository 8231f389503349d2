//! A watch behind a server: its events are followed as a process's output, and merged here.
//!
//! Invariant: what was taken together at the server is taken together here, and none is lost without
//! a word: a watch that can't be followed ends. It does not keep its sandbox alive.

use std::sync::Arc;

use sandbox_core::backend::{WatchSender, watch_channel};
use sandbox_core::{
    Error, ErrorKind, FileEvent, FileWatch, GuestPath, Operation, Result, WatchOptions,
};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

use super::call::Call;
use super::process::Remote;
use super::state::SandboxState;
use super::stream::Following;
use crate::wire;

/// Longest event, in bytes.
const LINE: u64 = 1 << 20;

/// Watches a directory.
pub(super) async fn watch(
    sandbox: &Arc<SandboxState>,
    path: &GuestPath,
    options: WatchOptions,
) -> Result<FileWatch> {
    let route = sandbox.path("watch");
    let call = Call::named(Operation::Watch, &route);
    // From here on the watch is let go of whenever this is dropped.
    let remote = Remote::of(&sandbox.http, &call);
    let (sender, watch) = watch_channel(options.events);
    let body = wire::Watch {
        path: path.clone(),
        options,
    };
    let wire::Nothing {} = sandbox.call(call, &body).await?;
    let events = Following::whole(&sandbox.http, &remote.name);
    let id = sandbox.id.clone();
    tokio::spawn(async move {
        let _remote = remote;
        tokio::select! {
            () = sender.dropped() => {}
            error = tell(events, &sender) => {
                let error = error.with_operation(Operation::Watch);
                sender.fail(match error.sandbox() {
                    Some(_) => error,
                    None => error.with_sandbox(id),
                });
            }
        }
    });
    Ok(watch)
}

/// Tells events until there are no more, and says why.
async fn tell(events: Following, sender: &WatchSender) -> Error {
    let lost = |why: &str| Error::new(ErrorKind::Lost, Operation::Watch).with_message(why);
    let mut events = BufReader::new(events);
    let mut line = Vec::new();
    let mut held = None;
    loop {
        line.clear();
        let mut longest = (&mut events).take(LINE);
        if let Err(error) = longest.read_until(b'\n', &mut line).await {
            return error.downcast::<Error>().unwrap_or_else(|error| {
                let why = "the server can't be asked any more what has changed";
                Error::new(ErrorKind::Unavailable, Operation::Watch)
                    .with_message(why)
                    .with_source(error)
            });
        }
        match line.strip_suffix(b"\n") {
            Some([]) => held = None,
            Some(event) => match serde_json::from_slice::<FileEvent>(event) {
                Ok(event) => {
                    held.get_or_insert_with(|| sender.hold());
                    sender.send(event);
                }
                Err(_) => return lost("the server told of an event that is not understood"),
            },
            None => return lost("the server's events ended"),
        }
    }
}
