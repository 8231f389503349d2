//! A proxy between a client and a service double that breaks one request where it is told to.
//!
//! For plain HTTP/1.1. It must never change what it was not told to break.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

/// Fate of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Break {
    /// The connection is closed before anything is sent on.
    BeforeSend,
    /// The connection is closed when half of the request's first bytes were sent on.
    MidRequest,
    /// The connection is closed when all was sent on; the service goes on.
    AfterSend,
    /// The connection is closed when so many bytes of the answer have come.
    MidAnswer(usize),
    /// The answer comes byte by byte, where it begins.
    Sliced,
    /// The answer comes so late.
    Slow(Duration),
    /// Something that is no HTTP comes; the service goes on.
    Garbage,
    /// An answer without an end comes; the service goes on.
    Endless,
    /// Answered with this status and this `Retry-After`; nothing is sent on.
    Status(u16, Option<&'static str>),
}

/// Bytes of a burst that are passed on one by one.
const SLICES: usize = 2048;

/// Which request is broken, and how.
#[derive(Debug)]
struct Armed {
    /// Text that the request's head must have in it.
    needle: String,
    /// Number of such requests that pass before it.
    pass: usize,
    how: Break,
}

/// A running proxy; ends when it is dropped.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    to: SocketAddr,
    armed: Arc<Mutex<Option<Armed>>>,
    task: Option<(JoinHandle<()>, oneshot::Sender<()>)>,
    /// Keeps the port from other programs for as long as this lives, also while there is no listener.
    _held: TcpSocket,
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        if let Some((task, _)) = &self.task {
            task.abort();
        }
    }
}

impl FaultProxy {
    /// Starts a proxy to this service, on any free port of this host.
    ///
    /// # Errors
    /// If no port can be had.
    pub async fn start(to: SocketAddr) -> io::Result<Self> {
        let held = bound(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let mut proxy = Self {
            address: held.local_addr()?,
            to,
            armed: Arc::default(),
            task: None,
            _held: held,
        };
        proxy.come_back().await?;
        Ok(proxy)
    }

    /// Address of the proxy: `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    fn armed(&self) -> MutexGuard<'_, Option<Armed>> {
        lock(&self.armed)
    }

    /// Breaks the next request with this in its head (method, path, headers).
    pub fn arm(&self, needle: &str, how: Break) {
        self.arm_after(0, needle, how);
    }

    /// Arms a fault for the request after so many that fit.
    pub fn arm_after(&self, pass: usize, needle: &str, how: Break) {
        *self.armed() = Some(Armed {
            needle: needle.to_owned(),
            pass,
            how,
        });
    }

    /// Whether what was armed has happened.
    pub fn fired(&self) -> bool {
        self.armed().is_none()
    }

    /// Breaks nothing more; says whether what was armed has happened.
    pub fn disarm(&self) -> bool {
        self.armed().take().is_none()
    }

    fn carry_on(&mut self, listener: TcpListener) {
        let (stop, stopped) = oneshot::channel();
        let task = listen(listener, self.to, Arc::clone(&self.armed), stopped);
        self.task = Some((tokio::spawn(task), stop));
    }

    /// Refuses connections from now on; those that there were have broken off when this returns.
    ///
    /// # Errors
    /// If the task that carries connections has panicked.
    pub async fn leave(&mut self) -> io::Result<()> {
        if let Some((task, stop)) = self.task.take() {
            drop(stop);
            task.await.map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Takes connections again, where it did before.
    ///
    /// # Errors
    /// If the port can't be listened on.
    pub async fn come_back(&mut self) -> io::Result<()> {
        self.leave().await?;
        let listener = bound(self.address)?.listen(1024)?;
        self.carry_on(listener);
        Ok(())
    }
}

/// A socket at this address, beside another one that does not listen.
fn bound(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

fn lock(armed: &Mutex<Option<Armed>>) -> MutexGuard<'_, Option<Armed>> {
    armed.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes connections until it is told to stop, and ends those that it has then.
async fn listen(
    listener: TcpListener,
    to: SocketAddr,
    armed: Arc<Mutex<Option<Armed>>>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut carried = JoinSet::new();
    loop {
        tokio::select! {
            taken = listener.accept() => {
                let Ok((client, _)) = taken else { break };
                let armed = Arc::clone(&armed);
                // What breaks is what was meant to.
                carried.spawn(async move { drop(carry(client, to, &armed).await) });
            }
            Some(_) = carried.join_next() => {}
            _ = &mut stopped => break,
        }
    }
    drop(listener);
    carried.shutdown().await;
}

async fn carry(
    mut client: TcpStream,
    to: SocketAddr,
    armed: &Mutex<Option<Armed>>,
) -> io::Result<()> {
    let mut server = TcpStream::connect(to).await?;
    let (mut up, mut down) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut how = None;
    let mut came = 0;
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let n = read?;
                if n == 0 {
                    return Ok(());
                }
                if let Some(now) = take(armed, &up[..n]) {
                    how = Some(now);
                    came = 0;
                } else if came > 0 {
                    // Another request, whose answer is whole.
                    how = None;
                }
                match how {
                    Some(Break::BeforeSend) => return Ok(()),
                    Some(Break::MidRequest) => return server.write_all(&up[..n / 2]).await,
                    Some(Break::Status(status, after)) => {
                        let after = after.map_or_else(String::new, |after| format!("retry-after: {after}\r\n"));
                        let head = format!("HTTP/1.1 {status} Broken\r\ncontent-length: 0\r\nconnection: close\r\n{after}\r\n");
                        client.write_all(head.as_bytes()).await?;
                        return drain(client).await;
                    }
                    _ => server.write_all(&up[..n]).await?,
                }
            }
            read = server.read(&mut down) => {
                let n = read?;
                if n == 0 {
                    return Ok(());
                }
                let bytes = &down[..n];
                match how {
                    // The answer shows that all was sent.
                    Some(Break::AfterSend) => return Ok(()),
                    Some(Break::MidAnswer(limit)) if came + n > limit => {
                        return client.write_all(&bytes[..limit - came]).await;
                    }
                    Some(Break::Sliced) => {
                        let (first, rest) = bytes.split_at(n.min(SLICES));
                        for byte in first {
                            client.write_all(&[*byte]).await?;
                            client.flush().await?;
                            tokio::task::yield_now().await;
                        }
                        client.write_all(rest).await?;
                    }
                    Some(Break::Slow(time)) => {
                        tokio::time::sleep(time).await;
                        client.write_all(bytes).await?;
                    }
                    Some(Break::Garbage) => return client.write_all(b"\0\x01 nonsense\r\n\r\n").await,
                    Some(Break::Endless) => {
                        client.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n").await?;
                        loop {
                            client.write_all(&[b' '; 64 << 10]).await?;
                        }
                    }
                    _ => client.write_all(bytes).await?,
                }
                came += n;
            }
        }
    }
}

/// Reads what the client still sends: closing before that would take the answer back.
async fn drain(mut client: TcpStream) -> io::Result<()> {
    client.shutdown().await?;
    let mut rest = vec![0; 64 << 10];
    while client.read(&mut rest).await? > 0 {}
    Ok(())
}

/// Takes the fault for these bytes, if they begin a request that was armed for.
fn take(armed: &Mutex<Option<Armed>>, bytes: &[u8]) -> Option<Break> {
    let begins = [&b"GET /"[..], b"PUT /", b"POST /", b"DELETE /"];
    if !begins.iter().any(|method| bytes.starts_with(method)) {
        return None;
    }
    let mut armed = lock(armed);
    let known = armed.as_mut()?;
    if !String::from_utf8_lossy(bytes).contains(known.needle.as_str()) {
        return None;
    }
    match known.pass.checked_sub(1) {
        Some(left) => {
            known.pass = left;
            None
        }
        None => armed.take().map(|armed| armed.how),
    }
}
