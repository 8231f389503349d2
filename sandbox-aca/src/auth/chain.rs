//! The default chain: client secret, workload identity, managed identity, developer tools.
//!
//! The first that gives a token is asked from then on; nothing is guessed beyond the environment.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use azure_core::credentials::{Secret as AzureSecret, TokenCredential};
use azure_identity::{
    ClientSecretCredential, DeveloperToolsCredential, ManagedIdentityCredential,
    WorkloadIdentityCredential,
};
use sandbox_core::{Error, ErrorKind, Operation, Result};
use tokio::sync::Mutex;

use super::{AccessToken, Credential};

/// Wait for the metadata service of a machine, which elsewhere never answers.
const PROBE: Duration = Duration::from_secs(3);
/// Wait for any other source.
const PATIENCE: Duration = Duration::from_secs(30);

/// The usual sources of tokens, one after the other; the one that works is remembered.
///
/// | | From |
/// |---|---|
/// | client secret | `AZURE_TENANT_ID`, `AZURE_CLIENT_ID`, `AZURE_CLIENT_SECRET` |
/// | workload identity | `AZURE_FEDERATED_TOKEN_FILE` and the two identifiers |
/// | managed identity | `IDENTITY_ENDPOINT`, or the machine's metadata service |
/// | developer tools | `az login`, `azd auth login` |
#[derive(Default)]
pub struct DefaultCredential {
    winner: Mutex<Option<Winner>>,
}

/// The source that gave a token.
struct Winner {
    name: &'static str,
    /// Makes it anew: it keeps tokens, and has no way to be told that one was refused.
    make: fn() -> Made,
    source: Arc<dyn TokenCredential>,
}

impl DefaultCredential {
    /// The chain. Nothing is asked yet.
    pub fn new() -> Self {
        Self::default()
    }
}

impl fmt::Debug for DefaultCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DefaultCredential")
    }
}

type Made = std::result::Result<Arc<dyn TokenCredential>, String>;

fn variable(name: &str) -> std::result::Result<String, String> {
    std::env::var(name).map_err(|_| format!("{name} is not set"))
}

/// An error of a credential as text: never the token, which no error has.
fn text(error: &azure_core::Error) -> String {
    error
        .to_string()
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(300)
        .collect()
}

fn client_secret() -> Made {
    let (tenant, client) = (variable("AZURE_TENANT_ID")?, variable("AZURE_CLIENT_ID")?);
    let secret = AzureSecret::from(variable("AZURE_CLIENT_SECRET")?);
    let made = ClientSecretCredential::new(&tenant, client, secret, None);
    made.map(|made| made as _).map_err(|error| text(&error))
}

fn workload() -> Made {
    variable("AZURE_FEDERATED_TOKEN_FILE")?;
    let made = WorkloadIdentityCredential::new(None);
    made.map(|made| made as _).map_err(|error| text(&error))
}

fn managed() -> Made {
    let made = ManagedIdentityCredential::new(None);
    made.map(|made| made as _).map_err(|error| text(&error))
}

fn developer() -> Made {
    let made = DeveloperToolsCredential::new(None);
    made.map(|made| made as _).map_err(|error| text(&error))
}

async fn ask(
    source: &dyn TokenCredential,
    scope: &str,
    patience: Duration,
) -> std::result::Result<AccessToken, String> {
    let asked = tokio::time::timeout(patience, source.get_token(&[scope], None)).await;
    let token = asked
        .map_err(|_| format!("no answer in {patience:?}"))?
        .map_err(|error| text(&error))?;
    let seconds = u64::try_from(token.expires_on.unix_timestamp()).unwrap_or(0);
    let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    Ok(AccessToken::new(token.token.secret(), Some(expires)))
}

impl Winner {
    async fn ask(&self, scope: &str) -> Result<AccessToken> {
        let asked = ask(&*self.source, scope, PATIENCE).await;
        asked.map_err(|why| failed(scope, &format!("{}: {why}", self.name)))
    }
}

fn failed(scope: &str, why: &str) -> Error {
    Error::new(ErrorKind::Unauthenticated, Operation::Connect)
        .with_message(format!("no credential gave a token for {scope}: {why}"))
        .with_hint(format!(
            "sign in with: az login --scope {scope}, or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET"
        ))
}

/// Source of tokens: its name, its constructor, its time limit.
type Source = (&'static str, fn() -> Made, Duration);

/// Asks one source after the other.
async fn search(scope: &str) -> Result<(Winner, AccessToken)> {
    let at_hand = std::env::var_os("IDENTITY_ENDPOINT").is_some();
    let probe = if at_hand { PATIENCE } else { PROBE };
    let sources: [Source; 4] = [
        ("client secret", client_secret, PATIENCE),
        ("workload identity", workload, PATIENCE),
        ("managed identity", managed, probe),
        ("developer tools", developer, PATIENCE),
    ];
    let mut lacking = Vec::new();
    for (name, make, patience) in sources {
        let asked = match make() {
            Ok(source) => match ask(&*source, scope, patience).await {
                Ok(token) => {
                    tracing::debug!(credential = name, "the credential that works");
                    return Ok((Winner { name, make, source }, token));
                }
                Err(why) => why,
            },
            Err(why) => why,
        };
        lacking.push(format!("{name}: {asked}"));
    }
    Err(failed(scope, &lacking.join("; ")))
}

#[async_trait]
impl Credential for DefaultCredential {
    async fn token(&self, scope: &str) -> Result<AccessToken> {
        // The sources speak TLS by the process's provider; one that is installed already is kept.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut winner = self.winner.lock().await;
        match winner.as_ref() {
            Some(known) => known.ask(scope).await,
            None => {
                let (found, token) = search(scope).await?;
                *winner = Some(found);
                Ok(token)
            }
        }
    }

    async fn renewed(&self, scope: &str) -> Result<AccessToken> {
        if let Some(known) = self.winner.lock().await.as_mut()
            && let Ok(source) = (known.make)()
        {
            known.source = source;
        }
        self.token(scope).await
    }
}
