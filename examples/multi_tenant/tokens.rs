//! Tokens: the operator's token, and one token for each application.
//!
//! Only hashes are kept, and they are compared in a time that does not depend on them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::http::{HeaderMap, header};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

type Hash = [u8; 32];

/// The tokens of a service.
#[derive(Debug)]
pub(crate) struct Tokens {
    operator: Hash,
    apps: Mutex<HashMap<String, Hash>>,
}

fn hash(token: &[u8]) -> Hash {
    Sha256::digest(token).into()
}

/// A new token: 256 bits of the operating system's randomness.
pub(crate) fn fresh() -> std::io::Result<String> {
    use std::io::Read as _;
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn given(headers: &HeaderMap) -> Option<Hash> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    Some(hash(value.strip_prefix(b"Bearer ")?))
}

impl Tokens {
    pub(crate) fn new(operator: &str) -> Self {
        Self {
            operator: hash(operator.as_bytes()),
            apps: Mutex::default(),
        }
    }

    fn apps(&self) -> MutexGuard<'_, HashMap<String, Hash>> {
        self.apps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives an application a token; one that it had opens nothing any more.
    pub(crate) fn give(&self, app: &str) -> std::io::Result<String> {
        let token = fresh()?;
        self.apps().insert(app.to_owned(), hash(token.as_bytes()));
        Ok(token)
    }

    /// Takes an application's token away.
    pub(crate) fn take(&self, app: &str) {
        self.apps().remove(app);
    }

    pub(crate) fn is_operator(&self, headers: &HeaderMap) -> bool {
        given(headers).is_some_and(|given| given.ct_eq(&self.operator).into())
    }

    pub(crate) fn is_app(&self, app: &str, headers: &HeaderMap) -> bool {
        let Some(given) = given(headers) else {
            return false;
        };
        let expected = self.apps().get(app).copied();
        // An application that is not there takes as long as one that is.
        let known = expected.is_some();
        bool::from(given.ct_eq(&expected.unwrap_or_default())) && known
    }
}
