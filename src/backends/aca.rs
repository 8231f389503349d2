//! Azure Container Apps by URI: settings of the URI first, then those of the environment.
//!
//! It must never put a token into a message.

use std::sync::Arc;
use std::time::Duration;

use sandbox_aca::{
    AcaConfig, AcaSandboxProvider, AcaSessionConfig, AcaSessionProvider, Credential,
    DefaultCredential, SessionKind, StaticToken,
};
use sandbox_core::{Error, ErrorKind, Operation, Provider, Result};

use crate::uri::{Uri, invalid};

/// A token that somebody else got; the chain of credentials if it is not set.
const TOKEN: &str = "SANDBOX_ACA_TOKEN";

/// A setting: what it is called in a URI, and in the environment.
#[derive(Clone, Copy, Debug)]
struct Setting {
    key: &'static str,
    variable: &'static str,
    /// What it is, for whoever has not set it.
    what: &'static str,
}

const ENDPOINT: Setting = Setting {
    key: "endpoint",
    variable: "SANDBOX_ACA_ENDPOINT",
    what: "the data plane, https://management.REGION.azuredevcompute.io",
};
const SUBSCRIPTION: Setting = Setting {
    key: "subscription",
    variable: "SANDBOX_ACA_SUBSCRIPTION",
    what: "az account show --query id",
};
const RESOURCE_GROUP: Setting = Setting {
    key: "resource_group",
    variable: "SANDBOX_ACA_RESOURCE_GROUP",
    what: "the resource group of the sandbox group",
};
const GROUP: Setting = Setting {
    key: "group",
    variable: "SANDBOX_ACA_GROUP",
    what: "the sandbox group's name",
};
const POOL: Setting = Setting {
    key: "endpoint",
    variable: "SANDBOX_ACA_POOL_ENDPOINT",
    what: "az containerapp sessionpool show --query properties.poolManagementEndpoint",
};
const KIND: Setting = Setting {
    key: "kind",
    variable: "SANDBOX_ACA_POOL_KIND",
    what: "python or shell",
};
const CA_FILE: Setting = Setting {
    key: "ca_file",
    variable: "SANDBOX_ACA_CA_FILE",
    what: "a certificate to trust, as an emulator has it",
};

/// How often idle sandboxes are touched, in seconds; only in a URI: nobody gets it unasked.
fn keep_alive(uri: &mut Uri<'_>) -> Result<Option<Duration>> {
    let Some(text) = uri.value("keep_alive") else {
        return Ok(None);
    };
    match text.parse::<u64>() {
        Ok(seconds) if seconds > 0 => Ok(Some(Duration::from_secs(seconds))),
        _ => Err(invalid(
            uri.text(),
            format!("keep_alive is a number of seconds, not {text:?}"),
        )),
    }
}

/// `aca-sandboxes:`
pub(super) fn sandboxes(mut uri: Uri<'_>) -> Result<Arc<dyn Provider>> {
    let text = uri.text();
    let image = uri.value("image");
    let keep_alive = keep_alive(&mut uri)?;
    let ca_file = read(&mut uri, CA_FILE);
    let needed = [ENDPOINT, SUBSCRIPTION, RESOURCE_GROUP, GROUP];
    let [endpoint, subscription, resource_group, group] = needed.map(|one| read(&mut uri, one));
    uri.finish("endpoint, subscription, resource_group, group, image, keep_alive, ca_file")?;
    let given = (endpoint, subscription, resource_group, group);
    let (Some(endpoint), Some(subscription), Some(resource_group), Some(group)) = given else {
        return Err(missing(text, &needed));
    };
    let mut config = AcaConfig::new(endpoint, subscription, resource_group, group);
    config.keep_alive = keep_alive;
    if let Some(image) = image {
        config = config.disk_image(image);
    }
    if let Some(file) = ca_file {
        config = config.ca_file(file);
    }
    Ok(Arc::new(AcaSandboxProvider::new(config, credential()?)?))
}

/// `aca-sessions:`
pub(super) fn sessions(mut uri: Uri<'_>) -> Result<Arc<dyn Provider>> {
    let text = uri.text();
    let [pool, kind, ca_file] = [POOL, KIND, CA_FILE].map(|one| read(&mut uri, one));
    let egress = uri.value("egress");
    let keep_alive = keep_alive(&mut uri)?;
    uri.finish("endpoint, kind, egress, keep_alive, ca_file")?;
    let pool = pool.ok_or_else(|| missing(text, &[POOL]))?;
    let kind = match kind.as_deref() {
        None | Some("python") => SessionKind::Python,
        Some("shell") => SessionKind::Shell,
        Some(other) => {
            return Err(invalid(
                text,
                format!("kind is python or shell, not {other:?}"),
            ));
        }
    };
    let mut config = AcaSessionConfig::new(pool, kind);
    config.keep_alive = keep_alive;
    match egress.as_deref() {
        None | Some("off") => {}
        Some("on") => config = config.egress(true),
        Some(other) => return Err(invalid(text, format!("egress is on or off, not {other:?}"))),
    }
    if let Some(file) = ca_file {
        config = config.ca_file(file);
    }
    Ok(Arc::new(AcaSessionProvider::new(config, credential()?)?))
}

fn read(uri: &mut Uri<'_>, setting: Setting) -> Option<String> {
    let given = uri.value(setting.key);
    given.or_else(|| {
        std::env::var(setting.variable)
            .ok()
            .filter(|value| !value.is_empty())
    })
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

/// Some of these are not set; it says all that are needed, so that nobody has to try again and
/// again.
fn missing(text: &str, needed: &[Setting]) -> Error {
    let needed: Vec<String> = needed
        .iter()
        .map(|one| format!("{} or {} ({})", one.key, one.variable, one.what))
        .collect();
    invalid(text, "a setting is missing").with_hint(format!(
        "needed are {}; without Azure: see the emulator in sandbox-aca's README",
        needed.join(", ")
    ))
}
