//! Recovery of what an earlier process left: taken up, destroyed or reported.
//!
//! It must never take a sandbox for gone because the backend did not answer.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sandbox_core::{Capability, ErrorKind, Labels, Sandbox, SandboxId, SnapshotId};

use super::entry::{Entry, Hold};
use super::{Manager, OWNER_LABEL, SESSION_LABEL};
use crate::activity::Life;
use crate::journal::{Book, Described, Kept, Record, from_ms};
use crate::{Key, Result, SessionId, Tenant, Why};

/// Findings of [`Sessions::open`](super::Sessions::open).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Opened {
    /// Sessions whose sandbox the backend still has; they are there again.
    pub taken_up: Vec<(Tenant, Key)>,
    /// Sessions whose sandbox is gone.
    pub lost: Vec<(Tenant, Key)>,
    /// Sandboxes that were destroyed: half made, being destroyed, or of the pool.
    pub destroyed: usize,
}

impl Manager {
    pub(super) async fn recover(self: &Arc<Self>, book: Book) -> Result<Opened> {
        let mut opened = Opened::default();
        if book.kept.is_empty() {
            return Ok(opened);
        }
        let there = Backend::ask(self).await?;
        let mut closed = Vec::new();
        for (id, kept) in book.kept {
            let mut sandbox = there.find(&id, &kept);
            let mut raw = None;
            if sandbox.is_none()
                && kept.session.is_some()
                && kept.closing.is_none()
                && let Some(recorded) = there.unlisted(&kept)
            {
                (sandbox, raw) = self.ask_for(recorded).await;
            }
            match &kept.session {
                // Half made, half destroyed, or of the pool.
                Some(session) if kept.closing.is_none() && kept.snapshot.is_some() => {
                    self.take_suspended(&id, session, &kept);
                    opened
                        .taken_up
                        .push((session.tenant.clone(), session.key.clone()));
                }
                Some(session)
                    if kept.closing.is_none() && kept.sandbox.is_some() && sandbox.is_some() =>
                {
                    self.take(&id, session, &kept, sandbox, raw);
                    opened
                        .taken_up
                        .push((session.tenant.clone(), session.key.clone()));
                }
                session => {
                    if let Some(session) = session
                        && kept.closing.is_none()
                        && kept.sandbox.is_some()
                    {
                        let name = (session.tenant.clone(), session.key.clone());
                        opened.lost.push(name);
                    }
                    if let Some(snapshot) = &kept.snapshot {
                        self.delete_snapshot(&SnapshotId::new(snapshot)).await;
                    }
                    match sandbox {
                        Some(sandbox) => {
                            opened.destroyed += 1;
                            self.pending().insert(id.clone());
                            let why = kept.closing.unwrap_or(Why::HalfMade);
                            let closing = Record::Closing {
                                id: id.clone(),
                                why,
                            };
                            self.journal.append(closing).await?;
                            let destroyed =
                                self.destroy_and_record(id, None, Some(sandbox), None).await;
                            if let Err(error) = destroyed {
                                tracing::warn!(%error, "a leftover was not destroyed; it is tried again");
                            }
                        }
                        None => closed.push(Record::Closed { id }),
                    }
                }
            }
        }
        self.journal.append_all(closed).await?;
        Ok(opened)
    }

    fn take(
        self: &Arc<Self>,
        id: &SessionId,
        session: &Described,
        kept: &Kept,
        sandbox: Option<SandboxId>,
        raw: Option<Arc<dyn Sandbox>>,
    ) {
        let hold = Hold {
            sandbox,
            place: Some(self.queue.take(&session.tenant)),
            ..Hold::default()
        };
        let entry = self.insert(id, session, kept, hold);
        if let Some(raw) = raw {
            entry.activity.follow_all(&raw);
            entry.set_sandbox(raw);
        }
    }

    /// Asks for a sandbox that a list lacks: the lists of some services are late. One that is not
    /// told to be gone is taken to be there.
    async fn ask_for(&self, recorded: SandboxId) -> (Option<SandboxId>, Option<Arc<dyn Sandbox>>) {
        match self.bounded(self.provider.attach(&recorded)).await {
            Ok(raw) => (Some(recorded), Some(raw)),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Lost) => {
                (None, None)
            }
            Err(error) => {
                tracing::warn!(sandbox = %recorded, %error, "a sandbox is not listed and does not answer");
                (Some(recorded), None)
            }
        }
    }

    fn take_suspended(self: &Arc<Self>, id: &SessionId, session: &Described, kept: &Kept) {
        let hold = Hold {
            snapshot: kept.snapshot.as_deref().map(SnapshotId::new),
            ..Hold::default()
        };
        let entry = self.insert(id, session, kept, hold);
        entry.activity.set_life(Life::Suspended);
    }

    /// The idle clock starts anew: the time without a process was not the user's.
    fn insert(
        self: &Arc<Self>,
        id: &SessionId,
        session: &Described,
        kept: &Kept,
        hold: Hold,
    ) -> Arc<Entry> {
        let entry = Entry::new(self, id.clone(), session, hold);
        if let Some(keep) = kept.keep_ms {
            entry.activity.keep_until(from_ms(keep));
        }
        self.entries().insert(entry.name.clone(), entry.clone());
        entry
    }
}

/// Knowledge of what the backend has.
enum Backend {
    /// List of what carries this owner's mark.
    Listed {
        by_mark: HashMap<String, SandboxId>,
        ids: HashSet<SandboxId>,
    },
    /// No list, only an answer on attaching: what was there is taken to be there until then.
    Unlisted,
    /// Nothing outlives a process there.
    Forgets,
}

impl Backend {
    async fn ask(inner: &Manager) -> Result<Self> {
        let capabilities = inner.provider.capabilities();
        if !capabilities.has(Capability::Attach) {
            return Ok(Self::Forgets);
        }
        if !capabilities.has(Capability::List) {
            return Ok(Self::Unlisted);
        }
        let ours = Labels::from([(OWNER_LABEL.to_owned(), inner.owner.to_string())]);
        let list = inner.bounded(inner.provider.list(&ours)).await?;
        let marks = list.iter().filter_map(|info| {
            let mark = info.labels.get(SESSION_LABEL)?;
            Some((mark.clone(), info.id.clone()))
        });
        Ok(Self::Listed {
            by_mark: marks.collect(),
            ids: list.iter().map(|info| info.id.clone()).collect(),
        })
    }

    /// A recorded sandbox that a list lacks.
    fn unlisted(&self, kept: &Kept) -> Option<SandboxId> {
        match self {
            Self::Listed { .. } => kept.sandbox.as_deref().map(SandboxId::new),
            Self::Unlisted | Self::Forgets => None,
        }
    }

    fn find(&self, id: &SessionId, kept: &Kept) -> Option<SandboxId> {
        let recorded = kept.sandbox.as_deref().map(SandboxId::new);
        match self {
            Self::Listed { by_mark, ids } => recorded
                .filter(|recorded| ids.contains(recorded))
                .or_else(|| by_mark.get(id.as_str()).cloned()),
            Self::Unlisted => recorded,
            Self::Forgets => None,
        }
    }
}
