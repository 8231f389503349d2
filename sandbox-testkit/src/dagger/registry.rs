//! Registries: those in memory, from which what was published can be pulled, with the login of the
//! registry; and real ones on loopback (`127.0.0.1:PORT`), which images are pushed to.
//!
//! Invariant: a registry that something was published to, or that asks for a login, never falls
//! back to this machine's own programs.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use sha2::{Digest as _, Sha256};

use super::config::{Config, Login};
use super::container::Container;
use super::engine::{Engine, Failure, lock};
use super::oci;
use super::state::StateId;
use crate::distribution::{Reference, Session};

#[derive(Debug, Default)]
pub(super) struct Registries(Mutex<Published>);

#[derive(Debug, Default)]
struct Published {
    images: HashMap<String, Image>,
    hosts: HashSet<String>,
    logins: HashMap<String, (String, String)>,
}

/// A published image.
#[derive(Clone, Debug)]
pub(super) struct Image {
    pub(super) config: Config,
    pub(super) digest: String,
    state: StateId,
}

/// The registry of a reference.
fn host(reference: &str) -> &str {
    match reference.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "docker.io",
    }
}

/// Refuses what is no reference of an image, as the engine does before it asks anyone.
pub(super) fn check_reference(reference: &str) -> Result<(), Failure> {
    let invalid = |why: &str| Err(Failure::text(format_args!("invalid reference format{why}")));
    let (named, digest) = match reference.split_once('@') {
        Some((named, digest)) => (named, Some(digest)),
        None => (reference, None),
    };
    let registry = host(named);
    let path = named
        .strip_prefix(registry)
        .and_then(|rest| rest.strip_prefix('/'));
    let path = path.unwrap_or(named);
    let (path, tag) = match path.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (path, None),
    };
    if path.contains(|letter: char| letter.is_ascii_uppercase()) {
        return invalid(&format!(": repository name ({path}) must be lowercase"));
    }
    let is_part = |part: &str| {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
        !part.is_empty()
            && part.chars().all(fits)
            && !part.starts_with(['.', '_', '-'])
            && !part.ends_with(['.', '_', '-'])
    };
    let is_tag = |tag: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        (1..=128).contains(&tag.len()) && tag.chars().all(fits) && !tag.starts_with(['.', '-'])
    };
    let is_digest = |digest: &str| {
        let hex = digest.strip_prefix("sha256:");
        hex.is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    match path.split('/').all(is_part) && tag.is_none_or(is_tag) && digest.is_none_or(is_digest) {
        true => Ok(()),
        false => invalid(""),
    }
}

impl Registries {
    /// Makes this registry ask for a login from now on.
    pub(super) fn require(&self, registry: &str, user: &str, password: &str) {
        let mut inner = lock(&self.0);
        inner.hosts.insert(registry.to_owned());
        let login = (user.to_owned(), password.to_owned());
        inner.logins.insert(registry.to_owned(), login);
    }

    fn check(&self, reference: &str, given: &[Login]) -> Result<(), Failure> {
        let host = host(reference);
        let inner = lock(&self.0);
        let Some((user, password)) = inner.logins.get(host) else {
            return Ok(());
        };
        let right = |login: &Login| {
            login.registry == host && login.user == *user && login.password.plaintext == *password
        };
        match given.iter().any(right) {
            true => Ok(()),
            false => Err(Failure::text(format_args!(
                "failed to authorize: {host}: 401 Unauthorized"
            ))),
        }
    }

    /// Facts about an image before it is pulled.
    pub(super) fn known(&self, reference: &str) -> Option<Image> {
        lock(&self.0).images.get(reference).cloned()
    }

    /// An image's files; nothing if the reference names another registry.
    pub(super) fn pull(
        &self,
        reference: &str,
        logins: &[Login],
    ) -> Result<Option<StateId>, Failure> {
        self.check(reference, logins)?;
        if Reference::new(reference).is_some() {
            let why = "the double pushes to real registries, and pulls from none";
            return Err(Failure::text(format_args!("{reference}: {why}")));
        }
        let inner = lock(&self.0);
        match inner.images.get(reference) {
            Some(image) => Ok(Some(image.state)),
            None if inner.hosts.contains(host(reference)) => Err(Failure::text(format_args!(
                "failed to resolve image {reference:?}: {reference}: not found"
            ))),
            None => Ok(None),
        }
    }

    /// Publishes a container; the reference with its digest.
    pub(super) async fn publish(
        &self,
        engine: &Arc<Engine>,
        container: &Arc<Container>,
        address: &str,
    ) -> Result<String, Failure> {
        check_reference(address)?;
        if let Some(to) = Reference::new(address) {
            return push(engine, container, address, &to).await;
        }
        self.check(address, &container.config.logins)?;
        let state = container.pinned(engine).await?;
        let digest = Sha256::digest(container.digest.as_bytes());
        let digest = digest.iter().map(|byte| format!("{byte:02x}"));
        let digest = digest.collect::<String>();
        let reference = format!("{address}@sha256:{digest}");
        let image = Image {
            config: container.config.of_image(),
            digest,
            state,
        };
        let mut inner = lock(&self.0);
        inner.hosts.insert(host(address).to_owned());
        inner.images.insert(address.to_owned(), image.clone());
        inner.images.insert(reference.clone(), image);
        Ok(reference)
    }
}

/// Pushes a container to a real registry; the reference with its digest.
async fn push(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    address: &str,
    to: &Reference<'_>,
) -> Result<String, Failure> {
    let state = container.state(engine).await?;
    let layer = oci::pack(&*state).await?;
    let registry = to.address().to_string();
    let logins = &container.config.logins;
    let login = logins.iter().find(|login| login.registry == registry);
    let login = login.map(|login| (login.user.as_str(), login.password.plaintext.as_str()));
    let session = Session::login(to, login).await.map_err(Failure::text)?;
    let config = |layer: &serde_json::Value| oci::described(&container.config, layer);
    let digest = session.push(layer.into(), config).await;
    let digest = digest.map_err(Failure::text)?;
    Ok(format!("{address}@{digest}"))
}
