//! Peers that set up a sandbox for one command: bubblewrap, firejail, systemd-nspawn.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::command::{Call, Running, Workspace};
use super::peer::Place;
use crate::support::Outcome;

/// bubblewrap with all namespaces; it has no filter of its own.
pub(crate) struct Bubblewrap;

impl Call for Bubblewrap {
    fn program(&self) -> &'static str {
        "bwrap"
    }

    fn fresh(&self, place: &Place, workspace: &Workspace, argv: &[&str]) -> Outcome<Command> {
        let mut command = Command::new("bwrap");
        command.args(["--unshare-all", "--die-with-parent", "--new-session"]);
        command.args(["--cap-drop", "ALL", "--ro-bind", "/usr", "/usr"]);
        for dir in ["bin", "sbin", "lib", "lib32", "lib64"] {
            if let Ok(target) = std::fs::read_link(place.root().join(dir)) {
                command.arg("--symlink").arg(target).arg(format!("/{dir}"));
            }
        }
        command.args(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]);
        match workspace {
            Workspace::None => command.args(["--dir", "/workspace"]),
            Workspace::Dir(dir) | Workspace::Over(dir) => {
                command.arg("--bind").arg(dir).arg("/workspace")
            }
        };
        command.args(["--chdir", "/workspace", "--"]).args(argv);
        Ok(command)
    }
}

/// firejail without a profile, everything off that its options can turn off.
pub(crate) struct Firejail;

impl Firejail {
    fn options(workspace: &Workspace) -> Command {
        let mut command = Command::new("firejail");
        command.args(["--quiet", "--noprofile", "--net=none", "--private"]);
        command.args(["--caps.drop=all", "--seccomp", "--nonewprivs"]);
        if let Workspace::Dir(dir) | Workspace::Over(dir) = workspace {
            // It empties /var/tmp otherwise, where the scratch directory is.
            command.args(["--keep-var-tmp", "--writable-var"]);
            command.current_dir(dir);
        }
        command
    }
}

impl Call for Firejail {
    fn program(&self) -> &'static str {
        "firejail"
    }

    fn fresh(&self, _: &Place, workspace: &Workspace, argv: &[&str]) -> Outcome<Command> {
        let mut command = Self::options(workspace);
        command.arg("--").args(argv);
        Ok(command)
    }

    fn workspace(&self, dir: &Path) -> PathBuf {
        dir.into()
    }

    fn enters(&self) -> bool {
        true
    }

    fn start(&self, place: &Place, workspace: &Workspace) -> Outcome<Running> {
        let name = place.fresh("jail");
        let name = name.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("sandbox-bench-{}-{name}", std::process::id());
        let mut command = Self::options(workspace);
        command.arg(format!("--name={name}"));
        // The line says that the sandbox is there; after that it waits to be shut down.
        command.args(["--", "/bin/sh", "-c", "echo up; exec sleep 1000"]);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        if let Some(stdout) = &mut child.stdout {
            std::io::Read::read_exact(stdout, &mut [0; 3])?;
        }
        Ok(Running {
            inside: ["firejail", "--quiet", &format!("--join={name}")]
                .map(str::to_owned)
                .into(),
            stop: ["firejail", "--quiet", &format!("--shutdown={name}")]
                .map(str::to_owned)
                .into(),
            child: Some(child),
        })
    }
}

/// systemd-nspawn on a root directory, without registering a machine.
pub(crate) struct Nspawn;

impl Call for Nspawn {
    fn program(&self) -> &'static str {
        "systemd-nspawn"
    }

    fn fresh(&self, place: &Place, workspace: &Workspace, argv: &[&str]) -> Outcome<Command> {
        let mut command = Command::new("systemd-nspawn");
        command.args(["--quiet", "--register=no", "--keep-unit", "--pipe"]);
        command.args(["--private-network", "--read-only", "--bind-ro=/usr"]);
        command.arg("-D").arg(place.root());
        match workspace {
            Workspace::None => {}
            Workspace::Dir(dir) => {
                command.arg(format!("--bind={}:/workspace", dir.display()));
            }
            Workspace::Over(dir) => {
                command.arg(format!("--overlay={}::/workspace", dir.display()));
            }
        }
        command.arg("--").args(argv);
        Ok(command)
    }

    fn layers(&self) -> bool {
        true
    }
}
