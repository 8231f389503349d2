//! A port of a sandbox on the host: at a Unix socket or on the loopback device.
//!
//! It must never listen where other machines can connect, and must stop with its guard.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sandbox_core::{Error, Operation, Result, Sandbox};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

const OP: Operation = Operation::ConnectPort;

/// Connections that are carried at once; further ones wait.
const MOST: usize = 256;

/// Pause after a failure to accept: there may be no descriptor left.
const PAUSE: Duration = Duration::from_millis(50);

/// Place on the host where a port of a sandbox is exposed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExposeAt {
    /// 127.0.0.1 at this port; 0 is a free one. Every user of the host can connect.
    Loopback(u16),
    /// A Unix socket at this path, which only this user can connect to (mode 600).
    #[cfg(unix)]
    Unix(PathBuf),
}

/// A port of a sandbox that is exposed on the host, from [`expose`]. Dropping it ends that: the
/// listener and its connections.
#[derive(Debug)]
pub struct Exposed {
    address: Option<SocketAddr>,
    socket: Option<Socket>,
    task: JoinHandle<()>,
}

impl Exposed {
    /// The address on the loopback device; `None` for a Unix socket.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The path of the Unix socket; `None` on the loopback device.
    pub fn path(&self) -> Option<&std::path::Path> {
        self.socket.as_ref().map(|socket| &*socket.path)
    }
}

impl Drop for Exposed {
    fn drop(&mut self) {
        // Its connections are tasks in a set that the task owns.
        self.task.abort();
    }
}

/// A Unix socket, removed when dropped.
#[derive(Debug)]
struct Socket {
    path: PathBuf,
    /// Device and inode, so that what has taken its name is left alone.
    identity: Option<(u64, u64)>,
}

#[cfg(unix)]
fn identity(path: &std::path::Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let found = std::fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

#[cfg(not(unix))]
fn identity(_: &std::path::Path) -> Option<(u64, u64)> {
    None
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.identity.is_some() && self.identity == identity(&self.path) {
            // What can't be removed is a name that takes no connection.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Exposes a port of a sandbox on the host, until the guard is dropped.
///
/// Each connection on the host becomes one to the port
/// ([`connect_port`](Sandbox::connect_port)); where nothing listens in the sandbox it is closed at
/// once. At most 256 are carried at the same time, further ones wait. The guard keeps the sandbox.
///
/// What comes from the port is written by the guest: a browser that shows it should have no session
/// of yours at that address.
///
/// ```no_run
/// # async fn example(sandbox: std::sync::Arc<dyn sandbox::Sandbox>) -> sandbox::Result<()> {
/// use sandbox::ExposeAt;
/// let exposed = sandbox::expose(sandbox, 8000, ExposeAt::Loopback(0)).await?;
/// println!("http://{}/", exposed.address().unwrap());
/// # Ok(()) }
/// ```
///
/// Dropping the future leaves nothing behind. It must be polled in a tokio runtime with I/O and time,
/// which carries the connections.
///
/// # Errors
/// [`InvalidInput`](sandbox_core::ErrorKind::InvalidInput) for port 0, and outside of such a runtime;
/// [`Unsupported`](sandbox_core::ErrorKind::Unsupported) without
/// [`Capability::Ports`](sandbox_core::Capability::Ports);
/// [`AlreadyExists`](sandbox_core::ErrorKind::AlreadyExists) and the like with the host's path or
/// address.
pub async fn expose(sandbox: Arc<dyn Sandbox>, port: u16, at: ExposeAt) -> Result<Exposed> {
    let named = |error: Error| error.with_sandbox(sandbox.info().id);
    require_runtime().map_err(named)?;
    sandbox_core::backend::check_port(port).map_err(named)?;
    sandbox
        .capabilities()
        .require(sandbox_core::Capability::Ports, OP)
        .map_err(named)?;
    let id = sandbox.info().id;
    match at {
        ExposeAt::Loopback(host) => {
            let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, host));
            let failed = |error| {
                Error::from_io(error, OP)
                    .with_message(format!("{wanted} can't be listened on"))
                    .with_sandbox(id.clone())
            };
            let listener = Arc::new(TcpListener::bind(wanted).await.map_err(failed)?);
            let address = listener.local_addr().map_err(failed)?;
            let accept = move || {
                let listener = Arc::clone(&listener);
                async move { listener.accept().await.map(|(stream, _)| stream) }
            };
            Ok(Exposed {
                address: Some(address),
                socket: None,
                task: tokio::spawn(carry(sandbox, port, accept)),
            })
        }
        #[cfg(unix)]
        ExposeAt::Unix(path) => {
            let failed = |error| {
                Error::from_io(error, OP)
                    .with_host_path(&path)
                    .with_sandbox(id.clone())
            };
            let listener = Arc::new(private_socket(&path).map_err(failed)?);
            let socket = Socket {
                identity: identity(&path),
                path: path.clone(),
            };
            let accept = move || {
                let listener = Arc::clone(&listener);
                async move { listener.accept().await.map(|(stream, _)| stream) }
            };
            Ok(Exposed {
                address: None,
                socket: Some(socket),
                task: tokio::spawn(carry(sandbox, port, accept)),
            })
        }
    }
}

/// Fails outside of a tokio runtime with I/O and time, where a listener would panic.
pub(crate) fn require_runtime() -> Result<()> {
    sandbox_core::backend::require_runtime(OP, || {
        if let Ok(socket) = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)) {
            // Whether the runtime can have it is another matter.
            let _ = socket.set_nonblocking(true);
            drop(tokio::net::UdpSocket::from_std(socket));
        }
    })
}

/// Listens at a path that no other user can connect to, at any moment.
#[cfg(unix)]
fn private_socket(path: &std::path::Path) -> std::io::Result<tokio::net::UnixListener> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    if std::fs::symlink_metadata(path).is_ok() {
        return Err(std::io::ErrorKind::AlreadyExists.into());
    }
    // Made in a directory of its own, since a socket has the mode that the process's mask leaves.
    let name = format!(".sandbox-socket-{:016x}", {
        use std::hash::{BuildHasher as _, Hasher as _};
        std::hash::RandomState::new().build_hasher().finish()
    });
    let dir = path.with_file_name(name);
    std::fs::DirBuilder::new().mode(0o700).create(&dir)?;
    let inside = dir.join("s");
    let made = (|| {
        let listener = tokio::net::UnixListener::bind(&inside)?;
        std::fs::set_permissions(&inside, std::fs::Permissions::from_mode(0o600))?;
        // Unlike a rename, a link replaces nothing.
        std::fs::hard_link(&inside, path)?;
        Ok(listener)
    })();
    // What was made aside is not needed any more; a failure leaves an empty directory.
    let _ = std::fs::remove_file(&inside);
    let _ = std::fs::remove_dir(&dir);
    made
}

/// Accepts connections for ever, and carries each.
async fn carry<S, F>(sandbox: Arc<dyn Sandbox>, port: u16, accept: impl Fn() -> F)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = std::io::Result<S>>,
{
    let places = Arc::new(Semaphore::new(MOST));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        // The semaphore is never closed.
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let accepted = accept().await;
        while connections.try_join_next().is_some() {}
        let Ok(mut outer) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let sandbox = sandbox.clone();
        connections.spawn(async move {
            let _place = place;
            // The client sees the end of the connection, as from a server that is away.
            if let Ok(mut inner) = sandbox.connect_port(port).await {
                let _ = tokio::io::copy_bidirectional(&mut outer, &mut inner).await;
            }
        });
    }
}
