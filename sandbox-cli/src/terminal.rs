//! `sandbox shell`, and `run --tty`: this program's terminal, carried to one in a sandbox.
//!
//! The terminal is in raw mode meanwhile, so that every key is the sandbox's, ^C too. It must be given back as it
//! was, however the program in the sandbox ends.

use std::os::unix::ffi::OsStrExt as _;
use std::sync::atomic::AtomicBool;

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use sandbox::{Command, Error, ErrorKind, Operation, Sandbox, TerminalSize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::signal::unix::{SignalKind, signal};

use crate::arguments::ShellOptions;
use crate::place::{leave, place};
use crate::show::Failure;
use crate::stop::{code, ended_by};

const OP: Operation = Operation::Spawn;

pub(crate) async fn shell(uri: &str, options: ShellOptions, json: bool) -> Result<u8, Failure> {
    // Before there is a sandbox.
    check()?;
    let mut words = options.command.iter().map(|word| word.as_bytes());
    let command = Command::new(words.next().unwrap_or(b"sh")).args(words);
    let (sandbox, stays) = place(uri, &options.place).await?;
    let none = AtomicBool::new(false);
    let done = tokio::select! {
        done = relay(&*sandbox, command) => done,
        signal = ended_by(&none) => Ok(signal),
    };
    leave(sandbox, stays, &options.place, json, done).await
}

fn check() -> Result<(), Failure> {
    if isatty(std::io::stdin()) && isatty(std::io::stdout()) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidInput, OP)
        .with_message("standard input and output are not a terminal")
        .with_hint("for a script write `sandbox run sh`")
        .into())
}

fn failed(errno: rustix::io::Errno) -> Error {
    Error::from_io(errno.into(), OP).with_message("this terminal can't be used")
}

/// The size of this program's terminal.
fn size() -> Result<TerminalSize, Error> {
    let size = tcgetwinsize(std::io::stdout()).map_err(failed)?;
    Ok(TerminalSize {
        rows: size.ws_row.max(1),
        columns: size.ws_col.max(1),
    })
}

/// This program's terminal in raw mode, while it lives.
struct Raw(Termios);

impl Raw {
    fn new() -> Result<Self, Error> {
        let before = tcgetattr(std::io::stdin()).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).map_err(failed)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // There is no other way to give it back.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Runs a command on this program's terminal: carries keys, what is shown, and changes of the size.
pub(crate) async fn relay(sandbox: &dyn Sandbox, command: Command) -> Result<u8, Failure> {
    check()?;
    let mut resized = signal(SignalKind::window_change())
        .map_err(|error| Error::from_io(error, OP).with_message("no signal can be waited for"))?;
    let mut process = sandbox.spawn(command.terminal(size()?)).await?;
    let raw = Raw::new()?;
    let keys = process.stdin.take();
    let shown = process.stdout.take();
    let typing = tokio::spawn(async move {
        let Some(mut keys) = keys else { return };
        let mut stdin = tokio::io::stdin();
        let mut bytes = vec![0; 4096];
        while let Ok(len @ 1..) = stdin.read(&mut bytes).await {
            let typed = bytes.get(..len).unwrap_or_default();
            if keys.write_all(typed).await.is_err() {
                break;
            }
        }
        // Held: the input of a terminal has no end.
        std::future::pending::<()>().await;
    });
    let mut stdout = tokio::io::stdout();
    let lost = |error| Error::from_io(error, OP).with_message("the terminal was lost");
    if let Some(mut shown) = shown {
        let mut bytes = vec![0; 64 << 10];
        loop {
            tokio::select! {
                len = shown.read(&mut bytes) => match len.map_err(lost)? {
                    0 => break,
                    len => {
                        let some = bytes.get(..len).unwrap_or_default();
                        stdout.write_all(some).await.map_err(lost)?;
                        stdout.flush().await.map_err(lost)?;
                    }
                },
                _ = resized.recv() => process.resize(size()?).await?,
            }
        }
    }
    typing.abort();
    let exit = process.wait().await;
    drop(raw);
    Ok(code(exit?.status.shell_code()))
}
