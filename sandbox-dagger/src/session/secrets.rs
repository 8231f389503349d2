//! Confidential values in the engine's secret store.
//!
//! Invariant: a value is in no query but the one that hands it over.

use std::collections::BTreeMap;
use std::time::Duration;

use sandbox_core::{Env, Secret};

use crate::config::options::SecretUri;
use crate::session::client::SMALL_ANSWER;
use crate::session::connect::Session;
use crate::session::failure::Failed;
use crate::session::nonce::nonce;
use crate::session::query::{self, find};

/// The confidential values by the names of their variables.
pub(crate) type SecretIds = BTreeMap<Vec<u8>, SecretId>;

/// A confidential value that the engine has.
#[derive(Clone, Debug)]
pub(crate) struct SecretId {
    pub(crate) id: String,
    /// Whether it stands behind a name and a colon.
    pub(crate) hidden: bool,
}

/// Gives a text to the engine's secret store; its id. The store takes no other bytes than text.
pub(crate) async fn keep_secret(
    session: &Session,
    value: &Secret,
    within: std::time::Duration,
) -> std::result::Result<Option<String>, Failed> {
    let Ok(text) = std::str::from_utf8(value.expose()) else {
        return Ok(None);
    };
    let query = format!(
        "query {{ setSecret(name: \"{}\", plaintext: {}) {{ id }} }}",
        nonce(),
        query::string(text)
    );
    let answer = session.query(&query, SMALL_ANSWER, within).await?;
    let id = find(&answer, "id").ok_or_else(|| Failed::Garbage("no id".into()))?;
    Ok(Some(id.to_owned()))
}

/// The secrets that the engine's client fetches from where their URIs say, by name.
pub(crate) async fn find_secrets(
    session: &Session,
    secrets: &[SecretUri],
    within: Duration,
) -> Result<SecretIds, Failed> {
    let mut ids = SecretIds::new();
    for secret in secrets {
        let uri = query::string(&secret.uri);
        let query = format!("query {{ secret(uri: {uri}) {{ id }} }}");
        let answer = session.query(&query, SMALL_ANSWER, within).await?;
        let id = find(&answer, "id").ok_or_else(|| Failed::Garbage("no id".into()))?;
        let id = id.to_owned();
        ids.insert(
            secret.variable.clone().into_bytes(),
            SecretId { id, hidden: false },
        );
    }
    Ok(ids)
}

/// Gives the confidential values to the engine's secret store; their ids by name.
///
/// The engine replaces a secret's text by `***` wherever a command's output shows it, however short
/// it is: the secret "1" would spoil the supervisor's answer. So each is kept behind a name that no
/// output has, up to the first colon.
pub(crate) async fn keep_secrets(
    session: &Session,
    env: &Env,
    within: Duration,
) -> Result<SecretIds, Failed> {
    let mut ids = SecretIds::new();
    for (name, value) in env.iter() {
        let Some(value) = value.filter(|value| value.is_secret) else {
            continue;
        };
        let hidden = [nonce().as_bytes(), b":", value.value.expose()].concat();
        // What is not text travels as the rest of the environment does.
        if let Some(id) = keep_secret(session, &Secret::new(hidden), within).await? {
            ids.insert(name.to_vec(), SecretId { id, hidden: true });
        }
    }
    Ok(ids)
}
