//! Watch of a tree of a sandbox under Landlock.
//!
//! A watch does not keep its sandbox.

use std::sync::{Arc, Weak};

use sandbox_core::backend::WatchSender;
use sandbox_core::{Error, FileWatch, GuestPath, Operation, Result, SandboxId, WatchOptions};

use super::sandbox::LandlockSandbox;
use crate::file_operations::FileOperations as _;
use crate::files::Watched;
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
        let watcher = |sender| Watcher {
            sandbox: self.handle(),
            id: self.id().clone(),
            sender,
        };
        watching::start(self, path, options, watcher).await
    }
}

/// The sandbox of a watch, which may be gone.
struct Watcher {
    sandbox: Weak<LandlockSandbox>,
    id: SandboxId,
    sender: Arc<WatchSender>,
}

impl Looked for Watcher {
    async fn look(&self, mut watched: Watched) -> Result<Watched> {
        let Some(sandbox) = self.sandbox.upgrade() else {
            return Err(Error::closed(OP, &self.id));
        };
        let sender = self.sender.clone();
        let looked = sandbox.on_files_until(OP, move |root, cancel| {
            root.look(&mut watched, &sender, &cancel)?;
            Ok(watched)
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
