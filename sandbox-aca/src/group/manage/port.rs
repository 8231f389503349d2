//! Ports of a sandbox: who may come in, and where.
//!
//! A port without other settings asks for the service's own sign-in.

use serde_json::{Value, json};

use super::EgressAction;

/// Protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PortProtocol {
    /// HTTP/1.1.
    Http,
    /// HTTP/2.
    Http2,
}

/// Authentication of callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PortAuth {
    /// The service's default.
    Default,
    /// No check: the URL is all that is needed.
    Anonymous,
}

/// Rules for the addresses of callers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Access {
    /// Action for callers that no rule names.
    pub default: EgressAction,
    /// The rules, at most 10, tried by priority.
    pub rules: Vec<IpRule>,
}

/// A rule on callers.
///
/// ```
/// use sandbox_aca::{Access, NewPort};
/// let access = Access::deny().allow("office", &["192.0.2.0/24"]);
/// assert_eq!(access.rules[0].name, "office");
/// let port = NewPort::new(8080).access(access);
/// # let _ = port;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IpRule {
    /// Name of the rule; distinct.
    pub name: String,
    /// 0 to 1000; distinct.
    pub priority: u16,
    /// 1 to 10 networks without host bits, such as `10.0.0.0/8`.
    pub networks: Vec<String>,
    /// Action for callers from there.
    pub action: EgressAction,
}

impl Access {
    /// A policy that denies every address that no rule allows.
    pub fn deny() -> Self {
        Self {
            default: EgressAction::Deny,
            rules: Vec::new(),
        }
    }

    /// Allows these networks; the first rule that fits counts.
    #[must_use]
    pub fn allow(mut self, name: impl Into<String>, networks: &[&str]) -> Self {
        self.rules.push(IpRule {
            name: name.into(),
            priority: u16::try_from(self.rules.len()).map_or(1000, |n| 100 + n),
            networks: networks.iter().map(|text| (*text).to_owned()).collect(),
            action: EgressAction::Allow,
        });
        self
    }

    fn body(&self) -> Value {
        let action = |action| match action {
            EgressAction::Allow => "Allow",
            EgressAction::Deny => "Deny",
        };
        let rules = self.rules.iter().map(|rule| {
            json!({
                "name": rule.name,
                "priority": rule.priority,
                "sourceCidrs": rule.networks,
                "action": action(rule.action),
            })
        });
        json!({"defaultAction": action(self.default), "rules": rules.collect::<Vec<_>>()})
    }
}

/// A port to open.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewPort {
    /// Number of the port.
    pub port: u16,
    /// Protocol; the service's default if `None`.
    pub protocol: Option<PortProtocol>,
    /// Authentication of callers.
    pub auth: PortAuth,
    /// Rules for the addresses of callers; any address if `None`.
    pub access: Option<Access>,
    /// Whether a request resumes a suspended sandbox.
    pub on_demand: bool,
}

impl NewPort {
    /// Options of this port.
    pub fn new(port: u16) -> Self {
        Self {
            port,
            protocol: None,
            auth: PortAuth::Default,
            access: None,
            on_demand: false,
        }
    }

    sandbox_core::setters! {
        /// Speaks this.
        protocol: Some(PortProtocol),
    }

    /// Lets all callers in, without a sign-in.
    #[must_use]
    pub fn anonymous(mut self) -> Self {
        self.auth = PortAuth::Anonymous;
        self
    }

    sandbox_core::setters! {
        /// For callers from there.
        access: Some(Access),

        /// Resumes a suspended sandbox.
        on_demand: bool,
    }

    pub(crate) fn body(&self) -> Value {
        let mut body = json!({"port": self.port});
        if let Some(protocol) = self.protocol {
            body["protocol"] = json!(match protocol {
                PortProtocol::Http => "Http",
                PortProtocol::Http2 => "Http2",
            });
        }
        if self.auth == PortAuth::Anonymous {
            body["auth"] = json!({"anonymous": true});
        }
        if let Some(access) = &self.access {
            body["ipAccessControl"] = access.body();
        }
        if self.on_demand {
            body["activationMode"] = json!("OnDemand");
        }
        body
    }
}

/// An open port.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Port {
    /// Number of the port.
    pub port: u16,
    /// URL of the port; it may come a while after the port.
    pub url: Option<String>,
}

impl Port {
    pub(super) fn all(shown: &Value) -> Vec<Self> {
        let ports = shown["ports"].as_array().into_iter().flatten();
        ports
            .filter_map(|port| {
                Some(Self {
                    port: u16::try_from(port["port"].as_u64()?).ok()?,
                    url: port["url"].as_str().map(str::to_owned),
                })
            })
            .collect()
    }
}
