//! A proxy between client and emulator that breaks one connection, once, where it is told to.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What happens to the connection of the request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Break {
    /// Closed before anything is sent on.
    BeforeSend,
    /// Closed when half of the request's first bytes were sent on.
    MidRequest,
    /// Closed when all was sent on; the service goes on.
    AfterSend,
    /// Closed when so many bytes of the answer have come.
    MidAnswer(usize),
    /// The answer comes byte by byte.
    Sliced,
    /// The answer comes late.
    Slow(Duration),
    /// Something that is no HTTP comes; the service goes on.
    Garbage,
    /// An answer without an end comes; the service goes on.
    Endless,
}

/// A running proxy.
#[derive(Debug)]
pub(super) struct Proxy {
    address: SocketAddr,
    armed: Arc<Mutex<Option<(String, Break)>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    pub(super) async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let armed: Arc<Mutex<Option<(String, Break)>>> = Arc::default();
        let shared = Arc::clone(&armed);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                // What breaks is what was meant to.
                tokio::spawn(async move { drop(carry(client, to, &shared).await) });
            }
        });
        Self {
            address,
            armed,
            task,
        }
    }

    pub(super) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Breaks the next connection on which a request with this in its head comes.
    pub(super) fn arm(&self, needle: &str, how: Break) {
        *self.armed.lock().expect("a lock") = Some((needle.to_owned(), how));
    }

    /// Whether what was armed has happened.
    pub(super) fn fired(&self) -> bool {
        self.armed.lock().expect("a lock").is_none()
    }
}

async fn carry(
    mut client: TcpStream,
    to: SocketAddr,
    armed: &Mutex<Option<(String, Break)>>,
) -> std::io::Result<()> {
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
                }
                match how {
                    Some(Break::BeforeSend) => return Ok(()),
                    Some(Break::MidRequest) => return server.write_all(&up[..n / 2]).await,
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
                        for byte in bytes {
                            client.write_all(&[*byte]).await?;
                            client.flush().await?;
                            tokio::task::yield_now().await;
                        }
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

fn take(armed: &Mutex<Option<(String, Break)>>, bytes: &[u8]) -> Option<Break> {
    let mut armed = armed.lock().expect("a lock");
    let (needle, how) = armed.as_ref()?;
    let fits = String::from_utf8_lossy(bytes).contains(needle.as_str());
    let how = *how;
    if fits {
        *armed = None;
    }
    fits.then_some(how)
}
