//! The host side of egress by name: answers a sandbox's questions for names, judges its connections
//! and carries those that a policy allows.
//!
//! A backend gives its guest an address range that leads nowhere ([`RANGE`]), makes listeners
//! inside of it, and hands them to [`Egress::serve`]. Each name that the guest asks for gets an
//! address of its own from that range; the address that a connection was made to says which name
//! was meant, whatever the protocol. The name, the port, the TLS server name or HTTP host, and the
//! address that the host finds must all agree with one rule of the policy.
//!
//! Everything that comes from the guest is hostile: it is bounded in size and time before it is
//! looked at, and nothing of it is passed on before it was judged.
//!
//! Architecture invariants: nothing of a sandbox but its listeners is used; nothing is resolved or
//! dialled that no rule allows; a secret of a rule leaves only towards its host.

mod address;
mod authority;
mod connection;
mod connector;
mod dns;
mod hello;
mod http;
mod log;
mod meter;
mod reach;
mod serve;
mod table;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sandbox_core::{
    EgressDecision, EgressDecisions, EgressPolicy, EgressRule, EgressVerdict, Error, ErrorKind,
    HostPattern, Operation, Result, canonical_host,
};
use tokio::sync::{Semaphore, watch};

pub use connector::{Connector, HostConnector};
pub use serve::{Service, Sockets};

use authority::Authority;
use log::Log;
use meter::Meter;
use table::Table;

/// The addresses that names get: network and mask, for the guest's loopback interface. The first
/// address of it is the interface's own.
pub const RANGE: (Ipv4Addr, Ipv4Addr) =
    (Ipv4Addr::new(198, 18, 0, 1), Ipv4Addr::new(255, 254, 0, 0));

/// Address and port where the guest asks for names, by UDP and TCP.
pub const NAME_SERVER: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 53);

/// Below this a guest without rights can't listen.
const FIRST_FREE_PORT: u16 = 1024;

/// A policy that was checked for this way of having it, and what goes with it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Plan {
    policy: Arc<EgressPolicy>,
    authority: Option<Arc<Authority>>,
    client: Option<Arc<rustls::ClientConfig>>,
    connector: Arc<dyn Connector>,
    listeners: Vec<(Ipv4Addr, u16)>,
}

/// More listeners would be more descriptors than a start hands over.
const MOST_LISTENERS: usize = 40;

impl Plan {
    /// Checks a policy, and makes the certificates that it needs. Blocks: where the policy has
    /// credentials the host's authorities are read.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a policy without a meaning, and for one that can't be had in
    /// this way: a port from 1024 on for more than exact names (the guest's own servers are there),
    /// port 53, more than 40 different ports; it says what to write instead.
    pub fn new(
        policy: EgressPolicy,
        connector: Arc<dyn Connector>,
        operation: Operation,
    ) -> Result<Self> {
        policy.validate(operation)?;
        let invalid = |why: String| {
            Error::new(ErrorKind::InvalidInput, operation)
                .with_message(format!("the egress policy can't be used: {why}"))
        };
        let failed = |error: authority::CertificateError| {
            Error::new(ErrorKind::Other, operation)
                .with_message("the certificates of the egress policy could not be made")
                .with_source(error)
        };
        let table = table(&policy);
        let mut listeners = BTreeSet::new();
        for rule in &policy.rules {
            for port in rule.effective_ports() {
                if *port == NAME_SERVER.1 {
                    return Err(invalid(format!(
                        "the rule for {} names port 53, where the sandbox asks for names; names are \
                         answered without it",
                        rule.host
                    )));
                }
                if *port < FIRST_FREE_PORT {
                    listeners.insert((Ipv4Addr::UNSPECIFIED, *port));
                    continue;
                }
                // The guest's own servers are at such ports, so one name's address is taken.
                let name = canonical_host(rule.host.name());
                let (HostPattern::Exact(_), Some(name)) = (&rule.host, name) else {
                    return Err(invalid(format!(
                        "the rule for {} names port {port}; ports from {FIRST_FREE_PORT} on are for \
                         exact names: write one rule for each",
                        rule.host
                    )));
                };
                if let Some(address) = table.clone().address(&name) {
                    listeners.insert((address, *port));
                }
            }
        }
        if listeners.len() > MOST_LISTENERS {
            return Err(invalid(format!(
                "it takes {} listeners and there are at most {MOST_LISTENERS}: name fewer ports, or \
                 fewer names with ports from {FIRST_FREE_PORT} on",
                listeners.len()
            )));
        }
        let names: Vec<String> = policy
            .rules
            .iter()
            .filter(|rule| rule.intercepts())
            .filter_map(|rule| canonical_host(rule.host.name()))
            .collect();
        let authority = match names.as_slice() {
            [] => None,
            names => Some(Arc::new(Authority::new(names).map_err(failed)?)),
        };
        let client = match policy.has_credentials() {
            true => Some(authority::client(&*connector).map_err(failed)?),
            false => None,
        };
        Ok(Self {
            policy: Arc::new(policy),
            authority,
            client,
            connector,
            listeners: listeners.into_iter().collect(),
        })
    }

    /// Returns the addresses and ports to listen at by TCP, apart from the [`NAME_SERVER`].
    pub fn listeners(&self) -> &[(Ipv4Addr, u16)] {
        &self.listeners
    }

    /// The certificates (PEM) of all that the guest is to trust: what the host trusts, and the
    /// sandbox's own authority. `None` if the policy has the host read no traffic. Reads files.
    pub fn certificates(&self) -> Option<String> {
        self.authority.as_deref().map(Authority::bundle)
    }

    /// The certificate (PEM) that the guest must trust, if the policy has the host read any
    /// traffic.
    pub fn authority(&self) -> Option<&str> {
        self.authority.as_deref().map(Authority::pem)
    }
}

/// The table with the names that are known from the beginning.
fn table(policy: &EgressPolicy) -> Table {
    let exact = policy.rules.iter().filter_map(|rule| match &rule.host {
        HostPattern::Exact(name) => canonical_host(name),
        _ => None,
    });
    let exact: Vec<String> = exact.collect();
    Table::new(exact.iter().map(String::as_str), policy.limits.names)
}

/// The egress of one sandbox: its names, limits and decisions. It has no socket of its own; what a
/// run of the sandbox has is a [`Service`].
#[derive(Debug)]
pub struct Egress {
    plan: Plan,
    /// Policy that the plan's policy was narrowed to.
    narrowed: watch::Sender<Option<Arc<EgressPolicy>>>,
    table: Mutex<Table>,
    log: Log,
    meter: Arc<Meter>,
    slots: Arc<Semaphore>,
}

/// Permission that a rule gives a connection.
#[derive(Debug)]
struct Permit {
    rule: EgressRule,
    private: bool,
}

impl Egress {
    /// The egress of a new sandbox.
    pub fn new(plan: Plan) -> Arc<Self> {
        let table = table(&plan.policy);
        Arc::new(Self::with(plan, table, None))
    }

    fn with(plan: Plan, table: Table, narrowed: Option<Arc<EgressPolicy>>) -> Self {
        let limits = &plan.policy.limits;
        let connections = usize::try_from(limits.connections).unwrap_or(usize::MAX);
        Self {
            meter: Arc::new(Meter::new(limits.bytes)),
            slots: Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS))),
            narrowed: watch::Sender::new(narrowed),
            table: Mutex::new(table),
            log: Log::default(),
            plan,
        }
    }

    /// The egress of a fork: the same policy as of now, the same addresses for the same names, and
    /// decisions and limits of its own.
    pub fn fork(&self) -> Arc<Self> {
        let narrowed = self.narrowed.borrow().clone();
        let table = self.table().clone();
        Arc::new(Self::with(self.plan.clone(), table, narrowed))
    }

    /// Allows from now on only what both the plan's policy and this one allow, and cuts what that
    /// forbids. The next call takes the place of this one.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a policy without a meaning.
    pub fn restrict(&self, policy: EgressPolicy, operation: Operation) -> Result<()> {
        policy.validate(operation)?;
        self.narrowed.send_replace(Some(Arc::new(policy)));
        Ok(())
    }

    /// Bytes that the sandbox has sent to hosts, and bytes that it has received, so far.
    pub fn traffic(&self) -> (u64, u64) {
        self.meter.traffic()
    }

    /// The decisions after a number; see
    /// [`Sandbox::egress_decisions`](sandbox_core::Sandbox::egress_decisions). The last 1024 are
    /// kept.
    pub fn decisions(&self, after: u64) -> EgressDecisions {
        self.log.after(after)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Names are only added, in single steps: a panic elsewhere leaves it valid.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether any rule is for a name.
    fn knows(&self, name: &str) -> bool {
        let narrowed = self.narrowed.borrow();
        self.plan.policy.knows(name) && narrowed.as_ref().is_none_or(|policy| policy.knows(name))
    }

    /// Returns what is allowed of a name and port.
    fn permit(&self, name: &str, port: u16) -> Option<Permit> {
        let rule = self.plan.policy.rule_for(name, port)?;
        let private = match &*self.narrowed.borrow() {
            None => rule.private,
            Some(policy) => {
                let narrowed = policy.rule_for(name, port)?;
                if narrowed.protocol != rule.protocol {
                    return None;
                }
                rule.private && narrowed.private
            }
        };
        Some(Permit {
            rule: rule.clone(),
            private,
        })
    }

    fn denied(&self, host: &str, port: u16, why: &str) {
        self.log
            .add(EgressDecision::new(host, EgressVerdict::Denied, why).port(port));
    }

    /// The answer to a question for a name; `None` for what deserves none.
    fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        let question = match dns::read(query) {
            Ok(question) => question,
            Err(answer) => return answer,
        };
        let text = question.name.as_deref().map(String::from_utf8_lossy);
        let name = text.as_deref().and_then(canonical_host);
        let answer = match name.filter(|name| self.knows(name)) {
            None => {
                let host = text
                    .as_deref()
                    .unwrap_or("(a name with a dot inside of a label)");
                let why = "no rule is for this name";
                self.log
                    .add(EgressDecision::new(host, EgressVerdict::Denied, why));
                dns::Answer::NoSuchName
            }
            Some(_) if !question.is_for_address() => dns::Answer::Nothing,
            Some(name) => {
                let address = self.table().address(&name);
                match address {
                    Some(address) => dns::Answer::Address(address),
                    None => {
                        let why = "the limit on names is reached";
                        self.log
                            .add(EgressDecision::new(name, EgressVerdict::Denied, why));
                        dns::Answer::Failure
                    }
                }
            }
        };
        Some(dns::write(&question, answer))
    }
}
