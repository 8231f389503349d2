//! Chooses a provider from a URI, from the environment, or from a fallback chain that is written
//! out.
//!
//! It must never choose a weaker backend that the caller did not name.

use std::sync::Arc;

use sandbox_core::{
    Capability, Error, ErrorKind, Network, Operation, Provider, Result, SandboxSpec,
};

use crate::registry::Registry;

/// The variable that [`connect_from_env`] reads.
pub const PROVIDER_VARIABLE: &str = "SANDBOX_PROVIDER";

/// A provider and how it was chosen.
#[derive(Debug)]
#[non_exhaustive]
pub struct Selection {
    /// The provider.
    pub provider: Arc<dyn Provider>,
    /// The URI that it was made from.
    pub uri: String,
    /// The URIs before it in the chain, and why each did not work.
    pub rejected: Vec<(String, Error)>,
}

/// The provider that a URI names, of the backends of this crate.
///
/// Settings follow the scheme as `?key=value&key=value`, percent-encoded where needed. A
/// [`Registry`] has the schemes of other backends too.
///
/// | URI | Settings |
/// |---|---|
/// | `local:` | `state_dir`: where its sandboxes keep their files |
/// | `local-landlock:` | `base_dir`: the same; Landlock without namespaces, **weaker** than `local:` |
/// | `local-plain:` | `base_dir`: the same; ordinary processes, **no isolation** |
/// | `dagger:` | `cli`: the Dagger CLI; `image`: of sandboxes whose spec names none; `user`: that they run as; `cache`: `KEY:/PATH`, several with semicolons between; `login`: `USER@REGISTRY=/FILE`, where the file has the password; `snapshots`: a directory or a repository that keeps them |
/// | `aca-sandboxes:` | `endpoint`, `subscription`, `resource_group`, `group`: the sandbox group; `image`: the public disk image; `api_version`: the version of the service's interface; `keep_alive`: touch what was idle for so many seconds; `ca_file` |
/// | `aca-sessions:` | `endpoint`: of the session pool; `kind`: `python` (default) or `shell`, as the pool is; `egress`: `on` if the pool has it; `keep_alive`: the same; `ca_file` |
/// | `remote:ADDRESS` | `token_file`: holds the token, otherwise `SANDBOX_REMOTE_TOKEN` or the file that `SANDBOX_REMOTE_TOKEN_FILE` names; `ca_file`; `identifier`: of a pool's container; `keep`: `yes` lets sandboxes outlive their handles |
///
/// A setting of Azure Container Apps that is not in the URI is taken from the environment:
/// `SANDBOX_ACA_ENDPOINT`, `SANDBOX_ACA_SUBSCRIPTION`, `SANDBOX_ACA_RESOURCE_GROUP`,
/// `SANDBOX_ACA_GROUP`, `SANDBOX_ACA_POOL_ENDPOINT`, `SANDBOX_ACA_POOL_KIND`,
/// `SANDBOX_ACA_CA_FILE`. What other clients take is understood where those are not set:
/// `ACA_POOL_MANAGEMENT_ENDPOINT`, `AZURE_SUBSCRIPTION_ID`. Tokens come from the default chain,
/// unless `SANDBOX_ACA_TOKEN` has one.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] for an unknown scheme (the message lists those that are known, and
/// the feature that would bring one that is missing) and for an unknown setting (it lists those of
/// the scheme); [`ErrorKind::Unsupported`] for a backend that this platform does not have; what the
/// backend says if it can't be reached.
///
/// ```
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let provider = sandbox::connect("local-plain:").await?;
/// assert_eq!(provider.backend(), "local-plain");
/// # Ok::<(), sandbox::Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub async fn connect(uri: &str) -> Result<Arc<dyn Provider>> {
    Registry::built_in().connect(uri).await
}

/// The first provider of a chain that works.
///
/// The chain is URIs with commas between them (a comma inside of one is `%2C`). With a single URI
/// this is [`connect`]. With more, each is tried by creating and closing a sandbox, without
/// network where the backend can, and the first that does so is taken; nothing behind it is
/// connected to. The [`Selection`] says which one, and why those before it were not: print that,
/// because what stands later in a chain may isolate less.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] for an unknown scheme or setting, wherever it stands in the chain, and
/// for a value that can't be right where it is tried; [`ErrorKind::Unavailable`] if none works, with
/// the reasons.
pub async fn connect_chain(uris: &str) -> Result<Selection> {
    Registry::built_in().connect_chain(uris).await
}

/// The provider that the variable [`PROVIDER_VARIABLE`] names: a URI or a chain of URIs, as in
/// [`connect_chain`]; `local:` if the variable is not set.
///
/// # Errors
/// Those of [`connect_chain`]; [`ErrorKind::InvalidInput`] if the variable is empty or not UTF-8.
pub async fn connect_from_env() -> Result<Selection> {
    Registry::built_in().connect_from_env().await
}

impl Registry {
    /// The first provider of a chain that works; see [`connect_chain`](crate::connect_chain()).
    ///
    /// # Errors
    /// Those of [`connect_chain`](crate::connect_chain()).
    pub async fn connect_chain(&self, uris: &str) -> Result<Selection> {
        let uris: Vec<&str> = uris.split(',').collect();
        chain(self, &uris).await
    }

    /// The provider that the variable [`PROVIDER_VARIABLE`] names; see
    /// [`connect_from_env`](crate::connect_from_env()).
    ///
    /// # Errors
    /// Those of [`connect_chain`](Registry::connect_chain); [`ErrorKind::InvalidInput`] if the
    /// variable is empty or not UTF-8.
    pub async fn connect_from_env(&self) -> Result<Selection> {
        match std::env::var(PROVIDER_VARIABLE) {
            Ok(uris) => self.connect_chain(&uris).await,
            Err(std::env::VarError::NotPresent) => self.connect_chain("local:").await,
            Err(e) => Err(Error::new(ErrorKind::InvalidInput, Operation::Connect)
                .with_message(format!("{PROVIDER_VARIABLE} is not UTF-8"))
                .with_source(e)),
        }
    }
}

/// The first provider of a chain that works, among the schemes of a registry.
pub(crate) async fn chain(registry: &Registry, uris: &[impl AsRef<str>]) -> Result<Selection> {
    let uris: Vec<&str> = uris.iter().map(|uri| uri.as_ref().trim()).collect();
    if let [uri] = uris[..] {
        return Ok(Selection {
            provider: registry.connect(uri).await?,
            uri: uri.to_owned(),
            rejected: Vec::new(),
        });
    }
    // All of them first: a mistake behind the one that is taken would come to light only on the day on
    // which it is needed.
    for uri in &uris {
        registry.check(uri)?;
    }
    let mut rejected = Vec::new();
    for uri in uris {
        let tried = match registry.connect(uri).await {
            Err(error) if error.kind() == ErrorKind::InvalidInput => return Err(error),
            Ok(provider) => probe(&*provider).await.map(|()| provider),
            Err(error) => Err(error),
        };
        match tried {
            Ok(provider) => {
                return Ok(Selection {
                    provider,
                    uri: uri.to_owned(),
                    rejected,
                });
            }
            Err(error) => rejected.push((uri.to_owned(), error)),
        }
    }
    Err(none_works(&rejected))
}

/// Checks that a sandbox can be made: nothing less tells it for every backend.
async fn probe(provider: &dyn Provider) -> Result<()> {
    let network = if provider.capabilities().has(Capability::NetworkOff) {
        Network::Off
    } else {
        Network::Open
    };
    let spec = SandboxSpec::new().network(network);
    provider.create(spec).await?.close().await
}

fn none_works(rejected: &[(String, Error)]) -> Error {
    let reasons: Vec<String> = rejected
        .iter()
        .map(|(uri, error)| format!("{uri} ({error})"))
        .collect();
    Error::new(ErrorKind::Unavailable, Operation::Connect).with_message(format!(
        "none of the providers works: {}",
        reasons.join(", ")
    ))
}
