//! Watch of a tree of a sandbox under Landlock.
//!
//! A watch does not keep its sandbox.

use std::sync::{Arc, Weak};

use sandbox_core::backend::{WatchSender, watch_channel};
use sandbox_core::{Error, FileWatch, GuestPath, Operation, Result, SandboxId, WatchOptions};

use super::sandbox::LandlockSandbox;
use crate::files::Watched;
use crate::walk::Cancel;
use crate::watching::{self, Looked};

const OP: Operation = Operation::Watch;

impl LandlockSandbox {
    /// See [`Sandbox::watch`](sandbox_core::Sandbox::watch).
    pub(super) async fn watch_tree(
        &self,
        path: &GuestPath,
        options: WatchOptions,
    ) -> Result<FileWatch> {
        let path = self.resolve(path, OP)?;
        let cancel = Cancel::default();
        let _stop = cancel.on_drop();
        let flag = cancel.clone();
        let watched = self.files(OP, move |root| {
            root.watch(&path, options.directories, &flag)
        });
        let watched = watched.await?;
        let (sender, watch) = watch_channel(options.events);
        let sender = Arc::new(sender);
        let watcher = Watcher {
            sandbox: self.handle(),
            id: self.id().clone(),
            sender: sender.clone(),
        };
        tokio::spawn(async move { watching::carry(watched, &sender, watcher).await });
        Ok(watch)
    }
}

/// The sandbox of a watch, which may be gone.
struct Watcher {
    sandbox: Weak<LandlockSandbox>,
    id: SandboxId,
    sender: Arc<WatchSender>,
}

impl Looked for Watcher {
    async fn look(&self, mut watched: Watched) -> Result<(Watched, bool)> {
        let Some(sandbox) = self.sandbox.upgrade() else {
            return Err(Error::closed(OP, &self.id));
        };
        let cancel = Cancel::default();
        let _stop = cancel.on_drop();
        let (sender, flag) = (self.sender.clone(), cancel.clone());
        let looked = sandbox.files(OP, move |root| {
            let all = root.look(&mut watched, &sender, &flag)?;
            Ok((watched, all))
        });
        looked.await
    }

    fn end(&self) -> Option<Error> {
        match self.sandbox.upgrade() {
            Some(sandbox) => sandbox.check_open(OP).err(),
            None => Some(Error::closed(OP, &self.id)),
        }
    }
}
