//! The model's sandbox with one fault.
//!
//! Invariant: each fault is in one method or in what all methods pass through; the rest forwards.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use sandbox_core::{
    Capabilities, Captured, CapturedOutput, Command, CreateDirOptions, DirEntry, Env, Error,
    ErrorKind, Exit, ExitStatus, ExportOptions, FileBatch, FileKind, ForkOptions, GuestPath,
    ImportOptions, IsolationReport, ListOptions, Metadata, Operation, Output, Process, Ran,
    ReadOptions, RemoveOptions, RenameOptions, Result, Sandbox, SandboxInfo, Snapshot,
    SnapshotOptions, Stdin, TransferReport, WriteMode,
};

use super::Fault;

#[derive(Debug)]
pub(super) struct FakeSandbox {
    inner: Arc<dyn Sandbox>,
    fault: Fault,
    closed: AtomicBool,
}

impl FakeSandbox {
    pub(super) fn wrap(inner: Arc<dyn Sandbox>, fault: Fault) -> Arc<dyn Sandbox> {
        Arc::new(Self {
            inner,
            fault,
            closed: AtomicBool::new(false),
        })
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    /// What every error passes through.
    fn say<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| match self.fault {
            Fault::ErrorsWithoutPath => rebuilt(&error, false, true),
            Fault::ErrorsWithoutSandbox => rebuilt(&error, true, false),
            _ => error,
        })
    }

    /// The path that the sandbox is given.
    fn path(&self, path: &GuestPath) -> GuestPath {
        if !self.has(Fault::DotDotDropped) {
            return path.clone();
        }
        let parts: Vec<&[u8]> = path.components().filter(|part| *part != b"..").collect();
        let mut bytes = if path.is_absolute() {
            b"/".to_vec()
        } else {
            Vec::new()
        };
        bytes.extend(parts.join(&b'/'));
        GuestPath::new(bytes)
    }

    fn command(&self, mut command: Command) -> Command {
        match self.fault {
            Fault::StdinIgnored => command.stdin = Stdin::Empty,
            Fault::HostEnvironmentLeaks => {
                use std::os::unix::ffi::OsStringExt as _;
                for (name, value) in std::env::vars_os() {
                    command = command.env(name.into_vec(), value.into_vec());
                }
            }
            Fault::ArgumentsThroughShell => {
                command = Command::shell(command.argv().join(&b' '));
            }
            _ => {}
        }
        command
    }

    fn output(&self, mut output: Output) -> Output {
        match self.fault {
            Fault::TruncationNotTold => {
                output.stdout.total = output.stdout.bytes.len() as u64;
                output.stderr.total = output.stderr.bytes.len() as u64;
            }
            Fault::StderrMerged => {
                let all = [&output.stdout.bytes[..], &output.stderr.bytes[..]].concat();
                let total = output.stdout.total + output.stderr.total;
                output.stdout = Captured::new(all, total);
                output.stderr = Captured::default();
            }
            Fault::SignalAsCode => {
                if let ExitStatus::Signal(signal) = output.status {
                    output.status = ExitStatus::Code(128 + (signal as u8 & 0x7f));
                }
            }
            _ => {}
        }
        output
    }
}

/// The same error without its path or its sandbox, and in any case without partial output.
fn rebuilt(error: &Error, path: bool, sandbox: bool) -> Error {
    let mut new = Error::new(error.kind(), error.operation()).with_message(error.message());
    if let (true, Some(path)) = (path, error.path()) {
        new = new.with_path(path);
    }
    if let (true, Some(sandbox)) = (sandbox, error.sandbox()) {
        new = new.with_sandbox(sandbox.clone());
    }
    if let Some(ran) = error.ran() {
        new = new.with_ran(ran);
    }
    new
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Sandbox for FakeSandbox {
    fn info(&self) -> SandboxInfo {
        self.inner.info()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn isolation(&self) -> Result<IsolationReport> {
        self.say(self.inner.isolation().await)
    }

    async fn exec(&self, command: Command) -> Result<Output> {
        let command = self.command(command);
        let inner = self.inner.clone();
        let ran = match (self.fault, command.timeout) {
            (Fault::DropKeepsTheProcess, _) => {
                let task = tokio::spawn(async move { inner.exec(command).await });
                task.await
                    .unwrap_or_else(|_| Err(Error::new(ErrorKind::Other, Operation::Exec)))
            }
            (Fault::TimeoutKeepsTheProcess, Some(timeout)) => {
                let mut command = command;
                command.timeout = None;
                let task = tokio::spawn(async move { inner.exec(command).await });
                match tokio::time::timeout(timeout, task).await {
                    Ok(Ok(ran)) => ran,
                    _ => Err(Error::new(ErrorKind::Timeout, Operation::Exec)
                        .with_sandbox(self.inner.info().id)
                        .with_partial_output(CapturedOutput::default())),
                }
            }
            _ => inner.exec(command).await,
        };
        match ran {
            Ok(output) if self.has(Fault::ExitCodeIsAnError) && !output.success() => {
                Err(Error::new(ErrorKind::Other, Operation::Exec)
                    .with_message(output.status.to_string())
                    .with_ran(Ran::Cut))
            }
            Ok(output) => Ok(self.output(output)),
            Err(error)
                if self.has(Fault::MissingProgramIsAResult)
                    && error.kind() == ErrorKind::CommandNotFound =>
            {
                let exit = Exit::new(ExitStatus::Code(127));
                Ok(Output::new(exit, CapturedOutput::default()))
            }
            Err(error) if self.has(Fault::PartialOutputDropped) => Err(rebuilt(&error, true, true)),
            Err(error) => self.say(Err(error)),
        }
    }

    async fn spawn(&self, command: Command) -> Result<Process> {
        self.say(self.inner.spawn(self.command(command)).await)
    }

    async fn write_files(&self, batch: FileBatch) -> Result<()> {
        let mut changed = FileBatch::new();
        for file in batch.files() {
            let mut one = FileBatch::new();
            let target = if self.has(Fault::BatchNotAtomic) {
                &mut one
            } else {
                &mut changed
            };
            let added = target.push(self.path(&file.path), file.content.clone());
            if !self.has(Fault::ModeLost) {
                added.mode = file.mode;
            }
            added.write_mode = match self.fault {
                Fault::CreateNewReplaces => WriteMode::Replace,
                _ => file.write_mode,
            };
            if self.has(Fault::BatchNotAtomic) {
                self.inner.write_files(one).await?;
            }
        }
        self.say(self.inner.write_files(changed).await)
    }

    async fn read_file(&self, path: &GuestPath, mut options: ReadOptions) -> Result<Bytes> {
        if self.has(Fault::ReadLimitIgnored) {
            options.limit = u64::MAX;
        }
        self.say(self.inner.read_file(&self.path(path), options).await)
    }

    async fn list_dir(&self, path: &GuestPath, options: ListOptions) -> Result<Vec<DirEntry>> {
        let mut entries = self.say(self.inner.list_dir(&self.path(path), options).await)?;
        match self.fault {
            Fault::ListUnsorted => entries.reverse(),
            Fault::ListFollowsLinks => {
                for entry in &mut entries {
                    if entry.metadata.kind == FileKind::Symlink {
                        entry.metadata.kind = FileKind::File;
                        entry.metadata.link_target = None;
                    }
                }
            }
            _ => {}
        }
        Ok(entries)
    }

    async fn metadata(&self, path: &GuestPath) -> Result<Metadata> {
        self.say(self.inner.metadata(&self.path(path)).await)
    }

    async fn remove(&self, path: &GuestPath, options: RemoveOptions) -> Result<()> {
        match self.inner.remove(&self.path(path), options).await {
            Err(error)
                if self.has(Fault::RemoveOfMissingIsFine)
                    && error.kind() == ErrorKind::NotFound =>
            {
                Ok(())
            }
            done => self.say(done),
        }
    }

    async fn create_dir(&self, path: &GuestPath, options: CreateDirOptions) -> Result<()> {
        self.say(self.inner.create_dir(&self.path(path), options).await)
    }

    async fn rename(&self, from: &GuestPath, to: &GuestPath, options: RenameOptions) -> Result<()> {
        let (from, to) = (self.path(from), self.path(to));
        self.say(self.inner.rename(&from, &to, options).await)
    }

    async fn import_dir(
        &self,
        from: &Path,
        to: &GuestPath,
        mut options: ImportOptions,
    ) -> Result<TransferReport> {
        if self.has(Fault::MirrorIgnored) {
            options.mirror = false;
        }
        self.say(self.inner.import_dir(from, to, options).await)
    }

    async fn export_dir(
        &self,
        from: &GuestPath,
        to: &Path,
        options: ExportOptions,
    ) -> Result<TransferReport> {
        let done = self.inner.export_dir(from, to, options).await;
        if let (Ok(report), true) = (&done, self.has(Fault::ExportLetsLinksOut)) {
            for skipped in &report.skipped {
                let at = from.join(&skipped.path);
                let link = self.inner.metadata(&at).await?.link_target;
                let [at, link] = [Some(skipped.path.clone()), link]
                    .map(|path| path.map(|path| path.to_string()).unwrap_or_default());
                let _ = std::os::unix::fs::symlink(link, to.join(at));
            }
        }
        if done.is_err() && self.has(Fault::MergeFollowsLinks) {
            let _ = std::fs::write(to.join("sub/f"), "new");
        }
        if done.is_err() && self.has(Fault::ExportLeavesAPart) {
            // The fault itself; that it can't be made is no fault.
            let _ = std::fs::create_dir(to);
        }
        self.say(done)
    }

    async fn set_workdir(&self, path: &GuestPath) -> Result<()> {
        self.say(self.inner.set_workdir(&self.path(path)).await)
    }

    async fn set_env(&self, changes: Env) -> Result<()> {
        self.say(self.inner.set_env(changes).await)
    }

    async fn fork(&self, options: ForkOptions) -> Result<Arc<dyn Sandbox>> {
        if self.has(Fault::ForkSharesWrites) {
            return Ok(Self::wrap(self.inner.clone(), self.fault));
        }
        let child = self.say(self.inner.fork(options).await)?;
        if self.has(Fault::ForkLosesWorkdir) {
            child.set_workdir(&GuestPath::root()).await?;
        }
        Ok(Self::wrap(child, self.fault))
    }

    async fn snapshot(&self, options: SnapshotOptions) -> Result<Snapshot> {
        self.say(self.inner.snapshot(options).await)
    }

    async fn close(&self) -> Result<()> {
        let again = self.closed.swap(true, Ordering::SeqCst);
        match self.fault {
            Fault::CloseDoesNothing => Ok(()),
            Fault::CloseOnlyOnce if again => {
                Err(Error::closed(Operation::Close, &self.inner.info().id))
            }
            _ => self.inner.close().await,
        }
    }
}
