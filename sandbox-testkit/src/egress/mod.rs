//! Hosts for the cases of egress by name: names, addresses and servers that exist on this machine's
//! loopback alone, and a record of what reached them.
//!
//! It must never answer for a name outside of `.test`.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The program that cases run in the sandbox.
pub(crate) const CLIENT: &str = include_str!("client.py");

/// Time that a server waits for a client that says nothing.
const PATIENCE: Duration = Duration::from_secs(60);

/// Record of what reached the host of one name.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Number of times that the name was resolved.
    pub resolved: usize,
    /// Addresses at which connections were dialled for it.
    pub dialled: Vec<SocketAddr>,
    /// Everything that was received for it.
    pub received: Vec<u8>,
}

#[derive(Debug, Default)]
struct State {
    names: HashMap<String, Seen>,
    addresses: HashMap<IpAddr, String>,
    /// By the address of the client's end.
    connections: HashMap<SocketAddr, String>,
    given: u8,
}

/// Servers on loopback behind names and addresses that are made up. The fixture of a backend gives
/// them to its provider in place of the host's resolver and network.
///
/// A name whose first label is `v4-` or `v6-` and an address with hyphens leads there
/// (`v4-127-0-0-1.a.test`); one that begins with `rebind-` leads to a public address at first and
/// to loopback later; one that begins with `mixed-` to loopback and a public address; every other
/// one below `.test` to a public address of its own.
#[derive(Debug)]
pub struct Upstreams {
    state: Arc<Mutex<State>>,
    /// Answers HTTP with what it was asked.
    http: SocketAddr,
    /// Answers anything with its number of bytes.
    raw: SocketAddr,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Upstreams {
    /// Starts the servers; they end with the process.
    ///
    /// # Errors
    /// If loopback can't be listened on.
    pub fn start() -> io::Result<Arc<Self>> {
        let state = Arc::<Mutex<State>>::default();
        Ok(Arc::new(Self {
            http: serve(&state, http)?,
            raw: serve(&state, raw)?,
            state,
        }))
    }

    /// The addresses of a name.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] for a name outside of `.test`.
    pub fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let mut state = lock(&self.state);
        let seen = state.names.entry(name.to_owned()).or_default();
        seen.resolved += 1;
        let times = seen.resolved;
        if !name.ends_with(".test") {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let first = name.split('.').next().unwrap_or_default();
        let fixed = if let Some(text) = first.strip_prefix("v4-") {
            text.replace('-', ".")
                .parse::<Ipv4Addr>()
                .ok()
                .map(IpAddr::V4)
        } else if let Some(text) = first.strip_prefix("v6-") {
            text.replace('-', ":")
                .parse::<Ipv6Addr>()
                .ok()
                .map(IpAddr::V6)
        } else if first.starts_with("rebind-") && times > 1 {
            Some(loopback)
        } else {
            None
        };
        if let Some(address) = fixed {
            state.addresses.insert(address, name.to_owned());
            return Ok(vec![address]);
        }
        let known = state.addresses.iter().find(|(_, known)| *known == name);
        let public = match known.map(|(address, _)| *address) {
            Some(address) => address,
            None => {
                state.given = state.given.wrapping_add(1);
                IpAddr::V4(Ipv4Addr::new(203, 0, 113, state.given))
            }
        };
        state.addresses.insert(public, name.to_owned());
        match first.starts_with("mixed-") {
            true => Ok(vec![loopback, public]),
            false => Ok(vec![public]),
        }
    }

    /// A connection to the server behind an address and port: HTTP on port 80 and 8080, bytes on
    /// others.
    ///
    /// # Errors
    /// If the server can't be reached.
    pub fn dial(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let server = match to.port() {
            80 | 8080 => self.http,
            _ => self.raw,
        };
        // Under the lock, so that the server knows the connection before it reads.
        let mut state = lock(&self.state);
        let stream = TcpStream::connect(server)?;
        let name = state.addresses.get(&to.ip()).cloned();
        let name = name.unwrap_or_else(|| to.ip().to_string());
        state.connections.insert(stream.local_addr()?, name.clone());
        state.names.entry(name).or_default().dialled.push(to);
        Ok(stream)
    }

    /// Returns what reached the host of a name.
    pub fn seen(&self, name: &str) -> Seen {
        lock(&self.state)
            .names
            .get(name)
            .cloned()
            .unwrap_or_default()
    }
}

/// One connection of a server: its name and where what is received goes.
struct Connection {
    stream: TcpStream,
    name: String,
    state: Arc<Mutex<State>>,
}

impl Connection {
    /// More bytes; `None` at the end.
    fn more(&mut self, bytes: &mut Vec<u8>) -> Option<usize> {
        let mut some = [0; 16 * 1024];
        let count = self
            .stream
            .read(&mut some)
            .ok()
            .filter(|count| *count > 0)?;
        let some = some.get(..count)?;
        bytes.extend_from_slice(some);
        let mut state = lock(&self.state);
        let seen = state.names.entry(self.name.clone()).or_default();
        seen.received.extend_from_slice(some);
        Some(count)
    }
}

fn serve(state: &Arc<Mutex<State>>, work: fn(Connection)) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let state = state.clone();
    std::thread::Builder::new()
        .name("kit-upstream".into())
        .spawn(move || {
            while let Ok((stream, from)) = listener.accept() {
                let state = state.clone();
                let serve = move || {
                    let _ = stream.set_read_timeout(Some(PATIENCE));
                    let name = lock(&state).connections.remove(&from).unwrap_or_default();
                    work(Connection {
                        stream,
                        name,
                        state,
                    });
                };
                let _ = std::thread::Builder::new().spawn(serve);
            }
        })?;
    Ok(address)
}

/// Answers each request with its own head, as the body; a path that begins with `/to/` is
/// answered with a redirect to what follows.
fn http(mut connection: Connection) {
    let mut bytes = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if connection.more(&mut bytes).is_none() {
                return;
            }
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        bytes.drain(..end);
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let is_length = name.eq_ignore_ascii_case("content-length");
            is_length.then(|| value.trim().parse::<usize>().ok())?
        });
        while bytes.len() < length.unwrap_or(0) {
            if connection.more(&mut bytes).is_none() {
                return;
            }
        }
        bytes.drain(..length.unwrap_or(0).min(bytes.len()));
        let target = head.split(' ').nth(1).unwrap_or_default();
        let location = target
            .strip_prefix("/to/")
            .map(|to| format!("Location: http://{to}\r\n"));
        let status = if location.is_some() {
            "302 Found"
        } else {
            "200 OK"
        };
        let echo = head
            .lines()
            .find(|line| line.to_ascii_lowercase().starts_with("x-echo:"));
        let answer = format!(
            "HTTP/1.1 {status}\r\n{}{}Content-Length: {}\r\n\r\n{head}",
            location.unwrap_or_default(),
            echo.map(|line| format!("{line}\r\n")).unwrap_or_default(),
            head.len()
        );
        if connection.stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// Answers each read with `upstream N`, where N is the number of bytes.
fn raw(mut connection: Connection) {
    let mut bytes = Vec::new();
    while let Some(count) = connection.more(&mut bytes) {
        let answer = format!("upstream {count}\n");
        if connection.stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}
