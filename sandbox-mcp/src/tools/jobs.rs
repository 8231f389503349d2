//! Tools for commands that run on after their call.

use std::time::Duration;

use rmcp::handler::server::wrapper::{Json, Parameters};
use rmcp::model::RequestMetaObject;
use rmcp::service::RequestContext;
use rmcp::{Peer, RoleServer, tool, tool_router};
use sandbox_core::{Job, JobKey, JobOptions, JobState, LogOptions};

use super::Tools;
use super::call::{command, said, under};
use crate::arguments::{JobOf, JobRead, JobStart, JobWrite};
use crate::outputs::PAGE;
use crate::results::{Done, JobOut, LogOut};

#[tool_router(router = jobs, vis = "pub(super)")]
impl Tools {
    #[tool(
        name = "job_start",
        description = "Starts a command in the background under a key, such as a server or a long build. It runs on after the call.",
        annotations(
            title = "Start a job",
            read_only_hint = false,
            destructive_hint = true,
            idempotent_hint = true,
            open_world_hint = true
        )
    )]
    async fn job_start(
        &self,
        Parameters(start): Parameters<JobStart>,
    ) -> Result<Json<JobOut>, String> {
        let mut command = command(start.argv, start.script, start.cwd, start.env)?;
        if start.stdin {
            command = command.stdin_piped();
        }
        let sandbox = self.sandbox(&start.sandbox_id).await?;
        let key = JobKey::new(start.job);
        let job = sandbox.start_job(&key, command, JobOptions::new()).await;
        described(&job.map_err(said)?).await
    }

    #[tool(
        name = "job_read",
        description = "Reads what a job has written since an offset, and whether it has ended.",
        annotations(
            title = "Read a job's log",
            read_only_hint = true,
            open_world_hint = false
        )
    )]
    async fn job_read(
        &self,
        Parameters(read): Parameters<JobRead>,
        meta: RequestMetaObject,
        peer: Peer<RoleServer>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<LogOut>, String> {
        let job = self.job(&read.sandbox_id, &read.job).await?;
        let mut options = LogOptions::new().limit(PAGE);
        if read.wait_seconds > 0 {
            options = options.wait(Duration::from_secs(read.wait_seconds.min(50)));
        }
        let log = under(&meta, &peer, &context, job.read_log(read.offset, options)).await?;
        let log = log.map_err(said)?;
        let state = job.info().await.map_err(said)?.state;
        Ok(Json(LogOut {
            text: String::from_utf8_lossy(&log.bytes()).into_owned(),
            next_offset: log.next,
            lost_bytes: log.lost,
            ended: log.ended,
            exit_code: exit_code(state),
        }))
    }

    #[tool(
        name = "job_write",
        description = "Writes to the standard input of a job that was started with stdin.",
        annotations(
            title = "Write to a job",
            read_only_hint = false,
            destructive_hint = false,
            open_world_hint = false
        )
    )]
    async fn job_write(
        &self,
        Parameters(write): Parameters<JobWrite>,
    ) -> Result<Json<Done>, String> {
        let job = self.job(&write.sandbox_id, &write.job).await?;
        // Two that asked for the same offset would be taken for one call made twice.
        let _turn = self.shared.turns.at(&write.sandbox_id, &write.job).await;
        if !write.text.is_empty() {
            let next = job.info().await.map_err(said)?.stdin_next;
            job.write_stdin(next, write.text).await.map_err(said)?;
        }
        if write.end {
            job.close_stdin().await.map_err(said)?;
        }
        Ok(Json(Done { done: true }))
    }

    #[tool(
        name = "job_stop",
        description = "Kills a job and everything that it started.",
        annotations(
            title = "Stop a job",
            read_only_hint = false,
            destructive_hint = true,
            idempotent_hint = true,
            open_world_hint = false
        )
    )]
    async fn job_stop(&self, Parameters(of): Parameters<JobOf>) -> Result<Json<JobOut>, String> {
        let job = self.job(&of.sandbox_id, &of.job).await?;
        job.stop().await.map_err(said)?;
        described(&job).await
    }
}

impl Tools {
    async fn job(&self, sandbox: &str, job: &str) -> Result<Job, String> {
        let sandbox = self.sandbox(sandbox).await?;
        sandbox.find_job(&JobKey::new(job)).await.map_err(said)
    }
}

async fn described(job: &Job) -> Result<Json<JobOut>, String> {
    let info = job.info().await.map_err(said)?;
    let state = match info.state {
        JobState::Starting | JobState::Running => "running",
        JobState::Ended(_) => "ended",
        _ => "failed",
    };
    Ok(Json(JobOut {
        job: info.key.to_string(),
        state: state.to_owned(),
        exit_code: exit_code(info.state),
    }))
}

fn exit_code(state: JobState) -> Option<i32> {
    match state {
        JobState::Ended(status) => Some(status.shell_code()),
        _ => None,
    }
}
