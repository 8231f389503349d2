//! Creates sandboxes under Landlock, and refuses what can't be had without namespaces.
//!
//! It must never accept a spec and then give less than it says.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rustix::fs::{Mode, OFlags};
use sandbox_core::backend::{Settings, blocking};
use sandbox_core::{
    Capabilities, Capability, Error, ErrorKind, Network, Operation, Provider, RequiredIsolation,
    Result, Sandbox, SandboxSpec,
};

use super::domain::Confinement;
use super::report::{Found, OUTSIDE, require};
use super::rules::{NEEDED, inner, outer};
use super::sandbox::{LandlockSandbox, Made, Parts};
use super::{CAPABILITIES, WHY};
use crate::config::{DEFAULT_OUTPUT_GRACE, LocalConfig};
use crate::files::GuestRoot;
use crate::guest_user::GuestUser;
use crate::mutation::{self, Part};
use crate::plain::sandbox::default_env;
use crate::plain::tree::Tree;
use crate::runtime;
use crate::start::setup::seccomp::shared;
use crate::sys::confine::Cage;
use crate::sys::landlock::landlock_version;

const OP: Operation = Operation::Create;

/// Prefix of the names of its directories.
const PREFIX: &str = "sandbox-landlock-";

/// The most processes that the user of a sandbox has, all of its programs together: against a
/// program that starts ever more of itself.
const PROCESSES: u64 = 4096;

/// Configuration of a [`LandlockProvider`].
///
/// ```
/// use sandbox_local::LandlockConfig;
/// let config = LandlockConfig::new().base_dir("/var/tmp").system_dir("/opt/tools");
/// assert!(config.system_dirs.contains(&"/opt/tools".into()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LandlockConfig {
    /// The existing directory of the host that has the sandboxes' directories. Default: the host's
    /// temporary directory. As root every user must be able to search it.
    pub base_dir: PathBuf,
    /// The host's directories that programs may read and execute. Default: `/usr` and what belongs
    /// to it, as [`LocalConfig::system_dirs`].
    pub system_dirs: Vec<PathBuf>,
    /// Time for which the output of a command is still read after its main process has ended, as
    /// [`LocalConfig::output_grace`]. Default: 100 ms.
    pub output_grace: Duration,
}

impl Default for LandlockConfig {
    fn default() -> Self {
        Self {
            base_dir: std::env::temp_dir(),
            system_dirs: LocalConfig::default().system_dirs,
            output_grace: DEFAULT_OUTPUT_GRACE,
        }
    }
}

impl LandlockConfig {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the directory that has the sandboxes' directories.
    #[must_use]
    pub fn base_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.base_dir = dir.into();
        self
    }

    /// Lets programs read and execute one more directory of the host.
    #[must_use]
    pub fn system_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.system_dirs.push(dir.into());
        self
    }

    /// Reads a command's output for this long after its end if nothing comes.
    #[must_use]
    pub fn output_grace(mut self, grace: Duration) -> Self {
        self.output_grace = grace;
        self
    }
}

/// Runs commands as processes of the host under Landlock, a filter of system calls and
/// `no_new_privs`, for hosts that grant no user namespaces: containers of Docker with its default
/// profile, Ubuntu with its restriction of them. **Weaker than [`LocalProvider`](crate::LocalProvider)**
/// and used only by name.
///
/// What holds: no file of the host but `/usr`, some of `/etc` and what the machine is can be read, and
/// nothing but the sandbox's own directory written; no process of the host can be signalled or traced;
/// with [`Network::Off`] no socket can be made; nothing that a command started outlives its kill, its
/// sandbox or the host's process.
///
/// What is missing, each for want of a namespace:
/// - Mount: programs see the host's paths, with names, sizes, owners and times of its files. The
///   sandbox is a fresh directory of the host with `workspace` (the workdir), `home` and `tmp`; `/tmp`
///   and `/dev/shm` are closed. No mounts, images, forks, snapshots or changes. A link with an absolute
///   target is not followed by operations on files.
/// - Pid: process numbers of the host can be tried, and a command can't signal what another command
///   of the sandbox started. `/proc` is closed but for what describes the machine. Tracing is refused.
/// - Network: off, or the host's as a whole; off means no loopback either. No Unix sockets but
///   connected pairs, because some of those with a name obey the host's user.
/// - User: as an ordinary user the programs are that user, and its limit on processes counts them
///   (4,096 at most). As root each sandbox gets a user of its own, which takes `CAP_SETUID`,
///   `CAP_SETGID`, `CAP_CHOWN` and `CAP_KILL`.
/// - No limits on memory, processors or disk.
///
/// Needs Linux 6.12 with Landlock switched on, and refuses to start anything without it.
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> sandbox_core::Result<()> {
/// use sandbox_core::{Provider, SandboxExt, SandboxSpec};
/// use sandbox_local::{LandlockConfig, LandlockProvider};
/// let provider = LandlockProvider::new(LandlockConfig::default())?;
/// let sandbox = provider.create(SandboxSpec::new()).await?;
/// println!("{}", sandbox.isolation().await?);
/// sandbox.close().await
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct LandlockProvider {
    config: LandlockConfig,
}

impl LandlockProvider {
    /// Capabilities of its sandboxes; no I/O, no provider needed.
    pub const CAPABILITIES: Capabilities = CAPABILITIES;

    /// A provider with this configuration. No I/O.
    ///
    /// # Errors
    /// [`Isolation`](ErrorKind::Isolation) if the kernel has no Landlock, or one before Linux 6.12.
    pub fn new(config: LandlockConfig) -> Result<Self> {
        check_kernel(landlock_version())?;
        Ok(Self { config })
    }
}

fn check_kernel(version: u32) -> Result<()> {
    let refuse = |message: String, hint: &str| {
        Err(Error::new(ErrorKind::Isolation, Operation::Connect)
            .with_message(message)
            .with_hint(hint.to_owned()))
    };
    match version {
        0 => refuse(
            "the kernel has no Landlock, or it is switched off".into(),
            "add landlock to the kernel's parameter lsm= (see /sys/kernel/security/lsm); in a \
             container also allow landlock_create_ruleset(2) in its seccomp profile",
        ),
        NEEDED.. => Ok(()),
        _ => refuse(
            format!(
                "the kernel's Landlock has version {version}, which lets programs signal every \
                 process of their user"
            ),
            "run Linux 6.12 or later",
        ),
    }
}

#[async_trait]
impl Provider for LandlockProvider {
    fn backend(&self) -> &'static str {
        "local-landlock"
    }

    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn create(&self, spec: SandboxSpec) -> Result<Arc<dyn Sandbox>> {
        runtime::require(OP)?;
        check(&spec)?;
        let open_network = spec.network.clone().settle(&CAPABILITIES) == Network::Open;
        let config = self.config.clone();
        let made = blocking(OP, move || make(&config, open_network));
        let made = made.await?;
        let found = Found::probe(made.tree.dir(), &made.confinement).await;
        let report = found
            .map_err(|error| error.with_operation(OP))?
            .report(open_network, made.own_user);
        match &spec.isolation {
            RequiredIsolation::Only(controls) => {
                for control in controls {
                    if !report.is_enforced(*control) {
                        let how = report.get(*control).map(ToString::to_string);
                        return Err(Error::new(ErrorKind::Isolation, OP)
                            .with_message(format!("{control}: {}", how.unwrap_or_default()))
                            .with_hint("use the provider \"local:\" on a host that grants it"));
                    }
                }
            }
            _ => require(&report, open_network)?,
        }
        let base_env = default_env(made.tree.root());
        let mut settings = Settings::new(made.tree.guest_root().join("workspace"), &base_env);
        spec.env.apply_to(&mut settings.env);
        Ok(LandlockSandbox::new(Parts {
            made,
            settings,
            open_network,
            timeout: spec.command_timeout,
            grace: self.config.output_grace,
        }))
    }
}

fn make(config: &LandlockConfig, open_network: bool) -> Result<Made> {
    let failed = |error: io::Error| {
        Error::from_io(error, OP)
            .with_host_path(&config.base_dir)
            .with_hint("choose another directory with LandlockConfig::base_dir")
    };
    let user = GuestUser::for_this_host().map_err(failed)?;
    if user.is_some() {
        check_capabilities()?;
    }
    let tree = Tree::create(PREFIX, &config.base_dir).map_err(failed)?;
    prepare(&tree, user).map_err(failed)?;
    let ruled = |errno: rustix::io::Errno| {
        Error::new(ErrorKind::Isolation, OP)
            .with_message("Landlock's rules could not be made")
            .with_source(io::Error::from(errno))
    };
    let rules = inner(tree.root(), &config.system_dirs, open_network).map_err(ruled)?;
    let most = rustix::process::getrlimit(rustix::process::Resource::Nproc).maximum;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(tree.root(), flags, Mode::empty());
    let root = root.map_err(|errno| failed(errno.into()))?;
    let id = user.map_or_else(|| rustix::process::geteuid().as_raw(), |user| user.uid);
    Ok(Made {
        files: GuestRoot::new(root, user)
            .with_guest_id(id)
            .with_prefix(tree.guest_root().clone()),
        confinement: Confinement {
            outer: Arc::new(outer().map_err(ruled)?),
            cage: Arc::new(Cage {
                rules,
                filter: match mutation::is_off(Part::FenceFilter) {
                    // One instruction, which allows everything.
                    true => vec![6, 0, 0, 0, 0, 0, 0xff, 0x7f],
                    false => shared::filter(open_network),
                },
                user: user.map(|user| (user.uid, user.gid)),
                processes: most.unwrap_or(PROCESSES).min(PROCESSES),
            }),
            // Another user may change nothing of the host's anyway.
            watching: shared::watching(user.is_none()).into(),
            root: tree.root().to_owned(),
        },
        own_user: user.is_some(),
        tree,
    })
}

/// Gives the sandbox's files to its user, and nothing else.
fn prepare(tree: &Tree, user: Option<GuestUser>) -> io::Result<()> {
    let mode =
        |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode));
    let outside = tree.dir().join(OUTSIDE);
    std::fs::write(&outside, "of the host\n")?;
    mode(&outside, 0o600)?;
    mode(tree.root(), 0o700)?;
    if let Some(user) = user {
        mode(tree.dir(), 0o711)?;
        for name in ["workspace", "home", "tmp", ""] {
            user.own(&tree.root().join(name))?;
        }
    }
    Ok(())
}

/// As root: what it takes to give a sandbox a user of its own, and to end it.
fn check_capabilities() -> Result<()> {
    const NEEDED: [(u32, &str); 4] = [
        (0, "CAP_CHOWN"),
        (5, "CAP_KILL"),
        (6, "CAP_SETGID"),
        (7, "CAP_SETUID"),
    ];
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let held = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|held| u64::from_str_radix(held.trim(), 16).ok())
        .unwrap_or(0);
    let missing: Vec<&str> = NEEDED
        .iter()
        .filter(|(number, _)| held & (1 << number) == 0)
        .map(|(_, name)| *name)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let missing = missing.join(", ");
    Err(Error::new(ErrorKind::Isolation, OP)
        .with_message(format!(
            "root without {missing} can't give a sandbox a user of its own"
        ))
        .with_hint("give the host's process these capabilities, or run it as an ordinary user"))
}

fn check(spec: &SandboxSpec) -> Result<()> {
    spec.validate()?;
    if let Some(workdir) = &spec.workdir {
        let why = format!("{WHY}: it chooses the workdir, below a directory of the host");
        return Err(Error::unsupported(OP, "a workdir", &why)
            .with_path(workdir)
            .with_hint("leave it out, and use set_workdir with a relative path"));
    }
    if let Network::Allow(_) = &spec.network {
        CAPABILITIES.require(Capability::EgressByName, OP)?;
    }
    spec.require(&CAPABILITIES, OP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_scoped_signals_is_refused_with_the_remedy() {
        for version in 0..NEEDED {
            let error = check_kernel(version).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Isolation, "{version}");
            assert!(error.hint().is_some(), "{version}");
        }
        assert!(check_kernel(NEEDED).is_ok());
    }
}
