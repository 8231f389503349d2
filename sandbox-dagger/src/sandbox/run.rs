//! Running a command on a sandbox: waits for the turn, asks once, keeps the files.
//!
//! Invariant: the query of a command is never sent again.

use std::time::{Duration, Instant};

use sandbox_core::{
    Command, Error, ErrorKind, Execution, GuestPath, Operation, Output, PartialOutput, Result,
    Stdin,
};

use crate::guest::stage::Stage;
use crate::sandbox::DaggerSandbox;
use crate::sandbox::exec::{self, Prepared};
use crate::session::client::SMALL_ANSWER;
use crate::session::query::{self, find, owner};
use crate::session::secrets::keep_secrets;

impl DaggerSandbox {
    /// Hands over standard input that is too large for a query.
    pub(super) async fn stage_stdin(&self, command: &Command) -> Result<Option<(Stage, String)>> {
        const OP: Operation = Operation::Exec;
        let Stdin::Bytes(bytes) = &command.stdin else {
            return Ok(None);
        };
        if bytes.len() <= exec::INLINE_STDIN {
            return Ok(None);
        }
        let stage = Stage::new(OP)?;
        stage.file("stdin", bytes, 0o600)?;
        self.session.hand_over(stage.size());
        let host = query::host_directory(&stage.path().to_string_lossy());
        let answer = self.ask(&host, OP, SMALL_ANSWER, self.patience()).await?;
        Ok(find(&answer, "id").map(str::to_owned).map(|id| (stage, id)))
    }

    /// The command with what is set for it alone, and what is selected on the container after it,
    /// without that.
    pub(super) fn around(
        &self,
        command: &Command,
        prepared: &Prepared,
        staged: Option<&str>,
        control: Option<&str>,
        select: &str,
    ) -> String {
        let user = command.user.as_deref().unwrap_or(&self.user);
        let mut kept = "id".to_owned();
        for (variable, _) in &prepared.secrets {
            kept = format!("withoutSecretVariable(name: \"{variable}\") {{ {kept} }}");
        }
        if command.user.is_some() {
            kept = match self.user.as_str() {
                "" => format!("withoutUser {{ {kept} }}"),
                user => format!("withUser(name: {}) {{ {kept} }}", query::string(user)),
            };
        }
        for (_, path) in [(staged, query::STAGE), (control, query::CONTROL)]
            .into_iter()
            .filter(|(mounted, _)| mounted.is_some())
        {
            kept = format!("withoutMount(path: \"{path}\") {{ {kept} }}");
        }
        let kept = format!("{select} {kept}");
        let mut below = query::run(&prepared.script, &prepared.nonce, &kept);
        if let Some(directory) = staged {
            below = query::staged(directory, &owner(user), &below);
        }
        if let Some(volume) = control {
            below = query::controlled(volume, &owner(user), &below);
        }
        if let Some(user) = &command.user {
            below = format!("withUser(name: {}) {{ {below} }}", query::string(user));
        }
        for (variable, secret) in &prepared.secrets {
            below = format!(
                "withSecretVariable(name: \"{variable}\", secret: {}) {{ {below} }}",
                query::string(secret)
            );
        }
        below
    }

    /// The script of a command, where it runs, and for how long it may. What fails here was not
    /// started.
    pub(super) async fn ready(
        &self,
        command: &Command,
        operation: Operation,
    ) -> Result<(Prepared, GuestPath, Duration)> {
        let not_started = |error: Error| {
            let error = self.named(error).with_operation(operation);
            error.with_execution(Execution::NotStarted)
        };
        let mut settings = self.settings();
        let cwd = command.cwd.clone().unwrap_or_else(|| ".".into());
        let cwd = settings.common.resolve(&cwd, operation);
        let cwd = cwd.map_err(not_started)?;
        let own = keep_secrets(&self.session, &command.env, self.patience()).await;
        let own = own.map_err(|failed| not_started(failed.error(operation)))?;
        settings.change_env(&command.env, own);
        let allowed = command.timeout.unwrap_or(self.command_timeout);
        let config = &self.shared.config;
        let spawned = operation == Operation::Spawn;
        let prepared = exec::prepare(command, &cwd, &settings, Some(allowed), config, spawned);
        Ok((prepared.map_err(not_started)?, cwd, allowed))
    }

    pub(crate) async fn run(&self, command: Command) -> Result<Output> {
        const OP: Operation = Operation::Exec;
        let started = Instant::now();
        let not_started = |error: Error| self.named(error).with_execution(Execution::NotStarted);
        command.validate(OP).map_err(|error| self.named(error))?;
        self.check_open(OP).map_err(not_started)?;
        let (prepared, cwd, allowed) = self.ready(&command, OP).await?;
        let timeout = Some(allowed);
        let turn = self.turn(OP).await.map_err(|error| match error.kind() {
            ErrorKind::Closed => not_started(error)
                .with_message("closed, not started: it waited for the commands before it"),
            _ => not_started(error),
        })?;
        let staged = self.stage_stdin(&command).await.map_err(not_started)?;
        let directory = staged.as_ref().map(|(_, directory)| directory.as_str());
        let below = self.around(&command, &prepared, directory, None, "stdout stderr");
        let query = query::on_container(&turn.head().id, &below);
        let within = allowed.saturating_add(exec::GRACE);
        let answer = self.ask(&query, OP, prepared.largest, within).await;
        let answer = answer.map_err(|error| match error.kind() {
            ErrorKind::Closed => error.with_partial_output(PartialOutput::default()),
            _ => error,
        })?;
        let (id, stdout) = self.answer(&answer, OP)?;
        self.session.hand_over(exec::written(stdout));
        let stderr = find(&answer, "stderr").unwrap_or_default();
        let output = exec::read(
            (stdout, stderr),
            &prepared.nonce,
            &command,
            &cwd,
            timeout,
            started,
        );
        // The files of a command that failed or was cut are kept too; one that did not start left
        // none.
        match &output {
            Err(error) if error.execution() != Some(Execution::Interrupted) => {}
            _ => turn.advance(id, 1),
        }
        output.map_err(|error| self.named(error))
    }
}
