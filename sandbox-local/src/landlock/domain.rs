//! Starts a command in a Landlock domain of its own, kills everything in it and knows when it is
//! empty.
//!
//! A thread of this process enters the domain, and ends when it has started there a keeper, which
//! kills, and the command, which enters a second domain below: the command can signal neither the
//! keeper nor that thread. It must never let a program run whose keeper is not there.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::process::Command as HostCommand;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::path_calls;
use crate::plain::group::Reach;
use crate::plain::process::{Launch, Launched};
use crate::sys::confine::{Cage, restrict_thread, watch_thread};
use crate::sys::keeper::Keeper;

/// Restrictions of the commands of a sandbox.
#[derive(Clone, Debug)]
pub(super) struct Confinement {
    /// Rules of the keeper.
    pub(super) outer: Arc<OwnedFd>,
    /// The command's own.
    pub(super) cage: Arc<Cage>,
    /// Filter that watches.
    pub(super) watching: Arc<[u8]>,
    /// Directory below which a command may change modes and times.
    pub(super) root: PathBuf,
}

/// Everything that one command started.
#[derive(Debug)]
struct Domain {
    keeper: Mutex<Option<Keeper>>,
    is_empty: AtomicBool,
}

impl Domain {
    fn kill(&self) {
        let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(keeper) = &mut *keeper {
            keeper.kill();
        }
    }
}

/// Handle of a domain; dropping it kills what is left.
#[derive(Debug)]
struct Held(Arc<Domain>);

impl Reach for Held {
    fn kill(&self) {
        self.0.kill();
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty.load(Ordering::Acquire)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.kill();
    }
}

impl Confinement {
    /// On a thread that ends afterwards: it can't leave the domain again.
    fn start(&self, command: &mut HostCommand, watched: &Sender<Watched>) -> io::Result<Launched> {
        restrict_thread(&self.outer)?;
        // Before the filter, of which it must not count as a user.
        let keeper = Keeper::start()?;
        let listener = watch_thread(&self.watching)?;
        let domain = Arc::new(Domain {
            keeper: Mutex::new(Some(keeper)),
            is_empty: AtomicBool::new(false),
        });
        // Dropped with an error, or with an answer that nothing waits for, it kills.
        let held = Held(Arc::clone(&domain));
        let gone = |_| io::Error::other("the thread that watches commands ended unexpectedly");
        watched.send(Watched { listener, domain }).map_err(gone)?;
        Ok((command.spawn()?, Arc::new(held)))
    }
}

/// Input of the watching thread.
struct Watched {
    listener: OwnedFd,
    domain: Arc<Domain>,
}

impl Watched {
    /// Answers what the programs ask of the host, until none is left.
    fn until_empty(self, root: &Path) {
        path_calls::answer_until_empty(self.listener.as_fd(), root);
        self.domain.is_empty.store(true, Ordering::Release);
        let keeper = self.domain.keeper.lock();
        drop(keeper.unwrap_or_else(PoisonError::into_inner).take());
    }
}

#[async_trait]
impl Launch for Confinement {
    /// If the future is dropped what was started is killed.
    async fn launch(
        &self,
        mut command: HostCommand,
    ) -> io::Result<(HostCommand, io::Result<Launched>)> {
        let (this, root, runtime) = (self.clone(), self.root.clone(), Handle::current());
        let (send, receive) = oneshot::channel();
        // Started outside of the domain: what a thread in it starts is in it as well.
        let watching = move || {
            let (watched, to_watch) = channel();
            let confined = move || {
                let _in_runtime = runtime.enter();
                let started = this.start(&mut command, &watched);
                let _ = send.send((command, started));
            };
            let confined = std::thread::Builder::new()
                .name("sandbox-confine".into())
                .spawn(confined);
            // Without that thread the answer is missing, which says it.
            if confined.is_ok()
                && let Ok(watched) = to_watch.recv()
            {
                watched.until_empty(&root);
            }
        };
        std::thread::Builder::new()
            .name("sandbox-landlock".into())
            .spawn(watching)?;
        let gone = |_| io::Error::other("no thread could be started for the command");
        receive.await.map_err(gone)
    }
}
