//! Starting a process: pipes, payload, request. Nothing may be left running if
//! the caller loses interest before it has a handle.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;

use super::blank::RunAs;
use super::client::Engine;
use super::connection::Connection;
use super::error::SpawnError;
use super::outcome::{Progress, Waiter};
use super::process::{ExitFuture, Running, Tree};
use super::request::{SpawnRequest, Stdin, Terminal};
use super::stream::{Output, StdinWriter};
use super::wire;
use crate::protocol::{INLINE_PAYLOAD, Message, request, spawn};

fn host<E: Into<Errno>>(step: &'static str) -> impl FnOnce(E) -> SpawnError {
    move |error| SpawnError::Host {
        step,
        errno: error.into(),
    }
}

fn watch(error: std::io::Error) -> SpawnError {
    let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
    SpawnError::Host {
        step: "watch a pipe",
        errno,
    }
}

/// A pipe whose `ours` end never blocks; the other one does, as programs expect.
struct Pipe {
    ours: OwnedFd,
    theirs: OwnedFd,
}

impl Pipe {
    /// For guests that are another user on the host, who must own it: `/dev/stdout` and its like
    /// are opened anew.
    fn new(we_read: bool, run_as: RunAs) -> Result<Self, SpawnError> {
        let step = "create a pipe";
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(host(step))?;
        if let RunAs::Mapped { uid, gid } = run_as {
            let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            rustix::fs::fchown(&read, owner.0, owner.1).map_err(host(step))?;
        }
        let (ours, theirs) = if we_read {
            (read, write)
        } else {
            (write, read)
        };
        rustix::io::ioctl_fionbio(&ours, true).map_err(host(step))?;
        Ok(Self { ours, theirs })
    }
}

/// The host's ends of a process's streams.
struct Ours {
    stdin: Option<OwnedFd>,
    stdout: OwnedFd,
    stderr: Option<OwnedFd>,
}

/// The process's ends of its streams.
struct Theirs {
    stdin: Option<OwnedFd>,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

struct Streams {
    ours: Ours,
    theirs: Theirs,
    terminal: Option<OwnedFd>,
}

impl Streams {
    fn pipes(stdin: Stdin, run_as: RunAs) -> Result<Self, SpawnError> {
        let stdout = Pipe::new(true, run_as)?;
        let stderr = Pipe::new(true, run_as)?;
        let (our_stdin, their_stdin) = match stdin {
            Stdin::Null => (None, None),
            Stdin::Piped => {
                let pipe = Pipe::new(false, run_as)?;
                (Some(pipe.ours), Some(pipe.theirs))
            }
            Stdin::Given(fd) => (None, Some(fd)),
        };
        Ok(Self {
            ours: Ours {
                stdin: our_stdin,
                stdout: stdout.ours,
                stderr: Some(stderr.ours),
            },
            theirs: Theirs {
                stdin: their_stdin,
                stdout: stdout.theirs,
                stderr: stderr.theirs,
            },
            terminal: None,
        })
    }

    /// One terminal for all of them: the host reads, writes and resizes by one descriptor each.
    fn of_terminal(terminal: Terminal) -> Result<Self, SpawnError> {
        let Terminal { master, slave } = terminal;
        let copy = |fd: &OwnedFd| {
            let copied = rustix::io::fcntl_dupfd_cloexec(fd, 0);
            copied.map_err(host("copy a descriptor of the terminal"))
        };
        Ok(Self {
            ours: Ours {
                stdin: Some(copy(&master)?),
                stdout: copy(&master)?,
                stderr: None,
            },
            theirs: Theirs {
                stdin: Some(copy(&slave)?),
                stdout: copy(&slave)?,
                stderr: slave,
            },
            terminal: Some(master),
        })
    }
}

/// Kills an exec whose caller went away before it was confirmed.
struct Unclaimed(Option<Tree>);

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(tree) = &self.0 {
            tree.kill_detached();
        }
    }
}

impl Engine {
    /// Starts a process. If the returned future is dropped, the process does not
    /// run or is killed.
    pub(crate) async fn spawn(&self, request: SpawnRequest) -> Result<Running, SpawnError> {
        let inner = &self.inner;
        let payload = request.payload()?;
        let Streams {
            ours,
            theirs,
            terminal,
        } = match request.terminal {
            Some(terminal) => Streams::of_terminal(terminal)?,
            None => Streams::pipes(request.stdin, inner.run_as)?,
        };
        let stdin = ours.stdin.map(StdinWriter::new);
        let stdin = stdin.transpose().map_err(watch)?;
        let memory = if payload.len() > INLINE_PAYLOAD {
            let step = "hand over the arguments";
            Some(wire::sealed("sandbox-exec", &[&payload]).map_err(host(step))?)
        } else {
            None
        };
        let id = inner.next_id();
        let shared = Arc::new(Progress::default());
        let exit = ExitFuture {
            shared: shared.clone(),
        };
        let output = |pipe, waiter| {
            let output = Output::new(pipe, inner.clone(), shared.clone(), waiter)?;
            Ok(match terminal {
                Some(_) => output.of_terminal(),
                None => output,
            })
        };
        let stdout = output(ours.stdout, Waiter::Stdout).map_err(watch)?;
        let stderr = ours.stderr.map(|pipe| output(pipe, Waiter::Stderr));
        let stderr = stderr.transpose().map_err(watch)?;

        let mut flags = 0;
        let mut fds: Vec<BorrowedFd<'_>> = vec![theirs.stdout.as_fd(), theirs.stderr.as_fd()];
        let optional = [
            (&theirs.stdin, spawn::STDIN),
            (&request.program, spawn::PROGRAM),
        ];
        for (fd, flag) in optional.into_iter().chain([(&memory, spawn::PAYLOAD)]) {
            if let Some(fd) = fd {
                fds.push(fd.as_fd());
                flags |= flag;
            }
        }
        if request.confirm {
            flags |= spawn::CONFIRM;
        }
        if terminal.is_some() {
            flags |= spawn::TERMINAL;
        }
        let message = Message {
            kind: request::SPAWN,
            flags,
            exec: id,
            a: payload.len() as u64,
            b: request.argv.len() as u64,
            c: request.env.len() as u64,
            d: request.candidates.len() as u64,
        };
        let inline = if memory.is_some() { &[][..] } else { &payload };
        {
            let sent = async {
                let _entered = inner.enter().await;
                inner.flush_forgotten();
                register_and_send(inner, id, &shared, &message, inline, &fds).await
            };
            // A message goes out whole or not at all, and only at the end of this.
            within(request.deadline, sent)
                .await
                .ok_or(SpawnError::TooLate)??;
        }
        let mut unclaimed = Unclaimed(Some(Tree {
            inner: inner.clone(),
            id,
        }));
        // The sandbox has its own; with ours open, the pipes would never end.
        drop(theirs);
        if request.confirm {
            let confirmed = within(request.deadline, shared.confirmed()).await;
            // What is not confirmed in time is killed.
            let confirmed = confirmed.ok_or(SpawnError::NotConfirmed)?;
            if confirmed.is_err() {
                unclaimed.0 = None;
            }
            confirmed?;
        }
        let tree = unclaimed.0.take().ok_or_else(|| inner.why())?;
        Ok(Running {
            tree,
            stdin,
            stdout,
            stderr,
            terminal,
            exit,
        })
    }
}

/// Awaits a future, unless the deadline comes first.
async fn within<T>(deadline: Option<Instant>, future: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline.into(), future).await.ok(),
        None => Some(future.await),
    }
}

/// Registers before sending, so that no reply goes unheard, and takes that back
/// if the message does not go out.
async fn register_and_send(
    inner: &Connection,
    id: u64,
    shared: &Arc<Progress>,
    message: &Message,
    payload: &[u8],
    fds: &[BorrowedFd<'_>],
) -> Result<(), SpawnError> {
    struct Registered<'a>(&'a Connection, u64, bool);
    impl Drop for Registered<'_> {
        fn drop(&mut self) {
            if !self.2 {
                self.0.unregister(self.1);
            }
        }
    }
    inner.register(id, shared)?;
    let mut registered = Registered(inner, id, false);
    match inner.send(message, payload, fds).await {
        Ok(()) => {
            registered.2 = true;
            Ok(())
        }
        Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => Err(inner.why().into()),
        Err(errno) => Err(host("ask the sandbox")(errno)),
    }
}
