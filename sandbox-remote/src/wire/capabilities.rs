//! Capabilities by name, so that a peer that knows more of them is understood.

use std::borrow::Cow;
use std::collections::BTreeMap;

use sandbox_core::{Capabilities, Capability, Support};
use serde::{Deserialize, Serialize};

/// Every capability by its name.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Supports(BTreeMap<String, Said>);

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Said {
    Full,
    Partial(String),
    None(String),
}

impl From<&Capabilities> for Supports {
    fn from(capabilities: &Capabilities) -> Self {
        let said = capabilities.iter().map(|(capability, support)| {
            let said = match support {
                Support::Full => Said::Full,
                Support::Partial(except) => Said::Partial(except.into_owned()),
                Support::None(reason) => Said::None(reason.into_owned()),
            };
            (capability.as_str().to_owned(), said)
        });
        Self(said.collect())
    }
}

impl From<Supports> for Capabilities {
    /// Takes what is not named as not supported, and passes over what is not known.
    fn from(mut supports: Supports) -> Self {
        let mut capabilities = Self::none("the server does not say that it has it");
        for capability in Capability::ALL {
            let Some(said) = supports.0.remove(capability.as_str()) else {
                continue;
            };
            let support = match said {
                Said::Full => Support::Full,
                Said::Partial(except) => Support::Partial(Cow::Owned(except)),
                Said::None(reason) => Support::None(Cow::Owned(reason)),
            };
            capabilities.set(*capability, support);
        }
        capabilities
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_come_back_and_strange_ones_are_passed_over() {
        let sent = Capabilities::none("no")
            .with(Capability::Exec)
            .partial(Capability::Fork, "slow");
        let mut text = serde_json::to_value(Supports::from(&sent)).unwrap();
        text["teleport"] = "full".into();
        let back: Supports = serde_json::from_value(text).unwrap();
        assert_eq!(Capabilities::from(back), sent);
        let none: Supports = serde_json::from_str("{}").unwrap();
        assert!(!Capabilities::from(none).has(Capability::Exec));
    }
}
