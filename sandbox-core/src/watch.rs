//! Watch of a directory: events of what changes below it, merged by path and bounded.
//!
//! It must never hold more events than its bound, and never drop one without a [`FileEvent::Rescan`].

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::{Error, ErrorKind, GuestPath, Operation, Result};

/// Number of directories that a watch covers by default.
pub const DEFAULT_WATCH_DIRECTORIES: usize = 4096;

/// Number of events that wait to be taken by default.
pub const DEFAULT_WATCH_EVENTS: usize = 4096;

/// Options of [`watch`](crate::Sandbox::watch).
///
/// ```
/// use sandbox_core::WatchOptions;
/// let options = WatchOptions::new().directories(20_000).events(1000);
/// # assert_eq!(options.events, 1000);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(default, deny_unknown_fields, rename_all = "kebab-case")
)]
#[non_exhaustive]
pub struct WatchOptions {
    /// Greatest number of directories to watch, the top one included. A larger tree is refused, and
    /// one that grows beyond it ends the watch:
    /// [`LimitExceeded`](crate::ErrorKind::LimitExceeded), as does one with paths of more than 4,096
    /// bytes. On a Linux host each takes one of the
    /// watches of the host's user (`fs.inotify.max_user_watches`).
    pub directories: usize,
    /// Greatest number of events that wait to be taken. One more, and all of them become one
    /// [`FileEvent::Rescan`].
    pub events: usize,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self {
            directories: DEFAULT_WATCH_DIRECTORIES,
            events: DEFAULT_WATCH_EVENTS,
        }
    }
}

impl WatchOptions {
    /// The defaults: 4,096 directories, 4,096 events.
    pub fn new() -> Self {
        Self::default()
    }

    crate::setters! {
        /// Sets how many directories may be watched.
        directories: usize,

        /// Sets how many events may wait to be taken.
        events: usize,
    }
}

/// Event below a watched directory, with a path relative to it.
///
/// It is a reason to look, not what is there: more may have happened since. A rename is a removal
/// and a creation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum FileEvent {
    /// Events were lost: anything may have changed.
    Rescan,
    /// An entry appeared, new or in the place of another. What is in a directory that appeared is
    /// told too.
    Created(GuestPath),
    /// Content or permission bits of an entry changed.
    Modified(GuestPath),
    /// An entry is gone, and all that was below it.
    Removed(GuestPath),
}

impl FileEvent {
    /// The path; `None` for [`Rescan`](FileEvent::Rescan).
    pub fn path(&self) -> Option<&GuestPath> {
        match self {
            Self::Rescan => None,
            Self::Created(path) | Self::Modified(path) | Self::Removed(path) => Some(path),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Created,
    Modified,
    Removed,
}

#[derive(Debug, Default)]
struct State {
    events: BTreeMap<GuestPath, Kind>,
    rescan: bool,
    end: Option<Error>,
    /// Whether the sender is gone.
    ended: bool,
    /// Whether the watch is gone.
    dropped: bool,
    /// Whether more is to come of what is taken together.
    held: bool,
}

impl State {
    fn add(&mut self, event: FileEvent, limit: usize) {
        let (path, kind) = match event {
            FileEvent::Rescan => return self.lose(),
            _ if self.rescan => return,
            FileEvent::Created(path) => (path, Kind::Created),
            FileEvent::Modified(path) => (path, Kind::Modified),
            FileEvent::Removed(path) => (path, Kind::Removed),
        };
        if kind == Kind::Removed {
            self.forget_below(&path);
        }
        let kind = match (self.events.get(&path), kind) {
            // That it is new is still to be told.
            (Some(Kind::Created), Kind::Modified) => Kind::Created,
            (_, kind) => kind,
        };
        self.events.insert(path, kind);
        if self.events.len() > limit {
            self.lose();
        }
    }

    fn lose(&mut self) {
        self.events.clear();
        self.rescan = true;
    }

    /// Forgets what is below a directory that is gone.
    fn forget_below(&mut self, directory: &GuestPath) {
        let below = [directory.as_bytes(), b"/"].concat();
        let from = GuestPath::new(below.clone());
        let gone: Vec<GuestPath> = self
            .events
            .range((Bound::Included(from), Bound::Unbounded))
            .take_while(|(path, _)| path.as_bytes().starts_with(&below))
            .map(|(path, _)| path.clone())
            .collect();
        for path in gone {
            self.events.remove(&path);
        }
    }

    fn take(&mut self) -> Option<Result<Vec<FileEvent>>> {
        if self.held {
            return None;
        }
        if self.rescan {
            self.rescan = false;
            return Some(Ok(vec![FileEvent::Rescan]));
        }
        if !self.events.is_empty() {
            let events = std::mem::take(&mut self.events).into_iter();
            let event = |(path, kind)| match kind {
                Kind::Created => FileEvent::Created(path),
                Kind::Modified => FileEvent::Modified(path),
                Kind::Removed => FileEvent::Removed(path),
            };
            return Some(Ok(events.map(event).collect()));
        }
        self.ended.then(|| {
            Err(self.end.take().unwrap_or_else(|| {
                Error::new(ErrorKind::Closed, Operation::Watch).with_message("the watch has ended")
            }))
        })
    }
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    news: Notify,
    gone: Notify,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Events of a watched directory, from [`watch`](crate::Sandbox::watch). Dropping it ends the watch.
///
/// It does not keep its sandbox alive, and waiting for events does not count as use.
pub struct FileWatch(Arc<Shared>);

impl FileWatch {
    /// Waits until something has happened, and takes all events that wait, at most one for a path,
    /// in the order of the paths. Never empty.
    ///
    /// Dropping the future loses no event.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// use sandbox_core::{FileEvent, backend::watch_channel};
    /// let (sender, mut watch) = watch_channel(100);
    /// sender.send(FileEvent::Created("src/new.rs".into()));
    /// sender.send(FileEvent::Modified("src/new.rs".into()));
    /// assert_eq!(watch.next().await?, [FileEvent::Created("src/new.rs".into())]);
    /// # Ok::<(), sandbox_core::Error>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// After the last event, why the watch has ended: [`Closed`](crate::ErrorKind::Closed) with the
    /// sandbox, [`NotFound`](crate::ErrorKind::NotFound) with the directory,
    /// [`LimitExceeded`](crate::ErrorKind::LimitExceeded) for a tree that grew beyond
    /// [`directories`](WatchOptions::directories). Once it has ended there is nothing more.
    pub async fn next(&mut self) -> Result<Vec<FileEvent>> {
        loop {
            if let Some(taken) = self.0.state().take() {
                return taken;
            }
            self.0.news.notified().await;
        }
    }
}

impl Drop for FileWatch {
    fn drop(&mut self) {
        self.0.state().dropped = true;
        self.0.gone.notify_one();
    }
}

impl fmt::Debug for FileWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileWatch").finish_non_exhaustive()
    }
}

/// The backend's end of a [`FileWatch`]. Dropping it ends the watch.
pub struct WatchSender {
    shared: Arc<Shared>,
    limit: usize,
}

/// Makes a watch and the end that a backend sends to, which holds at most so many events.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// use sandbox_core::{FileEvent, backend::watch_channel};
/// let (sender, mut watch) = watch_channel(1);
/// sender.send(FileEvent::Modified("a".into()));
/// sender.send(FileEvent::Modified("b".into()));
/// assert_eq!(watch.next().await?, [FileEvent::Rescan]);
/// # Ok::<(), sandbox_core::Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn watch_channel(events: usize) -> (WatchSender, FileWatch) {
    let shared = Arc::<Shared>::default();
    let sender = WatchSender {
        shared: shared.clone(),
        limit: events,
    };
    (sender, FileWatch(shared))
}

impl WatchSender {
    /// Adds an event to those that wait. Never blocks.
    pub fn send(&self, event: FileEvent) {
        self.shared.state().add(event, self.limit);
        self.shared.news.notify_one();
    }

    /// Holds back what is sent until the result is dropped: then it is taken together, so that no event
    /// comes after a later one of another path.
    pub fn hold(&self) -> WatchHold<'_> {
        self.shared.state().held = true;
        WatchHold(self)
    }

    /// Ends the watch with this error, which comes after the events that wait.
    pub fn fail(&self, error: Error) {
        let mut state = self.shared.state();
        state.end = Some(error);
        state.ended = true;
        drop(state);
        self.shared.news.notify_one();
    }

    /// Waits until the watch is dropped.
    ///
    /// Dropping the future has no effect.
    pub async fn dropped(&self) {
        while !self.shared.state().dropped {
            self.shared.gone.notified().await;
        }
    }
}

/// Events that are taken together, from [`WatchSender::hold`].
#[derive(Debug)]
pub struct WatchHold<'a>(&'a WatchSender);

impl Drop for WatchHold<'_> {
    fn drop(&mut self) {
        self.0.shared.state().held = false;
        self.0.shared.news.notify_one();
    }
}

impl Drop for WatchSender {
    fn drop(&mut self) {
        self.shared.state().ended = true;
        self.shared.news.notify_one();
    }
}

impl fmt::Debug for WatchSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchSender").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn created(path: &str) -> FileEvent {
        FileEvent::Created(path.into())
    }

    fn modified(path: &str) -> FileEvent {
        FileEvent::Modified(path.into())
    }

    fn removed(path: &str) -> FileEvent {
        FileEvent::Removed(path.into())
    }

    /// Events that come of these.
    fn merged(limit: usize, sent: impl IntoIterator<Item = FileEvent>) -> Vec<FileEvent> {
        let (sender, watch) = watch_channel(limit);
        for event in sent {
            sender.send(event);
        }
        watch.0.state().take().unwrap().unwrap()
    }

    #[test]
    fn events_of_a_path_become_one() {
        let cases = [
            (created("a"), modified("a"), created("a")),
            (modified("a"), modified("a"), modified("a")),
            // It may have been seen meanwhile, so that its end is told.
            (created("a"), removed("a"), removed("a")),
            (modified("a"), removed("a"), removed("a")),
            (removed("a"), created("a"), created("a")),
        ];
        for (first, second, expected) in cases {
            assert_eq!(merged(9, [first, second]), [expected]);
        }
    }

    #[test]
    fn what_was_below_a_removed_directory_is_not_told() {
        let sent = [
            created("a/b"),
            created("a/b/c"),
            modified("a-b"),
            removed("a"),
        ];
        assert_eq!(merged(9, sent), [removed("a"), modified("a-b")]);
    }

    #[test]
    fn more_than_the_bound_is_a_rescan_and_what_follows_is_told() {
        let (sender, watch) = watch_channel(2);
        for name in ["a", "b", "c", "d"] {
            sender.send(created(name));
        }
        let take = || watch.0.state().take();
        assert_eq!(take().unwrap().unwrap(), [FileEvent::Rescan]);
        sender.send(modified("a"));
        assert_eq!(take().unwrap().unwrap(), [modified("a")]);
        assert!(take().is_none());
    }

    #[test]
    fn what_is_held_back_is_taken_together() {
        let (sender, watch) = watch_channel(9);
        let take = || watch.0.state().take();
        let held = sender.hold();
        sender.send(created("b"));
        assert!(take().is_none());
        sender.send(created("a"));
        drop(held);
        assert_eq!(take().unwrap().unwrap(), [created("a"), created("b")]);
    }

    #[tokio::test]
    async fn the_end_comes_after_the_events() {
        let (sender, mut watch) = watch_channel(2);
        sender.send(created("a"));
        sender.fail(Error::new(ErrorKind::NotFound, Operation::Watch));
        assert_eq!(watch.next().await.unwrap(), [created("a")]);
        assert_eq!(watch.next().await.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(watch.next().await.unwrap_err().kind(), ErrorKind::Closed);
    }

    #[tokio::test]
    async fn a_dropped_watch_is_told_to_its_sender() {
        let (sender, watch) = watch_channel(2);
        let told = tokio::spawn(async move { sender.dropped().await });
        drop(watch);
        told.await.unwrap();
    }
}
