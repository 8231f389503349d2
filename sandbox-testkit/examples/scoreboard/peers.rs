//! Adapters: how each peer is asked to run one command, from its documentation, and what its
//! documentation promises.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sandbox_core::{
    Capabilities, Capability, Control, Enforcement, GuestPath, IsolationReport, Network, Provider,
    Result, SandboxSpec, async_trait,
};
use sandbox_testkit::Fixture;
use tokio::process::Command as HostCommand;

use crate::Contestant;
use crate::bubblewrap::Bubblewrap;
use crate::provider::{Launcher, ProcessProvider, Start};

const NOT_OFFERED: &str = "not offered";

/// Capabilities of a program that runs one command: the rest is not offered.
const ONE_COMMAND: Capabilities = Capabilities::none(NOT_OFFERED).with_each(&[
    Capability::Exec,
    Capability::Spawn,
    Capability::StdinPipe,
    Capability::Symlinks,
    Capability::Modes,
    Capability::NonUtf8Names,
    Capability::FilePermissions,
    Capability::NetworkOff,
    Capability::Isolation,
]);

/// The peers, with the command line or call of each.
pub(crate) fn all() -> Vec<Contestant> {
    vec![
        Contestant {
            name: "bubblewrap",
            used_as: "`bwrap --unshare-all --die-with-parent --new-session --cap-drop ALL`, the \
                      tree as `/`, the host's `/usr` to read (bwrap(1))",
            version: || version(&["bwrap", "--version"]),
            fixture: || Arc::new(Peer::new(|| Bubblewrap)),
        },
        Contestant {
            name: "sandlock",
            used_as: "`Sandbox(fs_readable=[/usr, …], fs_writable=[tree]).popen(…)` of its Python \
                      package (its README)",
            version: sandlock_version,
            fixture: || Arc::new(Peer::new(|| Sandlock)),
        },
        Contestant {
            name: "gVisor",
            used_as: "`runsc --network=none --ignore-cgroups --file-access=shared run`, an OCI bundle with the tree as \
                      root and the host's `/usr` to read, no capabilities, `noNewPrivileges`",
            version: || version(&["runsc", "--version"]),
            fixture: || Arc::new(Peer::new(|| Runsc)),
        },
        Contestant {
            name: "firejail",
            used_as: "`firejail --noprofile --private=tree --net=none --caps.drop=all --nonewprivs \
                      --seccomp --ipc-namespace` (firejail(1))",
            version: || version(&["firejail", "--version"]),
            fixture: || Arc::new(Peer::new(|| Firejail)),
        },
        Contestant {
            name: "podman",
            used_as: "`podman run --rm -i --network none --rootfs tree`, the host's `/usr` to read \
                      (podman-run(1))",
            version: podman_version,
            fixture: || Arc::new(Peer::new(|| Podman)),
        },
        Contestant {
            name: "Anthropic sandbox runtime",
            used_as: "`srt --settings`: reads only of `/usr` and the tree, writes only to the \
                      tree, no domain allowed (its README)",
            version: || version(&["srt", "--version"]),
            fixture: || Arc::new(Peer::new(|| Srt)),
        },
    ]
}

/// The first line that a program says of its version.
fn version(command: &[&str]) -> std::result::Result<String, String> {
    let [program, arguments @ ..] = command else {
        return Err("no program".into());
    };
    let output = std::process::Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match text.lines().find(|line| !line.trim().is_empty()) {
        Some(line) if output.status.success() => Ok(line.trim().to_owned()),
        _ => Err(format!(
            "{program}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}

/// The Python that has sandlock, by `SCOREBOARD_PYTHON`; otherwise `python3`.
fn python() -> String {
    std::env::var("SCOREBOARD_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

fn sandlock_version() -> std::result::Result<String, String> {
    let script = "import sandlock; print('sandlock', sandlock.__version__)";
    version(&[&python(), "-c", script])
}

/// Podman starts nothing on some machines: then it is not here.
fn podman_version() -> std::result::Result<String, String> {
    let found = version(&["podman", "--version"])?;
    let tree = tempfile::tempdir().map_err(|error| error.to_string())?;
    Podman
        .prepare(tree.path())
        .map_err(|error| error.to_string())?;
    let start = Start {
        id: "scoreboard-probe",
        root: tree.path(),
        network: &Network::Off,
        cwd: &GuestPath::root(),
        argv: &[b"/usr/bin/true".to_vec()],
    };
    let output = Podman
        .command(&start)
        .into_std()
        .output()
        .map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(found),
        false => Err(format!(
            "{found} starts no container here: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}

/// A peer under test.
struct Peer<L> {
    launcher: fn() -> L,
}

impl<L> Peer<L> {
    fn new(launcher: fn() -> L) -> Self {
        Self { launcher }
    }
}

#[async_trait]
impl<L: Launcher> Fixture for Peer<L> {
    fn name(&self) -> String {
        (self.launcher)().backend().to_owned()
    }

    fn capabilities(&self) -> Capabilities {
        // A fork copies the adapter's tree: no peer offers it.
        (self.launcher)()
            .capabilities()
            .without(Capability::Fork, NOT_OFFERED)
            .without(Capability::Attach, NOT_OFFERED)
            .without(Capability::List, NOT_OFFERED)
    }

    async fn provider(&self) -> Result<Arc<dyn Provider>> {
        let capabilities = self.capabilities();
        Ok(Arc::new(ProcessProvider::new(Declared {
            launcher: (self.launcher)(),
            capabilities,
        })))
    }

    fn spec(&self) -> SandboxSpec {
        SandboxSpec::new().network(Network::Off)
    }

    /// Some take seconds for each command.
    fn case_timeout(&self) -> Duration {
        Duration::from_secs(300)
    }

    fn threads(&self) -> Option<usize> {
        sandbox_testkit::kit::mostly_waiting()
    }

    /// Those under a kernel of their own are not.
    fn is_of_this_host(&self) -> bool {
        (self.launcher)().backend() != "gVisor"
    }

    fn leaves_out(&self, case: &str) -> Option<String> {
        let of_the_adapter = [
            "isolation::the_report_names_every_control",
            "isolation::the_report_claims_the_basics",
            "isolation::an_undeclared_limit_is_not_claimed",
            "isolation::required_controls_are_in_force",
        ];
        let bytes = [
            "exec::arguments_arrive_verbatim",
            "env::odd_values_arrive_verbatim",
        ];
        if bytes.contains(&case) && self.name() == "gVisor" {
            return Some("an OCI configuration is text, which has no other bytes".to_owned());
        }
        let launcher = (self.launcher)();
        // One directory of the host, under its own name, is all that some are given.
        let of_other_directories = [
            "exec::cwd_may_be_relative_or_absolute",
            "env::the_workdir_of_the_spec_is_created",
            "isolation::tmp_is_the_sandboxs_own",
        ];
        let at_root = launcher.guest_root(Path::new("/tree")) == GuestPath::root();
        if !at_root && of_other_directories.contains(&case) {
            return Some("the adapter gives the peer one directory".to_owned());
        }
        let promised = match case {
            "host::the_ipc_namespace_is_not_the_hosts" => Some(Control::Ipc),
            "host::shared_memory_of_the_host_is_not_inside"
            | "host::directories_of_the_host_are_not_inside" => Some(Control::Filesystem),
            // Files are hidden by a profile, which the adapter does without.
            "host::canaries_of_the_host_are_not_read"
            | "host::private_files_of_the_host_are_not_read"
                if self.name() == "firejail" =>
            {
                Some(Control::Filesystem)
            }
            _ => None,
        };
        let report = launcher.report(&Network::Off);
        if promised.is_some_and(|control| !report.is_enforced(control)) {
            return Some("its documentation does not promise it".to_owned());
        }
        of_the_adapter
            .contains(&case)
            .then(|| "the report is the adapter's".to_owned())
    }
}

/// A launcher with the capabilities that its peer offers.
#[derive(Debug)]
struct Declared<L> {
    launcher: L,
    capabilities: Capabilities,
}

impl<L: Launcher> Launcher for Declared<L> {
    fn backend(&self) -> &'static str {
        self.launcher.backend()
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities.clone()
    }

    fn report(&self, network: &Network) -> IsolationReport {
        self.launcher.report(network)
    }

    fn prepare(&self, root: &Path) -> std::io::Result<()> {
        self.launcher.prepare(root)
    }

    fn guest_root(&self, root: &Path) -> GuestPath {
        self.launcher.guest_root(root)
    }

    fn command(&self, start: &Start<'_>) -> HostCommand {
        self.launcher.command(start)
    }
}

/// A report of what the documentation promises.
fn promises(controls: &[Control]) -> IsolationReport {
    Control::ALL
        .iter()
        .fold(IsolationReport::new(), |report, control| {
            let enforcement = match controls.contains(control) {
                true => Enforcement::enforced("by its documentation"),
                false => Enforcement::absent("its documentation does not promise it"),
            };
            report.with(*control, enforcement)
        })
}

fn text(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

fn words<'a>(start: &'a Start<'_>) -> impl Iterator<Item = &'a OsStr> {
    start.argv.iter().map(|word| text(word))
}

/// A root with directories to mount on, and a word of what system it is.
fn prepare_root(root: &Path) -> std::io::Result<()> {
    Bubblewrap.prepare(root)?;
    std::fs::create_dir_all(root.join("sys"))?;
    std::fs::write(root.join("etc/os-release"), "ID=scoreboard\n")
}

#[derive(Debug)]
struct Sandlock;

impl Launcher for Sandlock {
    fn backend(&self) -> &'static str {
        "sandlock"
    }

    fn capabilities(&self) -> Capabilities {
        ONE_COMMAND
    }

    fn report(&self, _: &Network) -> IsolationReport {
        promises(&[Control::SystemCalls])
    }

    fn prepare(&self, root: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(root.join("tmp"))
    }

    fn guest_root(&self, root: &Path) -> GuestPath {
        GuestPath::new(root.as_os_str().as_bytes())
    }

    fn command(&self, start: &Start<'_>) -> HostCommand {
        const SCRIPT: &str = "\
import os, signal, sys
from sandlock import Sandbox
root, cwd = sys.argv[1:3]
system = ['/usr', '/lib', '/lib64', '/bin', '/sbin', '/proc', '/dev']
sandbox = Sandbox(fs_readable=[d for d in system if os.path.exists(d)],
                  fs_writable=[root, '/dev/null'], cwd=cwd)
result = sandbox.popen(sys.argv[3:]).wait()
if result.signal is not None and result.signal > 0:
    signal.signal(result.signal, signal.SIG_DFL) if result.signal not in (9, 19) else None
    os.kill(os.getpid(), result.signal)
sys.exit(result.exit_code)
";
        let mut host = HostCommand::new(python());
        host.args(["-c", SCRIPT]).arg(start.root);
        host.arg(text(start.cwd.as_bytes())).args(words(start));
        host
    }
}

#[derive(Debug)]
struct Runsc;

impl Launcher for Runsc {
    fn backend(&self) -> &'static str {
        "gVisor"
    }

    fn capabilities(&self) -> Capabilities {
        ONE_COMMAND.with(Capability::KillDaemons)
    }

    fn report(&self, _: &Network) -> IsolationReport {
        promises(&[
            Control::Filesystem,
            Control::Processes,
            Control::Network,
            Control::Ipc,
            Control::Privileges,
        ])
    }

    fn prepare(&self, root: &Path) -> std::io::Result<()> {
        prepare_root(root)
    }

    fn command(&self, start: &Start<'_>) -> HostCommand {
        let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let args: Vec<String> = start.argv.iter().map(|word| lossy(word)).collect();
        let namespaces = ["pid", "mount", "ipc", "uts", "network"];
        let config = serde_json::json!({
            "ociVersion": "1.0.0",
            "root": {"path": start.root},
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": args,
                "cwd": lossy(start.cwd.as_bytes()),
                "noNewPrivileges": true,
                "capabilities": {},
            },
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
                {"destination": "/usr", "type": "bind", "source": "/usr", "options": ["bind", "ro"]},
            ],
            "linux": {"namespaces": namespaces.map(|name| serde_json::json!({"type": name}))},
        });
        // The variables are those of this process, which go into the bundle.
        const SCRIPT: &str = "\
import json, os, subprocess, sys, tempfile, uuid
config = json.loads(sys.argv[1])
config['process']['env'] = [f'{k}={v}' for k, v in os.environ.items()]
with tempfile.TemporaryDirectory(dir=sys.argv[2]) as bundle:
    json.dump(config, open(bundle + '/config.json', 'w'))
    name = 'scoreboard-' + uuid.uuid4().hex
    sys.exit(subprocess.call(['/usr/bin/runsc', '--network=none', '--ignore-cgroups',
                              '--file-access=shared', 'run',
                              '-bundle', bundle, name]))
";
        let beside = start
            .root
            .parent()
            .map(Path::to_path_buf)
            .unwrap_or_default();
        let mut host = HostCommand::new("/usr/bin/python3");
        host.args(["-c", SCRIPT, &config.to_string()]).arg(beside);
        host
    }
}

#[derive(Debug)]
struct Firejail;

impl Launcher for Firejail {
    fn backend(&self) -> &'static str {
        "firejail"
    }

    fn capabilities(&self) -> Capabilities {
        ONE_COMMAND.with(Capability::KillDaemons)
    }

    fn report(&self, _: &Network) -> IsolationReport {
        promises(&[
            Control::Processes,
            Control::Network,
            Control::Ipc,
            Control::Privileges,
            Control::SystemCalls,
        ])
    }

    fn prepare(&self, root: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(root.join("tmp"))
    }

    /// The tree is the user's home.
    fn guest_root(&self, _: &Path) -> GuestPath {
        let home = std::env::var_os("HOME").unwrap_or_else(|| "/root".into());
        GuestPath::new(home.as_bytes())
    }

    fn command(&self, start: &Start<'_>) -> HostCommand {
        let mut host = HostCommand::new("/usr/bin/firejail");
        let mut private = std::ffi::OsString::from("--private=");
        private.push(start.root);
        host.args(["--quiet", "--noprofile"]).arg(private);
        host.args(["--net=none", "--caps.drop=all", "--nonewprivs", "--seccomp"]);
        host.args(["--ipc-namespace", "--"]);
        // It has no option for the directory.
        host.args(["/bin/sh", "-c", "cd \"$0\" && exec \"$@\""]);
        host.arg(text(start.cwd.as_bytes())).args(words(start));
        host
    }
}

#[derive(Debug)]
struct Podman;

impl Launcher for Podman {
    fn backend(&self) -> &'static str {
        "podman"
    }

    fn capabilities(&self) -> Capabilities {
        ONE_COMMAND.with(Capability::KillDaemons)
    }

    fn report(&self, _: &Network) -> IsolationReport {
        promises(&[
            Control::Filesystem,
            Control::Processes,
            Control::Network,
            Control::Ipc,
            Control::SystemCalls,
        ])
    }

    fn prepare(&self, root: &Path) -> std::io::Result<()> {
        prepare_root(root)
    }

    fn command(&self, start: &Start<'_>) -> HostCommand {
        let mut host = HostCommand::new("/usr/bin/podman");
        host.args(["run", "--rm", "-i", "--network", "none", "--env-host"]);
        host.args(["--volume", "/usr:/usr:ro", "--workdir"]);
        host.arg(text(start.cwd.as_bytes()))
            .arg("--rootfs")
            .arg(start.root);
        host.args(words(start));
        host
    }
}

#[derive(Debug)]
struct Srt;

impl Launcher for Srt {
    fn backend(&self) -> &'static str {
        "anthropic-sandbox-runtime"
    }

    fn capabilities(&self) -> Capabilities {
        ONE_COMMAND.with(Capability::KillDaemons)
    }

    fn report(&self, _: &Network) -> IsolationReport {
        promises(&[Control::Network, Control::Processes, Control::SystemCalls])
    }

    fn prepare(&self, root: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(root.join("tmp"))?;
        let hidden = [
            "/root", "/home", "/etc", "/var", "/run", "/srv", "/tmp", "/opt",
        ];
        let settings = serde_json::json!({
            "filesystem": {
                "denyRead": hidden,
                "allowRead": [root],
                "allowWrite": [root],
                "denyWrite": [],
            },
            "network": {"allowedDomains": [], "deniedDomains": []},
        });
        std::fs::write(settings_of(root), settings.to_string())
    }

    fn guest_root(&self, root: &Path) -> GuestPath {
        GuestPath::new(root.as_os_str().as_bytes())
    }

    fn command(&self, start: &Start<'_>) -> HostCommand {
        let srt = std::env::var_os("PATH")
            .and_then(|path| {
                std::env::split_paths(&path)
                    .map(|dir| dir.join("srt"))
                    .find(|program| program.exists())
            })
            .unwrap_or_else(|| "srt".into());
        let mut host = HostCommand::new(srt);
        host.arg("--settings")
            .arg(settings_of(start.root))
            .arg("--");
        // It runs in the directory of its caller.
        if let Some(below) = start.cwd.strip_prefix(&self.guest_root(start.root)) {
            host.current_dir(start.root.join(text(below.as_bytes())));
        }
        host.args(words(start));
        host
    }
}

/// Beside the tree, where the guest does not see it.
fn settings_of(root: &Path) -> PathBuf {
    root.with_file_name("settings.json")
}
