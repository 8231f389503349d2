//! What one data plane is: where it stands, what its paths begin with, who may call it.
//!
//! Nothing here is secret.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use sandbox_core::{Error, ErrorKind, Operation, Result};

use crate::config::AcaConfig;

/// A data plane.
#[derive(Clone, Debug)]
pub(crate) struct Plane {
    /// The endpoint, with a path of its own if it has one.
    pub(crate) endpoint: String,
    /// What every path begins with, in parts that are not encoded.
    pub(crate) prefix: Vec<String>,
    pub(crate) api_version: String,
    /// A certificate (PEM) to trust beside those of the system.
    pub(crate) ca_file: Option<PathBuf>,
    /// The role that the data plane asks for, and the resource that it must be given on.
    pub(crate) role: &'static str,
    pub(crate) resource: String,
    /// For how long a 403 is taken for a role that has not arrived yet.
    pub(crate) role_wait: Duration,
}

impl Plane {
    /// The plane of a sandbox group.
    pub(crate) fn of_group(config: &AcaConfig) -> Result<Self> {
        let AcaConfig {
            subscription,
            resource_group,
            sandbox_group,
            ..
        } = config;
        for (name, value) in [
            ("subscription", subscription),
            ("resource_group", resource_group),
            ("sandbox_group", sandbox_group),
        ] {
            if value.is_empty() || value.contains(['/', '\\']) || value == ".." || value == "." {
                return Err(invalid(format!("{name} is empty or no name")));
            }
        }
        let prefix = [
            "subscriptions",
            subscription,
            "resourceGroups",
            resource_group,
            "sandboxGroups",
            sandbox_group,
        ];
        Ok(Self {
            endpoint: config.endpoint.clone(),
            prefix: prefix.map(str::to_owned).to_vec(),
            api_version: config.api_version.clone(),
            ca_file: config.ca_file.clone(),
            role: "Container Apps SandboxGroup Data Owner",
            resource: format!(
                "/subscriptions/{subscription}/resourceGroups/{resource_group}/providers/Microsoft.App/sandboxGroups/{sandbox_group}"
            ),
            role_wait: config.role_wait,
        })
    }

    /// Where its paths begin.
    pub(super) fn base(&self) -> Result<Url> {
        let mut base = Url::parse(self.endpoint.trim_end_matches('/'))
            .map_err(|e| invalid("the endpoint is no URL".into()).with_source(e))?;
        let local = base
            .host_str()
            .is_some_and(|host| ["localhost", "127.0.0.1", "[::1]"].contains(&host));
        if base.scheme() != "https" && !(base.scheme() == "http" && local) {
            return Err(invalid(
                "the endpoint must be https, or on this host".into(),
            ));
        }
        if let Ok(mut parts) = base.path_segments_mut() {
            parts.pop_if_empty().extend(&self.prefix);
        }
        Ok(base)
    }
}

/// A configuration that can't be right.
pub(super) fn invalid(why: String) -> Error {
    Error::new(ErrorKind::InvalidInput, Operation::Connect).with_message(why)
}
