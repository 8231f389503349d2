//! Identifiers of the control plane: resources, principals, roles.
//!
//! What is not an identifier must never become part of a path.

use std::fmt;
use std::hash::{Hash, Hasher};

use sandbox_core::{Error, ErrorKind, Operation, Result};
use serde::{Deserialize, Serialize};

fn invalid(what: &str, text: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, Operation::Provision)
        .with_message(format!("{text:?} is not a valid {what}"))
}

/// The identifier of a resource, such as
/// `/subscriptions/S/resourceGroups/G/providers/Microsoft.App/containerApps/A`. Azure compares them
/// without case, and so does this type.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ResourceId(String);

impl ResourceId {
    /// An identifier from text.
    ///
    /// # Errors
    /// [`InvalidInput`](sandbox_core::ErrorKind::InvalidInput) if it is not a path below a subscription.
    pub fn new(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        let odd = |part: &str| {
            part.is_empty() || part == "." || part == ".." || part.contains(['?', '#', '\\', '%'])
        };
        let mut parts = text.split('/');
        let rooted = parts.next() == Some("")
            && parts
                .next()
                .is_some_and(|first| first.eq_ignore_ascii_case("subscriptions"));
        if !rooted || text.split('/').skip(1).any(odd) || text.split('/').count() < 3 {
            return Err(invalid("resource identifier", &text));
        }
        Ok(Self(text))
    }

    /// An identifier of parts that are known to be names.
    pub(super) fn of(parts: &[&str]) -> Self {
        Self(format!("/{}", parts.join("/")))
    }

    /// The identifier as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last part, which is the resource's own name.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// The resource group; `None` for a subscription.
    pub fn resource_group(&self) -> Option<&str> {
        let mut parts = self.0.split('/').skip(3);
        let word = parts.next()?;
        word.eq_ignore_ascii_case("resourceGroups")
            .then(|| parts.next())
            .flatten()
    }

    pub(super) fn child(&self, parts: &[&str]) -> Self {
        Self(format!("{}/{}", self.0, parts.join("/")))
    }

    /// The parts of the path.
    pub(super) fn parts(&self) -> Vec<&str> {
        self.0.split('/').skip(1).collect()
    }
}

impl PartialEq for ResourceId {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for ResourceId {}

impl Hash for ResourceId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_ascii_lowercase().hash(state);
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The object id of a user, group, service principal or managed identity: a GUID.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PrincipalId(String);

impl PrincipalId {
    /// A principal by its object id.
    ///
    /// # Errors
    /// [`InvalidInput`](sandbox_core::ErrorKind::InvalidInput) if it is no GUID.
    pub fn new(text: impl AsRef<str>) -> Result<Self> {
        let text = text.as_ref();
        let id = uuid::Uuid::parse_str(text);
        let id = id.map_err(|e| invalid("object id", text).with_source(e))?;
        Ok(Self(id.to_string()))
    }

    /// The object id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The client id of an application that is registered at Microsoft Entra: a GUID.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClientId(String);

impl ClientId {
    /// An application by its client id.
    ///
    /// # Errors
    /// [`InvalidInput`](sandbox_core::ErrorKind::InvalidInput) if it is no GUID.
    pub fn new(text: impl AsRef<str>) -> Result<Self> {
        let text = text.as_ref();
        let id = uuid::Uuid::parse_str(text);
        let id = id.map_err(|e| invalid("client id", text).with_source(e))?;
        Ok(Self(id.to_string()))
    }

    /// The client id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A name that stands in a path: letters, digits, `-`, `_`, `.`, and no more than 90 of them.
pub(super) fn name<'a>(what: &str, text: &'a str) -> Result<&'a str> {
    let known = |c: char| c.is_ascii_alphanumeric() || "-_.()".contains(c);
    let sound = (1..=90).contains(&text.len())
        && text.chars().all(known)
        && !text.ends_with('.')
        && text != "..";
    match sound {
        true => Ok(text),
        false => Err(invalid(what, text)),
    }
}

/// The name of an app or a job: 2 to 32 small letters, digits and hyphens.
pub(super) fn strict_name<'a>(what: &str, text: &'a str) -> Result<&'a str> {
    let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let sound = (2..=32).contains(&text.len())
        && text.chars().all(known)
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && !text.ends_with('-')
        && !text.contains("--");
    match sound {
        true => Ok(text),
        false => Err(Error::new(ErrorKind::InvalidInput, Operation::Provision).with_message(format!(
            "{text:?} can't be the name of a {what}: a name has 2 to 32 small letters, digits and hyphens, beginning with a letter, no two hyphens in a row"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_elsewhere_is_no_identifier() {
        for text in [
            "",
            "/",
            "subscriptions/s/resourceGroups/g",
            "/subscriptions",
            "/subscriptions//resourceGroups/g",
            "/subscriptions/s/../t",
            "/subscriptions/s/resourceGroups/g?x=1",
            "/subscriptions/s/resourceGroups/a%2fb",
            "https://elsewhere/subscriptions/s",
        ] {
            assert!(ResourceId::new(text).is_err(), "{text:?}");
        }
        let id = ResourceId::new("/subscriptions/s/resourceGroups/g/providers/P/t/n");
        let id = id.expect("an identifier");
        assert_eq!((id.name(), id.resource_group()), ("n", Some("g")));
        let same = ResourceId::new("/Subscriptions/S/resourcegroups/G/providers/p/T/N");
        assert_eq!(same.expect("an identifier"), id);
        assert!(PrincipalId::new("me").is_err() && ClientId::new("../x").is_err());
    }
}
