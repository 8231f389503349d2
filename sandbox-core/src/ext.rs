//! Everyday calls without options, on top of the trait. They add no behaviour of their own, but for
//! several forks side by side.

use std::future::poll_fn;
use std::path::Path;
use std::sync::Arc;
use std::task::Poll;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    Changes, ChangesOptions, Command, CreateDirOptions, DirEntry, Error, ErrorKind, ExportOptions,
    FileBatch, FileReader, FileWatch, FileWriter, ForkOptions, GuestPath, ImportOptions, Job,
    JobKey, JobOptions, ListOptions, Metadata, MetadataOptions, OpenReadOptions, OpenWriteOptions,
    Operation, Output, PortWaitOptions, ReadOptions, RemoveOptions, RenameOptions, Result, Sandbox,
    Snapshot, SnapshotOptions, TransferReport, WatchOptions,
};

/// Forks that [`SandboxExt::fork_many`] has under way at a time.
const FORKS_AT_ONCE: usize = 8;

mod sealed {
    pub trait Sealed {}
    impl<T: crate::Sandbox + ?Sized> Sealed for T {}
}

/// Everyday calls without options; implemented for every [`Sandbox`].
#[async_trait]
pub trait SandboxExt: Sandbox + sealed::Sealed {
    /// Runs a script with `/bin/sh -c`. See [`Sandbox::exec`].
    ///
    /// ```no_run
    /// # use sandbox_core::{Result, Sandbox, SandboxExt};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// let output = sandbox.sh("ls | wc -l").await?;
    /// println!("{}", output.stdout.to_string_lossy());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`Sandbox::exec`].
    async fn sh<S: AsRef<[u8]> + Send>(&self, script: S) -> Result<Output> {
        self.exec(Command::shell(script)).await
    }

    /// Writes one file, replacing what is there. See [`Sandbox::write_files`].
    ///
    /// ```no_run
    /// # use sandbox_core::{Result, Sandbox, SandboxExt};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// sandbox.write("src/main.rs", "fn main() {}\n").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`Sandbox::write_files`].
    async fn write<P, C>(&self, path: P, content: C) -> Result<()>
    where
        P: Into<GuestPath> + Send,
        C: Into<Bytes> + Send,
    {
        self.write_files(FileBatch::new().file(path, content)).await
    }

    /// Reads a file within the default limit. See [`Sandbox::read_file`].
    ///
    /// ```no_run
    /// # use sandbox_core::{Result, Sandbox, SandboxExt};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// let bytes = sandbox.read("target/app").await?;
    /// println!("{} bytes", bytes.len());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`Sandbox::read_file`].
    async fn read<P: Into<GuestPath> + Send>(&self, path: P) -> Result<Bytes> {
        self.read_file(&path.into(), ReadOptions::new()).await
    }

    /// Reads a file of UTF-8 text within the default limit.
    ///
    /// ```no_run
    /// # use sandbox_core::{Result, Sandbox, SandboxExt};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// let text = sandbox.read_to_string("README.md").await?;
    /// println!("{text}");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`Sandbox::read_file`]; [`ErrorKind::InvalidInput`] if it is not UTF-8.
    async fn read_to_string<P: Into<GuestPath> + Send>(&self, path: P) -> Result<String> {
        let path = path.into();
        let bytes = self.read_file(&path, ReadOptions::new()).await?;
        String::from_utf8(bytes.into()).map_err(|error| {
            Error::new(ErrorKind::InvalidInput, Operation::ReadFile)
                .with_message("the file is not UTF-8")
                .with_path(path)
                .with_source(error)
        })
    }

    /// Lists a directory, not descending. See [`Sandbox::list_dir`].
    ///
    /// ```no_run
    /// # use sandbox_core::{Result, Sandbox, SandboxExt};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// for entry in sandbox.list(".").await? {
    ///     println!("{} {} bytes", entry.path, entry.metadata.size);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`Sandbox::list_dir`].
    async fn list<P: Into<GuestPath> + Send>(&self, path: P) -> Result<Vec<DirEntry>> {
        self.list_dir(&path.into(), ListOptions::new()).await
    }

    /// Whether something is there, be it a dangling link. See [`Sandbox::metadata`].
    ///
    /// ```no_run
    /// # use sandbox_core::{Result, Sandbox, SandboxExt};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// if !sandbox.exists("Cargo.toml").await? {
    ///     sandbox.sh("cargo init").await?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`Sandbox::metadata`], except [`ErrorKind::NotFound`] and
    /// [`ErrorKind::NotADirectory`].
    async fn exists<P: Into<GuestPath> + Send>(&self, path: P) -> Result<bool> {
        match self.metadata(&path.into(), MetadataOptions::new()).await {
            Ok(_) => Ok(true),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Removes a file or a whole directory. See [`Sandbox::remove`].
    ///
    /// ```no_run
    /// # use sandbox_core::{Result, Sandbox, SandboxExt};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// sandbox.remove_all("target").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`Sandbox::remove`].
    async fn remove_all<P: Into<GuestPath> + Send>(&self, path: P) -> Result<()> {
        self.remove(&path.into(), RemoveOptions::new().recursive(true))
            .await
    }

    /// Removes a file, a link or an empty directory. See [`Sandbox::remove`].
    ///
    /// ```no_run
    /// # use sandbox_core::{Result, Sandbox, SandboxExt};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// sandbox.remove_one("notes.txt").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`Sandbox::remove`].
    async fn remove_one<P: Into<GuestPath> + Send>(&self, path: P) -> Result<()> {
        self.remove(&path.into(), RemoveOptions::new()).await
    }

    /// Opens a file to read it piece by piece, from its beginning. See [`Sandbox::open_read`].
    ///
    /// ```no_run
    /// # use sandbox_core::{Result, Sandbox, SandboxExt};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// let reader = sandbox.reader("build.log").await?;
    /// # let _ = reader;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`Sandbox::open_read`].
    async fn reader<P: Into<GuestPath> + Send>(&self, path: P) -> Result<FileReader> {
        self.open_read(&path.into(), OpenReadOptions::new()).await
    }

    /// Opens a new file to write it piece by piece; its commit puts it in place. See
    /// [`Sandbox::open_write`].
    ///
    /// ```no_run
    /// # use sandbox_core::{Result, Sandbox, SandboxExt};
    /// use tokio::io::AsyncWriteExt;
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut writer = sandbox.writer("data.bin").await?;
    /// writer.write_all(b"first").await?;
    /// writer.commit().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`Sandbox::open_write`].
    async fn writer<P: Into<GuestPath> + Send>(&self, path: P) -> Result<FileWriter> {
        self.open_write(&path.into(), OpenWriteOptions::new()).await
    }

    /// Brings a directory of the host into the sandbox, whole, below `to`. See
    /// [`Sandbox::import_dir`].
    ///
    /// ```no_run
    /// # use sandbox_core::{Result, Sandbox, SandboxExt};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// let report = sandbox.import("/home/me/project", "project").await?;
    /// println!("{} files", report.files);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`Sandbox::import_dir`].
    async fn import<H, P>(&self, from: H, to: P) -> Result<TransferReport>
    where
        H: AsRef<Path> + Send,
        P: Into<GuestPath> + Send,
    {
        let from = from.as_ref().to_owned();
        self.import_dir(&from, &to.into(), ImportOptions::new())
            .await
    }

    /// Brings a directory of the sandbox to the host, under a name that is new or an empty
    /// directory. See [`Sandbox::export_dir`].
    ///
    /// ```no_run
    /// # use sandbox_core::{Result, Sandbox, SandboxExt};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// let report = sandbox.export("target/doc", "/tmp/doc").await?;
    /// println!("{} bytes", report.bytes);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`Sandbox::export_dir`].
    async fn export<P, H>(&self, from: P, to: H) -> Result<TransferReport>
    where
        P: Into<GuestPath> + Send,
        H: AsRef<Path> + Send,
    {
        let to = to.as_ref().to_owned();
        self.export_dir(&from.into(), &to, ExportOptions::new())
            .await
    }

    /// Renames an entry and replaces nothing. See [`Sandbox::rename`].
    ///
    /// ```no_run
    /// # use sandbox_core::{Result, Sandbox, SandboxExt};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// sandbox.move_to("draft.txt", "final.txt").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`Sandbox::rename`].
    async fn move_to<P, Q>(&self, from: P, to: Q) -> Result<()>
    where
        P: Into<GuestPath> + Send,
        Q: Into<GuestPath> + Send,
    {
        self.rename(&from.into(), &to.into(), RenameOptions::new())
            .await
    }

    /// Creates a directory and its missing parents; an existing one is accepted. See
    /// [`Sandbox::create_dir`].
    ///
    /// ```no_run
    /// # use sandbox_core::{Result, Sandbox, SandboxExt};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// sandbox.create_dir_all("a/b/c").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`Sandbox::create_dir`].
    async fn create_dir_all<P: Into<GuestPath> + Send>(&self, path: P) -> Result<()> {
        self.create_dir(&path.into(), CreateDirOptions::new()).await
    }

    /// Describes an entry; a link itself, not what it points to. See [`Sandbox::metadata`].
    ///
    /// ```no_run
    /// # use sandbox_core::{Result, Sandbox, SandboxExt};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// let metadata = sandbox.stat("run.sh").await?;
    /// println!("{:?} {:?}", metadata.kind, metadata.mode);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`Sandbox::metadata`].
    async fn stat<P: Into<GuestPath> + Send>(&self, path: P) -> Result<Metadata> {
        self.metadata(&path.into(), MetadataOptions::new()).await
    }

    /// Changes the workdir. See [`Sandbox::set_workdir`].
    ///
    /// ```no_run
    /// # use sandbox_core::{Result, Sandbox, SandboxExt};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// sandbox.chdir("project").await?;
    /// sandbox.sh("pwd").await?; // /workspace/project
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`Sandbox::set_workdir`].
    async fn chdir<P: Into<GuestPath> + Send>(&self, path: P) -> Result<()> {
        self.set_workdir(&path.into()).await
    }

    /// Compares a directory with the files that the sandbox began with, with the default options.
    /// See [`Sandbox::changes`].
    ///
    /// ```no_run
    /// # use sandbox_core::{Result, Sandbox, SandboxExt};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// let changes = sandbox.changes_in("project").await?;
    /// println!("{} entries differ", changes.entries.len());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`Sandbox::changes`].
    async fn changes_in<P: Into<GuestPath> + Send>(&self, path: P) -> Result<Changes> {
        self.changes(&path.into(), ChangesOptions::new()).await
    }

    /// Watches a directory with all that is below it, with the default options. See
    /// [`Sandbox::watch`].
    ///
    /// ```no_run
    /// # use sandbox_core::{Result, Sandbox, SandboxExt};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// let mut watch = sandbox.watch_dir("project").await?;
    /// println!("{:?}", watch.next().await?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`Sandbox::watch`].
    async fn watch_dir<P: Into<GuestPath> + Send>(&self, path: P) -> Result<FileWatch> {
        self.watch(&path.into(), WatchOptions::new()).await
    }

    /// Starts a command once under a key, with the default options. See [`Sandbox::start_job`].
    ///
    /// ```no_run
    /// # use sandbox_core::{Command, Result, Sandbox, SandboxExt};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// let job = sandbox.start("server", Command::new("python3").args(["-m", "http.server"])).await?;
    /// println!("{:?}", job.info().await?.state);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`Sandbox::start_job`].
    async fn start<K: Into<JobKey> + Send>(&self, key: K, command: Command) -> Result<Job> {
        self.start_job(&key.into(), command, JobOptions::new())
            .await
    }

    /// Waits until a port takes connections, or answers over HTTP; fails at once if the program
    /// that should listen has ended. See [`Sandbox::connect_port`].
    ///
    /// It looks every 20 ms, by connecting: a server sees connections that end at once. Dropping
    /// the future stops the waiting.
    ///
    /// ```no_run
    /// # use sandbox_core::{Command, PortWaitOptions, Result, Sandbox, SandboxExt};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// let server = sandbox.spawn(Command::new("python3").args(["-m", "http.server"])).await?;
    /// let options = PortWaitOptions::new().http("/").server(server.wait());
    /// sandbox.wait_for_port(8000, options).await?;
    /// let stream = sandbox.connect_port(8000).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`Sandbox::connect_port`]; [`ErrorKind::NotListening`] if the program has ended, with
    /// its status, or if nothing listened in time; [`ErrorKind::Unavailable`], with what the last
    /// look found, if a program listened and did not answer as it should;
    /// [`ErrorKind::InvalidInput`] for a path that HTTP can't have.
    async fn wait_for_port(&self, port: u16, options: PortWaitOptions<'_>) -> Result<()> {
        crate::port_wait::wait(self, port, options).await
    }

    /// Takes a snapshot without labels. See [`Sandbox::snapshot`].
    ///
    /// ```no_run
    /// # use sandbox_core::{Provider, Result, Sandbox, SandboxExt, SandboxSpec, Source};
    /// # async fn example(provider: &dyn Provider, sandbox: &dyn Sandbox) -> Result<()> {
    /// let snapshot = sandbox.take_snapshot().await?;
    /// let spec = SandboxSpec::new().source(Source::Snapshot(snapshot.id));
    /// let again = provider.create(spec).await?;
    /// # let _ = again;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`Sandbox::snapshot`].
    async fn take_snapshot(&self) -> Result<Snapshot> {
        self.snapshot(SnapshotOptions::new()).await
    }

    /// Forks once, without labels. See [`Sandbox::fork`].
    ///
    /// ```no_run
    /// # use sandbox_core::{Result, Sandbox, SandboxExt};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// let fork = sandbox.fork_one().await?;
    /// fork.sh("git apply patch").await?;
    /// fork.close().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`Sandbox::fork`].
    async fn fork_one(&self) -> Result<Arc<dyn Sandbox>> {
        self.fork(ForkOptions::new()).await
    }

    /// Forks `count` times, up to eight at a time; on an error closes those that there are.
    ///
    /// The forks are in the order in which they were ready. After an error no further one is begun.
    /// Dropping the future closes what there is as dropping the last handle does, and means for each
    /// fork under way what [`Sandbox::fork`] says of it.
    ///
    /// ```no_run
    /// # use sandbox_core::{Result, Sandbox, SandboxExt};
    /// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
    /// for fork in sandbox.fork_many(3).await? {
    ///     fork.sh("make test").await?;
    ///     fork.close().await?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`Sandbox::fork`]: the first that came.
    async fn fork_many(&self, count: usize) -> Result<Vec<Arc<dyn Sandbox>>> {
        let mut forks = Vec::new();
        let mut failed = None;
        let mut left = count;
        let mut under_way = Vec::new();
        poll_fn(|context| {
            loop {
                while failed.is_none() && left > 0 && under_way.len() < FORKS_AT_ONCE {
                    left -= 1;
                    under_way.push(self.fork(ForkOptions::new()));
                }
                let before = under_way.len();
                under_way.retain_mut(|fork| match fork.as_mut().poll(context) {
                    Poll::Pending => true,
                    Poll::Ready(Ok(fork)) => {
                        forks.push(fork);
                        false
                    }
                    Poll::Ready(Err(error)) => {
                        failed.get_or_insert(error);
                        false
                    }
                });
                if under_way.is_empty() && (failed.is_some() || left == 0) {
                    return Poll::Ready(());
                }
                if under_way.len() == before {
                    return Poll::Pending;
                }
            }
        })
        .await;
        let Some(error) = failed else {
            return Ok(forks);
        };
        for fork in forks {
            // The first error is the one that is returned.
            let _ = fork.close().await;
        }
        Err(error)
    }
}

impl<T: Sandbox + ?Sized> SandboxExt for T {}
