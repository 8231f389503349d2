//! A provider with one fault, of its own or of its sandboxes.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use sandbox_core::{
    Capabilities, Env, Error, ErrorKind, GuestUser, Labels, Mount, Network, Operation, Provider,
    Resources, Result, Sandbox, SandboxId, SandboxInfo, SandboxSpec, Snapshot, SnapshotId, Source,
};

use super::Mutant;
use super::sandbox::MutantSandbox;
use crate::model::ModelProvider;

/// A provider with a fault in itself or in its sandboxes.
#[derive(Debug)]
pub struct MutantProvider {
    inner: Arc<dyn Provider>,
    mutant: Mutant,
    dropped: Arc<AtomicBool>,
    first: Mutex<Option<Arc<dyn Sandbox>>>,
}

impl MutantProvider {
    /// The model with this fault.
    pub fn new(mutant: Mutant) -> Self {
        Self::of(mutant, Arc::new(ModelProvider::new()))
    }

    /// Another provider with this fault.
    pub fn of(mutant: Mutant, inner: Arc<dyn Provider>) -> Self {
        Self {
            inner,
            mutant,
            dropped: Arc::default(),
            first: Mutex::default(),
        }
    }

    fn spec(&self, mut spec: SandboxSpec) -> SandboxSpec {
        let inside = |spec: SandboxSpec, dir: &str| match Path::new(dir).is_dir() {
            true => spec.mount(Mount::read_only(dir, dir)),
            false => spec,
        };
        match self.mutant {
            Mutant::LimitIgnored => spec.resources = Resources::new(),
            Mutant::MountIgnored => spec.mounts.clear(),
            Mutant::ImageIgnored if matches!(spec.source, Source::Image(_)) => {
                spec.source = Source::Default;
            }
            Mutant::EgressPolicyIgnored if matches!(spec.network, Network::Allow(_)) => {
                spec.network = Network::Off;
            }
            Mutant::RootIgnored => spec.user = GuestUser::Default,
            Mutant::TtlIgnored => spec.ttl = None,
            Mutant::LastingIgnored => spec.lasting = false,
            Mutant::EverySandboxLasts => spec.lasting = true,
            Mutant::OffWherePossibleIsOpen if spec.network == Network::OffWherePossible => {
                spec.network = Network::Open;
            }
            Mutant::LabelsLost => spec.labels.clear(),
            Mutant::InvalidSpecAccepted
                if spec.workdir.as_ref().is_some_and(|dir| !dir.is_absolute()) =>
            {
                spec.workdir = None;
            }
            Mutant::SnapshotLosesFiles if matches!(spec.source, Source::Snapshot(_)) => {
                spec.source = Source::Default;
            }
            Mutant::HostEtcInside => return inside(spec, "/etc"),
            Mutant::HostRootInside => return inside(spec, "/root"),
            Mutant::HostVarInside => return inside(spec, "/var/lib"),
            Mutant::HostRunInside => return inside(spec, "/run"),
            _ => {}
        }
        spec
    }
}

impl Drop for MutantProvider {
    fn drop(&mut self) {
        self.dropped.store(true, Ordering::SeqCst);
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Provider for MutantProvider {
    fn backend(&self) -> &str {
        self.inner.backend()
    }

    fn capabilities(&self) -> Capabilities {
        self.mutant.capabilities(self.inner.capabilities())
    }

    async fn create(&self, spec: SandboxSpec) -> Result<Arc<dyn Sandbox>> {
        let missing = matches!(spec.source, Source::Snapshot(_));
        let made = self.inner.create(self.spec(spec.clone())).await;
        let inner = match made {
            Err(error)
                if self.mutant == Mutant::MissingSnapshotAccepted
                    && missing
                    && error.kind() == ErrorKind::NotFound =>
            {
                self.inner.create(spec.source(Source::Default)).await?
            }
            made => made?,
        };
        Ok(match self.mutant {
            Mutant::SandboxesShareFiles => {
                let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
                let shared = first.get_or_insert_with(|| inner.clone()).clone();
                MutantSandbox::sharing(inner, shared, self.mutant)
            }
            Mutant::ForkTrustsStops => {
                let spare = self.inner.create(SandboxSpec::new()).await?;
                MutantSandbox::with_spare(inner, spare, self.mutant)
            }
            Mutant::ProviderDropCloses => {
                MutantSandbox::of_provider(inner, self.mutant, self.dropped.clone())
            }
            _ => MutantSandbox::wrap(inner, self.mutant),
        })
    }

    async fn attach(&self, id: &SandboxId) -> Result<Arc<dyn Sandbox>> {
        let inner = match self.inner.attach(id).await {
            Err(error)
                if self.mutant == Mutant::ClosedOneLasts && error.kind() == ErrorKind::NotFound =>
            {
                self.inner.create(SandboxSpec::new()).await?
            }
            attached => attached?,
        };
        let inner = match self.mutant {
            Mutant::RestartLosesEnvironment if inner.info().restarted.is_some() => {
                let lost = Env::new().unset("KIT_SPEC").unset("KIT_LATER");
                inner.set_env(lost).await?;
                inner
            }
            Mutant::AttachCreates => self.inner.create(SandboxSpec::new()).await?,
            _ => inner,
        };
        Ok(MutantSandbox::wrap(inner, self.mutant))
    }

    async fn list(&self, labels: &Labels) -> Result<Vec<SandboxInfo>> {
        let mut list = self.inner.list(labels).await?;
        if self.mutant == Mutant::ListForgets {
            list.clear();
        }
        Ok(list)
    }

    async fn destroy(&self, id: &SandboxId) -> Result<()> {
        if self.mutant == Mutant::DestroyDoesNothing {
            let open = self.inner.list(&Labels::new()).await?;
            return match open.iter().any(|info| info.id == *id) {
                true => Ok(()),
                false => Err(Error::new(ErrorKind::NotFound, Operation::Destroy)
                    .with_message("no such sandbox")
                    .with_sandbox(id.clone())),
            };
        }
        self.inner.destroy(id).await
    }

    async fn list_snapshots(&self, labels: &Labels) -> Result<Vec<Snapshot>> {
        match self.mutant {
            Mutant::SnapshotsForgotten => Ok(Vec::new()),
            Mutant::SnapshotLabelsIgnored => self.inner.list_snapshots(&Labels::new()).await,
            _ => self.inner.list_snapshots(labels).await,
        }
    }

    async fn delete_snapshot(&self, id: &SnapshotId) -> Result<()> {
        if self.mutant == Mutant::SnapshotDeleteDoesNothing {
            let kept = self.inner.list_snapshots(&Labels::new()).await?;
            if kept.iter().any(|snapshot| snapshot.id == *id) {
                return Ok(());
            }
        }
        match self.inner.delete_snapshot(id).await {
            Err(error)
                if self.mutant == Mutant::MissingSnapshotDeleted
                    && error.kind() == ErrorKind::NotFound =>
            {
                Ok(())
            }
            deleted => deleted,
        }
    }
}
