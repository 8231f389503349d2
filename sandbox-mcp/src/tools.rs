//! The tools, each a thin call on a session.
//!
//! A tool must never say in prose alone what a client could act on, and never run on after its call was
//! cancelled.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rmcp::handler::server::router::tool::ToolRouter;
use rmcp::handler::server::wrapper::{Json, Parameters};
use rmcp::model::{
    Implementation, ProgressNotificationParam, ProgressToken, RequestMetaObject,
    ServerCapabilities, ServerConfig,
};
use rmcp::service::RequestContext;
use rmcp::{Peer, RoleServer, ServerHandler, tool, tool_handler, tool_router};
use sandbox_core::{
    CapturedStream, ChangeKind, ChangesOptions, Command, Execution, ExitStatus, ExportOptions,
    FileBatch, FileKind, GuestPath, ImportOptions, Job, JobKey, JobOptions, JobState, ListOptions,
    LogOptions, Mode, Network, ReadOptions, Resources, Sandbox, SandboxExt as _, SandboxSpec,
    Source,
};
use sandbox_sessions::{Filter, Key, SessionId, SessionOptions, Wait};

use crate::arguments::{
    ChangesIn, Create, Export, FileEdit, FileFind, FileList, FileRead, FileWrite, Fork, JobOf,
    JobRead, JobStart, JobWrite, Nothing, OfSandbox, OutputRead, Run, Stream,
};
use crate::outputs::{PAGE, show};
use crate::results::{
    ChangedEntry, ChangesOut, Done, Edited, Entries, Entry, Exported, FileOut, Finds, JobOut,
    LogOut, OutputOut, Ran, RunOut, SandboxOut, Sandboxes, Text, Written,
};
use crate::server::{Server, Shared};
use crate::{export, find};

/// Most entries of a list.
const ENTRIES: usize = 1_000;
/// Interval at which a client that asked for it is told that a command still runs.
const PROGRESS: Duration = Duration::from_secs(1);

const INSTRUCTIONS: &str = "Sandboxes for running code that was not reviewed. sandbox_create gives a \
    sandbox_id that every other tool takes. Commands run in a Linux sandbox with files of its own; the \
    host sees none of them until export. `ran` in a result says whether a command ran: only \
    `not_started` is safe to run again. Long output is cut in the middle: read on with output_read. \
    Start servers and long tasks with job_start and read them with job_read.";

/// The tools of one connection.
#[derive(Clone)]
pub(crate) struct Tools {
    shared: Arc<Shared>,
    tool_router: ToolRouter<Self>,
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn path(text: Option<String>) -> GuestPath {
    GuestPath::from(text.unwrap_or_else(|| ".".to_owned()))
}

fn command(
    argv: Vec<String>,
    script: Option<String>,
    cwd: Option<String>,
    env: BTreeMap<String, String>,
) -> Result<Command, String> {
    let mut command = match (argv.split_first(), script) {
        (Some((program, arguments)), None) => Command::new(program).args(arguments),
        (None, Some(script)) => Command::shell(script),
        (None, None) => return Err("give argv or script".into()),
        (Some(_), Some(_)) => return Err("give argv or script, not both".into()),
    };
    if let Some(cwd) = cwd {
        command = command.cwd(cwd);
    }
    for (name, value) in env {
        command = command.env(name, value);
    }
    Ok(command)
}

fn exit_code(state: JobState) -> Option<i32> {
    match state {
        JobState::Ended(status) => Some(status.shell_code()),
        _ => None,
    }
}

/// Makes a call unless it is cancelled first; tells a client that asked for it that it still goes on.
async fn under<T>(
    meta: &RequestMetaObject,
    peer: &Peer<RoleServer>,
    context: &RequestContext<RoleServer>,
    call: impl Future<Output = T>,
) -> Result<T, String> {
    let started = Instant::now();
    let token: Option<ProgressToken> = meta.get_progress_token();
    let tell = async {
        let Some(token) = token else {
            return std::future::pending::<()>().await;
        };
        loop {
            tokio::time::sleep(PROGRESS).await;
            let seconds = started.elapsed().as_secs_f64();
            let progress = ProgressNotificationParam::new(token.clone(), seconds);
            // A client that does not listen any more is told by its cancellation.
            let _ = peer.notify_progress(progress).await;
        }
    };
    tokio::select! {
        biased;
        () = context.ct.cancelled() => Err("cancelled; what ran was killed".into()),
        result = call => Ok(result),
        () = tell => Err("cancelled; what ran was killed".into()),
    }
}

#[tool_router(router = tool_router)]
impl Tools {
    pub(crate) fn new(server: Server) -> Self {
        Self {
            shared: server.shared,
            tool_router: Self::tool_router(),
        }
    }

    async fn sandbox(&self, id: &str) -> Result<Arc<dyn Sandbox>, String> {
        Ok(self.shared.session(id).await?.sandbox().clone())
    }

    #[tool(
        name = "sandbox_create",
        description = "Creates a sandbox, or gives back the one of that name. It has no network unless asked for and allowed.",
        annotations(
            title = "Create a sandbox",
            read_only_hint = false,
            destructive_hint = false,
            idempotent_hint = true,
            open_world_hint = false
        )
    )]
    async fn sandbox_create(
        &self,
        Parameters(create): Parameters<Create>,
    ) -> Result<Json<SandboxOut>, String> {
        let options = &self.shared.options;
        let mut spec = SandboxSpec::new().command_timeout(options.command_timeout);
        if create.network {
            if !options.allow_network {
                return Err("the operator does not allow the network (--allow-network)".into());
            }
            spec = spec.network(Network::Open);
        }
        if let Some(image) = create.image {
            spec = spec.source(Source::Image(image));
        }
        if let Some(workdir) = create.workdir {
            spec = spec.workdir(workdir);
        }
        let mut limits = Resources::new();
        if let Some(memory) = create.memory_mib {
            limits = limits.memory(memory.saturating_mul(1 << 20));
        }
        if let Some(pids) = create.pids {
            limits = limits.pids(pids);
        }
        spec = spec.resources(limits);
        for (name, value) in create.env {
            spec = spec.env(name, value);
        }
        let from = match create.import {
            Some(from) => Some(export::source(&options.import_roots, &from)?),
            None => None,
        };
        let name = create.name.unwrap_or_else(fresh);
        let wait = SessionOptions::new().wait(Wait::AtMost(Duration::from_secs(20)));
        let session = self
            .shared
            .sessions
            .get_or_create_with(&self.shared.tenant, name, spec, wait)
            .await
            .map_err(said)?;
        let sandbox = session.sandbox();
        if let Some(from) = from {
            let options = ImportOptions::new().ignore_files(true);
            let imported = sandbox.import_dir(&from, &".".into(), options).await;
            imported.map_err(said)?;
        }
        let workdir = Some(sandbox.info().workdir.to_string());
        Ok(Json(self.shared.describe(&session.info(), workdir)))
    }

    #[tool(
        name = "sandbox_list",
        description = "Lists the sandboxes that there are.",
        annotations(
            title = "List sandboxes",
            read_only_hint = true,
            open_world_hint = false
        )
    )]
    async fn sandbox_list(&self, _: Parameters<Nothing>) -> Result<Json<Sandboxes>, String> {
        let filter = Filter::new().tenant(self.shared.tenant.clone());
        let list = self.shared.sessions.list(&filter);
        let sandboxes = list.iter().map(|info| self.shared.describe(info, None));
        Ok(Json(Sandboxes {
            sandboxes: sandboxes.collect(),
        }))
    }

    #[tool(
        name = "sandbox_close",
        description = "Closes a sandbox: kills what runs and throws its files away. Export first what should stay.",
        annotations(
            title = "Close a sandbox",
            read_only_hint = false,
            destructive_hint = true,
            idempotent_hint = true,
            open_world_hint = false
        )
    )]
    async fn sandbox_close(
        &self,
        Parameters(of): Parameters<OfSandbox>,
    ) -> Result<Json<Done>, String> {
        let shared = &self.shared;
        let key = Key::new(of.sandbox_id).map_err(said)?;
        let done = shared.sessions.info(&shared.tenant, &key).is_some();
        shared
            .sessions
            .close(&shared.tenant, key)
            .await
            .map_err(said)?;
        Ok(Json(Done { done }))
    }

    #[tool(
        name = "sandbox_fork",
        description = "Makes an independent copy of a sandbox with its files, to try something without changing the original.",
        annotations(
            title = "Fork a sandbox",
            read_only_hint = false,
            destructive_hint = false,
            open_world_hint = false
        )
    )]
    async fn sandbox_fork(
        &self,
        Parameters(fork): Parameters<Fork>,
    ) -> Result<Json<SandboxOut>, String> {
        let session = self.shared.session(&fork.sandbox_id).await?;
        let options = SessionOptions::new().wait(Wait::AtMost(Duration::from_secs(20)));
        let name = fork.name.unwrap_or_else(fresh);
        let child = session.fork(name, options).await.map_err(said)?;
        let workdir = Some(child.sandbox().info().workdir.to_string());
        Ok(Json(self.shared.describe(&child.info(), workdir)))
    }

    #[tool(
        name = "sandbox_changes",
        description = "Lists what differs from the files that a sandbox began with: of a fork, what was done since.",
        annotations(title = "List changes", read_only_hint = true, open_world_hint = false)
    )]
    async fn sandbox_changes(
        &self,
        Parameters(of): Parameters<ChangesIn>,
        meta: RequestMetaObject,
        peer: Peer<RoleServer>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<ChangesOut>, String> {
        let sandbox = self.sandbox(&of.sandbox_id).await?;
        let directory = path(of.path);
        let options = ChangesOptions::new().contents(false);
        let comparing = sandbox.changes(&directory, options);
        let found = under(&meta, &peer, &context, comparing).await?;
        let found = found.map_err(said)?;
        let listed = found.entries.iter().take(ENTRIES);
        let changes: Vec<ChangedEntry> = listed
            .map(|entry| ChangedEntry {
                path: entry.path.to_string(),
                change: match entry.kind() {
                    ChangeKind::Added => "added",
                    ChangeKind::Deleted => "deleted",
                    ChangeKind::Mode => "mode",
                    ChangeKind::Replaced => "replaced",
                    _ => "modified",
                },
            })
            .collect();
        let skipped = found.skipped.iter().take(100);
        Ok(Json(ChangesOut {
            truncated: changes.len() < found.entries.len(),
            total: found.entries.len(),
            changes,
            skipped: skipped
                .map(|left| format!("{}: {}", left.path, left.reason))
                .collect(),
        }))
    }

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

    async fn job(&self, sandbox: &str, job: &str) -> Result<Job, String> {
        let sandbox = self.sandbox(sandbox).await?;
        sandbox.find_job(&JobKey::new(job)).await.map_err(said)
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

    #[tool(
        name = "file_read",
        description = "Reads lines of a text file.",
        annotations(title = "Read a file", read_only_hint = true, open_world_hint = false)
    )]
    async fn file_read(
        &self,
        Parameters(read): Parameters<FileRead>,
    ) -> Result<Json<FileOut>, String> {
        let sandbox = self.sandbox(&read.sandbox_id).await?;
        let bytes = sandbox
            .read_file(&read.path.into(), ReadOptions::new())
            .await;
        let bytes = bytes.map_err(said)?;
        let text = String::from_utf8_lossy(&bytes);
        let lossy = matches!(text, std::borrow::Cow::Owned(_));
        let all: Vec<&str> = text.split_inclusive('\n').collect();
        let start = read.start_line.unwrap_or(1).max(1);
        let mut content = String::new();
        let mut cut_lines = 0;
        let mut next = start - 1;
        let end = read
            .lines
            .map_or(all.len(), |lines| next.saturating_add(lines).min(all.len()));
        while next < end {
            let line = all[next];
            if !content.is_empty() && content.len() + line.len() > PAGE as usize {
                break;
            }
            let kept = boundary(line, PAGE as usize);
            cut_lines += usize::from(kept < line.len());
            content.push_str(&line[..kept]);
            next += 1;
        }
        Ok(Json(FileOut {
            content,
            start_line: start,
            next_line: (next < all.len()).then_some(next + 1),
            total_lines: all.len(),
            cut_lines,
            lossy,
        }))
    }

    #[tool(
        name = "file_write",
        description = "Writes files whole: all of them or none.",
        annotations(
            title = "Write files",
            read_only_hint = false,
            destructive_hint = true,
            idempotent_hint = true,
            open_world_hint = false
        )
    )]
    async fn file_write(
        &self,
        Parameters(write): Parameters<FileWrite>,
    ) -> Result<Json<Written>, String> {
        let sandbox = self.sandbox(&write.sandbox_id).await?;
        let files = write.files.len();
        let mut batch = FileBatch::new();
        for file in write.files {
            let new = batch.push(file.path, file.content);
            if file.executable {
                new.mode = Some(Mode::EXECUTABLE);
            }
        }
        sandbox.write_files(batch).await.map_err(said)?;
        Ok(Json(Written { files }))
    }

    #[tool(
        name = "file_edit",
        description = "Replaces a text in a file. The text must stand there exactly once, unless all is true.",
        annotations(
            title = "Edit a file",
            read_only_hint = false,
            destructive_hint = true,
            open_world_hint = false
        )
    )]
    async fn file_edit(
        &self,
        Parameters(edit): Parameters<FileEdit>,
    ) -> Result<Json<Edited>, String> {
        if edit.search.is_empty() {
            return Err("search is empty: give the text to replace".into());
        }
        let sandbox = self.sandbox(&edit.sandbox_id).await?;
        let text = sandbox.read_to_string(&*edit.path).await.map_err(said)?;
        let replacements = text.matches(&edit.search).count();
        match replacements {
            0 => {
                return Err(format!(
                    "the text does not stand in {}: read the file again and copy it exactly",
                    edit.path
                ));
            }
            2.. if !edit.all => {
                return Err(format!(
                    "the text stands in {} {replacements} times: take more lines around it, or set all",
                    edit.path
                ));
            }
            _ => {}
        }
        let mode = sandbox.stat(&*edit.path).await.map_err(said)?.mode;
        let mode = Mode::new(mode.bits() & 0o777);
        let text = text.replace(&edit.search, &edit.replace);
        let batch = FileBatch::new().file_with_mode(edit.path, text, mode);
        sandbox.write_files(batch).await.map_err(said)?;
        Ok(Json(Edited { replacements }))
    }

    #[tool(
        name = "file_list",
        description = "Lists a directory.",
        annotations(
            title = "List a directory",
            read_only_hint = true,
            open_world_hint = false
        )
    )]
    async fn file_list(
        &self,
        Parameters(list): Parameters<FileList>,
    ) -> Result<Json<Entries>, String> {
        let sandbox = self.sandbox(&list.sandbox_id).await?;
        let options = ListOptions::new().recursive(list.recursive);
        let all = sandbox
            .list_dir(&path(list.path), options)
            .await
            .map_err(said)?;
        let entries: Vec<Entry> = all
            .iter()
            .take(ENTRIES)
            .map(|entry| Entry {
                path: entry.path.to_string(),
                kind: match entry.metadata.kind {
                    FileKind::File => "file",
                    FileKind::Directory => "directory",
                    FileKind::Symlink => "symlink",
                    _ => "other",
                },
                size: entry.metadata.size,
            })
            .collect();
        Ok(Json(Entries {
            truncated: entries.len() < all.len(),
            total: all.len(),
            entries,
        }))
    }

    #[tool(
        name = "file_find",
        description = "Finds files by a glob on their paths, by a text that they have, or both.",
        annotations(title = "Find files", read_only_hint = true, open_world_hint = false)
    )]
    async fn file_find(
        &self,
        Parameters(what): Parameters<FileFind>,
        meta: RequestMetaObject,
        peer: Peer<RoleServer>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<Finds>, String> {
        let sandbox = self.sandbox(&what.sandbox_id).await?;
        let directory = path(what.path);
        let finding = find::find(
            &*sandbox,
            &directory,
            what.glob.as_deref(),
            what.text.as_deref(),
        );
        under(&meta, &peer, &context, finding).await?.map(Json)
    }

    #[tool(
        name = "export",
        description = "Copies a directory of a sandbox to the host, below the operator's export root. It lands complete or not at all.",
        annotations(
            title = "Export a directory",
            read_only_hint = false,
            destructive_hint = false,
            open_world_hint = false
        )
    )]
    async fn export(
        &self,
        Parameters(what): Parameters<Export>,
        meta: RequestMetaObject,
        peer: Peer<RoleServer>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<Exported>, String> {
        let to = export::target(self.shared.options.export_root.as_deref(), &what.to)?;
        let sandbox = self.sandbox(&what.sandbox_id).await?;
        let from = path(what.path);
        let exporting = sandbox.export_dir(&from, &to, ExportOptions::new());
        let report = under(&meta, &peer, &context, exporting)
            .await?
            .map_err(said)?;
        let skipped = report.skipped.iter().take(100);
        Ok(Json(Exported {
            host_path: to.display().to_string(),
            files: report.files,
            bytes: report.bytes,
            skipped: skipped
                .map(|left| format!("{}: {}", left.path, left.reason))
                .collect(),
        }))
    }
}

/// The last boundary between characters up to a length.
fn boundary(line: &str, length: usize) -> usize {
    let mut at = length.min(line.len());
    while !line.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// A name for a sandbox that was given none.
fn fresh() -> String {
    SessionId::fresh().to_string()
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

#[tool_handler(router = self.tool_router)]
impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder().enable_tools().build();
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new("sandbox", env!("CARGO_PKG_VERSION")))
            .with_instructions(INSTRUCTIONS)
    }
}
