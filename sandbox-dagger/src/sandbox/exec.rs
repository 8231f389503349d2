//! One command: the script that supervises it, and how its answer is read.
//!
//! Invariant: a command is asked for once; whether it ran is told truly when the answer is lost.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sandbox_core::backend::{command_not_found, timed_out};
use sandbox_core::{
    CapturedStream, Command, Error, ErrorKind, Execution, Exit, ExitStatus, GuestPath, Operation,
    Output, PartialOutput, Result, Stdin,
};

use crate::config::DaggerConfig;
use crate::config::options::ProcessLimits;
use crate::guest::Script;
use crate::guest::frame::{Broken, Frame};
use crate::sandbox::settings::DaggerSettings;
use crate::session::client::SMALL_ANSWER;
use crate::session::nonce::nonce;
use crate::session::query::{CONTROL, STAGE};

/// Limit of standard input within the query; more goes by a staged file.
pub(crate) const INLINE_STDIN: usize = 1 << 20;
/// The size of the arguments and the environment together: a quarter of the usual stack of 8 MiB
/// (execve(2)), without what the supervisor's own shell adds.
const MAX_ARGUMENTS: usize = (2 << 20) - (64 << 10);
/// The size of one argument or variable with the byte that ends it: 32 pages (execve(2)).
const MAX_ARGUMENT: usize = 128 << 10;
/// Bytes that a secret variable of the engine has besides its value: a name and a random prefix.
const SECRET_OVERHEAD: usize = 64;
/// Limit of confidential variables: each makes the query two levels deeper.
const MAX_SECRETS: usize = 32;
/// The longest time for which output is waited for: shells count in hundredths of a second.
const LONGEST_GRACE: Duration = Duration::from_secs(100 * 365 * 86_400);
/// The time that the engine has beyond a command's own.
pub(crate) const GRACE: Duration = Duration::from_secs(60);

/// A command, ready to be sent.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) script: String,
    pub(crate) nonce: String,
    pub(crate) largest: u64,
    /// The engine's secret variables: name and secret.
    pub(crate) secrets: Vec<(String, String)>,
}

fn limit(why: &str) -> Error {
    Error::new(ErrorKind::LimitExceeded, Operation::Exec)
        .with_message(why)
        .with_execution(Execution::NotStarted)
}

/// Refuses what the guest's kernel would refuse, with the cause.
fn check_size(command: &Command, settings: &DaggerSettings) -> Result<()> {
    // Each has a byte at its end, and a pointer to it.
    let mut all = 0;
    for argument in command.argv() {
        if argument.len() >= MAX_ARGUMENT {
            return Err(limit("an argument has 128 KiB or more"));
        }
        all += argument.len() + 9;
    }
    for (name, value) in &settings.common.env {
        let secret = match settings.secrets.contains_key(name) {
            true => SECRET_OVERHEAD,
            false => 0,
        };
        let size = name.len() + 1 + value.value.expose().len();
        if size + secret >= MAX_ARGUMENT {
            let name = String::from_utf8_lossy(name);
            return Err(limit(&format!("the variable {name} has 128 KiB or more")));
        }
        all += size + 9;
    }
    match all > MAX_ARGUMENTS {
        true => Err(limit(
            "the arguments and the environment are larger than 2 MiB",
        )),
        false => Ok(()),
    }
}

/// Makes the script of a command.
pub(crate) fn prepare(
    command: &Command,
    cwd: &GuestPath,
    settings: &DaggerSettings,
    timeout: Option<Duration>,
    config: &DaggerConfig,
    spawned: bool,
) -> Result<Prepared> {
    check_size(command, settings)?;
    let nonce = nonce();
    let control = if spawned { CONTROL } else { "" };
    let mut script = Script::new(&nonce)
        .set("limits", config.limits.script().as_bytes())
        .line(&format!("control={control}"));
    match &command.stdin {
        Stdin::Bytes(bytes) if bytes.len() > INLINE_STDIN => {
            script = script.line(&format!("input={STAGE}/stdin"));
        }
        Stdin::Bytes(bytes) if !bytes.is_empty() => {
            script = script.file_from_base64("input", &STANDARD.encode(bytes));
        }
        _ => script = script.line("input=/dev/null"),
    }
    script = script.line(match &command.stdin {
        Stdin::Piped => "piped=yes",
        _ => "piped=",
    });
    let path = settings
        .common
        .env
        .get(&b"PATH"[..])
        .map_or(&b"/bin:/usr/bin"[..], |path| path.value.expose());
    // A timeout below the supervisor's resolution is still a timeout.
    let hundredths = timeout.map_or(0, |timeout| timeout.as_millis().div_ceil(10).max(1));
    let grace = config.output_grace.min(LONGEST_GRACE).as_millis() / 10;
    script = script
        .set("cwd", cwd.as_bytes())
        .set("path", path)
        .set("program", command.program())
        .line(&format!(
            "limit={hundredths} grace={grace} stdout_limit={} stderr_limit={}",
            command.stdout_limit, command.stderr_limit
        ));
    let Words {
        raw,
        words,
        secrets,
    } = words(command, settings)?;
    let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    let script = script.parameters(&raw, &words).supervise();
    let kept = command.stdout_limit.saturating_add(command.stderr_limit);
    let largest = kept.saturating_mul(3).saturating_add(SMALL_ANSWER) / 2;
    Ok(Prepared {
        script,
        nonce,
        largest: largest.saturating_add(SMALL_ANSWER),
        secrets,
    })
}

/// A command with its environment in front, as `env` takes it.
struct Words {
    /// Our own script: `env` and the variables that the engine fills in.
    raw: Vec<String>,
    words: Vec<Vec<u8>>,
    /// The engine's secret variables: name and secret.
    secrets: Vec<(String, String)>,
}

fn words(command: &Command, settings: &DaggerSettings) -> Result<Words> {
    let mut raw = vec!["env".to_owned(), "-i".to_owned()];
    let mut words: Vec<Vec<u8>> = Vec::new();
    let mut secrets = Vec::new();
    for (name, value) in &settings.common.env {
        if let (Some(secret), Ok(text)) = (settings.secrets.get(name), std::str::from_utf8(name))
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        {
            let variable = format!("SANDBOX_SECRET_{}", secrets.len());
            let prefix = if secret.hidden { "#*:" } else { "" };
            raw.push(format!("{text}=\"${{{variable}{prefix}}}\""));
            secrets.push((variable, secret.id.clone()));
            continue;
        }
        words.push([name, &b"="[..], value.value.expose()].concat());
    }
    if secrets.len() > MAX_SECRETS {
        return Err(limit("more than 32 confidential variables"));
    }
    if command.program().contains(&b'=') {
        // env would take it for a variable.
        words.extend([&b"/bin/sh"[..], b"-c", b"exec \"$0\" \"$@\""].map(<[u8]>::to_vec));
    }
    words.extend(command.argv().iter().cloned());
    Ok(Words {
        raw,
        words,
        secrets,
    })
}

/// The script of a command that serves, which has no supervisor; and the engine's secret variables:
/// name and secret.
pub(crate) fn serve(
    command: &Command,
    cwd: &GuestPath,
    settings: &DaggerSettings,
    limits: &ProcessLimits,
) -> Result<(String, Vec<(String, String)>)> {
    let Words {
        raw,
        words,
        secrets,
    } = words(command, settings)?;
    let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    let script = Script::new("serve")
        .set("cwd", cwd.as_bytes())
        .line("cd -- \"$cwd\" || exit 1")
        .line(&format!("{} || exit 1", limits.script()))
        .parameters(&raw, &words)
        .line("exec \"$@\"")
        .text();
    if script.len() >= MAX_ARGUMENT {
        return Err(limit("the arguments and the environment are too long"));
    }
    Ok((script, secrets))
}

/// The result of a command, from what the supervisor wrote to its stdout and stderr.
pub(crate) fn read(
    answer: (&str, &str),
    nonce: &str,
    command: &Command,
    cwd: &GuestPath,
    timeout: Option<Duration>,
    started: Instant,
) -> Result<Output> {
    parse(answer, nonce, command, cwd, timeout, started)
        .unwrap_or_else(|broken| Err(ended(broken, Operation::Exec)))
}

/// The error for what a supervisor wrote that can't be read.
pub(crate) fn ended(Broken(why): Broken, operation: Operation) -> Error {
    Error::new(ErrorKind::Other, operation)
        .with_message(format!("the command's supervisor was ended: {why}"))
        .with_execution(Execution::Unknown)
}

fn parse(
    (stdout, stderr): (&str, &str),
    nonce: &str,
    command: &Command,
    cwd: &GuestPath,
    timeout: Option<Duration>,
    started: Instant,
) -> std::result::Result<Result<Output>, Broken> {
    let mut frame = Frame::parse(stdout, nonce)?;
    // The first line was written before the command could write anything: it can't be forged.
    if let Some(why) = frame.line()?.strip_prefix("no ") {
        return Ok(Err(not_started(why, command, cwd)));
    }
    let stdout = frame.bytes()?;
    let stderr = Frame::parse(stderr, nonce)?.bytes()?;
    let code = frame.line()?;
    let code = code.strip_prefix("exit ").ok_or(Broken("no exit code"))?;
    let stdout = captured(stdout, &mut frame)?;
    let stderr = captured(stderr, &mut frame)?;
    let streams = PartialOutput::new(stdout, stderr, started.elapsed());
    if code == "timeout" {
        let after = timeout.unwrap_or_default();
        return Ok(Err(
            timed_out(Operation::Exec, after).with_partial_output(streams)
        ));
    }
    let exit = exit(code).ok_or(Broken("its exit code is lost"))?;
    Ok(Ok(Output::new(exit, streams)))
}

/// The exit of a wait status: the signal in the lower seven bits, the code above eight.
pub(crate) fn exit(status: &str) -> Option<Exit> {
    let status: i32 = status.trim().parse().ok()?;
    Some(Exit::new(match status & 0x7f {
        0 => ExitStatus::Code((status >> 8) & 0xff),
        signal => ExitStatus::Signal(signal),
    }))
}

/// The number of bytes that the command wrote to disk, as far as the guest's kernel tells.
pub(crate) fn written(stdout: &str) -> u64 {
    let mut lines = stdout.lines().rev();
    let said = lines.find_map(|line| line.strip_prefix("written "));
    said.and_then(|said| said.trim().parse().ok()).unwrap_or(0)
}

/// A stream with the number of bytes that were written to it in all.
fn captured(bytes: Vec<u8>, frame: &mut Frame<'_>) -> std::result::Result<CapturedStream, Broken> {
    let total = frame.line()?.strip_prefix("total ");
    let total = total.ok_or(Broken("no length"))?.trim().parse();
    let total: u64 = total.map_err(|_| Broken("no length"))?;
    let total = total.max(bytes.len() as u64);
    Ok(CapturedStream::new(bytes, total))
}

/// The error of a command that the supervisor did not start.
pub(crate) fn not_started(why: &str, command: &Command, cwd: &GuestPath) -> Error {
    let program = || GuestPath::new(command.program());
    let (kind, message, path) = match why {
        "command-not-found" => {
            return command_not_found(Operation::Exec, command.program(), "no such program");
        }
        "not-executable" => (
            ErrorKind::NotExecutable,
            "not an executable program",
            program(),
        ),
        "cwd-not-found" => (
            ErrorKind::NotFound,
            "no such working directory",
            cwd.clone(),
        ),
        "cwd-not-a-directory" => (
            ErrorKind::NotADirectory,
            "the working directory is not a directory",
            cwd.clone(),
        ),
        "cwd-denied" => (
            ErrorKind::PermissionDenied,
            "the working directory may not be entered",
            cwd.clone(),
        ),
        "arguments" => (
            ErrorKind::LimitExceeded,
            "the arguments and the environment are larger than the guest allows",
            program(),
        ),
        "limits" => (
            ErrorKind::Unsupported,
            "the guest's shell can't set the limits of DaggerConfig::limits",
            program(),
        ),
        "setsid" => (
            ErrorKind::Unsupported,
            "the image has no program setsid, which spawn needs",
            program(),
        ),
        _ => (
            ErrorKind::Other,
            "neither /dev/shm nor /tmp of the image can be written",
            cwd.clone(),
        ),
    };
    Error::new(kind, Operation::Exec)
        .with_message(message)
        .with_path(path)
        .with_execution(Execution::NotStarted)
}
