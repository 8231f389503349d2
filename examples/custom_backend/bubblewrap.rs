//! Bubblewrap, once for each command: fresh namespaces, the host's `/usr` to read, and the
//! sandbox's tree as everything else.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use sandbox::{Capabilities, Capability, Control, Enforcement, IsolationReport, Network};
use tokio::process::Command as HostCommand;

use crate::provider::{Launcher, Start};

const ONE_COMMAND: &str = "bubblewrap knows one command and its namespaces";

/// Capabilities that are promised.
pub(crate) const CAPABILITIES: Capabilities = Capabilities::none(ONE_COMMAND)
    .with_each(&[
        Capability::Exec,
        Capability::Spawn,
        Capability::StdinPipe,
        Capability::KillDaemons,
        Capability::Symlinks,
        Capability::Modes,
        Capability::NonUtf8Names,
        Capability::FilePermissions,
        Capability::NetworkOff,
        Capability::NetworkOpen,
        Capability::Isolation,
        Capability::Attach,
        Capability::List,
    ])
    .partial(Capability::Fork, "copies every file")
    .without(
        Capability::Background,
        "a command's namespace ends with the command",
    )
    .without(
        Capability::Signals,
        "a signal would reach bubblewrap and not the program",
    );

/// Starts commands with `bwrap`.
#[derive(Debug)]
pub(crate) struct Bubblewrap;

impl Launcher for Bubblewrap {
    fn backend(&self) -> &'static str {
        "bubblewrap"
    }

    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    fn report(&self, network: &Network) -> IsolationReport {
        Control::ALL
            .iter()
            .fold(IsolationReport::new(), |report, control| {
                let enforcement = match control {
                    Control::Filesystem => Enforcement::enforced("a mount namespace"),
                    Control::Processes => Enforcement::enforced("a pid namespace"),
                    Control::Ipc => Enforcement::enforced("an IPC namespace"),
                    Control::Privileges => {
                        Enforcement::enforced("no capabilities, and no_new_privs")
                    }
                    Control::Network if *network == Network::Off => {
                        Enforcement::enforced("a network namespace with nothing in it")
                    }
                    _ => Enforcement::absent(ONE_COMMAND),
                };
                report.with(*control, enforcement)
            })
    }

    fn prepare(&self, root: &Path) -> std::io::Result<()> {
        // Debian's and Fedora's layout: all that is not in /usr is a link to there.
        for name in ["bin", "sbin", "lib", "lib64"] {
            std::os::unix::fs::symlink(format!("usr/{name}"), root.join(name))?;
        }
        // The directories that others are mounted on, and those that programs expect.
        for name in ["usr", "proc", "dev", "etc", "home", "var/tmp", "tmp"] {
            std::fs::create_dir_all(root.join(name))?;
        }
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
        std::fs::set_permissions(root.join("tmp"), open)
    }

    fn command(&self, start: &Start<'_>) -> HostCommand {
        let mut host = HostCommand::new("/usr/bin/bwrap");
        host.args(["--unshare-all", "--die-with-parent", "--new-session"]);
        // For root bubblewrap keeps them all unless it is told.
        host.args(["--cap-drop", "ALL"]);
        if *start.network == Network::Open {
            host.arg("--share-net");
        }
        host.arg("--bind").arg(start.root).arg("/");
        host.args(["--ro-bind", "/usr", "/usr"]);
        host.args(["--proc", "/proc", "--dev", "/dev", "--chdir"]);
        host.arg(OsStr::from_bytes(start.cwd.as_bytes())).arg("--");
        host.args(start.argv.iter().map(|word| OsStr::from_bytes(word)));
        host
    }
}
