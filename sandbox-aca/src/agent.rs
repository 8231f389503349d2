//! Sandboxes of a tenant's own container: by the agent in it (`sandbox-agent`), which an app or a
//! session of a custom pool runs.
//!
//! The owner's token must never be in the container: what runs there could read it.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sandbox_core::{Error, ErrorKind, Operation, Result, Secret, async_trait};
use sandbox_remote::{RemoteConfig, RemoteProvider, TokenSource};
use sha2::{Digest as _, Sha256};

use crate::auth::{Credential, Tokens};
use crate::provision::{App, Container, RunningStatus, SessionPool};

/// Scope of the tokens that session pools take.
const SESSIONS: &str = "https://dynamicsessions.io/.default";

/// Interval of asking for an agent that does not answer yet.
const AGAIN: Duration = Duration::from_millis(200);

/// Token of Entra for each request of a client of `sandbox-remote`, kept until it is about to end.
///
/// ```
/// use std::sync::Arc;
/// use sandbox_aca::{DefaultCredential, EntraToken};
/// use sandbox_remote::RemoteConfig;
/// let credential = Arc::new(DefaultCredential::new());
/// let config = RemoteConfig::new("https://agent.example.com")?
///     .token(EntraToken::new(credential, "api://agent/.default"));
/// # Ok::<(), sandbox_core::Error>(())
/// ```
pub struct EntraToken(Tokens);

impl EntraToken {
    /// Tokens of this credential for this scope.
    pub fn new(credential: Arc<dyn Credential>, scope: impl Into<String>) -> Self {
        Self(Tokens::new(credential, scope.into()))
    }
}

impl fmt::Debug for EntraToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EntraToken").field(&self.0.scope()).finish()
    }
}

#[async_trait]
impl TokenSource for EntraToken {
    async fn token(&self) -> Result<Secret> {
        self.0.get(None).await
    }
}

/// The token by which an agent knows its owner. The container has the digest alone.
///
/// ```
/// use sandbox_aca::AgentToken;
/// use sandbox_aca::provision::Container;
/// let token = AgentToken::random();
/// let container = Container::new("r.azurecr.io/workspace@sha256:…").agent(&token);
/// assert_ne!(token.digest(), AgentToken::random().digest());
/// ```
#[derive(Clone, Debug)]
pub struct AgentToken(Secret);

impl AgentToken {
    /// A new token of 244 random bits.
    pub fn random() -> Self {
        let half = || uuid::Uuid::new_v4().simple().to_string();
        Self(format!("{}{}", half(), half()).into())
    }

    /// A token that is kept elsewhere; it must be random.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for one of fewer than 32 bytes, or of bytes that a
    /// header can't carry.
    pub fn new(token: impl Into<Secret>) -> Result<Self> {
        let token = token.into();
        let bytes = token.expose();
        match bytes.len() >= 32 && bytes.iter().all(u8::is_ascii_graphic) {
            true => Ok(Self(token)),
            false => Err(Error::new(ErrorKind::InvalidInput, Operation::Connect)
                .with_message("an agent's token has at least 32 bytes, without spaces")),
        }
    }

    /// The token itself.
    pub fn secret(&self) -> &Secret {
        &self.0
    }

    /// The SHA-256 digest as hexadecimal digits, which is no secret.
    pub fn digest(&self) -> String {
        let digest = Sha256::digest(self.0.expose());
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Container {
    /// Names the owner to the agent in it: the holder of this token.
    #[must_use]
    pub fn agent(self, token: &AgentToken) -> Self {
        self.env("SANDBOX_AGENT_TOKEN_DIGEST", token.digest())
    }
}

/// Token and address by which an agent is called.
///
/// ```
/// # use std::sync::Arc;
/// use sandbox_aca::{AgentAccess, AgentToken, DefaultCredential};
/// let scope = "api://11111111-2222-3333-4444-555555555555/.default";
/// let access =
///     AgentAccess::new(AgentToken::random()).entra(Arc::new(DefaultCredential::new()), scope);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AgentAccess {
    token: AgentToken,
    front: Option<(Arc<dyn Credential>, String)>,
    dial: Option<SocketAddr>,
    ca_file: Option<PathBuf>,
    patience: Duration,
}

impl AgentAccess {
    /// Calls the agent with this token. A session pool's own token is added by itself.
    pub fn new(token: AgentToken) -> Self {
        Self {
            token,
            front: None,
            dial: None,
            ca_file: None,
            patience: Duration::from_secs(60),
        }
    }

    /// Shows the ingress this credential's tokens for this scope: of an app that lets in only its
    /// owner ([`OwnerAuth`](crate::provision::OwnerAuth)).
    #[must_use]
    pub fn entra(mut self, credential: Arc<dyn Credential>, scope: impl Into<String>) -> Self {
        self.front = Some((credential, scope.into()));
        self
    }

    /// Connects to this address in place of what the app's name resolves to: the static address of
    /// an internal environment, whose names only its own network resolves.
    #[must_use]
    pub fn dial(mut self, address: SocketAddr) -> Self {
        self.dial = Some(address);
        self
    }

    /// Trusts this certificate (PEM) too: an emulator's.
    #[must_use]
    pub fn ca_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(file.into());
        self
    }

    /// Waits so long for an agent that does not answer yet: a replica that starts does not listen
    /// at once. Default: 60 s.
    #[must_use]
    pub fn patience(mut self, time: Duration) -> Self {
        self.patience = time;
        self
    }

    fn config(&self, address: &str) -> Result<RemoteConfig> {
        let mut config = RemoteConfig::new(address)?.secret(self.token.secret().clone());
        if let Some((credential, scope)) = &self.front {
            config = config.front_token(EntraToken::new(Arc::clone(credential), scope));
        }
        if let Some(address) = self.dial {
            config = config.dial(address);
        }
        if let Some(file) = &self.ca_file {
            config = config.ca_file(file);
        }
        Ok(config)
    }

    async fn connect(&self, address: &str) -> Result<RemoteProvider> {
        let config = self.config(address)?;
        let begun = Instant::now();
        loop {
            match RemoteProvider::connect(config.clone()).await {
                Err(error)
                    if error.kind() == ErrorKind::Unavailable
                        && begun.elapsed() < self.patience =>
                {
                    tokio::time::sleep(AGAIN).await;
                }
                ended => return ended,
            }
        }
    }
}

impl App {
    /// The sandboxes of the agent in it, which its container must be, by its ingress. Dropping the
    /// future leaves nothing behind.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if the app is not there or has no ingress;
    /// [`Unauthenticated`](ErrorKind::Unauthenticated) or
    /// [`PermissionDenied`](ErrorKind::PermissionDenied) if ingress or agent do not let the caller
    /// in; [`Unavailable`](ErrorKind::Unavailable) if it is stopped, or nothing answers in
    /// [time](AgentAccess::patience).
    pub async fn agent(&self, access: &AgentAccess) -> Result<RemoteProvider> {
        let missing = |what: &str| {
            Error::new(ErrorKind::NotFound, Operation::Connect)
                .with_message(format!("the app {} {what}", self.id().name()))
        };
        let shown = self.show().await?.ok_or_else(|| missing("is not there"))?;
        if shown.properties.running_status == Some(RunningStatus::Stopped) {
            return Err(Error::new(ErrorKind::Unavailable, Operation::Connect)
                .with_message(format!("the app {} is stopped", self.id().name()))
                .with_hint("start it"));
        }
        let name = shown.properties.fqdn();
        let name = name.ok_or_else(|| missing("has no ingress by which its agent is reached"))?;
        access.connect(&format!("https://{name}")).await
    }
}

impl SessionPool {
    /// The sandboxes of the agent in a session of this pool of custom containers; the session is
    /// made if there is none of this identifier. It ends after the pool's cooldown without a call.
    /// Dropping the future may leave a session behind, which ends so too.
    ///
    /// The identifier is a secret of the tenant: who has it and a token of the pool reaches the
    /// session, though not the agent in it. 4 to 128 letters, digits and hyphens, random.
    ///
    /// # Errors
    /// Those of [`App::agent`]; [`InvalidInput`](ErrorKind::InvalidInput) for a wrong identifier.
    pub async fn agent(&self, identifier: &str, access: &AgentAccess) -> Result<RemoteProvider> {
        let error = |kind, why: &str| Error::new(kind, Operation::Connect).with_message(why);
        let known = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if !(4..=128).contains(&identifier.len()) || !identifier.chars().all(known) {
            let why = "a session's identifier has 4 to 128 letters, digits and hyphens";
            return Err(error(ErrorKind::InvalidInput, why));
        }
        let missing = || error(ErrorKind::NotFound, "the session pool is not there");
        let shown = self.show().await?.ok_or_else(missing)?;
        let endpoint = shown
            .properties
            .pool_management_endpoint
            .ok_or_else(missing)?;
        let mut access = access.clone();
        if access.front.is_none() {
            access.front = Some((self.credential(), SESSIONS.to_owned()));
        }
        let identifier = utf8_percent_encode(identifier, NON_ALPHANUMERIC);
        let address = format!("{endpoint}?identifier={identifier}");
        access.connect(&address).await
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// `Duration::MAX` is what callers write for none.
    #[tokio::test]
    async fn patience_without_an_end_goes_on() {
        // Bound, so that no other program gets the port, and not listened on.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let access = AgentAccess::new(AgentToken::random())
            .dial(socket.local_addr().unwrap())
            .patience(Duration::MAX);
        let connect = access.connect("https://agent.example");
        let waits = tokio::time::timeout(AGAIN * 2, connect).await;
        assert!(waits.is_err(), "it gave up: {waits:?}");
    }
}
