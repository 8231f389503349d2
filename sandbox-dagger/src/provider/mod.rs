//! Creates sandboxes in an engine and finds them again within this process.
//!
//! Invariant: an option that the engine can't honour is refused before anything is created.

pub(crate) mod base;
mod bind;
pub(crate) mod create;
pub(crate) mod disk;
pub(crate) mod image;
pub(crate) mod service;
pub(crate) mod snapshot;

use std::sync::Arc;

use async_trait::async_trait;
use sandbox_core::backend::Registry;
use sandbox_core::{
    Capabilities, Control, Error, ErrorKind, Labels, Operation, Provider, RequiredIsolation,
    Result, Sandbox, SandboxId, SandboxInfo, SandboxSpec,
};

use crate::config::DaggerConfig;
use crate::sandbox::DaggerSandbox;
use crate::sandbox::capability::CAPABILITIES;
use crate::sandbox::shared::Shared;

/// Sandboxes in a Dagger engine.
///
/// One provider holds one session with a pool of connections for any number of sandboxes. It
/// connects when the first sandbox is created, and anew when the engine was restarted. Its
/// sandboxes live as long as their handles. Dropping the last handle and the provider ends a CLI
/// that was started for them; [`shutdown`](DaggerProvider::shutdown) does so politely.
#[derive(Clone, Debug)]
pub struct DaggerProvider {
    pub(crate) shared: Arc<Shared>,
    pub(crate) open: Arc<Registry<DaggerSandbox>>,
}

impl DaggerProvider {
    /// Capabilities of sandboxes in an engine; no I/O, no provider needed.
    pub const CAPABILITIES: Capabilities = CAPABILITIES;

    /// A provider with this configuration. Does not connect yet.
    ///
    /// # Errors
    /// None today; what can be wrong comes to light on connecting.
    pub fn new(config: DaggerConfig) -> Result<Self> {
        Ok(Self {
            shared: Arc::new(Shared::new(config)),
            open: Arc::default(),
        })
    }

    /// Connects now, so that what is missing comes to light.
    ///
    /// Dropping the future ends what was started.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) without a CLI or an engine, or with one of a wrong
    /// version; [`Unavailable`](ErrorKind::Unavailable) if the CLI does not answer;
    /// [`Unauthenticated`](ErrorKind::Unauthenticated) for a wrong token.
    pub async fn connect(&self) -> Result<()> {
        self.shared.session().await.map(drop)
    }

    /// Ends the session in bounded time. Open sandboxes keep it until they are closed.
    ///
    /// Dropping the future kills the CLI at once.
    pub async fn shutdown(&self) {
        let session = self.shared.take().await;
        if let Some(session) = session.and_then(Arc::into_inner) {
            session.stop().await;
        }
    }

    pub(crate) fn find(&self, id: &SandboxId, operation: Operation) -> Result<Arc<DaggerSandbox>> {
        self.open.find(id, operation)
    }
}

/// Refuses what a spec asks for and the engine does not have.
fn check(spec: &SandboxSpec) -> Result<()> {
    spec.validate()?;
    spec.require(&CAPABILITIES, Operation::Create)?;
    let required: &[Control] = match &spec.isolation {
        RequiredIsolation::Only(controls) => controls,
        _ => &[],
    };
    if let Some(control) = required.first() {
        return Err(Error::new(ErrorKind::Isolation, Operation::Create)
            .with_message(format!("{control} can't be proven in a Dagger engine"))
            .with_hint("the engine isolates, but this backend does not probe it; use local:"));
    }
    Ok(())
}

/// Refuses caches that have no place.
fn check_caches(config: &DaggerConfig) -> Result<()> {
    for cache in &config.caches {
        let text = std::str::from_utf8(cache.path.as_bytes()).is_ok();
        if !cache.path.is_absolute() || !text {
            return Err(Error::new(ErrorKind::InvalidInput, Operation::Create)
                .with_message(format!(
                    "the path of cache {:?} is relative or not UTF-8",
                    cache.key
                ))
                .with_path(cache.path.clone()));
        }
    }
    Ok(())
}

/// Refuses variables of secrets that a shell could not set.
fn check_secrets(config: &DaggerConfig) -> Result<()> {
    for secret in &config.secrets {
        let name = secret.variable.as_bytes();
        let of_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let first = name.first().is_some_and(|byte| !byte.is_ascii_digit());
        if !first || !name.iter().all(of_name) {
            return Err(Error::new(ErrorKind::InvalidInput, Operation::Create)
                .with_message(format!(
                    "{:?} can't be the variable of a secret",
                    secret.variable
                ))
                .with_hint("use letters, digits and underscores, not a digit first"));
        }
    }
    Ok(())
}

#[async_trait]
impl Provider for DaggerProvider {
    fn backend(&self) -> &'static str {
        "dagger"
    }

    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn create(&self, spec: SandboxSpec) -> Result<Arc<dyn Sandbox>> {
        check(&spec)?;
        check_caches(&self.shared.config)?;
        check_secrets(&self.shared.config)?;
        let session = self.shared.session().await?;
        match DaggerSandbox::create(&self.shared, &self.open, &session, &spec).await {
            Ok(sandbox) => Ok(sandbox),
            // Nothing was created: an engine that was restarted gets a second chance.
            Err(failed) if failed.reconnect => {
                self.shared.forget(&session).await;
                let session = self.shared.session().await?;
                let made = DaggerSandbox::create(&self.shared, &self.open, &session, &spec).await;
                Ok(made.map_err(|failed| failed.error)?)
            }
            Err(failed) => Err(failed.error),
        }
    }

    async fn attach(&self, id: &SandboxId) -> Result<Arc<dyn Sandbox>> {
        Ok(self.find(id, Operation::Attach)?)
    }

    async fn list(&self, labels: &Labels) -> Result<Vec<SandboxInfo>> {
        Ok(self.open.list(labels))
    }

    async fn destroy(&self, id: &SandboxId) -> Result<()> {
        self.find(id, Operation::Destroy)?.close().await
    }
}
