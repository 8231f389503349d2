//! The trait `Sandbox` and its contract.

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::capability::refuse;
use crate::{
    Capabilities, Capability, Changes, ChangesOptions, Command, CreateDirOptions, DirEntry,
    EgressDecisions, EgressPolicy, Env, Error, Execution, ExportOptions, FileBatch, FileReader,
    FileWatch, FileWriter, ForkOptions, GuestPath, ImportOptions, IsolationReport, Job, JobInfo,
    JobKey, JobOptions, ListOptions, Metadata, MetadataOptions, OpenReadOptions, OpenWriteOptions,
    Operation, Output, PortStream, Process, ReadOptions, RemoveOptions, RenameOptions, Result,
    SandboxId, SandboxInfo, Snapshot, SnapshotOptions, TransferReport, Usage, WatchOptions,
};

/// The error of a method that a backend did not write, for one of its sandboxes.
fn refuse_in(
    id: SandboxId,
    capabilities: &Capabilities,
    needs: Capability,
    operation: Operation,
) -> Error {
    refuse(capabilities, needs, operation).with_sandbox(id)
}

#[doc = include_str!("../docs/contract.md")]
#[async_trait]
pub trait Sandbox: Debug + Send + Sync + 'static {
    /// The sandbox's identifier, backend, workdir and labels. No I/O; works on a closed sandbox
    /// too.
    ///
    /// ```no_run
    /// # use sandbox_core::Sandbox;
    /// # fn example(sandbox: &dyn Sandbox) {
    /// let info = sandbox.info();
    /// println!("{} of {} in {}", info.id, info.backend, info.workdir);
    /// # }
    /// ```
    fn info(&self) -> SandboxInfo;

    /// The capabilities of the backend. No I/O; the same for the life of the sandbox.
    ///
    /// ```no_run
    /// # use sandbox_core::{Capability, Sandbox};
    /// # fn example(sandbox: &dyn Sandbox) {
    /// if !sandbox.capabilities().has(Capability::Fork) {
    ///     eprintln!("this backend makes no forks: use a snapshot, or a second sandbox");
    /// }
    /// # }
    /// ```
    fn capabilities(&self) -> Capabilities;

    /// Which isolation is in force, probed from inside the sandbox, not read from configuration.
    ///
    /// Dropping the future has no effect on the sandbox.
    ///
    /// ```no_run
    /// # use sandbox_core::{Control, Result, Sandbox};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// let report = sandbox.isolation().await?;
    /// assert!(report.is_enforced(Control::Filesystem), "{report}");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The common ones (see [the trait](Sandbox#errors)).
    async fn isolation(&self) -> Result<IsolationReport> {
        Err(refuse_in(
            self.info().id,
            &self.capabilities(),
            Capability::Isolation,
            Operation::Isolation,
        ))
    }

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
    /// ```no_run
    /// # use sandbox_core::{Command, Result, Sandbox};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// use std::time::Duration;
    /// let command = Command::new("python3").arg("main.py").timeout(Duration::from_secs(10));
    /// let output = sandbox.exec(command).await?;
    /// if !output.success() {
    ///     eprintln!("{}: {}", output.status, output.stderr.to_string_lossy());
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::execution`](crate::Error::execution) says whether the command ran. Not started:
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
    /// ```no_run
    /// # use sandbox_core::{Command, Result, Sandbox};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// use tokio::io::AsyncReadExt as _;
    /// let mut process = sandbox.spawn(Command::new("make")).await?;
    /// let mut text = String::new();
    /// if let Some(mut stdout) = process.stdout.take() {
    ///     stdout.read_to_string(&mut text).await.ok();
    /// }
    /// println!("{text}{}", process.wait().await?.status);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`exec`](Sandbox::exec) that mean "not started".
    async fn spawn(&self, command: Command) -> Result<Process> {
        let _ = command;
        let error = refuse_in(
            self.info().id,
            &self.capabilities(),
            Capability::Spawn,
            Operation::Spawn,
        );
        Err(error.with_execution(Execution::NotStarted))
    }

    /// Writes a batch of files: all of it or none of it.
    ///
    /// The files are staged and then put in place; a reader sees an old file or a new one, never a
    /// part. Missing parents are created. A link at a file's own name is replaced, not followed;
    /// links among its parents are followed within the sandbox.
    ///
    /// Dropping the future leaves all of the batch or nothing; if putting in place has begun it is
    /// finished.
    ///
    /// ```no_run
    /// # use sandbox_core::{FileBatch, Mode, Result, Sandbox};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// let batch = FileBatch::new()
    ///     .file("numbers.txt", "3\n1\n2\n")
    ///     .file_with_mode("run.sh", "#!/bin/sh\nsort numbers.txt\n", Mode::EXECUTABLE);
    /// sandbox.write_files(batch).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// With the path: [`InvalidInput`](crate::ErrorKind::InvalidInput) (see
    /// [`FileBatch::resolve`]), [`AlreadyExists`](crate::ErrorKind::AlreadyExists),
    /// [`IsADirectory`](crate::ErrorKind::IsADirectory),
    /// [`NotADirectory`](crate::ErrorKind::NotADirectory),
    /// [`NotARegularFile`](crate::ErrorKind::NotARegularFile) for a FIFO, socket or device at the name,
    /// [`PermissionDenied`](crate::ErrorKind::PermissionDenied) (also for a file that the
    /// sandbox's user may not write), [`ReadOnly`](crate::ErrorKind::ReadOnly),
    /// [`StorageFull`](crate::ErrorKind::StorageFull).
    async fn write_files(&self, batch: FileBatch) -> Result<()>;

    /// Reads a regular file whole. Links are followed within the sandbox. A file that the kernel makes
    /// up (`/proc`, `/sys`) is read whole too, or is refused as not a regular file.
    ///
    /// Dropping the future stops the reading.
    ///
    /// ```no_run
    /// # use sandbox_core::{ReadOptions, Result, Sandbox};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// let options = ReadOptions::new().limit(1 << 20);
    /// let bytes = sandbox.read_file(&"result.json".into(), options).await?;
    /// println!("{} bytes", bytes.len());
    /// # Ok(()) }
    /// ```
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
    /// ```no_run
    /// # use sandbox_core::{ListOptions, Result, Sandbox};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// let options = ListOptions::new().recursive(true).limit(10_000);
    /// for entry in sandbox.list_dir(&"src".into(), options).await? {
    ///     println!("{}", entry.path);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// With the path: [`NotFound`](crate::ErrorKind::NotFound),
    /// [`NotADirectory`](crate::ErrorKind::NotADirectory),
    /// [`PermissionDenied`](crate::ErrorKind::PermissionDenied),
    /// [`LimitExceeded`](crate::ErrorKind::LimitExceeded).
    async fn list_dir(&self, path: &GuestPath, options: ListOptions) -> Result<Vec<DirEntry>>;

    /// Describes an entry: by default a link itself, not what it points to.
    ///
    /// ```no_run
    /// # use sandbox_core::{MetadataOptions, Result, Sandbox};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// let options = MetadataOptions::new().follow(true);
    /// let metadata = sandbox.metadata(&"current".into(), options).await?;
    /// println!("{} bytes", metadata.size);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// With the path: [`NotFound`](crate::ErrorKind::NotFound) (followed, also for a link that
    /// leads nowhere), [`NotADirectory`](crate::ErrorKind::NotADirectory) (a file among the
    /// parents), [`PermissionDenied`](crate::ErrorKind::PermissionDenied).
    async fn metadata(&self, path: &GuestPath, options: MetadataOptions) -> Result<Metadata>;

    /// Removes a file, a link (not what it points to) or a directory. Names are taken literally,
    /// never as patterns.
    ///
    /// Dropping the future may leave a recursive removal half done.
    ///
    /// ```no_run
    /// # use sandbox_core::{RemoveOptions, Result, Sandbox};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// let options = RemoveOptions::new().recursive(true).ignore_missing(true);
    /// sandbox.remove(&"target".into(), options).await?;
    /// # Ok(()) }
    /// ```
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
    /// ```no_run
    /// # use sandbox_core::{CreateDirOptions, Mode, Result, Sandbox};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// let options = CreateDirOptions::new().recursive(false).mode(Mode::new(0o700));
    /// sandbox.create_dir(&"private".into(), options).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// With the path: [`AlreadyExists`](crate::ErrorKind::AlreadyExists) (something else than a
    /// directory, or anything at all if exclusive), [`NotFound`](crate::ErrorKind::NotFound) (the
    /// parent, if exclusive), [`NotADirectory`](crate::ErrorKind::NotADirectory),
    /// [`PermissionDenied`](crate::ErrorKind::PermissionDenied).
    async fn create_dir(&self, path: &GuestPath, options: CreateDirOptions) -> Result<()>;

    /// Renames a file, link or directory at once.
    ///
    /// ```no_run
    /// # use sandbox_core::{RenameOptions, Result, Sandbox};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// let options = RenameOptions::new().replace(true);
    /// sandbox.rename(&"new.txt".into(), &"old.txt".into(), options).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// With the path: [`NotFound`](crate::ErrorKind::NotFound),
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) without `replace`,
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a directory into itself,
    /// [`PermissionDenied`](crate::ErrorKind::PermissionDenied).
    async fn rename(&self, from: &GuestPath, to: &GuestPath, options: RenameOptions) -> Result<()>;

    /// Brings a directory of the host into the sandbox, below `to`, which is created if missing.
    ///
    /// Every file appears whole: what is there is replaced by a rename, so that a file that may not
    /// be written to is replaced too. Dropping the future may leave some files brought and others
    /// not. An entry that the host can't read is skipped and reported, or an error; see
    /// [`ImportOptions::unreadable`].
    ///
    /// Permission bits and modification times of files and directories are kept (times before 1970
    /// and far in the future too, in whole seconds where an archive carries them), and those of
    /// links where the backend can. Large holes of sparse files stay holes. Further names of a
    /// file (hard links) become files of their own; owners, extended attributes and ACLs are not
    /// brought.
    ///
    /// ```no_run
    /// # use sandbox_core::{ImportOptions, Result, Sandbox};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// use std::path::Path;
    /// let options = ImportOptions::new().ignore_files(true).exclude("/.git").mirror(true);
    /// let report = sandbox.import_dir(Path::new("/src/app"), &"app".into(), options).await?;
    /// println!("{} files, {} removed", report.files, report.removed);
    /// # Ok(()) }
    /// ```
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
    ) -> Result<TransferReport> {
        let _ = (from, to, options);
        Err(not_written(Operation::ImportDir))
    }

    /// Brings a directory of the sandbox to the host.
    ///
    /// The export is built beside its final name and put there complete; a failed or dropped one
    /// leaves nothing under that name (with [`ExistingDir::Merge`](crate::ExistingDir::Merge),
    /// it is built within the directory and each entry appears whole). Whichever step fails, what
    /// was there before is not lost: it has its name still, or the error says where it is.
    ///
    /// - The directory above the final name must exist: it is not made.
    /// - A file, a link (to a directory too) or anything else that is not a directory at the final
    ///   name is [`AlreadyExists`](crate::ErrorKind::AlreadyExists) in every mode.
    /// - Merging replaces files and links, never what a link points to. Where one side has a
    ///   directory and the other has not, it is refused before anything is moved, with
    ///   [`NotADirectory`](crate::ErrorKind::NotADirectory) or
    ///   [`IsADirectory`](crate::ErrorKind::IsADirectory).
    /// - Beyond a limit of bytes or entries nothing is exported.
    ///
    /// No link is followed. A link is skipped and reported if it could lead out of the directory,
    /// whatever other entries are: an absolute one, and one with a `..` that climbs above the top
    /// or comes after a name. A FIFO, socket or device is skipped and reported, and so is an entry
    /// that the sandbox's user can't read, unless
    /// [`ExportOptions::unreadable`] says otherwise. Setuid, setgid and sticky bits are dropped.
    /// Modification times, holes and further names of a file are as with
    /// [`import_dir`](Self::import_dir).
    ///
    /// ```no_run
    /// # use sandbox_core::{ExistingDir, ExportOptions, Result, Sandbox};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// use std::path::Path;
    /// let options = ExportOptions::new().existing(ExistingDir::Replace).max_bytes(1 << 30);
    /// let report = sandbox.export_dir(&"dist".into(), Path::new("/srv/dist"), options).await?;
    /// for left in &report.skipped {
    ///     eprintln!("left out {}: {}", left.path, left.reason);
    /// }
    /// # Ok(()) }
    /// ```
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
    ) -> Result<TransferReport> {
        let _ = (from, to, options);
        Err(not_written(Operation::ExportDir))
    }

    /// Changes where relative paths and commands start, for later calls and forks.
    ///
    /// ```no_run
    /// # use sandbox_core::{Result, Sandbox};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// sandbox.set_workdir(&"project".into()).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound), [`NotADirectory`](crate::ErrorKind::NotADirectory)
    /// with the path.
    async fn set_workdir(&self, path: &GuestPath) -> Result<()> {
        let _ = path;
        Err(not_written(Operation::SetWorkdir))
    }

    /// Changes the environment of later commands and forks.
    ///
    /// ```no_run
    /// # use sandbox_core::{Env, Result, Sandbox};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// sandbox.set_env(Env::new().set("LANG", "C.UTF-8").unset("DEBUG")).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) naming the variable; nothing is changed
    /// then.
    async fn set_env(&self, changes: Env) -> Result<()> {
        let _ = changes;
        Err(not_written(Operation::SetEnv))
    }

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
    /// ```no_run
    /// # use sandbox_core::{ForkOptions, Result, Sandbox};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// let fork = sandbox.fork(ForkOptions::new().label("attempt", "1")).await?;
    /// assert_eq!(fork.info().parent, Some(sandbox.info().id));
    /// fork.close().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) without
    /// [`Capability::Fork`](crate::Capability::Fork).
    async fn fork(&self, options: ForkOptions) -> Result<Arc<dyn Sandbox>> {
        let _ = options;
        Err(refuse_in(
            self.info().id,
            &self.capabilities(),
            Capability::Fork,
            Operation::Fork,
        ))
    }

    /// Keeps the files under a name from which sandboxes can be created later.
    ///
    /// ```no_run
    /// # use sandbox_core::{Result, Sandbox, SandboxSpec, SnapshotOptions, Source};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// let snapshot = sandbox.snapshot(SnapshotOptions::new().label("base", "1")).await?;
    /// let spec = SandboxSpec::new().source(Source::Snapshot(snapshot.id));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) without
    /// [`Capability::Snapshot`](crate::Capability::Snapshot).
    async fn snapshot(&self, options: SnapshotOptions) -> Result<Snapshot> {
        let _ = options;
        Err(refuse_in(
            self.info().id,
            &self.capabilities(),
            Capability::Snapshot,
            Operation::Snapshot,
        ))
    }

    /// Decisions about the names and hosts that the sandbox tried to reach, from the decision
    /// after number `after` on; 0 for all. Only for a sandbox with
    /// [`Network::Allow`](crate::Network::Allow).
    ///
    /// A backend keeps the last decisions and forgets older ones, which
    /// [`missed`](EgressDecisions::missed) counts. Asking does not count as a use: it does not keep a sandbox
    /// from expiring. Dropping the future has no effect.
    ///
    /// ```no_run
    /// # use sandbox_core::{EgressVerdict, Result, Sandbox};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// let mut seen = 0;
    /// let found = sandbox.egress_decisions(seen).await?;
    /// for decision in &found.decisions {
    ///     if decision.verdict == EgressVerdict::Denied {
    ///         eprintln!("{} {:?}: {}", decision.host, decision.port, decision.reason);
    ///     }
    /// }
    /// seen = found.last().unwrap_or(seen);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) without
    /// [`Capability::EgressByName`](crate::Capability::EgressByName);
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a sandbox without a policy.
    async fn egress_decisions(&self, after: u64) -> Result<EgressDecisions> {
        let _ = after;
        Err(refuse_in(
            self.info().id,
            &self.capabilities(),
            Capability::EgressByName,
            Operation::EgressDecisions,
        )
        .with_sandbox(self.info().id))
    }

    /// Allows from now on only what both this policy and that of the sandbox's creation allow, and
    /// cuts the connections that this forbids: also those whose rule allowed private addresses and
    /// now does not, wherever they lead. The next call takes the place of this one; an empty
    /// policy allows nothing. Forks made from now on inherit it.
    ///
    /// Credentials stay those of the creation's policy; the limits of this one are not looked at.
    /// Dropping the future before it is done leaves the old state or the new.
    ///
    /// ```no_run
    /// # use sandbox_core::{EgressPolicy, EgressRule, Result, Sandbox};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// // The packages are there: from now on only the API.
    /// let api = EgressPolicy::new().rule(EgressRule::exact("api.example.com"));
    /// sandbox.restrict_egress(api).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) without
    /// [`Capability::EgressByName`](crate::Capability::EgressByName);
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a policy without a meaning, or a sandbox
    /// that was created without one.
    async fn restrict_egress(&self, policy: EgressPolicy) -> Result<()> {
        let _ = policy;
        Err(refuse_in(
            self.info().id,
            &self.capabilities(),
            Capability::EgressByName,
            Operation::RestrictEgress,
        )
        .with_sandbox(self.info().id))
    }

    /// Starts a command once under a key, and keeps its output: a job.
    ///
    /// A job does not depend on its caller: it runs on when the future or the handle is dropped,
    /// and is found again by its key ([`find_job`](Sandbox::find_job)). A second start with the
    /// same key, command and options gives a handle to the same job, also when it has ended, so
    /// that a call whose answer was lost may be made again: the command ran once. The key is kept
    /// until it is [forgotten](Job::forget); it is free again after a start that failed with
    /// [`Execution::NotStarted`].
    ///
    /// Output goes to a log that keeps the last bytes ([`JobOptions::log_limit`]); a log without a
    /// reader does not hold the program up, unlike a stream of a spawned process. Standard input is
    /// written by offset if the command asks for a pipe or a terminal. A fork has no jobs of its
    /// parent.
    ///
    /// ```no_run
    /// # use sandbox_core::{Command, JobOptions, LogOptions, Result, Sandbox};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// let command = Command::new("make").arg("test");
    /// let job = sandbox.start_job(&"test".into(), command, JobOptions::new()).await?;
    /// let exit = job.wait().await?;
    /// let log = job.read_log(0, LogOptions::new()).await?;
    /// println!("{}: {}", exit.status, String::from_utf8_lossy(&log.bytes()));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`spawn`](Sandbox::spawn); [`Conflict`](crate::ErrorKind::Conflict) for a key that
    /// was started with another command or other options;
    /// [`LimitExceeded`](crate::ErrorKind::LimitExceeded) for more jobs than the backend keeps;
    /// [`Unsupported`](crate::ErrorKind::Unsupported) without
    /// [`Capability::Jobs`](crate::Capability::Jobs) (the default).
    async fn start_job(&self, key: &JobKey, command: Command, options: JobOptions) -> Result<Job> {
        let _ = (key, command, options);
        let error = refuse_in(
            self.info().id,
            &self.capabilities(),
            Capability::Jobs,
            Operation::StartJob,
        );
        Err(error.with_execution(Execution::NotStarted))
    }

    /// A handle to the job that was started under a key.
    ///
    /// ```no_run
    /// # use sandbox_core::{Result, Sandbox};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// let job = sandbox.find_job(&"test".into()).await?;
    /// job.stop().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound);
    /// [`Unsupported`](crate::ErrorKind::Unsupported) without
    /// [`Capability::Jobs`](crate::Capability::Jobs) (the default).
    async fn find_job(&self, key: &JobKey) -> Result<Job> {
        let _ = key;
        Err(refuse_in(
            self.info().id,
            &self.capabilities(),
            Capability::Jobs,
            Operation::FindJob,
        ))
    }

    /// The jobs of the sandbox, oldest first, with those that have ended and were not forgotten.
    ///
    /// ```no_run
    /// # use sandbox_core::{Result, Sandbox};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// for job in sandbox.list_jobs().await? {
    ///     println!("{}: {:?}", job.key, job.state);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) without
    /// [`Capability::Jobs`](crate::Capability::Jobs) (the default).
    async fn list_jobs(&self) -> Result<Vec<JobInfo>> {
        Err(refuse_in(
            self.info().id,
            &self.capabilities(),
            Capability::Jobs,
            Operation::ListJobs,
        ))
    }

    /// Connects to a TCP port on which a program in the sandbox listens, at 127.0.0.1 or `::1`. The
    /// sandbox needs no network for it.
    ///
    /// Dropping the future makes no connection.
    ///
    /// ```no_run
    /// # use sandbox_core::{Result, Sandbox};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<(), Box<dyn std::error::Error>> {
    /// use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    /// let mut stream = sandbox.connect_port(8080).await?;
    /// stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
    /// let mut answer = String::new();
    /// stream.read_to_string(&mut answer).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`NotListening`](crate::ErrorKind::NotListening) (see
    /// [`wait_for_port`](crate::SandboxExt::wait_for_port));
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for port 0;
    /// [`Unsupported`](crate::ErrorKind::Unsupported) without
    /// [`Capability::Ports`](crate::Capability::Ports) (the default).
    async fn connect_port(&self, port: u16) -> Result<PortStream> {
        let _ = port;
        Err(refuse_in(
            self.info().id,
            &self.capabilities(),
            Capability::Ports,
            Operation::ConnectPort,
        ))
    }

    /// Opens a regular file, or a part of it, as a stream. Links are followed within the sandbox.
    /// Memory does not grow with the file.
    ///
    /// ```no_run
    /// # use sandbox_core::{OpenReadOptions, Result, Sandbox};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut from = sandbox.open_read(&"video.mp4".into(), OpenReadOptions::new()).await?;
    /// let mut to = tokio::io::sink();
    /// tokio::io::copy(&mut from, &mut to).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`read_file`](Sandbox::read_file), without a limit;
    /// [`Unsupported`](crate::ErrorKind::Unsupported) without
    /// [`Capability::FileStreams`](crate::Capability::FileStreams) (the default). While reading, an
    /// I/O error.
    async fn open_read(&self, path: &GuestPath, options: OpenReadOptions) -> Result<FileReader> {
        let _ = (path, options);
        Err(refuse_in(
            self.info().id,
            &self.capabilities(),
            Capability::FileStreams,
            Operation::OpenRead,
        ))
    }

    /// Opens a new file as a stream. It gets its name, whole, with [`commit`](FileWriter::commit):
    /// a reader sees the old file or the new one. Missing parents are created at the commit. Memory
    /// does not grow with the file.
    ///
    /// Dropping the writer leaves nothing. A fork may wait for an open writer, within a bound, and
    /// be [`Busy`](crate::ErrorKind::Busy) then: commit before you fork.
    ///
    /// ```no_run
    /// # use sandbox_core::{OpenWriteOptions, Result, Sandbox};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut to = sandbox.open_write(&"data.bin".into(), OpenWriteOptions::new()).await?;
    /// let mut from = tokio::io::repeat(0);
    /// tokio::io::copy(&mut tokio::io::AsyncReadExt::take(&mut from, 3 << 30), &mut to).await?;
    /// to.commit().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`write_files`](Sandbox::write_files), here or at the commit;
    /// [`Unsupported`](crate::ErrorKind::Unsupported) without
    /// [`Capability::FileStreams`](crate::Capability::FileStreams) (the default).
    async fn open_write(&self, path: &GuestPath, options: OpenWriteOptions) -> Result<FileWriter> {
        let _ = (path, options);
        Err(refuse_in(
            self.info().id,
            &self.capabilities(),
            Capability::FileStreams,
            Operation::OpenWrite,
        ))
    }

    /// Compares a directory with the files that the sandbox began with: those of its parent when it
    /// was forked, of the snapshot, image or directory that it was created from, or the backend's
    /// own.
    ///
    /// Fork a sandbox to have a point to compare with: the changes of the fork are what was done
    /// since. Bytes, kinds, link targets and permission bits count; times and owners do not. A
    /// directory of the host that is mounted has no beginning: it is named in
    /// [`skipped`](Changes::skipped), or refused if it is what was asked about.
    ///
    /// Processes stand still meanwhile, as for a fork. Dropping the future has no effect on the
    /// sandbox.
    ///
    /// ```no_run
    /// # use sandbox_core::{ChangesOptions, ForkOptions, Result, Sandbox, SandboxExt as _};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// sandbox.import("/home/me/project", "project").await?;
    /// let work = sandbox.fork(ForkOptions::new()).await?;
    /// work.sh("cd project && ./agent").await?;
    /// let options = ChangesOptions::new().exclude("/target");
    /// for change in &work.changes(&"project".into(), options).await?.entries {
    ///     println!("{:?} {}", change.kind(), change.path);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// With the path: [`NotFound`](crate::ErrorKind::NotFound) if it is there neither before nor
    /// after, [`NotADirectory`](crate::ErrorKind::NotADirectory) (a link too: none is followed),
    /// [`LimitExceeded`](crate::ErrorKind::LimitExceeded), which states the limit;
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a directory of the host that is
    /// mounted; [`Busy`](crate::ErrorKind::Busy) if its processes can't be held still;
    /// [`Unsupported`](crate::ErrorKind::Unsupported) without
    /// [`Capability::Changes`](crate::Capability::Changes) (the default).
    async fn changes(&self, path: &GuestPath, options: ChangesOptions) -> Result<Changes> {
        let _ = (path, options);
        Err(refuse_in(
            self.info().id,
            &self.capabilities(),
            Capability::Changes,
            Operation::Changes,
        ))
    }

    /// Tells what the sandbox uses at the moment, as far as the backend knows.
    ///
    /// Asking does not count as use: a sandbox expires all the same. Dropping the future has no
    /// effect.
    ///
    /// ```no_run
    /// # use sandbox_core::{Result, Sandbox};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// let usage = sandbox.usage().await?;
    /// if let Some(memory) = usage.memory {
    ///     println!("{} MiB", memory >> 20);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) without
    /// [`Capability::Usage`](crate::Capability::Usage) (the default).
    async fn usage(&self) -> Result<Usage> {
        Err(refuse_in(
            self.info().id,
            &self.capabilities(),
            Capability::Usage,
            Operation::Usage,
        ))
    }

    /// Watches a directory with all that is below it, and gives events of what changes there from
    /// now on.
    ///
    /// An event is a reason to look at a path: events of one path are merged, more events than
    /// [`events`](WatchOptions::events) become one [`Rescan`](crate::FileEvent::Rescan), and what is
    /// at the path is what is there when it is looked at. No link is followed. A change is told
    /// soon, at the latest a few seconds later.
    ///
    /// The watch ends with [`Closed`](crate::ErrorKind::Closed) when the sandbox is closed, with
    /// [`NotFound`](crate::ErrorKind::NotFound) when the directory is removed or renamed and with
    /// [`LimitExceeded`](crate::ErrorKind::LimitExceeded) when the tree grows beyond
    /// [`directories`](WatchOptions::directories). A fork is not watched. Dropping the future
    /// watches nothing.
    ///
    /// ```no_run
    /// # use sandbox_core::{FileEvent, Result, Sandbox, WatchOptions};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// let mut watch = sandbox.watch(&"project".into(), WatchOptions::new()).await?;
    /// loop {
    ///     for event in watch.next().await? {
    ///         match event {
    ///             FileEvent::Rescan => println!("look at everything again"),
    ///             event => println!("{event:?}"),
    ///         }
    ///     }
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// With the path: [`NotFound`](crate::ErrorKind::NotFound),
    /// [`NotADirectory`](crate::ErrorKind::NotADirectory),
    /// [`PermissionDenied`](crate::ErrorKind::PermissionDenied),
    /// [`LimitExceeded`](crate::ErrorKind::LimitExceeded), which states the limit;
    /// [`Unsupported`](crate::ErrorKind::Unsupported) without
    /// [`Capability::Watch`](crate::Capability::Watch) (the default).
    async fn watch(&self, path: &GuestPath, options: WatchOptions) -> Result<FileWatch> {
        let _ = (path, options);
        Err(refuse_in(
            self.info().id,
            &self.capabilities(),
            Capability::Watch,
            Operation::Watch,
        ))
    }

    /// Holds everything in the sandbox still until [`resume`](Sandbox::resume). When this returns
    /// nothing in it runs; a second call changes nothing.
    ///
    /// Meanwhile files can be read and written and `close` ends the sandbox. What needs its
    /// programs (`exec`, `spawn`, `start_job`, `fork`, `snapshot`) is
    /// [`Busy`](crate::ErrorKind::Busy), and a command is not started. Clocks go on: a command whose
    /// timeout passes meanwhile is killed, and a time to live counts.
    ///
    /// Dropping the future leaves it paused or not.
    ///
    /// ```no_run
    /// # use sandbox_core::{Result, Sandbox};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// sandbox.pause().await?;
    /// // Nothing runs, nothing is lost.
    /// sandbox.resume().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Busy`](crate::ErrorKind::Busy) if its processes can't be held still: then they run;
    /// [`Unsupported`](crate::ErrorKind::Unsupported) without
    /// [`Capability::Pause`](crate::Capability::Pause) (the default).
    async fn pause(&self) -> Result<()> {
        Err(refuse_in(
            self.info().id,
            &self.capabilities(),
            Capability::Pause,
            Operation::Pause,
        ))
    }

    /// Lets everything go on that [`pause`](Sandbox::pause) held still; otherwise changes nothing.
    ///
    /// Dropping the future leaves it paused or not.
    ///
    /// ```no_run
    /// # use sandbox_core::{Result, Sandbox};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// sandbox.pause().await?;
    /// // The user looks at what was done so far.
    /// sandbox.resume().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) without
    /// [`Capability::Pause`](crate::Capability::Pause) (the default).
    async fn resume(&self) -> Result<()> {
        Err(refuse_in(
            self.info().id,
            &self.capabilities(),
            Capability::Pause,
            Operation::Resume,
        ))
    }

    /// Ends the sandbox: kills everything in it and frees what it holds.
    ///
    /// Idempotent and bounded in time. Commands that are running fail with
    /// [`Closed`](crate::ErrorKind::Closed) and their partial output; so does every later call.
    /// Dropping the future does not stop the closing.
    ///
    /// ```no_run
    /// # use sandbox_core::{Result, Sandbox};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// sandbox.close().await?;
    /// sandbox.close().await?; // a second time does nothing
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Only if something could not be freed; the sandbox is closed all the same.
    async fn close(&self) -> Result<()>;
}

/// The error of a method that a backend did not write and that needs no capability.
fn not_written(operation: Operation) -> Error {
    Error::unsupported(operation, operation, "this backend does not implement it")
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
            async fn metadata(
                &self,
                path: &GuestPath,
                options: MetadataOptions,
            ) -> Result<Metadata> {
                (**self).metadata(path, options).await
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
            async fn egress_decisions(&self, after: u64) -> Result<EgressDecisions> {
                (**self).egress_decisions(after).await
            }
            async fn restrict_egress(&self, policy: EgressPolicy) -> Result<()> {
                (**self).restrict_egress(policy).await
            }
            async fn start_job(
                &self,
                key: &JobKey,
                command: Command,
                options: JobOptions,
            ) -> Result<Job> {
                (**self).start_job(key, command, options).await
            }
            async fn find_job(&self, key: &JobKey) -> Result<Job> {
                (**self).find_job(key).await
            }
            async fn list_jobs(&self) -> Result<Vec<JobInfo>> {
                (**self).list_jobs().await
            }
            async fn connect_port(&self, port: u16) -> Result<PortStream> {
                (**self).connect_port(port).await
            }
            async fn open_read(
                &self,
                path: &GuestPath,
                options: OpenReadOptions,
            ) -> Result<FileReader> {
                (**self).open_read(path, options).await
            }
            async fn open_write(
                &self,
                path: &GuestPath,
                options: OpenWriteOptions,
            ) -> Result<FileWriter> {
                (**self).open_write(path, options).await
            }
            async fn changes(&self, path: &GuestPath, options: ChangesOptions) -> Result<Changes> {
                (**self).changes(path, options).await
            }
            async fn usage(&self) -> Result<Usage> {
                (**self).usage().await
            }
            async fn watch(&self, path: &GuestPath, options: WatchOptions) -> Result<FileWatch> {
                (**self).watch(path, options).await
            }
            async fn pause(&self) -> Result<()> {
                (**self).pause().await
            }
            async fn resume(&self) -> Result<()> {
                (**self).resume().await
            }
            async fn close(&self) -> Result<()> {
                (**self).close().await
            }
        }
    )*};
}
forward!(Arc, Box);
