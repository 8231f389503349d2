//! What the integration tests share.
#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, helpers too"
)]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sandbox_core::{Command, Output, Provider, Sandbox, SandboxSpec};
use sandbox_local::LocalProvider;

/// A sandbox of its own provider, with this spec.
pub(crate) async fn create(spec: SandboxSpec) -> Arc<dyn Sandbox> {
    let provider = LocalProvider::new().expect("a provider");
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

/// Whether the tests run as root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Asks until there is an answer.
pub(crate) async fn until<T>(what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
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
    use std::os::unix::fs::PermissionsExt;
    let readable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(root.path(), readable).expect("chmod");
    root
}
