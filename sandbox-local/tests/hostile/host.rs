//! Shared parts of all hostile tests: the programs, compiled once; running one outside and inside;
//! and whose turn it is. A program that is missing or does not reach its end fails the test.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use sandbox_core::{Command, FileBatch, Mode, Output, Process, Sandbox};
use sandbox_local::{LocalConfig, LocalProvider};
use sandbox_testkit::Scratch;
use tokio::io::AsyncReadExt;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::support;

const HEADER: &str = include_str!("report.h");

macro_rules! programs {
    ($($name:literal),*) => {
        const PROGRAMS: &[(&str, &str)] =
            &[$(($name, include_str!(concat!($name, ".c")))),*];
    };
}
programs!(
    "attempts", "bombs", "calls", "charge", "escape", "hold", "layers", "net", "objects", "quota",
    "state", "still"
);

/// Time that only a hang exceeds, also on an emulated machine that is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);

/// Directory of the programs in a sandbox.
const TOOLS: &str = "/opt/hostile";

static TURN: RwLock<()> = RwLock::const_new(());

/// For a test that minds neither company nor being slowed down by it.
pub(crate) async fn shared() -> RwLockReadGuard<'static, ()> {
    TURN.read().await
}

/// For a test that uses up what others need, or that measures time or memory of this process.
pub(crate) async fn alone() -> RwLockWriteGuard<'static, ()> {
    TURN.write().await
}

/// A directory that is removed when this process has ended, however it ends: what is static is not
/// dropped, a process that is killed drops nothing, and what a provider does in the background may
/// be in the way of a removal before.
struct Lasting {
    dir: tempfile::TempDir,
    /// Removes it when this process has ended and so closed the pipe.
    _cleaner: process::Child,
}

impl Lasting {
    fn new(dir: tempfile::TempDir) -> Self {
        let remove =
            "trap '' INT TERM HUP; cat; for i in $(seq 100); do rm -rf \"$0\" && exit; done";
        let cleaner = process::Command::new("sh")
            .args(["-c", remove])
            .arg(dir.path())
            .stdin(process::Stdio::piped())
            .stdout(process::Stdio::null())
            .spawn();
        Self {
            dir,
            _cleaner: cleaner.expect("sh"),
        }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// The compiled programs' directory: readable by all.
fn tools() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        // What is static is not dropped.
        let dir = public_dir().keep();
        fs::write(dir.join("report.h"), HEADER).expect("write report.h");
        // All at the same time: one after the other they take longer than most tests.
        let mut compiling = Vec::new();
        for (name, source) in PROGRAMS {
            let file = dir.join(format!("{name}.c"));
            fs::write(&file, source).expect("write a source");
            let cc = process::Command::new("cc")
                .args(["-O1", "-Wall", "-Werror", "-static", "-pthread", "-o"])
                .arg(dir.join(name))
                .arg(&file)
                .stderr(process::Stdio::piped())
                .spawn();
            compiling.push((name, cc.expect("cc is installed")));
        }
        for (name, cc) in compiling {
            let made = cc.wait_with_output().expect("its end");
            assert!(
                made.status.success(),
                "{name}: {}",
                String::from_utf8_lossy(&made.stderr)
            );
        }
        dir
    })
}

/// A builder of directories that every user may look into.
fn public() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder
        .prefix("hostile-")
        .permissions(Permissions::from_mode(0o755));
    builder
}

/// A new directory that every user may look into.
pub(crate) fn public_dir() -> tempfile::TempDir {
    static ALL: OnceLock<Lasting> = OnceLock::new();
    let all = ALL.get_or_init(|| Lasting::new(public().tempdir().expect("a directory")));
    public().tempdir_in(all.path()).expect("a directory")
}

pub(crate) fn tool(name: &str) -> PathBuf {
    let path = tools().join(name);
    assert!(path.exists(), "{name} is not among the programs");
    path
}

/// Puts all programs into a sandbox.
pub(crate) async fn equip(sandbox: &Arc<dyn Sandbox>) {
    let mut batch = FileBatch::new();
    for (name, _) in PROGRAMS {
        let program = fs::read(tool(name)).expect("a program");
        batch = batch.file_with_mode(format!("{TOOLS}/{name}"), program, Mode::EXECUTABLE);
    }
    sandbox.write_files(batch).await.expect("the programs");
}

/// The command that runs a program in a sandbox.
pub(crate) fn command<S: AsRef<[u8]>>(name: &str, args: &[S]) -> Command {
    let args = args.iter().map(AsRef::as_ref);
    Command::new(format!("{TOOLS}/{name}"))
        .args(args)
        .timeout(PATIENCE)
}

/// Findings of a program: a result for each attempt.
#[derive(Debug)]
pub(crate) struct Findings(BTreeMap<String, String>);

impl Findings {
    fn parse(who: &str, stdout: &str, stderr: &str, status: &str) -> Self {
        let lines = stdout.lines().filter_map(|line| line.split_once(' '));
        let found: BTreeMap<_, _> = lines.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        assert!(
            found.contains_key("end"),
            "{who} was cut short ({status}): {stdout}\n{stderr}"
        );
        Self(found)
    }

    pub(crate) fn get(&self, name: &str) -> &str {
        self.0
            .get(name)
            .unwrap_or_else(|| panic!("{name} was not tried: {self:?}"))
    }

    pub(crate) fn number(&self, name: &str) -> i64 {
        let text = self.get(name);
        text.parse().unwrap_or_else(|_| panic!("{name} is {text}"))
    }
}

/// Runs a program on the host, as the test's own user: the control.
pub(crate) fn outside<S: AsRef<OsStr>>(name: &str, args: &[S]) -> Findings {
    let dir = public_dir();
    let ran = process::Command::new(tool(name))
        .args(args)
        .current_dir(dir.path())
        .output();
    let ran = ran.expect("the control runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let status = ran.status.to_string();
    Findings::parse(
        "the control",
        &text(&ran.stdout),
        &text(&ran.stderr),
        &status,
    )
}

/// Runs a program in a sandbox that was equipped.
pub(crate) async fn inside<S: AsRef<[u8]>>(
    sandbox: &Arc<dyn Sandbox>,
    name: &str,
    args: &[S],
) -> Findings {
    findings(
        &sandbox
            .exec(command(name, args))
            .await
            .expect("the program starts"),
    )
}

pub(crate) fn findings(output: &Output) -> Findings {
    let (stdout, stderr) = (
        output.stdout.to_string_lossy(),
        output.stderr.to_string_lossy(),
    );
    Findings::parse("the guest", &stdout, &stderr, &output.status.to_string())
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Waits until it holds; false if it never did.
pub(crate) async fn within(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A directory for the state of sandboxes that write very many files: in memory, if overlays can be
/// put there (Linux 6.6).
pub(crate) fn fast_state() -> Scratch {
    static ALL: OnceLock<Lasting> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        let in_memory = public().tempdir_in("/dev/shm");
        let suits = |dir: &tempfile::TempDir| {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(dir.path(), "user.hostile", b"x", flags).is_ok()
        };
        Lasting::new(in_memory.ok().filter(suits).unwrap_or_else(public_dir))
    });
    let dir = public().tempdir_in(all.path()).expect("a directory");
    Scratch::of(dir.keep())
}

/// A provider that keeps its sandboxes there.
pub(crate) fn provider(state: &Path) -> LocalProvider {
    let config = LocalConfig::default().state_dir(state.join("state"));
    LocalProvider::new(config).expect("a provider")
}

/// A new sandbox with the programs in it.
pub(crate) async fn guest() -> Arc<dyn Sandbox> {
    let sandbox = support::default().await;
    equip(&sandbox).await;
    sandbox
}

/// Starts a program that says what it did and then waits to be killed.
pub(crate) async fn start<S: AsRef<[u8]>>(
    sandbox: &Arc<dyn Sandbox>,
    name: &str,
    args: &[S],
) -> (Process, Findings) {
    let mut process = sandbox
        .spawn(command(name, args))
        .await
        .expect("the program starts");
    let mut stdout = process.stdout.take().expect("a stdout");
    let mut said = Vec::new();
    let read = async {
        while !said.windows(6).any(|end| end == b"end 0\n") {
            let mut bytes = [0; 1024];
            let n = stdout.read(&mut bytes).await.expect("its output");
            assert!(n > 0, "cut short: {}", String::from_utf8_lossy(&said));
            said.extend_from_slice(&bytes[..n]);
        }
    };
    tokio::time::timeout(PATIENCE, read)
        .await
        .expect("it says something");
    process.stdout = Some(stdout);
    let findings = Findings::parse("the guest", &String::from_utf8_lossy(&said), "", "running");
    (process, findings)
}

/// The host's number of a process with this among its arguments.
pub(crate) fn find_process(mark: &str) -> Option<u32> {
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let arguments = fs::read(entry.path().join("cmdline")).ok()?;
        let mut arguments = arguments.split(|byte| *byte == 0);
        arguments
            .any(|argument| argument == mark.as_bytes())
            .then_some(pid)
    })
}

/// Bytes of memory that this process has resident.
pub(crate) fn resident() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").expect("statm");
    let pages: u64 = pages
        .split(' ')
        .nth(1)
        .expect("a field")
        .parse()
        .expect("a number");
    pages * rustix::param::page_size() as u64
}
