//! `remote:`, sandboxes behind a server.
//!
//! It must never put a token into a message, or take one from a URI: URIs are printed.

use std::sync::Arc;

use async_trait::async_trait;
use sandbox_core::{Provider, Result};
use sandbox_remote::{RemoteConfig, RemoteProvider, TokenFile};

use crate::connector::Connector;
use crate::settings::Settings;

/// The variable with the token.
const TOKEN: &str = "SANDBOX_REMOTE_TOKEN";

/// The variable with the path of a file that has the token.
const TOKEN_FILE: &str = "SANDBOX_REMOTE_TOKEN_FILE";

/// `remote:`
pub(super) struct Remote;

#[async_trait]
impl Connector for Remote {
    fn settings(&self) -> &[&str] {
        &["token_file", "ca_file", "identifier", "keep"]
    }

    fn takes_address(&self) -> bool {
        true
    }

    async fn connect(&self, settings: Settings) -> Result<Arc<dyn Provider>> {
        if settings.address().is_empty() {
            return Err(settings
                .invalid("the server's address is missing")
                .with_hint("write it as remote:https://HOST:PORT or remote:unix:/PATH"));
        }
        let address = match settings.value("identifier") {
            // Of a pool of containers: which one.
            Some(identifier) => {
                let all = percent_encoding::NON_ALPHANUMERIC;
                let identifier = percent_encoding::utf8_percent_encode(identifier, all);
                format!("{}?identifier={identifier}", settings.address())
            }
            None => settings.address().to_owned(),
        };
        let mut config = RemoteConfig::new(&address)?;
        if let Some(file) = settings.path("ca_file")? {
            config = config.ca_file(file);
        }
        match settings.value("keep") {
            None | Some("no") => {}
            Some("yes") => config = config.keep(true),
            Some(other) => {
                return Err(settings.invalid(format!("keep must be yes or no, not {other:?}")));
            }
        }
        let of_environment = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        if let Some(file) = settings.path("token_file")? {
            config = config.token(TokenFile::new(file));
        } else if let Some(token) = of_environment(TOKEN) {
            config = config.secret(token);
        } else if let Some(file) = of_environment(TOKEN_FILE) {
            config = config.token(TokenFile::new(file));
        }
        Ok(Arc::new(RemoteProvider::connect(config).await?))
    }
}
