//! The backends that a URI can name: those of this crate, and those that an application adds.
//!
//! It must never let one backend take another's scheme.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use sandbox_core::{Error, ErrorKind, Operation, Provider, Result};

use crate::backends;
use crate::connector::Connector;
use crate::settings::{Settings, invalid};

/// Schemes, and the backends behind them.
///
/// ```
/// use std::sync::Arc;
/// use sandbox::{Connector, Provider, Registry, Result, Settings, async_trait};
/// use sandbox::local::{PlainConfig, PlainProvider};
///
/// struct Mine;
///
/// #[async_trait]
/// impl Connector for Mine {
///     fn settings(&self) -> &[&str] {
///         &["region"]
///     }
///
///     async fn connect(&self, settings: Settings) -> Result<Arc<dyn Provider>> {
///         let _region = settings.value("region").unwrap_or("eu");
///         # let provider = PlainProvider::new(PlainConfig::default())?;
///         Ok(Arc::new(provider))
///     }
/// }
///
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let registry = Registry::built_in().register("mine", Mine)?;
/// let provider = registry.connect("mine:?region=us").await?;
/// # let _ = provider;
/// # Ok::<(), sandbox::Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Registry {
    schemes: BTreeMap<String, Entry>,
}

#[derive(Clone)]
enum Entry {
    Backend(Arc<dyn Connector>),
    /// A scheme of this crate that this build does not have.
    NeedsFeature(&'static str),
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("schemes", &self.schemes.keys())
            .finish()
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::built_in()
    }
}

impl Registry {
    /// A registry without schemes: only what is registered can be named.
    pub fn empty() -> Self {
        Self {
            schemes: BTreeMap::new(),
        }
    }

    /// The schemes of this crate (see [`connect`](crate::connect())).
    pub fn built_in() -> Self {
        let mut schemes = BTreeMap::new();
        for (scheme, feature, connector) in backends::all() {
            let entry = match connector {
                Some(connector) => Entry::Backend(connector),
                None => Entry::NeedsFeature(feature),
            };
            schemes.insert(scheme.to_owned(), entry);
        }
        Self { schemes }
    }

    /// Adds a backend under a scheme, which is written without its colon.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] for a scheme that is taken, also by a backend of this crate that
    /// this build does not have; [`ErrorKind::InvalidInput`] for one that is not lower-case ASCII
    /// letters, digits and hyphens after a letter.
    pub fn register(mut self, scheme: &str, connector: impl Connector) -> Result<Self> {
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if !scheme.starts_with(|c: char| c.is_ascii_lowercase()) || !scheme.bytes().all(fits) {
            return Err(Error::new(ErrorKind::InvalidInput, Operation::Connect)
                .with_message(format!("{scheme:?} can't be a scheme"))
                .with_hint("use lower-case letters, digits and hyphens, a letter first"));
        }
        if self.schemes.contains_key(scheme) {
            return Err(Error::new(ErrorKind::AlreadyExists, Operation::Connect)
                .with_message(format!("the scheme {scheme:?} has a backend already"))
                .with_hint("register this one under another scheme"));
        }
        let entry = Entry::Backend(Arc::new(connector));
        self.schemes.insert(scheme.to_owned(), entry);
        Ok(self)
    }

    /// The schemes that [`connect`](Registry::connect) can reach, in order.
    pub fn schemes(&self) -> impl Iterator<Item = &str> {
        self.schemes
            .iter()
            .filter(|(_, entry)| matches!(entry, Entry::Backend(_)))
            .map(|(scheme, _)| scheme.as_str())
    }

    /// The provider that a URI names; see [`connect`](crate::connect()).
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a scheme or setting that is unknown, with those that are
    /// known; what the backend says if it can't be reached.
    pub async fn connect(&self, uri: &str) -> Result<Arc<dyn Provider>> {
        let (connector, settings) = self.check(uri)?;
        connector.connect(settings).await
    }

    /// Checks the scheme of a URI and the names of its settings, without connecting to anything.
    pub(crate) fn check(&self, uri: &str) -> Result<(&dyn Connector, Settings)> {
        let settings = Settings::parse(uri)?;
        match self.schemes.get(settings.scheme()) {
            Some(Entry::Backend(connector)) => {
                if !connector.takes_address() {
                    settings.no_address()?;
                }
                settings.only(connector.settings())?;
                Ok((&**connector, settings))
            }
            Some(Entry::NeedsFeature(feature)) => {
                let scheme = settings.scheme();
                let why = format!(
                    "this build has no {scheme}: because the crate's feature {feature:?} is off"
                );
                Err(invalid(uri, why).with_hint(format!(
                    "build with the feature {feature:?}, or name another provider: {}",
                    self.known()
                )))
            }
            None => {
                let why = format!("unknown scheme {:?}", settings.scheme());
                Err(invalid(uri, why).with_hint(format!("known: {}", self.known())))
            }
        }
    }

    /// The known schemes as text, with the feature that would bring those that are missing.
    fn known(&self) -> String {
        let known = self.schemes.iter().map(|(scheme, entry)| match entry {
            Entry::Backend(_) => format!("{scheme}:"),
            Entry::NeedsFeature(feature) => format!("{scheme}: (with the feature {feature:?})"),
        });
        known.collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The registry of a build with few features.
    fn small() -> Registry {
        let mut registry = Registry::empty();
        registry
            .schemes
            .insert("dagger".into(), Entry::NeedsFeature("dagger"));
        registry
    }

    #[tokio::test]
    async fn a_scheme_that_this_build_lacks_names_its_feature() {
        let Err(error) = small().connect("dagger:").await else {
            panic!("it is not there");
        };
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let said = error.to_string();
        assert!(said.contains("build with the feature \"dagger\""), "{said}");
    }

    #[tokio::test]
    async fn a_list_of_schemes_names_the_features_of_those_that_are_missing() {
        let Err(error) = small().connect("docker:").await else {
            panic!("it is unknown");
        };
        let said = error.to_string();
        assert!(
            said.contains("dagger: (with the feature \"dagger\")"),
            "{said}"
        );
    }
}
