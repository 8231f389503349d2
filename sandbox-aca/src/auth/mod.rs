//! Tokens: what a credential is, and a cache that asks it as seldom as possible.
//!
//! A token must never be shown, logged or put into an error.

mod chain;

pub use chain::DefaultCredential;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use sandbox_core::{Result, Secret};
use tokio::sync::Mutex;

/// Time before its end from which a token is no longer used.
const MARGIN: Duration = Duration::from_secs(300);

/// For how long a token is used that had ended when it came: this host's clock runs ahead then.
const GRACE: Duration = Duration::from_secs(60);

/// A token and when it ends.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AccessToken {
    /// The token itself.
    pub token: Secret,
    /// End of its validity; unknown if `None`.
    pub expires: Option<SystemTime>,
}

impl AccessToken {
    /// A token that is valid until then.
    pub fn new(token: impl Into<Secret>, expires: Option<SystemTime>) -> Self {
        Self {
            token: token.into(),
            expires,
        }
    }
}

/// A source of tokens for Azure. Any `TokenCredential` of the Azure SDK is one with a few lines:
///
/// ```
/// use std::sync::Arc;
/// use std::time::SystemTime;
/// use azure_core::credentials::TokenCredential;
/// use sandbox_aca::{AccessToken, Credential};
/// use sandbox_core::{Error, ErrorKind, Operation, Result, async_trait};
///
/// #[derive(Debug)]
/// struct Azure(Arc<dyn TokenCredential>);
///
/// #[async_trait]
/// impl Credential for Azure {
///     async fn token(&self, scope: &str) -> Result<AccessToken> {
///         let token = self.0.get_token(&[scope], None).await.map_err(|e| {
///             Error::new(ErrorKind::Unauthenticated, Operation::Connect).with_source(e)
///         })?;
///         let expires = SystemTime::from(token.expires_on);
///         Ok(AccessToken::new(token.token.secret(), Some(expires)))
///     }
/// }
/// ```
#[async_trait]
pub trait Credential: Debug + Send + Sync + 'static {
    /// A token for this scope, such as `https://dynamicsessions.io/.default`. May be asked often:
    /// who asks keeps what it gets.
    ///
    /// # Errors
    /// [`Unauthenticated`](sandbox_core::ErrorKind::Unauthenticated) with what is missing.
    async fn token(&self, scope: &str) -> Result<AccessToken>;

    /// A token in place of the last one, which the service has refused: what keeps tokens must not
    /// give that one again. Asks [`token`](Self::token) unless it is written otherwise.
    ///
    /// # Errors
    /// Those of [`token`](Self::token).
    async fn renewed(&self, scope: &str) -> Result<AccessToken> {
        self.token(scope).await
    }
}

/// A token from elsewhere. It is never refreshed.
#[derive(Clone, Debug)]
pub struct StaticToken(Secret);

impl StaticToken {
    /// Credential that is this token.
    pub fn new(token: impl Into<Secret>) -> Self {
        Self(token.into())
    }
}

#[async_trait]
impl Credential for StaticToken {
    async fn token(&self, _: &str) -> Result<AccessToken> {
        Ok(AccessToken::new(self.0.clone(), None))
    }
}

/// Keeps one token until it is about to end or was refused.
#[derive(Debug)]
pub(crate) struct Tokens {
    credential: Arc<dyn Credential>,
    scope: String,
    /// The token, and when it came.
    current: Mutex<Option<(AccessToken, Instant)>>,
}

impl Tokens {
    pub(crate) fn new(credential: Arc<dyn Credential>, scope: String) -> Self {
        Self {
            credential,
            scope,
            current: Mutex::default(),
        }
    }

    pub(crate) fn scope(&self) -> &str {
        &self.scope
    }

    /// A token, but not the one that was `refused`.
    pub(crate) async fn get(&self, refused: Option<&Secret>) -> Result<Secret> {
        let mut current = self.current.lock().await;
        let usable = current.as_ref().filter(|(known, came)| {
            let now = SystemTime::now();
            let left = known.expires.map(|expires| expires.duration_since(now));
            let fresh = left.is_none_or(|left| left.is_ok_and(|left| left > MARGIN));
            // By this host's clock, when it came.
            let ended = known
                .expires
                .is_some_and(|expires| expires + came.elapsed() <= now);
            // The service decides: what it refuses is not used again.
            (fresh || ended && came.elapsed() < GRACE) && Some(&known.token) != refused
        });
        if let Some((known, _)) = usable {
            return Ok(known.token.clone());
        }
        let again = current
            .as_ref()
            .is_some_and(|(known, _)| Some(&known.token) == refused);
        let token = match again {
            true => self.credential.renewed(&self.scope).await?,
            false => self.credential.token(&self.scope).await?,
        };
        let secret = token.token.clone();
        *current = Some((token, Instant::now()));
        Ok(secret)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Counts how often it is asked; its tokens have ended by this host's clock.
    #[derive(Debug, Default)]
    struct Behind(AtomicUsize);

    #[async_trait]
    impl Credential for Behind {
        async fn token(&self, _: &str) -> Result<AccessToken> {
            let number = self.0.fetch_add(1, Ordering::Relaxed);
            let ended = SystemTime::now() - Duration::from_secs(3600);
            Ok(AccessToken::new(format!("token {number}"), Some(ended)))
        }
    }

    #[tokio::test]
    async fn a_clock_that_runs_ahead_asks_for_one_token() {
        let credential = Arc::new(Behind::default());
        let tokens = Tokens::new(Arc::clone(&credential) as _, "scope".into());
        let mut first = tokens.get(None).await.expect("a token");
        for _ in 0..100 {
            first = tokens.get(None).await.expect("a token");
        }
        assert_eq!(credential.0.load(Ordering::Relaxed), 1);
        // One that the service refuses is replaced all the same.
        let second = tokens.get(Some(&first)).await.expect("a token");
        assert_ne!(second, first);
        assert_eq!(credential.0.load(Ordering::Relaxed), 2);
    }
}
