//! Logins at registries: found by the reference of an image, handed over as secrets.
//!
//! Invariant: a password is in no query but the one that hands it over.

use sandbox_core::{Error, ErrorKind, Operation};

use crate::config::DaggerConfig;
use crate::session::connect::Session;
use crate::session::failure::NotMade;
use crate::session::query;
use crate::session::secrets::keep_secret;

/// The registry of a reference, as Docker reads it.
fn registry(reference: &str) -> &str {
    match reference.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "docker.io",
    }
}

/// Wraps the login of the reference's registry around a selection on a container.
pub(crate) async fn signed_in(
    session: &Session,
    config: &DaggerConfig,
    reference: &str,
    operation: Operation,
    below: String,
) -> std::result::Result<String, NotMade> {
    let registry = registry(reference);
    let login = config
        .logins
        .iter()
        .find(|login| login.registry == registry);
    let Some(login) = login else {
        return Ok(below);
    };
    let id = keep_secret(session, &login.password, config.operation_timeout).await?;
    let id = id.ok_or_else(|| {
        Error::new(ErrorKind::InvalidInput, operation)
            .with_message(format!("the password for {registry} is not UTF-8"))
    })?;
    Ok(format!(
        "withRegistryAuth(address: {}, username: {}, secret: {}) {{ {below} }}",
        query::string(registry),
        query::string(&login.user),
        query::string(&id)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_names_its_registry() {
        for (reference, expected) in [
            ("alpine", "docker.io"),
            ("library/alpine:3", "docker.io"),
            ("ghcr.io/acme/agent:1", "ghcr.io"),
            ("localhost/agent", "localhost"),
            ("localhost:5000/agent", "localhost:5000"),
        ] {
            assert_eq!(registry(reference), expected);
        }
    }
}
