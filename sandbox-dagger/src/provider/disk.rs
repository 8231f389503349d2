//! The disk use of the engine's store, and its pruning.
//!
//! Invariant: the store is the engine's, of all its clients: nothing of it is removed unasked.

use sandbox_core::{Operation, Result};

use crate::DaggerProvider;
use crate::session::client::SMALL_ANSWER;
use crate::session::failure::Failed;

/// Disk use of an engine's store, of all its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskUse {
    /// Bytes on disk.
    pub bytes: u64,
    /// Number of entries: layers, caches, directories of hosts.
    pub entries: u64,
}

impl DaggerProvider {
    /// Asks what the engine's store holds.
    ///
    /// Dropping the future changes nothing.
    ///
    /// # Errors
    /// [`Unavailable`](sandbox_core::ErrorKind::Unavailable) if the engine can't be asked;
    /// [`Other`](sandbox_core::ErrorKind::Other) with what it says if this client may not ask.
    pub async fn disk_use(&self) -> Result<DiskUse> {
        const OP: Operation = Operation::Usage;
        let below = "entrySet { diskSpaceBytes entryCount }";
        let answer = self.ask_store(below, OP).await?;
        let number = |key: &str| {
            let found = answer.pointer(&format!("/engine/localCache/entrySet/{key}"));
            let found = found.and_then(serde_json::Value::as_u64);
            found.ok_or_else(|| Failed::Garbage(format!("no {key}")).error(OP))
        };
        Ok(DiskUse {
            bytes: number("diskSpaceBytes")?,
            entries: number("entryCount")?,
        })
    }

    /// Removes from the engine's store what nothing uses: of every client, images and caches among
    /// it, which are fetched and filled anew then. What sandboxes hold stays until their session
    /// has ended.
    ///
    /// Dropping the future may leave the engine at work.
    ///
    /// # Errors
    /// Those of [`disk_use`](Self::disk_use).
    pub async fn prune(&self) -> Result<()> {
        self.ask_store("prune", Operation::Remove).await.map(drop)
    }

    async fn ask_store(&self, below: &str, operation: Operation) -> Result<serde_json::Value> {
        let session = self.shared.session().await?;
        let query = format!("query {{ engine {{ localCache {{ {below} }} }} }}");
        let within = self.shared.config.operation_timeout;
        let answer = session.query(&query, SMALL_ANSWER, within).await;
        answer.map_err(|failed| failed.error(operation))
    }
}
