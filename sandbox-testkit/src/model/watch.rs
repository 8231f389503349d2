//! Watch of a directory of the model: the tree compared with what it was, again and again.
//!
//! It must never hold the sandbox that it watches.

use std::sync::{Arc, Weak};
use std::time::Duration;

use sandbox_core::backend::{WatchSender, watch_channel};
use sandbox_core::{
    Error, ErrorKind, FileEvent, FileWatch, GuestPath, Operation, Result, WatchOptions,
};

use super::changes::top;
use super::core::Core;
use super::process::lock;
use super::tree::{Kind, Node};

const OP: Operation = Operation::Watch;

/// Interval between two looks.
const LOOK: Duration = Duration::from_millis(5);

pub(super) fn watch(
    core: &Arc<Core>,
    given: &GuestPath,
    directory: GuestPath,
    options: &WatchOptions,
) -> Result<FileWatch> {
    let limit = options.directories;
    let given = given.clone();
    let mut before = look(core, &given, &directory, limit)?;
    let core = Arc::downgrade(core);
    let (sender, watch) = watch_channel(options.events);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = sender.dropped() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            match again(&core, &given, &directory, limit) {
                Ok(after) => {
                    differ(&before, &after, &GuestPath::new(Vec::new()), &sender);
                    before = after;
                }
                Err(error) => return sender.fail(error),
            }
        }
    });
    Ok(watch)
}

fn again(
    core: &Weak<Core>,
    given: &GuestPath,
    directory: &GuestPath,
    limit: usize,
) -> Result<Arc<Node>> {
    match core.upgrade() {
        Some(core) => look(&core, given, directory, limit),
        None => Err(Error::new(ErrorKind::Closed, OP).with_message("the sandbox is gone")),
    }
}

/// The directory as it is now.
fn look(core: &Core, given: &GuestPath, directory: &GuestPath, limit: usize) -> Result<Arc<Node>> {
    core.check_open(OP)?;
    let tree = lock(&core.state).tree.clone();
    let top = top(&tree, directory).map_err(|kind| core.error(kind, OP, given))?;
    if directories(&top) > limit {
        return Err(core.error(ErrorKind::LimitExceeded, OP, given));
    }
    Ok(top)
}

fn directories(node: &Node) -> usize {
    match &node.kind {
        Kind::Dir(names) => 1 + names.values().map(|node| directories(node)).sum::<usize>(),
        _ => 0,
    }
}

/// Tells what differs between two directories.
fn differ(before: &Arc<Node>, after: &Arc<Node>, path: &GuestPath, sender: &WatchSender) {
    if Arc::ptr_eq(before, after) {
        return;
    }
    let (Kind::Dir(old), Kind::Dir(new)) = (&before.kind, &after.kind) else {
        return;
    };
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        sender.send(FileEvent::Removed(path.join(name.as_slice())));
    }
    for (name, node) in new {
        let path = path.join(name.as_slice());
        match old.get(name) {
            None => tell(node, &path, sender),
            Some(was) if Arc::ptr_eq(was, node) => {}
            Some(was) if was.is_dir() && node.is_dir() => {
                if was.mode != node.mode {
                    sender.send(FileEvent::Modified(path.clone()));
                }
                differ(was, node, &path, sender);
            }
            Some(was) if was.is_dir() || node.is_dir() => tell(node, &path, sender),
            Some(_) => sender.send(FileEvent::Modified(path)),
        }
    }
}

/// Tells an entry that is new, with all that is below it.
fn tell(node: &Node, path: &GuestPath, sender: &WatchSender) {
    sender.send(FileEvent::Created(path.clone()));
    if let Kind::Dir(names) = &node.kind {
        for (name, node) in names {
            tell(node, &path.join(name.as_slice()), sender);
        }
    }
}
