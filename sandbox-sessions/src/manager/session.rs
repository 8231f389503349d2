//! The handle to one session.

use sandbox_core::SandboxExt as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sandbox_core::Sandbox;

use super::entry::Entry;
use super::{Manager, SessionInfo};
use crate::activity::Life;
use crate::{
    Error, ErrorKind, Expired, Key, Result, SessionId, SessionOptions, Status, Tenant, Why,
};

/// The longest that a session is kept without use.
const FOREVER: Duration = Duration::from_secs(1_000 * 365 * 24 * 3600);

/// A session: a sandbox that is kept for a tenant under a key.
///
/// Dropping the handle changes nothing: the session lives on until it is closed or expires.
#[derive(Clone, Debug)]
pub struct Session {
    pub(super) inner: Arc<Manager>,
    pub(super) entry: Arc<Entry>,
    pub(super) sandbox: Arc<dyn Sandbox>,
    pub(super) is_new: bool,
}

impl Session {
    /// Returns the session's identifier.
    pub fn id(&self) -> &SessionId {
        &self.entry.id
    }

    /// Returns whether this handle is of the call that created the session, and so the one whose
    /// caller fills it: of callers at the same time it is one.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Returns the tenant that the session belongs to.
    pub fn tenant(&self) -> &Tenant {
        &self.entry.name.tenant
    }

    /// Returns the key by which its tenant calls the session.
    pub fn key(&self) -> &Key {
        &self.entry.name.key
    }

    /// Returns the sandbox. Every call to it is use, and so is a command while it runs, the stream
    /// of a file and a connection to a port while it is open; a report of its isolation is none.
    ///
    /// After the end of the session its calls fail with [`Closed`](sandbox_core::ErrorKind::Closed)
    /// and say why it ended. A fork belongs to its maker: what it does is use of the session, but
    /// the session neither lists nor closes it.
    pub fn sandbox(&self) -> &Arc<dyn Sandbox> {
        &self.sandbox
    }

    /// Returns what is known of the session. It does not count as a use.
    pub fn info(&self) -> SessionInfo {
        self.entry.info(self.inner.config.clock.now())
    }

    /// Returns what the session is doing. It does not count as a use.
    pub fn status(&self) -> Status {
        self.entry.activity.seen().status
    }

    /// Returns time and cause of its end; `None` while it lives.
    pub fn ended(&self) -> Option<Expired> {
        match self.entry.activity.seen().life {
            Life::Gone(expired) => Some(expired),
            _ => None,
        }
    }

    /// Reports what an agent in it is doing: [`Waiting`](Status::Waiting),
    /// [`Thinking`](Status::Thinking) or [`Error`](Status::Error), until a command starts or ends.
    /// `None` takes it back. It does not count as a use.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a status that can only be seen.
    pub fn report(&self, status: impl Into<Option<Status>>) -> Result<()> {
        let status = status.into();
        match status {
            None | Some(Status::Waiting | Status::Thinking | Status::Error) => {
                self.entry.activity.report(status);
                Ok(())
            }
            Some(seen) => Err(Error::new(ErrorKind::InvalidInput)
                .with_message(format!(
                    "the status \"{seen}\" follows from what runs and can't be reported"
                ))
                .with_hint("report waiting, thinking or error")),
        }
    }

    /// Counts as use now.
    pub fn touch(&self) {
        self.entry.activity.touch();
    }

    /// Puts the idle timeout off until `until`; an earlier time than before changes nothing, and
    /// the maximum life stays. Gives when the session ends if it is not used again.
    pub fn keep_alive(&self, until: SystemTime) -> Option<SystemTime> {
        self.entry.activity.keep_until(until);
        self.info().expires.map(|expired| expired.at)
    }

    /// [`keep_alive`](Session::keep_alive) for a time from now; one without an end is a thousand years.
    pub fn keep_alive_for(&self, time: Duration) -> Option<SystemTime> {
        let now = self.inner.config.clock.now();
        let until = now.checked_add(time.min(FOREVER));
        self.keep_alive(until.unwrap_or(now))
    }

    /// Asks the sandbox for a sign of life. It does not count as a use.
    ///
    /// Dropping the future has no effect.
    ///
    /// # Errors
    /// [`ErrorKind::Sandbox`] with what the backend says.
    pub async fn ping(&self) -> Result<()> {
        let raw = self.entry.hold().raw.clone();
        let Some(raw) = raw else {
            return Err(Error::new(ErrorKind::NotFound)
                .with_message("it has no sandbox: it is suspended or has ended")
                .with_name(self.tenant(), self.key()));
        };
        raw.stat(sandbox_core::GuestPath::root()).await?;
        Ok(())
    }

    /// Keeps the files as a snapshot and closes the sandbox; the next
    /// [`get_or_create`](super::Sessions::get_or_create) creates a sandbox from them. Environment
    /// and workdir are those of the specification again; what ran and what was in memory is lost. A
    /// suspended session has no place in the limits. Calls that come meanwhile fail with
    /// [`Closed`](sandbox_core::ErrorKind::Closed), so that none changes what is not kept any more;
    /// if it can't be suspended, they work again.
    ///
    /// Dropping the future does not stop it.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] while a call or command runs or a stream or connection is open; [`ErrorKind::Sandbox`] with
    /// [`Unsupported`](sandbox_core::ErrorKind::Unsupported) without
    /// [`Capability::Snapshot`](sandbox_core::Capability::Snapshot).
    pub async fn suspend(&self) -> Result<()> {
        Manager::suspend(&self.inner, &self.entry, true).await
    }

    /// Makes a new session of the same tenant whose sandbox is a [fork](Sandbox::fork) of this
    /// one's. It has a place in the limits and an end of its own.
    ///
    /// Dropping the future leaves the queue; a fork that has begun goes on.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if there is a session of that key;
    /// [`ErrorKind::Sandbox`] with [`Unsupported`](sandbox_core::ErrorKind::Unsupported) without
    /// [`Capability::Fork`](sandbox_core::Capability::Fork); those of
    /// [`get_or_create`](super::Sessions::get_or_create).
    pub async fn fork(
        &self,
        key: impl TryInto<Key, Error: Into<Error>>,
        options: SessionOptions,
    ) -> Result<Session> {
        let key = key.try_into().map_err(Into::into)?;
        Manager::fork(&self.inner, &self.entry, key, options).await
    }

    /// Ends it: kills what runs and destroys its sandbox. `Ok` if it has ended already.
    ///
    /// Dropping the future does not stop it.
    ///
    /// # Errors
    /// [`ErrorKind::Sandbox`] if the backend did not destroy the sandbox; the session has ended all
    /// the same, and it is tried again in the background.
    pub async fn close(&self) -> Result<()> {
        Manager::end(&self.inner, &self.entry, Why::Closed).await
    }
}
