//! Access by tokens of Microsoft Entra: one tenant, one audience, one owner.
//!
//! A token is checked by its signature (RS256, keys of the authority's JWKS), issuer, audience,
//! times and object identifier. It must never follow what a token says about how it is to be
//! checked, and never let a caller make it fetch keys as often as the caller likes.
//!
//! Sources: "Access tokens in the Microsoft identity platform" (claims `aud`, `iss`, `oid`, `tid`;
//! validation), RFC 7519, RFC 7517.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use sandbox_core::{Error, ErrorKind, Operation, Result};
use sandbox_remote::{Access, Caller};
use serde::Deserialize;

/// Age that keys may reach before they are fetched again.
const FRESH: Duration = Duration::from_secs(3600);

/// The shortest time between two fetches, whatever tokens come.
const PAUSE: Duration = Duration::from_secs(60);

/// The largest document of keys, in bytes.
const LARGEST: usize = 1 << 20;

/// The longest token, in bytes.
const TOKEN: usize = 16 << 10;

/// Identity of the owner.
#[derive(Clone, Debug)]
pub(crate) struct Entra {
    pub(crate) authority: String,
    pub(crate) tenant: String,
    pub(crate) audience: String,
    /// The owner's object identifier.
    pub(crate) object: String,
}

/// Admits the owner.
pub(crate) struct EntraAccess {
    owner: Entra,
    validation: Validation,
    client: reqwest::Client,
    keys: Arc<Mutex<Keys>>,
    /// Held while keys are fetched, so that one does it. A token whose key is known waits for none.
    fetching: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct Keys {
    known: HashMap<String, DecodingKey>,
    fetched: Option<Instant>,
    tried: Option<Instant>,
}

impl Keys {
    fn fresh(&self, name: &str) -> Option<DecodingKey> {
        let fresh = self.fetched.is_some_and(|at| at.elapsed() < FRESH);
        self.known.get(name).filter(|_| fresh).cloned()
    }

    /// Whether the last try is long enough ago; from now on it is this one.
    fn may_be_fetched(&mut self) -> bool {
        let may = self.tried.is_none_or(|at| at.elapsed() >= PAUSE);
        if may {
            self.tried = Some(Instant::now());
        }
        may
    }
}

impl fmt::Debug for EntraAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntraAccess")
            .field("owner", &self.owner)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Claims {
    oid: String,
    tid: String,
}

#[derive(Deserialize)]
struct Jwks {
    keys: Vec<Jwk>,
}

#[derive(Deserialize)]
struct Jwk {
    kid: Option<String>,
    kty: String,
    n: Option<String>,
    e: Option<String>,
}

impl EntraAccess {
    /// Access for this owner. Nothing is fetched yet.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for an authority that is neither https nor on loopback, or an
    /// identifier that is empty or no plain text.
    pub(crate) fn new(owner: Entra) -> Result<Self> {
        let invalid =
            |why: &str| Error::new(ErrorKind::InvalidInput, Operation::Connect).with_message(why);
        let plain = |text: &str| {
            let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._:/".contains(&b);
            !text.is_empty() && text.bytes().all(fits)
        };
        if owner.tenant.contains('/') || !plain(&owner.tenant) || !plain(&owner.object) {
            return Err(invalid("the tenant and the object must be identifiers"));
        }
        if !plain(&owner.audience) {
            return Err(invalid("the audience must be an identifier or a URI"));
        }
        let authority = reqwest::Url::parse(&owner.authority)
            .map_err(|error| invalid("the authority is not a URL").with_source(error))?;
        let loopback = authority.host_str().is_some_and(|host| {
            host.parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback())
        });
        if authority.scheme() != "https" && !(authority.scheme() == "http" && loopback) {
            return Err(invalid("the authority must be https"));
        }
        let mut validation = Validation::new(Algorithm::RS256);
        validation.set_audience(&[&owner.audience]);
        // Tokens of both versions, of this tenant only.
        let base = owner.authority.trim_end_matches('/');
        validation.set_issuer(&[
            format!("{base}/{}/v2.0", owner.tenant),
            format!("https://sts.windows.net/{}/", owner.tenant),
        ]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.validate_nbf = true;
        // One that is installed already is kept; either serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(10))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| invalid("no client can be made").with_source(error))?;
        Ok(Self {
            owner,
            validation,
            client,
            keys: Arc::default(),
            fetching: Arc::default(),
        })
    }

    fn keys(&self) -> MutexGuard<'_, Keys> {
        lock(&self.keys)
    }

    /// The key of this name, fetched if it is not known and may be.
    async fn key(&self, name: &str) -> Option<DecodingKey> {
        if let Some(key) = self.keys().fresh(name) {
            return Some(key);
        }
        let turn = self.fetching.clone().lock_owned().await;
        // The one before may have fetched it.
        if let Some(key) = self.keys().fresh(name) {
            return Some(key);
        }
        if self.keys().may_be_fetched() {
            let base = self.owner.authority.trim_end_matches('/');
            let url = format!("{base}/{}/discovery/v2.0/keys", self.owner.tenant);
            let (client, keys) = (self.client.clone(), self.keys.clone());
            // A task of its own: a stranger who hangs up must not be able to stop the one fetch that
            // there is in a while, and so keep the owner out.
            let fetched = tokio::spawn(async move {
                let _turn = turn;
                match fetch(&client, url).await {
                    Ok(known) => {
                        let mut keys = lock(&keys);
                        keys.known = known;
                        keys.fetched = Some(Instant::now());
                    }
                    // Old keys serve until new ones can be had.
                    Err(why) => tracing::warn!("the keys of the authority can't be had: {why}"),
                }
            });
            // It fails only with its runtime; then there is no key either.
            let _ = fetched.await;
        }
        self.keys().known.get(name).cloned()
    }

    async fn check(&self, token: &str) -> Option<()> {
        let header = decode_header(token).ok()?;
        // The algorithm is ours, not the token's.
        if header.alg != Algorithm::RS256 {
            return None;
        }
        let key = self.key(&header.kid?).await?;
        let claims = decode::<Claims>(token, &key, &self.validation).ok()?.claims;
        let owner = &self.owner;
        (claims.oid == owner.object && claims.tid == owner.tenant).then_some(())
    }
}

fn lock(keys: &Mutex<Keys>) -> MutexGuard<'_, Keys> {
    // Every change is a single assignment.
    keys.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn fetch(
    client: &reqwest::Client,
    url: String,
) -> std::result::Result<HashMap<String, DecodingKey>, String> {
    let told = |error: reqwest::Error| error.without_url().to_string();
    let mut response = client.get(url).send().await.map_err(told)?;
    if !response.status().is_success() {
        return Err(format!("status {}", response.status()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(told)? {
        if body.len() + chunk.len() > LARGEST {
            return Err("the document is too large".into());
        }
        body.extend_from_slice(&chunk);
    }
    let found: Jwks = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    let keys = found.keys.into_iter().filter(|key| key.kty == "RSA");
    let keys = keys.filter_map(|key| {
        let components = DecodingKey::from_rsa_components(&key.n?, &key.e?);
        Some((key.kid?, components.ok()?))
    });
    Ok(keys.collect())
}

#[async_trait]
impl Access for EntraAccess {
    async fn admits(&self, caller: &Caller) -> bool {
        let Some(token) = &caller.token else {
            return false;
        };
        let token = token.expose();
        match std::str::from_utf8(token) {
            Ok(token) if token.len() <= TOKEN => self.check(token).await.is_some(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;
