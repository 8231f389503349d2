//! The service's own egress policy of a sandbox, and its decisions.
//!
//! The SDK's default is to allow; here what is not allowed is denied.

use sandbox_core::{
    EgressLimits, EgressProtocol, Error, ErrorKind, HostPattern, Operation, Result,
};
use serde_json::{Value, json};

use crate::http::Http;

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
///
/// ```
/// use sandbox_aca::{EgressAction, EgressPolicy, EgressScheme};
/// let policy = EgressPolicy::deny().rule("example.com", EgressAction::Allow);
/// assert_eq!(policy.rules[0].scheme, EgressScheme::Any);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EgressRule {
    /// A host name; `*.example.com` is `example.com` too.
    pub host: String,
    /// Action for the host.
    pub action: EgressAction,
    /// Requests that it is for. Other than [`EgressScheme::Any`] only in the newer version.
    pub scheme: EgressScheme,
}

/// Scheme of the requests that a rule is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum EgressScheme {
    /// HTTP and HTTPS.
    #[default]
    Any,
    /// HTTP on port 80.
    Http,
    /// HTTPS on port 443.
    Https,
}

impl EgressScheme {
    fn word(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Egress policy of a sandbox. Setting it replaces the whole policy.
///
/// ```
/// use sandbox_aca::{EgressAction, EgressPolicy};
/// let policy = EgressPolicy::deny().rule("*.pythonhosted.org", EgressAction::Allow);
/// assert_eq!(policy.rules[0].host, "*.pythonhosted.org");
/// ```
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
    pub fn rule(self, host: impl Into<String>, action: EgressAction) -> Self {
        self.scheme_rule(host, action, EgressScheme::Any)
    }

    /// Adds a rule for requests of one scheme to this host.
    #[must_use]
    pub fn scheme_rule(
        mut self,
        host: impl Into<String>,
        action: EgressAction,
        scheme: EgressScheme,
    ) -> Self {
        self.rules.push(EgressRule {
            host: host.into(),
            action,
            scheme,
        });
        self
    }

    /// The policy of these rules of the trait's: what none allows is denied.
    ///
    /// It is not the trait's egress by name, which this backend does not have: the service resolves
    /// every name, limits neither names nor connections, numbers no decision, and does not say how it
    /// judges where a name leads. What it does promise is that only these hosts are reached.
    ///
    /// ```
    /// use sandbox_aca::{AcaOptions, EgressPolicy};
    /// use sandbox_core::EgressRule;
    /// let rules = sandbox_core::EgressPolicy::new().rule(EgressRule::exact("pypi.org"));
    /// let options = AcaOptions::new().egress(EgressPolicy::of_rules(&rules)?);
    /// # drop(options);
    /// # Ok::<(), sandbox_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](sandbox_core::ErrorKind::InvalidInput) for rules without a meaning;
    /// [`ErrorKind::Unsupported`](sandbox_core::ErrorKind::Unsupported), which names the rule, for what
    /// the service can't do: other ports than 80 and 443, other protocols than HTTP and TLS,
    /// subdomains without their apex, private addresses, headers, upstreams, limits. A rule for one of
    /// the schemes alone is refused by the older version, when the policy is sent.
    pub fn of_rules(rules: &sandbox_core::EgressPolicy) -> Result<Self> {
        const OP: Operation = Operation::Create;
        rules.validate(OP)?;
        let refused = |what: String| Err(Error::new(ErrorKind::Unsupported, OP).with_message(what));
        if rules.limits != EgressLimits::default() {
            return refused("the service has no limits on names, connections or bytes".into());
        }
        // A host of two rules is one of any scheme: an order of rules is not documented.
        let mut hosts: Vec<(String, EgressScheme)> = Vec::new();
        for rule in &rules.rules {
            let of = format!("the egress rule for {}", rule.host);
            if rule.has_credentials() {
                return refused(format!(
                    "{of} has credentials, which the service would show to all who see its policy"
                ));
            }
            if rule.private {
                return refused(format!(
                    "{of} allows private addresses, of which the service knows nothing"
                ));
            }
            let name = rule.host.name().trim_end_matches('.').to_ascii_lowercase();
            let host = match &rule.host {
                HostPattern::Exact(_) => name,
                HostPattern::ApexAndSubdomains(_) => format!("*.{name}"),
                _ => {
                    return refused(format!(
                        "{of} leaves out the name itself, which the service's wildcard takes in: \
                         write apex_and_subdomains if that may be"
                    ));
                }
            };
            let scheme = match (rule.protocol, rule.effective_ports()) {
                (EgressProtocol::Tls, [443]) => EgressScheme::Https,
                (EgressProtocol::Http, [80]) => EgressScheme::Http,
                (protocol, ports) => {
                    return refused(format!(
                        "{of} is for {protocol} on {ports:?}: the service allows hosts for HTTPS on \
                         443 and HTTP on 80"
                    ));
                }
            };
            match hosts.iter_mut().find(|(known, _)| *known == host) {
                Some((_, known)) if *known != scheme => *known = EgressScheme::Any,
                Some(_) => {}
                None => hosts.push((host, scheme)),
            }
        }
        let allowed =
            |policy: Self, (host, scheme)| policy.scheme_rule(host, EgressAction::Allow, scheme);
        Ok(hosts.into_iter().fold(Self::deny(), allowed))
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
        let any = |rule: &&EgressRule| rule.scheme == EgressScheme::Any;
        let hosts = self.rules.iter().filter(any);
        let hosts: Vec<Value> = hosts
            .map(|rule| json!({"pattern": rule.host, "action": action(rule.action)}))
            .collect();
        let rules = self.rules.iter().enumerate();
        let rules: Vec<Value> = rules
            .filter(|(_, rule)| !any(rule))
            .map(|(number, rule)| {
                json!({
                    "name": format!("rule-{number}"),
                    "match": {"host": rule.host, "scheme": rule.scheme.word()},
                    "action": {"type": action(rule.action)},
                })
            })
            .collect();
        json!({
            "defaultAction": action(self.default),
            "hostRules": hosts,
            "rules": rules,
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
                scheme: EgressScheme::Any,
            })
        });
        let mut rules: Vec<_> = rules.collect::<Option<_>>()?;
        // Those for a scheme; others change requests and are not shown here.
        let schemes = [EgressScheme::Http, EgressScheme::Https];
        let others = section["rules"].as_array().into_iter().flatten();
        rules.extend(others.filter_map(|rule| {
            let word = rule["match"]["scheme"].as_str()?;
            Some(EgressRule {
                host: super::text(&rule["match"], "host"),
                action: action(&rule["action"]["type"])?,
                scheme: schemes.into_iter().find(|scheme| scheme.word() == word)?,
            })
        }));
        Some(Self {
            default: action(&section["defaultAction"])?,
            rules,
            inspection: match section["trafficInspection"].as_str() {
                Some("Full") => Inspection::Full,
                Some("Partial") => Inspection::Partial,
                Some("Legacy") => Inspection::Legacy,
                _ => Inspection::None,
            },
        })
    }
}

impl Http {
    /// A policy as this version of the service takes it.
    pub(crate) fn egress(&self, op: Operation, policy: &EgressPolicy) -> Result<Value> {
        let protocol = self.protocol();
        let alone = |rule: &&EgressRule| rule.scheme != EgressScheme::Any;
        match policy.rules.iter().find(alone) {
            Some(rule) if !protocol.schemes => Err(Error::new(ErrorKind::Unsupported, op)
                .with_message(format!(
                    "the rule for {} is for {} alone, which this version of the service can't tell \
                     from other requests",
                    rule.host,
                    rule.scheme.word()
                ))
                .with_hint("allow both schemes, or use a newer api_version")),
            _ => Ok((protocol.egress)(policy.body())),
        }
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
    fn rules_of_the_trait_are_mapped_or_refused_with_the_reason() {
        use sandbox_core::{EgressPolicy as Rules, EgressRule as Rule};
        let http = |name| Rule::exact(name).protocol(EgressProtocol::Http);
        let rules = Rules::new()
            .rule(Rule::exact("Both.Example."))
            .rule(Rule::apex_and_subdomains("tls.example"))
            .rule(http("both.example"))
            .rule(http("plain.example"));
        let mapped = EgressPolicy::of_rules(&rules).expect("what the service can");
        let allow = EgressAction::Allow;
        let expected = EgressPolicy::deny()
            .rule("both.example", allow)
            .scheme_rule("*.tls.example", allow, EgressScheme::Https)
            .scheme_rule("plain.example", allow, EgressScheme::Http);
        assert_eq!(mapped, expected);
        let section = json!({"http": mapped.body()});
        assert_eq!(EgressPolicy::of(&section), Some(mapped));
        let none = EgressPolicy::of_rules(&Rules::new()).expect("no rules");
        assert_eq!(none, EgressPolicy::deny());
        let exact = || Rule::exact("a.example");
        for (rules, word) in [
            (Rules::new().rule(Rule::subdomains("a.example")), "apex"),
            (Rules::new().rule(exact().port(8443)), "8443"),
            (
                Rules::new().rule(exact().protocol(EgressProtocol::Tcp).port(443)),
                "tcp",
            ),
            (
                Rules::new().rule(exact().protocol(EgressProtocol::Http).port(443)),
                "http",
            ),
            (Rules::new().rule(exact().private(true)), "private"),
            (
                Rules::new().rule(exact().header("x-key", "hunter2")),
                "credentials",
            ),
            (Rules::new().limits(EgressLimits::new().bytes(1)), "limits"),
        ] {
            let error = EgressPolicy::of_rules(&rules).expect_err(word);
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
            let text = error.to_string();
            assert!(
                text.contains(word) && !text.contains("hunter2"),
                "{word}: {text}"
            );
        }
    }

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
