//! The file API against a guest that exchanges a directory and a link out, all the time (C 25).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sandbox_core::{
    GuestPath, ImportOptions, ListOptions, Provider, Sandbox, SandboxExt, SandboxSpec,
};

use crate::host;

const SECRET: &str = "the host's own";
const ROUND: Duration = Duration::from_millis(2500);
/// Time that a busy machine gets for it.
const AT_MOST: Duration = Duration::from_secs(20);

/// A tree of the host that no guest may read or change.
struct Canaries {
    dir: tempfile::TempDir,
}

impl Canaries {
    fn new() -> Self {
        let dir = host::public_dir();
        fs::create_dir(dir.path().join("sub")).expect("a directory");
        for file in ["file", "sub/file", "removed"] {
            fs::write(dir.path().join(file), SECRET).expect("a canary");
        }
        Self { dir }
    }

    fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for dir in ["", "sub"] {
            for entry in fs::read_dir(self.dir.path().join(dir))
                .expect("the canaries")
                .flatten()
            {
                let content = fs::read_to_string(entry.path()).unwrap_or_default();
                names.push(format!("{dir}/{} {content}", entry.file_name().display()));
            }
        }
        names.sort();
        names
    }
}

/// Every file of the host's directory has what the guest wrote.
fn holds_no_secret(dir: &Path) {
    for entry in fs::read_dir(dir).expect("an export").flatten() {
        let kind = entry.file_type().expect("its kind");
        if kind.is_dir() {
            holds_no_secret(&entry.path());
        } else if kind.is_file() {
            let content = fs::read_to_string(entry.path()).expect("a file");
            assert!(!content.contains(SECRET), "{}", entry.path().display());
        }
    }
}

/// Path of the sandbox's files on the host: only for the naive control.
fn layer_with(state: &Path, file: &str) -> PathBuf {
    let providers = fs::read_dir(state).expect("the state directory").flatten();
    let mut layers = providers.flat_map(|p| fs::read_dir(p.path().join("layers")).into_iter());
    let layer = layers.find_map(|layers| {
        layers
            .flatten()
            .map(|layer| layer.path())
            .find(|layer| layer.join(file).exists())
    });
    layer.expect("the sandbox's layer")
}

/// Each operation once, through a name that is a directory at one time and a link at the next.
async fn attempt(sandbox: &Arc<dyn Sandbox>, n: u32, scratch: &Path, work: &mut Counts) {
    let path = |rest: &str| GuestPath::from(format!("/workspace/x{rest}"));
    if let Ok(content) = sandbox.read(path("/file")).await {
        assert_eq!(content, "the guest's");
        work.reads += 1;
    }
    let written = sandbox.write(path("/new"), "written").await;
    work.writes += u32::from(written.is_ok());
    if let Ok(entries) = sandbox
        .list_dir(&path(""), ListOptions::new().recursive(true))
        .await
    {
        let secret = entries
            .iter()
            .any(|entry| entry.path.as_bytes() == b"removed");
        assert!(!secret, "the canaries were listed");
        work.lists += 1;
    }
    work.metadata += u32::from(sandbox.stat(path("/file")).await.is_ok());
    sandbox.create_dir_all(path("/made/deep")).await.ok();
    work.removed += u32::from(sandbox.remove_all(path("/removed")).await.is_ok());
    work.removed += u32::from(sandbox.remove_all(path("/made")).await.is_ok());
    sandbox
        .rename(&path("/new"), &path("/renamed"), Default::default())
        .await
        .ok();
    sandbox.remove_all(path("/renamed")).await.ok();
    if n.is_multiple_of(8) {
        let to = scratch.join(n.to_string());
        let export = sandbox.export("/workspace", &to).await;
        work.exports += u32::from(export.is_ok());
        if to.exists() {
            holds_no_secret(&to);
        }
        let from = scratch.join("import");
        let import = ImportOptions::new().mirror(true);
        let import = sandbox.import_dir(&from, &path("/imported"), import).await;
        work.imports += u32::from(import.is_ok());
    }
}

#[derive(Debug, Default)]
struct Counts {
    reads: u32,
    writes: u32,
    lists: u32,
    metadata: u32,
    removed: u32,
    exports: u32,
    imports: u32,
}

impl Counts {
    /// Whether each of them has, also while the two were exchanged.
    fn went_through(&self) -> bool {
        let all = [
            self.reads,
            self.writes,
            self.lists,
            self.metadata,
            self.exports,
        ];
        all.iter().all(|count| *count > 0)
    }
}

#[tokio::test]
async fn exchanging_a_directory_and_a_link_never_leads_out() {
    let _turn = host::shared().await;
    let canaries = Canaries::new();
    let before = canaries.names();
    let scratch = host::public_dir();
    fs::create_dir(scratch.path().join("import")).expect("a directory");
    fs::write(scratch.path().join("import/file"), "imported").expect("a file");
    let state = host::public_dir();
    let provider = host::provider(state.path());
    let state = state.path().join("state");
    let sandbox = provider
        .create(SandboxSpec::new())
        .await
        .expect("a sandbox");
    host::equip(&sandbox).await;
    let target = canaries.dir.path().to_str().expect("UTF-8");
    let prepare = format!(
        "mkdir -p /workspace/x/sub && cd /workspace && echo -n \"the guest's\" >x/file && \
         ln -s {target} y && echo >marker"
    );
    let made = sandbox.sh(prepare).await.expect("sh");
    assert!(made.success(), "{made:?}");
    // It is told to stop.
    let racer = host::command("layers", &["exchange", "x", "y", "120000"]).timeout(3 * AT_MOST);
    let running = sandbox.spawn(racer).await.expect("the racer");
    let layer = layer_with(&state, "workspace/marker");
    // The control: who goes by path is led out at once.
    let naive = || fs::read_to_string(layer.join("workspace/x/file")).is_ok_and(|t| t == SECRET);
    assert!(host::within(AT_MOST, naive).await, "no control: no race");
    let start = Instant::now();
    let mut work = Counts::default();
    for n in 0.. {
        attempt(&sandbox, n, scratch.path(), &mut work).await;
        let enough = work.went_through() && start.elapsed() > ROUND;
        if enough || start.elapsed() > AT_MOST {
            break;
        }
    }
    sandbox.write("stop", "").await.expect("write");
    let output = running
        .wait_with_output(Default::default())
        .await
        .expect("the racer");
    let rounds = host::findings(&output).number("rounds");
    assert!(rounds > 2_000, "no race: {rounds} rounds");
    assert!(work.went_through(), "no race: {work:?}");
    assert_eq!(canaries.names(), before, "{work:?}");
    sandbox.close().await.expect("close");
}
