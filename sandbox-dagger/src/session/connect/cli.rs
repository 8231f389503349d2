//! A session that a `dagger session` child serves.
//!
//! Invariant: the child is asked to end when the session is dropped, and when this process dies (its
//! stdin ends then), and has time to tidy up; nothing waits for it without bound.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sandbox_core::{Error, ErrorKind, Operation, Result};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};

/// Time that the child may take to end before it is killed.
const GRACE: Duration = Duration::from_secs(5);
/// Limit of the child's output that is read for the session and for errors.
const MAX_SAID: u64 = 64 << 10;

/// Time between two looks at whether a child has ended that nothing waits for.
const LOOK: Duration = Duration::from_millis(20);

/// The running child.
#[derive(Debug)]
pub(super) struct Cli {
    /// Taken when this is dropped.
    child: Option<Child>,
    /// The child ends when this does.
    stdin: Mutex<Option<ChildStdin>>,
}

fn failed(kind: ErrorKind, why: String) -> Error {
    Error::new(kind, Operation::Connect).with_message(why)
}

impl Cli {
    /// Starts the CLI and waits, no longer than `within`, for its port and token.
    pub(super) async fn start(program: &Path, within: Duration) -> Result<(Self, u16, String)> {
        let mut child = Command::new(program)
            .args(["session", "--label", "dagger.io/sdk.name:rust"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                failed(
                    ErrorKind::Unavailable,
                    "the Dagger CLI can't be started".into(),
                )
                .with_host_path(program)
                .with_hint("install it, or name it with DaggerConfig::cli")
                .with_source(error)
            })?;
        let stdin = Mutex::new(child.stdin.take());
        let child = Some(child);
        let mut cli = Self { child, stdin };
        let said = tokio::time::timeout(within, first_line(&mut cli)).await;
        match said {
            Ok(Ok((port, token))) => Ok((cli, port, token)),
            Ok(Err(why)) => Err(failed(ErrorKind::Unavailable, why)
                .with_host_path(program)
                .with_hint("does `dagger core version` work? It needs a container runtime")),
            Err(_) => Err(failed(
                ErrorKind::Unavailable,
                format!("the Dagger CLI named no session within {within:?}"),
            )
            .with_retryable(false)
            .with_host_path(program)
            .with_hint("is its engine reachable? see _EXPERIMENTAL_DAGGER_RUNNER_HOST")),
        }
    }

    /// Asks the child to end, and waits for nothing.
    pub(super) fn let_go(&self) {
        let mut stdin = self.stdin.lock().unwrap_or_else(PoisonError::into_inner);
        drop(stdin.take());
    }

    /// Ends the child: politely, and after a while by force.
    pub(super) async fn stop(mut self) {
        self.let_go();
        if let Some(child) = &mut self.child
            && tokio::time::timeout(GRACE, child.wait()).await.is_err()
        {
            // It is killed once more when it is dropped.
            let _ = tokio::time::timeout(GRACE, child.kill()).await;
        }
    }
}

impl Drop for Cli {
    fn drop(&mut self) {
        // A child that is killed at once leaves what it has on disk, and no task can wait for it: the
        // runtime may be ending as well.
        self.let_go();
        let Some(mut child) = self.child.take() else {
            return;
        };
        let ended = move || {
            let asked = Instant::now();
            while asked.elapsed() < GRACE && matches!(child.try_wait(), Ok(None)) {
                std::thread::sleep(LOOK);
            }
        };
        // Without a thread it is killed now, with what should have run on it.
        drop(
            std::thread::Builder::new()
                .name("dagger-cli".into())
                .spawn(ended),
        );
    }
}

async fn first_line(cli: &mut Cli) -> std::result::Result<(u16, String), String> {
    let child = cli.child.as_mut();
    let pipes = child.and_then(|child| child.stdout.take().zip(child.stderr.take()));
    let Some((stdout, mut stderr)) = pipes else {
        return Err("the Dagger CLI has no output".into());
    };
    // From the beginning, and to the end: a full pipe would hold the CLI up.
    let complaint = tokio::spawn(async move {
        let mut said = Vec::new();
        let _ = (&mut stderr).take(MAX_SAID).read_to_end(&mut said).await;
        let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
        said
    });
    let mut stdout = BufReader::new(stdout);
    let mut line = String::new();
    let mut window = (&mut stdout).take(MAX_SAID);
    let read = window.read_line(&mut line).await;
    let session: Option<Value> = serde_json::from_str(&line).ok();
    let port = session
        .as_ref()
        .and_then(|session| session.get("port")?.as_u64());
    let token = session
        .as_ref()
        .and_then(|session| session.get("session_token")?.as_str());
    let (Some(port), Some(token)) = (port.and_then(|port| u16::try_from(port).ok()), token) else {
        let mut said = Vec::new();
        if read.is_ok_and(|read| read == 0) {
            // It has ended: what it said is all there is.
            said = complaint.await.unwrap_or_default();
        }
        let said = String::from_utf8_lossy(&said);
        // A session may have a token.
        let line = match session {
            Some(_) => "what it says has no port and token",
            None => line.trim(),
        };
        return Err(format!(
            "the Dagger CLI named no session: {line}{}",
            said.trim()
        ));
    };
    tokio::spawn(async move {
        let _ = tokio::io::copy(&mut stdout, &mut tokio::io::sink()).await;
    });
    Ok((port, token.to_owned()))
}

/// The program `name` in the host's `PATH`.
pub(super) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}
