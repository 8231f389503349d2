//! Egress by host name: what a sandbox may reach, everything else denied, and what was decided.
//!
//! Invariant: a policy that passes [`EgressPolicy::validate`] has one meaning: for each name and
//! port there is one rule or none, and none means no.

use std::fmt;
use std::net::IpAddr;
use std::time::SystemTime;

use crate::{Error, ErrorKind, Operation, Result, Secret};

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

    /// Answers so many different names.
    #[must_use]
    pub fn names(mut self, names: u32) -> Self {
        self.names = names;
        self
    }

    /// Limits the connections that are open at once.
    #[must_use]
    pub fn connections(mut self, connections: u32) -> Self {
        self.connections = connections;
        self
    }

    /// Lets so many bytes pass, both ways together.
    #[must_use]
    pub fn bytes(mut self, bytes: u64) -> Self {
        self.bytes = Some(bytes);
        self
    }
}

/// The names that a rule is for. Names are compared without regard to case and to one dot at the
/// end; a name outside of ASCII is written in its `xn--` form.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum HostPattern {
    /// Exactly this name.
    Exact(String),
    /// Every name below this one, at any depth, and not the name itself.
    Subdomains(String),
    /// The name and every name below it.
    ApexAndSubdomains(String),
}

impl HostPattern {
    /// The name as it was written, without what the pattern adds.
    pub fn name(&self) -> &str {
        match self {
            Self::Exact(name) | Self::Subdomains(name) | Self::ApexAndSubdomains(name) => name,
        }
    }

    /// Whether it is for this name.
    ///
    /// ```
    /// use sandbox_core::HostPattern;
    /// let below = HostPattern::Subdomains("example.com".into());
    /// assert!(below.matches("api.Example.com."));
    /// assert!(!below.matches("example.com"));
    /// assert!(!below.matches("evilexample.com"));
    /// ```
    pub fn matches(&self, name: &str) -> bool {
        let (name, own) = (without_dot(name), without_dot(self.name()));
        let is_below = || {
            let Some(cut) = name.len().checked_sub(own.len()).filter(|cut| *cut > 1) else {
                return false;
            };
            let ends = name.get(cut..).is_some_and(|end| same(end, own));
            ends && name.as_bytes().get(cut - 1) == Some(&b'.')
        };
        match self {
            Self::Exact(_) => same(name, own),
            Self::Subdomains(_) => is_below(),
            Self::ApexAndSubdomains(_) => same(name, own) || is_below(),
        }
    }

    /// Exact names before domains, longer domains before shorter ones.
    fn rank(&self) -> (bool, usize) {
        (
            matches!(self, Self::Exact(_)),
            without_dot(self.name()).len(),
        )
    }

    /// Whether both are of the same kind and for the same name, so that neither is more specific.
    fn is_level_with(&self, other: &Self) -> bool {
        let exact = |pattern: &Self| matches!(pattern, Self::Exact(_));
        exact(self) == exact(other) && same(without_dot(self.name()), without_dot(other.name()))
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Subdomains(name) => write!(f, "subdomains of {name}"),
            Self::ApexAndSubdomains(name) => write!(f, "{name} and its subdomains"),
        }
    }
}

fn without_dot(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

fn same(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

/// Protocol spoken with a host; it decides what is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum EgressProtocol {
    /// TLS: the server name in its first message must be the name that was dialled. The content
    /// stays encrypted, unless the rule sets headers. Port 443 unless the rule names others.
    #[default]
    Tls,
    /// HTTP/1.1 without TLS: the host in every request must be the name that was dialled. Port 80
    /// unless the rule names others.
    Http,
    /// Anything over TCP: the name that was dialled is all that is checked. The rule names the
    /// ports.
    Tcp,
}

impl fmt::Display for EgressProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls => "tls",
            Self::Http => "http",
            Self::Tcp => "tcp",
        })
    }
}

/// A header that the host sets on requests of the sandbox, in place of the sandbox's own.
///
/// It can be read from a file and is never written: serialising it is an error.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(deny_unknown_fields, rename_all = "kebab-case")
)]
#[non_exhaustive]
pub struct EgressHeader {
    /// Name of the header.
    pub name: String,
    /// Value of the header, which the sandbox never sees.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "secret"))]
    pub value: Secret,
}

#[cfg(feature = "serde")]
fn secret<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Secret, D::Error> {
    // Without what was found instead, which may be the secret.
    <String as serde::Deserialize>::deserialize(deserializer)
        .map(Secret::from)
        .map_err(|_| serde::de::Error::custom("the value of a header is a text"))
}

#[cfg(feature = "serde")]
impl serde::Serialize for EgressHeader {
    fn serialize<S: serde::Serializer>(&self, _: S) -> std::result::Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom(format!(
            "the header {} of an egress rule is a secret, which is never serialised",
            self.name
        )))
    }
}

/// One permission of an [`EgressPolicy`].
///
/// ```
/// use sandbox_core::{EgressProtocol, EgressRule};
/// let rule = EgressRule::exact("db.example.com").protocol(EgressProtocol::Tcp).port(5432);
/// assert_eq!(rule.effective_ports(), [5432]);
/// assert_eq!(EgressRule::exact("example.com").effective_ports(), [443]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(deny_unknown_fields, rename_all = "kebab-case")
)]
#[non_exhaustive]
pub struct EgressRule {
    /// The names.
    pub host: HostPattern,
    /// The ports; none stands for the protocol's own.
    #[cfg_attr(feature = "serde", serde(default))]
    pub ports: Vec<u16>,
    /// Protocol spoken with the host.
    #[cfg_attr(feature = "serde", serde(default))]
    pub protocol: EgressProtocol,
    /// Whether the name may lead to a private address (RFC 1918, RFC 4193, RFC 6598). Default: no.
    /// Loopback, link-local and metadata addresses are never reached.
    #[cfg_attr(feature = "serde", serde(default))]
    pub private: bool,
    /// Headers that the host sets on every request, so that the sandbox never has them. Only for an
    /// exact name.
    #[cfg_attr(feature = "serde", serde(default))]
    pub headers: Vec<EgressHeader>,
    /// The real host behind a name that exists in the sandbox alone: the sandbox speaks plain HTTP
    /// to the rule's name, and the host speaks TLS to this one.
    #[cfg_attr(feature = "serde", serde(default))]
    pub upstream: Option<String>,
}

impl EgressRule {
    /// A rule for TLS on port 443 to these names.
    pub fn new(host: HostPattern) -> Self {
        Self {
            host,
            ports: Vec::new(),
            protocol: EgressProtocol::Tls,
            private: false,
            headers: Vec::new(),
            upstream: None,
        }
    }

    /// A rule for TLS on port 443 to this name alone.
    pub fn exact(name: impl Into<String>) -> Self {
        Self::new(HostPattern::Exact(name.into()))
    }

    /// A rule for TLS on port 443 to every name below this one.
    pub fn subdomains(name: impl Into<String>) -> Self {
        Self::new(HostPattern::Subdomains(name.into()))
    }

    /// A rule for TLS on port 443 to this name and every name below it.
    pub fn apex_and_subdomains(name: impl Into<String>) -> Self {
        Self::new(HostPattern::ApexAndSubdomains(name.into()))
    }

    /// Allows this port, and of others only those that are named too.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.ports.push(port);
        self
    }

    /// Expects this protocol.
    #[must_use]
    pub fn protocol(mut self, protocol: EgressProtocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// Whether the name may lead to a private address.
    #[must_use]
    pub fn private(mut self, private: bool) -> Self {
        self.private = private;
        self
    }

    /// Sets this header, on the host's side, in every request to the name. Over TLS the host then
    /// reads the traffic to that name, with a certificate that only this sandbox trusts.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Secret>) -> Self {
        self.headers.push(EgressHeader {
            name: name.into(),
            value: value.into(),
        });
        self
    }

    /// Sends requests that the sandbox makes by plain HTTP to this host by TLS, on port 443. The
    /// rule's own name need not exist anywhere else.
    #[must_use]
    pub fn upstream(mut self, host: impl Into<String>) -> Self {
        self.upstream = Some(host.into());
        self.protocol = EgressProtocol::Http;
        self
    }

    /// The ports that it allows: those that it names, or its protocol's own.
    pub fn effective_ports(&self) -> &[u16] {
        match (self.ports.as_slice(), self.protocol) {
            ([], EgressProtocol::Tls) => &[443],
            ([], EgressProtocol::Http) => &[80],
            (named, _) => named,
        }
    }

    /// Whether the host adds something that the sandbox must not see.
    pub fn has_credentials(&self) -> bool {
        !self.headers.is_empty() || self.upstream.is_some()
    }

    /// Whether the host ends the sandbox's TLS and reads what is inside.
    pub fn intercepts(&self) -> bool {
        self.protocol == EgressProtocol::Tls && !self.headers.is_empty()
    }

    fn validate(&self) -> Result<(), String> {
        check_name(self.host.name())?;
        let of = format!("the rule for {}", self.host);
        if self.effective_ports().is_empty() {
            return Err(format!("{of} is for raw TCP and names no port: add `port`"));
        }
        if self.ports.contains(&0) {
            return Err(format!("{of} names port 0, which is none: remove it"));
        }
        if let Some(upstream) = &self.upstream {
            check_name(upstream)?;
            if self.protocol != EgressProtocol::Http {
                return Err(format!(
                    "{of} has an upstream and is not for HTTP: what the sandbox sends there is \
                     plain HTTP; leave the protocol at `http`"
                ));
            }
        }
        if !self.has_credentials() {
            return Ok(());
        }
        if !matches!(self.host, HostPattern::Exact(_)) {
            return Err(format!(
                "{of} sets headers or has an upstream, which is for exact names: write one rule for \
                 each name that may have the credential"
            ));
        }
        if self.protocol != EgressProtocol::Tls && self.upstream.is_none() {
            return Err(format!(
                "{of} sets headers over plain {}, where all on the way would read them: use TLS, or \
                 an upstream",
                self.protocol
            ));
        }
        self.headers.iter().try_for_each(check_header)
    }
}

/// Headers that say how a message is framed or whom it is for.
const FRAMING: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

fn check_header(header: &EgressHeader) -> Result<(), String> {
    let EgressHeader { name, value } = header;
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(format!("{name:?} is no name of a header"));
    }
    if FRAMING.iter().any(|framing| same(framing, name)) {
        return Err(format!(
            "the header {name} frames or addresses a message and can't be set by a rule"
        ));
    }
    let printable = |byte: &u8| (0x20..0x7f).contains(byte) || *byte == b'\t';
    if value.expose().is_empty() || !value.expose().iter().all(printable) {
        // Without the value, which is a secret.
        return Err(format!(
            "the value of the header {name} is empty or has bytes that a header can't have (line \
             ends, other control characters, other than ASCII)"
        ));
    }
    Ok(())
}

/// The longest name, without the dot at its end (RFC 1035, 2.3.4).
const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;

/// Why a text is no host name, with what to write instead.
fn check_name(name: &str) -> Result<(), String> {
    let told = |why: &str| Err(format!("{name:?} is no host name: {why}"));
    let bare = without_dot(name);
    if bare.is_empty() {
        return told("it is empty");
    }
    if bare.len() > LONGEST_NAME {
        return told("it has more than 253 characters");
    }
    if bare.contains('*') {
        return told(
            "patterns have no `*`; `subdomains` is for the names below one, `apex-and-subdomains` \
             for those and the name itself",
        );
    }
    if bare.contains("://") || bare.contains('/') || bare.contains('@') || bare.contains(':') {
        return told("write the bare name, without scheme, user, port or path; a rule has `ports`");
    }
    if !bare.is_ascii() {
        return told("write it in its ASCII form, which begins with xn--");
    }
    for label in bare.split('.') {
        let fits = (1..=LONGEST_LABEL).contains(&label.len());
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if !fits || !label.bytes().all(valid) || label.starts_with('-') || label.ends_with('-') {
            return told(
                "between dots there are one to 63 letters, digits, hyphens and underscores",
            );
        }
    }
    if is_number(bare) {
        return told("rules are for names; an address is never reached by itself");
    }
    Ok(())
}

/// Whether programs take a name for an IPv4 address: its last label is a number (the "ends in a
/// number" check of the URL standard).
fn is_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    match hex {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

/// A host name in the one form that names are compared in: lower case, without the dot at its end.
/// `None` for what is no host name: an address, a name outside of ASCII, one that is too long.
///
/// ```
/// use sandbox_core::canonical_host;
/// assert_eq!(canonical_host("API.Example.com.").as_deref(), Some("api.example.com"));
/// assert_eq!(canonical_host("0x7f.1"), None);
/// assert_eq!(canonical_host("allowed.test@evil"), None);
/// ```
pub fn canonical_host(name: &str) -> Option<String> {
    check_name(name).ok()?;
    Some(without_dot(name).to_ascii_lowercase())
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

    /// Sets limits.
    #[must_use]
    pub fn limits(mut self, limits: EgressLimits) -> Self {
        self.limits = limits;
        self
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
    /// [`ErrorKind::InvalidInput`] that says what to write instead: a text that is no host name,
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

/// Outcome of a decision about a name or a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum EgressVerdict {
    /// Something passed.
    Allowed,
    /// Nothing went out.
    Denied,
    /// Allowed, but the host was not found or did not answer.
    Failed,
}

/// One decision about what a sandbox tried to reach.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(deny_unknown_fields, rename_all = "kebab-case")
)]
#[non_exhaustive]
pub struct EgressDecision {
    /// Number of the decision in the sandbox's life, from 1.
    pub number: u64,
    /// When it was made.
    pub at: SystemTime,
    /// The name that was asked for, as the guest wrote it where that is all that is known; it is
    /// the guest's text, cut at 255 bytes.
    pub host: String,
    /// The port; `None` for a name that was only asked for.
    pub port: Option<u16>,
    /// Outcome of the decision.
    pub verdict: EgressVerdict,
    /// Why, in words.
    pub reason: String,
    /// The address that was dialled on the host.
    pub address: Option<IpAddr>,
}

impl EgressDecision {
    /// A decision of now, not numbered yet.
    pub fn new(host: impl Into<String>, verdict: EgressVerdict, reason: impl Into<String>) -> Self {
        Self {
            number: 0,
            at: SystemTime::now(),
            host: host.into(),
            port: None,
            verdict,
            reason: reason.into(),
            address: None,
        }
    }

    /// Sets the number.
    #[must_use]
    pub fn number(mut self, number: u64) -> Self {
        self.number = number;
        self
    }

    /// The port of the connection.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// The address that was dialled.
    #[must_use]
    pub fn address(mut self, address: IpAddr) -> Self {
        self.address = Some(address);
        self
    }
}

/// Decisions of a sandbox, as [`egress_decisions`](crate::Sandbox::egress_decisions) gives them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(default, deny_unknown_fields, rename_all = "kebab-case")
)]
#[non_exhaustive]
pub struct EgressDecisions {
    /// The decisions, in order.
    pub decisions: Vec<EgressDecision>,
    /// Number of earlier decisions that are not kept any more.
    pub missed: u64,
}

impl EgressDecisions {
    /// These decisions, of which so many are missing at the beginning.
    pub fn new(decisions: Vec<EgressDecision>, missed: u64) -> Self {
        Self { decisions, missed }
    }

    /// The number to go on from.
    pub fn last(&self) -> Option<u64> {
        self.decisions.last().map(|decision| decision.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_name_and_what_is_below_it_at_a_dot_match() {
        let apex = HostPattern::ApexAndSubdomains("allowed.test".into());
        let below = HostPattern::Subdomains("allowed.test".into());
        let exact = HostPattern::Exact("Allowed.Test.".into());
        for (name, by) in [
            ("allowed.test", [true, false, true]),
            ("ALLOWED.test.", [true, false, true]),
            ("a.allowed.test", [true, true, false]),
            ("a.b.allowed.test.", [true, true, false]),
            (".allowed.test", [false, false, false]),
            ("evilallowed.test", [false, false, false]),
            ("allowed.test.evil", [false, false, false]),
            ("allowed.test..", [false, false, false]),
            ("test", [false, false, false]),
            ("", [false, false, false]),
        ] {
            let found = [&apex, &below, &exact].map(|pattern| pattern.matches(name));
            assert_eq!(found, by, "{name}");
        }
    }

    #[test]
    fn what_is_no_host_name_has_no_canonical_form() {
        for name in [
            "",
            ".",
            "a..b",
            "-a.test",
            "a-.test",
            "1.2.3.4",
            "2130706433",
            "0x7f.1",
            "0x7f000001",
            "a.0x1",
            "::1",
            "[::1]",
            "allowed.test:80",
            "allowed.test%00.evil",
            "allowed.test@evil",
            "allowed.test\0.evil",
            "b\u{fc}cher.test",
            "\u{430}llowed.test",
            "*.test",
            &"a".repeat(64),
            &"a.".repeat(127),
            &format!("{}a", "a.".repeat(127)),
        ] {
            assert_eq!(
                canonical_host(name).filter(|name| name.len() > 253 || name.contains("..")),
                None,
                "{name}"
            );
            if !name.starts_with("a.a.") {
                assert_eq!(canonical_host(name), None, "{name}");
            }
        }
        assert_eq!(canonical_host("X_1.Test.").as_deref(), Some("x_1.test"));
        assert_eq!(
            canonical_host("xn--bcher-kva.test").as_deref(),
            Some("xn--bcher-kva.test")
        );
    }

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
            (vec![exact().header("x key", "s")], "no name of a header"),
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
