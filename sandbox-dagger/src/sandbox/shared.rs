//! Parts that the sandboxes of one provider share: configuration, session, its own snapshots.

use std::sync::{Arc, OnceLock};

use sandbox_core::Result;
use tokio::sync::Mutex as AsyncMutex;

use crate::config::DaggerConfig;
use crate::guest::stage::OwnDir;
use crate::session::connect::Session;

/// The state that a provider and its sandboxes share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: DaggerConfig,
    session: AsyncMutex<Option<Arc<Session>>>,
    /// The directory of snapshots for which the configuration names none.
    pub(crate) temporary: OnceLock<OwnDir>,
}

impl Shared {
    /// Not connected yet.
    pub(crate) fn new(config: DaggerConfig) -> Self {
        Self {
            config,
            session: AsyncMutex::default(),
            temporary: OnceLock::new(),
        }
    }

    /// The session for new sandboxes; opened if there is none.
    pub(crate) async fn session(&self) -> Result<Arc<Session>> {
        let mut session = self.session.lock().await;
        if let Some(session) = &*session
            && !session.is_lost()
            && !session.is_used_up(&self.config)
        {
            return Ok(session.clone());
        }
        let opened = Arc::new(Session::open(&self.config).await?);
        *session = Some(opened.clone());
        Ok(opened)
    }

    /// Opens a new session for the next sandbox if this is still the current one.
    pub(crate) async fn forget(&self, gone: &Arc<Session>) {
        let mut session = self.session.lock().await;
        if session
            .as_ref()
            .is_some_and(|session| Arc::ptr_eq(session, gone))
        {
            *session = None;
        }
    }

    /// Takes the current session out.
    pub(crate) async fn take(&self) -> Option<Arc<Session>> {
        self.session.lock().await.take()
    }
}
