//! The way from a name to a host on the other side: resolved once, an address that passed dialled,
//! bytes carried.
//!
//! It must never dial an address that was not checked.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use sandbox_core::{EgressDecision, EgressVerdict};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::{Egress, Permit, address};

/// Limits of the time to resolve a name, and to reach an address.
const RESOLVING: Duration = Duration::from_secs(10);
const DIALLING: Duration = Duration::from_secs(10);

/// Greatest number of a name's addresses that are tried.
const MOST_ADDRESSES: usize = 4;

/// Number of bytes that one direction holds in between.
const BUFFER: usize = 64 * 1024;

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

impl Egress {
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
