//! A call on its way to a sandbox or provider, with everything that it was given.
//!
//! A call must never hold more than references: a layer that looks at it costs no copy.

use std::path::Path;

use crate::{
    ChangesOptions, Command, CreateDirOptions, EgressPolicy, Env, ExportOptions, FileBatch,
    ForkOptions, GuestPath, ImportOptions, JobKey, JobOptions, Labels, ListOptions,
    MetadataOptions, OpenReadOptions, OpenWriteOptions, Operation, Provider, ReadOptions,
    RemoveOptions, RenameOptions, Sandbox, SandboxId, SandboxSpec, SnapshotId, SnapshotOptions,
    WatchOptions,
};

/// The receiver of a call.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Target<'a> {
    /// A sandbox, as the layer below has it.
    Sandbox(&'a dyn Sandbox),
    /// A provider, as the layer below has it.
    Provider(&'a dyn Provider),
}

/// The arguments of a call, by operation.
///
/// `Debug` shows paths and counts, never arguments, contents or values of variables.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Request<'a> {
    /// [`Provider::create`]
    Create(&'a SandboxSpec),
    /// [`Provider::attach`]
    Attach(&'a SandboxId),
    /// [`Provider::list`]
    List(&'a Labels),
    /// [`Provider::destroy`]
    Destroy(&'a SandboxId),
    /// [`Provider::list_snapshots`]
    ListSnapshots(&'a Labels),
    /// [`Provider::delete_snapshot`]
    DeleteSnapshot(&'a SnapshotId),
    /// [`Sandbox::isolation`]
    Isolation,
    /// [`Sandbox::exec`]
    Exec(&'a Command),
    /// [`Sandbox::spawn`]
    Spawn(&'a Command),
    /// [`Sandbox::write_files`]
    WriteFiles(&'a FileBatch),
    /// [`Sandbox::read_file`]
    ReadFile(&'a GuestPath, &'a ReadOptions),
    /// [`Sandbox::list_dir`]
    ListDir(&'a GuestPath, &'a ListOptions),
    /// [`Sandbox::metadata`]
    Metadata(&'a GuestPath, &'a MetadataOptions),
    /// [`Sandbox::remove`]
    Remove(&'a GuestPath, &'a RemoveOptions),
    /// [`Sandbox::create_dir`]
    CreateDir(&'a GuestPath, &'a CreateDirOptions),
    /// [`Sandbox::rename`]: from, to.
    Rename(&'a GuestPath, &'a GuestPath, &'a RenameOptions),
    /// [`Sandbox::import_dir`]: from the host, to the guest.
    ImportDir(&'a Path, &'a GuestPath, &'a ImportOptions),
    /// [`Sandbox::export_dir`]: from the guest, to the host.
    ExportDir(&'a GuestPath, &'a Path, &'a ExportOptions),
    /// [`Sandbox::set_workdir`]
    SetWorkdir(&'a GuestPath),
    /// [`Sandbox::set_env`]
    SetEnv(&'a Env),
    /// [`Sandbox::fork`]
    Fork(&'a ForkOptions),
    /// [`Sandbox::snapshot`]
    Snapshot(&'a SnapshotOptions),
    /// [`Sandbox::egress_decisions`]: after this number.
    EgressDecisions(u64),
    /// [`Sandbox::restrict_egress`]
    RestrictEgress(&'a EgressPolicy),
    /// [`Sandbox::close`]
    Close,
    /// [`Sandbox::start_job`]
    StartJob(&'a JobKey, &'a Command, &'a JobOptions),
    /// [`Sandbox::find_job`]
    FindJob(&'a JobKey),
    /// [`Sandbox::list_jobs`]
    ListJobs,
    /// [`Sandbox::connect_port`]
    ConnectPort(u16),
    /// [`Sandbox::open_read`]
    OpenRead(&'a GuestPath, &'a OpenReadOptions),
    /// [`Sandbox::open_write`]
    OpenWrite(&'a GuestPath, &'a OpenWriteOptions),
    /// [`Sandbox::changes`]
    Changes(&'a GuestPath, &'a ChangesOptions),
    /// [`Sandbox::usage`]
    Usage,
    /// [`Sandbox::watch`]
    Watch(&'a GuestPath, &'a WatchOptions),
    /// [`Sandbox::pause`]
    Pause,
    /// [`Sandbox::resume`]
    Resume,
}

/// A call on its way to a sandbox or provider.
///
/// ```
/// use sandbox_core::layer::Call;
///
/// /// Whether a call would change something below `/etc`, as its paths are written.
/// fn touches_etc(call: Call<'_>) -> bool {
///     call.paths().iter().any(|path| path.as_bytes().starts_with(b"/etc/"))
/// }
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Call<'a> {
    /// The receiver.
    pub target: Target<'a>,
    /// The operation with its arguments.
    pub request: Request<'a>,
}

impl<'a> Call<'a> {
    pub(super) fn on_sandbox(sandbox: &'a dyn Sandbox, request: Request<'a>) -> Self {
        Self {
            target: Target::Sandbox(sandbox),
            request,
        }
    }

    pub(super) fn on_provider(provider: &'a dyn Provider, request: Request<'a>) -> Self {
        Self {
            target: Target::Provider(provider),
            request,
        }
    }

    /// The operation.
    pub fn operation(&self) -> Operation {
        match self.request {
            Request::Create(_) => Operation::Create,
            Request::Attach(_) => Operation::Attach,
            Request::List(_) => Operation::List,
            Request::Destroy(_) => Operation::Destroy,
            Request::ListSnapshots(_) => Operation::ListSnapshots,
            Request::DeleteSnapshot(_) => Operation::DeleteSnapshot,
            Request::Isolation => Operation::Isolation,
            Request::Exec(_) => Operation::Exec,
            Request::Spawn(_) => Operation::Spawn,
            Request::WriteFiles(_) => Operation::WriteFiles,
            Request::ReadFile(..) => Operation::ReadFile,
            Request::ListDir(..) => Operation::ListDir,
            Request::Metadata(..) => Operation::Metadata,
            Request::Remove(..) => Operation::Remove,
            Request::CreateDir(..) => Operation::CreateDir,
            Request::Rename(..) => Operation::Rename,
            Request::ImportDir(..) => Operation::ImportDir,
            Request::ExportDir(..) => Operation::ExportDir,
            Request::SetWorkdir(_) => Operation::SetWorkdir,
            Request::SetEnv(_) => Operation::SetEnv,
            Request::Fork(_) => Operation::Fork,
            Request::Snapshot(_) => Operation::Snapshot,
            Request::EgressDecisions(_) => Operation::EgressDecisions,
            Request::RestrictEgress(_) => Operation::RestrictEgress,
            Request::Close => Operation::Close,
            Request::StartJob(..) => Operation::StartJob,
            Request::FindJob(_) => Operation::FindJob,
            Request::ListJobs => Operation::ListJobs,
            Request::ConnectPort(_) => Operation::ConnectPort,
            Request::OpenRead(..) => Operation::OpenRead,
            Request::OpenWrite(..) => Operation::OpenWrite,
            Request::Changes(..) => Operation::Changes,
            Request::Usage => Operation::Usage,
            Request::Watch(..) => Operation::Watch,
            Request::Pause => Operation::Pause,
            Request::Resume => Operation::Resume,
        }
    }

    /// The sandbox that is called; `None` for a call to a provider.
    pub fn sandbox(&self) -> Option<&'a dyn Sandbox> {
        match self.target {
            Target::Sandbox(sandbox) => Some(sandbox),
            Target::Provider(_) => None,
        }
    }

    /// The identifier of the sandbox that the call is about: the one that is called, or the one
    /// that a call to a provider names.
    pub fn sandbox_id(&self) -> Option<SandboxId> {
        match (self.target, self.request) {
            (Target::Sandbox(sandbox), _) => Some(sandbox.info().id),
            (_, Request::Attach(id) | Request::Destroy(id)) => Some(id.clone()),
            _ => None,
        }
    }

    /// The command of `exec`, `spawn` and `start_job`.
    pub fn command(&self) -> Option<&'a Command> {
        match self.request {
            Request::Exec(command) | Request::Spawn(command) | Request::StartJob(_, command, _) => {
                Some(command)
            }
            _ => None,
        }
    }

    /// The batch of `write_files`.
    pub fn batch(&self) -> Option<&'a FileBatch> {
        match self.request {
            Request::WriteFiles(batch) => Some(batch),
            _ => None,
        }
    }

    /// Every path in the guest that the call names, as it was given: both of a rename, all of a
    /// batch, the working directory of a command. What the arguments of a command mean is unknown.
    pub fn paths(&self) -> Vec<&'a GuestPath> {
        match self.request {
            Request::ReadFile(path, _)
            | Request::ListDir(path, _)
            | Request::Metadata(path, _)
            | Request::Remove(path, _)
            | Request::CreateDir(path, _)
            | Request::ImportDir(_, path, _)
            | Request::ExportDir(path, _, _)
            | Request::OpenRead(path, _)
            | Request::OpenWrite(path, _)
            | Request::Changes(path, _)
            | Request::Watch(path, _)
            | Request::SetWorkdir(path) => vec![path],
            Request::Rename(from, to, _) => vec![from, to],
            Request::WriteFiles(batch) => batch.files().iter().map(|file| &file.path).collect(),
            Request::Exec(command) | Request::Spawn(command) | Request::StartJob(_, command, _) => {
                command.cwd.iter().collect()
            }
            Request::Create(spec) => spec.workdir.iter().collect(),
            Request::Attach(_)
            | Request::List(_)
            | Request::Destroy(_)
            | Request::ListSnapshots(_)
            | Request::DeleteSnapshot(_)
            | Request::Isolation
            | Request::SetEnv(_)
            | Request::Fork(_)
            | Request::Snapshot(_)
            | Request::EgressDecisions(_)
            | Request::RestrictEgress(_)
            | Request::Close
            | Request::FindJob(_)
            | Request::ListJobs
            | Request::ConnectPort(_)
            | Request::Usage
            | Request::Pause
            | Request::Resume => Vec::new(),
        }
    }

    /// The directory of the host that an import reads or an export writes.
    pub fn host_path(&self) -> Option<&'a Path> {
        match self.request {
            Request::ImportDir(path, _, _) | Request::ExportDir(_, path, _) => Some(path),
            _ => None,
        }
    }
}
