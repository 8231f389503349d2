//! Tools that run a command to its end and read on in its output.

use std::time::Duration;

use rmcp::handler::server::wrapper::{Json, Parameters};
use rmcp::model::RequestMetaObject;
use rmcp::service::RequestContext;
use rmcp::{Peer, RoleServer, tool, tool_router};
use sandbox_core::{CapturedStream, Execution, ExitStatus};

use super::Tools;
use super::call::{command, under};
use crate::arguments::{OutputRead, Run, Stream};
use crate::outputs::{PAGE, show};
use crate::results::{OutputOut, Ran, RunOut, Text};

#[tool_router(router = commands, vis = "pub(super)")]
impl Tools {
    #[tool(
        name = "run",
        description = "Runs a command in a sandbox to its end. A non-zero exit code is a result, not an error.",
        annotations(
            title = "Run a command",
            read_only_hint = false,
            destructive_hint = true,
            open_world_hint = true
        )
    )]
    async fn run(
        &self,
        Parameters(run): Parameters<Run>,
        meta: RequestMetaObject,
        peer: Peer<RoleServer>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<RunOut>, String> {
        let mut command = command(run.argv, run.script, run.cwd, run.env)?;
        if let Some(stdin) = run.stdin {
            command = command.stdin(stdin);
        }
        if let Some(seconds) = run.timeout_seconds {
            command = command.timeout(Duration::from_secs(seconds.max(1)));
        }
        let sandbox = self.sandbox(&run.sandbox_id).await?;
        let result = under(&meta, &peer, &context, sandbox.exec(command)).await?;
        let out = match result {
            Ok(output) => self.ran(
                &run.sandbox_id,
                Ran::Yes,
                Some(output.status),
                output.stdout,
                output.stderr,
                output.duration,
            ),
            Err(error) => {
                let ran = match error.execution() {
                    Some(Execution::NotStarted) => Ran::NotStarted,
                    Some(Execution::Interrupted) => Ran::Interrupted,
                    _ => Ran::Unknown,
                };
                let partial = error.partial_output().cloned().unwrap_or_default();
                let id = &run.sandbox_id;
                let mut out = self.ran(
                    id,
                    ran,
                    None,
                    partial.stdout,
                    partial.stderr,
                    partial.duration,
                );
                out.hint = error.hint().map(str::to_owned);
                out.error = Some(error.to_string());
                out
            }
        };
        Ok(Json(out))
    }

    #[tool(
        name = "output_read",
        description = "Reads a part of the output of an earlier run whose result was truncated.",
        annotations(
            title = "Read on in an output",
            read_only_hint = true,
            open_world_hint = false
        )
    )]
    async fn output_read(
        &self,
        Parameters(read): Parameters<OutputRead>,
    ) -> Result<Json<OutputOut>, String> {
        let stream = read.stream.unwrap_or(Stream::Stdout);
        let limit = read.limit.unwrap_or(PAGE);
        let part = self
            .shared
            .outputs
            .read(&read.output_id, stream, read.offset, limit);
        part.map(Json).ok_or_else(|| {
            format!(
                "the output {:?} is no longer kept; run the command again and write its output to a file",
                read.output_id
            )
        })
    }
}

impl Tools {
    fn ran(
        &self,
        id: &str,
        ran: Ran,
        status: Option<ExitStatus>,
        stdout: CapturedStream,
        stderr: CapturedStream,
        duration: Duration,
    ) -> RunOut {
        let (out, err): (Text, Text) = (show(&stdout), show(&stderr));
        RunOut {
            ran,
            exit_code: status.map(ExitStatus::shell_code),
            stdout: out,
            stderr: err,
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            output_id: self.shared.outputs.keep(id, stdout, stderr),
            error: None,
            hint: None,
        }
    }
}
