//! State that all connections of a server share.

use std::time::SystemTime;

use sandbox_sessions::{Session, SessionInfo, Sessions, Tenant};

use crate::ServerOptions;
use crate::opening::Opening;
use crate::outputs::Outputs;
use crate::results::SandboxOut;
use crate::turns::Turns;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) opening: Opening,
    pub(crate) tenant: Tenant,
    pub(crate) options: ServerOptions,
    pub(crate) outputs: Outputs,
    pub(crate) turns: Turns,
}

impl Shared {
    /// The sessions, or what a client is told that has to do without them.
    pub(crate) async fn sessions(&self) -> Result<Sessions, String> {
        self.opening.get().await.map_err(|error| {
            format!("there are no sandboxes now, and the next call tries again: {error}")
        })
    }

    pub(crate) async fn session(&self, id: &str) -> Result<Session, String> {
        let found = self.sessions().await?.get(&self.tenant, id).await;
        found.map_err(|error| match error.kind() {
            sandbox_sessions::ErrorKind::NotFound => format!(
                "there is no sandbox {id:?}: it was closed, has expired, or never existed; \
                 sandbox_list has those that there are, sandbox_create makes one"
            ),
            _ => error.to_string(),
        })
    }

    pub(crate) fn describe(&self, info: &SessionInfo, workdir: Option<String>) -> SandboxOut {
        let left = info.expires.and_then(|expires| {
            let now = SystemTime::now();
            expires.at.duration_since(now).ok()
        });
        SandboxOut {
            sandbox_id: info.key.to_string(),
            status: info.status.to_string(),
            workdir,
            expires_in_seconds: left.map(|left| left.as_secs()),
        }
    }
}
