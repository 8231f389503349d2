//! The settings of a provider's URI: `scheme:?key=value&key=value`, and for some schemes an address
//! before the question mark.
//!
//! It must never ignore a part that it does not know.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use sandbox_core::{Error, ErrorKind, Operation, Result};

/// The settings that a URI gives to a backend, for a [`Connector`](crate::Connector).
///
/// A value is percent-decoded. Keys that the connector does not name are refused before it is
/// called.
#[derive(Debug)]
pub struct Settings {
    uri: String,
    scheme: String,
    address: String,
    pairs: Vec<(String, String)>,
}

/// The error of a URI: why it can't be used.
pub(crate) fn invalid(uri: &str, why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidInput, Operation::Connect)
        .with_message(format!("{why}, in the provider URI {uri:?}"))
}

impl Settings {
    /// Takes a URI apart.
    pub(crate) fn parse(uri: &str) -> Result<Self> {
        let Some((scheme, rest)) = uri.split_once(':') else {
            return Err(invalid(uri, "the scheme is missing").with_hint("write it as \"local:\""));
        };
        let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut pairs: Vec<(String, String)> = Vec::new();
        for setting in query.split('&').filter(|setting| !setting.is_empty()) {
            let (key, value) = setting
                .split_once('=')
                .ok_or_else(|| invalid(uri, format!("the setting {setting:?} has no value")))?;
            let value = percent_decode_str(value).decode_utf8().map_err(|e| {
                invalid(uri, format!("the value of {key} is not UTF-8")).with_source(e)
            })?;
            if pairs.iter().any(|(known, _)| known == key) {
                return Err(invalid(uri, format!("the setting {key} is given twice")));
            }
            pairs.push((key.to_owned(), value.into_owned()));
        }
        Ok(Self {
            uri: uri.to_owned(),
            scheme: scheme.to_owned(),
            address: address.to_owned(),
            pairs,
        })
    }

    /// Returns the text between scheme and settings: where the provider is. Empty for a scheme
    /// whose [`Connector`](crate::Connector) takes none.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The scheme, without its colon.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The value of a setting; `None` if the URI does not give it.
    pub fn value(&self, key: &str) -> Option<&str> {
        let (_, value) = self.pairs.iter().find(|(known, _)| known == key)?;
        Some(value)
    }

    /// The value of a setting that is an absolute path of the host.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a relative one.
    pub fn path(&self, key: &str) -> Result<Option<PathBuf>> {
        let Some(path) = self.value(key).map(PathBuf::from) else {
            return Ok(None);
        };
        if !path.is_absolute() {
            return Err(self.invalid(format!("{key} must be an absolute path")));
        }
        Ok(Some(path))
    }

    /// An error that says what is wrong with the settings and quotes the URI.
    pub fn invalid(&self, why: impl std::fmt::Display) -> Error {
        invalid(&self.uri, why)
    }

    /// Refuses an address.
    pub(crate) fn no_address(&self) -> Result<()> {
        match self.address.is_empty() {
            true => Ok(()),
            false => Err(self.invalid("only settings may follow the scheme, as \"?key=value\"")),
        }
    }

    /// Refuses keys that are not known.
    pub(crate) fn only(&self, known: &[&str]) -> Result<()> {
        let strange = self
            .pairs
            .iter()
            .find(|(key, _)| !known.contains(&key.as_str()));
        let Some((key, _)) = strange else {
            return Ok(());
        };
        let hint = match known {
            [] => format!("{}: has no settings", self.scheme),
            known => format!("settings of {}: {}", self.scheme, known.join(", ")),
        };
        Err(self
            .invalid(format!("unknown setting {key:?}"))
            .with_hint(hint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_decoded() {
        let settings = Settings::parse("x:?dir=/a%2Cb&other=/c").unwrap();
        assert_eq!(settings.scheme(), "x");
        assert_eq!(settings.path("dir").unwrap(), Some("/a,b".into()));
        assert_eq!(settings.value("missing"), None);
        settings.only(&["dir", "other"]).unwrap();
        let error = settings.only(&["dir"]).unwrap_err();
        assert!(error.to_string().contains("\"other\""), "{error}");
        assert!(error.to_string().contains("settings of x: dir"), "{error}");
    }

    #[test]
    fn a_uri_that_is_not_understood_is_refused() {
        for uri in ["", "local", "x:?a", "x:?a=1&a=2", "x:?a=%ff"] {
            let error = Settings::parse(uri).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{uri}");
        }
        assert!(Settings::parse("x:?a=b").unwrap().path("a").is_err());
    }

    #[test]
    fn an_address_is_what_stands_before_the_settings() {
        let settings = Settings::parse("x:https://a:1/p?k=v").unwrap();
        assert_eq!(settings.address(), "https://a:1/p");
        assert_eq!(settings.value("k"), Some("v"));
        assert!(settings.no_address().is_err());
        Settings::parse("x:?k=v").unwrap().no_address().unwrap();
    }
}
