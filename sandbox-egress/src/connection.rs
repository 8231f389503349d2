//! One connection of a guest: which name was dialled, whether that is allowed, and then carried.
//!
//! Must have decided before a byte goes out.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use sandbox_core::{EgressProtocol, EgressVerdict};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::meter::Metered;
use crate::reach::{Dialled, carry};
use crate::{Egress, Permit, hello, http};

/// Fatal alerts of TLS: access denied, internal error.
const ACCESS_DENIED: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];
const INTERNAL_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 80];

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
        let Some(permit) = self.permit(&to.name, to.port) else {
            let why = "no rule is for this name and port";
            return self.denied(&to.name, to.port, why);
        };
        let private = permit.private;
        let work = judged(self.clone(), to.clone(), permit, stream);
        tokio::pin!(work);
        loop {
            tokio::select! {
                () = &mut work => return,
                changed = narrowed.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    // Where it leads is not looked at: it may dial again.
                    let now = self.permit(&to.name, to.port);
                    if now.is_none_or(|now| private && !now.private) {
                        let why = "cut: the policy was narrowed";
                        return self.denied(&to.name, to.port, why);
                    }
                }
            }
        }
    }
}

async fn judged(egress: Arc<Egress>, to: Dialled, permit: Permit, stream: TcpStream) {
    // What waits for an answer must not wait for more bytes too.
    let _ = stream.set_nodelay(true);
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
