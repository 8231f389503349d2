//! Faults of what a command is given and of what it gives.

use std::time::Duration;

use sandbox_core::{
    CapturedStream, Command, ExitCause, ExitStatus, Output, Sandbox, Stdin, TerminalSize,
};

use super::Mutant;

/// The command that the backend is given.
pub(super) fn asked(mutant: Mutant, inner: &dyn Sandbox, mut command: Command) -> Command {
    match mutant {
        Mutant::StdinIgnored => command.stdin = Stdin::Empty,
        Mutant::CwdIgnored => command.cwd = None,
        Mutant::TerminalSizeIgnored => {
            if let Some(terminal) = &mut command.terminal {
                terminal.size = TerminalSize::default();
            }
        }
        Mutant::UserIgnored => command.user = None,
        Mutant::ZeroTimeoutAccepted if command.timeout == Some(Duration::ZERO) => {
            command.timeout = None;
        }
        Mutant::OutputLimitIgnored => {
            command.stdout_limit = u64::MAX;
            command.stderr_limit = u64::MAX;
        }
        Mutant::SpecTimeoutFirst => {
            command.timeout = inner.info().command_timeout.or(command.timeout);
        }
        Mutant::HostEnvironmentLeaks => {
            use std::os::unix::ffi::OsStringExt as _;
            for (name, value) in std::env::vars_os() {
                command = command.env(name.into_vec(), value.into_vec());
            }
        }
        // No backend mounts over its own `/dev`: this is what a command would see there.
        Mutant::HostDevInside if command.argv().last().is_some_and(|arg| arg == b"/dev") => {
            use std::os::unix::fs::MetadataExt as _;
            if let Ok(host) = std::fs::metadata("/dev") {
                let identity = format!("{}:{}", host.dev(), host.ino());
                command = Command::new("printf").arg("%s").arg(identity);
            }
        }
        Mutant::BackgroundEndsWhenItPrints => {
            let own = Command::new("sh").args(["-c", "\"$@\" | head -n 1", "sh"]);
            command = own.args(command.argv());
        }
        Mutant::StreamsHaveNoNames => command = without_names(command),
        Mutant::ArgumentsThroughShell => {
            command = Command::shell(command.argv().join(&b' '));
        }
        _ => {}
    }
    command
}

/// The result that the caller is given.
pub(super) fn given(mutant: Mutant, mut output: Output) -> Output {
    match mutant {
        Mutant::TruncationNotTold => {
            output.stdout.total = output.stdout.bytes.len() as u64;
            output.stderr.total = output.stderr.bytes.len() as u64;
        }
        Mutant::StderrMerged => {
            let all = [&output.stdout.bytes[..], &output.stderr.bytes[..]].concat();
            let total = output.stdout.total + output.stderr.total;
            output.stdout = CapturedStream::new(all, total);
            output.stderr = CapturedStream::default();
        }
        Mutant::NewlineAdded => {
            let line = [&output.stdout.bytes[..], b"\n"].concat();
            let total = output.stdout.total + 1;
            output.stdout = CapturedStream::new(line, total);
        }
        Mutant::OutputMadeUtf8 => {
            let text = output.stdout.to_string_lossy().into_owned();
            let total = text.len() as u64;
            output.stdout = CapturedStream::new(text, total);
        }
        Mutant::SignalAsCode => {
            output.status = ExitStatus::Code(output.status.shell_code());
        }
        Mutant::CodesAsSignals => {
            if let ExitStatus::Code(code @ 129..) = output.status {
                output.status = ExitStatus::Signal(code - 128);
            }
        }
        Mutant::CauseMadeUp if output.status.signal().is_some() => {
            output.cause = ExitCause::OutOfMemory;
        }
        Mutant::DurationMissing => output.duration = Duration::ZERO,
        _ => {}
    }
    output
}

/// Starts a process of this host, with the last argument of a command, when it is dropped.
pub(super) struct StartedWhenDropped(Option<Vec<u8>>);

impl StartedWhenDropped {
    pub(super) fn new(command: &Command) -> Self {
        Self(command.argv().last().cloned())
    }

    pub(super) fn forget(&mut self) {
        self.0 = None;
    }
}

impl Drop for StartedWhenDropped {
    fn drop(&mut self) {
        use std::os::unix::ffi::OsStringExt as _;
        if let Some(word) = self.0.take() {
            // The colon keeps the shell, and with it the word among its arguments.
            let started = std::process::Command::new("sh")
                .args(["-c", "sh -c 'sleep 30; :' \"$0\" & exit 0"])
                .arg(std::ffi::OsString::from_vec(word))
                .stdout(std::process::Stdio::null())
                .status();
            drop(started);
        }
    }
}

/// Takes the names of the standard streams out of a script.
fn without_names(command: Command) -> Command {
    let argv: Vec<String> = command
        .argv()
        .iter()
        .map(|argument| String::from_utf8_lossy(argument).replace("/dev/std", "/no/such/std"))
        .collect();
    let mut renamed = Command::new(argv.first().map_or("", String::as_str));
    renamed = renamed.args(argv.iter().skip(1));
    (renamed.env, renamed.cwd, renamed.stdin) = (command.env, command.cwd, command.stdin);
    renamed
}
