//! One permission of a policy: names, ports, a protocol, and what the host adds.
//!
//! It must never show the value of a header.

use std::fmt;

use super::host::{HostPattern, check_name, same};
use crate::Secret;

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

/// One permission of an [`EgressPolicy`](crate::EgressPolicy).
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

    crate::setters! {
        /// Expects this protocol.
        protocol: EgressProtocol,

        /// Whether the name may lead to a private address.
        private: bool,
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

    pub(super) fn validate(&self) -> Result<(), String> {
        check_name(self.host.name())?;
        let of = format!("the rule for {}", self.host);
        if self.effective_ports().is_empty() {
            return Err(format!("{of} is for raw TCP and names no port: add `port`"));
        }
        if self.ports.contains(&0) {
            return Err(format!(
                "{of} names port 0, at which nothing can listen: remove it"
            ));
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
        return Err(format!(
            "{name:?} can't be the name of a header: it is empty, or has other characters than letters, digits and !#$%&'*+-.^_`|~"
        ));
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
