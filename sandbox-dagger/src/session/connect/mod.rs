//! How a session is had: given, from the environment, or from a CLI.
//!
//! Invariant: a broken setting is an error, never a reason to try the next way.

mod cli;
mod sdk;

use sandbox_core::{Error, ErrorKind, Operation, Result};

use crate::config::DaggerConfig;
use crate::session::client::{Client, SMALL_ANSWER};
use crate::session::query::find;

/// A connection to an engine; the CLI that serves it, if there is one, ends with it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client: Client,
    cli: Option<cli::Cli>,
}

fn invalid(why: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, Operation::Connect).with_message(why)
}

impl Session {
    /// Opens a session and asks its engine's version.
    pub(crate) async fn open(config: &DaggerConfig) -> Result<Self> {
        let session = Self::find(config).await?;
        let asked = session
            .client
            .query("query { version }", SMALL_ANSWER, config.connect_timeout);
        let answer = asked
            .await
            .map_err(|failed| failed.error(Operation::Connect))?;
        check_version(find(&answer, "version").unwrap_or("unknown"))?;
        Ok(session)
    }

    async fn find(config: &DaggerConfig) -> Result<Self> {
        if let Some((port, token)) = &config.session {
            let token = std::str::from_utf8(token.expose());
            let token = token.map_err(|_| invalid("the session's token is not UTF-8"))?;
            return Ok(Self {
                client: Client::new(*port, token),
                cli: None,
            });
        }
        if let Some((port, token)) = from_environment()? {
            return Ok(Self {
                client: Client::new(port, &token),
                cli: None,
            });
        }
        let given = config.cli.clone();
        let named = || std::env::var_os("_EXPERIMENTAL_DAGGER_CLI_BIN").map(Into::into);
        let program = match given.or_else(named).or_else(|| cli::on_path("dagger")) {
            Some(program) => program,
            None if config.download => sdk::download().await?,
            None => {
                let why = "there is no Dagger session and no Dagger CLI";
                return Err(Error::new(ErrorKind::Unavailable, Operation::Connect)
                    .with_message(why)
                    .with_retryable(false)
                    .with_hint(format!(
                        "install the CLI {} (https://docs.dagger.io/install), name it with \
                         DaggerConfig::cli, or allow its download",
                        sdk::MADE_FOR
                    )));
            }
        };
        let (cli, port, token) = cli::Cli::start(&program, config.connect_timeout).await?;
        Ok(Self {
            client: Client::new(port, &token),
            cli: Some(cli),
        })
    }

    /// Ends the CLI in bounded time.
    pub(crate) async fn stop(self) {
        if let Some(cli) = self.cli {
            cli.stop().await;
        }
    }
}

fn from_environment() -> Result<Option<(u16, String)>> {
    let Ok(port) = std::env::var("DAGGER_SESSION_PORT") else {
        return Ok(None);
    };
    let port = port
        .parse()
        .map_err(|_| invalid("DAGGER_SESSION_PORT is no port"))?;
    let token = std::env::var("DAGGER_SESSION_TOKEN")
        .map_err(|_| invalid("DAGGER_SESSION_PORT is set without DAGGER_SESSION_TOKEN"))?;
    Ok(Some((port, token)))
}

/// Whether an engine speaks the schema that this crate uses: 0.21 and later, below 1.0.
fn check_version(version: &str) -> Result<()> {
    let mut numbers = version.trim_start_matches('v').split(['.', '-', '+']);
    let mut next = || numbers.next().and_then(|number| number.parse::<u32>().ok());
    match (next(), next()) {
        (Some(0), Some(minor)) if minor >= 21 => Ok(()),
        _ => Err(Error::new(ErrorKind::Unavailable, Operation::Connect)
            .with_message(format!("the Dagger engine is version {version}"))
            .with_retryable(false)
            .with_hint(format!(
                "this crate needs 0.21 or later and below 1.0; {} is best",
                sdk::MADE_FOR
            ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_engines_of_the_known_schema_are_used() {
        for good in ["v0.21.11", "0.21.0", "v0.22.0-dev"] {
            assert!(check_version(good).is_ok(), "{good}");
        }
        for bad in ["v0.20.8", "v1.0.0-beta.23", "unknown", ""] {
            assert!(check_version(bad).is_err(), "{bad}");
        }
    }
}
