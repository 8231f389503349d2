//! Waiting until something listens on a port of a sandbox.
//!
//! It must never wait without a limit, nor for a server that has ended.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::backend::require_time;
use crate::{Error, ErrorKind, Exit, Operation, PortStream, Result, Sandbox};

/// Pause between two looks at a port.
const LOOK: Duration = Duration::from_millis(20);

/// Limit of the wait for the answer to one HTTP request before the next one is made.
const ANSWER: Duration = Duration::from_secs(5);

/// The longest status line that is read.
const STATUS_LINE: usize = 256;

/// Condition for a port to be ready.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Readiness {
    /// Taking connections.
    #[default]
    Accepts,
    /// Answering `GET` of this path over HTTP/1.1 with a status from 200 to 399.
    Http(String),
}

/// Options of [`wait_for_port`](crate::SandboxExt::wait_for_port).
///
/// ```
/// use std::time::Duration;
/// use sandbox_core::PortWaitOptions;
/// let options = PortWaitOptions::new().http("/health").timeout(Duration::from_secs(5));
/// # assert!(format!("{options:?}").contains("health"));
/// ```
#[non_exhaustive]
pub struct PortWaitOptions<'a> {
    /// Condition for the port to be ready.
    pub readiness: Readiness,
    /// Limit of the wait.
    pub timeout: Duration,
    server: Option<Pin<Box<dyn Future<Output = Result<Exit>> + Send + 'a>>>,
}

impl Default for PortWaitOptions<'_> {
    fn default() -> Self {
        Self {
            readiness: Readiness::Accepts,
            timeout: Duration::from_secs(30),
            server: None,
        }
    }
}

impl<'a> PortWaitOptions<'a> {
    /// The defaults: a port that takes connections, within 30 seconds.
    pub fn new() -> Self {
        Self::default()
    }

    /// Waits until the port answers `GET` of this path over HTTP with a status from 200 to 399.
    #[must_use]
    pub fn http(mut self, path: impl Into<String>) -> Self {
        self.readiness = Readiness::Http(path.into());
        self
    }

    crate::setters! {
        /// Sets how long to wait.
        timeout: Duration,
    }

    /// Fails at once when this resolves: the [`wait`](crate::Process::wait) of the process or
    /// [job](crate::Job::wait) that should listen.
    #[must_use]
    pub fn server(mut self, ended: impl Future<Output = Result<Exit>> + Send + 'a) -> Self {
        self.server = Some(Box::pin(ended));
        self
    }
}

impl fmt::Debug for PortWaitOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortWaitOptions")
            .field("readiness", &self.readiness)
            .field("timeout", &self.timeout)
            .field("server", &self.server.is_some())
            .finish()
    }
}

/// See [`wait_for_port`](crate::SandboxExt::wait_for_port).
pub(crate) async fn wait<S: Sandbox + ?Sized>(
    sandbox: &S,
    port: u16,
    options: PortWaitOptions<'_>,
) -> Result<()> {
    let named = |error: Error| error.with_sandbox(sandbox.info().id);
    require_time(Operation::ConnectPort).map_err(named)?;
    if let Readiness::Http(path) = &options.readiness
        && (!path.starts_with('/') || path.chars().any(|c| c.is_whitespace() || c.is_control()))
    {
        return Err(named(
            Error::new(ErrorKind::InvalidInput, Operation::ConnectPort).with_message(format!(
                "{path:?} is not a path for HTTP: it starts with a slash and has no blanks"
            )),
        ));
    }
    let started = Instant::now();
    let mut last = NotReady::wrong("no look at it has ended".into());
    let ready = async {
        loop {
            match look(sandbox, port, &options.readiness).await? {
                None => return Ok(()),
                Some(not_yet) => last = not_yet,
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let server = async {
        match options.server {
            Some(server) => server.await,
            None => std::future::pending().await,
        }
    };
    let outcome = tokio::select! {
        biased;
        ready = ready => return ready,
        ended = server => Some(ended),
        () = tokio::time::sleep(options.timeout) => None,
    };
    let error = match outcome {
        Some(Ok(exit)) => Error::new(ErrorKind::NotListening, Operation::ConnectPort)
            .with_message(format!(
                "the program that should listen on port {port} has ended: {}",
                exit.status
            ))
            .with_hint("its output says why"),
        Some(Err(error)) => Error::new(ErrorKind::NotListening, Operation::ConnectPort)
            .with_message(format!(
                "the program that should listen on port {port} has ended"
            ))
            .with_source(error),
        None => Error::new(last.kind, Operation::ConnectPort)
            .with_message(format!(
                "port {port} was not ready within {:?}: {}",
                started.elapsed().min(options.timeout),
                last.why
            ))
            .with_retryable(false)
            .with_hint("check that the program listens on 127.0.0.1, ::1 or all addresses"),
    };
    Err(named(error))
}

/// Finding at a port that is not ready.
struct NotReady {
    kind: ErrorKind,
    why: String,
}

impl NotReady {
    /// Nothing that listens.
    fn nothing(why: &str) -> Self {
        Self {
            kind: ErrorKind::NotListening,
            why: why.into(),
        }
    }

    /// A program that listens and does not answer as it should.
    fn wrong(why: String) -> Self {
        Self {
            kind: ErrorKind::Unavailable,
            why,
        }
    }
}

/// Looks once; `None`: it is ready.
async fn look<S: Sandbox + ?Sized>(
    sandbox: &S,
    port: u16,
    readiness: &Readiness,
) -> Result<Option<NotReady>> {
    let stream = match sandbox.connect_port(port).await {
        Ok(stream) => stream,
        Err(error) if error.kind() == ErrorKind::NotListening => {
            return Ok(Some(NotReady::nothing("nothing listens on it")));
        }
        Err(error) => return Err(error),
    };
    let Readiness::Http(path) = readiness else {
        return Ok(None);
    };
    let answer = tokio::time::timeout(ANSWER, status(stream, path)).await;
    Ok(Some(NotReady::wrong(match answer {
        Ok(Ok(Some(200..=399))) => return Ok(None),
        Ok(Ok(Some(status))) => format!("it answered GET {path} with status {status}"),
        Ok(Ok(None)) => "what it answered is not HTTP".into(),
        Ok(Err(error)) => format!("the connection broke: {error}"),
        Err(_) => format!("it did not answer GET {path} within {ANSWER:?}"),
    })))
}

/// The status of an answer to `GET`, if it is HTTP/1.
async fn status(mut stream: PortStream, path: &str) -> std::io::Result<Option<u16>> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut line = Vec::new();
    while !line.contains(&b'\n') && line.len() < STATUS_LINE {
        let mut window = (&mut stream).take((STATUS_LINE - line.len()) as u64);
        if window.read_buf(&mut line).await? == 0 {
            break;
        }
    }
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let version = words.next().unwrap_or_default();
    let status = words.next().and_then(|word| std::str::from_utf8(word).ok());
    Ok(match version.starts_with(b"HTTP/1.") {
        true => status.and_then(|status| status.trim().parse().ok()),
        false => None,
    })
}
