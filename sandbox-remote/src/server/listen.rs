//! Sockets: what is listened on, how many connections there are, and how long one may do nothing.
//!
//! It must never leave a socket's file behind, or let a slow peer hold a connection.

use std::io;
use std::net::{SocketAddr, TcpListener};
#[cfg(unix)]
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use sandbox_core::{Error, ErrorKind, Operation, Result};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// Socket on which a server listens.
#[derive(Debug)]
pub struct Listener(pub(super) Kind);

#[derive(Debug)]
pub(super) enum Kind {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(std::os::unix::net::UnixListener, SocketFile),
}

/// The file of a socket, removed when it is dropped.
#[cfg(unix)]
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and number of the file: another server's may have taken its place.
    identity: Option<(u64, u64)>,
}

#[cfg(unix)]
impl SocketFile {
    fn identity(path: &Path) -> Option<(u64, u64)> {
        use std::os::unix::fs::MetadataExt as _;
        let found = std::fs::symlink_metadata(path).ok()?;
        Some((found.dev(), found.ino()))
    }
}

#[cfg(unix)]
impl Drop for SocketFile {
    fn drop(&mut self) {
        if Self::identity(&self.path) == self.identity {
            // It may be gone already; the next server takes over what is left.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Listener {
    /// Listens on a TCP address. There is no TLS: a name that others reach needs a proxy in front
    /// that has it.
    ///
    /// # Errors
    /// What the system says: the address is taken, or may not be used.
    pub fn tcp(address: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address)
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .map_err(|error| cannot(error, &address.to_string()))?;
        // The standard library's queue is short. The system has its own limit.
        #[cfg(unix)]
        rustix::net::listen(&listener, 1024)
            .map_err(|error| cannot(error.into(), &address.to_string()))?;
        Ok(Self(Kind::Tcp(listener)))
    }

    /// Listens on a Unix socket that only this user may open. A socket that an ended server left
    /// behind is replaced; the directory must exist.
    ///
    /// # Errors
    /// [`AlreadyExists`](ErrorKind::AlreadyExists) if a server listens there, or if the file is not
    /// a socket; what the system says.
    #[cfg(unix)]
    pub fn unix(path: impl AsRef<Path>) -> Result<Self> {
        use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
        use std::os::unix::net::{UnixListener, UnixStream};
        let path = path.as_ref();
        let said = |error| cannot(error, &path.display().to_string());
        let taken = |why: &str| {
            Error::new(ErrorKind::AlreadyExists, Operation::Connect)
                .with_message(why)
                .with_host_path(path)
                .with_hint("choose another path, or end what is there")
        };
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(taken("something that is not a socket is there"));
            }
            Ok(_) => match UnixStream::connect(path) {
                Ok(_) => return Err(taken("a server listens there already")),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path).map_err(said)?;
                }
                // Whether a server listens there is not known.
                Err(error) => return Err(said(error)),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(said(error)),
        }
        let listener = UnixListener::bind(path).map_err(said)?;
        let file = SocketFile {
            path: path.to_owned(),
            identity: SocketFile::identity(path),
        };
        // Until then other users may connect; the server asks the kernel who they are.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(said)?;
        listener.set_nonblocking(true).map_err(said)?;
        Ok(Self(Kind::Unix(listener, file)))
    }

    /// The address, as a `remote:` URI names it.
    ///
    /// # Errors
    /// What the system says.
    pub fn uri(&self) -> Result<String> {
        match &self.0 {
            Kind::Tcp(listener) => {
                let address = listener.local_addr();
                let address = address.map_err(|error| cannot(error, "the socket"))?;
                Ok(format!("remote:http://{address}"))
            }
            #[cfg(unix)]
            Kind::Unix(_, file) => Ok(format!("remote:unix:{}", file.path.display())),
        }
    }
}

fn cannot(error: io::Error, what: &str) -> Error {
    let taken = error.kind() == io::ErrorKind::AddrInUse;
    let error = Error::from_io(error, Operation::Connect)
        .with_message(format!("the server can't listen on {what}"));
    match taken {
        true => error.with_hint("another program has it; choose another"),
        false => error,
    }
}

/// A connection whose peer must take what is sent within a time.
#[derive(Debug)]
pub(super) struct Patient<T> {
    inner: T,
    patience: Duration,
    /// Set while the peer takes nothing.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<T> Patient<T> {
    pub(super) fn new(inner: T, patience: Duration) -> Self {
        Self {
            inner,
            patience,
            deadline: None,
        }
    }

    fn bounded<R>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if polled.is_ready() {
            self.deadline = None;
            return polled;
        }
        let patience = self.patience;
        let deadline = self
            .deadline
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        match deadline.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Patient<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Patient<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.bounded(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.bounded(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        self.bounded(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.bounded(cx, polled)
    }
}
