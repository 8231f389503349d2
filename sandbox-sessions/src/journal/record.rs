//! Records of the journal: one line a record, each with its own checksum.
//!
//! A record must never hold a secret, a path of a guest or what a command was.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use sandbox_core::Labels;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Key, SessionId, Tenant, Why};

/// Times are milliseconds since 1970.
pub(crate) fn to_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn from_ms(ms: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(ms)
}

/// A session as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Described {
    pub(crate) tenant: Tenant,
    pub(crate) key: Key,
    pub(crate) spec: String,
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub(crate) labels: Labels,
    pub(crate) created_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) idle_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_life_ms: Option<u64>,
}

/// One step, before it is made or after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub(crate) enum Record {
    /// The first line: whose journal this is.
    Owner { version: u32, owner: SessionId },
    /// A sandbox is about to be asked for; without a session for the pool.
    Creating {
        id: SessionId,
        session: Option<Described>,
    },
    /// A sandbox that is there now.
    Created { id: SessionId, sandbox: String },
    /// A sandbox of the pool becomes a session's.
    Assigned { id: SessionId, session: Described },
    /// When a session was last used, and until when it is kept.
    Used {
        id: SessionId,
        at_ms: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        keep_ms: Option<u64>,
    },
    /// A session whose files are kept in this snapshot and whose sandbox is about to be closed.
    Suspended { id: SessionId, snapshot: String },
    /// A sandbox that is about to be destroyed.
    Closing { id: SessionId, why: Why },
    /// A sandbox that does not exist any more, or never did.
    Closed { id: SessionId },
}

/// State that the records of one sandbox come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) session: Option<Described>,
    pub(crate) sandbox: Option<String>,
    pub(crate) snapshot: Option<String>,
    pub(crate) closing: Option<Why>,
    pub(crate) used_ms: Option<u64>,
    pub(crate) keep_ms: Option<u64>,
}

/// State that all records come to: sandboxes that may exist.
#[derive(Clone, Debug, Default)]
pub(crate) struct Book {
    pub(crate) owner: Option<SessionId>,
    pub(crate) kept: BTreeMap<SessionId, Kept>,
}

impl Book {
    /// Takes a record in. One about a sandbox that is not known changes nothing: its end was
    /// recorded before.
    pub(crate) fn apply(&mut self, record: &Record) {
        match record {
            Record::Owner { owner, .. } => self.owner = Some(owner.clone()),
            Record::Creating { id, session } => {
                let kept = Kept {
                    session: session.clone(),
                    sandbox: None,
                    snapshot: None,
                    closing: None,
                    used_ms: None,
                    keep_ms: None,
                };
                self.kept.insert(id.clone(), kept);
            }
            Record::Created { id, sandbox } => self.change(id, |kept| {
                kept.sandbox = Some(sandbox.clone());
                kept.snapshot = None;
            }),
            Record::Assigned { id, session } => {
                self.change(id, |kept| kept.session = Some(session.clone()));
            }
            Record::Used { id, at_ms, keep_ms } => self.change(id, |kept| {
                kept.used_ms = Some(*at_ms);
                kept.keep_ms = kept.keep_ms.max(*keep_ms);
            }),
            Record::Suspended { id, snapshot } => self.change(id, |kept| {
                kept.snapshot = Some(snapshot.clone());
            }),
            Record::Closing { id, why } => self.change(id, |kept| kept.closing = Some(*why)),
            Record::Closed { id } => {
                self.kept.remove(id);
            }
        }
    }

    fn change(&mut self, id: &SessionId, change: impl FnOnce(&mut Kept)) {
        if let Some(kept) = self.kept.get_mut(id) {
            change(kept);
        }
    }

    /// The fewest records that come to this.
    pub(crate) fn records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        if let Some(owner) = &self.owner {
            records.push(owner_of(owner));
        }
        for (id, kept) in &self.kept {
            records.push(Record::Creating {
                id: id.clone(),
                session: kept.session.clone(),
            });
            if let Some(sandbox) = &kept.sandbox {
                records.push(Record::Created {
                    id: id.clone(),
                    sandbox: sandbox.clone(),
                });
            }
            if let Some(at_ms) = kept.used_ms {
                records.push(Record::Used {
                    id: id.clone(),
                    at_ms,
                    keep_ms: kept.keep_ms,
                });
            }
            if let Some(snapshot) = &kept.snapshot {
                records.push(Record::Suspended {
                    id: id.clone(),
                    snapshot: snapshot.clone(),
                });
            }
            if let Some(why) = kept.closing {
                records.push(Record::Closing {
                    id: id.clone(),
                    why,
                });
            }
        }
        records
    }
}

pub(crate) fn owner_of(owner: &SessionId) -> Record {
    Record::Owner {
        version: 1,
        owner: owner.clone(),
    }
}

/// A record as a line: eight hexadecimal digits of its SHA-256, a space, JSON, a newline.
pub(crate) fn to_line(record: &Record) -> std::io::Result<Vec<u8>> {
    let json = serde_json::to_vec(record).map_err(std::io::Error::other)?;
    let mut line = check_of(&json).into_bytes();
    line.push(b' ');
    line.extend_from_slice(&json);
    line.push(b'\n');
    Ok(line)
}

/// The record of a line without its newline; `None` if it is torn or was changed.
pub(crate) fn from_line(line: &[u8]) -> Option<Record> {
    let (check, json) = (line.get(..8)?, line.get(9..)?);
    if line.get(8) != Some(&b' ') || check_of(json).as_bytes() != check {
        return None;
    }
    serde_json::from_slice(json).ok()
}

fn check_of(json: &[u8]) -> String {
    let digest = Sha256::digest(json);
    digest.iter().take(4).map(|b| format!("{b:02x}")).collect()
}
