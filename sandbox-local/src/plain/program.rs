//! Finds the program of a command and makes the host's form of it.
//!
//! It must never look at the host's own environment.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use sandbox_core::backend::{Settings, command_not_found};
use sandbox_core::{
    Command, EnvValue, Error, ErrorKind, Execution, FileKind, GuestPath, Operation, Result,
};
use tokio::process::Command as HostCommand;

use super::os;
use super::tree::Tree;

/// The command as the host starts it, without its streams.
pub(crate) fn prepare(
    tree: &Tree,
    mut at: Settings,
    command: &Command,
    op: Operation,
) -> Result<HostCommand> {
    let cwd = command
        .cwd
        .as_ref()
        .unwrap_or(&GuestPath::from("."))
        .clone();
    let cwd = tree.follow(&cwd, &at.workdir, op)?;
    if !cwd.host.is_dir() {
        return Err(Error::new(ErrorKind::NotADirectory, op)
            .with_message("the working directory is not a directory")
            .with_path(cwd.guest));
    }
    command.env.apply_to(&mut at.env);
    let program = find(command.program(), &cwd.host, &at.env, op)?;
    let mut host = HostCommand::new(program);
    let unrepresentable = || {
        Error::new(ErrorKind::InvalidInput, op)
            .with_message("the host cannot be given this argument or variable")
    };
    #[cfg(unix)]
    {
        let name = text(command.program()).ok_or_else(unrepresentable)?;
        host.arg0(name).process_group(0);
    }
    for arg in command.argv().iter().skip(1) {
        host.arg(text(arg).ok_or_else(unrepresentable)?);
    }
    host.env_clear().current_dir(&cwd.host);
    for (name, value) in &at.env {
        let name = text(name).ok_or_else(unrepresentable)?;
        let value = text(value.value.expose()).ok_or_else(unrepresentable)?;
        host.env(name, value);
    }
    Ok(host)
}

#[cfg(unix)]
fn text(bytes: &[u8]) -> Option<std::ffi::OsString> {
    os::name(bytes)
}

#[cfg(not(unix))]
fn text(bytes: &[u8]) -> Option<std::ffi::OsString> {
    std::str::from_utf8(bytes).ok().map(Into::into)
}

fn find(
    program: &[u8],
    cwd: &Path,
    environment: &BTreeMap<Vec<u8>, EnvValue>,
    op: Operation,
) -> Result<PathBuf> {
    let refuse = |kind, why: &str| {
        Error::new(kind, op)
            .with_message(why)
            .with_path(GuestPath::from(program))
    };
    let missing = || command_not_found(op, program, "the program was not found");
    let name = text(program).ok_or_else(missing)?;
    let candidates: Vec<PathBuf> = if program.contains(&b'/') {
        vec![cwd.join(&name)]
    } else {
        let path = environment.get(&b"PATH"[..]);
        let path = path.and_then(|path| text(path.value.expose()));
        std::env::split_paths(&path.unwrap_or_default())
            .map(|dir| cwd.join(dir).join(&name))
            .collect()
    };
    let mut denied = None;
    for candidate in candidates {
        match runnable(&candidate) {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => denied = Some("the program may not be executed"),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                denied = Some("the program may not be reached");
            }
            Err(_) => {}
        }
    }
    Err(denied.map_or_else(missing, |why| refuse(ErrorKind::NotExecutable, why)))
}

/// The file to start, if it may be executed.
fn runnable(path: &Path) -> io::Result<Option<PathBuf>> {
    let found = match std::fs::metadata(path) {
        Err(_) if cfg!(windows) => {
            let mut name = path.as_os_str().to_owned();
            name.push(".exe");
            let path = PathBuf::from(name);
            (std::fs::metadata(&path)?, path)
        }
        other => (other?, path.to_path_buf()),
    };
    let file = os::kind(found.0.file_type()) == FileKind::File;
    let executable = !cfg!(unix) || os::mode(&found.0).bits() & 0o111 != 0;
    Ok((file && executable).then_some(found.1))
}

/// Error for a program that exists and that the host did not start.
pub(super) fn not_started(error: io::Error, op: Operation, program: &[u8]) -> Error {
    let (kind, why) = match error.kind() {
        io::ErrorKind::NotFound => (
            ErrorKind::NotExecutable,
            "the program's interpreter was not found",
        ),
        io::ErrorKind::PermissionDenied => {
            (ErrorKind::NotExecutable, "the program may not be executed")
        }
        io::ErrorKind::ArgumentListTooLong => (
            ErrorKind::LimitExceeded,
            "the arguments and the environment are too long for the host",
        ),
        io::ErrorKind::ExecutableFileBusy => {
            return Error::new(ErrorKind::Busy, op)
                .with_message("the program has been open for writing for a second")
                .with_hint("close the file that holds it, or wait for the process that writes it")
                .with_path(GuestPath::from(program))
                .with_retryable(true)
                .with_execution(Execution::NotStarted)
                .with_source(error);
        }
        io::ErrorKind::WouldBlock => (
            ErrorKind::LimitExceeded,
            "the host allows no more processes",
        ),
        _ if no_format(&error) => (
            ErrorKind::NotExecutable,
            "the program is of no executable format",
        ),
        _ => {
            return Error::from_io(error, op)
                .with_path(GuestPath::from(program))
                .with_execution(Execution::NotStarted);
        }
    };
    Error::new(kind, op)
        .with_message(why)
        .with_path(GuestPath::from(program))
        .with_execution(Execution::NotStarted)
        .with_source(error)
}

#[cfg(unix)]
fn no_format(error: &io::Error) -> bool {
    use rustix::io::Errno;
    // EIO is what Linux says of a binary that ends in the middle of its headers.
    matches!(
        Errno::from_io_error(error),
        Some(Errno::NOEXEC | Errno::INVAL | Errno::IO)
    )
}

#[cfg(not(unix))]
fn no_format(error: &io::Error) -> bool {
    // ERROR_BAD_EXE_FORMAT
    error.raw_os_error() == Some(193)
}
