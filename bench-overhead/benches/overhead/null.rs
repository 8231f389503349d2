//! A sandbox that does nothing, so that what is around it can be timed.
//!
//! It answers `exec` at once and refuses all else.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use sandbox::{
    Capabilities, Capability, CapturedStream, Command, CreateDirOptions, DirEntry, Env, Error,
    ErrorKind, Exit, ExitStatus, ExportOptions, FileBatch, ForkOptions, GuestPath, ImportOptions,
    IsolationReport, ListOptions, Metadata, MetadataOptions, Operation, Output, PartialOutput,
    Process, ReadOptions, RemoveOptions, RenameOptions, Result, Sandbox, SandboxId, SandboxInfo,
    Snapshot, SnapshotOptions, TransferReport, async_trait,
};

/// Does nothing.
#[derive(Debug)]
pub(crate) struct Null;

impl Null {
    /// Does what `exec` does, without a trait.
    pub(crate) async fn plain(&self, command: Command) -> Result<Output> {
        drop(command);
        let none = || CapturedStream::new(Bytes::new(), 0);
        let streams = PartialOutput::new(none(), none(), std::time::Duration::ZERO);
        Ok(Output::new(Exit::new(ExitStatus::Code(0)), streams))
    }
}

fn refuse<T>(operation: Operation) -> Result<T> {
    Err(Error::new(ErrorKind::Unsupported, operation).with_message("it does nothing"))
}

#[async_trait]
impl Sandbox for Null {
    fn info(&self) -> SandboxInfo {
        SandboxInfo::new(SandboxId::new("null"), "null", GuestPath::root())
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities::none("not claimed").with_each(Capability::ALL)
    }
    async fn isolation(&self) -> Result<IsolationReport> {
        refuse(Operation::Isolation)
    }
    async fn exec(&self, command: Command) -> Result<Output> {
        self.plain(command).await
    }
    async fn spawn(&self, _: Command) -> Result<Process> {
        refuse(Operation::Spawn)
    }
    async fn write_files(&self, _: FileBatch) -> Result<()> {
        refuse(Operation::WriteFiles)
    }
    async fn read_file(&self, _: &GuestPath, _: ReadOptions) -> Result<Bytes> {
        refuse(Operation::ReadFile)
    }
    async fn list_dir(&self, _: &GuestPath, _: ListOptions) -> Result<Vec<DirEntry>> {
        refuse(Operation::ListDir)
    }
    async fn metadata(&self, _: &GuestPath, _: MetadataOptions) -> Result<Metadata> {
        refuse(Operation::Metadata)
    }
    async fn remove(&self, _: &GuestPath, _: RemoveOptions) -> Result<()> {
        refuse(Operation::Remove)
    }
    async fn create_dir(&self, _: &GuestPath, _: CreateDirOptions) -> Result<()> {
        refuse(Operation::CreateDir)
    }
    async fn rename(&self, _: &GuestPath, _: &GuestPath, _: RenameOptions) -> Result<()> {
        refuse(Operation::Rename)
    }
    async fn import_dir(
        &self,
        _: &Path,
        _: &GuestPath,
        _: ImportOptions,
    ) -> Result<TransferReport> {
        refuse(Operation::ImportDir)
    }
    async fn export_dir(
        &self,
        _: &GuestPath,
        _: &Path,
        _: ExportOptions,
    ) -> Result<TransferReport> {
        refuse(Operation::ExportDir)
    }
    async fn set_workdir(&self, _: &GuestPath) -> Result<()> {
        refuse(Operation::SetWorkdir)
    }
    async fn set_env(&self, _: Env) -> Result<()> {
        refuse(Operation::SetEnv)
    }
    async fn fork(&self, _: ForkOptions) -> Result<Arc<dyn Sandbox>> {
        refuse(Operation::Fork)
    }
    async fn snapshot(&self, _: SnapshotOptions) -> Result<Snapshot> {
        refuse(Operation::Snapshot)
    }
    async fn close(&self) -> Result<()> {
        Ok(())
    }
}
