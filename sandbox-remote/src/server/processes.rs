//! The processes that clients follow, each with what is kept of its output.
//!
//! Invariant: a process ends when its client lets go of it, or is not heard of in the grace. Input
//! is taken once: what comes again is passed over by its offset.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sandbox_core::{Process, ProcessStdin};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::AbortHandle;

use super::lease::{Held, Lease};
use super::pipe::{Failed, Pipe};
use super::sandboxes::Open;
use super::streams::NewFile;
use crate::wire::Taken;

/// A process with its streams.
pub(super) struct Running {
    /// Taken out when it is let go of, whatever still reads its streams.
    alive: Mutex<Option<Arc<Alive>>>,
    pub(super) stdout: Option<Arc<Pipe>>,
    pub(super) stderr: Option<Arc<Pipe>>,
    /// Held by one request at a time.
    stdin: tokio::sync::Mutex<Input>,
    /// The file that its input is.
    pub(super) file: Option<NewFile>,
    fillers: Vec<AbortHandle>,
    lease: Lease,
    /// Set when it is let go of: requests on it end.
    pub(super) gone: tokio::sync::watch::Sender<bool>,
}

/// The process itself, and what it uses up.
pub(super) struct Alive {
    pub(super) process: Process,
    /// None for what keeps no sandbox.
    _sandbox: Option<Held<Arc<Open>>>,
    _permit: OwnedSemaphorePermit,
}

struct Input {
    stream: Option<ProcessStdin>,
    offset: u64,
    closed: bool,
}

impl AsRef<Lease> for Arc<Running> {
    fn as_ref(&self) -> &Lease {
        &self.lease
    }
}

impl Running {
    pub(super) fn new(
        mut process: Process,
        sandbox: Option<Held<Arc<Open>>>,
        permit: OwnedSemaphorePermit,
        failed: Option<Failed>,
    ) -> Self {
        let mut fillers = Vec::new();
        let stdout = process.stdout.take().map(|stream| {
            let pipe = Pipe::new();
            fillers.push(tokio::spawn(Arc::clone(&pipe).fill(stream, failed)).abort_handle());
            pipe
        });
        let stderr = process.stderr.take().map(|stream| {
            let pipe = Pipe::new();
            fillers.push(tokio::spawn(Arc::clone(&pipe).fill(stream, failed)).abort_handle());
            pipe
        });
        let stream = process.stdin.take();
        Self {
            stdout,
            stderr,
            stdin: tokio::sync::Mutex::new(Input {
                closed: stream.is_none(),
                stream,
                offset: 0,
            }),
            file: None,
            fillers,
            alive: Mutex::new(Some(Arc::new(Alive {
                process,
                _sandbox: sandbox,
                _permit: permit,
            }))),
            lease: Lease::default(),
            gone: tokio::sync::watch::Sender::new(false),
        }
    }

    /// Sets the file that its input is.
    pub(super) fn writes(mut self, file: Option<NewFile>) -> Self {
        self.file = file;
        self
    }

    /// The process; `None` if it was let go of.
    pub(super) fn alive(&self) -> Option<Arc<Alive>> {
        let alive = self.alive.lock();
        alive.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn let_go(&self) {
        let alive = self.alive.lock();
        drop(alive.unwrap_or_else(PoisonError::into_inner).take());
        self.gone.send_replace(true);
        for pipe in [&self.stdout, &self.stderr].into_iter().flatten() {
            pipe.close();
        }
    }

    /// Number of bytes of input that were taken.
    pub(super) async fn taken(&self) -> u64 {
        self.stdin.lock().await.offset
    }

    pub(super) async fn has_stdin(&self) -> bool {
        !self.stdin.lock().await.closed
    }

    /// Writes input that starts at an offset, for no longer than this; says how far it came.
    /// `None` if there is a gap between what was taken and this.
    pub(super) async fn write(
        &self,
        offset: u64,
        bytes: &[u8],
        end: bool,
        time: Duration,
    ) -> Option<Taken> {
        let mut input = self.stdin.lock().await;
        let input = &mut *input;
        if offset > input.offset {
            return None;
        }
        let until = offset + bytes.len() as u64;
        // Each turn leaves the offset as the program has it, wherever this is cut.
        let write = async {
            while input.offset < until {
                let Some(stream) = &mut input.stream else {
                    return;
                };
                let skip = usize::try_from(input.offset - offset).unwrap_or(usize::MAX);
                match stream.write(bytes.get(skip..).unwrap_or_default()).await {
                    Ok(0) | Err(_) => {
                        input.stream = None;
                        input.closed = true;
                    }
                    Ok(written) => input.offset += written as u64,
                }
            }
            if let Some(stream) = &mut input.stream {
                // What the pipe refuses shows at the next write.
                let _ = stream.flush().await;
                if end {
                    let _ = stream.shutdown().await;
                    input.stream = None;
                    input.closed = true;
                }
            }
        };
        // A program that does not read now is asked for again.
        let _ = tokio::time::timeout(time, write).await;
        Some(Taken {
            offset: input.offset,
            closed: input.closed,
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for filler in &self.fillers {
            filler.abort();
        }
    }
}

/// All of them by the names that their clients gave.
#[derive(Default)]
pub(super) struct Processes(Mutex<HashMap<String, Arc<Running>>>);

impl Processes {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Running>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn insert(&self, name: String, process: Arc<Running>) {
        self.lock().insert(name, process);
    }

    /// The process of this name, held while it is used.
    pub(super) fn get(&self, name: &str) -> Option<(Arc<Running>, Held<Arc<Running>>)> {
        let process = self.lock().get(name).cloned()?;
        let held = Lease::hold(Arc::clone(&process));
        Some((process, held))
    }

    /// Lets go of a process: it is killed with its tree, unless it has ended.
    pub(super) fn remove(&self, name: &str) {
        let removed = self.lock().remove(name);
        if let Some(process) = removed {
            process.let_go();
        }
    }

    /// Lets go of those whose clients have gone.
    pub(super) fn tidy(&self, grace: Duration) {
        let over: Vec<String> = {
            let all = self.lock();
            let over = all.iter().filter(|(_, one)| one.lease.is_over(grace));
            over.map(|(name, _)| name.clone()).collect()
        };
        for name in over {
            tracing::debug!("a process was ended: its client is gone");
            self.remove(&name);
        }
    }
}
