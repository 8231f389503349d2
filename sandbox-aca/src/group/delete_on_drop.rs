//! Deletes in the background what was created for a caller who has gone.
//!
//! It must never take the first refusal for the last word: nothing else would delete it.

use std::sync::Arc;
use std::time::Duration;

use sandbox_core::Operation;

use crate::http::{Failure, Http};

/// Pauses after each refusal before another try. These and not what the service asks for: no caller
/// waits, and the last one is long after a throttled minute.
const PAUSES: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(300),
    Duration::from_secs(900),
];

/// Something at the service, by its identifier.
#[derive(Debug, Clone)]
pub(crate) enum Made {
    Sandbox(String),
    Snapshot(String),
    Image(String),
}

impl Made {
    async fn delete(&self, http: &Http) -> Result<(), Failure> {
        match self {
            Self::Sandbox(id) => http.delete(Operation::Create, id).await,
            Self::Snapshot(id) => http.delete_entry(Operation::Fork, "snapshots", id).await,
            Self::Image(id) => http.delete_entry(Operation::Create, "diskimages", id).await,
        }
    }
}

/// Deletes something when it is dropped, unless it is kept.
#[derive(Debug)]
pub(crate) struct DeleteOnDrop {
    http: Arc<Http>,
    made: Option<Made>,
}

impl DeleteOnDrop {
    pub(crate) fn new(http: &Arc<Http>, made: Made) -> Self {
        Self {
            http: Arc::clone(http),
            made: Some(made),
        }
    }

    /// The caller has it now: it is not deleted.
    pub(crate) fn keep(mut self) {
        self.made = None;
    }
}

impl Drop for DeleteOnDrop {
    fn drop(&mut self) {
        let (Some(made), Ok(runtime)) = (self.made.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        let http = Arc::clone(&self.http);
        runtime.spawn(async move {
            let mut pauses = PAUSES.into_iter();
            while let Err(failure) = made.delete(&http).await {
                let Some(pause) = pauses.next() else {
                    tracing::warn!(status = ?failure.status, "what was created for a caller who has gone was not deleted");
                    return;
                };
                tokio::time::sleep(pause).await;
            }
        });
    }
}
