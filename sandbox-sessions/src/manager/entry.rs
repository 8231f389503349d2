//! One session: who it belongs to, its clocks, and the handle to its sandbox.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use sandbox_core::layer::Layer as _;
use sandbox_core::{Labels, Sandbox, SandboxId, SandboxSpec, SnapshotId};

use super::Manager;
use crate::activity::{Activity, Life, Seen, Track};
use crate::journal::{Described, from_ms, to_ms};
use crate::name::Name;
use crate::queue::Place;
use crate::{Error, ErrorKind, Expired, Key, Result, SessionId, Status, Tenant, Why};

/// Information on a session that is known without asking its sandbox.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct SessionInfo {
    /// Identifier of the session.
    pub id: SessionId,
    /// Tenant that the session belongs to.
    pub tenant: Tenant,
    /// Key by which its tenant calls the session.
    pub key: Key,
    /// Labels of the session.
    pub labels: Labels,
    /// Current activity of the session.
    pub status: Status,
    /// Sandbox of the session; `None` while it is suspended.
    pub sandbox: Option<SandboxId>,
    /// When it was created.
    pub created: SystemTime,
    /// When it was last used.
    pub last_use: SystemTime,
    /// When it ends if it is not used again, or when it ended.
    pub expires: Option<Expired>,
}

/// One session.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: SessionId,
    pub(super) name: Name,
    pub(super) fingerprint: String,
    pub(super) labels: Labels,
    pub(super) created: SystemTime,
    pub(super) idle: Option<Duration>,
    pub(super) max_life: Option<Duration>,
    pub(super) activity: Arc<Activity>,
    hold: Mutex<Hold>,
    /// The status that was last told to those who watch.
    told: Mutex<Option<Status>>,
    /// The use that was last written down.
    pub(super) written: Mutex<SystemTime>,
    /// Whether a task of the reaper's is about to end it.
    pub(super) expiring: AtomicBool,
}

/// Everything of the backend's that an entry holds.
#[derive(Debug, Default)]
pub(super) struct Hold {
    /// The sandbox as sessions give it out.
    pub(super) tracked: Option<Arc<dyn Sandbox>>,
    /// The sandbox as the provider gave it out: for looks that do not count as a use.
    pub(super) raw: Option<Arc<dyn Sandbox>>,
    pub(super) sandbox: Option<SandboxId>,
    pub(super) snapshot: Option<SnapshotId>,
    pub(super) place: Option<Place>,
    /// Specification that the sandbox was created from; unknown after a restart.
    pub(super) spec: Option<SandboxSpec>,
}

impl Entry {
    pub(super) fn new(
        inner: &Arc<Manager>,
        id: SessionId,
        described: &Described,
        hold: Hold,
    ) -> Arc<Self> {
        let now = inner.config.clock.now();
        Arc::new_cyclic(|entry: &Weak<Self>| {
            let (entry, inner_then) = (entry.clone(), Arc::downgrade(inner));
            let changed = Arc::new(move |gone: Option<&SandboxId>| {
                if let (Some(entry), Some(inner)) = (entry.upgrade(), inner_then.upgrade()) {
                    inner.changed(&entry, gone);
                }
            });
            Self {
                id,
                name: Name {
                    tenant: described.tenant.clone(),
                    key: described.key.clone(),
                },
                fingerprint: described.spec.clone(),
                labels: described.labels.clone(),
                created: from_ms(described.created_ms),
                idle: described.idle_ms.map(Duration::from_millis),
                max_life: described.max_life_ms.map(Duration::from_millis),
                activity: Arc::new(Activity::new(
                    inner.config.clock.clone(),
                    now,
                    changed,
                    inner.handle.clone(),
                )),
                hold: Mutex::new(hold),
                told: Mutex::new(None),
                written: Mutex::new(now),
                expiring: AtomicBool::new(false),
            }
        })
    }

    pub(super) fn hold(&self) -> MutexGuard<'_, Hold> {
        self.hold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_suspended(&self) -> bool {
        self.hold().snapshot.is_some()
    }

    /// The sandbox as sessions give it out, if there is a handle to it; a specification that was
    /// not known after a restart is from then on.
    pub(super) fn ready(&self, spec: Option<&SandboxSpec>) -> Option<Arc<dyn Sandbox>> {
        let mut hold = self.hold();
        let tracked = hold.tracked.clone()?;
        if let (None, Some(spec)) = (&hold.spec, spec) {
            hold.spec = Some(spec.clone());
        }
        Some(tracked)
    }

    /// The specification of its creation.
    pub(super) fn spec(&self) -> Result<SandboxSpec> {
        self.hold().spec.clone().ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput)
                .with_message("its specification is not known after a restart")
                .with_hint("ask for it with get_or_create and its specification")
        })
    }

    /// Takes a sandbox in, and gives it as sessions give it out.
    pub(super) fn set_sandbox(&self, raw: Arc<dyn Sandbox>) -> Arc<dyn Sandbox> {
        let id = raw.info().id;
        let tracked = Track::new(self.activity.clone(), id.clone()).layer(raw.clone());
        let mut hold = self.hold();
        hold.sandbox = Some(id);
        hold.raw = Some(raw);
        hold.tracked = Some(tracked.clone());
        tracked
    }

    /// When it ends if it is not used again; for one in use, the earliest time.
    pub(super) fn expiry(&self, seen: &Seen, now: SystemTime) -> Option<Expired> {
        if let Life::Gone(expired) = seen.life {
            return Some(expired);
        }
        let life = self
            .max_life
            .and_then(|life| self.created.checked_add(life))
            .map(|at| Expired {
                at,
                why: Why::MaxLife,
            });
        let from = if seen.in_use { now } else { seen.last_use };
        let idle = match seen.life {
            Life::Live => self.idle.and_then(|idle| from.checked_add(idle)),
            _ => None,
        };
        let idle = idle.map(|at| Expired {
            at: seen.keep_until.map_or(at, |keep| keep.max(at)),
            why: Why::Idle,
        });
        match (idle, life) {
            (Some(idle), Some(life)) if idle.at < life.at => Some(idle),
            (idle, life) => life.or(idle),
        }
    }

    /// Why it has to end now, if it has to.
    pub(super) fn due(&self, now: SystemTime) -> Option<Why> {
        let expired = self.expiry(&self.activity.seen(), now)?;
        (expired.at <= now).then_some(expired.why)
    }

    pub(super) fn info(&self, now: SystemTime) -> SessionInfo {
        let seen = self.activity.seen();
        SessionInfo {
            id: self.id.clone(),
            tenant: self.name.tenant.clone(),
            key: self.name.key.clone(),
            labels: self.labels.clone(),
            status: seen.status,
            sandbox: self.hold().sandbox.clone(),
            created: self.created,
            last_use: seen.last_use,
            expires: self.expiry(&seen, now),
        }
    }

    /// The status, if it is another than the one that was last told.
    pub(super) fn news(&self) -> Option<Status> {
        let status = self.activity.seen().status;
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        (told.replace(status) != Some(status)).then_some(status)
    }
}

/// A session as the journal has it.
pub(super) fn describe(
    name: &Name,
    fingerprint: &str,
    labels: &Labels,
    created: SystemTime,
    idle: Option<Duration>,
    max_life: Option<Duration>,
) -> Described {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Described {
        tenant: name.tenant.clone(),
        key: name.key.clone(),
        spec: fingerprint.to_owned(),
        labels: labels.clone(),
        created_ms: to_ms(created),
        idle_ms: idle.map(ms),
        max_life_ms: max_life.map(ms),
    }
}
