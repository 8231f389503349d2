//! A stream of what becomes of sessions.
//!
//! It must never keep a session or hold one up: a watcher that is too slow is told the state anew.

use std::collections::VecDeque;

use sandbox_core::Labels;
use tokio::sync::broadcast;

use super::{SessionInfo, Sessions};
use crate::{Status, Tenant};

/// Condition on sessions; the default means all.
///
/// ```
/// use sandbox_sessions::{Filter, Status, Tenant};
/// let filter = Filter::new().tenant(Tenant::new("acme")?).label("branch", "main");
/// assert_eq!(filter.status, None::<Status>);
/// # Ok::<(), sandbox_sessions::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Filter {
    /// Tenant of the sessions; any if `None`.
    pub tenant: Option<Tenant>,
    /// Labels that the sessions have, all of them.
    pub labels: Labels,
    /// Status of the sessions; any if `None`.
    pub status: Option<Status>,
}

impl Filter {
    /// A filter that lets all sessions through.
    pub fn new() -> Self {
        Self::default()
    }

    sandbox_core::setters! {
        /// Only sessions of this tenant.
        tenant: Some(Tenant),
    }

    /// Requires this label.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    sandbox_core::setters! {
        /// Only sessions with this status.
        status: Some(Status),
    }

    pub(super) fn fits(&self, info: &SessionInfo) -> bool {
        self.tenant
            .as_ref()
            .is_none_or(|tenant| *tenant == info.tenant)
            && self.status.is_none_or(|status| status == info.status)
            && self
                .labels
                .iter()
                .all(|(key, value)| info.labels.get(key) == Some(value))
    }
}

/// Sessions as they are, then each change of a status; from [`Sessions::watch`].
#[derive(Debug)]
pub struct Watch {
    sessions: Sessions,
    filter: Filter,
    first: VecDeque<SessionInfo>,
    changes: broadcast::Receiver<SessionInfo>,
}

impl Watch {
    pub(super) fn new(
        sessions: Sessions,
        filter: Filter,
        changes: broadcast::Receiver<SessionInfo>,
    ) -> Self {
        let first = sessions.list(&filter).into();
        Self {
            sessions,
            filter,
            first,
            changes,
        }
    }

    /// The next session: at first those that there are, then each whose status changed. A watcher
    /// that falls behind gets all sessions once more instead of the changes that it missed. `None`
    /// after the end of the sessions' shutdown.
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<SessionInfo> {
        loop {
            if let Some(info) = self.first.pop_front() {
                return Some(info);
            }
            let change = tokio::select! {
                biased;
                change = self.changes.recv() => change,
                () = self.sessions.ended() => return None,
            };
            match change {
                Ok(info) if self.filter.fits(&info) => return Some(info),
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    self.first = self.sessions.list(&self.filter).into();
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}
