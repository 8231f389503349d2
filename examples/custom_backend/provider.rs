//! The provider: what it can do, said once, and sandboxes made from that.

use std::path::Path;
use std::sync::Arc;

use sandbox::backend::{DEFAULT_PATH, Registry, Settings, blocking};
use sandbox::{
    Capabilities, Capability, Env, Error, ErrorKind, GuestPath, IsolationReport, Labels, Network,
    Operation, Provider, RequiredIsolation, Result, Sandbox, SandboxId, SandboxInfo, SandboxSpec,
    async_trait,
};
use sandbox_transfer::GuestTree;

use crate::sandbox_of_processes::{Origin, ProcessSandbox};

const OP: Operation = Operation::Create;

/// A program that runs one command in a sandbox of its own: all that a backend of this kind has to
/// know.
pub(crate) trait Launcher: std::fmt::Debug + Send + Sync + 'static {
    /// The backend's name.
    fn backend(&self) -> &'static str;

    /// Promises. Everything else is refused, which the kit checks as well.
    fn capabilities(&self) -> Capabilities;

    /// Report of what is in force for a command, for each control.
    fn report(&self, network: &Network) -> IsolationReport;

    /// Puts what a new tree needs into its root.
    fn prepare(&self, root: &Path) -> std::io::Result<()>;

    /// Path at which the guest sees the tree's root.
    fn guest_root(&self, root: &Path) -> GuestPath {
        let _ = root;
        GuestPath::root()
    }

    /// The command that runs a command. Its environment and streams are set by the caller.
    fn command(&self, start: &Start<'_>) -> tokio::process::Command;
}

/// A command that is to be started.
pub(crate) struct Start<'a> {
    /// The sandbox.
    #[allow(dead_code)] // Launchers that name what they start need it.
    pub(crate) id: &'a str,
    /// The directory of the host that is the guest's root.
    pub(crate) root: &'a Path,
    /// The network that the sandbox was made with.
    pub(crate) network: &'a Network,
    /// The directory that the command starts in, as the guest says it.
    pub(crate) cwd: &'a GuestPath,
    /// The program, found, and its arguments.
    pub(crate) argv: &'a [Vec<u8>],
}

/// Makes sandboxes whose commands a launcher starts.
#[derive(Debug)]
pub(crate) struct ProcessProvider {
    launcher: Arc<dyn Launcher>,
    open: Arc<Registry<ProcessSandbox>>,
}

impl ProcessProvider {
    pub(crate) fn new(launcher: impl Launcher) -> Self {
        Self {
            launcher: Arc::new(launcher),
            open: Arc::default(),
        }
    }
}

#[async_trait]
impl Provider for ProcessProvider {
    fn backend(&self) -> &str {
        self.launcher.backend()
    }

    fn capabilities(&self) -> Capabilities {
        self.launcher.capabilities()
    }

    async fn create(&self, spec: SandboxSpec) -> Result<Arc<dyn Sandbox>> {
        spec.validate()?;
        // Each field of the spec is honoured or refused.
        spec.require(&self.capabilities(), OP)?;
        let network = match spec.network {
            Network::OffWherePossible if self.capabilities().has(Capability::NetworkOff) => {
                Network::Off
            }
            Network::OffWherePossible => Network::Open,
            network => network,
        };
        let report = self.launcher.report(&network);
        if let RequiredIsolation::Only(controls) = &spec.isolation
            && let Some(control) = controls
                .iter()
                .find(|control| !report.is_enforced(**control))
        {
            return Err(Error::new(ErrorKind::Isolation, OP)
                .with_message(format!("{} has no control of {control}", self.backend()))
                .with_hint("choose a backend that has it"));
        }
        let launcher = Arc::clone(&self.launcher);
        let workdir = spec.workdir.clone();
        let (dir, tree, workdir) = blocking(OP, move || {
            let (dir, tree) = new_tree(&*launcher)?;
            let default = || launcher.guest_root(tree.root()).join("workspace");
            let workdir = workdir.unwrap_or_else(default);
            tree.create_dir(&workdir, &sandbox::CreateDirOptions::new().recursive(true))
                .map_err(|error| error.with_operation(OP))?;
            Ok((dir, tree, workdir))
        })
        .await?;
        let home = workdir.clone();
        let defaults = Env::new()
            .set("PATH", DEFAULT_PATH)
            .set("HOME", home.as_bytes())
            .set("LANG", "C.UTF-8");
        let mut settings = Settings::new(workdir, &defaults);
        settings.set_env(&spec.env, OP)?;
        let origin = Origin {
            launcher: Arc::clone(&self.launcher),
            open: Arc::clone(&self.open),
            network,
            command_timeout: spec.command_timeout,
            labels: spec.labels,
            parent: None,
        };
        Ok(ProcessSandbox::open(origin, dir, tree, settings))
    }

    async fn attach(&self, id: &SandboxId) -> Result<Arc<dyn Sandbox>> {
        Ok(self.open.find(id, Operation::Attach)?)
    }

    async fn list(&self, labels: &Labels) -> Result<Vec<SandboxInfo>> {
        Ok(self.open.list(labels))
    }

    async fn destroy(&self, id: &SandboxId) -> Result<()> {
        self.open.find(id, Operation::Destroy)?.close().await
    }
}

/// A directory of the host that is removed with this, also what the guest has shut in it.
#[derive(Debug)]
pub(crate) struct Place(tempfile::TempDir);

impl Drop for Place {
    fn drop(&mut self) {
        // What is left the directory's own end tries again.
        let _ = sandbox_transfer::remove_tree(&self.0.path().join("root"));
    }
}

/// A place for a sandbox, and the tree in it.
pub(crate) fn new_tree(launcher: &dyn Launcher) -> Result<(Place, GuestTree)> {
    let dir = tempfile::Builder::new()
        .prefix("sandbox-process-")
        .tempdir()
        .map_err(|error| Error::from_io(error, OP))?;
    let tree = GuestTree::create(dir.path())?;
    let seen_at = launcher.guest_root(tree.root());
    let tree = tree.seen_at(seen_at);
    launcher
        .prepare(tree.root())
        .map_err(|error| Error::from_io(error, OP).with_host_path(dir.path()))?;
    Ok((Place(dir), tree))
}
