//! Connections through an egress policy beside direct ones to the same server on loopback, by the
//! same client on both sides.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sandbox::local::{Connector, LocalConfig, LocalProvider};
use sandbox::{
    Command, EgressPolicy, EgressProtocol, EgressRule, Network, Provider, Sandbox, SandboxSpec,
    async_trait,
};

use crate::bench::Bench;
use crate::support::Outcome;
use crate::support::measure::Case;

/// Connects, sends one byte, gets one back and closes, so many times; or reads so many bytes.
/// Prints the seconds that it took, without its own start.
const CLIENT: &str = r#"
import socket, sys, time
host, port, what, count = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
start = time.perf_counter()
if what == "connect":
    for _ in range(count):
        s = socket.create_connection((host, port)); s.sendall(b"e"); s.recv(1); s.close()
else:
    s = socket.create_connection((host, port)); s.sendall(b"s"); buffer = bytearray(1 << 18); got = 0
    while got < count: got += s.recv_into(buffer)
print(time.perf_counter() - start)
"#;

/// Echoes one byte, or streams for ever.
fn server() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            std::thread::spawn(move || {
                let mut byte = [0];
                if stream.read_exact(&mut byte).is_err() {
                    return;
                }
                if byte == *b"e" {
                    let _ = stream.write_all(&byte);
                    return;
                }
                let some = vec![b'x'; 256 << 10];
                while stream.write_all(&some).is_ok() {}
            });
        }
    });
    Ok(address)
}

#[derive(Debug)]
struct To(SocketAddr);

#[async_trait]
impl Connector for To {
    async fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        Ok(vec![IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1))])
    }

    async fn dial(&self, _: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect(self.0)
    }
}

fn direct(args: &[String]) -> Outcome<Duration> {
    let output = std::process::Command::new("/usr/bin/python3")
        .args(args)
        .output()?;
    seconds(&String::from_utf8_lossy(&output.stdout))
}

async fn inside(sandbox: &Arc<dyn Sandbox>, args: &[String]) -> Outcome<Duration> {
    let output = sandbox
        .exec(Command::new("/usr/bin/python3").args(args.iter().map(String::as_str)))
        .await?;
    seconds(&output.stdout.to_string_lossy())
}

fn seconds(text: &str) -> Outcome<Duration> {
    Ok(Duration::from_secs_f64(text.trim().parse()?))
}

pub(crate) fn all(bench: &mut Bench) -> Outcome<()> {
    let connections: u64 = bench.effort.pick(2, 200, 1_000);
    let mib: u64 = bench.effort.pick(1, 512, 2_048);
    let server = server()?;
    let runtime = Arc::clone(&bench.runtime);
    let provider = LocalProvider::new(LocalConfig::default().connector(Arc::new(To(server))))?;
    let rule = EgressRule::exact("bench.test")
        .protocol(EgressProtocol::Tcp)
        .port(443);
    let policy = EgressPolicy::new().rule(rule);
    let spec = SandboxSpec::new().network(Network::Allow(policy));
    let sandbox = runtime.block_on(provider.create(spec.clone()))?;
    for (name, what, count) in [
        (
            format!("{connections} connections by name"),
            "connect",
            connections,
        ),
        (format!("{mib} MiB by name"), "stream", mib << 20),
    ] {
        let args = |host: &str, port: u16| {
            [
                "-c",
                CLIENT,
                host,
                &port.to_string(),
                what,
                &count.to_string(),
            ]
            .map(str::to_owned)
        };
        let (own, named) = (args("127.0.0.1", server.port()), args("bench.test", 443));
        let cases = vec![
            Case::new("loopback of the host", || direct(&own)),
            Case::new("through the egress policy", || {
                runtime.block_on(inside(&sandbox, &named))
            }),
        ];
        bench.compare(&name, cases)?;
    }
    let create = |network: Network| {
        let started = Instant::now();
        let spec = SandboxSpec::new().network(network);
        let sandbox = runtime.block_on(provider.create(spec))?;
        let took = started.elapsed();
        runtime.block_on(sandbox.close())?;
        Ok(took)
    };
    let cases = vec![
        Case::new("no network", || create(Network::Off)),
        Case::new("an egress policy", || create(spec.network.clone())),
    ];
    bench.compare("create with an egress policy", cases)?;
    bench.close(&sandbox)
}
