//! Connections to ports of a sandbox: over the stream of a relay in the guest.
//!
//! The service's own ports are URLs for HTTP that are open to others, so that none is opened here:
//! a connection must never let in more than the one that asked for it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use sandbox_core::backend::{check_port, not_listening};
use sandbox_core::{
    Capability, Command, Error, ErrorKind, Operation, PortStream, Process, ProcessStdin,
    ProcessStdout, Result,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

use crate::guest::handle::Guest;
use crate::guest::script::{garbled, said};

const OP: Operation = Operation::ConnectPort;
/// Limit of the time in which the guest says whether something listens.
const LOOK: Duration = Duration::from_secs(60);
/// Limit of the time of a relay.
const YEARS: Duration = Duration::from_secs(10 * 365 * 86_400);
/// The programs of the guest that can be a relay: how they are given a script, and the script.
const RELAYS: [(&str, &[&str], &str); 2] = [
    ("python3", &["-I", "-S", "-c"], include_str!("relay.py")),
    ("perl", &["-e"], include_str!("relay.pl")),
];

impl Guest {
    /// Connects to a port on which a program in the guest listens.
    pub(crate) async fn connect_port(self: Arc<Self>, port: u16) -> Result<PortStream> {
        self.open(OP)?;
        check_port(port).map_err(|error| self.named(error))?;
        let (program, flags, script) = RELAYS[self.look(port).await?];
        // A limit on commands is none on connections.
        let command = Command::new(program)
            .args(flags)
            .arg(script)
            .arg(port.to_string())
            .cwd("/")
            .timeout(YEARS)
            .stdin_piped();
        let spawned = Arc::clone(&self).spawn(OP, command).await;
        let mut process = spawned.map_err(|error| self.relay_failed(port, error))?;
        let streams = (process.stdin.take(), process.stdout.take());
        let (Some(stdin), Some(mut stdout)) = streams else {
            return Err(self.named(garbled(OP)));
        };
        let mut first = [0];
        match stdout.read(&mut first).await {
            Ok(1) if first == *b"C" => {}
            Ok(1) if first == *b"N" => return Err(self.named(not_listening(port))),
            _ => {
                let what = format!("the relay to port {port} ended before it was connected");
                let error = Error::new(ErrorKind::Unavailable, OP).with_message(what);
                return Err(self.named(error));
            }
        }
        Ok(PortStream::new(Relayed {
            stdin,
            stdout,
            _process: process,
        }))
    }

    /// Which relay the guest has, if something listens on the port. One request, so that a wait for
    /// a port costs little.
    async fn look(&self, port: u16) -> Result<usize> {
        let tables = "/proc/net/tcp /proc/net/tcp6";
        let mut line = format!(
            "grep -qsE '^ *[0-9]+: [0-9A-F]+:{port:04X} [0-9A-F]+:0000 0A ' {tables} || {{ echo N; exit; }}; "
        );
        for (number, (program, ..)) in RELAYS.iter().enumerate() {
            line += &format!("command -v {program} > /dev/null && {{ echo L {number}; exit; }}; ");
        }
        line += "echo T";
        let id = self.id.as_str();
        let text = self.transport.shell(OP, id, &line, true, LOOK).await;
        let text = text.map_err(|failure| self.failed(failure))?;
        match said(&text, OP).map_err(|error| self.named(error))?.words[..] {
            ["L", number] => number
                .parse()
                .ok()
                .filter(|number| *number < RELAYS.len())
                .ok_or_else(|| self.named(garbled(OP))),
            ["N"] => Err(self.named(not_listening(port))),
            ["T"] => {
                let why = "the image has neither python3 nor perl, which carry a connection";
                Err(self.named(Error::unsupported(OP, Capability::Ports, why)))
            }
            _ => Err(self.named(garbled(OP))),
        }
    }

    fn relay_failed(&self, port: u16, error: Error) -> Error {
        if let Err(closed) = self.open(OP) {
            return closed;
        }
        let failed = Error::new(error.kind(), OP)
            .with_message(format!("the relay to port {port} could not be started"))
            .with_source(error);
        self.named(failed)
    }
}

/// A connection over the streams of a relay, which is killed with it.
struct Relayed {
    stdin: ProcessStdin,
    stdout: ProcessStdout,
    _process: Process,
}

impl AsyncRead for Relayed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stdout).poll_read(cx, buf)
    }
}

impl AsyncWrite for Relayed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stdin).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stdin).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stdin).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    /// Output of a relay that is given these bytes and their end.
    async fn relayed((program, flags, script): (&str, &[&str], &str), port: u16) -> Vec<u8> {
        let mut relay = tokio::process::Command::new(program)
            .args(flags)
            .arg(script)
            .arg(port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect(program);
        let mut stdin = relay.stdin.take().expect("a pipe");
        let write = async move {
            // One that nothing listens to has ended.
            drop(stdin.write_all(&b"abc".repeat(100_000)).await);
        };
        let (ended, ()) = tokio::join!(relay.wait_with_output(), write);
        ended.expect(program).stdout
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn each_relay_carries_both_ways_and_says_if_nothing_listens() {
        for relay in RELAYS {
            for address in ["127.0.0.1:0", "[::1]:0"] {
                let what = format!("{} and {address}", relay.0);
                let listener = TcpListener::bind(address).await.expect(&what);
                let port = listener.local_addr().expect(&what).port();
                let serve = async move {
                    let (mut stream, _) = listener.accept().await.expect("a connection");
                    let mut got = Vec::new();
                    // To the end of it, which the relay passes on.
                    stream.read_to_end(&mut got).await.expect("bytes");
                    got.make_ascii_uppercase();
                    stream.write_all(&got).await.expect("it is read");
                };
                let (answer, ()) = tokio::join!(relayed(relay, port), serve);
                let expected = [&b"C"[..], &b"ABC".repeat(100_000)].concat();
                assert!(answer == expected, "{what}: {} bytes", answer.len());
                assert_eq!(relayed(relay, port).await, b"N", "{what}: nothing listens");
            }
        }
    }
}
