//! Egress by name, as this backend has it: addresses and listeners in the sandbox's own network,
//! made before its rights are given up, and the files by which its programs find them.
//!
//! Nothing of it runs in the sandbox; what is listened to there is served by the host's process
//! (`sandbox-egress`). It must never listen in another network than the sandbox's own.

use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use sandbox_core::{Env, Error, ErrorKind, Network, Operation, Result};
use sandbox_egress::{Connector, Egress, NAME_SERVER, RANGE, Service, Sockets};

use crate::engine::{Arg, Plan, Slot};
use crate::guest_user::GuestUser;
use crate::layers::{Layer, State, base};

/// Number of connections that wait to be accepted, for each listener.
const BACKLOG: u32 = 128;

/// Path of a default root's certificates, where programs with lists of their own look by
/// environment.
const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";
/// Variables that name a file of certificates, of curl, git, pip, cargo, node, Go, Deno, gRPC and
/// the clients of clouds.
const BUNDLE_VARIABLES: [&str; 11] = [
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "PIP_CERT",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
    "DENO_CERT",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
];

/// The policy of a spec, checked, with its certificates. Blocks.
pub(crate) fn plan(
    connector: &Arc<dyn Connector>,
    network: &Network,
    operation: Operation,
) -> Result<Option<sandbox_egress::Plan>> {
    let Network::Allow(policy) = network else {
        return Ok(None);
    };
    sandbox_egress::Plan::new(policy.clone(), connector.clone(), operation).map(Some)
}

/// A layer with the settings of the resolver and the certificates that the sandbox trusts.
pub(crate) fn layer(
    state: &Arc<State>,
    plan: &sandbox_egress::Plan,
    guest_user: Option<GuestUser>,
) -> io::Result<Arc<Layer>> {
    let (address, _) = NAME_SERVER;
    // One address a name and no search: the second question would only be refused.
    let resolver = format!("nameserver {address}\noptions timeout:2 attempts:2\n");
    let mut files = vec![("etc/resolv.conf", resolver)];
    files.extend(plan.certificates().map(|bundle| (BUNDLE, bundle)));
    base::build_files(state, &files, guest_user)
}

/// The variables by which programs find the certificates, if there are any of ours.
pub(crate) fn environment(plan: Option<&sandbox_egress::Plan>) -> Env {
    let needed = plan.is_some_and(|plan| plan.authority().is_some());
    let variables = BUNDLE_VARIABLES.iter().filter(|_| needed);
    variables.fold(Env::new(), |env, name| env.set(*name, format!("/{BUNDLE}")))
}

/// struct sockaddr_in.
fn address(address: Ipv4Addr, port: u16) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
    bytes[2..4].copy_from_slice(&port.to_be_bytes());
    bytes[4..8].copy_from_slice(&address.octets());
    bytes
}

/// Adds the steps that make the addresses and listeners, which are exported in the order in which
/// [`sockets`] takes them. The loopback interface is up.
///
/// References: netdevice(7), ip(7): a loopback interface answers for the whole network of its
/// address.
pub(crate) fn listen(plan: &mut Plan, egress: &sandbox_egress::Plan) {
    let label = "give the loopback interface the addresses of names";
    let control = socket(plan, label, libc::SOCK_DGRAM);
    let (own, mask) = RANGE;
    for (request, value) in [(libc::SIOCSIFADDR, own), (libc::SIOCSIFNETMASK, mask)] {
        // struct ifreq: the name of an alias, so that 127.0.0.1 stays; then an address.
        let mut structure = [0; 40];
        structure[..4].copy_from_slice(b"lo:1");
        structure[16..32].copy_from_slice(&address(value, 0));
        let structure = plan.data(&structure).into();
        let request = u64::from(request as u32);
        plan.call(
            label,
            libc::SYS_ioctl,
            &[control.into(), request.into(), structure],
        );
    }
    plan.close(label, control);
    let (server, port) = NAME_SERVER;
    let label = "listen for questions for names";
    let names = socket(plan, label, libc::SOCK_DGRAM);
    bind(plan, label, names, server, port);
    plan.export(names);
    tcp(plan, label.into(), server, port);
    for (at, port) in egress.listeners() {
        tcp(
            plan,
            format!("listen for connections to port {port}"),
            *at,
            *port,
        );
    }
}

fn socket(plan: &mut Plan, label: impl Into<std::borrow::Cow<'static, str>>, kind: i32) -> Slot {
    let kind = kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let args = [Arg::from(libc::AF_INET), kind.into(), 0.into()];
    plan.call(label, libc::SYS_socket, &args).result()
}

fn bind(
    plan: &mut Plan,
    label: impl Into<std::borrow::Cow<'static, str>>,
    socket: Slot,
    at: Ipv4Addr,
    port: u16,
) {
    let to = plan.data(&address(at, port)).into();
    plan.call(label, libc::SYS_bind, &[socket.into(), to, 16_u64.into()]);
}

fn tcp(plan: &mut Plan, label: String, at: Ipv4Addr, port: u16) {
    let listener = socket(plan, label.clone(), libc::SOCK_STREAM);
    bind(plan, label.clone(), listener, at, port);
    plan.call(label, libc::SYS_listen, &[listener.into(), BACKLOG.into()]);
    plan.export(listener);
}

/// The sockets that a plan exported, after whatever came before them.
pub(crate) fn sockets(exported: impl IntoIterator<Item = OwnedFd>) -> Option<Sockets> {
    let mut exported = exported.into_iter();
    Some(Sockets {
        names: UdpSocket::from(exported.next()?),
        names_by_tcp: TcpListener::from(exported.next()?),
        listeners: exported.map(TcpListener::from).collect(),
    })
}

/// Serves a run's sockets. Does not block; to be called in the runtime that will serve it.
pub(crate) fn serve(
    egress: Option<&Arc<Egress>>,
    sockets: Option<Sockets>,
    operation: Operation,
) -> Result<Option<Service>> {
    let (Some(egress), Some(sockets)) = (egress, sockets) else {
        return Ok(None);
    };
    let failed = |error: io::Error| {
        Error::from_io(error, operation).with_message("the sandbox's network can't be served")
    };
    egress.serve(sockets).map(Some).map_err(failed)
}

/// Why a sandbox without a policy has no decisions.
pub(crate) fn none(operation: Operation) -> Error {
    Error::new(ErrorKind::InvalidInput, operation)
        .with_message("the sandbox has no egress policy")
        .with_hint("create it with `Network::Allow` and a policy")
}
