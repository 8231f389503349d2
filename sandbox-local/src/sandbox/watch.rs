//! Watch of a tree of a local sandbox, through the forks that put its filesystem together anew.
//!
//! Looking does not count as use, and a watch does not keep its sandbox.

use std::sync::{Arc, Weak};

use sandbox_core::backend::{WatchSender, blocking};
use sandbox_core::{Error, FileWatch, GuestPath, Operation, Result, SandboxId, WatchOptions};

use super::LocalSandbox;
use super::ended::Ended;
use crate::files::Watched;
use crate::walk::Cancel;
use crate::watching::{self, Looked};

const OP: Operation = Operation::Watch;

impl LocalSandbox {
    /// See [`Sandbox::watch`](sandbox_core::Sandbox::watch).
    pub(super) async fn watch_tree(
        &self,
        path: &GuestPath,
        options: WatchOptions,
    ) -> Result<FileWatch> {
        let path = self.resolve(path, OP)?;
        let watcher = |sender| Watcher {
            id: self.id.clone(),
            sandbox: self.facts.handle.clone(),
            ended: self.ended.clone(),
            sender,
        };
        watching::start(self, path, options, watcher).await
    }

    async fn look(&self, mut watched: Watched, sender: Arc<WatchSender>) -> Result<Watched> {
        self.check_open(OP)?;
        let cancel = Cancel::default();
        let _stop = cancel.on_drop();
        let running = self.run(OP).await?;
        if let Some(why) = running.engine.lost() {
            return Err(self.lost(why, &running.cgroup, OP));
        }
        let looked = blocking(OP, move || {
            running.root.look(&mut watched, &sender, &cancel)?;
            drop(running);
            Ok(watched)
        });
        looked.await.map_err(|error| self.unless_closed(error, OP))
    }
}

/// The sandbox of a watch, which may be gone.
struct Watcher {
    id: SandboxId,
    sandbox: Weak<LocalSandbox>,
    ended: Arc<Ended>,
    sender: Arc<WatchSender>,
}

impl Looked for Watcher {
    async fn look(&self, watched: Watched) -> Result<Watched> {
        match self.sandbox.upgrade() {
            Some(sandbox) => sandbox.look(watched, self.sender.clone()).await,
            None => Err(self.ended.error(OP, &self.id)),
        }
    }

    fn end(&self) -> Option<Error> {
        let ended = self.ended.is_ended() || self.sandbox.strong_count() == 0;
        ended.then(|| self.ended.error(OP, &self.id))
    }
}
