//! Shared parts of the integration tests.
#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, helpers too"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sandbox_core::{Command, Output, Provider, Sandbox, SandboxExt as _, SandboxSpec};
use sandbox_local::{LocalConfig, LocalProvider};
use sandbox_testkit::Scratch;

/// A sandbox of its own provider, with this spec.
pub(crate) async fn create(spec: SandboxSpec) -> Arc<dyn Sandbox> {
    let provider = LocalProvider::new(LocalConfig::default()).expect("a provider");
    provider.create(spec).await.expect("a sandbox")
}

/// A sandbox with the default spec.
pub(crate) async fn default() -> Arc<dyn Sandbox> {
    create(SandboxSpec::new()).await
}

/// Runs a script that must succeed; gives back its stdout.
pub(crate) async fn sh(sandbox: &Arc<dyn Sandbox>, script: &str) -> String {
    let output = run(sandbox, Command::shell(script)).await;
    assert!(
        output.success(),
        "{script}\n{}\nstdout: {}\nstderr: {}",
        output.status,
        output.stdout.to_string_lossy(),
        output.stderr.to_string_lossy()
    );
    output.stdout.to_string_lossy().into_owned()
}

/// Runs a command that must start.
pub(crate) async fn run(sandbox: &Arc<dyn Sandbox>, command: Command) -> Output {
    sandbox.exec(command).await.expect("the command runs")
}

/// The inits that this process has started and that have not ended.
pub(crate) fn inits() -> Vec<i32> {
    let own = std::process::id().to_string();
    let mut inits: Vec<i32> = fs::read_dir("/proc")
        .expect("/proc")
        .flatten()
        .filter(|process| {
            let stat = fs::read_to_string(process.path().join("stat")).unwrap_or_default();
            let (name, fields) = stat.rsplit_once(')').unwrap_or_default();
            let mut fields = fields.split(' ').skip(1);
            // By its name: one that is dying has no arguments any more, but its files still.
            name.contains("sandbox-a")
                && fields.next() != Some("Z")
                && fields.next() == Some(own.as_str())
        })
        .filter_map(|process| process.file_name().to_str()?.parse().ok())
        .collect();
    inits.sort_unstable();
    inits
}

/// Waits until there are so many.
pub(crate) async fn inits_are(wanted: usize) -> Vec<i32> {
    let what = format!("{wanted} inits");
    until(&what, async || {
        Some(inits()).filter(|inits| inits.len() == wanted)
    })
    .await
}

/// Whether the tests run as root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Asks until there is an answer.
pub(crate) async fn until<T>(what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within 120 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A root directory with a shell, a few programs and what they are linked with.
pub(crate) fn small_root() -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a directory");
    for program in ["sh", "cat", "ls", "mkdir", "rm"] {
        let file = Path::new("/bin").join(program);
        let linked = std::process::Command::new("ldd")
            .arg(&file)
            .output()
            .expect("ldd");
        let linked = String::from_utf8_lossy(&linked.stdout).into_owned();
        let libraries = linked
            .split_whitespace()
            .filter(|word| word.starts_with('/'));
        for from in libraries.map(Path::new).chain([file.as_path()]) {
            let to = root.path().join(from.strip_prefix("/").expect("absolute"));
            fs::create_dir_all(to.parent().expect("a parent")).expect("directories");
            fs::copy(from, to).expect("a copy");
        }
    }
    fs::write(root.path().join("kept"), "of the host\n").expect("a file");
    let readable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(root.path(), readable).expect("chmod");
    root
}

/// Tells a test that was started as a process of its own where its state directory is.
pub(crate) const STATE: &str = "SANDBOX_TEST_STATE";

/// A state directory of the test's own. Root's sandboxes must be able to pass through what is
/// above it.
pub(crate) fn state() -> Scratch {
    let dir = tempfile::tempdir_in("/var/tmp").expect("a directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).expect("chmod");
    // Providers tidy behind their end.
    Scratch::of(dir.keep())
}

/// A provider that keeps its state there.
pub(crate) fn provider(state: &Path) -> LocalProvider {
    LocalProvider::new(LocalConfig::default().state_dir(state)).expect("a provider")
}

/// The directories of providers in a state directory.
pub(crate) fn providers(state: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(state).expect("the state directory").flatten();
    let entries = entries.map(|entry| entry.path());
    // Base layers wait there for a provider that has use for one.
    entries.filter(|path| !path.ends_with("base")).collect()
}

/// Counts the entries of a directory; none if it is not there.
pub(crate) fn count(dir: &Path) -> usize {
    fs::read_dir(dir).map_or(0, Iterator::count)
}

/// Forks with nothing special.
pub(crate) async fn fork(sandbox: &Arc<dyn Sandbox>) -> Arc<dyn Sandbox> {
    sandbox.fork_one().await.expect("a fork")
}

/// Closes them all.
pub(crate) async fn close(sandboxes: impl IntoIterator<Item = Arc<dyn Sandbox>>) {
    for sandbox in sandboxes {
        sandbox.close().await.expect("close");
    }
}
