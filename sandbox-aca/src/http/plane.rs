//! One data plane: its address, the beginning of its paths, the credential of its callers.
//!
//! Nothing here is secret.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use sandbox_core::{Error, ErrorKind, Operation, Result};

/// A data plane.
#[derive(Clone, Debug)]
pub(crate) struct Plane {
    /// The endpoint, with a path of its own if it has one.
    pub(crate) endpoint: String,
    /// Beginning of every path, in parts that are not encoded.
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
    /// Address at which its paths begin.
    pub(super) fn base(&self) -> Result<Url> {
        let mut base = Url::parse(self.endpoint.trim_end_matches('/'))
            .map_err(|e| invalid("the endpoint is not a URL".into()).with_source(e))?;
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
pub(crate) fn invalid(why: String) -> Error {
    Error::new(ErrorKind::InvalidInput, Operation::Connect).with_message(why)
}
