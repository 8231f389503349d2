//! The policy: rules and limits.
//!
//! Invariant: a policy that passes [`EgressPolicy::validate`] has one meaning: for each name and
//! port there is one rule or none, and none means no.

use super::rule::{EgressProtocol, EgressRule};
use crate::{Error, ErrorKind, Operation, Result};

/// The hosts that a sandbox may reach; everything else is denied.
///
/// Of the rules for a name and port the most specific counts: an exact name before a domain, a
/// longer domain before a shorter one. A policy without rules allows nothing, and still records
/// what was tried.
///
/// ```
/// use sandbox_core::{EgressPolicy, EgressProtocol, EgressRule, Network, Operation, SandboxSpec};
/// let policy = EgressPolicy::new()
///     .rule(EgressRule::exact("pypi.org"))
///     .rule(EgressRule::subdomains("pythonhosted.org"))
///     .rule(EgressRule::exact("github.com").protocol(EgressProtocol::Tcp).port(22));
/// assert!(policy.validate(Operation::Create).is_ok());
/// assert!(policy.rule_for("files.pythonhosted.org", 443).is_some());
/// assert!(policy.rule_for("pythonhosted.org", 443).is_none());
/// let spec = SandboxSpec::new().network(Network::Allow(policy));
/// # let _ = spec;
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(default, deny_unknown_fields, rename_all = "kebab-case")
)]
#[non_exhaustive]
pub struct EgressPolicy {
    /// Rules that allow hosts; everything else is denied.
    pub rules: Vec<EgressRule>,
    /// Limits on all of it together.
    pub limits: EgressLimits,
}

/// Limits on what a sandbox does through its [`EgressPolicy`].
///
/// ```
/// use sandbox_core::EgressLimits;
/// let limits = EgressLimits::new().connections(32).bytes(1 << 30);
/// assert_eq!(limits.names, 1024);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(default, deny_unknown_fields, rename_all = "kebab-case")
)]
#[non_exhaustive]
pub struct EgressLimits {
    /// Maximum of different names that are answered in the sandbox's life. Default: 1024.
    pub names: u32,
    /// Maximum of connections that are open at once. Default: 256.
    pub connections: u32,
    /// Maximum of bytes that pass in all, both ways together. Default: no limit.
    pub bytes: Option<u64>,
}

impl Default for EgressLimits {
    fn default() -> Self {
        Self {
            names: 1024,
            connections: 256,
            bytes: None,
        }
    }
}

impl EgressLimits {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    crate::setters! {
        /// Answers so many different names.
        names: u32,

        /// Limits the connections that are open at once.
        connections: u32,

        /// Lets so many bytes pass, both ways together.
        bytes: Some(u64),
    }
}

impl EgressPolicy {
    /// A policy that allows nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a rule.
    #[must_use]
    pub fn rule(mut self, rule: EgressRule) -> Self {
        self.rules.push(rule);
        self
    }

    crate::setters! {
        /// Sets limits.
        limits: EgressLimits,
    }

    /// The rule for a name and port, if there is any.
    pub fn rule_for(&self, name: &str, port: u16) -> Option<&EgressRule> {
        let fits =
            |rule: &&EgressRule| rule.effective_ports().contains(&port) && rule.host.matches(name);
        self.rules
            .iter()
            .filter(fits)
            .max_by_key(|rule| rule.host.rank())
    }

    /// Whether any rule is for a name, on whatever port.
    pub fn knows(&self, name: &str) -> bool {
        self.rules.iter().any(|rule| rule.host.matches(name))
    }

    /// Whether the host adds something that the sandbox must not see.
    pub fn has_credentials(&self) -> bool {
        self.rules.iter().any(EgressRule::has_credentials)
    }

    /// Whether it has other ports than 80 and 443, or raw TCP.
    pub fn has_other_ports(&self) -> bool {
        let other = |port: &u16| ![80, 443].contains(port);
        self.rules.iter().any(|rule| {
            rule.protocol == EgressProtocol::Tcp || rule.effective_ports().iter().any(other)
        })
    }

    /// Checks that it has one meaning.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] that says what to write instead: a text that can't be a host name,
    /// two rules for the same names and port that differ, a header for more than an exact name or
    /// over plain HTTP, raw TCP without a port, a limit of zero.
    ///
    /// ```
    /// use sandbox_core::{EgressPolicy, EgressRule, Operation};
    /// let policy = EgressPolicy::new().rule(EgressRule::exact("*.example.com"));
    /// let error = policy.validate(Operation::Create).unwrap_err();
    /// assert!(error.to_string().contains("`subdomains`"));
    /// ```
    pub fn validate(&self, operation: Operation) -> Result<()> {
        self.check().map_err(|why| {
            Error::new(ErrorKind::InvalidInput, operation)
                .with_message(format!("the egress policy can't be used: {why}"))
        })
    }

    fn check(&self) -> Result<(), String> {
        for (name, zero) in [
            ("names", self.limits.names == 0),
            ("connections", self.limits.connections == 0),
            ("bytes", self.limits.bytes == Some(0)),
        ] {
            if zero {
                return Err(format!(
                    "its limit on {name} is zero; a policy without rules allows nothing"
                ));
            }
        }
        self.rules.iter().try_for_each(EgressRule::validate)?;
        for (at, rule) in self.rules.iter().enumerate() {
            for other in self.rules.iter().skip(at + 1) {
                let mut shared = rule.effective_ports().iter();
                let shared = shared.find(|port| other.effective_ports().contains(port));
                let Some(port) = shared.filter(|_| rule.host.is_level_with(&other.host)) else {
                    continue;
                };
                let same = (rule.protocol, rule.private, &rule.headers, &rule.upstream)
                    == (
                        other.protocol,
                        other.private,
                        &other.headers,
                        &other.upstream,
                    );
                if !same {
                    return Err(format!(
                        "two rules for {} on port {port} contradict each other: keep one of them",
                        other.host
                    ));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_rule_counts() {
        let policy = EgressPolicy::new()
            .rule(EgressRule::apex_and_subdomains("test"))
            .rule(EgressRule::exact("a.b.test").private(true))
            .rule(
                EgressRule::subdomains("b.test")
                    .protocol(EgressProtocol::Http)
                    .port(443),
            );
        let found = |name| policy.rule_for(name, 443).map(|rule| rule.host.to_string());
        assert_eq!(found("a.b.test").as_deref(), Some("a.b.test"));
        assert_eq!(found("c.b.test").as_deref(), Some("subdomains of b.test"));
        assert_eq!(found("b.test").as_deref(), Some("test and its subdomains"));
        assert_eq!(found("b.example"), None);
        assert_eq!(policy.rule_for("a.b.test", 80), None);
        assert!(policy.validate(Operation::Create).is_ok());
    }

    #[test]
    fn a_policy_that_contradicts_itself_or_says_nothing_is_refused_with_what_to_do() {
        let exact = || EgressRule::exact("a.test");
        let http = EgressProtocol::Http;
        for (rules, word) in [
            (vec![EgressRule::exact("https://a.test/")], "without scheme"),
            (vec![EgressRule::exact("a.test:8443")], "`ports`"),
            (vec![EgressRule::subdomains("*.a.test")], "`subdomains`"),
            (vec![EgressRule::exact("10.0.0.1")], "address"),
            (vec![EgressRule::exact("b\u{fc}cher.test")], "xn--"),
            (vec![EgressRule::exact("")], "empty"),
            (vec![exact().protocol(EgressProtocol::Tcp)], "`port`"),
            (vec![exact().port(0)], "port 0"),
            (vec![exact(), exact().private(true)], "contradict"),
            (
                vec![
                    exact(),
                    EgressRule::exact("A.test.").protocol(http).port(443),
                ],
                "contradict",
            ),
            (
                vec![
                    EgressRule::subdomains("a.test"),
                    EgressRule::apex_and_subdomains("a.test").private(true),
                ],
                "contradict",
            ),
            (
                vec![EgressRule::subdomains("a.test").header("x-key", "s")],
                "exact names",
            ),
            (
                vec![exact().protocol(http).header("x-key", "s")],
                "plain http",
            ),
            (vec![exact().header("Host", "s")], "can't be set"),
            (vec![exact().header("x key", "s")], "name of a header"),
            (vec![exact().header("x-key", "hunter2\r\nx: y")], "x-key"),
            (
                vec![exact().upstream("b.test").protocol(EgressProtocol::Tls)],
                "`http`",
            ),
            (vec![exact().upstream("1.2.3.4")], "address"),
        ] {
            let mut policy = EgressPolicy::new();
            policy.rules = rules;
            let error = policy.validate(Operation::Create).expect_err(word);
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            let text = error.to_string();
            assert!(
                text.contains(word) && !text.contains("hunter2"),
                "{word}: {text}"
            );
        }
        let twice = EgressPolicy::new().rule(exact()).rule(exact());
        assert!(twice.validate(Operation::Create).is_ok());
        let none = EgressPolicy::new().limits(EgressLimits::new().connections(0));
        assert!(none.validate(Operation::Create).is_err());
        let real = EgressPolicy::new()
            .rule(exact().header("authorization", "Bearer x"))
            .rule(
                EgressRule::exact("llm.internal")
                    .upstream("api.example.com")
                    .header("x-api-key", "k"),
            );
        assert!(real.validate(Operation::Create).is_ok());
        assert!(!format!("{real:?}").contains("Bearer"));
    }
}
