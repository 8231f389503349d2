//! The host's sockets and the outer world (B 21, 22).

use std::io::Read;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process;
use std::time::{Duration, Instant};

use sandbox_core::{Command, Network, SandboxSpec};

use crate::{host, support};

/// Listeners of the host: loopback TCP, loopback UDP that answers, an abstract socket.
struct Listeners {
    tcp: TcpListener,
    udp: u16,
    name: String,
    _abstract: UnixListener,
}

impl Listeners {
    fn new(test: &str) -> Self {
        let name = format!("hostile-{test}-{}", process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("udp");
        let port = udp.local_addr().expect("its port").port();
        std::thread::spawn(move || {
            let mut byte = [0];
            while let Ok((_, from)) = udp.recv_from(&mut byte) {
                let _ = udp.send_to(&byte, from);
            }
        });
        Self {
            tcp: TcpListener::bind("127.0.0.1:0").expect("tcp"),
            udp: port,
            name,
            _abstract: UnixListener::bind_addr(&address).expect("an abstract socket"),
        }
    }

    fn tcp_port(&self) -> String {
        self.tcp.local_addr().expect("its port").port().to_string()
    }
}

#[tokio::test]
async fn the_hosts_loopback_and_abstract_sockets_are_not_the_guests() {
    let _turn = host::shared().await;
    let sandbox = host::guest().await;
    let listeners = Listeners::new("off");
    let (tcp, udp) = (listeners.tcp_port(), listeners.udp.to_string());
    let attempts = [
        ("tcp", vec!["tcp", "127.0.0.1", &tcp], "ECONNREFUSED"),
        ("udp", vec!["udp", "127.0.0.1", &udp], "ECONNREFUSED"),
        (
            "abstract",
            vec!["abstract", &listeners.name],
            "ECONNREFUSED",
        ),
    ];
    for (name, args, expected) in attempts {
        assert_eq!(
            host::outside("net", &args).get(name),
            "ok",
            "no control for {name}"
        );
        assert_eq!(
            host::inside(&sandbox, "net", &args).await.get(name),
            expected
        );
    }
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn with_the_hosts_network_abstract_sockets_stay_apart() {
    let _turn = host::shared().await;
    let spec = SandboxSpec::new().network(Network::Open);
    let sandbox = support::create(spec).await;
    host::equip(&sandbox).await;
    let listeners = Listeners::new("open");
    let tcp = listeners.tcp_port();
    // What the spec opens is open, and so the connection is right.
    let args = ["tcp", "127.0.0.1", &tcp];
    assert_eq!(host::inside(&sandbox, "net", &args).await.get("tcp"), "ok");
    let version = host::outside("net", &["landlock"]).number("version");
    let args = ["abstract", listeners.name.as_str()];
    assert_eq!(host::outside("net", &args).get("abstract"), "ok");
    let found = host::inside(&sandbox, "net", &args).await;
    // Kernels before 6.12 cannot keep them apart; the isolation report says so then.
    assert_eq!(
        found.get("abstract"),
        if version >= 6 { "EPERM" } else { "ok" }
    );
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn the_outer_world_fails_at_once() {
    let _turn = host::alone().await;
    let sandbox = host::guest().await;
    for (kind, ip, port) in [
        ("tcp", "169.254.169.254", "80"),
        ("tcp", "1.1.1.1", "443"),
        ("tcp", "10.0.0.1", "22"),
        ("udp", "8.8.8.8", "53"),
        ("udp", "127.0.0.53", "53"),
    ] {
        let found = host::inside(&sandbox, "net", &[kind, ip, port]).await;
        let refused = ["ENETUNREACH", "ECONNREFUSED"];
        assert!(refused.contains(&found.get(kind)), "{ip}: {found:?}");
        assert!(
            found.number(&format!("{kind}_ms")) < 5000,
            "{ip}: {found:?}"
        );
    }
    let before = Instant::now();
    let lookup = support::run(
        &sandbox,
        Command::new("getent").args(["hosts", "example.com"]),
    )
    .await;
    assert_eq!(
        lookup.status.code(),
        Some(2),
        "getent's answer for what is not found"
    );
    assert!(
        before.elapsed() < Duration::from_secs(120),
        "{:?}",
        before.elapsed()
    );
    let own = support::sh(
        &sandbox,
        "getent hosts localhost && ls /sys 2>/dev/null; true",
    )
    .await;
    assert!(own.contains("localhost"), "no control: {own}");
    let interfaces = support::sh(&sandbox, "tail -n +3 /proc/net/dev | cut -d: -f1").await;
    assert_eq!(interfaces.trim(), "lo");
    let mut hosts = String::new();
    let file = std::fs::File::open("/proc/net/dev").expect("the control");
    std::io::BufReader::new(file)
        .read_to_string(&mut hosts)
        .expect("the control");
    assert!(
        hosts.lines().count() > 3,
        "no control: the host has only loopback"
    );
    sandbox.close().await.expect("close");
}
