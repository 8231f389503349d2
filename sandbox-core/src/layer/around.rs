//! One hook around every call: what a layer implements instead of twenty methods.

use std::fmt::Debug;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::Layer;
use crate::{
    Capabilities, Command, CreateDirOptions, DirEntry, Env, ExportOptions, FileBatch, ForkOptions,
    GuestPath, ImportOptions, IsolationReport, ListOptions, Metadata, Operation, Output, Process,
    ReadOptions, RemoveOptions, RenameOptions, Result, Sandbox, SandboxInfo, Snapshot,
    SnapshotOptions, TransferReport,
};

/// A boxed future that can be sent.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Makes the call once, each time that it is called.
pub type Attempt<'a, T> = &'a (dyn Fn() -> BoxFuture<'a, Result<T>> + Send + Sync);

/// A call on its way to the sandbox.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Call<'a> {
    /// What is called.
    pub operation: Operation,
    /// On which sandbox.
    pub sandbox: &'a dyn Sandbox,
    /// The command, for `exec` and `spawn`.
    pub command: Option<&'a Command>,
}

/// A layer that does something around every call.
///
/// Given `&self` and the call, it may refuse it, wait, make it, make it again, and look at the
/// result.
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicU64, Ordering}};
/// use sandbox_core::{Result, layer::{Around, Attempt, Call}};
///
/// /// Counts calls.
/// #[derive(Clone, Debug, Default)]
/// struct Count(Arc<AtomicU64>);
///
/// impl Around for Count {
///     async fn around<T: Send>(&self, _: Call<'_>, attempt: Attempt<'_, T>) -> Result<T> {
///         self.0.fetch_add(1, Ordering::Relaxed);
///         attempt().await
///     }
/// }
/// ```
pub trait Around: Clone + Debug + Send + Sync + 'static {
    /// Makes the call. [`close`](Sandbox::close) comes through here as well: a layer should never
    /// keep it from the sandbox.
    fn around<T: Send>(
        &self,
        call: Call<'_>,
        attempt: Attempt<'_, T>,
    ) -> impl Future<Output = Result<T>> + Send;

    /// Changes a command before it is run. The default leaves it alone.
    fn command(&self, sandbox: &dyn Sandbox, command: Command) -> Command {
        let _ = sandbox;
        command
    }

    /// Looks at a process after it was started. The default leaves it alone.
    fn process(&self, process: Process) -> Process {
        process
    }
}

impl<A: Around> Layer for A {
    fn layer(&self, inner: Arc<dyn Sandbox>) -> Arc<dyn Sandbox> {
        Arc::new(Layered {
            around: self.clone(),
            inner,
        })
    }
}

/// A sandbox with an [`Around`] layer.
#[derive(Debug)]
pub struct Layered<A> {
    around: A,
    inner: Arc<dyn Sandbox>,
}

impl<A: Around> Layered<A> {
    async fn call<T: Send>(&self, operation: Operation, attempt: Attempt<'_, T>) -> Result<T> {
        let call = Call {
            operation,
            sandbox: &*self.inner,
            command: None,
        };
        self.around.around(call, attempt).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<A: Around> Sandbox for Layered<A> {
    fn info(&self) -> SandboxInfo {
        self.inner.info()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn isolation(&self) -> Result<IsolationReport> {
        self.call(Operation::Isolation, &|| self.inner.isolation())
            .await
    }

    async fn exec(&self, command: Command) -> Result<Output> {
        let command = self.around.command(&*self.inner, command);
        let call = Call {
            operation: Operation::Exec,
            sandbox: &*self.inner,
            command: Some(&command),
        };
        self.around
            .around(call, &|| self.inner.exec(command.clone()))
            .await
    }

    async fn spawn(&self, command: Command) -> Result<Process> {
        let command = self.around.command(&*self.inner, command);
        let call = Call {
            operation: Operation::Spawn,
            sandbox: &*self.inner,
            command: Some(&command),
        };
        let process = self
            .around
            .around(call, &|| self.inner.spawn(command.clone()))
            .await?;
        Ok(self.around.process(process))
    }

    async fn write_files(&self, batch: FileBatch) -> Result<()> {
        self.call(Operation::WriteFiles, &|| {
            self.inner.write_files(batch.clone())
        })
        .await
    }

    async fn read_file(&self, path: &GuestPath, options: ReadOptions) -> Result<Bytes> {
        self.call(Operation::ReadFile, &|| {
            self.inner.read_file(path, options.clone())
        })
        .await
    }

    async fn list_dir(&self, path: &GuestPath, options: ListOptions) -> Result<Vec<DirEntry>> {
        self.call(Operation::ListDir, &|| {
            self.inner.list_dir(path, options.clone())
        })
        .await
    }

    async fn metadata(&self, path: &GuestPath) -> Result<Metadata> {
        self.call(Operation::Metadata, &|| self.inner.metadata(path))
            .await
    }

    async fn remove(&self, path: &GuestPath, options: RemoveOptions) -> Result<()> {
        self.call(Operation::Remove, &|| {
            self.inner.remove(path, options.clone())
        })
        .await
    }

    async fn create_dir(&self, path: &GuestPath, options: CreateDirOptions) -> Result<()> {
        self.call(Operation::CreateDir, &|| {
            self.inner.create_dir(path, options.clone())
        })
        .await
    }

    async fn rename(&self, from: &GuestPath, to: &GuestPath, options: RenameOptions) -> Result<()> {
        self.call(Operation::Rename, &|| {
            self.inner.rename(from, to, options.clone())
        })
        .await
    }

    async fn import_dir(
        &self,
        from: &Path,
        to: &GuestPath,
        options: ImportOptions,
    ) -> Result<TransferReport> {
        self.call(Operation::ImportDir, &|| {
            self.inner.import_dir(from, to, options.clone())
        })
        .await
    }

    async fn export_dir(
        &self,
        from: &GuestPath,
        to: &Path,
        options: ExportOptions,
    ) -> Result<TransferReport> {
        self.call(Operation::ExportDir, &|| {
            self.inner.export_dir(from, to, options.clone())
        })
        .await
    }

    async fn set_workdir(&self, path: &GuestPath) -> Result<()> {
        self.call(Operation::SetWorkdir, &|| self.inner.set_workdir(path))
            .await
    }

    async fn set_env(&self, changes: Env) -> Result<()> {
        self.call(Operation::SetEnv, &|| self.inner.set_env(changes.clone()))
            .await
    }

    async fn fork(&self, options: ForkOptions) -> Result<Arc<dyn Sandbox>> {
        let child = self
            .call(Operation::Fork, &|| self.inner.fork(options.clone()))
            .await?;
        Ok(self.around.layer(child))
    }

    async fn snapshot(&self, options: SnapshotOptions) -> Result<Snapshot> {
        self.call(Operation::Snapshot, &|| {
            self.inner.snapshot(options.clone())
        })
        .await
    }

    async fn close(&self) -> Result<()> {
        self.call(Operation::Close, &|| self.inner.close()).await
    }
}
