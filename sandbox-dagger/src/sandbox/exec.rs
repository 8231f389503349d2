//! Running one command: the script that supervises it, the query, and what came of it.
//!
//! Invariant: a command is asked for once; whether it ran is told truly when the answer is lost.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sandbox_core::{
    Captured, CapturedOutput, Command, EnvValue, Error, ErrorKind, Exit, ExitStatus, GuestPath,
    Operation, Output, Ran, Result, Stdin,
};

use crate::config::options::ProcessLimits;
use crate::guest::Script;
use crate::guest::frame::{Broken, Frame};
use crate::session::client::SMALL_ANSWER;
use crate::session::query::STAGE;
use crate::session::secrets::SecretIds;

/// How much standard input travels within the query; more goes by a staged file.
pub(crate) const INLINE_STDIN: usize = 1 << 20;
/// What the arguments and the environment may be together, as Linux has it.
const MAX_ARGUMENTS: usize = 1 << 20;
/// What one argument may be, as Linux has it.
const MAX_ARGUMENT: usize = 128 << 10;
/// How many confidential variables there may be: each makes the query two levels deeper.
const MAX_SECRETS: usize = 32;
/// What is left to the engine beyond a command's own time.
pub(crate) const GRACE: Duration = Duration::from_secs(60);

/// A command, ready to be sent.
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
        .with_ran(Ran::NotStarted)
}

/// Makes the script of a command.
pub(crate) fn prepare(
    command: &Command,
    cwd: &GuestPath,
    env: &BTreeMap<Vec<u8>, EnvValue>,
    secret_ids: &SecretIds,
    timeout: Option<Duration>,
    limits: &ProcessLimits,
    nonce: String,
) -> Result<Prepared> {
    let arguments: usize = command
        .argv()
        .iter()
        .map(|argument| argument.len() + 9)
        .sum();
    let variables: usize = env
        .iter()
        .map(|(name, value)| name.len() + value.value.expose().len() + 10)
        .sum();
    if arguments + variables > MAX_ARGUMENTS
        || command
            .argv()
            .iter()
            .any(|argument| argument.len() >= MAX_ARGUMENT)
    {
        return Err(limit("the arguments and the environment are too long"));
    }
    let mut script = Script::new(&nonce).set("limits", limits.script().as_bytes());
    match &command.stdin {
        Stdin::Bytes(bytes) if bytes.len() > INLINE_STDIN => {
            script = script.line(&format!("input={STAGE}/stdin"));
        }
        Stdin::Bytes(bytes) if !bytes.is_empty() => {
            script = script.file_from_base64("input", &STANDARD.encode(bytes));
        }
        _ => script = script.line("input=/dev/null"),
    }
    let path = env
        .get(&b"PATH"[..])
        .map_or(&b"/bin:/usr/bin"[..], |path| path.value.expose());
    // A timeout below the supervisor's resolution is still a timeout.
    let hundredths = timeout.map_or(0, |timeout| timeout.as_millis().div_ceil(10).max(1));
    script = script
        .set("cwd", cwd.as_bytes())
        .set("path", path)
        .set("prog", command.program())
        .line(&format!(
            "limit={hundredths} so={} se={}",
            command.stdout_limit, command.stderr_limit
        ));
    let Words {
        raw,
        words,
        secrets,
    } = words(command, env, secret_ids)?;
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

fn words(
    command: &Command,
    env: &BTreeMap<Vec<u8>, EnvValue>,
    secret_ids: &SecretIds,
) -> Result<Words> {
    let mut raw = vec!["env".to_owned(), "-i".to_owned()];
    let mut words: Vec<Vec<u8>> = Vec::new();
    let mut secrets = Vec::new();
    for (name, value) in env {
        if let (Some(id), Ok(text)) = (secret_ids.get(name), std::str::from_utf8(name))
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        {
            let variable = format!("SANDBOX_SECRET_{}", secrets.len());
            raw.push(format!("{text}=\"${{{variable}#*:}}\""));
            secrets.push((variable, id.clone()));
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

/// The script of a command that serves: nobody supervises it. With it, the secret variables.
pub(crate) fn serve(
    command: &Command,
    cwd: &GuestPath,
    env: &BTreeMap<Vec<u8>, EnvValue>,
    secret_ids: &SecretIds,
    limits: &ProcessLimits,
) -> Result<(String, Vec<(String, String)>)> {
    let Words {
        raw,
        words,
        secrets,
    } = words(command, env, secret_ids)?;
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

/// What came of a command, from the supervisor's answer.
pub(crate) fn read(
    answer: &str,
    nonce: &str,
    command: &Command,
    cwd: &GuestPath,
    timeout: Option<Duration>,
    started: Instant,
) -> Result<Output> {
    parse(answer, nonce, command, cwd, timeout, started).unwrap_or_else(|Broken(why)| {
        Err(Error::new(ErrorKind::Other, Operation::Exec)
            .with_message(format!("the command's supervisor was ended: {why}"))
            .with_ran(Ran::Unknown))
    })
}

fn parse(
    answer: &str,
    nonce: &str,
    command: &Command,
    cwd: &GuestPath,
    timeout: Option<Duration>,
    started: Instant,
) -> std::result::Result<Result<Output>, Broken> {
    let mut frame = Frame::parse(answer, nonce)?;
    let first = frame.line()?;
    if let Some(why) = first.strip_prefix("no ") {
        return Ok(Err(not_started(why, command, cwd)));
    }
    let code = first.strip_prefix("exit ").ok_or(Broken("no exit code"))?;
    let stdout = stream(&mut frame)?;
    let stderr = stream(&mut frame)?;
    let streams = CapturedOutput::new(stdout, stderr, started.elapsed());
    if code == "timeout" {
        let after = timeout.unwrap_or_default();
        return Ok(Err(Error::new(ErrorKind::Timeout, Operation::Exec)
            .with_message(format!(
                "the command was killed after its timeout of {after:?}"
            ))
            .with_partial_output(streams)));
    }
    // A wait status: the signal in the lower seven bits, the code above eight.
    let status: i32 = code
        .trim()
        .parse()
        .map_err(|_| Broken("its exit code is lost"))?;
    let status = match status & 0x7f {
        0 => ExitStatus::Code(u8::try_from((status >> 8) & 0xff).unwrap_or(u8::MAX)),
        signal => ExitStatus::Signal(signal),
    };
    Ok(Ok(Output::new(Exit::new(status), streams)))
}

fn stream(frame: &mut Frame<'_>) -> std::result::Result<Captured, Broken> {
    let total = frame
        .line()?
        .strip_prefix("stream ")
        .ok_or(Broken("no stream"))?;
    let total: u64 = total.trim().parse().map_err(|_| Broken("no length"))?;
    let bytes = frame.bytes()?;
    let total = total.max(bytes.len() as u64);
    Ok(Captured::new(bytes, total))
}

fn not_started(why: &str, command: &Command, cwd: &GuestPath) -> Error {
    let program = || GuestPath::new(command.program());
    let (kind, message, path) = match why {
        "command-not-found" => (ErrorKind::CommandNotFound, "no such program", program()),
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
            "the working directory is none",
            cwd.clone(),
        ),
        "cwd-denied" => (
            ErrorKind::PermissionDenied,
            "the working directory may not be entered",
            cwd.clone(),
        ),
        "limits" => (
            ErrorKind::Unsupported,
            "the guest's shell can't set the limits of DaggerConfig::limits",
            program(),
        ),
        _ => (
            ErrorKind::Other,
            "the image has no place for a command's output",
            cwd.clone(),
        ),
    };
    Error::new(kind, Operation::Exec)
        .with_message(message)
        .with_path(path)
        .with_ran(Ran::NotStarted)
}
