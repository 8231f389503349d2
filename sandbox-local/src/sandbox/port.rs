//! Connections to programs that listen in the sandbox.
//!
//! The socket is made inside and connected from outside: no program runs for it, and the guest gets
//! no descriptor of the host's.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use rustix::io::Errno;
use sandbox_core::backend::{check_port, not_listening};
use sandbox_core::{Error, Operation, PortStream, Result};
use tokio::net::TcpSocket;

use super::LocalSandbox;

const OP: Operation = Operation::ConnectPort;

/// Time that a listener may let a connection wait in its queue.
const LONGEST: Duration = Duration::from_secs(10);

impl LocalSandbox {
    pub(super) async fn connect(&self, port: u16) -> Result<PortStream> {
        check_port(port).map_err(|error| self.named(error))?;
        for address in [
            SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
        ] {
            let socket = {
                let running = self.running(OP).await?;
                let made = running.engine.tcp_socket(address.is_ipv6()).await;
                made.map_err(|lost| self.lost(lost, &running.cgroup, OP))?
            };
            let socket = match socket {
                Ok(socket) => TcpSocket::from_std_stream(TcpStream::from(socket)),
                // A kernel without it: nothing can listen there.
                Err(Errno::AFNOSUPPORT) => continue,
                Err(errno) => {
                    return Err(self
                        .named(Error::from_io(errno.into(), OP))
                        .with_message("no socket could be made in the sandbox"));
                }
            };
            match tokio::time::timeout(LONGEST, socket.connect(address)).await {
                Ok(Ok(stream)) => return Ok(PortStream::new(stream)),
                Ok(Err(error)) if is_nothing_there(&error) => {}
                Ok(Err(error)) => {
                    return Err(self
                        .named(Error::from_io(error, OP))
                        .with_message(format!("port {port} can't be connected to")));
                }
                Err(_) => {
                    let what =
                        format!("what listens on port {port} took no connection in {LONGEST:?}");
                    return Err(self.named(Error::unanswered(OP, what)));
                }
            }
        }
        Err(self.named(not_listening(port)))
    }
}

/// Whether a connection failed because nothing listens, or because there is no such address.
fn is_nothing_there(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrNotAvailable, ConnectionRefused, NetworkUnreachable};
    matches!(
        error.kind(),
        ConnectionRefused | AddrNotAvailable | NetworkUnreachable
    )
}
