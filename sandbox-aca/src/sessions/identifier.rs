//! The identifier of a session: to know it is to have access.
//!
//! It must never reach a log, an error or a [`SandboxInfo`](sandbox_core::SandboxInfo); what is
//! shown is its hash.

use sandbox_core::{SandboxId, Secret};
use sha2::{Digest as _, Sha256};

/// The identifier of a session.
#[derive(Clone, Debug)]
pub(crate) struct Identifier(Secret);

impl Identifier {
    /// A new one that can't be guessed: 244 random bits.
    pub(crate) fn random() -> Self {
        let part = || uuid::Uuid::new_v4().simple();
        Self(Secret::from(format!("{}{}", part(), part())))
    }

    /// One that the service names.
    pub(crate) fn known(text: &str) -> Self {
        Self(Secret::from(text))
    }

    pub(crate) fn expose(&self) -> String {
        String::from_utf8_lossy(self.0.expose()).into_owned()
    }

    /// Name of the session where others see it.
    pub(crate) fn public(&self) -> SandboxId {
        public(&self.expose())
    }
}

/// Name, where others see it, of the session with this identifier.
pub(crate) fn public(identifier: &str) -> SandboxId {
    let hash = Sha256::digest(identifier.as_bytes());
    SandboxId::new(format!(
        "session-{}",
        hex(hash.get(..12).unwrap_or_default())
    ))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_does_not_tell_the_identifier() {
        let identifier = Identifier::random();
        let text = identifier.expose();
        assert!(text.len() == 64 && text.bytes().all(|c| c.is_ascii_alphanumeric()));
        assert_ne!(Identifier::random().expose(), text);
        let shown = format!("{identifier:?} {}", identifier.public());
        assert!(!shown.contains(&text[..8]), "{shown}");
        assert_eq!(identifier.public(), public(&text));
    }
}
