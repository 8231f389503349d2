//! Takes a provider's URI apart: `scheme:?key=value&key=value`.
//!
//! It must never ignore a part that it does not know.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use sandbox_core::{Error, ErrorKind, Operation, Result};

/// A URI in parts. Keys are taken out one by one; what is left is refused by [`Uri::finish`].
#[derive(Debug)]
pub(crate) struct Uri<'a> {
    text: &'a str,
    pub(crate) scheme: &'a str,
    settings: Vec<(&'a str, String)>,
}

/// What is wrong with the URI `text`.
pub(crate) fn invalid(text: &str, why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidInput, Operation::Connect)
        .with_message(format!("{why}, in the provider URI {text:?}"))
}

impl<'a> Uri<'a> {
    pub(crate) fn parse(text: &'a str) -> Result<Self> {
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(invalid(text, "there is no scheme").with_hint("write it as \"local:\""));
        };
        let query = match rest.strip_prefix('?') {
            Some(query) => query,
            None if rest.is_empty() => "",
            None => {
                let why = "only settings stand behind the scheme, as \"?key=value\"";
                return Err(invalid(text, why));
            }
        };
        let mut settings: Vec<(&str, String)> = Vec::new();
        for setting in query.split('&').filter(|setting| !setting.is_empty()) {
            let (key, value) = setting
                .split_once('=')
                .ok_or_else(|| invalid(text, format!("{setting:?} has no value")))?;
            let value = percent_decode_str(value)
                .decode_utf8()
                .map_err(|e| invalid(text, format!("{key} is not UTF-8")).with_source(e))?;
            if settings.iter().any(|(known, _)| *known == key) {
                return Err(invalid(text, format!("{key} is there twice")));
            }
            settings.push((key, value.into_owned()));
        }
        Ok(Self {
            text,
            scheme,
            settings,
        })
    }

    /// The whole URI, for messages.
    pub(crate) fn text(&self) -> &'a str {
        self.text
    }

    /// Takes a setting as it is.
    pub(crate) fn value(&mut self, key: &str) -> Option<String> {
        let at = self.settings.iter().position(|(known, _)| *known == key)?;
        Some(self.settings.remove(at).1)
    }

    /// Takes a setting that is an absolute host path.
    pub(crate) fn path(&mut self, key: &str) -> Result<Option<PathBuf>> {
        let Some(path) = self.value(key).map(PathBuf::from) else {
            return Ok(None);
        };
        if !path.is_absolute() {
            return Err(invalid(self.text, format!("{key} is not an absolute path")));
        }
        Ok(Some(path))
    }

    /// Refuses settings that nobody took.
    pub(crate) fn finish(self, known: &str) -> Result<()> {
        match self.settings.first() {
            None => Ok(()),
            Some((key, _)) => Err(invalid(
                self.text,
                format!("{}: has no setting {key:?}", self.scheme),
            )
            .with_hint(format!("known: {known}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_decoded() {
        let mut uri = Uri::parse("x:?dir=/a%2Cb&other=/c").unwrap();
        assert_eq!(uri.scheme, "x");
        assert_eq!(uri.path("dir").unwrap(), Some("/a,b".into()));
        let error = uri.finish("dir").unwrap_err();
        assert!(error.to_string().contains("\"other\""), "{error}");
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in [
            "",
            "local",
            "x:y",
            "x://y",
            "x:?a",
            "x:?a=1&a=2",
            "x:?a=%ff",
        ] {
            let error = Uri::parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
        }
        assert!(Uri::parse("x:?a=b").unwrap().path("a").is_err());
    }
}
