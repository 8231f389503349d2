//! Peers that are container engines: runc, crun and gVisor's runsc with a bundle, podman with a root
//! directory.

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::command::{Call, Running, Workspace, command};
use super::peer::Place;
use crate::support::{Outcome, host};

/// The filter that container engines ship: docker and podman use the same list of calls; here as
/// far as it matters for the cost, a deny list of the calls that root needs a capability for.
const DENIED: &[&str] = &[
    "add_key",
    "bpf",
    "init_module",
    "finit_module",
    "delete_module",
    "kexec_load",
    "keyctl",
    "mount",
    "move_pages",
    "open_by_handle_at",
    "perf_event_open",
    "pivot_root",
    "process_vm_readv",
    "process_vm_writev",
    "ptrace",
    "reboot",
    "request_key",
    "setns",
    "swapoff",
    "swapon",
    "umount2",
    "unshare",
    "userfaultfd",
];

/// A runtime on a bundle made here, with the filter and without capabilities.
pub(crate) struct Runtime {
    program: &'static str,
    /// Options that come before all others.
    flags: &'static [&'static str],
    /// Output of its `spec`: asking for it is no part of the work.
    spec: OnceCell<Value>,
}

impl Runtime {
    pub(crate) const fn runc() -> Self {
        Self::new("runc", &[])
    }

    pub(crate) const fn crun() -> Self {
        Self::new("crun", &[])
    }

    /// gVisor. It makes no control groups here, which spares it time.
    pub(crate) const fn runsc() -> Self {
        Self::new("runsc", &["--network=none", "--ignore-cgroups"])
    }

    const fn new(program: &'static str, flags: &'static [&'static str]) -> Self {
        Self {
            program,
            flags,
            spec: OnceCell::new(),
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.program);
        command.args(self.flags);
        command
    }

    /// A new bundle: its directory.
    fn bundle(&self, place: &Place, workspace: &Workspace, argv: &[&str]) -> Outcome<PathBuf> {
        let dir = place.fresh("bundle");
        fs::create_dir(&dir)?;
        let file = dir.join("config.json");
        let mut config = match self.spec.get() {
            Some(spec) => spec.clone(),
            None => {
                host::run(self.command().arg("spec").current_dir(&dir))?;
                let spec: Value = serde_json::from_slice(&fs::read(&file)?)?;
                self.spec.get_or_init(|| spec).clone()
            }
        };
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(argv);
        config["process"]["capabilities"] = json!({});
        config["root"] = json!({"path": place.root(), "readonly": true});
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": DENIED, "action": "SCMP_ACT_ERRNO"}],
        });
        let mut mounts = config["mounts"].as_array().cloned().unwrap_or_default();
        mounts.push(json!({
            "destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"],
        }));
        match workspace {
            Workspace::None => {}
            Workspace::Dir(from) => mounts.push(json!({
                "destination": "/workspace", "type": "bind", "source": from, "options": ["rbind"],
            })),
            Workspace::Over(from) => {
                let (upper, work) = (dir.join("upper"), dir.join("work"));
                fs::create_dir(&upper)?;
                fs::create_dir(&work)?;
                let layers = format!(
                    "lowerdir={},upperdir={},workdir={}",
                    from.display(),
                    upper.display(),
                    work.display()
                );
                mounts.push(json!({
                    "destination": "/workspace", "type": "overlay", "source": "overlay",
                    "options": [layers],
                }));
            }
        }
        config["mounts"] = json!(mounts);
        fs::write(file, serde_json::to_vec(&config)?)?;
        Ok(dir)
    }

    fn name(bundle: &Path) -> String {
        let name = bundle.file_name().unwrap_or_default().to_string_lossy();
        format!("sandbox-bench-{}-{name}", std::process::id())
    }
}

impl Call for Runtime {
    fn program(&self) -> &'static str {
        self.program
    }

    fn fresh(&self, place: &Place, workspace: &Workspace, argv: &[&str]) -> Outcome<Command> {
        let bundle = self.bundle(place, workspace, argv)?;
        let mut command = self.command();
        command.arg("run").arg("--bundle").arg(&bundle);
        command.arg(Self::name(&bundle));
        Ok(command)
    }

    fn layers(&self) -> bool {
        true
    }

    fn enters(&self) -> bool {
        true
    }

    fn start(&self, place: &Place, workspace: &Workspace) -> Outcome<Running> {
        let bundle = self.bundle(place, workspace, &["/bin/sleep", "1000"])?;
        let name = Self::name(&bundle);
        let mut command = self.command();
        command.args(["run", "--detach", "--bundle"]).arg(&bundle);
        // The container keeps the streams: a pipe would be waited for as long as it lives.
        let status = command
            .arg(&name)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        if !status.success() {
            return Err(format!("{} run: {status}", self.program).into());
        }
        let words = |words: &[&str]| {
            let all = [self.program].into_iter().chain(self.flags.iter().copied());
            let all = all.chain(words.iter().copied());
            all.map(str::to_owned).collect()
        };
        Ok(Running {
            inside: words(&["exec", &name]),
            stop: words(&["delete", "--force", &name]),
            child: None,
        })
    }
}

/// podman on a root directory: no image has to be pulled.
pub(crate) struct Podman;

impl Podman {
    fn options(place: &Place, workspace: &Workspace, detach: bool) -> Vec<String> {
        let mut words: Vec<String> = ["podman", "run", "--rm", "--network=none", "--cap-drop=all"]
            .map(str::to_owned)
            .into();
        words.push("--security-opt=no-new-privileges".into());
        // Its defaults are more than a user, or root in a container, may raise them to.
        words.extend(["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"].map(str::to_owned));
        words.push("--volume=/usr:/usr:ro".into());
        match workspace {
            Workspace::None => {}
            Workspace::Dir(dir) => words.push(format!("--volume={}:/workspace", dir.display())),
            Workspace::Over(dir) => words.push(format!("--volume={}:/workspace:O", dir.display())),
        }
        if detach {
            words.push("--detach".into());
        }
        words.push("--rootfs".into());
        words.push(place.root().to_string_lossy().into_owned());
        words
    }
}

impl Call for Podman {
    fn program(&self) -> &'static str {
        "podman"
    }

    fn fresh(&self, place: &Place, workspace: &Workspace, argv: &[&str]) -> Outcome<Command> {
        Ok(command(&Self::options(place, workspace, false), argv))
    }

    fn layers(&self) -> bool {
        true
    }

    fn enters(&self) -> bool {
        true
    }

    fn start(&self, place: &Place, workspace: &Workspace) -> Outcome<Running> {
        let options = Self::options(place, workspace, true);
        let id = host::run(&mut command(&options, &["/bin/sleep", "1000"]))?;
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Ok(Running {
            inside: words(&["podman", "exec", "--interactive", id.trim()]),
            stop: words(&["podman", "rm", "--force", "--time=0", id.trim()]),
            child: None,
        })
    }
}
