//! Creates, lists, finds and destroys model sandboxes.
//!
//! Invariant: a spec is honoured to the letter or refused; the provider keeps no sandbox alive.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::SystemTime;

use async_trait::async_trait;
use sandbox_core::{
    Capabilities, Capability, Command, Control, Env, Error, ErrorKind, GuestPath, Labels, Mode,
    Network, Operation, Provider, RequiredIsolation, Result, Sandbox, SandboxId, SandboxInfo,
    SandboxSpec, SnapshotId, Source,
};

use super::CAPABILITIES;
use super::core::{BACKEND, Core, Life, State};
use super::mock::{Call, MockOutcome};
use super::process::lock;
use super::sandbox::ModelSandbox;
use super::tree::Tree;

type Hook = Box<dyn Fn(&Command) -> Option<MockOutcome> + Send + Sync>;

/// What the sandboxes of a provider share.
#[derive(Default)]
pub(crate) struct Shared {
    hooks: Vec<Hook>,
    calls: Mutex<Vec<Call>>,
    pub(crate) sandboxes: Mutex<Vec<Weak<ModelSandbox>>>,
    pub(crate) snapshots: Mutex<BTreeMap<SnapshotId, Tree>>,
    next: AtomicU64,
}

impl Shared {
    pub(crate) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn record(&self, sandbox: Option<&SandboxId>, operation: Operation, what: String) {
        lock(&self.calls).push(Call::new(sandbox, operation, what));
    }

    pub(crate) fn scripted(&self, command: &Command) -> Option<MockOutcome> {
        self.hooks.iter().find_map(|hook| hook(command))
    }

    fn find(&self, id: &SandboxId) -> Option<Arc<ModelSandbox>> {
        let sandbox = lock(&self.sandboxes)
            .iter()
            .filter_map(Weak::upgrade)
            .find(|sandbox| sandbox.core.id == *id)?;
        let open = lock(&sandbox.core.state).life == Life::Open;
        open.then_some(sandbox)
    }

    /// Makes a sandbox known.
    pub(crate) fn register(self: &Arc<Self>, core: Core) -> Arc<ModelSandbox> {
        let core = Arc::new(core);
        if let Some(ttl) = core.ttl {
            tokio::spawn(expire(Arc::downgrade(&core), ttl));
        }
        let sandbox = Arc::new(ModelSandbox { core });
        let mut sandboxes = lock(&self.sandboxes);
        sandboxes.retain(|known| known.strong_count() > 0);
        sandboxes.push(Arc::downgrade(&sandbox));
        sandbox
    }
}

/// Ends a sandbox that nobody used for a while.
async fn expire(core: Weak<Core>, ttl: std::time::Duration) {
    loop {
        let Some(until) = core.upgrade().map(|core| lock(&core.state).used + ttl) else {
            return;
        };
        if until <= tokio::time::Instant::now() {
            let Some(core) = core.upgrade() else {
                return;
            };
            // A command that runs is use.
            if core.is_busy() {
                lock(&core.state).used = tokio::time::Instant::now();
                continue;
            }
            core.end(Life::Lost);
            return;
        }
        tokio::time::sleep_until(until).await;
    }
}

/// Configures a [`ModelProvider`].
#[derive(Default)]
pub struct ModelProviderBuilder {
    hooks: Vec<Hook>,
}

impl ModelProviderBuilder {
    /// Answers the commands for which `script` has an outcome. The first that answers wins; a
    /// command that none answers is run by the model itself.
    #[must_use]
    pub fn on(
        mut self,
        script: impl Fn(&Command) -> Option<MockOutcome> + Send + Sync + 'static,
    ) -> Self {
        self.hooks.push(Box::new(script));
        self
    }

    /// The provider.
    pub fn build(self) -> ModelProvider {
        ModelProvider {
            shared: Arc::new(Shared {
                hooks: self.hooks,
                ..Shared::default()
            }),
        }
    }
}

impl fmt::Debug for ModelProviderBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelProviderBuilder")
            .field("hooks", &self.hooks.len())
            .finish()
    }
}

/// A source of sandboxes in memory. Clones share their sandboxes and the record of calls.
#[derive(Clone, Default)]
pub struct ModelProvider {
    shared: Arc<Shared>,
}

impl fmt::Debug for ModelProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelProvider").finish_non_exhaustive()
    }
}

impl ModelProvider {
    /// A provider without scripts.
    pub fn new() -> Self {
        Self::default()
    }

    /// A provider that answers some commands as a test wants it.
    pub fn builder() -> ModelProviderBuilder {
        ModelProviderBuilder::default()
    }

    /// The calls so far, to the provider and to all of its sandboxes.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.shared.calls).clone()
    }

    /// Destroys a sandbox behind its handles' backs, and says whether there was one.
    pub fn lose(&self, id: &SandboxId) -> bool {
        let found = self.shared.find(id);
        if let Some(sandbox) = &found {
            sandbox.core.end(Life::Lost);
        }
        found.is_some()
    }

    fn refuse(spec: &SandboxSpec) -> Result<()> {
        const OP: Operation = Operation::Create;
        spec.validate()?;
        let resources = &spec.resources;
        for (asked, needs) in [
            (matches!(spec.source, Source::Image(_)), Capability::Image),
            (
                matches!(spec.source, Source::RootDir(_)),
                Capability::RootDir,
            ),
            (!spec.mounts.is_empty(), Capability::Mounts),
            (spec.network == Network::Open, Capability::NetworkOpen),
            (resources.memory.is_some(), Capability::MemoryLimit),
            (resources.cpus.is_some(), Capability::CpuLimit),
            (resources.pids.is_some(), Capability::PidsLimit),
            (resources.disk.is_some(), Capability::DiskLimit),
        ] {
            if asked {
                CAPABILITIES.require(needs, OP)?;
            }
        }
        if let RequiredIsolation::Only(controls) = &spec.isolation {
            const LIMITS: [Control; 4] =
                [Control::Memory, Control::Cpu, Control::Pids, Control::Disk];
            if let Some(control) = controls.iter().find(|control| LIMITS.contains(control)) {
                return Err(Error::new(ErrorKind::Isolation, OP)
                    .with_message(format!("the model has no control of {control}"))
                    .with_hint("require other controls"));
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Provider for ModelProvider {
    fn backend(&self) -> &'static str {
        BACKEND
    }

    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn create(&self, spec: SandboxSpec) -> Result<Arc<dyn Sandbox>> {
        const OP: Operation = Operation::Create;
        self.shared.record(None, OP, String::new());
        Self::refuse(&spec)?;
        let mut tree = match &spec.source {
            Source::Snapshot(id) => {
                let found = lock(&self.shared.snapshots).get(id).cloned();
                found.ok_or_else(|| {
                    Error::new(ErrorKind::NotFound, OP).with_message(format!("no snapshot {id}"))
                })?
            }
            _ => Tree::new(),
        };
        let workdir = spec.workdir.unwrap_or_else(|| "/workspace".into());
        let workdir = workdir.resolve(&GuestPath::root(), OP)?;
        tree.make_dir(&workdir, true, Mode::EXECUTABLE)
            .map_err(|kind| Error::new(kind, OP).with_path(&workdir))?;
        let mut env = BTreeMap::new();
        Env::new()
            .set("PATH", "/usr/local/bin:/usr/bin:/bin")
            .set("HOME", "/home")
            .apply_to(&mut env);
        spec.env.apply_to(&mut env);
        Ok(self.shared.register(Core {
            id: SandboxId::new(format!("model-{}", self.shared.number())),
            parent: None,
            labels: spec.labels,
            created: SystemTime::now(),
            command_timeout: spec.command_timeout,
            ttl: spec.ttl,
            shared: self.shared.clone(),
            state: State::new(tree, workdir, env),
            procs: Mutex::default(),
            next_pid: 2.into(),
        }))
    }

    async fn attach(&self, id: &SandboxId) -> Result<Arc<dyn Sandbox>> {
        self.shared.record(None, Operation::Attach, id.to_string());
        match self.shared.find(id) {
            Some(sandbox) => Ok(sandbox),
            None => Err(unknown(id, Operation::Attach)),
        }
    }

    async fn list(&self, labels: &Labels) -> Result<Vec<SandboxInfo>> {
        self.shared.record(None, Operation::List, String::new());
        let sandboxes: Vec<_> = lock(&self.shared.sandboxes)
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        Ok(sandboxes
            .iter()
            .filter(|sandbox| lock(&sandbox.core.state).life == Life::Open)
            .map(|sandbox| sandbox.info())
            .filter(|info| {
                labels
                    .iter()
                    .all(|(key, value)| info.labels.get(key) == Some(value))
            })
            .collect())
    }

    async fn destroy(&self, id: &SandboxId) -> Result<()> {
        self.shared.record(None, Operation::Destroy, id.to_string());
        match self.shared.find(id) {
            Some(sandbox) => sandbox.close().await,
            None => Err(unknown(id, Operation::Destroy)),
        }
    }
}

fn unknown(id: &SandboxId, operation: Operation) -> Error {
    Error::new(ErrorKind::NotFound, operation)
        .with_message("no such sandbox")
        .with_sandbox(id.clone())
}
