//! Watch of a guest's tree: each directory of it, by descriptor.
//!
//! Invariant: a directory is watched that a walk has opened with the guest's rights. What an event
//! names is only told, and looked at again from the top, no link followed. The number of directories
//! is bounded; what can't be kept up with is a rescan, never silence.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::inotify::{ReadFlags, WatchFlags};
use rustix::io::Errno;
use sandbox_core::backend::WatchSender;
use sandbox_core::{Error, ErrorKind, FileEvent, GuestPath, Operation, Result};

use super::GuestRoot;
use super::inotify::{Arrived, Share};
use super::place::Place;
use super::resolve::{DIR_PATH, DIR_READ, open_beneath};
use super::stat::{Stat, find_at};
use super::walk::{Found, Visitor, walk};
use super::write::STAGED;
use crate::walk::Cancel;

const OP: Operation = Operation::Watch;

/// The longest path of a directory, in bytes, as in the kernel: each is kept, and each event has one.
const PATH: usize = 4096;

/// Number of tries to go through a tree that changes meanwhile.
const TRIES: usize = 5;

/// With `IN_MASK_ADD`: without it the kernel clears the mask of a directory that is watched already
/// before it sets it, and loses what happens in between (seen: 3 to 27 of 300,000 creations).
const WANTED: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::EXCL_UNLINK)
    .union(WatchFlags::MASK_ADD);

/// A tree of the guest that is watched.
#[derive(Debug)]
pub(crate) struct Watched {
    share: Share,
    path: GuestPath,
    limit: usize,
    /// Time that the noting of what the last look told took, about.
    noted_in: Duration,
    /// Number of the top directory.
    top: i32,
    /// Paths of the directories, relative to the top, by number.
    places: HashMap<i32, Vec<u8>>,
    /// Numbers of the directories.
    numbers: BTreeMap<Vec<u8>, i32>,
}

impl GuestRoot {
    /// Begins to watch a directory with all that is below it.
    pub(crate) fn watch(&self, path: &GuestPath, limit: usize, cancel: &Cancel) -> Result<Watched> {
        let place = Place::guest(OP, path).bounded(self.limits, cancel.clone());
        // With the host's rights, which the thread of the instance keeps.
        let share = Share::new().map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::MFILE | Errno::NFILE) => place
                .error(
                    ErrorKind::LimitExceeded,
                    b"",
                    "the host's user can have no inotify instance more, or the host process no \
                     more descriptors",
                )
                .with_hint("end other programs' watches, or raise fs.inotify.max_user_instances")
                .with_source(error),
            _ => Error::from_io(error, OP),
        })?;
        let mut watched = Watched {
            share,
            path: path.clone(),
            limit,
            noted_in: Duration::ZERO,
            top: -1,
            places: HashMap::new(),
            numbers: BTreeMap::new(),
        };
        let _guest = self.as_guest(OP)?;
        watched.build(self, &place)?;
        Ok(watched)
    }

    /// Tells what has happened since the last look.
    ///
    /// # Errors
    /// Those with which the watch ends.
    pub(crate) fn look(
        &self,
        watched: &mut Watched,
        sender: &WatchSender,
        cancel: &Cancel,
    ) -> Result<()> {
        let place = Place::guest(OP, &watched.path).bounded(self.limits, cancel.clone());
        let _guest = self.as_guest(OP)?;
        let top = self.top(&watched.path, &place)?;
        // What was seen by one look is told together: paths are not in the order of the events.
        let _together = sender.hold();
        let events = watched.read();
        let number = watched.share.add(&top, WANTED);
        let number = number.map_err(|errno| watched.refused(&place, errno, b""))?;
        // Another one has its name since a fork: its filesystem was put together anew.
        if events.lost || number != watched.top {
            watched.build(self, &place)?;
            sender.send(FileEvent::Rescan);
            return Ok(());
        }
        if events.top_gone {
            return Err(place.error(
                ErrorKind::NotFound,
                b"",
                "the watched directory was removed or renamed",
            ));
        }
        for path in events.modified {
            sender.send(FileEvent::Modified(path.into()));
        }
        for path in events.dirty {
            match watched.settle(&top, &path, sender, &place) {
                // It changed while it was gone through.
                Err(error) if error.kind() == ErrorKind::Busy => {
                    watched.build(self, &place)?;
                    sender.send(FileEvent::Rescan);
                    break;
                }
                settled => settled?,
            }
        }
        Ok(())
    }

    fn top(&self, path: &GuestPath, place: &Place) -> Result<OwnedFd> {
        self.open(path, DIR_READ).map_err(place.failed())
    }
}

/// Events of a look, with those of one path merged.
#[derive(Default)]
struct Events {
    modified: BTreeSet<Vec<u8>>,
    /// Paths at which something appeared or is gone.
    dirty: BTreeSet<Vec<u8>>,
    top_gone: bool,
    /// Whether events are missing.
    lost: bool,
}

impl Watched {
    /// Waits until something has happened.
    pub(crate) async fn ready(&self) {
        self.share.ready().await;
    }

    /// Time that the noting of what the last look told took, about.
    pub(crate) fn noted_in(&self) -> Duration {
        self.noted_in
    }

    /// Watches the tree as it is now, and nothing else.
    fn build(&mut self, root: &GuestRoot, place: &Place) -> Result<()> {
        let mut tries = 0;
        loop {
            self.forget_tree(b"");
            let top = root.top(&self.path, place)?;
            match self.add_tree(&top, b"", None, place) {
                Err(error) if error.kind() == ErrorKind::Busy && tries < TRIES => tries += 1,
                Err(error) => return Err(error),
                Ok(()) => {
                    self.top = self.numbers.get(&b""[..]).copied().unwrap_or(-1);
                    return Ok(());
                }
            }
        }
    }

    fn read(&mut self) -> Events {
        let arrived = self.share.take();
        self.noted_in = arrived.cost();
        let Arrived {
            events: noted,
            ignored,
            lost,
            ..
        } = arrived;
        let mut events = Events {
            lost,
            ..Events::default()
        };
        for ((number, name), what) in noted {
            if what.contains(ReadFlags::UNMOUNT) {
                events.lost = true;
            }
            if what.intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF) {
                events.top_gone |= number == self.top;
            }
            let Some(dir) = self.places.get(&number).filter(|_| !name.is_empty()) else {
                continue;
            };
            if is_staged(&name) {
                continue;
            }
            let path = join(dir, &name);
            if what.intersects(
                ReadFlags::CREATE | ReadFlags::DELETE | ReadFlags::MOVED_FROM | ReadFlags::MOVED_TO,
            ) {
                events.dirty.insert(path.clone());
            }
            if !what.intersects(ReadFlags::MODIFY | ReadFlags::ATTRIB) {
                continue;
            }
            // A directory that could not be read may be readable by now.
            let opened_up = what.contains(ReadFlags::ISDIR) && !self.numbers.contains_key(&path);
            if opened_up {
                events.dirty.insert(path.clone());
            }
            events.modified.insert(path);
        }
        // After all events that name one of them.
        for number in ignored {
            if let Some(path) = self.places.remove(&number) {
                self.numbers.remove(&path);
            }
        }
        events
    }

    /// Tells what is at a path where something appeared or is gone, and watches what is there now.
    fn settle(
        &mut self,
        top: &OwnedFd,
        path: &[u8],
        sender: &WatchSender,
        place: &Place,
    ) -> Result<()> {
        let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&b""[..], path),
        };
        let found = open_beneath(top, parent, DIR_PATH).and_then(|parent| find_at(parent, name));
        match found {
            Ok(Some(stat)) => {
                sender.send(FileEvent::Created(path.into()));
                if stat.is_dir() {
                    self.add_tree(top, path, Some(sender), place)?;
                } else {
                    self.forget_tree(path);
                }
            }
            Ok(None) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                sender.send(FileEvent::Removed(path.into()));
                self.forget_tree(path);
            }
            // What is above it may not be searched any more.
            Err(_) => sender.send(FileEvent::Rescan),
        }
        Ok(())
    }

    /// Watches a directory with all that is below it, and tells what is there.
    fn add_tree(
        &mut self,
        top: &OwnedFd,
        path: &[u8],
        tell: Option<&WatchSender>,
        place: &Place,
    ) -> Result<()> {
        let dir = match open_beneath(top, path, DIR_READ) {
            Ok(dir) => dir,
            // Another event tells it.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS) => return Ok(()),
            Err(errno) => return Err(place.fail(errno, path)),
        };
        let mut adding = Adding {
            watched: self,
            base: path,
            tell,
            place,
        };
        walk(&dir, place, &mut adding)
    }

    fn add(&mut self, dir: BorrowedFd<'_>, path: Vec<u8>, place: &Place) -> Result<()> {
        if path.len() > PATH {
            return Err(place
                .error(
                    ErrorKind::LimitExceeded,
                    b"",
                    format!("a directory to watch has a path of more than {PATH} bytes"),
                )
                .with_hint("watch a directory further down"));
        }
        if !self.numbers.contains_key(&path) && self.numbers.len() >= self.limit {
            let limit = self.limit;
            return Err(place
                .error(
                    ErrorKind::LimitExceeded,
                    b"",
                    format!("more than the limit of {limit} directories to watch"),
                )
                .with_hint("raise the limit, or watch a directory further down"));
        }
        let number = self.share.add(dir, WANTED);
        let number = number.map_err(|errno| self.refused(place, errno, &path))?;
        // It was somewhere else a moment ago.
        if let Some(before) = self.places.insert(number, path.clone())
            && before != path
        {
            self.numbers.remove(&before);
        }
        if let Some(before) = self.numbers.insert(path, number)
            && before != number
        {
            self.stop(before);
        }
        Ok(())
    }

    fn refused(&self, place: &Place, errno: Errno, path: &[u8]) -> Error {
        match errno {
            Errno::NOSPC => place
                .error(
                    ErrorKind::LimitExceeded,
                    b"",
                    "the host's user can watch no more directories",
                )
                .with_hint(
                    "end other watches, watch a directory further down, or raise \
                     fs.inotify.max_user_watches",
                )
                .with_source(std::io::Error::from(errno)),
            errno => place.fail(errno, path),
        }
    }

    /// Watches a directory and what is below it no more.
    fn forget_tree(&mut self, path: &[u8]) {
        let below = match path {
            b"" => Vec::new(),
            path => [path, b"/"].concat(),
        };
        let from = Bound::Included(below.clone());
        let mut gone: Vec<Vec<u8>> = self
            .numbers
            .range((from, Bound::Unbounded))
            .take_while(|(path, _)| path.starts_with(&below))
            .map(|(path, _)| path.clone())
            .collect();
        gone.push(path.to_vec());
        for path in gone {
            if let Some(number) = self.numbers.remove(&path) {
                self.stop(number);
            }
        }
    }

    fn stop(&mut self, number: i32) {
        self.places.remove(&number);
        self.share.stop(number);
    }
}

struct Adding<'a> {
    watched: &'a mut Watched,
    base: &'a [u8],
    tell: Option<&'a WatchSender>,
    place: &'a Place,
}

impl Visitor for Adding<'_> {
    fn entry(&mut self, found: &Found<'_>) -> Result<bool> {
        if is_staged(found.name.to_bytes()) {
            return Ok(false);
        }
        if let Some(sender) = self.tell {
            sender.send(FileEvent::Created(join(self.base, found.path).into()));
        }
        Ok(true)
    }

    fn enter(&mut self, dir: BorrowedFd<'_>, path: &[u8], _: &Stat) -> Result<()> {
        self.watched.add(dir, join(self.base, path), self.place)
    }

    fn unreadable(&mut self, _: &[u8], _: Error) -> Result<()> {
        Ok(())
    }
}

/// Whether it is a name of the host's own, for a batch that is not in place yet.
fn is_staged(name: &[u8]) -> bool {
    name.starts_with(STAGED)
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    match (dir, name) {
        (b"", path) | (path, b"") => path.to_vec(),
        (dir, name) => [dir, b"/", name].concat(),
    }
}
