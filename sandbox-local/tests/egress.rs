//! Credentials that stay outside, and programs that find hosts by name without being told how.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test"
)]

mod support;

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sandbox_core::{
    Command, Control, EgressPolicy, EgressProtocol, EgressRule, EgressVerdict, Enforcement,
    FileBatch, Mount, Network, Provider, Sandbox, SandboxExt, SandboxSpec, async_trait,
};
use sandbox_local::{Connector, LocalConfig, LocalProvider};
use sandbox_testkit::egress::Upstreams;
use support::sh;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Names below `.test`: on port 443 a TLS server with a certificate for `api.cred.test`, on others
/// the kit's servers.
struct Hosts {
    plain: Arc<Upstreams>,
    tls: SocketAddr,
    authority: Vec<u8>,
    /// Heads of requests, as the TLS server got them.
    heads: Arc<Mutex<Vec<String>>>,
}

impl std::fmt::Debug for Hosts {
    /// Without what the servers were sent.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hosts")
    }
}

#[async_trait]
impl Connector for Hosts {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        self.plain.resolve(name)
    }

    async fn dial(&self, to: SocketAddr) -> io::Result<TcpStream> {
        match to.port() {
            443 => TcpStream::connect(self.tls),
            _ => self.plain.dial(to),
        }
    }

    fn authorities(&self) -> Vec<Vec<u8>> {
        vec![self.authority.clone()]
    }
}

impl Hosts {
    async fn start() -> Arc<Self> {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["api.cred.test".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            )
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .unwrap();
        let tls = listener.local_addr().unwrap();
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let told = heads.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, told) = (acceptor.clone(), told.clone());
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let mut bytes = Vec::new();
                    while stream
                        .read_buf(&mut bytes)
                        .await
                        .is_ok_and(|count| count > 0)
                    {
                        let Some(end) = bytes.windows(4).position(|at| at == b"\r\n\r\n") else {
                            continue;
                        };
                        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
                        bytes.clear();
                        // A host that sends back what it got, in a header.
                        let echo = head
                            .lines()
                            .find(|line| line.to_ascii_lowercase().starts_with("authorization:"))
                            .map(|line| format!("X-Echo-{line}\r\n"))
                            .unwrap_or_default();
                        told.lock().unwrap().push(head);
                        let answer =
                            format!("HTTP/1.1 200 OK\r\n{echo}Content-Length: 3\r\n\r\nyes");
                        let _ = stream.write_all(answer.as_bytes()).await;
                    }
                });
            }
        });
        Arc::new(Self {
            plain: Upstreams::start().unwrap(),
            tls,
            authority: certificate.der().to_vec(),
            heads,
        })
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    async fn sandbox(self: &Arc<Self>, policy: EgressPolicy) -> Arc<dyn Sandbox> {
        let config = LocalConfig::default().connector(self.clone());
        let spec = SandboxSpec::new().network(Network::Allow(policy));
        LocalProvider::new(config)
            .unwrap()
            .create(spec)
            .await
            .unwrap()
    }
}

const SECRET: &str = "sk-0123456789abcdef0123456789abcdef";

fn with_header() -> EgressRule {
    EgressRule::exact("api.cred.test").header("Authorization", format!("Bearer {SECRET}"))
}

/// Looks for anything like a secret in the memory and environment of every process that the guest
/// may read, its own among them, and in every file.
const SEARCH: &str = r#"
import os, re, sys, subprocess, urllib.request
kept = urllib.request.urlopen(sys.argv[1]).read()
like = re.compile(rb"s" b"k-[0-9a-f]{32}")
found = []
def look(name, data):
    if like.search(data):
        found.append(name)
for pid in [p for p in os.listdir("/proc") if p.isdigit()]:
    for name in ("environ", "cmdline"):
        try: look("%s of %s" % (name, pid), open("/proc/%s/%s" % (pid, name), "rb").read())
        except OSError: pass
    try: maps = open("/proc/%s/maps" % pid).read().splitlines()
    except OSError: continue
    try: memory = open("/proc/%s/mem" % pid, "rb", 0)
    except OSError: continue
    for line in maps:
        area, rights = line.split()[:2]
        if "r" not in rights or line.endswith("[vvar]") or line.endswith("[vsyscall]"): continue
        start, end = (int(x, 16) for x in area.split("-"))
        try:
            memory.seek(start)
            look("memory of %s %s" % (pid, line), memory.read(end - start))
        except (OSError, ValueError, OverflowError): pass
for top in ("/etc", "/home", "/tmp", "/var", "/workspace", "/run", "/opt", "/srv", "/dev/shm"):
    for dir, _, files in os.walk(top):
        for file in files:
            path = os.path.join(dir, file)
            if os.path.islink(path) or not os.path.isfile(path): continue
            try: look(path, open(path, "rb").read())
            except OSError: pass
print(len(found), kept.decode())
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_header_of_the_host_reaches_its_host_and_is_nowhere_in_the_guest() {
    let hosts = Hosts::start().await;
    let sandbox = hosts.sandbox(EgressPolicy::new().rule(with_header())).await;
    sandbox.write("search.py", SEARCH).await.unwrap();
    let url = "https://api.cred.test/v1";
    let found = sh(&sandbox, &format!("python3 search.py {url}")).await;
    assert_eq!(found, "0 yes\n");
    // The control: one in the environment is found.
    let other = "sk-ffffffffffffffffffffffffffffffff";
    let found = sh(&sandbox, &format!("KEY={other} python3 search.py {url}")).await;
    assert_ne!(found.split(' ').next(), Some("0"), "{found}");
    for head in hosts.heads() {
        assert!(head.contains(&format!("Bearer {SECRET}")), "{head}");
    }
    // The guest's own is replaced; what the host sends back is not passed on.
    let text = sh(
        &sandbox,
        &format!("curl -sSi -H 'Authorization: Bearer mine' -H 'authorization: two' {url}"),
    )
    .await;
    assert!(text.contains("200 OK") && text.ends_with("yes"), "{text}");
    assert!(
        text.to_lowercase()
            .contains("x-echo-authorization: redacted"),
        "{text}"
    );
    assert!(!text.contains("sk-"), "{text}");
    let last = hosts.heads().pop().unwrap();
    assert_eq!(
        last.to_lowercase().matches("authorization").count(),
        1,
        "{last}"
    );
    assert!(!last.contains("mine"), "{last}");
    let debug = format!(
        "{:?} {:?}",
        sandbox,
        sandbox.egress_decisions(0).await.unwrap()
    );
    assert!(!debug.contains("sk-"), "{debug}");
    sandbox.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_goes_to_its_host_alone() {
    let hosts = Hosts::start().await;
    let policy = EgressPolicy::new()
        .rule(with_header())
        .rule(EgressRule::exact("other.cred.test").header("X-Other", "other"))
        .rule(EgressRule::exact("plain.cred.test").protocol(EgressProtocol::Http));
    let sandbox = hosts.sandbox(policy).await;
    let code = async |args: &str| {
        sh(
            &sandbox,
            &format!("curl -s -o /dev/null -w '%{{http_code}}' -m 8 {args} || true"),
        )
        .await
    };
    assert_eq!(code("https://api.cred.test/").await, "200");
    // Inside of its TLS another host is asked for.
    assert_eq!(
        code("-H 'Host: other.cred.test' https://api.cred.test/").await,
        "421"
    );
    // Methods that send a request back.
    assert_eq!(code("-X TRACE https://api.cred.test/").await, "405");
    assert_eq!(code("-X OPTIONS https://api.cred.test/").await, "405");
    // A host whose certificate is another's gets nothing.
    let before = hosts.heads().len();
    assert_eq!(code("https://other.cred.test/").await, "502");
    assert_eq!(hosts.heads().len(), before);
    // Plain HTTP with the right Host, to a host of the guest's choice and to its own.
    assert_eq!(
        code("-H 'Host: api.cred.test' http://plain.cred.test/").await,
        "403"
    );
    assert_eq!(code("http://api.cred.test/").await, "000");
    assert_eq!(code("http://plain.cred.test/").await, "200");
    let received = hosts.plain.seen("plain.cred.test").received;
    assert!(!String::from_utf8_lossy(&received).contains("sk-"));
    // HTTP/2 is not offered; a client that asks for it gets HTTP/1.1.
    assert_eq!(code("--http2 https://api.cred.test/").await, "200");
    sandbox.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_url_needs_no_certificate_in_the_guest() {
    let hosts = Hosts::start().await;
    let rule = EgressRule::exact("llm.internal")
        .upstream("api.cred.test")
        .header("x-api-key", SECRET);
    let sandbox = hosts.sandbox(EgressPolicy::new().rule(rule)).await;
    sandbox.write("search.py", SEARCH).await.unwrap();
    let found = sh(
        &sandbox,
        "python3 search.py http://llm.internal/v1/messages?a=1",
    )
    .await;
    assert_eq!(found, "0 yes\n");
    let head = hosts.heads().pop().unwrap();
    assert!(head.starts_with("GET /v1/messages?a=1 HTTP/1.1"), "{head}");
    assert!(
        head.to_lowercase().contains("host: api.cred.test"),
        "{head}"
    );
    assert!(head.contains(SECRET), "{head}");
    // No certificate of ours is trusted where none is needed.
    assert_eq!(sh(&sandbox, "env | grep -c CERT || true").await, "0\n");
    // The real name is no name of the sandbox's.
    let found = sh(
        &sandbox,
        "curl -sS -m 5 https://api.cred.test/ 2>&1 || true",
    )
    .await;
    assert!(found.contains("resolve"), "{found}");
    sandbox.close().await.unwrap();
}

/// A sandbox with toolchains that may lie outside of `/usr`, and a package for each of them that needs
/// one.
async fn with_toolchains(
    hosts: &Arc<Hosts>,
    policy: EgressPolicy,
    index: &str,
) -> Arc<dyn Sandbox> {
    let said = |program: &str, args: &[&str]| {
        let output = std::process::Command::new(program).args(args).output();
        let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
    };
    let mut spec = SandboxSpec::new().network(Network::Allow(policy));
    let mut path = String::new();
    for root in [
        said("rustc", &["--print", "sysroot"]),
        said("go", &["env", "GOROOT"]),
    ] {
        let root = root.to_str().unwrap();
        path += &format!("{root}/bin:");
        if !root.starts_with("/usr") {
            spec = spec.mount(Mount::read_only(root, root));
        }
    }
    let spec = spec.env("PATH", format!("{path}/usr/local/bin:/usr/bin:/bin"));
    let config = LocalConfig::default().connector(hosts.clone());
    let sandbox = LocalProvider::new(config).unwrap().create(spec).await;
    let sandbox = sandbox.unwrap();
    let files = FileBatch::new()
        .file(
            "Cargo.toml",
            "[package]\nname = \"a\"\nversion = \"0.1.0\"\n\
             [dependencies]\nabsent = { version = \"1\", registry = \"x\" }\n",
        )
        .file("src/lib.rs", "")
        .file(
            ".cargo/config.toml",
            format!("[registries.x]\nindex = \"{}\"\n", cargo_asks(index).0),
        )
        .file(
            "Get.java",
            "public class Get { public static void main(String[] a) throws Exception { \
             new java.net.URL(a[0]).openStream().readAllBytes(); } }",
        );
    sandbox.write_files(files).await.unwrap();
    sandbox
}

/// A registry at a URL as this host's Cargo knows it, which is a repository before 1.68, and the first
/// request to it.
fn cargo_asks(url: &str) -> (String, &'static str) {
    let version = std::process::Command::new("cargo")
        .arg("--version")
        .output();
    let version = String::from_utf8(version.expect("cargo").stdout).unwrap();
    let minor = version
        .split('.')
        .nth(1)
        .and_then(|minor| minor.parse().ok());
    match minor.is_some_and(|minor: u32| minor >= 68) {
        true => (format!("sparse+{url}"), "GET /config.json"),
        false => (format!("{url}r"), "GET /r/info/refs"),
    }
}

/// The programs that fetch from a host by HTTP: a name, a command line in which `{}` stands for the
/// URL of the host, and the beginning of the request.
const FETCHING: &[(&str, &str, &str)] = &[
    ("curl", "curl -sS {}x", "GET /x"),
    ("wget", "wget -q -O- {}x", "GET /x"),
    (
        "urllib",
        "python3 -c \"import urllib.request; urllib.request.urlopen('{}x')\"",
        "GET /x",
    ),
    (
        "node",
        "node -e \"const u='{}x'; require(u.split(':')[0]).get(u, r => r.resume())\"",
        "GET /x",
    ),
    ("git", "git ls-remote {}r", "GET /r/info/refs"),
    (
        "pip",
        "python3 -m pip download --no-cache-dir --index-url {}simple \
         --trusted-host pip.tools.test absent",
        "GET /simple/absent/",
    ),
    ("npm", "npm view absent --registry {}", "GET /absent"),
    (
        "go",
        "env GOFLAGS=-mod=mod GOPROXY={} GONOSUMDB=* HOME=/tmp go list -m a.b/c@latest",
        "GET /a.b/c",
    ),
];

/// Each asks for its host by the system's resolver and knows nothing of a proxy.
#[tokio::test(flavor = "multi_thread")]
async fn programs_find_hosts_by_name() {
    let hosts = Hosts::start().await;
    let tcp = |host, port| {
        EgressRule::exact(host)
            .protocol(EgressProtocol::Tcp)
            .port(port)
    };
    let policy = EgressPolicy::new()
        .rule(EgressRule::subdomains("tools.test").protocol(EgressProtocol::Http))
        .rule(tcp("ssh.tools.test", 22))
        .rule(tcp("gitssh.tools.test", 22))
        .rule(tcp("psql.tools.test", 5432))
        .rule(tcp("redis.tools.test", 6379));
    let sandbox = with_toolchains(&hosts, policy, "http://cargo.tools.test/").await;
    let ssh = "ssh -o BatchMode=yes -o ConnectTimeout=5";
    let cargo = ("cargo", "cargo fetch", cargo_asks("").1);
    let mut programs: Vec<(&str, String, &[u8])> = FETCHING
        .iter()
        .chain([&cargo])
        .map(|(name, line, request)| {
            let url = format!("http://{name}.tools.test/");
            (*name, line.replace("{}", &url), request.as_bytes())
        })
        .collect();
    programs.extend([
        (
            "java",
            "java Get.java http://java.tools.test/x".into(),
            &b"GET /x"[..],
        ),
        ("ssh", format!("{ssh} x@ssh.tools.test"), b"SSH-2.0"),
        (
            "gitssh",
            format!("env GIT_SSH_COMMAND='{ssh}' git ls-remote ssh://x@gitssh.tools.test/r"),
            b"SSH-2.0",
        ),
        // Whether the server speaks TLS is the first question of a client of PostgreSQL.
        (
            "psql",
            "psql -w -h psql.tools.test -U x -c 'select 1' x".into(),
            &[0, 0, 0, 8, 4, 210, 22, 47],
        ),
        (
            "redis",
            "redis-cli -h redis.tools.test ping".into(),
            b"ping\r\n",
        ),
    ]);
    for (name, line, request) in &programs {
        // They end as they like with what this host answers; that they asked it is the point.
        let command = Command::shell(format!("timeout 20 {line}"));
        let output = sandbox.exec(command).await.unwrap();
        let seen = hosts.plain.seen(&format!("{name}.tools.test"));
        let mut received = seen.received.windows(request.len());
        assert!(
            received.any(|found| found == *request),
            "{name}: {} {}",
            String::from_utf8_lossy(&seen.received),
            output.stderr.to_string_lossy()
        );
    }
    let all = sandbox.egress_decisions(0).await.unwrap().decisions;
    let allowed = all
        .iter()
        .filter(|told| told.verdict == EgressVerdict::Allowed);
    assert!(allowed.count() >= programs.len());
    sandbox.close().await.unwrap();
}

/// Each gets the header of the host by HTTPS, and needs nothing to be set for that. The JVM has
/// authorities of its own: its traffic can't be read.
#[tokio::test(flavor = "multi_thread")]
async fn programs_trust_the_authority_of_the_sandbox() {
    let hosts = Hosts::start().await;
    let policy = EgressPolicy::new().rule(with_header());
    let url = "https://api.cred.test/";
    let sandbox = with_toolchains(&hosts, policy, url).await;
    let cargo = ("cargo", "cargo fetch", cargo_asks("").1);
    for (name, line, request) in FETCHING.iter().chain([&cargo]) {
        let before = hosts.heads().len();
        let line = line.replace("{}", url);
        let command = Command::shell(format!("timeout 20 {line}"));
        let output = sandbox.exec(command).await.unwrap();
        let heads = hosts.heads().split_off(before);
        let asked = heads.iter().find(|head| head.starts_with(request));
        let asked = asked
            .unwrap_or_else(|| panic!("{name}: {heads:?} {}", output.stderr.to_string_lossy()));
        assert!(asked.contains(SECRET), "{name}: {asked}");
    }
    let before = hosts.heads().len();
    let java = sh(&sandbox, &format!("java Get.java {url}x 2>&1 || true")).await;
    assert!(java.contains("SSLHandshakeException"), "{java}");
    assert_eq!(hosts.heads().len(), before);
    sandbox.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_report_names_what_is_not_seen_and_the_prepared_have_it_too() {
    let hosts = Hosts::start().await;
    let config = LocalConfig::default().connector(hosts.clone()).prepared(1);
    let provider = LocalProvider::new(config).unwrap();
    let rule = EgressRule::exact("a.report.test").protocol(EgressProtocol::Http);
    let policy = EgressPolicy::new().rule(rule);
    let spec = SandboxSpec::new().network(Network::Allow(policy));
    for round in 0..4 {
        let sandbox = provider.create(spec.clone()).await.unwrap();
        let text = sh(&sandbox, "curl -sS http://a.report.test/").await;
        assert!(text.contains("GET /"), "{round}: {text}");
        if round == 0 {
            let report = sandbox.isolation().await.unwrap();
            match report.get(Control::Network) {
                Some(Enforcement::Partial { by, why, .. }) => {
                    assert!(by.contains("namespace"), "{by}");
                    assert!(why.contains("CDN"), "{why}");
                }
                other => panic!("{other:?}"),
            }
        }
        sandbox.close().await.unwrap();
    }
}

/// Nothing of the service outlives its sandbox: no socket of it is left in this process.
#[tokio::test(flavor = "multi_thread")]
async fn closing_ends_every_socket() {
    let hosts = Hosts::start().await;
    let tcp = EgressRule::exact("held.test")
        .protocol(EgressProtocol::Tcp)
        .port(22);
    let sandbox = hosts.sandbox(EgressPolicy::new().rule(tcp)).await;
    let namespace = sh(&sandbox, "readlink /proc/self/ns/net").await;
    let script = "import socket,time;s=socket.create_connection(('held.test',22));\
        s.send(b'x');s.recv(9);print('up',flush=True);time.sleep(60)";
    let mut held = sandbox
        .spawn(Command::new("python3").args(["-c", script]))
        .await
        .unwrap();
    let mut up = [0; 3];
    held.stdout
        .take()
        .unwrap()
        .read_exact(&mut up)
        .await
        .unwrap();
    let sockets = || -> HashSet<PathBuf> {
        let links = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let links = links.filter_map(|fd| std::fs::read_link(fd.path()).ok());
        let sockets = links.filter(|to| to.to_string_lossy().starts_with("socket:"));
        sockets.collect()
    };
    // By name, and not by number: other tests of this process have sockets too.
    let open = sockets();
    drop(held);
    sandbox.close().await.unwrap();
    drop(sandbox);
    // The names by UDP and TCP, a listener, and both ends of a connection; the init's own.
    let started = std::time::Instant::now();
    while open.difference(&sockets()).count() < 5 {
        assert!(started.elapsed().as_secs() < 120, "{:?}", sockets());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(namespace.starts_with("net:"));
}
