//! Creates plain sandboxes, and refuses what plain mode cannot honour.
//!
//! It must never accept a spec and then give less than it says.

use std::sync::Arc;

use async_trait::async_trait;
use sandbox_core::backend::{Settings, blocking};
use sandbox_core::{
    Capabilities, Capability, Error, ErrorKind, Network, Operation, Provider, RequiredIsolation,
    Result, Sandbox, SandboxSpec,
};

use super::config::PlainConfig;
use super::sandbox::PlainSandbox;
use super::tree::Tree;
use super::{CAPABILITIES, WHY};

const OP: Operation = Operation::Create;

/// Runs commands as ordinary child processes in a temporary directory: **no isolation at all**.
///
/// For macOS, Windows and hosts that forbid isolation; used only by name. A command can read,
/// write and kill whatever the host's user can.
///
/// What differs from an isolating backend:
/// - A spec must say [`Network::Open`], because the default, [`Network::Off`], cannot be enforced
///   and an option that cannot be honoured is refused. So are limits, mounts, images, a root
///   directory, a workdir, a time to live, and [`RequiredIsolation::Only`] with any control.
///   [`RequiredIsolation::Full`] means everything that the backend is for, which is nothing here.
/// - Guest paths are paths of the host, confined to the sandbox's directory: the root is a fresh
///   temporary directory with `workspace` (the workdir), `home` and `tmp`. On Windows they are
///   written with slashes and one in front: `/C:/Users/…`. The confinement is against mistakes.
/// - A kill reaches the command's process group, not a daemon that left it; on Windows only the
///   main process. If the host's process is killed, commands run on and the directory stays.
/// - A command ignores the signals that the host's process ignores, as it does under `nohup`.
/// - A fork copies every file.
///
/// ```
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// use sandbox_core::{Command, Network, Provider, SandboxSpec};
/// use sandbox_local::{PlainConfig, PlainProvider};
/// let spec = SandboxSpec::new().network(Network::Open);
/// let sandbox = PlainProvider::new(PlainConfig::default())?.create(spec).await?;
/// # if cfg!(unix) {
/// let output = sandbox.exec(Command::new("echo").arg("hello")).await?;
/// assert_eq!(output.stdout.bytes, "hello\n");
/// # }
/// sandbox.close().await?;
/// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct PlainProvider {
    config: PlainConfig,
}

impl PlainProvider {
    /// A provider with this configuration. No I/O.
    ///
    /// # Errors
    /// None today; a directory that can't be used comes to light on creating a sandbox.
    pub fn new(config: PlainConfig) -> Result<Self> {
        Ok(Self { config })
    }
}

#[async_trait]
impl Provider for PlainProvider {
    fn backend(&self) -> &'static str {
        "local-plain"
    }

    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn create(&self, spec: SandboxSpec) -> Result<Arc<dyn Sandbox>> {
        crate::runtime::require(OP)?;
        check(&spec)?;
        let base = self.config.base_dir.clone();
        let made = blocking(OP, move || {
            Tree::create(super::PREFIX, &base).map_err(|e| {
                Error::from_io(e, OP)
                    .with_host_path(base)
                    .with_hint("choose another directory with PlainConfig::base_dir")
            })
        });
        let tree = made.await?;
        let base_env = super::sandbox::default_env(tree.root());
        let mut settings = Settings::new(tree.guest_root().join("workspace"), &base_env);
        spec.env.apply_to(&mut settings.env);
        Ok(PlainSandbox::new(
            tree,
            settings,
            self.config.clone(),
            spec.command_timeout,
            spec.labels,
            None,
        ))
    }
}

fn check(spec: &SandboxSpec) -> Result<()> {
    spec.validate()?;
    if let RequiredIsolation::Only(controls) = &spec.isolation
        && !controls.is_empty()
    {
        let names: Vec<_> = controls.iter().map(|control| control.as_str()).collect();
        return Err(Error::new(ErrorKind::Isolation, OP)
            .with_message(format!("{} can't be had: {WHY}", names.join(", ")))
            .with_hint("use the provider \"local:\" on a host that grants isolation"));
    }
    if let Some(workdir) = &spec.workdir {
        let why = "plain mode chooses the workdir, below a temporary directory";
        return Err(Error::unsupported(OP, "a workdir", why)
            .with_path(workdir)
            .with_hint("leave it out, and use set_workdir with a relative path"));
    }
    if spec.network == Network::Off {
        CAPABILITIES
            .require(Capability::NetworkOff, OP)
            .map_err(|error| {
                error.with_hint("plain mode has the host's network: its specs name Network::Open")
            })?;
    }
    spec.require(&CAPABILITIES, OP)
}
