//! `dagger:`, containers of a Dagger engine.
//!
//! It must never hand out a provider whose engine was not reached.

use std::sync::Arc;

use async_trait::async_trait;
use sandbox_core::{Error, Operation, Provider, Result};
use sandbox_dagger::{CacheMount, DaggerConfig, DaggerProvider, RegistryLogin, Snapshots};

use crate::connector::Connector;
use crate::settings::Settings;

/// `dagger:`
pub(super) struct Dagger;

#[async_trait]
impl Connector for Dagger {
    fn settings(&self) -> &[&str] {
        &["cli", "image", "user", "cache", "login", "snapshots"]
    }

    async fn connect(&self, settings: Settings) -> Result<Arc<dyn Provider>> {
        Ok(Arc::new(provider(&settings).await?))
    }
}

/// Makes the provider, connected.
async fn provider(settings: &Settings) -> Result<DaggerProvider> {
    let mut config = DaggerConfig::default();
    if let Some(cli) = settings.path("cli")? {
        config = config.cli(cli);
    }
    if let Some(image) = settings.value("image") {
        config = config.image(image);
    }
    if let Some(user) = settings.value("user") {
        config = config.user(user);
    }
    for cache in settings
        .value("cache")
        .iter()
        .flat_map(|all| all.split(';'))
    {
        let (key, path) = cache
            .split_once(':')
            .filter(|(key, path)| !key.is_empty() && path.starts_with('/'))
            .ok_or_else(|| {
                settings.invalid("cache is KEY:/PATH, several with semicolons between")
            })?;
        config = config.cache(CacheMount::new(key, path));
    }
    if let Some(login) = settings.value("login") {
        config = config.login(self::login(settings, login)?);
    }
    match settings.value("snapshots") {
        None => {}
        Some(path) if path.starts_with('/') => {
            config = config.snapshots(Snapshots::Tarballs(path.into()));
        }
        Some(repository) => {
            config = config.snapshots(Snapshots::Registry(repository.to_owned()));
        }
    }
    let provider = DaggerProvider::new(config)?;
    provider.connect().await?;
    Ok(provider)
}

/// A login whose password is in a file: a URI is logged and shown.
fn login(settings: &Settings, text: &str) -> Result<RegistryLogin> {
    let wrong = || {
        let why = "login is USER@REGISTRY=/FILE, where FILE on the host has the password";
        settings.invalid(why)
    };
    let (user, place) = text.split_once('@').ok_or_else(wrong)?;
    let (registry, file) = place.split_once('=').ok_or_else(wrong)?;
    if user.is_empty() || registry.is_empty() || !file.starts_with('/') {
        return Err(wrong());
    }
    let password = std::fs::read_to_string(file)
        .map_err(|error| Error::from_io(error, Operation::Connect).with_host_path(file))?;
    Ok(RegistryLogin::new(registry, user, password.trim_end()))
}

/// The provider that a `dagger:` URI names, with everything that only it has: services, publishing,
/// the engine's store. [`connect`](crate::connect()) gives the same provider as any other.
///
/// # Errors
/// As [`connect`](crate::connect()); [`InvalidInput`](crate::ErrorKind::InvalidInput) for a URI of
/// another scheme.
///
/// ```no_run
/// # async fn run() -> sandbox::Result<()> {
/// use sandbox::dagger::{Base, ImageBuild};
/// let provider = sandbox::dagger::connect("dagger:?login=acme@ghcr.io=/run/secrets/ghcr").await?;
/// let image = ImageBuild::new(Base::Image("alpine:3.22".into())).run("apk add git");
/// provider.publish_image(&image, "ghcr.io/acme/git:1").await?;
/// # Ok(()) }
/// ```
pub async fn connect(uri: &str) -> Result<DaggerProvider> {
    let settings = Settings::parse(uri)?;
    if settings.scheme() != "dagger" {
        return Err(settings.invalid("this is not a dagger: URI"));
    }
    settings.no_address()?;
    settings.only(Dagger.settings())?;
    provider(&settings).await
}
