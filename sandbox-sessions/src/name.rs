//! Names: tenants, keys, identifiers of sessions.
//!
//! A name must never be able to mean more than a name: a path, an option, a part of a command line.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use crate::{Error, ErrorKind, Result};

/// The longest tenant or key: what a label may hold.
const LONGEST: usize = 63;

fn check(what: &str, name: &str) -> Result<()> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let starts = name
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric());
    if starts && name.len() <= LONGEST && name.bytes().all(fits) && !name.contains("..") {
        return Ok(());
    }
    let shown: String = name.chars().take(LONGEST + 1).collect();
    Err(Error::new(ErrorKind::InvalidInput)
        .with_message(format!("{shown:?} can't be a {what}"))
        .with_hint(
            "use 1 to 63 ASCII letters, digits, hyphens, underscores and single dots, a letter or \
             digit first",
        ))
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        ///
        /// 1 to 63 ASCII letters, digits, hyphens, underscores and single dots, a letter or digit
        /// first: safe in a path, a label and a command line.
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
        pub struct $name(String);

        impl $name {
            /// A name that was checked.
            ///
            /// # Errors
            /// [`ErrorKind::InvalidInput`] that says which characters there may be.
            pub fn new(name: impl Into<String>) -> Result<Self> {
                let name = name.into();
                check($what, &name)?;
                Ok(Self(name))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let name = String::deserialize(deserializer)?;
                Self::new(name).map_err(serde::de::Error::custom)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = Error;
            fn try_from(name: &str) -> Result<Self> {
                Self::new(name)
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(name: String) -> Result<Self> {
                Self::new(name)
            }
        }

        impl TryFrom<&$name> for $name {
            type Error = Error;
            fn try_from(name: &$name) -> Result<Self> {
                Ok(name.clone())
            }
        }
    };
}

name! {
    /// Owner of a session: a user, a customer, an application.
    Tenant, "tenant"
}
name! {
    /// Name that a tenant gives one of its sessions.
    Key, "key"
}

/// Identifies a session: a ULID in lower case, which sorts by the time it was made.
///
/// ```
/// use sandbox_sessions::SessionId;
/// let id: SessionId = "01k9zq4c2v8r5d3m7n6p0t1xye".parse()?;
/// assert_eq!(id.as_str().len(), 26);
/// assert!("../etc/passwd".parse::<SessionId>().is_err());
/// # Ok::<(), sandbox_sessions::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct SessionId(String);

impl SessionId {
    /// One that sorts behind every other of this process.
    pub(crate) fn generate() -> Self {
        static NEXT: Mutex<Option<ulid::Generator>> = Mutex::new(None);
        let mut next = NEXT.lock().unwrap_or_else(PoisonError::into_inner);
        let generator = next.get_or_insert_with(ulid::Generator::new);
        // Only if there are 2^80 in one millisecond.
        let id = generator.generate().unwrap_or_else(|_| ulid::Ulid::new());
        Self(id.to_string().to_ascii_lowercase())
    }

    /// A new identifier, which no other call gives; it can serve as a key too.
    pub fn fresh() -> Self {
        Self::generate()
    }

    /// The identifier as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for SessionId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match ulid::Ulid::from_string(text) {
            // What is read is what is written: no second spelling of one identifier.
            Ok(id) if id.to_string().to_ascii_lowercase() == text => Ok(Self(text.to_owned())),
            _ => {
                let shown: String = text.chars().take(27).collect();
                Err(Error::new(ErrorKind::InvalidInput)
                    .with_message(format!("{shown:?} can't be the identifier of a session"))
                    .with_hint("it is a ULID in lower case: 26 characters"))
            }
        }
    }
}

impl<'de> serde::Deserialize<'de> for SessionId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A tenant's key: under what a session is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Name {
    pub(crate) tenant: Tenant,
    pub(crate) key: Key,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_could_mean_more_is_refused() {
        for name in ["acme", "a", "A-1_b.c", "0"] {
            assert!(Tenant::new(name).is_ok(), "{name}");
        }
        let long = "x".repeat(64);
        for name in [
            "", ".", "..", "a/b", "../a", "a..b", "-rf", ".hidden", "a b", "a;b", "a$b", "a\nb",
            "a\0b", "ä", &long,
        ] {
            let error = Tenant::new(name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name}");
        }
    }

    #[test]
    fn an_identifier_has_one_spelling() {
        let id = SessionId::generate();
        assert_eq!(id.as_str().parse::<SessionId>().unwrap(), id);
        assert!(id.as_str().to_uppercase().parse::<SessionId>().is_err());
        assert!(id.as_str()[1..].parse::<SessionId>().is_err());
    }
}
