//! One connection of a guest: which name was dialled, whether that is allowed, and then carried.
//!
//! Must have decided before a byte goes out, and dial no address but one that was checked.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use sandbox_core::{EgressDecision, EgressProtocol, EgressVerdict};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::meter::Metered;
use crate::{Egress, Permit, address, hello, http};

/// Limits of the time to resolve a name, and to reach an address.
const RESOLVING: Duration = Duration::from_secs(10);
const DIALLING: Duration = Duration::from_secs(10);
/// Greatest number of a name's addresses that are tried.
const MOST_ADDRESSES: usize = 4;
/// Number of bytes that one direction holds in between.
const BUFFER: usize = 64 * 1024;

/// Fatal alerts of TLS: access denied, internal error.
const ACCESS_DENIED: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];
const INTERNAL_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 80];

/// The name and port that a guest dialled.
#[derive(Clone, Debug)]
pub(crate) struct Dialled {
    pub(crate) name: String,
    pub(crate) port: u16,
}

/// Why nothing was dialled, or nothing answered.
#[derive(Debug)]
pub(crate) struct Unreached {
    pub(crate) verdict: EgressVerdict,
    pub(crate) why: String,
}

/// Anything that bytes go through.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for S {}

/// Returns the address and port that a connection of the guest was made to.
fn target(stream: &TcpStream) -> Option<(Ipv4Addr, u16)> {
    match stream.local_addr() {
        Ok(SocketAddr::V4(local)) => Some((*local.ip(), local.port())),
        _ => None,
    }
}

impl Egress {
    /// One connection too many.
    pub(crate) fn turned_away(&self, stream: &TcpStream) {
        if let Some((address, port)) = target(stream) {
            let name = self.table().name(address).map(str::to_owned);
            let host = name.unwrap_or_else(|| address.to_string());
            self.denied(&host, port, "the limit on connections is reached");
        }
    }

    /// Judges a connection and carries it to its end, or to where it is not allowed any more.
    pub(crate) async fn connection(self: Arc<Self>, stream: TcpStream) {
        let Some((address, port)) = target(&stream) else {
            return;
        };
        let name = self.table().name(address).map(str::to_owned);
        let Some(name) = name else {
            let why = "no name was answered with this address";
            return self.denied(&address.to_string(), port, why);
        };
        let to = Dialled { name, port };
        // Before the permit is asked for, so that nothing is missed in between.
        let mut narrowed = self.narrowed.subscribe();
        let work = judged(self.clone(), to.clone(), stream);
        tokio::pin!(work);
        loop {
            tokio::select! {
                () = &mut work => return,
                changed = narrowed.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if self.permit(&to.name, to.port).is_none() {
                        let why = "cut: the policy was narrowed";
                        return self.denied(&to.name, to.port, why);
                    }
                }
            }
        }
    }

    /// Resolves a host once and dials an address that passed; records what came of it.
    pub(crate) async fn reach(
        &self,
        to: &Dialled,
        permit: &Permit,
    ) -> Result<TcpStream, Unreached> {
        // The real host behind a name of the sandbox's own is reached by TLS.
        let (host, port) = match &permit.rule.upstream {
            Some(upstream) => (upstream.trim_end_matches('.').to_ascii_lowercase(), 443),
            None => (to.name.clone(), to.port),
        };
        let reached = self.dial(&host, port, permit.private).await;
        let decision = match &reached {
            Ok((_, address)) => {
                let why = format!("a rule for {} ({})", permit.rule.host, permit.rule.protocol);
                EgressDecision::new(&to.name, EgressVerdict::Allowed, why).address(*address)
            }
            Err(unreached) => EgressDecision::new(&to.name, unreached.verdict, &unreached.why),
        };
        self.log.add(decision.port(to.port));
        reached.map(|(stream, _)| stream)
    }

    async fn dial(
        &self,
        host: &str,
        port: u16,
        private: bool,
    ) -> Result<(TcpStream, IpAddr), Unreached> {
        let failed = |why: String| Unreached {
            verdict: EgressVerdict::Failed,
            why,
        };
        let connector = &self.plan.connector;
        let found = tokio::time::timeout(RESOLVING, connector.resolve(host)).await;
        let found = match found {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return Err(failed(format!("the host can't resolve it: {error}"))),
            Err(_) => return Err(failed(format!("not resolved within {RESOLVING:?}"))),
        };
        let mut refused = None;
        let mut last = None;
        let mut tried = 0;
        for address in found {
            if let Some(why) = address::refused(address, private) {
                refused.get_or_insert((address, why));
                continue;
            }
            if tried == MOST_ADDRESSES {
                break;
            }
            tried += 1;
            let dialled = connector.dial(SocketAddr::new(address, port));
            match tokio::time::timeout(DIALLING, dialled).await {
                Ok(Ok(stream)) => match adopt(stream) {
                    Ok(stream) => return Ok((stream, address)),
                    Err(error) => last = Some(format!("{address} can't be used: {error}")),
                },
                Ok(Err(error)) => last = Some(format!("{address} can't be reached: {error}")),
                Err(_) => last = Some(format!("{address} did not answer within {DIALLING:?}")),
            }
        }
        Err(match (last, refused) {
            (Some(why), _) => failed(why),
            (None, Some((address, why))) => Unreached {
                verdict: EgressVerdict::Denied,
                why: format!("it leads to {address}: {why}"),
            },
            (None, None) => failed("the host finds no address for it".into()),
        })
    }
}

fn adopt(stream: std::net::TcpStream) -> io::Result<TcpStream> {
    stream.set_nonblocking(true)?;
    let stream = TcpStream::from_std(stream)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn judged(egress: Arc<Egress>, to: Dialled, stream: TcpStream) {
    // What waits for an answer must not wait for more bytes too.
    let _ = stream.set_nodelay(true);
    let Some(permit) = egress.permit(&to.name, to.port) else {
        let why = "no rule is for this name and port";
        return egress.denied(&to.name, to.port, why);
    };
    if egress.meter.is_used_up() {
        return egress.denied(&to.name, to.port, "the limit on bytes is used up");
    }
    let mut stream = Metered::new(stream, egress.meter.clone());
    match permit.rule.protocol {
        EgressProtocol::Http => http::serve(egress, to, permit, stream).await,
        EgressProtocol::Tls => tls(egress, to, permit, stream).await,
        // The name that was dialled is all there is to compare.
        _ => {
            if let Ok(mut upstream) = egress.reach(&to, &permit).await {
                carry(&egress, &to, &mut stream, &mut upstream).await;
            }
        }
    }
}

async fn tls(egress: Arc<Egress>, to: Dialled, permit: Permit, mut stream: Metered<TcpStream>) {
    let hello = match hello::read(&mut stream).await {
        Ok(hello) => hello,
        Err(why) => {
            egress.denied(&to.name, to.port, why);
            return alert(&mut stream, ACCESS_DENIED).await;
        }
    };
    if hello.name != to.name {
        let why = format!(
            "the TLS server name is {}, which was not dialled",
            hello.name
        );
        egress.denied(&to.name, to.port, &why);
        return alert(&mut stream, ACCESS_DENIED).await;
    }
    if permit.rule.intercepts() {
        return http::intercept(egress, to, permit, hello.bytes, stream).await;
    }
    match egress.reach(&to, &permit).await {
        Ok(mut upstream) => {
            if upstream.write_all(&hello.bytes).await.is_ok() {
                carry(&egress, &to, &mut stream, &mut upstream).await;
            }
        }
        Err(unreached) => {
            let denied = unreached.verdict == EgressVerdict::Denied;
            alert(
                &mut stream,
                if denied {
                    ACCESS_DENIED
                } else {
                    INTERNAL_ERROR
                },
            )
            .await;
        }
    }
}

/// Tells a TLS client, within bounds, that waiting is in vain.
async fn alert(stream: &mut Metered<TcpStream>, alert: [u8; 7]) {
    let tell = async {
        stream.write_all(&alert).await?;
        stream.shutdown().await
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), tell).await;
}

/// Carries bytes both ways until both sides have ended, or one of them breaks.
pub(crate) async fn carry(
    egress: &Egress,
    to: &Dialled,
    guest: &mut (impl AsyncRead + AsyncWrite + Unpin),
    upstream: &mut (impl AsyncRead + AsyncWrite + Unpin),
) {
    let carried = tokio::io::copy_bidirectional_with_sizes(guest, upstream, BUFFER, BUFFER).await;
    if carried.is_err() && egress.meter.is_used_up() {
        egress.denied(&to.name, to.port, "cut: the limit on bytes is used up");
    }
}
