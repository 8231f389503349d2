//! The sandbox: each method refuses what is not declared, resolves its paths, and does the rest
//! under one lock.
//!
//! Nothing here waits, so a future that is dropped has done all of its work or none. A real
//! backend would read and write the host's files on a thread for blocking work.

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sandbox::{
    Capabilities, Capability, Command, Control, CreateDirOptions, DirEntry, Enforcement, Env,
    Error, ErrorKind, Execution, ExportOptions, FileBatch, ForkOptions, GuestPath, ImportOptions,
    IsolationReport, ListOptions, Metadata, MetadataOptions, Mode, Operation, Output, Process,
    ReadOptions, RemoveOptions, RenameOptions, Result, Sandbox, SandboxId, SandboxInfo, Snapshot,
    SnapshotOptions, TransferReport, WriteMode, async_trait,
};

use crate::backend::{BACKEND, CAPABILITIES, ONLY_FILES};
use crate::files::{Files, Tried};
use crate::transfer;

struct State {
    info: SandboxInfo,
    files: Files,
    closed: bool,
}

/// A sandbox in memory.
pub(crate) struct ToySandbox {
    id: SandboxId,
    state: Mutex<State>,
}

impl fmt::Debug for ToySandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ToySandbox({})", self.id)
    }
}

impl ToySandbox {
    pub(crate) fn new(
        files: Files,
        workdir: GuestPath,
        command_timeout: Option<Duration>,
        parent: Option<SandboxId>,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = SandboxId::new(format!("{BACKEND}-{number}"));
        let mut info =
            SandboxInfo::new(id.clone(), BACKEND, workdir).command_timeout(command_timeout);
        info.parent = parent;
        let state = Mutex::new(State {
            info,
            files,
            closed: false,
        });
        Self { id, state }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A change is put in place whole, so a panic leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The start of every operation.
    fn open(&self, op: Operation) -> Result<MutexGuard<'_, State>> {
        let state = self.lock();
        if state.closed {
            return Err(Error::closed(op, &self.id));
        }
        Ok(state)
    }

    /// Every error names the sandbox.
    fn ours(&self, error: Error) -> Error {
        error.with_sandbox(self.id.clone())
    }

    fn at(&self, kind: ErrorKind, op: Operation, path: &GuestPath) -> Error {
        self.ours(Error::new(kind, op).with_path(path))
    }

    fn require(&self, needs: Capability, op: Operation) -> Result<()> {
        CAPABILITIES
            .require(needs, op)
            .map_err(|error| self.ours(error))
    }

    fn resolve(&self, state: &State, path: &GuestPath, op: Operation) -> Result<GuestPath> {
        let path = path.resolve(&state.info.workdir, op);
        path.map_err(|error| self.ours(error))
    }

    /// Looks at a path.
    fn look<T>(
        &self,
        op: Operation,
        path: &GuestPath,
        look: impl FnOnce(&Files, &GuestPath) -> Tried<T>,
    ) -> Result<T> {
        let state = self.open(op)?;
        let path = self.resolve(&state, path, op)?;
        look(&state.files, &path).map_err(|kind| self.at(kind, op, &path))
    }

    /// Changes what is at a path: all of the change, or none if it fails.
    fn change<T>(
        &self,
        op: Operation,
        path: &GuestPath,
        change: impl FnOnce(&mut Files, &GuestPath) -> Tried<T>,
    ) -> Result<T> {
        let mut state = self.open(op)?;
        let path = self.resolve(&state, path, op)?;
        let mut files = state.files.clone();
        let done = change(&mut files, &path).map_err(|kind| self.at(kind, op, &path))?;
        state.files = files;
        Ok(done)
    }

    fn no_programs<T>(&self, needs: Capability, op: Operation) -> Result<T> {
        let error = Error::unsupported(op, needs, ONLY_FILES).with_execution(Execution::NotStarted);
        Err(self.ours(error))
    }

    fn no_filters(&self, asked: bool, op: Operation) -> Result<()> {
        if asked {
            return Err(self.ours(Error::unsupported(op, "a filter", ONLY_FILES)));
        }
        Ok(())
    }
}

#[async_trait]
impl Sandbox for ToySandbox {
    fn info(&self) -> SandboxInfo {
        self.lock().info.clone()
    }

    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn isolation(&self) -> Result<IsolationReport> {
        drop(self.open(Operation::Isolation)?);
        Ok(Control::ALL
            .iter()
            .fold(IsolationReport::new(), |report, control| {
                let enforcement = match control {
                    Control::Network => Enforcement::enforced("running nothing that could use one"),
                    _ => Enforcement::absent(ONLY_FILES),
                };
                report.with(*control, enforcement)
            }))
    }

    async fn exec(&self, _: Command) -> Result<Output> {
        self.no_programs(Capability::Exec, Operation::Exec)
    }

    async fn spawn(&self, _: Command) -> Result<Process> {
        self.no_programs(Capability::Spawn, Operation::Spawn)
    }

    async fn write_files(&self, batch: FileBatch) -> Result<()> {
        const OP: Operation = Operation::WriteFiles;
        let mut state = self.open(OP)?;
        let batch = batch
            .resolve(&state.info.workdir)
            .map_err(|error| self.ours(error))?;
        let mut files = state.files.clone();
        for (path, file) in batch {
            if file.mode.is_some() {
                self.require(Capability::Modes, OP)?;
            }
            files
                .write(&path, file.content.clone(), file.write_mode)
                .map_err(|kind| self.at(kind, OP, &path))?;
        }
        state.files = files;
        Ok(())
    }

    async fn read_file(&self, path: &GuestPath, options: ReadOptions) -> Result<Bytes> {
        const OP: Operation = Operation::ReadFile;
        let content = self.look(OP, path, Files::read)?;
        if content.len() as u64 > options.limit {
            let error = self.at(ErrorKind::LimitExceeded, OP, path);
            return Err(error.with_message(format!("more than {} bytes", options.limit)));
        }
        Ok(content)
    }

    async fn list_dir(&self, path: &GuestPath, options: ListOptions) -> Result<Vec<DirEntry>> {
        const OP: Operation = Operation::ListDir;
        let entries = self.look(OP, path, |files, path| files.list(path, options.recursive))?;
        if entries.len() > options.limit {
            let error = self.at(ErrorKind::LimitExceeded, OP, path);
            return Err(error.with_message(format!("more than {} entries", options.limit)));
        }
        Ok(entries)
    }

    async fn metadata(&self, path: &GuestPath, _: MetadataOptions) -> Result<Metadata> {
        self.look(Operation::Metadata, path, |files, path| {
            Ok(files.get(path)?.metadata())
        })
    }

    async fn remove(&self, path: &GuestPath, options: RemoveOptions) -> Result<()> {
        options.settle(self.change(Operation::Remove, path, |files, path| {
            files.remove(path, options.recursive)
        }))
    }

    async fn create_dir(&self, path: &GuestPath, options: CreateDirOptions) -> Result<()> {
        const OP: Operation = Operation::CreateDir;
        if options.mode != Mode::EXECUTABLE {
            self.require(Capability::Modes, OP)?;
        }
        self.change(OP, path, |files, path| {
            files.make_dir(path, options.recursive)
        })
    }

    async fn rename(&self, from: &GuestPath, to: &GuestPath, options: RenameOptions) -> Result<()> {
        const OP: Operation = Operation::Rename;
        let mut state = self.open(OP)?;
        let from = self.resolve(&state, from, OP)?;
        let to = self.resolve(&state, to, OP)?;
        let mut files = state.files.clone();
        files
            .rename(&from, &to, options.replace)
            .map_err(|(kind, path)| self.at(kind, OP, path))?;
        state.files = files;
        Ok(())
    }

    async fn import_dir(
        &self,
        from: &Path,
        to: &GuestPath,
        options: ImportOptions,
    ) -> Result<TransferReport> {
        const OP: Operation = Operation::ImportDir;
        self.look(OP, to, |_, _| Ok(()))?;
        let filtered = options.mirror || options.ignore_files || !options.excludes.is_empty();
        self.no_filters(filtered, OP)?;
        let (found, report) = transfer::read(from, &options).map_err(|error| self.ours(error))?;
        self.change(OP, to, |files, top| {
            files.make_dir(top, true)?;
            found
                .into_iter()
                .try_for_each(|(path, content)| match content {
                    None => files.make_dir(&top.join(path), true),
                    Some(content) => files.write(&top.join(path), content, WriteMode::Replace),
                })
        })?;
        Ok(report)
    }

    async fn export_dir(
        &self,
        from: &GuestPath,
        to: &Path,
        options: ExportOptions,
    ) -> Result<TransferReport> {
        const OP: Operation = Operation::ExportDir;
        // A copy of the map is one moment of it, whatever is written meanwhile.
        let (files, from) = self.look(OP, from, |files, from| {
            files.dir(from).map(|()| (files.clone(), from.clone()))
        })?;
        self.no_filters(!options.excludes.is_empty(), OP)?;
        transfer::write(&files, &from, to, &options).map_err(|error| self.ours(error))
    }

    async fn set_workdir(&self, path: &GuestPath) -> Result<()> {
        let dir = |files: &Files, path: &GuestPath| files.dir(path).map(|()| path.clone());
        let path = self.look(Operation::SetWorkdir, path, dir)?;
        self.lock().info.workdir = path;
        Ok(())
    }

    async fn set_env(&self, changes: Env) -> Result<()> {
        // Checked, and not kept: there are no commands to see it.
        drop(self.open(Operation::SetEnv)?);
        changes
            .validate(Operation::SetEnv)
            .map_err(|error| self.ours(error))
    }

    async fn fork(&self, options: ForkOptions) -> Result<Arc<dyn Sandbox>> {
        let state = self.open(Operation::Fork)?;
        if !options.labels.is_empty() {
            self.require(Capability::List, Operation::Fork)?;
        }
        let workdir = state.info.workdir.clone();
        Ok(Arc::new(Self::new(
            state.files.clone(),
            workdir,
            state.info.command_timeout,
            Some(self.id.clone()),
        )))
    }

    async fn snapshot(&self, _: SnapshotOptions) -> Result<Snapshot> {
        let error = Error::unsupported(Operation::Snapshot, Capability::Snapshot, ONLY_FILES);
        Err(self.ours(error))
    }

    async fn close(&self) -> Result<()> {
        let mut state = self.lock();
        state.closed = true;
        state.files = Files::new();
        Ok(())
    }
}
