//! Commands and what came of them.

use std::time::Duration;

use sandbox_core::{
    CapturedStream, Command, Env, Exit, ExitCause, ExitStatus, Output, PartialOutput,
    ResourceUsage, Stdin,
};
use serde::{Deserialize, Serialize};

use super::Base64;

/// A change of an environment.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Variable {
    name: Base64,
    /// None unsets it.
    #[serde(default)]
    value: Option<Base64>,
    #[serde(default)]
    secret: bool,
}

/// The changes for the wire.
#[cfg(feature = "client")]
pub(crate) fn variables(env: &Env) -> Vec<Variable> {
    let each = env.iter().map(|(name, value)| Variable {
        name: Base64(name.to_vec().into()),
        secret: value.is_some_and(|value| value.is_secret),
        value: value.map(|value| Base64(value.value.expose().to_vec().into())),
    });
    each.collect()
}

/// The changes as the core has them.
#[cfg(feature = "server")]
pub(crate) fn environment(variables: Vec<Variable>) -> Env {
    variables.into_iter().fold(Env::new(), |env, variable| {
        let name = variable.name.0.to_vec();
        match variable.value {
            None => env.unset(name),
            Some(value) if variable.secret => env.secret(name, value.0.to_vec()),
            Some(value) => env.set(name, value.0.to_vec()),
        }
    })
}

/// A command to run.
#[derive(Serialize, Deserialize)]
pub(crate) struct Run {
    /// Without environment and input.
    command: Command,
    #[serde(default)]
    env: Vec<Variable>,
    /// Whole input of the command.
    #[serde(default)]
    stdin: Option<Base64>,
    /// Whether input follows while it runs.
    #[serde(default)]
    stdin_piped: bool,
}

#[cfg(feature = "client")]
impl From<Command> for Run {
    fn from(mut command: Command) -> Self {
        let env = variables(&std::mem::take(&mut command.env));
        let (stdin, stdin_piped) = match std::mem::take(&mut command.stdin) {
            Stdin::Bytes(bytes) => (Some(Base64(bytes)), false),
            Stdin::Piped => (None, true),
            _ => (None, false),
        };
        Self {
            command,
            env,
            stdin,
            stdin_piped,
        }
    }
}

#[cfg(feature = "server")]
impl From<Run> for Command {
    fn from(run: Run) -> Self {
        let mut command = run.command;
        command.env = environment(run.env);
        command.stdin = match (run.stdin, run.stdin_piped) {
            (_, true) => Stdin::Piped,
            (Some(bytes), false) => Stdin::Bytes(bytes.0),
            (None, false) => Stdin::Empty,
        };
        command
    }
}

/// One stream as it was kept.
#[derive(Serialize, Deserialize)]
pub(crate) struct Stream {
    bytes: Base64,
    total: u64,
}

impl From<CapturedStream> for Stream {
    fn from(stream: CapturedStream) -> Self {
        Self {
            bytes: Base64(stream.bytes),
            total: stream.total,
        }
    }
}

impl From<Stream> for CapturedStream {
    fn from(stream: Stream) -> Self {
        Self::new(stream.bytes.0, stream.total)
    }
}

/// Both streams, and the time in seconds.
#[derive(Serialize, Deserialize)]
pub(crate) struct Streams {
    stdout: Stream,
    stderr: Stream,
    duration: f64,
}

impl From<PartialOutput> for Streams {
    fn from(partial: PartialOutput) -> Self {
        Self {
            stdout: partial.stdout.into(),
            stderr: partial.stderr.into(),
            duration: partial.duration.as_secs_f64(),
        }
    }
}

impl From<Streams> for PartialOutput {
    fn from(streams: Streams) -> Self {
        let duration = Duration::try_from_secs_f64(streams.duration).unwrap_or_default();
        Self::new(streams.stdout.into(), streams.stderr.into(), duration)
    }
}

/// The result of a command that ran to its end.
#[derive(Serialize, Deserialize)]
pub(crate) struct WireOutput {
    status: ExitStatus,
    #[serde(default)]
    cause: ExitCause,
    #[serde(default)]
    usage: Option<ResourceUsage>,
    #[serde(flatten)]
    streams: Streams,
}

impl From<Output> for WireOutput {
    fn from(output: Output) -> Self {
        let streams = PartialOutput::new(output.stdout, output.stderr, output.duration);
        Self {
            status: output.status,
            cause: output.cause,
            usage: output.usage,
            streams: streams.into(),
        }
    }
}

impl From<WireOutput> for Output {
    fn from(output: WireOutput) -> Self {
        let mut exit = Exit::new(output.status).cause(output.cause);
        exit.usage = output.usage;
        Self::new(exit, output.streams.into())
    }
}
