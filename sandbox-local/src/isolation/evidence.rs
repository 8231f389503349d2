//! The probe: what is tried from inside, and what came of it.

use std::fs;
use std::path::Path;

use rustix::io::Errno;

use crate::engine::{Arg, Data, Dir, Findings, Plan, ProbeError, Slot};
use crate::sandbox::running::Running;

const NAMESPACES: [&str; 5] = ["user", "mnt", "pid", "net", "ipc"];
/// Room for a file or a link that is read.
const ROOM: usize = 4096;
const OVERLAYFS: i64 = 0x794c_7630;

/// Evidence that a guest found.
pub(super) struct Evidence {
    namespaces: Vec<(&'static str, String)>,
    status: String,
    pub(super) root_is_overlay: bool,
    /// Bytes that the root filesystem holds in all.
    pub(super) root_size: u64,
    pub(super) host_state_hidden: bool,
    pub(super) system_read_only: bool,
    pub(super) cannot_mount: bool,
    pub(super) init_is_closed: bool,
    pub(super) own_proc: bool,
    pub(super) only_loopback: bool,
    /// Neither a public address nor a metadata service's has a route.
    pub(super) nothing_reached: bool,
    pub(super) no_capabilities: bool,
    /// No capability but the one of root over its own files, and no way to another.
    pub(super) only_over_own_files: bool,
    pub(super) no_user_namespace: bool,
    pub(super) filtered: bool,
    /// The hard limit on processes.
    pub(super) processes: u64,
}

/// `CAP_DAC_OVERRIDE` alone, as `/proc/self/status` has it.
const OVER_OWN_FILES: &str = "0000000000000002";

/// A file read by the probe.
struct Read {
    data: Data,
    length: Slot,
}

impl Read {
    fn file(plan: &mut Plan, path: &str) -> Self {
        let data = plan.data(&[0; ROOM]);
        let fd = plan.open(
            "open a file",
            Dir::Cwd,
            path,
            libc::O_RDONLY | libc::O_CLOEXEC,
            0,
        );
        let fd = fd.result();
        let args = [Arg::from(fd), data.into(), (ROOM as u64).into()];
        let length = plan.call("read a file", libc::SYS_read, &args).result();
        Self { data, length }
    }

    fn link(plan: &mut Plan, path: &str) -> Self {
        let data = plan.data(&[0; ROOM]);
        let path = plan.path(path);
        let args = [
            Arg::from(libc::AT_FDCWD),
            path.into(),
            data.into(),
            (ROOM as u64).into(),
        ];
        let length = plan
            .call("read a link", libc::SYS_readlinkat, &args)
            .result();
        Self { data, length }
    }

    fn text(&self, findings: &Findings) -> String {
        let length = findings
            .result(self.length)
            .map_or(0, |length| length as usize);
        String::from_utf8_lossy(findings.data(self.data, length.min(ROOM))).into_owned()
    }
}

/// A call that must fail like this.
struct Refused {
    slot: Slot,
    with: &'static [Errno],
}

impl Refused {
    fn new(plan: &mut Plan, number: i64, args: &[Arg], with: &'static [Errno]) -> Self {
        Self {
            slot: plan.call("try a call", number, args).result(),
            with,
        }
    }

    fn held(&self, findings: &Findings) -> bool {
        findings
            .result(self.slot)
            .is_err_and(|errno| self.with.contains(&errno))
    }
}

impl Evidence {
    pub(super) async fn gather(running: &Running) -> Result<Self, ProbeError> {
        let mut plan = Plan::new();
        let namespaces: Vec<(&'static str, Read)> = NAMESPACES
            .iter()
            .map(|name| {
                (
                    *name,
                    Read::link(&mut plan, &format!("/proc/self/ns/{name}")),
                )
            })
            .collect();
        let status = Read::file(&mut plan, "/proc/self/status");
        let own = Read::link(&mut plan, "/proc/self");
        let interfaces = Read::file(&mut plan, "/proc/self/net/dev");
        let statfs = plan.data(&[0; 120]);
        let root = plan.path("/");
        let stat = plan.call(
            "look at the root",
            libc::SYS_statfs,
            &[root.into(), statfs.into()],
        );
        let stat = stat.result();
        let limit = plan.data(&[0; 16]);
        let args = [
            Arg::from(0),
            (rustix::process::Resource::Nproc as u32).into(),
            Arg::Null,
            limit.into(),
        ];
        plan.call("read a limit", libc::SYS_prlimit64, &args);
        let hidden = state_hidden(&mut plan, running.state_dir());
        let system = writes_refused(&mut plan);
        let mount = mount_refused(&mut plan);
        let init = init_closed(&mut plan);
        let filter = filter_refused(&mut plan);
        let routes = routes_refused(&mut plan);
        // Last: should it succeed, the probe is in another namespace.
        let user = Refused::new(
            &mut plan,
            libc::SYS_unshare,
            &[libc::CLONE_NEWUSER.into()],
            &[Errno::PERM],
        );
        let findings = running.engine.probe(plan).await?;
        let word = |data: Data, at: usize| {
            let bytes = findings
                .data(data, at + 8)
                .get(at..)
                .and_then(|b| b.try_into().ok());
            bytes.map_or(0, i64::from_ne_bytes)
        };
        let status = status.text(&findings);
        let held = |tried: &[Refused]| tried.iter().all(|refused| refused.held(&findings));
        let own_pid = own.text(&findings);
        Ok(Self {
            namespaces: namespaces
                .iter()
                .map(|(name, read)| (*name, read.text(&findings)))
                .collect(),
            // struct statfs: type, block size, blocks.
            root_is_overlay: findings.result(stat).is_ok() && word(statfs, 0) == OVERLAYFS,
            root_size: (word(statfs, 8) as u64).saturating_mul(word(statfs, 16) as u64),
            host_state_hidden: held(&[hidden]),
            system_read_only: held(&[system]),
            cannot_mount: held(&mount),
            init_is_closed: held(&init),
            own_proc: field(&status, "Pid") == Some(own_pid.as_str()),
            nothing_reached: held(&routes),
            only_loopback: only_loopback(&interfaces.text(&findings)),
            no_capabilities: ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]
                .iter()
                .all(|set| field(&status, set) == Some("0000000000000000")),
            only_over_own_files: field(&status, "CapBnd") == Some("0000000000000000")
                && ["CapInh", "CapPrm", "CapEff", "CapAmb"]
                    .iter()
                    .all(|set| field(&status, set) == Some(OVER_OWN_FILES)),
            no_user_namespace: held(&[user]),
            filtered: held(&filter),
            processes: word(limit, 8) as u64,
            status,
        })
    }

    /// Whether a namespace is another than this process's.
    pub(super) fn other_namespace(&self, name: &str) -> bool {
        let inside = self.namespaces.iter().find(|(known, _)| *known == name);
        let host = fs::read_link(format!("/proc/self/ns/{name}"));
        match (inside, host) {
            (Some((_, inside)), Ok(host)) => {
                !inside.is_empty() && host.to_str() != Some(inside.as_str())
            }
            _ => false,
        }
    }

    /// Whether a line of /proc/self/status says this.
    pub(super) fn status_is(&self, name: &str, value: &str) -> bool {
        field(&self.status, name) == Some(value)
    }
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
}

/// The table has two lines of heading, then one for each interface.
fn only_loopback(table: &str) -> bool {
    let mut interfaces = table
        .lines()
        .skip(2)
        .map(|line| line.trim().split(':').next());
    interfaces.next() == Some(Some("lo")) && interfaces.next().is_none()
}

fn state_hidden(plan: &mut Plan, dir: &Path) -> Refused {
    let path = plan.path(dir);
    let flags = libc::O_PATH | libc::O_CLOEXEC;
    let args = [
        Arg::from(libc::AT_FDCWD),
        path.into(),
        flags.into(),
        0.into(),
    ];
    Refused::new(plan, libc::SYS_openat, &args, &[Errno::NOENT])
}

fn writes_refused(plan: &mut Plan) -> Refused {
    // A file without a name: where it may be made, as in an image, nothing stays of it.
    let path = plan.path("/usr");
    let flags = libc::O_WRONLY | libc::O_TMPFILE | libc::O_CLOEXEC;
    let args = [
        Arg::from(libc::AT_FDCWD),
        path.into(),
        flags.into(),
        0o600.into(),
    ];
    // A given root directory may have no /usr.
    Refused::new(
        plan,
        libc::SYS_openat,
        &args,
        &[Errno::ROFS, Errno::ACCESS, Errno::NOENT],
    )
}

fn mount_refused(plan: &mut Plan) -> Vec<Refused> {
    let kind = plan.path("tmpfs");
    let target = plan.path("/tmp");
    let mount = [kind.into(), target.into(), kind.into(), 0.into(), Arg::Null];
    vec![
        Refused::new(plan, libc::SYS_mount, &mount, &[Errno::PERM]),
        Refused::new(
            plan,
            libc::SYS_fsopen,
            &[kind.into(), 0.into()],
            &[Errno::PERM],
        ),
    ]
}

fn init_closed(plan: &mut Plan) -> Vec<Refused> {
    ["/proc/1/environ", "/proc/1/mem", "/proc/1/root/proc"]
        .iter()
        .map(|path| {
            let path = plan.path(path);
            let args = [
                Arg::from(libc::AT_FDCWD),
                path.into(),
                libc::O_RDONLY.into(),
                0.into(),
            ];
            Refused::new(plan, libc::SYS_openat, &args, &[Errno::ACCESS, Errno::PERM])
        })
        .collect()
}

/// Without waiting: where there is a route the attempt is under way.
fn routes_refused(plan: &mut Plan) -> Vec<Refused> {
    let dial = |plan: &mut Plan, [a, b, c, d]: [u8; 4], kind: i32| {
        let kind = kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let args = [Arg::from(libc::AF_INET), kind.into(), 0.into()];
        let socket = plan.call("make a socket", libc::SYS_socket, &args).result();
        // struct sockaddr_in, port 443.
        let [family, other] = (libc::AF_INET as u16).to_ne_bytes();
        let mut address = [0; 16];
        address[..8].copy_from_slice(&[family, other, 1, 187, a, b, c, d]);
        let address = plan.data(&address).into();
        let args = [Arg::from(socket), address, 16_u64.into()];
        Refused::new(plan, libc::SYS_connect, &args, &[Errno::NETUNREACH])
    };
    [[1, 1, 1, 1], [169, 254, 169, 254], [10, 0, 0, 1]]
        .into_iter()
        .flat_map(|to| [(to, libc::SOCK_STREAM), (to, libc::SOCK_DGRAM)])
        .map(|(to, kind)| dial(plan, to, kind))
        .collect()
}

fn filter_refused(plan: &mut Plan) -> Vec<Refused> {
    let nothing = [Arg::from(0), 0.into(), 0.into(), 0.into(), 0.into()];
    let refused: [(i64, &'static [Errno]); 4] = [
        (libc::SYS_bpf, &[Errno::PERM]),
        (libc::SYS_io_uring_setup, &[Errno::PERM]),
        (libc::SYS_keyctl, &[Errno::PERM]),
        (libc::SYS_clone3, &[Errno::NOSYS]),
    ];
    refused
        .iter()
        .map(|(number, with)| Refused::new(plan, *number, &nothing, with))
        .collect()
}
