//! Azure Container Apps by URI: settings of the URI first, then those of the environment.
//!
//! It must never put a token into a message.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sandbox_aca::{
    AcaConfig, AcaSandboxProvider, AcaSessionConfig, AcaSessionProvider, Credential,
    DefaultCredential, SessionKind, StaticToken,
};
use sandbox_core::{Error, ErrorKind, Operation, Provider, Result};

use crate::connector::Connector;
use crate::settings::Settings;

/// The variable with a ready token; the default chain of credentials is used if it is not set.
const TOKEN: &str = "SANDBOX_ACA_TOKEN";

/// A setting: its key in a URI, and its variable in the environment.
#[derive(Clone, Copy, Debug)]
struct Setting {
    key: &'static str,
    variable: &'static str,
    /// Variable of other clients of the service, which counts where ours is not set.
    also: Option<&'static str>,
    /// Meaning of the setting, or the command that prints it, for the error if it is missing.
    what: &'static str,
}

const ENDPOINT: Setting = Setting {
    key: "endpoint",
    variable: "SANDBOX_ACA_ENDPOINT",
    also: None,
    what: "the data plane, https://management.REGION.azuredevcompute.io",
};
const SUBSCRIPTION: Setting = Setting {
    key: "subscription",
    variable: "SANDBOX_ACA_SUBSCRIPTION",
    also: Some("AZURE_SUBSCRIPTION_ID"),
    what: "az account show --query id",
};
const RESOURCE_GROUP: Setting = Setting {
    key: "resource_group",
    variable: "SANDBOX_ACA_RESOURCE_GROUP",
    also: None,
    what: "the resource group of the sandbox group",
};
const GROUP: Setting = Setting {
    key: "group",
    variable: "SANDBOX_ACA_GROUP",
    also: None,
    what: "the sandbox group's name",
};
const POOL: Setting = Setting {
    key: "endpoint",
    variable: "SANDBOX_ACA_POOL_ENDPOINT",
    also: Some("ACA_POOL_MANAGEMENT_ENDPOINT"),
    what: "az containerapp sessionpool show --query properties.poolManagementEndpoint",
};
const KIND: Setting = Setting {
    key: "kind",
    variable: "SANDBOX_ACA_POOL_KIND",
    also: None,
    what: "python or shell",
};
const API_VERSION: Setting = Setting {
    key: "api_version",
    variable: "SANDBOX_ACA_API_VERSION",
    also: None,
    what: "2026-02-01-preview or 2026-09-01-preview",
};
const CA_FILE: Setting = Setting {
    key: "ca_file",
    variable: "SANDBOX_ACA_CA_FILE",
    also: None,
    what: "a certificate to trust, as an emulator has it",
};

/// Interval at which idle sandboxes are touched, in seconds; only in a URI, so that it is
/// always asked for.
fn keep_alive(settings: &Settings) -> Result<Option<Duration>> {
    let Some(text) = settings.value("keep_alive") else {
        return Ok(None);
    };
    match text.parse::<u64>() {
        Ok(seconds) if seconds > 0 => Ok(Some(Duration::from_secs(seconds))),
        _ => {
            let why = format!("keep_alive must be a number of seconds above 0, not {text:?}");
            Err(settings.invalid(why))
        }
    }
}

/// `aca-sandboxes:`
pub(super) struct Sandboxes;

#[async_trait]
impl Connector for Sandboxes {
    fn settings(&self) -> &[&str] {
        &[
            "endpoint",
            "subscription",
            "resource_group",
            "group",
            "image",
            "api_version",
            "keep_alive",
            "ca_file",
        ]
    }

    async fn connect(&self, settings: Settings) -> Result<Arc<dyn Provider>> {
        let keep_alive = keep_alive(&settings)?;
        let needed = [ENDPOINT, SUBSCRIPTION, RESOURCE_GROUP, GROUP];
        let given = needed.map(|one| read(&settings, one));
        let [
            Some(endpoint),
            Some(subscription),
            Some(resource_group),
            Some(group),
        ] = given
        else {
            return Err(missing(&settings, &needed));
        };
        let mut config = AcaConfig::new(endpoint, subscription, resource_group, group);
        config = config.keep_alive(keep_alive);
        if let Some(version) = read(&settings, API_VERSION) {
            config = config.api_version(version);
        }
        if let Some(image) = settings.value("image") {
            config = config.disk_image(image);
        }
        if let Some(file) = read(&settings, CA_FILE) {
            config = config.ca_file(file);
        }
        Ok(Arc::new(AcaSandboxProvider::new(
            config.credential(credential()?),
        )?))
    }
}

/// `aca-sessions:`
pub(super) struct Sessions;

#[async_trait]
impl Connector for Sessions {
    fn settings(&self) -> &[&str] {
        &["endpoint", "kind", "egress", "keep_alive", "ca_file"]
    }

    async fn connect(&self, settings: Settings) -> Result<Arc<dyn Provider>> {
        let keep_alive = keep_alive(&settings)?;
        let pool = read(&settings, POOL).ok_or_else(|| missing(&settings, &[POOL]))?;
        let kind = match read(&settings, KIND).as_deref() {
            None | Some("python") => SessionKind::Python,
            Some("shell") => SessionKind::Shell,
            Some(other) => {
                let why = format!("kind must be python or shell, not {other:?}");
                return Err(settings.invalid(why));
            }
        };
        let mut config = AcaSessionConfig::new(pool, kind).keep_alive(keep_alive);
        match settings.value("egress") {
            None | Some("off") => {}
            Some("on") => config = config.egress(true),
            Some(other) => {
                return Err(settings.invalid(format!("egress must be on or off, not {other:?}")));
            }
        }
        if let Some(file) = read(&settings, CA_FILE) {
            config = config.ca_file(file);
        }
        Ok(Arc::new(AcaSessionProvider::new(
            config.credential(credential()?),
        )?))
    }
}

/// The value of a setting, from the URI or else from the environment.
fn read(settings: &Settings, setting: Setting) -> Option<String> {
    let given = settings.value(setting.key).map(str::to_owned);
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    given
        .or_else(|| variable(setting.variable))
        .or_else(|| variable(setting.also?))
}

fn credential() -> Result<Arc<dyn Credential>> {
    match std::env::var(TOKEN) {
        Ok(token) if !token.is_empty() => Ok(Arc::new(StaticToken::new(token))),
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(Error::new(ErrorKind::InvalidInput, Operation::Connect)
                .with_message(format!("{TOKEN} is not UTF-8")))
        }
        _ => Ok(Arc::new(DefaultCredential::new())),
    }
}

/// The error of a URI without all settings that are needed: it names every one of them, set or not,
/// with where to find its value.
fn missing(settings: &Settings, needed: &[Setting]) -> Error {
    let needed: Vec<String> = needed
        .iter()
        .map(|one| format!("{} or {} ({})", one.key, one.variable, one.what))
        .collect();
    settings.invalid("a setting is missing").with_hint(format!(
        "needed are {}; without Azure: see the emulator in sandbox-aca's README",
        needed.join(", ")
    ))
}
