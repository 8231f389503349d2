//! The service's own egress policy of a sandbox, and its decisions.
//!
//! The SDK's default is to allow; here what is not allowed is denied.

use serde_json::{Value, json};

/// Whether something may be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EgressAction {
    /// Allowed.
    Allow,
    /// Denied: HTTP is answered with 403, other connections are refused. Names are still
    /// resolved.
    Deny,
}

/// Depth to which the service looks into traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Inspection {
    /// Into all of it, TLS included. Rules on paths and methods need it.
    Full,
    /// Into some; refused by the service together with denying by default.
    Partial,
    /// The behaviour of older versions.
    Legacy,
    /// Into nothing.
    None,
}

/// A rule on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EgressRule {
    /// A host name; `*.example.com` is `example.com` too.
    pub host: String,
    /// Action for the host.
    pub action: EgressAction,
}

/// Egress policy of a sandbox. Setting it replaces the whole policy.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EgressPolicy {
    /// Action for what no rule names.
    pub default: EgressAction,
    /// Rules by host.
    pub rules: Vec<EgressRule>,
    /// Depth to which traffic is looked into.
    pub inspection: Inspection,
}

impl EgressPolicy {
    /// A policy that denies every host that no rule allows.
    pub fn deny() -> Self {
        Self {
            default: EgressAction::Deny,
            rules: Vec::new(),
            inspection: Inspection::Full,
        }
    }

    /// A policy that allows every host that no rule denies.
    pub fn allow() -> Self {
        Self {
            default: EgressAction::Allow,
            rules: Vec::new(),
            inspection: Inspection::None,
        }
    }

    /// Adds a rule for this host.
    #[must_use]
    pub fn rule(mut self, host: impl Into<String>, action: EgressAction) -> Self {
        self.rules.push(EgressRule {
            host: host.into(),
            action,
        });
        self
    }

    sandbox_core::setters! {
        /// With this inspection.
        inspection: Inspection,
    }

    pub(crate) fn body(&self) -> Value {
        let action = |action| match action {
            EgressAction::Allow => "Allow",
            EgressAction::Deny => "Deny",
        };
        let rules = self.rules.iter();
        let rules: Vec<Value> = rules
            .map(|rule| json!({"pattern": rule.host, "action": action(rule.action)}))
            .collect();
        json!({
            "defaultAction": action(self.default),
            "hostRules": rules,
            "rules": [],
            "trafficInspection": match self.inspection {
                Inspection::Full => "Full",
                Inspection::Partial => "Partial",
                Inspection::Legacy => "Legacy",
                Inspection::None => "None",
            },
        })
    }

    /// A policy as the service shows it, in either of its forms; `None` if it shows none, or one
    /// that this version does not understand.
    pub(crate) fn of(shown: &Value) -> Option<Self> {
        let section = match shown["http"].is_object() {
            true => &shown["http"],
            false => shown,
        };
        let action = |value: &Value| match value.as_str() {
            Some("Deny") => Some(EgressAction::Deny),
            Some("Allow") => Some(EgressAction::Allow),
            _ => None,
        };
        // What is only watched is not denied.
        if !matches!(section["enforcementMode"].as_str(), None | Some("Enforced")) {
            return None;
        }
        let rules = section["hostRules"].as_array().into_iter().flatten();
        let rules = rules.map(|rule| {
            Some(EgressRule {
                host: super::text(rule, "pattern"),
                action: action(&rule["action"])?,
            })
        });
        Some(Self {
            default: action(&section["defaultAction"])?,
            rules: rules.collect::<Option<_>>()?,
            inspection: match section["trafficInspection"].as_str() {
                Some("Full") => Inspection::Full,
                Some("Partial") => Inspection::Partial,
                Some("Legacy") => Inspection::Legacy,
                _ => Inspection::None,
            },
        })
    }
}

/// Decisions of a policy: hosts, as far as the service tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EgressDecisions {
    /// Hosts that were allowed.
    pub allowed: Vec<String>,
    /// Hosts that were denied.
    pub denied: Vec<String>,
    /// The service's whole answer (JSON): its fields are not documented.
    pub raw: String,
}

impl EgressDecisions {
    pub(super) fn of(shown: &Value, section: &str) -> Self {
        let hosts = |key: &str| {
            let entries = shown[section][key].as_array();
            let entries = entries.into_iter().flatten();
            entries
                .filter_map(|entry| entry.as_str().or(entry["host"].as_str()))
                .map(str::to_owned)
                .collect()
        };
        Self {
            allowed: hosts("allowed"),
            denied: hosts("denied"),
            raw: shown.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_read_in_both_forms_and_never_guessed() {
        let shown = EgressPolicy::deny().rule("a.example", EgressAction::Allow);
        assert_eq!(EgressPolicy::of(&shown.body()), Some(shown.clone()));
        assert_eq!(
            EgressPolicy::of(&json!({"http": shown.body()})),
            Some(shown)
        );
        for unknown in [
            json!(null),
            json!({}),
            json!({"http": {}}),
            json!({"defaultAction": "Ask"}),
            json!({"http": {"defaultAction": "Deny", "enforcementMode": "Audit"}}),
            json!({"defaultAction": "Deny", "hostRules": [{"pattern": "a", "action": "Ask"}]}),
            // A newer section decides, whatever the older form says beside it.
            json!({"defaultAction": "Allow", "http": {"defaultAction": "Ask"}}),
        ] {
            assert_eq!(EgressPolicy::of(&unknown), None, "{unknown}");
        }
    }
}
