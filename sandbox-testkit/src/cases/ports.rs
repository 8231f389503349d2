//! Connections to what listens in the sandbox.
//!
//! Invariant: the server is a program of the guest, python3 or perl; without either the case fails.

use std::time::Duration;

use sandbox_core::{
    Command, ErrorKind, Network, Operation, PortWaitOptions, Process, SandboxExt as _,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::kit::{Context, Failed, Verdict, cases, ensure, ensure_eq, refused};

cases! { "ports":
    bytes_go_both_ways [Exec, Spawn, Ports],
    a_sandbox_without_network_is_reached [Exec, Spawn, Ports, NetworkOff],
    many_connections_at_once [Exec, Spawn, Ports],
    a_port_without_a_listener_is_named [Ports],
    port_zero_is_refused [Ports],
    waiting_ends_when_it_listens [Exec, Spawn, Ports],
    waiting_for_http_ends_when_it_answers [Exec, Spawn, Ports],
    waiting_fails_when_the_server_has_ended [Spawn, Ports],
    waiting_has_an_end [Ports],
    a_closed_sandbox_takes_no_connection [Ports],
}

/// Time of a wait in vain: a look at the port ends within it.
const WAIT: Duration = Duration::from_millis(500);

/// A server on the port: by a word that it is told, what it does with each connection.
const PYTHON: &str = r#"
import socket, sys, threading, time
port, kind, delay = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
time.sleep(delay)
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("127.0.0.1", port))
s.listen(64)
begun = time.monotonic()
def serve(c):
    try:
        if kind == "http":
            c.recv(4096)
            status = b"200 OK" if time.monotonic() > begun + 0.3 else b"503 Later"
            c.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")
        else:
            while True:
                b = c.recv(65536)
                if not b: break
                c.sendall(b.upper())
    except OSError:
        pass
    c.close()
while True:
    c, _ = s.accept()
    threading.Thread(target=serve, args=(c,), daemon=True).start()
"#;

const PERL: &str = r#"
use IO::Socket::INET; use Time::HiRes qw(time sleep);
my ($port, $kind, $delay) = @ARGV; sleep $delay;
my $s = IO::Socket::INET->new(LocalAddr=>"127.0.0.1", LocalPort=>$port, Listen=>64, ReuseAddr=>1) or die $!;
my $begun = time; $SIG{CHLD} = "IGNORE";
while (my $c = $s->accept) {
    next if fork; my $b;
    if ($kind eq "http") {
        sysread $c, $b, 4096;
        my $status = time > $begun + 0.3 ? "200 OK" : "503 Later";
        syswrite $c, "HTTP/1.1 $status\r\nContent-Length: 0\r\n\r\n";
    } else {
        while (sysread $c, $b, 65536) { my $u = uc $b; while (length $u) { my $n = syswrite($c, $u) or last; substr($u, 0, $n) = ""; } }
    }
    exit;
}
"#;

/// Starts a server with the first program of the guest that can be one.
async fn serve(cx: &Context, port: u16, kind: &str, delay: &str) -> Verdict<Process> {
    serve_in(&*cx.sandbox, port, kind, delay).await
}

async fn serve_in(
    sandbox: &dyn sandbox_core::Sandbox,
    port: u16,
    kind: &str,
    delay: &str,
) -> Verdict<Process> {
    for (program, flag, script) in [("python3", "-c", PYTHON), ("perl", "-e", PERL)] {
        let port = port.to_string();
        let command = Command::new(program)
            .arg(flag)
            .arg(script)
            .args([&port, kind, delay]);
        match sandbox.spawn(command).await {
            Err(error) if error.kind() == ErrorKind::CommandNotFound => {}
            spawned => return Ok(spawned?),
        }
    }
    Err(Failed::new(
        "the guest has neither python3 nor perl: nothing could listen",
    ))
}

async fn upper(sandbox: &dyn sandbox_core::Sandbox, port: u16, bytes: &[u8]) -> Verdict<Vec<u8>> {
    let stream = sandbox.connect_port(port).await?;
    let (mut read, mut write) = tokio::io::split(stream);
    let mut answer = Vec::new();
    let (written, got) = tokio::join!(
        async {
            write.write_all(bytes).await?;
            write.shutdown().await
        },
        read.read_to_end(&mut answer),
    );
    written?;
    got?;
    Ok(answer)
}

async fn bytes_go_both_ways(cx: Context) -> Verdict {
    let server = serve(&cx, 8123, "upper", "0").await?;
    let options = PortWaitOptions::new().server(server.wait());
    cx.sandbox.wait_for_port(8123, options).await?;
    ensure_eq!(
        upper(&*cx.sandbox, 8123, b"hello").await?,
        b"HELLO",
        "the answer"
    );
    // More than any buffer on the way holds.
    let long = b"abcdefgh".repeat(500_000);
    let answer = upper(&*cx.sandbox, 8123, &long).await?;
    ensure!(
        answer == long.to_ascii_uppercase(),
        "a long answer is another"
    );
    Ok(server.kill().await?)
}

async fn a_sandbox_without_network_is_reached(cx: Context) -> Verdict {
    let one = cx.create(cx.fixture.spec().network(Network::Off)).await?;
    let two = cx.create(cx.fixture.spec().network(Network::Off)).await?;
    let server = serve_in(&*one, 8124, "upper", "0").await?;
    one.wait_for_port(8124, PortWaitOptions::new().server(server.wait()))
        .await?;
    ensure_eq!(upper(&*one, 8124, b"abc").await?, b"ABC", "the answer");
    // Each has its own ports.
    let connected = two.connect_port(8124).await;
    refused(
        connected,
        &two,
        Operation::ConnectPort,
        ErrorKind::NotListening,
    )?;
    Ok(())
}

async fn many_connections_at_once(cx: Context) -> Verdict {
    let server = serve(&cx, 8125, "upper", "0").await?;
    let options = PortWaitOptions::new().server(server.wait());
    cx.sandbox.wait_for_port(8125, options).await?;
    let calls: Vec<_> = (0..32)
        .map(|number| {
            let sandbox = cx.sandbox.clone();
            tokio::spawn(async move {
                let sent = format!("n{number}");
                let got = upper(&*sandbox, 8125, sent.as_bytes()).await?;
                ensure_eq!(got, sent.to_uppercase().into_bytes(), "the answer");
                Ok::<(), Failed>(())
            })
        })
        .collect();
    for call in calls {
        call.await??;
    }
    Ok(())
}

async fn a_port_without_a_listener_is_named(cx: Context) -> Verdict {
    let connected = cx.sandbox.connect_port(8126).await;
    let kind = ErrorKind::NotListening;
    let error = refused(connected, &cx.sandbox, Operation::ConnectPort, kind)?;
    ensure!(error.message().contains("8126"), "no port in {error}");
    ensure!(error.hint().is_some(), "no remedy in {error}");
    Ok(())
}

async fn port_zero_is_refused(cx: Context) -> Verdict {
    let connected = cx.sandbox.connect_port(0).await;
    let kind = ErrorKind::InvalidInput;
    refused(connected, &cx.sandbox, Operation::ConnectPort, kind)?;
    Ok(())
}

async fn waiting_ends_when_it_listens(cx: Context) -> Verdict {
    let server = serve(&cx, 8127, "upper", "0.3").await?;
    let options = PortWaitOptions::new().server(server.wait());
    cx.sandbox.wait_for_port(8127, options).await?;
    ensure_eq!(upper(&*cx.sandbox, 8127, b"x").await?, b"X", "the answer");
    // What listens and speaks something else is not ready, and no command ran into its deadline.
    let options = PortWaitOptions::new().http("/").timeout(WAIT);
    let waited = cx.sandbox.wait_for_port(8127, options).await;
    let kind = ErrorKind::Unavailable;
    refused(waited, &cx.sandbox, Operation::ConnectPort, kind)?;
    Ok(())
}

async fn waiting_for_http_ends_when_it_answers(cx: Context) -> Verdict {
    let server = serve(&cx, 8128, "http", "0").await?;
    let options = PortWaitOptions::new().server(server.wait());
    cx.sandbox.wait_for_port(8128, options).await?;
    // It listens, and answers with an error for a while.
    let options = PortWaitOptions::new().http("/health").server(server.wait());
    cx.sandbox.wait_for_port(8128, options).await?;
    let options = PortWaitOptions::new().http("no path");
    let waited = cx.sandbox.wait_for_port(8128, options).await;
    refused(
        waited,
        &cx.sandbox,
        Operation::ConnectPort,
        ErrorKind::InvalidInput,
    )?;
    Ok(())
}

async fn waiting_fails_when_the_server_has_ended(cx: Context) -> Verdict {
    let server = cx.sandbox.spawn(Command::shell("exit 42")).await?;
    let options = PortWaitOptions::new()
        .server(server.wait())
        .timeout(Duration::from_secs(600));
    let waited = cx.sandbox.wait_for_port(8129, options).await;
    let kind = ErrorKind::NotListening;
    let error = refused(waited, &cx.sandbox, Operation::ConnectPort, kind)?;
    ensure!(error.message().contains("42"), "no status in {error}");
    Ok(())
}

async fn waiting_has_an_end(cx: Context) -> Verdict {
    let mut within = WAIT;
    let waited = loop {
        let options = PortWaitOptions::new().timeout(within);
        let waited = cx.sandbox.wait_for_port(8130, options).await;
        match &waited {
            // No look has ended in that time: it is a busy machine's or a slow service's.
            Err(error) if error.kind() == ErrorKind::Unavailable && within < WAIT * 100 => {
                within *= 4;
            }
            _ => break waited,
        }
    };
    let error = refused(
        waited,
        &cx.sandbox,
        Operation::ConnectPort,
        ErrorKind::NotListening,
    )?;
    ensure!(error.message().contains("8130"), "no port in {error}");
    Ok(())
}

async fn a_closed_sandbox_takes_no_connection(cx: Context) -> Verdict {
    let sandbox = cx.another().await?;
    sandbox.close().await?;
    let connected = sandbox.connect_port(8131).await;
    refused(
        connected,
        &sandbox,
        Operation::ConnectPort,
        ErrorKind::Closed,
    )?;
    Ok(())
}
