//! Sessions that are opened while clients are served already.
//!
//! A client waits some seconds for the handshake, and a provider may take minutes: an engine that is
//! downloaded, a service that is down. A failure must never outlive its call: the next call tries
//! again.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use sandbox_core::{Error, ErrorKind, Operation, Result};
use sandbox_sessions::Sessions;
use tokio::sync::{Mutex, watch};

type Opened = Pin<Box<dyn Future<Output = Result<Sessions>> + Send>>;

/// See the module's documentation.
pub(crate) struct Opening {
    open: Box<dyn Fn() -> Opened + Send + Sync>,
    /// Locked while they are opened, so that all wait for the same.
    sessions: Mutex<Option<Sessions>>,
    ended: watch::Sender<bool>,
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening")
            .field("sessions", &self.sessions)
            .finish_non_exhaustive()
    }
}

impl Opening {
    pub(crate) fn new<F, O>(open: F) -> Self
    where
        F: Fn() -> O + Send + Sync + 'static,
        O: Future<Output = Result<Sessions>> + Send + 'static,
    {
        Self {
            open: Box::new(move || Box::pin(open())),
            sessions: Mutex::default(),
            ended: watch::channel(false).0,
        }
    }

    pub(crate) fn done(sessions: Sessions) -> Self {
        let again = sessions.clone();
        Self {
            sessions: Mutex::new(Some(sessions)),
            ..Self::new(move || std::future::ready(Ok(again.clone())))
        }
    }

    /// The sessions: opened by this call, by the one that does so already, or before.
    pub(crate) async fn get(&self) -> Result<Sessions> {
        let mut ended = self.ended.subscribe();
        let mut sessions = self.sessions.lock().await;
        if let Some(sessions) = &*sessions {
            return Ok(sessions.clone());
        }
        tokio::select! {
            biased;
            _ = ended.wait_for(|ended| *ended) => {
                Err(Error::new(ErrorKind::Closed, Operation::Connect).with_message("the server ends"))
            }
            opened = (self.open)() => Ok(sessions.insert(opened?).clone()),
        }
    }

    /// Gives up an opening that is under way; those that are opened are given back.
    pub(crate) async fn end(&self) -> Option<Sessions> {
        self.ended.send_replace(true);
        self.sessions.lock().await.clone()
    }
}
