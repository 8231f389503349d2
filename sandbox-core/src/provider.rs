//! The trait `Provider`: creates, finds and destroys sandboxes.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;

use crate::capability::refuse;
use crate::{
    Capabilities, Capability, Labels, Operation, Result, Sandbox, SandboxId, SandboxInfo,
    SandboxSpec, Snapshot, SnapshotId,
};

/// A source of sandboxes: one backend, configured.
///
/// ```no_run
/// # use sandbox_core::{Provider, Result, SandboxExt as _, SandboxSpec};
/// # async fn example(provider: &dyn Provider) -> Result<()> {
/// let sandbox = provider.create(SandboxSpec::new()).await?;
/// let output = sandbox.sh("uname -a").await?;
/// println!("{}", output.stdout.to_string_lossy());
/// sandbox.close().await?;
/// # Ok(()) }
/// ```
///
/// # Contract
/// - [`create`](Provider::create) gives exactly what the spec says or fails: a field that the
///   backend cannot honour is [`Unsupported`](crate::ErrorKind::Unsupported), isolation that the
///   spec requires and the host does not grant is [`Isolation`](crate::ErrorKind::Isolation) with
///   the remedy. A weaker sandbox is never made silently.
/// - Dropping the provider does not close its sandboxes.
/// - Dropping a future of [`create`](Provider::create) leaves no sandbox behind.
#[async_trait]
pub trait Provider: Debug + Send + Sync + 'static {
    /// The backend's name: "local", "dagger", ….
    ///
    /// ```no_run
    /// # use sandbox_core::Provider;
    /// # fn example(provider: &dyn Provider) {
    /// println!("sandboxes come from {}", provider.backend());
    /// # }
    /// ```
    fn backend(&self) -> &str;

    /// Capabilities of the provider's sandboxes. No I/O.
    ///
    /// ```no_run
    /// # use sandbox_core::{Capability, Provider, Support};
    /// # fn example(provider: &dyn Provider) {
    /// if let Support::Partial(exception) = provider.capabilities().support(Capability::Fork) {
    ///     println!("forks, but: {exception}");
    /// }
    /// # }
    /// ```
    fn capabilities(&self) -> Capabilities;

    /// Creates a sandbox.
    ///
    /// ```no_run
    /// # use sandbox_core::{Provider, Resources, Result, SandboxSpec};
    /// # async fn example(provider: &dyn Provider) -> Result<()> {
    /// let limits = Resources::new().memory(512 << 20).pids(128);
    /// let spec = SandboxSpec::new().label("tenant", "acme").resources(limits);
    /// let sandbox = provider.create(spec).await?;
    /// sandbox.close().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput),
    /// [`Unsupported`](crate::ErrorKind::Unsupported),
    /// [`Isolation`](crate::ErrorKind::Isolation),
    /// [`Unavailable`](crate::ErrorKind::Unavailable),
    /// [`LimitExceeded`](crate::ErrorKind::LimitExceeded).
    async fn create(&self, spec: SandboxSpec) -> Result<Arc<dyn Sandbox>>;

    /// A handle to a sandbox that exists.
    ///
    /// A lasting one that nothing has open ([`SandboxStatus::Stopped`](crate::SandboxStatus::Stopped)) is
    /// started again: files, environment and workdir are as they were. Its processes, jobs, shared memory and secret
    /// variables are gone, and [`SandboxInfo::restarted`] says since when. Dropping the future leaves
    /// it stopped, or open.
    ///
    /// ```no_run
    /// # use sandbox_core::{Provider, Result, SandboxId};
    /// # async fn example(provider: &dyn Provider) -> Result<()> {
    /// let sandbox = provider.attach(&SandboxId::new("1f2e3d4c")).await?;
    /// println!("{}", sandbox.info().workdir);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound); [`Busy`](crate::ErrorKind::Busy) if another process
    /// has the lasting sandbox open; [`Unsupported`](crate::ErrorKind::Unsupported)
    /// without [`Capability::Attach`] (the default).
    async fn attach(&self, id: &SandboxId) -> Result<Arc<dyn Sandbox>> {
        let _ = id;
        Err(refuse(
            &self.capabilities(),
            Capability::Attach,
            Operation::Attach,
        ))
    }

    /// The sandboxes that have all of these labels, oldest first: the open ones, and lasting ones that
    /// are not ([`SandboxInfo::status`]).
    ///
    /// ```no_run
    /// # use sandbox_core::{Labels, Provider, Result};
    /// # async fn example(provider: &dyn Provider) -> Result<()> {
    /// let labels = Labels::from([("tenant".to_owned(), "acme".to_owned())]);
    /// for info in provider.list(&labels).await? {
    ///     println!("{} since {:?}", info.id, info.created);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) without [`Capability::List`] (the default).
    async fn list(&self, labels: &Labels) -> Result<Vec<SandboxInfo>> {
        let _ = labels;
        Err(refuse(
            &self.capabilities(),
            Capability::List,
            Operation::List,
        ))
    }

    /// Closes a sandbox by its identifier; every handle to it is closed. A stopped one is removed.
    ///
    /// ```no_run
    /// # use sandbox_core::{Provider, Result, SandboxId};
    /// # async fn example(provider: &dyn Provider) -> Result<()> {
    /// provider.destroy(&SandboxId::new("1f2e3d4c")).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound); [`Unsupported`](crate::ErrorKind::Unsupported)
    /// without [`Capability::Attach`].
    async fn destroy(&self, id: &SandboxId) -> Result<()> {
        let _ = id;
        Err(refuse(
            &self.capabilities(),
            Capability::Attach,
            Operation::Destroy,
        ))
    }

    /// The snapshots that have all of these labels, oldest first.
    ///
    /// ```no_run
    /// # use sandbox_core::{Labels, Provider, Result};
    /// # async fn example(provider: &dyn Provider) -> Result<()> {
    /// for snapshot in provider.list_snapshots(&Labels::new()).await? {
    ///     println!("{} {:?}", snapshot.id, snapshot.created);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) without [`Capability::SnapshotList`] (the
    /// default).
    async fn list_snapshots(&self, labels: &Labels) -> Result<Vec<Snapshot>> {
        let _ = labels;
        Err(refuse(
            &self.capabilities(),
            Capability::SnapshotList,
            Operation::ListSnapshots,
        ))
    }

    /// Deletes a snapshot. Sandboxes that were created from it live on.
    ///
    /// ```no_run
    /// # use sandbox_core::{Provider, Result, SnapshotId};
    /// # async fn example(provider: &dyn Provider) -> Result<()> {
    /// provider.delete_snapshot(&SnapshotId::new("base-1")).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound); [`Unsupported`](crate::ErrorKind::Unsupported)
    /// without [`Capability::SnapshotDelete`] (the default).
    async fn delete_snapshot(&self, id: &SnapshotId) -> Result<()> {
        let _ = id;
        Err(refuse(
            &self.capabilities(),
            Capability::SnapshotDelete,
            Operation::DeleteSnapshot,
        ))
    }
}

macro_rules! forward {
    ($($pointer:ident),*) => {$(
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<T: Provider + ?Sized> Provider for $pointer<T> {
            fn backend(&self) -> &str {
                (**self).backend()
            }
            fn capabilities(&self) -> Capabilities {
                (**self).capabilities()
            }
            async fn create(&self, spec: SandboxSpec) -> Result<Arc<dyn Sandbox>> {
                (**self).create(spec).await
            }
            async fn attach(&self, id: &SandboxId) -> Result<Arc<dyn Sandbox>> {
                (**self).attach(id).await
            }
            async fn list(&self, labels: &Labels) -> Result<Vec<SandboxInfo>> {
                (**self).list(labels).await
            }
            async fn destroy(&self, id: &SandboxId) -> Result<()> {
                (**self).destroy(id).await
            }
            async fn list_snapshots(&self, labels: &Labels) -> Result<Vec<Snapshot>> {
                (**self).list_snapshots(labels).await
            }
            async fn delete_snapshot(&self, id: &SnapshotId) -> Result<()> {
                (**self).delete_snapshot(id).await
            }
        }
    )*};
}
forward!(Arc, Box);
