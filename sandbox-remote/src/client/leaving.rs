//! The sandboxes that this client is just leaving.
//!
//! Must never keep one alive.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use sandbox_core::SandboxId;
use tokio::sync::watch;

/// The sandboxes whose server is being told that their last handle is gone, so that who asks for one
/// again does so afterwards.
#[derive(Debug, Default)]
pub(super) struct Leaving(Mutex<HashMap<SandboxId, Vec<watch::Receiver<()>>>>);

impl Leaving {
    /// Notes that a sandbox is being left, until the result is dropped.
    pub(super) fn note(&self, id: &SandboxId) -> watch::Sender<()> {
        let told = watch::Sender::new(());
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, waiting| {
            waiting.retain(|one| one.has_changed().is_ok());
            !waiting.is_empty()
        });
        all.entry(id.clone()).or_default().push(told.subscribe());
        told
    }

    /// Waits until the server was told of each handle that is gone.
    pub(super) async fn over(&self, id: &SandboxId) {
        let waiting = {
            let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.get(id).cloned().unwrap_or_default()
        };
        for mut one in waiting {
            // An error is its end.
            while one.changed().await.is_ok() {}
        }
    }
}
