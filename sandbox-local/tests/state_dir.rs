//! State directories that will not do: each is an error with the remedy.
#![cfg(target_os = "linux")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, helpers too; a child process answers on stdout"
)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use sandbox_core::{ErrorKind, Labels, Operation, Provider, SandboxSpec, Source};
use sandbox_local::{LocalConfig, LocalProvider};
use support::{STATE, count, provider, state};

/// The error of a provider that can't be, with its path and the remedy.
fn refused(state: &Path, kind: ErrorKind, words: &[&str]) {
    let config = LocalConfig::default().state_dir(state);
    let error = LocalProvider::new(config).expect_err("not there");
    assert_eq!(
        (error.kind(), error.operation()),
        (kind, Operation::Connect),
        "{error}"
    );
    let text = error.to_string();
    for word in words
        .iter()
        .chain(&["SANDBOX_STATE_DIR", &*state.to_string_lossy()])
    {
        assert!(text.contains(word), "{word} is not in: {text}");
    }
}

#[tokio::test]
async fn a_state_directory_that_can_not_be_trusted_is_refused() {
    let dir = state();
    for mode in [0o777, 0o1777, 0o770] {
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).expect("chmod");
        refused(
            dir.path(),
            ErrorKind::PermissionDenied,
            &["by others", "chmod"],
        );
    }
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).expect("chmod");
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(dir.path(), &link).expect("a link");
    refused(&link, ErrorKind::PermissionDenied, &["not a directory"]);
    fs::write(dir.path().join("file"), "").expect("a file");
    refused(
        &dir.path().join("file"),
        ErrorKind::PermissionDenied,
        &["not a directory"],
    );
    // Of another user.
    if support::is_root() {
        let theirs = dir.path().join("theirs");
        fs::create_dir(&theirs).expect("a directory");
        std::os::unix::fs::chown(&theirs, Some(4711), None).expect("chown");
        refused(
            &theirs,
            ErrorKind::PermissionDenied,
            &["belongs to user 4711"],
        );
    } else {
        refused(
            Path::new("/etc"),
            ErrorKind::PermissionDenied,
            &["belongs to user 0"],
        );
    }
    assert_eq!(
        count(dir.path()),
        if support::is_root() { 3 } else { 2 },
        "nothing was made"
    );
    // What is missing is made, with all above it.
    let deep = dir.path().join("a/b/c");
    drop(provider(&deep));
    assert!(deep.is_dir());
}

#[tokio::test]
async fn a_state_directory_that_the_guests_of_root_can_not_reach_is_an_error_with_the_remedy() {
    if !support::is_root() {
        return;
    }
    let dir = tempfile::tempdir_in("/var/tmp").expect("a directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).expect("chmod");
    let provider = provider(&dir.path().join("state"));
    let error = provider
        .create(SandboxSpec::new())
        .await
        .map(drop)
        .expect_err("no way through");
    assert_eq!(error.kind(), ErrorKind::Isolation, "{error}");
    assert!(error.to_string().contains("chmod o+x"), "{error}");
}

#[tokio::test]
#[ignore = "started in a mount namespace of its own"]
async fn child_on_an_overlay() {
    let Some(state) = std::env::var_os(STATE) else {
        return;
    };
    let provider = provider(Path::new(&state));
    let error = provider
        .create(SandboxSpec::new())
        .await
        .map(drop)
        .expect_err("no overlay on an overlay");
    assert_eq!(error.kind(), ErrorKind::Isolation, "{error}");
    for word in ["ext4", "SANDBOX_STATE_DIR", "root overlay"] {
        assert!(
            error.to_string().contains(word),
            "{word} is not in: {error}"
        );
    }
    println!("refused");
}

#[tokio::test]
async fn a_filesystem_that_can_not_hold_layers_is_an_error_with_the_remedy() {
    if !support::is_root() {
        // Takes a mount.
        return;
    }
    let dir = state();
    for sub in ["lower", "upper", "work", "merged"] {
        fs::create_dir(dir.path().join(sub)).expect("a directory");
    }
    let script = "cd \"$1\" && mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work \
        merged && exec \"$2\" --exact child_on_an_overlay --ignored --nocapture";
    let output = std::process::Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(dir.path())
        .arg(std::env::current_exe().expect("this program"))
        .env(STATE, dir.path().join("merged/state"))
        .output()
        .expect("unshare");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("refused"),
        "{output:?}"
    );
}

#[tokio::test]
async fn what_dead_providers_left_is_collected_but_not_where_that_can_not_be_told() {
    let state = state();
    let of_yesterday = |name: &str, lease: bool| {
        let dir = state.path().join(name);
        fs::create_dir(&dir).expect("a directory");
        if lease {
            // A lease that is there and can't be opened: its own link stands for any reason.
            std::os::unix::fs::symlink("lease", dir.join("lease")).expect("a link");
        }
        let opened = fs::File::open(&dir).expect("the directory");
        let yesterday = SystemTime::now() - Duration::from_secs(24 * 3600);
        opened.set_modified(yesterday).expect("its time");
        dir
    };
    let [dead, unfinished] = ["p-dead", "new-dead"].map(|name| of_yesterday(name, false));
    let untold = of_yesterday("p-untold", true);
    let provider = provider(state.path());
    support::until("the dead are collected", async || {
        (!dead.exists() && !unfinished.exists()).then_some(())
    })
    .await;
    let sandbox = provider
        .create(SandboxSpec::new())
        .await
        .expect("a sandbox");
    // The janitor works in order: when a layer is gone, collecting is done.
    sandbox.close().await.expect("close");
    assert!(untold.exists());
}

/// Copies of the host's settings below a directory.
fn copies(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_name() == "passwd" {
            true => 1,
            false if entry.file_type().is_ok_and(|kind| kind.is_dir()) => copies(&entry.path()),
            false => 0,
        })
        .sum()
}

#[tokio::test]
async fn the_hosts_settings_are_copied_for_the_first_sandbox_and_once() {
    let (dir, root) = (state(), state());
    let provider = provider(dir.path());
    provider.list(&Labels::new()).await.expect("a list");
    let other = SandboxSpec::new().source(Source::RootDir(root.path().join("missing")));
    let error = provider.create(other).await.expect_err("no root");
    assert_eq!(copies(dir.path()), 0, "{error}");
    for _ in 0..2 {
        provider
            .create(SandboxSpec::new())
            .await
            .expect("a sandbox");
        assert_eq!(copies(dir.path()), 1);
    }
}
