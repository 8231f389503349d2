//! The trait `Sandbox` and its contract.

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    Capabilities, Command, CreateDirOptions, DirEntry, Env, ExportOptions, FileBatch, ForkOptions,
    GuestPath, ImportOptions, IsolationReport, ListOptions, Metadata, Output, Process, ReadOptions,
    RemoveOptions, RenameOptions, Result, SandboxInfo, Snapshot, SnapshotOptions, TransferReport,
};

#[doc = include_str!("../docs/contract.md")]
#[async_trait]
pub trait Sandbox: Debug + Send + Sync + 'static {
    /// Who this sandbox is. No I/O; works on a closed sandbox too.
    fn info(&self) -> SandboxInfo;

    /// What the backend can do. No I/O; the same for the life of the sandbox.
    fn capabilities(&self) -> Capabilities;

    /// Which isolation is in force, probed from inside the sandbox, not read from configuration.
    ///
    /// Dropping the future has no effect on the sandbox.
    ///
    /// # Errors
    /// The common ones (see [the trait](Sandbox#errors)).
    async fn isolation(&self) -> Result<IsolationReport>;

    /// Runs a command to its end.
    ///
    /// The program gets the argument vector byte for byte, the sandbox's environment with the
    /// command's changes, and nothing else of the host. Output is kept apart, exact, and within
    /// the command's limits; what is beyond them is read and counted, so that the program is not
    /// held up. The call returns when the main process ends, even if something that it started
    /// still holds its output; such background processes live on (where
    /// [`Capability::Background`](crate::Capability::Background) is declared) until the sandbox
    /// closes.
    ///
    /// Dropping the future is the same as a timeout: the command and everything it started,
    /// daemons included, are dead within a second.
    ///
    /// # Errors
    /// [`Error::ran`](crate::Error::ran) says whether the command ran. Not started:
    /// [`CommandNotFound`](crate::ErrorKind::CommandNotFound),
    /// [`NotExecutable`](crate::ErrorKind::NotExecutable),
    /// [`NotFound`](crate::ErrorKind::NotFound) and
    /// [`NotADirectory`](crate::ErrorKind::NotADirectory) for the working directory,
    /// [`LimitExceeded`](crate::ErrorKind::LimitExceeded) (too long an argument vector, too many
    /// processes), [`Busy`](crate::ErrorKind::Busy) (the program stays open for writing),
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput). Cut, with the partial output:
    /// [`Timeout`](crate::ErrorKind::Timeout), [`Closed`](crate::ErrorKind::Closed),
    /// [`Lost`](crate::ErrorKind::Lost). A non-zero exit is not an error.
    async fn exec(&self, command: Command) -> Result<Output>;

    /// Starts a command and gives its streams out while it runs.
    ///
    /// The same as [`exec`](Sandbox::exec) otherwise, the timeout included. Dropping the future or
    /// the [`Process`] kills the whole tree.
    ///
    /// # Errors
    /// Those of [`exec`](Sandbox::exec) that mean "not started".
    async fn spawn(&self, command: Command) -> Result<Process>;

    /// Writes a batch of files: all of it or none of it.
    ///
    /// The files are staged and then put in place; a reader sees an old file or a new one, never a
    /// part. Missing parents are created. A link at a file's own name is replaced, not followed;
    /// links among its parents are followed within the sandbox.
    ///
    /// Dropping the future leaves all of the batch or nothing; if putting in place has begun it is
    /// finished.
    ///
    /// # Errors
    /// With the path: [`InvalidInput`](crate::ErrorKind::InvalidInput) (see
    /// [`FileBatch::resolve`]), [`AlreadyExists`](crate::ErrorKind::AlreadyExists),
    /// [`IsADirectory`](crate::ErrorKind::IsADirectory),
    /// [`NotADirectory`](crate::ErrorKind::NotADirectory),
    /// [`PermissionDenied`](crate::ErrorKind::PermissionDenied) (also for a file that the
    /// sandbox's user may not write), [`ReadOnly`](crate::ErrorKind::ReadOnly),
    /// [`StorageFull`](crate::ErrorKind::StorageFull).
    async fn write_files(&self, batch: FileBatch) -> Result<()>;

    /// Reads a regular file whole. Links are followed within the sandbox.
    ///
    /// Dropping the future stops the reading.
    ///
    /// # Errors
    /// With the path: [`NotFound`](crate::ErrorKind::NotFound),
    /// [`IsADirectory`](crate::ErrorKind::IsADirectory),
    /// [`NotARegularFile`](crate::ErrorKind::NotARegularFile),
    /// [`PermissionDenied`](crate::ErrorKind::PermissionDenied),
    /// [`LimitExceeded`](crate::ErrorKind::LimitExceeded), which states the limit.
    async fn read_file(&self, path: &GuestPath, options: ReadOptions) -> Result<Bytes>;

    /// Lists a directory, sorted by path bytes. Links are listed as such, not followed, but the
    /// path itself may lead through links.
    ///
    /// # Errors
    /// With the path: [`NotFound`](crate::ErrorKind::NotFound),
    /// [`NotADirectory`](crate::ErrorKind::NotADirectory),
    /// [`PermissionDenied`](crate::ErrorKind::PermissionDenied),
    /// [`LimitExceeded`](crate::ErrorKind::LimitExceeded).
    async fn list_dir(&self, path: &GuestPath, options: ListOptions) -> Result<Vec<DirEntry>>;

    /// Describes an entry; a link itself, not what it points to.
    ///
    /// # Errors
    /// With the path: [`NotFound`](crate::ErrorKind::NotFound),
    /// [`NotADirectory`](crate::ErrorKind::NotADirectory) (a file among the parents),
    /// [`PermissionDenied`](crate::ErrorKind::PermissionDenied).
    async fn metadata(&self, path: &GuestPath) -> Result<Metadata>;

    /// Removes a file, a link (not what it points to) or a directory. Names are taken literally,
    /// never as patterns.
    ///
    /// Dropping the future may leave a recursive removal half done.
    ///
    /// # Errors
    /// With the path: [`NotFound`](crate::ErrorKind::NotFound),
    /// [`DirectoryNotEmpty`](crate::ErrorKind::DirectoryNotEmpty) without `recursive`,
    /// [`PermissionDenied`](crate::ErrorKind::PermissionDenied),
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for the root,
    /// [`Busy`](crate::ErrorKind::Busy) for something mounted.
    async fn remove(&self, path: &GuestPath, options: RemoveOptions) -> Result<()>;

    /// Creates a directory, by default with its parents and content to find it there.
    ///
    /// # Errors
    /// With the path: [`AlreadyExists`](crate::ErrorKind::AlreadyExists) (something else than a
    /// directory, or anything at all if exclusive), [`NotFound`](crate::ErrorKind::NotFound) (the
    /// parent, if exclusive), [`NotADirectory`](crate::ErrorKind::NotADirectory),
    /// [`PermissionDenied`](crate::ErrorKind::PermissionDenied).
    async fn create_dir(&self, path: &GuestPath, options: CreateDirOptions) -> Result<()>;

    /// Renames a file, link or directory at once.
    ///
    /// # Errors
    /// With the path: [`NotFound`](crate::ErrorKind::NotFound),
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) without `replace`,
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a directory into itself,
    /// [`PermissionDenied`](crate::ErrorKind::PermissionDenied).
    async fn rename(&self, from: &GuestPath, to: &GuestPath, options: RenameOptions) -> Result<()>;

    /// Brings a directory of the host into the sandbox, below `to`, which is created if missing.
    ///
    /// Every file appears whole. Dropping the future may leave some files brought and others not.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound),
    /// [`NotADirectory`](crate::ErrorKind::NotADirectory) and
    /// [`PermissionDenied`](crate::ErrorKind::PermissionDenied) with the host path (checked for
    /// the top directory before anything is written),
    /// [`LimitExceeded`](crate::ErrorKind::LimitExceeded),
    /// [`StorageFull`](crate::ErrorKind::StorageFull).
    async fn import_dir(
        &self,
        from: &Path,
        to: &GuestPath,
        options: ImportOptions,
    ) -> Result<TransferReport>;

    /// Brings a directory of the sandbox to the host.
    ///
    /// The export is built beside its final name and put there complete; a failed or dropped one
    /// leaves nothing under that name (with [`ExistingDir::Merge`](crate::ExistingDir::Merge),
    /// each file appears whole). No link is followed; a link that leads out of the directory, an
    /// absolute one, a FIFO, socket or device is skipped and reported; setuid, setgid and sticky
    /// bits are dropped.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) and
    /// [`NotADirectory`](crate::ErrorKind::NotADirectory) with the path;
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) with the host path;
    /// [`LimitExceeded`](crate::ErrorKind::LimitExceeded).
    async fn export_dir(
        &self,
        from: &GuestPath,
        to: &Path,
        options: ExportOptions,
    ) -> Result<TransferReport>;

    /// Changes where relative paths and commands start, for later calls and forks.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound), [`NotADirectory`](crate::ErrorKind::NotADirectory)
    /// with the path.
    async fn set_workdir(&self, path: &GuestPath) -> Result<()>;

    /// Changes the environment of later commands and forks.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) naming the variable; nothing is changed
    /// then.
    async fn set_env(&self, changes: Env) -> Result<()>;

    /// Makes an independent sandbox with the same files, environment and workdir.
    ///
    /// The child sees the parent's files as of the call; from then on neither sees the other's
    /// writes, and either may be closed first. The cost does not grow with the number of files.
    /// Memory and processes are copied only where
    /// [`Capability::ForkMemory`](crate::Capability::ForkMemory) is declared. The child has the
    /// same layers around it as its parent.
    ///
    /// Dropping the future leaves no child.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) without
    /// [`Capability::Fork`](crate::Capability::Fork).
    async fn fork(&self, options: ForkOptions) -> Result<Arc<dyn Sandbox>>;

    /// Keeps the files under a name from which sandboxes can be created later.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) without
    /// [`Capability::Snapshot`](crate::Capability::Snapshot).
    async fn snapshot(&self, options: SnapshotOptions) -> Result<Snapshot>;

    /// Ends the sandbox: kills everything in it and frees what it holds.
    ///
    /// Idempotent and bounded in time. Commands that are running fail with
    /// [`Closed`](crate::ErrorKind::Closed) and their partial output; so does every later call.
    /// Dropping the future does not stop the closing.
    ///
    /// # Errors
    /// Only if something could not be freed; the sandbox is closed all the same.
    async fn close(&self) -> Result<()>;
}

macro_rules! forward {
    ($($pointer:ident),*) => {$(
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<T: Sandbox + ?Sized> Sandbox for $pointer<T> {
            fn info(&self) -> SandboxInfo {
                (**self).info()
            }
            fn capabilities(&self) -> Capabilities {
                (**self).capabilities()
            }
            async fn isolation(&self) -> Result<IsolationReport> {
                (**self).isolation().await
            }
            async fn exec(&self, command: Command) -> Result<Output> {
                (**self).exec(command).await
            }
            async fn spawn(&self, command: Command) -> Result<Process> {
                (**self).spawn(command).await
            }
            async fn write_files(&self, batch: FileBatch) -> Result<()> {
                (**self).write_files(batch).await
            }
            async fn read_file(&self, path: &GuestPath, options: ReadOptions) -> Result<Bytes> {
                (**self).read_file(path, options).await
            }
            async fn list_dir(
                &self,
                path: &GuestPath,
                options: ListOptions,
            ) -> Result<Vec<DirEntry>> {
                (**self).list_dir(path, options).await
            }
            async fn metadata(&self, path: &GuestPath) -> Result<Metadata> {
                (**self).metadata(path).await
            }
            async fn remove(&self, path: &GuestPath, options: RemoveOptions) -> Result<()> {
                (**self).remove(path, options).await
            }
            async fn create_dir(&self, path: &GuestPath, options: CreateDirOptions) -> Result<()> {
                (**self).create_dir(path, options).await
            }
            async fn rename(
                &self,
                from: &GuestPath,
                to: &GuestPath,
                options: RenameOptions,
            ) -> Result<()> {
                (**self).rename(from, to, options).await
            }
            async fn import_dir(
                &self,
                from: &Path,
                to: &GuestPath,
                options: ImportOptions,
            ) -> Result<TransferReport> {
                (**self).import_dir(from, to, options).await
            }
            async fn export_dir(
                &self,
                from: &GuestPath,
                to: &Path,
                options: ExportOptions,
            ) -> Result<TransferReport> {
                (**self).export_dir(from, to, options).await
            }
            async fn set_workdir(&self, path: &GuestPath) -> Result<()> {
                (**self).set_workdir(path).await
            }
            async fn set_env(&self, changes: Env) -> Result<()> {
                (**self).set_env(changes).await
            }
            async fn fork(&self, options: ForkOptions) -> Result<Arc<dyn Sandbox>> {
                (**self).fork(options).await
            }
            async fn snapshot(&self, options: SnapshotOptions) -> Result<Snapshot> {
                (**self).snapshot(options).await
            }
            async fn close(&self) -> Result<()> {
                (**self).close().await
            }
        }
    )*};
}
forward!(Arc, Box);
