//! Starting a command whose streams are used while it runs.
//!
//! Invariant: the query of a command is never sent again; one whose handle is dropped is ended by
//! the engine, because its query is dropped.

use std::sync::Arc;

use sandbox_core::{
    Capability, Command, Error, Execution, Operation, Process, ProcessStderr, ProcessStdin,
    ProcessStdout, Result, Stdin,
};
use tokio::sync::watch;

use crate::sandbox::DaggerSandbox;
use crate::sandbox::capability::CAPABILITIES;
use crate::sandbox::control::{Channel, Control, feed};
use crate::sandbox::process::{Progress, Running};
use crate::session::client::{SMALL_ANSWER, Trace};
use crate::session::failure::Failed;
use crate::session::query::{self, find, owner};

const OP: Operation = Operation::Spawn;
/// Bytes of a stream between the command and its reader.
const BUFFER: usize = 64 << 10;

impl DaggerSandbox {
    pub(crate) async fn start(&self, command: Command) -> Result<Process> {
        let not_started = |error: Error| {
            let error = self.named(error).with_operation(OP);
            error.with_execution(Execution::NotStarted)
        };
        command.validate(OP).map_err(|error| self.named(error))?;
        self.check_open(OP).map_err(not_started)?;
        if command.terminal.is_some() {
            CAPABILITIES
                .require(Capability::Terminal, OP)
                .map_err(not_started)?;
        }
        let sandbox = self.open.get(&self.id);
        let sandbox = sandbox.ok_or_else(|| not_started(Error::closed(OP, &self.id)))?;
        let (prepared, cwd, allowed) = self.ready(&command, OP).await?;
        let turn = self.turn(OP).await.map_err(not_started)?;
        let staged = self.stage_stdin(&command).await.map_err(not_started)?;
        let directory = staged.as_ref().map(|(_, directory)| directory.as_str());
        let volume = query::cache_volume(&format!("sandbox-control-{}", prepared.nonce));
        let made = self.ask(&volume, OP, SMALL_ANSWER, self.patience());
        let made = made.await.map_err(not_started)?;
        let volume = find(&made, "id")
            .ok_or_else(|| not_started(Failed::Garbage("no id".into()).error(OP)))?
            .to_owned();
        let seen = self.session.seen();
        let logs = self.session.logs(seen, self.patience()).await;
        let logs = logs.map_err(|failed| not_started(failed.error(OP)))?;
        let base = turn.head().id;
        let below = self.around(&command, &prepared, directory, Some(&volume), "exitCode");
        let query = query::on_container(&base, &below);
        let user = command.user.clone().unwrap_or_else(|| self.user.clone());
        let channel = Arc::new(Channel {
            sandbox: sandbox.clone(),
            base,
            volume,
            owner: owner(&user),
            user: command.user.clone(),
        });
        let (stdout, out) = tokio::io::duplex(BUFFER);
        let (stderr, err) = tokio::io::duplex(BUFFER);
        let piped = matches!(command.stdin, Stdin::Piped);
        let (stdin, feeder) = match piped {
            false => (None, None),
            true => {
                let (stdin, given) = tokio::io::duplex(BUFFER);
                let feeder = tokio::spawn(feed(channel.clone(), given));
                (Some(ProcessStdin::new(stdin)), Some(feeder))
            }
        };
        let (progress, mut watched) = watch::channel(Progress::default());
        let running = Running::new(
            sandbox.clone(),
            (command, cwd, allowed),
            prepared,
            logs,
            seen,
        );
        let turn = turn.spawned(&self.chain);
        let carried = running.carry(query, Trace::new(), turn, [out, err], progress);
        let task = tokio::spawn(async move {
            // What is staged is there until the command has ended.
            let _staged = staged;
            carried.await;
        });
        let control = Control::new(channel, watched.clone(), task, feeder);
        // Dropping this future drops the control, which ends the command.
        let told = watched.wait_for(|progress| progress.started || progress.outcome.is_some());
        let outcome = match told.await {
            Ok(progress) if progress.started => None,
            Ok(progress) => progress.outcome.clone(),
            Err(_) => None,
        };
        if let Some(Err(error)) = outcome {
            return Err(error);
        }
        let process = Process::new(
            control,
            stdin,
            Some(ProcessStdout::new(stdout)),
            Some(ProcessStderr::new(stderr)),
        );
        Ok(process.keep_alive(sandbox))
    }
}
