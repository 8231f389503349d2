//! A sandbox with one fault.
//!
//! Each fault is in one method or in what all methods pass through; the rest must forward.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sandbox_core::{
    Capabilities, Capability, ChangeKind, Changes, ChangesOptions, Command, Control,
    CreateDirOptions, DirEntry, EgressDecisions, EgressPolicy, Enforcement, Env, Error, ErrorKind,
    Execution, Exit, ExitStatus, ExportOptions, FileBatch, FileEvent, FileKind, FileReader,
    FileWatch, FileWriter, ForkOptions, GuestPath, ImportOptions, IsolationReport, Job, JobInfo,
    JobKey, JobOptions, ListOptions, Metadata, MetadataOptions, OpenReadOptions, OpenWriteOptions,
    Operation, Output, PartialOutput, PortStream, Process, ReadOptions, RemoveOptions,
    RenameOptions, Result, Sandbox, SandboxExt, SandboxInfo, Snapshot, SnapshotOptions,
    TransferReport, Usage, WatchOptions, WriteMode,
};

use super::fault::of_kind;
use super::{Mutant, command, fault, job, process, stream, transfer, watch};
use crate::kit::same_path;

pub(super) struct MutantSandbox {
    inner: Arc<dyn Sandbox>,
    mutant: Mutant,
    closed: AtomicBool,
    broken: AtomicBool,
    /// Lives as long as this handle; a process may ask.
    handle: Arc<()>,
    /// Runtime in which it was made; of no account but to two mutants.
    runtime: Option<tokio::runtime::Handle>,
    /// Whether the provider was dropped; of no account but to one mutant.
    orphaned: Arc<AtomicBool>,
    /// Parts of files that are being written; of no account but to one mutant.
    parts: stream::Parts,
    /// The sandbox that gets the file operations on some paths, and their common prefix.
    shared: Option<(Arc<dyn Sandbox>, &'static [u8])>,
    /// A sandbox that becomes the first fork; of no account but to one mutant.
    spare: Mutex<Option<Arc<dyn Sandbox>>>,
}

impl std::fmt::Debug for MutantSandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MutantSandbox")
            .field("mutant", &self.mutant)
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl Drop for MutantSandbox {
    fn drop(&mut self) {
        if self.has(Mutant::DropBlocks) {
            std::thread::sleep(Duration::from_millis(700));
        }
    }
}

impl MutantSandbox {
    pub(super) fn wrap(inner: Arc<dyn Sandbox>, mutant: Mutant) -> Arc<dyn Sandbox> {
        Self::build(inner, None, mutant, Arc::default())
    }

    /// A sandbox that is closed when its provider is dropped.
    pub(super) fn of_provider(
        inner: Arc<dyn Sandbox>,
        mutant: Mutant,
        dropped: Arc<AtomicBool>,
    ) -> Arc<dyn Sandbox> {
        Self::build(inner, None, mutant, dropped)
    }

    /// A sandbox whose first fork is another one, with copies of the files.
    pub(super) fn with_spare(
        inner: Arc<dyn Sandbox>,
        spare: Arc<dyn Sandbox>,
        mutant: Mutant,
    ) -> Arc<dyn Sandbox> {
        let mut made = Self::bare(inner, None, mutant, Arc::default());
        made.spare = Mutex::new(Some(spare));
        Arc::new(made)
    }

    /// A sandbox whose file operations all go to another one.
    pub(super) fn sharing(
        inner: Arc<dyn Sandbox>,
        shared: Arc<dyn Sandbox>,
        mutant: Mutant,
    ) -> Arc<dyn Sandbox> {
        Self::build(inner, Some((shared, b"/")), mutant, Arc::default())
    }

    fn build(
        inner: Arc<dyn Sandbox>,
        shared: Option<(Arc<dyn Sandbox>, &'static [u8])>,
        mutant: Mutant,
        orphaned: Arc<AtomicBool>,
    ) -> Arc<dyn Sandbox> {
        Arc::new(Self::bare(inner, shared, mutant, orphaned))
    }

    fn bare(
        inner: Arc<dyn Sandbox>,
        shared: Option<(Arc<dyn Sandbox>, &'static [u8])>,
        mutant: Mutant,
        orphaned: Arc<AtomicBool>,
    ) -> Self {
        Self {
            handle: Arc::default(),
            runtime: tokio::runtime::Handle::try_current().ok(),
            orphaned,
            parts: stream::Parts::default(),
            inner,
            mutant,
            closed: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            shared,
            spare: Mutex::default(),
        }
    }

    fn has(&self, mutant: Mutant) -> bool {
        self.mutant == mutant
    }

    /// The sandbox that gets a file operation on a path.
    fn at(&self, path: &GuestPath) -> &Arc<dyn Sandbox> {
        match &self.shared {
            Some((shared, prefix)) if path.as_bytes().starts_with(prefix) => shared,
            _ => &self.inner,
        }
    }

    /// Passes the error of every operation on.
    fn say<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| fault::said(self.mutant, &*self.inner, error))
    }

    /// The path that the sandbox is given.
    fn path(&self, path: &GuestPath) -> GuestPath {
        let bytes = path.as_bytes();
        match self.mutant {
            Mutant::DotDotDropped => {
                let parts: Vec<&[u8]> = path.components().filter(|part| *part != b"..").collect();
                let mut bytes = match path.is_absolute() {
                    true => b"/".to_vec(),
                    false => Vec::new(),
                };
                bytes.extend(parts.join(&b'/'));
                GuestPath::new(bytes)
            }
            Mutant::NulBytesDropped => GuestPath::new(
                bytes
                    .iter()
                    .copied()
                    .filter(|b| *b != 0)
                    .collect::<Vec<_>>(),
            ),
            Mutant::EmptyPathAccepted if bytes.is_empty() => GuestPath::from("."),
            Mutant::NamesMadeUtf8 => GuestPath::from(&*String::from_utf8_lossy(bytes)),
            Mutant::RelativeFromRoot if !path.is_absolute() => {
                GuestPath::new([b"/", bytes].concat())
            }
            _ => path.clone(),
        }
    }

    fn command(&self, command: Command) -> Command {
        command::asked(self.mutant, &*self.inner, command)
    }

    /// Runs a command, with the faults of the waiting.
    async fn run(&self, command: Command) -> Result<Output> {
        let inner = self.inner.clone();
        let lost = |_| Err(Error::new(ErrorKind::Other, Operation::Exec));
        match (self.mutant, command.timeout) {
            (Mutant::DropKeepsTheProcess, _) => {
                let task = tokio::spawn(async move { inner.exec(command).await });
                task.await.unwrap_or_else(lost)
            }
            (Mutant::DroppedExecBreaks, _) => {
                let was_broken = self.broken.swap(true, Ordering::SeqCst);
                if was_broken {
                    return Err(Error::new(ErrorKind::Busy, Operation::Exec)
                        .with_sandbox(self.inner.info().id));
                }
                let ran = inner.exec(command).await;
                self.broken.store(false, Ordering::SeqCst);
                ran
            }
            (Mutant::EndlessTimeIsOver, Some(Duration::MAX)) => {
                let over = Error::new(ErrorKind::Timeout, Operation::Exec);
                Err(over.with_sandbox(self.inner.info().id))
            }
            (Mutant::PanicsOutsideOfRuntime, _) => {
                tokio::time::sleep(Duration::ZERO).await;
                inner.exec(command).await
            }
            (Mutant::BoundToItsRuntime, _) => {
                let here = tokio::runtime::Handle::try_current().map(|handle| handle.id());
                match here.ok() == self.runtime.as_ref().map(|handle| handle.id()) {
                    true => inner.exec(command).await,
                    false => Err(Error::new(ErrorKind::Lost, Operation::Exec)
                        .with_sandbox(self.inner.info().id)),
                }
            }
            (Mutant::PanicsAfterItsRuntime, _) => {
                if let Some(runtime) = &self.runtime {
                    let there = runtime.spawn(std::future::ready(())).await;
                    assert!(there.is_ok(), "the runtime has ended");
                }
                inner.exec(command).await
            }
            (Mutant::TimeoutKeepsTheProcess, Some(timeout)) => {
                let mut command = command;
                command.timeout = None;
                let task = tokio::spawn(async move { inner.exec(command).await });
                match tokio::time::timeout(timeout, task).await {
                    Ok(Ok(ran)) => ran,
                    _ => Err(Error::new(ErrorKind::Timeout, Operation::Exec)
                        .with_sandbox(self.inner.info().id)
                        .with_partial_output(PartialOutput::default())),
                }
            }
            (Mutant::DroppedStartForgotten, _) => {
                let mut dropped = command::StartedWhenDropped::new(&command);
                let ran = inner.exec(command).await;
                dropped.forget();
                ran
            }
            (Mutant::ProcessLeftOnHost, _) => {
                // Started by the backend, and forgotten.
                let started = std::process::Command::new("sh")
                    .args(["-c", "sleep 30 & exit 0"])
                    .stdout(std::process::Stdio::null())
                    .status();
                drop(started);
                inner.exec(command).await
            }
            _ => inner.exec(command).await,
        }
    }
}

/// Reads what the host has at a path of the guest.
fn on_host(path: &GuestPath) -> Option<Bytes> {
    use std::os::unix::ffi::OsStrExt as _;
    let path = Path::new(std::ffi::OsStr::from_bytes(path.as_bytes()));
    let canary = path.file_name()?.to_str()?.contains("canary");
    canary
        .then(|| std::fs::read(path).ok())
        .flatten()
        .map(Bytes::from)
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Sandbox for MutantSandbox {
    fn info(&self) -> SandboxInfo {
        let mut info = self.inner.info();
        match self.mutant {
            Mutant::ForkForgetsParent => info.parent = None,
            Mutant::InfoNamesAnother => info.backend = "another".into(),
            _ => {}
        }
        info
    }

    fn capabilities(&self) -> Capabilities {
        match self.mutant {
            Mutant::CapabilitiesDiffer => self
                .inner
                .capabilities()
                .without(Capability::Exec, "this one differs"),
            mutant => mutant.capabilities(self.inner.capabilities()),
        }
    }

    async fn isolation(&self) -> Result<IsolationReport> {
        let report = self.say(self.inner.isolation().await)?;
        let claims = |report: IsolationReport, controls: &[Control]| {
            let claim = || Enforcement::enforced("the best means that there are");
            controls
                .iter()
                .fold(report, |report, control| report.with(*control, claim()))
        };
        Ok(match self.mutant {
            Mutant::ReportClaimsEverything
            | Mutant::PrivilegesClaimed
            | Mutant::HostShmInside
            | Mutant::HostIpcInside => claims(report, Control::ALL),
            Mutant::SetLimitNotReported => report.with(
                Control::Pids,
                Enforcement::absent("the report was written before the limit"),
            ),
            Mutant::RootHidden => claims(report, &[Control::Privileges]),
            Mutant::ReportForgets => claims(IsolationReport::new(), &Control::ALL[1..]),
            _ => report,
        })
    }

    async fn exec(&self, command: Command) -> Result<Output> {
        let command = self.command(command);
        let changes = command.env.clone();
        let cwd = command.cwd.clone();
        let is_short = command
            .timeout
            .is_some_and(|timeout| timeout <= Duration::from_millis(50));
        match self.run(command).await {
            Ok(output) if self.has(Mutant::ExitCodeIsAnError) && !output.success() => {
                Err(Error::new(ErrorKind::Other, Operation::Exec)
                    .with_message(output.status.to_string())
                    .with_execution(Execution::Interrupted))
            }
            Ok(output) => {
                if self.has(Mutant::CommandEnvStays) {
                    self.inner.set_env(changes).await?;
                }
                if self.has(Mutant::CrashLeavesCore)
                    && let Some(cwd) = cwd
                    && output.status.signal().is_some()
                {
                    self.inner.write(cwd.join("core"), "its memory").await?;
                }
                Ok(command::given(self.mutant, output))
            }
            Err(error) if error.kind() == ErrorKind::CommandNotFound => match self.mutant {
                Mutant::MissingProgramIsAResult => {
                    let exit = Exit::new(ExitStatus::Code(127));
                    Ok(Output::new(exit, PartialOutput::default()))
                }
                Mutant::MissingProgramSaysCut => Err(error.with_execution(Execution::Interrupted)),
                _ => self.say(Err(error)),
            },
            Err(error) => match self.mutant {
                Mutant::ForeignProgramIsAResult if error.kind() == ErrorKind::NotExecutable => {
                    let exit = Exit::new(ExitStatus::Code(126));
                    Ok(Output::new(exit, PartialOutput::default()))
                }
                Mutant::ShortTimeoutSaysNotStarted if is_short => {
                    Err(error.with_execution(Execution::NotStarted))
                }
                Mutant::ShortTimeoutLosesOutput if is_short => {
                    Err(error.with_partial_output(PartialOutput::default()))
                }
                Mutant::PartialOutputDropped => Err(of_kind(&error, error.kind())),
                Mutant::CutSaysNotStarted => Err(error.with_execution(Execution::NotStarted)),
                _ => self.say(Err(error)),
            },
        }
    }

    async fn spawn(&self, command: Command) -> Result<Process> {
        let process = self.say(self.inner.spawn(self.command(command)).await)?;
        Ok(process::plant(self.mutant, process, &self.handle))
    }

    async fn write_files(&self, batch: FileBatch) -> Result<()> {
        if self.orphaned.load(Ordering::SeqCst) {
            return Err(Error::closed(Operation::WriteFiles, &self.inner.info().id));
        }
        let mut changed = FileBatch::new();
        let mut target = &self.inner;
        for file in batch.files() {
            let mut one = FileBatch::new();
            let into = if self.has(Mutant::BatchNotAtomic) {
                &mut one
            } else {
                &mut changed
            };
            let path = self.path(&file.path);
            target = self.at(&path);
            if self.has(Mutant::DuplicatesAccepted)
                && into
                    .files()
                    .iter()
                    .any(|known| same_path(&*self.inner, &known.path, &path))
            {
                continue;
            }
            let added = into.push(path, file.content.clone());
            if !self.has(Mutant::ModeLost) {
                added.mode = file.mode;
            }
            added.write_mode = match self.mutant {
                Mutant::CreateNewReplaces => WriteMode::Replace,
                _ => file.write_mode,
            };
            if self.has(Mutant::BatchNotAtomic) {
                self.inner.write_files(one).await?;
            }
        }
        if self.has(Mutant::WriteReturnsEarly) {
            let inner = self.inner.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(50)).await;
                inner.write_files(changed).await
            });
            return Ok(());
        }
        let written = target.write_files(changed.clone()).await;
        if self.has(Mutant::FifoReplaced)
            && let Err(error) = &written
            && error.kind() == ErrorKind::NotARegularFile
            && let Some(path) = error.path()
        {
            target.remove(path, RemoveOptions::new()).await?;
            return target.write_files(changed).await;
        }
        self.say(written)
    }

    async fn read_file(&self, path: &GuestPath, mut options: ReadOptions) -> Result<Bytes> {
        let limit = options.limit;
        if matches!(self.mutant, Mutant::ReadLimitIgnored | Mutant::ReadCut) {
            options.limit = u64::MAX;
        }
        let path = self.path(path);
        if self.has(Mutant::LeaseHoldsReads) && path.as_bytes().ends_with(b"leased") {
            std::future::pending::<()>().await;
        }
        let read = self.at(&path).read_file(&path, options).await;
        match (self.mutant, &read) {
            (Mutant::ReadCut, Ok(bytes)) => {
                let end = usize::try_from(limit).unwrap_or(usize::MAX);
                Ok(bytes.slice(..bytes.len().min(end)))
            }
            (Mutant::HostFilesRead | Mutant::HostCanariesRead, Err(_)) => match on_host(&path) {
                Some(bytes) => Ok(bytes),
                None => self.say(read),
            },
            _ => self.say(read),
        }
    }

    async fn list_dir(&self, path: &GuestPath, mut options: ListOptions) -> Result<Vec<DirEntry>> {
        let limit = options.limit;
        if self.has(Mutant::ListCut) {
            options.limit = usize::MAX;
        }
        let path = self.path(path);
        let mut entries = self.say(self.at(&path).list_dir(&path, options).await)?;
        match self.mutant {
            Mutant::ListUnsorted => entries.reverse(),
            Mutant::ListCut => entries.truncate(limit),
            Mutant::ListHidesDotFiles => entries.retain(|entry| {
                let name = entry.path.components().last().unwrap_or_default();
                !name.starts_with(b".")
            }),
            Mutant::ListFollowsLinks => {
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

    async fn metadata(&self, path: &GuestPath, mut options: MetadataOptions) -> Result<Metadata> {
        let path = self.path(path);
        if self.has(Mutant::MetadataNeverFollows) {
            options.follow = false;
        }
        let found = self.say(self.at(&path).metadata(&path, options).await)?;
        Ok(match self.has(Mutant::OwnerOfAnother) {
            true => found.owner(0, 0),
            false => found,
        })
    }

    async fn remove(&self, path: &GuestPath, mut options: RemoveOptions) -> Result<()> {
        if self.has(Mutant::RemoveAlwaysRecursive) {
            options.recursive = true;
        }
        if self.has(Mutant::IgnoreMissingIgnored) {
            options.ignore_missing = false;
        }
        let path = self.path(path);
        match self.at(&path).remove(&path, options).await {
            Err(error)
                if self.has(Mutant::RemoveOfMissingIsFine)
                    && error.kind() == ErrorKind::NotFound =>
            {
                Ok(())
            }
            done => self.say(done),
        }
    }

    async fn create_dir(&self, path: &GuestPath, mut options: CreateDirOptions) -> Result<()> {
        if self.has(Mutant::CreateDirNeverExclusive) {
            options.recursive = true;
        }
        self.say(self.inner.create_dir(&self.path(path), options).await)
    }

    async fn rename(
        &self,
        from: &GuestPath,
        to: &GuestPath,
        mut options: RenameOptions,
    ) -> Result<()> {
        if self.has(Mutant::RenameAlwaysReplaces) {
            options.replace = true;
        }
        let (from, to) = (self.path(from), self.path(to));
        self.say(self.inner.rename(&from, &to, options).await)
    }

    async fn import_dir(
        &self,
        from: &Path,
        to: &GuestPath,
        options: ImportOptions,
    ) -> Result<TransferReport> {
        let to = self.path(to);
        self.say(transfer::import(self.mutant, &*self.inner, from, &to, options).await)
    }

    async fn export_dir(
        &self,
        from: &GuestPath,
        to: &Path,
        options: ExportOptions,
    ) -> Result<TransferReport> {
        let from = self.path(from);
        self.say(transfer::export(self.mutant, &*self.inner, &from, to, options).await)
    }

    async fn set_workdir(&self, path: &GuestPath) -> Result<()> {
        let path = self.path(path);
        match self.mutant {
            Mutant::SetWorkdirForgotten => Ok(()),
            Mutant::SetWorkdirCreates => {
                // A file in the way is the error of what comes next.
                drop(self.inner.create_dir_all(&path).await);
                self.say(self.inner.set_workdir(&path).await)
            }
            _ => self.say(self.inner.set_workdir(&path).await),
        }
    }

    async fn set_env(&self, changes: Env) -> Result<()> {
        if self.has(Mutant::SetEnvForgotten) {
            return Ok(());
        }
        self.say(self.inner.set_env(changes).await)
    }

    async fn fork(&self, options: ForkOptions) -> Result<Arc<dyn Sandbox>> {
        if self.has(Mutant::ForkSharesWrites) {
            return Ok(Self::wrap(self.inner.clone(), self.mutant));
        }
        let spare = self
            .spare
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(child) = spare {
            self.inner.sh("kill -s STOP -1").await?;
            for file in ["first", "second"] {
                let copied = self.inner.read(file).await?;
                child.write(file, copied).await?;
                // Time that a larger tree would take.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            return Ok(Self::wrap(child, self.mutant));
        }
        let open = self.parts.all();
        let child = self.say(self.inner.fork(options).await)?;
        if self.has(Mutant::ForkCutIsAPart) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if self.closed.load(Ordering::SeqCst) {
                child.remove_all("d0").await?;
            }
        }
        let shared: Option<&'static [u8]> = match self.mutant {
            Mutant::ForkOfTwoMoments if self.inner.exists("second").await? => {
                tokio::time::sleep(Duration::from_millis(20)).await;
                let later = self.inner.read("second").await?;
                child.write("second", later).await?;
                None
            }
            Mutant::ForkHasOpenFiles => {
                for (path, part) in open {
                    child.write(path, part).await?;
                }
                None
            }
            Mutant::ForkLosesTimes => {
                let old = child.read("in/old").await?;
                child.write("in/old", old).await?;
                None
            }
            Mutant::ForkLosesWorkdir => {
                child.set_workdir(&GuestPath::root()).await?;
                None
            }
            Mutant::ForkLosesEnv => {
                child.set_env(Env::new().unset("KIT")).await?;
                None
            }
            Mutant::ForkSharesTmp => Some(b"/tmp/"),
            Mutant::ForkSharesHome => Some(b"/home"),
            Mutant::ForkSharesVar => Some(b"/var/"),
            _ => None,
        };
        let shared = shared.map(|prefix| (self.inner.clone(), prefix));
        Ok(Self::build(child, shared, self.mutant, Arc::default()))
    }

    async fn snapshot(&self, options: SnapshotOptions) -> Result<Snapshot> {
        self.say(self.inner.snapshot(options).await)
    }

    async fn egress_decisions(&self, after: u64) -> Result<EgressDecisions> {
        self.say(self.inner.egress_decisions(after).await)
    }

    async fn restrict_egress(&self, policy: EgressPolicy) -> Result<()> {
        if self.has(Mutant::RestrictEgressClaimed) {
            return Ok(());
        }
        self.say(self.inner.restrict_egress(policy).await)
    }

    async fn start_job(&self, key: &JobKey, command: Command, options: JobOptions) -> Result<Job> {
        let command = self.command(command);
        let job = job::start(self.mutant, &*self.inner, key, command, options).await;
        Ok(job::plant(self.mutant, self.say(job)?))
    }

    async fn find_job(&self, key: &JobKey) -> Result<Job> {
        let job = self.say(self.inner.find_job(key).await)?;
        Ok(job::plant(self.mutant, job))
    }

    async fn list_jobs(&self) -> Result<Vec<JobInfo>> {
        self.say(self.inner.list_jobs().await)
    }

    async fn connect_port(&self, port: u16) -> Result<PortStream> {
        let connected = self.say(self.inner.connect_port(port).await);
        connected.map_err(|error| match error.kind() {
            ErrorKind::NotListening if self.has(Mutant::RefusedPortUnavailable) => {
                of_kind(&error, ErrorKind::Unavailable)
            }
            ErrorKind::NotListening if self.has(Mutant::RefusedPortTimesOut) => {
                of_kind(&error, ErrorKind::Timeout)
            }
            _ => error,
        })
    }

    async fn open_read(&self, path: &GuestPath, options: OpenReadOptions) -> Result<FileReader> {
        let path = self.path(path);
        let options = match self.mutant {
            Mutant::ReadRangeIgnored => OpenReadOptions::new(),
            _ => options,
        };
        self.say(self.at(&path).open_read(&path, options).await)
    }

    async fn open_write(&self, path: &GuestPath, options: OpenWriteOptions) -> Result<FileWriter> {
        let path = self.path(path);
        let writer = self.say(self.at(&path).open_write(&path, options).await)?;
        Ok(match self.mutant {
            Mutant::DroppedWriterCommits => FileWriter::new(stream::Keeping(Some(writer))),
            Mutant::ForkHasOpenFiles => FileWriter::new(self.parts.of(path, writer)),
            _ => writer,
        })
    }

    async fn changes(&self, path: &GuestPath, options: ChangesOptions) -> Result<Changes> {
        let path = match self.mutant {
            Mutant::ChangesOfAnotherDirectory => GuestPath::from("."),
            _ => self.path(path),
        };
        let mut options = options;
        let limit = options.max_entries;
        match self.mutant {
            Mutant::ChangesCut => options.max_entries = u64::MAX,
            Mutant::ChangesExcludesIgnored => {
                options.excludes.clear();
                options.max_entries = u64::MAX;
            }
            _ => {}
        }
        let mut changes = self.say(self.at(&path).changes(&path, options).await)?;
        changes.entries.retain(|change| match self.mutant {
            Mutant::DeletionsNotTold => change.kind() != ChangeKind::Deleted,
            Mutant::ModeChangesNotTold => change.kind() != ChangeKind::Mode,
            _ => true,
        });
        if self.has(Mutant::ChangesCut) {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            changes.entries.truncate(limit);
        }
        Ok(changes)
    }

    async fn usage(&self) -> Result<Usage> {
        let mut usage = self.say(self.inner.usage().await)?;
        if self.has(Mutant::UsageSaysZero) {
            usage.processes = Some(0);
        }
        Ok(usage)
    }

    async fn watch(&self, path: &GuestPath, options: WatchOptions) -> Result<FileWatch> {
        let path = match self.mutant {
            Mutant::AnotherDirectoryWatched => GuestPath::from("."),
            _ => self.path(path),
        };
        let at = self.at(&path);
        let watch = self.say(at.watch(&path, options.clone()).await)?;
        Ok(match self.mutant {
            Mutant::RemovalsNotWatched => {
                watch::only(watch, |event| !matches!(event, FileEvent::Removed(_)))
            }
            Mutant::OnlyTheTopWatched => watch::only(watch, |event| {
                event
                    .path()
                    .is_none_or(|path| !path.as_bytes().contains(&b'/'))
            }),
            Mutant::WatchEndsLost => watch::ending(watch, |error| of_kind(&error, ErrorKind::Lost)),
            Mutant::LostEventsNotTold => watch::only(watch, |event| *event != FileEvent::Rescan),
            _ => watch,
        })
    }

    async fn pause(&self) -> Result<()> {
        match self.mutant {
            Mutant::PauseDoesNothing => Ok(()),
            _ => self.say(self.inner.pause().await),
        }
    }

    async fn resume(&self) -> Result<()> {
        match self.mutant {
            Mutant::ResumeDoesNothing => Ok(()),
            _ => self.say(self.inner.resume().await),
        }
    }

    async fn close(&self) -> Result<()> {
        let again = self.closed.swap(true, Ordering::SeqCst);
        match self.mutant {
            Mutant::CloseDoesNothing | Mutant::CloseLeavesProcesses => Ok(()),
            Mutant::CloseOnlyOnce if again => {
                Err(Error::closed(Operation::Close, &self.inner.info().id))
            }
            Mutant::DroppedCloseForgotten => {
                // Dropped in this moment, it has not begun.
                tokio::time::sleep(Duration::from_secs(2)).await;
                self.inner.close().await
            }
            _ => self.inner.close().await,
        }
    }
}
