//! The base layer of a provider: made for its first sandbox, and handed on to the next provider.
#![cfg(target_os = "linux")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, helpers too"
)]

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command as HostCommand;
use std::time::{Duration, Instant};

use sandbox_core::{Provider, SandboxSpec};
use sandbox_local::{LocalConfig, LocalProvider};
use support::{STATE, provider, sh, state};

/// A file that every host has and that no root gets by itself.
const SETTING: &str = "/etc/issue";

/// Base layers that wait in a state directory.
fn waiting(state: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(state.join("base")).into_iter().flatten();
    entries.flatten().map(|entry| entry.path()).collect()
}

/// The identity of a file that only base layers have, in each layer of the providers that live.
fn in_use(state: &Path) -> Vec<u64> {
    let below = |dir: &Path| {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let providers = below(state).into_iter();
    let layers = providers.flat_map(|provider| below(&provider.join("layers")));
    layers.filter_map(|layer| identity(&layer)).collect()
}

fn identity(layer: &Path) -> Option<u64> {
    let found = fs::symlink_metadata(layer.join("etc/passwd"));
    found.ok().map(|found| found.ino())
}

/// Makes a sandbox, runs a script in it, and lets the provider go.
async fn one(provider: LocalProvider, script: &str) -> String {
    let sandbox = provider.create(SandboxSpec::new()).await;
    let sandbox = sandbox.expect("a sandbox");
    let said = sh(&sandbox, script).await;
    sandbox.close().await.expect("close");
    said
}

/// Waits until no provider has a directory any more.
async fn all_gone(state: &Path) {
    support::until("the directories of providers are gone", async || {
        support::providers(state).is_empty().then_some(())
    })
    .await;
}

fn with_setting(state: &Path) -> LocalProvider {
    let config = LocalConfig::default().state_dir(state).setting(SETTING);
    LocalProvider::new(config).expect("a provider")
}

#[tokio::test]
async fn the_next_provider_gets_the_base_layer_of_one_that_went_as_it_was() {
    let state = state();
    one(provider(state.path()), "echo changed > /etc/passwd").await;
    all_gone(state.path()).await;
    let [handed_on] = &waiting(state.path())[..] else {
        panic!("{:?}", waiting(state.path()));
    };
    let identity = identity(handed_on).expect("a base layer");

    let next = provider(state.path());
    let sandbox = next.create(SandboxSpec::new()).await.expect("a sandbox");
    assert_eq!(in_use(state.path()), [identity]);
    assert!(waiting(state.path()).is_empty());
    // It is the guest's own, and so is what is written over it.
    let script = "cat /etc/passwd; stat -c %U /etc/passwd /etc/services /etc; echo x > /etc/services; \
                  cat /etc/services";
    let said = sh(&sandbox, script).await;
    assert!(said.starts_with("root:"), "{said}");
    assert!(said.ends_with("\nsandbox\nsandbox\nsandbox\nx\n"), "{said}");
    assert_eq!(in_use(state.path()), [identity]);
}

#[tokio::test]
async fn a_base_layer_that_would_come_out_another_way_is_not_handed_on() {
    let state = state();
    let has = format!("test -e {SETTING} && echo yes || echo no");
    assert_eq!(one(with_setting(state.path()), &has).await, "yes\n");
    all_gone(state.path()).await;
    assert_eq!(waiting(state.path()).len(), 1);
    assert_eq!(one(provider(state.path()), &has).await, "no\n");
    all_gone(state.path()).await;
    assert_eq!(one(with_setting(state.path()), &has).await, "yes\n");
}

#[tokio::test]
async fn a_setting_that_was_changed_a_moment_ago_may_change_again_unseen() {
    let (state, settings) = (state(), state());
    let setting = settings.path().join("setting");
    let mut quick = 0;
    for round in 0..100 {
        let written = Instant::now();
        let content = format!("round {round}");
        fs::write(&setting, &content).expect("a setting");
        let config = LocalConfig::default()
            .state_dir(state.path())
            .setting(&setting);
        let provider = LocalProvider::new(config).expect("a provider");
        let script = format!("cat {}", setting.display());
        assert_eq!(one(provider, &script).await, content);
        let was_a_moment_ago = written.elapsed() < Duration::from_secs(1);
        all_gone(state.path()).await;
        let handed_on = waiting(state.path());
        if was_a_moment_ago {
            assert_eq!(handed_on, [] as [PathBuf; 0]);
            quick += 1;
        }
        if quick == 2 {
            return;
        }
        // On a busy machine the setting was older than that.
        for layer in handed_on {
            fs::remove_dir_all(layer).expect("it is there");
        }
    }
    panic!("no two rounds of a hundred took less than a second");
}

#[tokio::test]
async fn a_base_layer_from_which_something_was_removed_is_made_again() {
    let state = state();
    one(provider(state.path()), "true").await;
    all_gone(state.path()).await;
    for layer in waiting(state.path()) {
        fs::remove_file(layer.join("etc/services")).expect("it is there");
    }
    let said = one(provider(state.path()), "cat /etc/services").await;
    assert!(said.contains("ssh"), "{said}");
}

#[tokio::test]
async fn two_base_layers_wait_at_most() {
    let state = state();
    let mut sandboxes = Vec::new();
    for _ in 0..4 {
        let sandbox = provider(state.path()).create(SandboxSpec::new()).await;
        sandboxes.push(sandbox.expect("a sandbox"));
    }
    assert_eq!(in_use(state.path()).len(), 4);
    support::close(sandboxes).await;
    all_gone(state.path()).await;
    assert_eq!(waiting(state.path()).len(), 2);
    // Those that something else was made from make room.
    for _ in 0..2 {
        one(with_setting(state.path()), "true").await;
        all_gone(state.path()).await;
    }
    assert_eq!(waiting(state.path()).len(), 2);
    let with = waiting(state.path()).into_iter();
    let with = with.filter(|layer| layer.join("etc/issue").exists());
    assert_eq!(with.count(), 1);
}

#[tokio::test]
#[ignore = "killed in a process of its own"]
async fn child_that_is_killed() {
    let Some(state) = std::env::var_os(STATE) else {
        return;
    };
    let sandbox = provider(Path::new(&state)).create(SandboxSpec::new()).await;
    let _sandbox = sandbox.expect("a sandbox");
    std::process::abort();
}

#[tokio::test]
async fn the_base_layer_of_a_process_that_was_killed_is_handed_on() {
    let state = state();
    let status = HostCommand::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "child_that_is_killed", "--ignored"])
        .env(STATE, state.path())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status();
    assert_eq!(status.expect("it ran").code(), None);
    let identity = in_use(state.path());
    assert_eq!(identity.len(), 1);
    let next = provider(state.path());
    support::until("it waits", async || {
        (waiting(state.path()).len() == 1).then_some(())
    })
    .await;
    let _sandbox = next.create(SandboxSpec::new()).await.expect("a sandbox");
    assert_eq!(in_use(state.path()), identity);
}
