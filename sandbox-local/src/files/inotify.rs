//! The one inotify instance of this process, and what of its events is each watch's.
//!
//! The kernel counts instances for each user of the host, whose other programs share them (128 by
//! default), so that all watches of a process have one together. A thread takes what the kernel has
//! noted, and waits for no watch: each has a bounded inbox, and one that is full is watched no more
//! until it was looked at.
//!
//! Invariant: what a watch is not told is said to be lost, and a watch's end ends nothing of another.

use std::collections::{HashMap, HashSet};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::{Errno, Result as Sys};
use tokio::sync::Notify;

use crate::walk::watch_dir;

/// Number of events that wait for a watch to be looked at.
const MOST: usize = 16 << 10;

/// Cost of an event that is taken off the kernel, about.
const COST: Duration = Duration::from_micros(1);

/// Pauses of the thread, in which the kernel makes one event of several that are the same.
const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(10));

static CURRENT: Mutex<Weak<Instance>> = Mutex::new(Weak::new());

/// A watch's share in the instance. Dropping it ends what only this watch needed.
#[derive(Debug)]
pub(super) struct Share {
    instance: Arc<Instance>,
    number: u64,
    inbox: Arc<Inbox>,
}

/// Events that wait for one watch.
#[derive(Debug, Default)]
struct Inbox {
    arrived: Mutex<Arrived>,
    ready: Notify,
}

/// Events that have arrived since the last look.
#[derive(Debug, Default)]
pub(super) struct Arrived {
    /// Events at names in directories, by the number of the directory.
    pub(super) events: HashMap<(i32, Vec<u8>), ReadFlags>,
    /// Numbers that are of no directory any more.
    pub(super) ignored: Vec<i32>,
    /// Whether events are missing.
    pub(super) lost: bool,
    /// Number of events before those of one name were merged.
    count: u32,
}

impl Arrived {
    /// Time that the thread spent on it, about.
    pub(super) fn cost(&self) -> Duration {
        COST * self.count
    }
}

#[derive(Debug)]
struct Instance {
    inotify: Arc<OwnedFd>,
    /// Tells the thread that there is no watch any more.
    end: Arc<OwnedFd>,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    watches: HashMap<u64, (Arc<Inbox>, HashSet<i32>)>,
    /// Numbers of the watches that a directory is watched for.
    users: HashMap<i32, Vec<u64>>,
}

impl Share {
    /// A share in the instance of this process, which begins with the first.
    pub(super) fn new() -> io::Result<Self> {
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        let instance = match current.upgrade() {
            Some(instance) => instance,
            None => {
                let instance = Arc::new(Instance::new()?);
                instance.carry()?;
                *current = Arc::downgrade(&instance);
                instance
            }
        };
        Ok(Self::of(instance))
    }

    fn of(instance: Arc<Instance>) -> Self {
        let inbox = Arc::new(Inbox::default());
        let mut table = instance.table();
        table.next += 1;
        let number = table.next;
        let entry = (Arc::clone(&inbox), HashSet::new());
        table.watches.insert(number, entry);
        drop(table);
        Self {
            instance,
            number,
            inbox,
        }
    }

    /// Watches a directory, if it is not watched yet. Gives the number of the directory.
    pub(super) fn add(&self, dir: impl AsFd, flags: WatchFlags) -> Sys<i32> {
        // Held until it is noted whose it is: its first events wait meanwhile.
        let mut table = self.instance.table();
        let number = watch_dir(&self.instance.inotify, dir, flags)?;
        let users = table.users.entry(number).or_default();
        if !users.contains(&self.number) {
            users.push(self.number);
        }
        if let Some((_, numbers)) = table.watches.get_mut(&self.number) {
            numbers.insert(number);
        }
        Ok(number)
    }

    /// Watches a directory no more.
    pub(super) fn stop(&self, number: i32) {
        let mut table = self.instance.table();
        table.leave(self.number, number, &self.instance.inotify);
    }

    /// Takes what has arrived.
    pub(super) fn take(&self) -> Arrived {
        std::mem::take(&mut *self.inbox.arrived())
    }

    /// Waits until something has arrived since this was last called.
    pub(super) async fn ready(&self) {
        self.inbox.ready.notified().await;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let left = self.instance.table().watches.remove(&self.number);
        for number in left.into_iter().flat_map(|(_, numbers)| numbers) {
            // The table is free in between for what is told to others.
            self.stop(number);
        }
    }
}

impl Inbox {
    fn arrived(&self) -> MutexGuard<'_, Arrived> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lose(&self) {
        let mut arrived = self.arrived();
        arrived.events.clear();
        arrived.lost = true;
        drop(arrived);
        self.ready.notify_one();
    }

    /// Whether there was room for it.
    fn put(&self, number: i32, what: ReadFlags, name: &[u8]) -> bool {
        let mut arrived = self.arrived();
        arrived.count = arrived.count.saturating_add(1);
        if what.contains(ReadFlags::IGNORED) {
            arrived.ignored.push(number);
        } else if arrived.lost || arrived.count as usize > MOST {
            drop(arrived);
            self.lose();
            return false;
        } else {
            let noted = arrived.events.entry((number, name.to_vec()));
            *noted.or_insert(ReadFlags::empty()) |= what;
        }
        drop(arrived);
        self.ready.notify_one();
        true
    }
}

impl Table {
    /// Ends the watch of a directory for one of its users.
    fn leave(&mut self, user: u64, number: i32, inotify: &OwnedFd) {
        if let Some((_, numbers)) = self.watches.get_mut(&user) {
            numbers.remove(&number);
        }
        let Some(users) = self.users.get_mut(&number) else {
            return;
        };
        users.retain(|other| *other != user);
        if users.is_empty() {
            self.users.remove(&number);
            // It ends by itself when the directory is gone.
            let _ = inotify::remove_watch(inotify, number);
        }
    }

    fn tell(&mut self, event: &inotify::Event<'_>, inotify: &OwnedFd) {
        let (number, what) = (event.wd(), event.events());
        if what.contains(ReadFlags::QUEUE_OVERFLOW) {
            self.watches.values().for_each(|(inbox, _)| inbox.lose());
            return;
        }
        let name = event.file_name().map_or(&b""[..], |name| name.to_bytes());
        for user in self.users.get(&number).cloned().unwrap_or_default() {
            let Some((inbox, _)) = self.watches.get(&user) else {
                continue;
            };
            if !inbox.put(number, what, name) {
                self.leave(user, number, inotify);
            }
        }
        if what.contains(ReadFlags::IGNORED) {
            for user in self.users.remove(&number).unwrap_or_default() {
                if let Some((_, numbers)) = self.watches.get_mut(&user) {
                    numbers.remove(&number);
                }
            }
        }
    }
}

impl Instance {
    fn new() -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let end = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            inotify: Arc::new(inotify),
            end: Arc::new(end),
            table: Mutex::default(),
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the thread that takes the events, which ends with the instance.
    fn carry(self: &Arc<Self>) -> io::Result<()> {
        let (inotify, end) = (Arc::clone(&self.inotify), Arc::clone(&self.end));
        let instance = Arc::downgrade(self);
        let carry = move || {
            loop {
                let mut ready = [
                    PollFd::new(&*inotify, PollFlags::IN),
                    PollFd::new(&*end, PollFlags::IN),
                ];
                match poll(&mut ready, None) {
                    Ok(_) if ready[1].revents().is_empty() => {}
                    Err(Errno::INTR) => continue,
                    _ => return,
                }
                let began = Instant::now();
                match instance.upgrade() {
                    Some(instance) => instance.take(),
                    None => return,
                }
                thread::sleep((began.elapsed() * 9).clamp(PAUSE.0, PAUSE.1));
            }
        };
        let thread = thread::Builder::new().name("sandbox-watch".into());
        thread.spawn(carry).map(drop)
    }

    /// Takes what the kernel has noted, and tells it to the watches.
    fn take(&self) {
        let mut buffer = vec![MaybeUninit::uninit(); 64 << 10];
        let mut reader = Reader::new(&*self.inotify, &mut buffer);
        for _ in 0..MOST {
            match reader.next() {
                Ok(event) => self.table().tell(&event, &self.inotify),
                Err(Errno::INTR) => {}
                // None is left, or none can be had.
                Err(_) => return,
            }
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = rustix::io::write(&*self.end, &1_u64.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::Path;

    use super::*;

    /// An instance whose events are taken when a test says it.
    fn instance() -> Arc<Instance> {
        Arc::new(Instance::new().unwrap())
    }

    fn watch(share: &Share, dir: &Path) -> i32 {
        let flags = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MASK_ADD;
        share.add(File::open(dir).unwrap(), flags).unwrap()
    }

    fn names(arrived: &Arrived) -> Vec<String> {
        let names = arrived.events.keys();
        let mut names: Vec<String> = names
            .map(|(_, name)| String::from_utf8_lossy(name).into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn each_watch_has_the_events_of_its_directories_and_its_end_is_its_own() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let instance = instance();
        let [first, second] = [(); 2].map(|()| Share::of(Arc::clone(&instance)));
        let both = watch(&first, one.path());
        assert_eq!(watch(&second, one.path()), both);
        watch(&second, two.path());
        fs::write(one.path().join("a"), "").unwrap();
        fs::write(two.path().join("b"), "").unwrap();
        instance.take();
        assert_eq!(names(&first.take()), ["a"]);
        assert_eq!(names(&second.take()), ["a", "b"]);
        drop(first);
        fs::write(one.path().join("c"), "").unwrap();
        instance.take();
        assert_eq!(names(&second.take()), ["c"]);
        second.stop(both);
        fs::write(one.path().join("d"), "").unwrap();
        fs::write(two.path().join("e"), "").unwrap();
        instance.take();
        assert_eq!(names(&second.take()), ["e"]);
        drop(second);
        assert!(instance.table().users.is_empty());
    }

    #[test]
    fn a_full_inbox_is_lost_and_watched_no_more_and_takes_nothing_from_another() {
        let (noisy, quiet) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let instance = instance();
        let [first, second] = [(); 2].map(|()| Share::of(Arc::clone(&instance)));
        let number = watch(&first, noisy.path());
        watch(&second, quiet.path());
        fs::write(quiet.path().join("a"), "").unwrap();
        for _ in 0..=MOST / 1000 {
            for _ in 0..500 {
                fs::write(noisy.path().join("x"), "").unwrap();
                fs::remove_file(noisy.path().join("x")).unwrap();
            }
            instance.take();
        }
        assert!(!instance.table().users.contains_key(&number));
        let arrived = first.take();
        assert!(arrived.lost && arrived.events.is_empty());
        let arrived = second.take();
        assert!(!arrived.lost);
        assert_eq!(names(&arrived), ["a"]);
        // After it was looked at it is watched again.
        watch(&first, noisy.path());
        fs::write(noisy.path().join("y"), "").unwrap();
        instance.take();
        let arrived = first.take();
        assert!(!arrived.lost);
        assert_eq!(names(&arrived), ["y"]);
    }

    #[test]
    fn what_the_kernel_lost_is_told_to_every_watch() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let instance = instance();
        let [first, second] = [(); 2].map(|()| Share::of(Arc::clone(&instance)));
        watch(&first, one.path());
        watch(&second, two.path());
        let queue = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
        for _ in 0..=queue.trim().parse::<usize>().unwrap() / 2 {
            fs::write(one.path().join("x"), "").unwrap();
            fs::remove_file(one.path().join("x")).unwrap();
        }
        for _ in 0..3 {
            instance.take();
        }
        assert!(first.take().lost);
        assert!(second.take().lost);
    }
}
