//! Creates, lists, finds and destroys model sandboxes.
//!
//! Invariant: a spec is honoured to the letter or refused; the provider keeps no sandbox alive.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::SystemTime;

use async_trait::async_trait;
use sandbox_core::backend::Registry;
use sandbox_core::layer::{self, CapabilityGuard, Layer as _, Stack};
use sandbox_core::{
    Capabilities, Capability, Command, Control, Env, Error, ErrorKind, GuestPath, Labels, Mode,
    Operation, Provider, RequiredIsolation, Result, Sandbox, SandboxId, SandboxInfo, SandboxSpec,
    Snapshot, SnapshotId, Source,
};

use super::CAPABILITIES;
use super::core::{BACKEND, Core, Life, State, Stopped};
use super::front::Front;
use super::mock::{Call, Fault, MockOutcome};
use super::process::lock;
use super::sandbox::ModelSandbox;
use super::tree::Tree;

type Hook = Box<dyn Fn(&Command) -> Option<MockOutcome> + Send + Sync>;
type FaultHook = Box<dyn Fn(&layer::Call<'_>) -> Option<Fault> + Send + Sync>;

/// Origin of the outcome of a scripted command.
enum Script {
    /// A function of the command.
    Hook(Hook),
    /// One outcome after the other, for the commands that match.
    Sequence {
        name: String,
        matches: Box<dyn Fn(&Command) -> bool + Send + Sync>,
        left: Mutex<VecDeque<MockOutcome>>,
    },
}

/// State that the sandboxes of a provider share.
pub(crate) struct Shared {
    scripts: Vec<Script>,
    faults: Vec<FaultHook>,
    expected: Vec<(Operation, usize)>,
    pub(crate) capabilities: Capabilities,
    calls: Mutex<Vec<Call>>,
    /// The open ones, by what their handles share: a look at all of them must not be the last to let
    /// go of one, whose end would then come after its owner's.
    pub(crate) sandboxes: Registry<Core>,
    pub(crate) snapshots: Mutex<BTreeMap<SnapshotId, (Snapshot, Tree)>>,
    /// Lasting sandboxes without a handle.
    pub(crate) stopped: Mutex<BTreeMap<SandboxId, Stopped>>,
    next: AtomicU64,
}

impl Shared {
    pub(crate) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn record(&self, call: &layer::Call<'_>) {
        lock(&self.calls).push(Call::new(call));
    }

    pub(crate) fn fault(&self, call: &layer::Call<'_>) -> Option<Fault> {
        self.faults.iter().find_map(|hook| hook(call))
    }

    /// The outcome that a test scripted for a command. A sequence that is used up is an outcome
    /// too: the command is not started.
    pub(crate) fn scripted(&self, command: &Command) -> Option<MockOutcome> {
        self.scripts.iter().find_map(|script| match script {
            Script::Hook(hook) => hook(command),
            Script::Sequence { matches, left, .. } => matches(command).then(|| {
                let next = lock(left).pop_front();
                next.unwrap_or_else(|| MockOutcome::error(ErrorKind::Other))
            }),
        })
    }

    pub(crate) fn find(&self, id: &SandboxId) -> Option<Arc<ModelSandbox>> {
        self.sandboxes.get(id)?.handle.upgrade()
    }

    /// Adds a sandbox to those that can be found.
    pub(crate) fn register(self: &Arc<Self>, core: Core) -> Arc<ModelSandbox> {
        let sandbox = Arc::new_cyclic(|handle| {
            let handle = handle.clone();
            ModelSandbox::new(Arc::new(Core { handle, ..core }))
        });
        let core = &sandbox.core;
        if let Some(ttl) = core.ttl {
            tokio::spawn(expire(Arc::downgrade(core), ttl));
        }
        self.sandboxes.insert(core.id.clone(), core);
        sandbox
    }
}

/// Ends a sandbox that was not used for its time to live.
async fn expire(core: Weak<Core>, ttl: std::time::Duration) {
    loop {
        let until = core.upgrade().map(|core| lock(&core.state).used);
        // A time beyond what the clock can say is none.
        let Some(until) = until.and_then(|used| used.checked_add(ttl)) else {
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
            core.end(Life::Expired);
            return;
        }
        tokio::time::sleep_until(until).await;
    }
}

/// Configures a [`ModelProvider`].
pub struct ModelProviderBuilder {
    scripts: Vec<Script>,
    faults: Vec<FaultHook>,
    expected: Vec<(Operation, usize)>,
    capabilities: Capabilities,
}

impl Default for ModelProviderBuilder {
    fn default() -> Self {
        Self {
            scripts: Vec::new(),
            faults: Vec::new(),
            expected: Vec::new(),
            capabilities: CAPABILITIES,
        }
    }
}

impl ModelProviderBuilder {
    /// Answers the commands for which `script` has an outcome. The first script that answers wins,
    /// in the order in which they were added; a command that none answers is run by the model.
    #[must_use]
    pub fn on(
        mut self,
        script: impl Fn(&Command) -> Option<MockOutcome> + Send + Sync + 'static,
    ) -> Self {
        self.scripts.push(Script::Hook(Box::new(script)));
        self
    }

    /// Answers the runs of this program with these outcomes, one after the other.
    ///
    /// A run beyond the last is not started ([`ErrorKind::Other`]); an outcome that was not used
    /// is told by [`verify`](ModelProvider::verify).
    #[must_use]
    pub fn on_program(
        self,
        program: impl Into<String>,
        outcomes: impl IntoIterator<Item = MockOutcome>,
    ) -> Self {
        let program = program.into();
        let bytes = program.clone().into_bytes();
        self.in_sequence(program, move |command| command.program() == bytes, outcomes)
    }

    /// Answers the commands that match with these outcomes, one after the other, as
    /// [`on_program`](Self::on_program) does. `name` stands in what `verify` says.
    #[must_use]
    pub fn in_sequence(
        mut self,
        name: impl Into<String>,
        matches: impl Fn(&Command) -> bool + Send + Sync + 'static,
        outcomes: impl IntoIterator<Item = MockOutcome>,
    ) -> Self {
        self.scripts.push(Script::Sequence {
            name: name.into(),
            matches: Box::new(matches),
            left: Mutex::new(outcomes.into_iter().collect()),
        });
        self
    }

    /// Injects faults into the calls for which `fault` has one, to the provider and to all of its
    /// sandboxes.
    #[must_use]
    pub fn fault(
        mut self,
        fault: impl Fn(&layer::Call<'_>) -> Option<Fault> + Send + Sync + 'static,
    ) -> Self {
        self.faults.push(Box::new(fault));
        self
    }

    /// Injects these faults into the first calls of an operation, one after the other; later calls
    /// have none.
    #[must_use]
    pub fn fault_on(self, operation: Operation, faults: impl IntoIterator<Item = Fault>) -> Self {
        let left = Mutex::new(faults.into_iter().collect::<VecDeque<_>>());
        self.fault(move |call| {
            (call.operation() == operation)
                .then(|| lock(&left).pop_front())
                .flatten()
        })
    }

    /// Accepts specs and commands that need this capability, although the model does nothing about
    /// it: a limit is not enforced, a mount is an empty directory, an image or root directory is
    /// the model's own tree.
    ///
    /// The capability is then declared as partial.
    #[must_use]
    pub fn accept(mut self, capability: Capability) -> Self {
        if !self.capabilities.has(capability) {
            self.capabilities = self
                .capabilities
                .partial(capability, "accepted by the mock, without any effect");
        }
        self
    }

    /// Accepts every spec that a real backend may be given: limits, mounts, images, root
    /// directories, users, [root](sandbox_core::GuestUser::Root) among them, an open network and one
    /// by name with its ports and credentials, as [`accept`](Self::accept) does. What is labelled,
    /// lasts or has a time to live is so anyway.
    #[must_use]
    pub fn accept_production_specs(self) -> Self {
        [
            Capability::User,
            Capability::GuestRoot,
            Capability::Image,
            Capability::RootDir,
            Capability::Mounts,
            Capability::NetworkOpen,
            Capability::EgressByName,
            Capability::EgressPorts,
            Capability::EgressCredentials,
            Capability::MemoryLimit,
            Capability::CpuLimit,
            Capability::PidsLimit,
            Capability::DiskLimit,
        ]
        .into_iter()
        .fold(self, Self::accept)
    }

    /// Takes a capability away: the provider does not declare it and refuses what needs it, as a
    /// lesser backend would.
    #[must_use]
    pub fn lacks(mut self, capability: Capability, reason: &'static str) -> Self {
        self.capabilities = self.capabilities.without(capability, reason);
        self
    }

    /// Expects exactly this many calls of an operation; [`verify`](ModelProvider::verify) checks
    /// it.
    #[must_use]
    pub fn expect_calls(mut self, operation: Operation, times: usize) -> Self {
        self.expected.push((operation, times));
        self
    }

    /// The provider.
    pub fn build(self) -> ModelProvider {
        let shared = Arc::new(Shared {
            scripts: self.scripts,
            faults: self.faults,
            expected: self.expected,
            capabilities: self.capabilities,
            calls: Mutex::default(),
            sandboxes: Registry::new(),
            snapshots: Mutex::default(),
            stopped: Mutex::default(),
            next: AtomicU64::new(0),
        });
        let bare = Arc::new(Bare(shared.clone()));
        // The guard refuses what a test took away.
        let front = Stack::new()
            .with(Front(shared.clone()))
            .with(CapabilityGuard::new())
            .layer_provider(bare);
        ModelProvider { shared, front }
    }
}

impl fmt::Debug for ModelProviderBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelProviderBuilder")
            .field("scripts", &self.scripts.len())
            .field("faults", &self.faults.len())
            .finish_non_exhaustive()
    }
}

/// A source of sandboxes in memory. Clones share their sandboxes and the log of calls.
#[derive(Clone)]
pub struct ModelProvider {
    shared: Arc<Shared>,
    front: Arc<dyn Provider>,
}

impl Default for ModelProvider {
    fn default() -> Self {
        Self::builder().build()
    }
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

    /// The calls so far, to the provider and to all of its sandboxes, in order.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.shared.calls).clone()
    }

    /// Number of calls of an operation so far.
    pub fn count(&self, operation: Operation) -> usize {
        let calls = lock(&self.shared.calls);
        calls
            .iter()
            .filter(|call| call.operation == operation)
            .count()
    }

    /// Checks what the builder was told to expect: each outcome of a sequence was used, and each
    /// expected operation was called as often as that.
    ///
    /// # Errors
    /// A text that names everything that was not met.
    pub fn verify(&self) -> std::result::Result<(), String> {
        let mut unmet = Vec::new();
        for script in &self.shared.scripts {
            if let Script::Sequence { name, left, .. } = script {
                match lock(left).len() {
                    0 => {}
                    left => unmet.push(format!("{left} outcomes of {name:?} were not used")),
                }
            }
        }
        for (operation, expected) in &self.shared.expected {
            let found = self.count(*operation);
            if found != *expected {
                unmet.push(format!(
                    "{operation} was called {found} times instead of {expected}"
                ));
            }
        }
        if unmet.is_empty() {
            return Ok(());
        }
        Err(unmet.join("; "))
    }

    /// Destroys a sandbox behind its handles, and says whether there was one.
    pub fn lose(&self, id: &SandboxId) -> bool {
        let found = self.shared.find(id);
        if let Some(sandbox) = &found {
            sandbox.core.end(Life::Lost);
        }
        found.is_some()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Provider for ModelProvider {
    fn backend(&self) -> &str {
        self.front.backend()
    }

    fn capabilities(&self) -> Capabilities {
        self.front.capabilities()
    }

    async fn create(&self, spec: SandboxSpec) -> Result<Arc<dyn Sandbox>> {
        self.front.create(spec).await
    }

    async fn attach(&self, id: &SandboxId) -> Result<Arc<dyn Sandbox>> {
        self.front.attach(id).await
    }

    async fn list(&self, labels: &Labels) -> Result<Vec<SandboxInfo>> {
        self.front.list(labels).await
    }

    async fn destroy(&self, id: &SandboxId) -> Result<()> {
        self.front.destroy(id).await
    }

    async fn list_snapshots(&self, labels: &Labels) -> Result<Vec<Snapshot>> {
        self.front.list_snapshots(labels).await
    }

    async fn delete_snapshot(&self, id: &SnapshotId) -> Result<()> {
        self.front.delete_snapshot(id).await
    }
}

fn no_snapshot(id: &SnapshotId, operation: Operation) -> Error {
    Error::new(ErrorKind::NotFound, operation).with_message(format!("no snapshot {id}"))
}

/// The provider itself, without log and faults.
struct Bare(Arc<Shared>);

impl fmt::Debug for Bare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bare").finish_non_exhaustive()
    }
}

impl Bare {
    fn refuse(&self, spec: &SandboxSpec) -> Result<()> {
        let capabilities = &self.0.capabilities;
        const OP: Operation = Operation::Create;
        spec.validate()?;
        spec.require(capabilities, OP)?;
        if let RequiredIsolation::Only(controls) = &spec.isolation {
            let missing = |control: &&Control| match control {
                Control::Memory => !capabilities.has(Capability::MemoryLimit),
                Control::Cpu => !capabilities.has(Capability::CpuLimit),
                Control::Pids => !capabilities.has(Capability::PidsLimit),
                Control::Disk => !capabilities.has(Capability::DiskLimit),
                _ => false,
            };
            if let Some(control) = controls.iter().find(missing) {
                return Err(Error::new(ErrorKind::Isolation, OP)
                    .with_message(format!("the model has no control of {control}"))
                    .with_hint("require other controls"));
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Provider for Bare {
    fn backend(&self) -> &'static str {
        BACKEND
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities.clone()
    }

    async fn create(&self, spec: SandboxSpec) -> Result<Arc<dyn Sandbox>> {
        const OP: Operation = Operation::Create;
        self.refuse(&spec)?;
        let mut tree = match &spec.source {
            Source::Snapshot(id) => {
                let found = lock(&self.0.snapshots).get(id).cloned();
                found.ok_or_else(|| no_snapshot(id, OP))?.1
            }
            _ => Tree::new(),
        };
        let workdir = spec.workdir.clone().unwrap_or_else(|| "/workspace".into());
        let workdir = workdir.resolve(&GuestPath::root(), OP)?;
        tree.make_dir(&workdir, true, Mode::EXECUTABLE)
            .map_err(|kind| Error::new(kind, OP).with_path(&workdir))?;
        for mount in &spec.mounts {
            tree.make_dir(&mount.guest, true, Mode::EXECUTABLE)
                .map_err(|kind| Error::new(kind, OP).with_path(&mount.guest))?;
        }
        let mut env = BTreeMap::new();
        Env::new()
            .set("PATH", "/usr/local/bin:/usr/bin:/bin")
            .set("HOME", "/home")
            .apply_to(&mut env);
        spec.env.apply_to(&mut env);
        Ok(self.0.register(Core {
            id: SandboxId::new(format!("model-{}", self.0.number())),
            parent: None,
            labels: spec.labels,
            created: SystemTime::now(),
            command_timeout: spec.command_timeout,
            ttl: spec.ttl,
            lasting: spec.lasting,
            restarted: None,
            shared: self.0.clone(),
            state: State::new(tree, workdir, env),
            procs: Mutex::default(),
            next_pid: 2.into(),
            handle: Weak::new(),
        }))
    }

    async fn attach(&self, id: &SandboxId) -> Result<Arc<dyn Sandbox>> {
        if let Some(sandbox) = self.0.find(id) {
            return Ok(sandbox);
        }
        let Some(stopped) = lock(&self.0.stopped).remove(id) else {
            return Err(unknown(id, Operation::Attach));
        };
        let state = State::new(stopped.tree, stopped.info.workdir, stopped.env);
        lock(&state).origin = stopped.origin;
        Ok(self.0.register(Core {
            id: id.clone(),
            parent: None,
            labels: stopped.info.labels,
            created: stopped.info.created,
            command_timeout: stopped.info.command_timeout,
            ttl: stopped.ttl,
            lasting: true,
            restarted: Some(SystemTime::now()),
            shared: self.0.clone(),
            state,
            procs: Mutex::default(),
            next_pid: 2.into(),
            handle: Weak::new(),
        }))
    }

    async fn list(&self, labels: &Labels) -> Result<Vec<SandboxInfo>> {
        let open = self.0.sandboxes.all();
        let has = |info: &&SandboxInfo| labels.iter().all(|(k, v)| info.labels.get(k) == Some(v));
        let open = open.iter().map(|core| core.info());
        let mut found: Vec<SandboxInfo> = open.filter(|info| has(&info)).collect();
        let stopped = lock(&self.0.stopped);
        let stopped = stopped.values().map(|stopped| &stopped.info);
        found.extend(stopped.filter(has).cloned());
        found.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        Ok(found)
    }

    async fn list_snapshots(&self, labels: &Labels) -> Result<Vec<Snapshot>> {
        let snapshots = lock(&self.0.snapshots);
        let has = |found: &Snapshot| labels.iter().all(|(k, v)| found.labels.get(k) == Some(v));
        let mut found: Vec<Snapshot> = snapshots
            .values()
            .map(|(snapshot, _)| snapshot.clone())
            .filter(has)
            .collect();
        found.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        Ok(found)
    }

    async fn delete_snapshot(&self, id: &SnapshotId) -> Result<()> {
        match lock(&self.0.snapshots).remove(id) {
            Some(_) => Ok(()),
            None => Err(no_snapshot(id, Operation::DeleteSnapshot)),
        }
    }

    async fn destroy(&self, id: &SandboxId) -> Result<()> {
        match self.0.find(id) {
            Some(sandbox) => sandbox.close().await,
            None => match lock(&self.0.stopped).remove(id) {
                Some(_) => Ok(()),
                None => Err(unknown(id, Operation::Destroy)),
            },
        }
    }
}

fn unknown(id: &SandboxId, operation: Operation) -> Error {
    Error::new(ErrorKind::NotFound, operation)
        .with_message("no such sandbox")
        .with_sandbox(id.clone())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use sandbox_core::SandboxExt as _;

    use super::*;

    #[tokio::test]
    async fn what_is_listed_meanwhile_stops_with_its_last_handle() {
        let model = ModelProvider::new();
        let done = Arc::new(AtomicBool::new(false));
        let (lister, until) = (model.clone(), Arc::clone(&done));
        let listing = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            runtime.unwrap().block_on(async {
                while !until.load(Ordering::Relaxed) {
                    lister.list(&Labels::new()).await.unwrap();
                }
            });
        });
        let mut sandbox = model.create(SandboxSpec::new().lasting(true)).await;
        for round in 0..2000 {
            let open = sandbox.unwrap();
            let id = open.info().id;
            open.write("f", "").await.unwrap();
            drop(open);
            sandbox = model.attach(&id).await;
            assert!(sandbox.is_ok(), "round {round}: {:?}", sandbox.err());
        }
        done.store(true, Ordering::Relaxed);
        listing.join().unwrap();
    }
}
