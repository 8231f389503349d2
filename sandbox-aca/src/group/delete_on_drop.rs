//! Deletes what nobody got, behind everybody's back.
//!
//! It must never take the first refusal for the last word: nobody else would delete it.

use std::sync::Arc;
use std::time::Duration;

use sandbox_core::Operation;

use crate::http::{Failure, Http};

/// How long after each refusal it is tried again. Nobody waits, so it is by these and not by what
/// the service asks for, which may be longer than a caller has.
const PAUSES: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(10),
    Duration::from_secs(60),
];

/// Something at the service, by its identifier.
#[derive(Debug, Clone)]
pub(crate) enum Made {
    Sandbox(String),
    Snapshot(String),
}

impl Made {
    async fn delete(&self, http: &Http) -> Result<(), Failure> {
        match self {
            Self::Sandbox(id) => http.delete(Operation::Create, id).await,
            Self::Snapshot(id) => http.delete_snapshot(Operation::Fork, id).await,
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

    /// Somebody has it now.
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
                    tracing::warn!(status = ?failure.status, "what nobody uses was not deleted");
                    return;
                };
                tokio::time::sleep(pause).await;
            }
        });
    }
}
