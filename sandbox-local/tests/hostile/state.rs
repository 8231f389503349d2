//! State that a sandbox starts from: a fixed one, whatever its host has.

use std::fs;
use std::process;

use rustix::process::{Resource, getrlimit};
use sandbox_core::{Command, ErrorKind, Provider, SandboxExt, SandboxSpec};
use sandbox_local::{LocalConfig, LocalProvider};

use crate::host::{self, Findings};
use crate::support;

const CHILD: &str = "HOSTILE_STATE";

/// Runs a test of this program in a process of its own, started by what `launcher` says.
fn in_a_process(test: &str, launcher: &[&str]) -> String {
    let this = std::env::current_exe().expect("this program");
    let this = this.to_str().expect("UTF-8");
    let command = [launcher, &[this, "--exact", test, "--nocapture"]].concat();
    let ran = process::Command::new(command[0])
        .args(&command[1..])
        .env(CHILD, "1")
        .output()
        .expect("this program runs");
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(
        ran.status.success() && said.contains("the child is done"),
        "{said}\n{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    said
}

/// Run by the test below, by a host that has much that no guest should have.
#[tokio::test]
async fn in_an_ugly_host() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let ugly = host::outside("state", &["show"]);
    for (name, fine) in [
        ("umask", "18"),
        ("blocked", "SigBlk:\t0000000000000000"),
        ("ignored", "SigIgn:\t0000000000000000"),
        ("ioprio", "0"),
        ("oom", "0"),
        ("key", "-"),
        ("stack_soft", "8388608"),
        ("fsize_soft", "-1"),
    ] {
        assert_ne!(ugly.get(name), fine, "no control for {name}");
    }
    if host::is_root() {
        for (name, ugly_value) in [("nice", "-5"), ("policy", "2"), ("real_time", "ok")] {
            assert_eq!(ugly.get(name), ugly_value, "no control for {name}");
        }
    }
    let sandbox = host::guest().await;
    let found = host::inside(&sandbox, "state", &["show"]).await;
    expect_fixed(&found);
    // Modes of what the host makes in the sandbox don't depend on its mask either.
    sandbox.write("by-host", "x").await.expect("write");
    assert_eq!(support::sh(&sandbox, "stat -c %a by-host").await, "644\n");
    sandbox.close().await.expect("close");
    println!("the child is done");
}

/// Checks the state as SECURITY.md has it.
fn expect_fixed(found: &Findings) {
    for (name, value) in [
        ("core_soft", "1"),
        ("core_hard", "1"),
        ("nice_hard", "0"),
        ("rtprio_hard", "0"),
        ("as_soft", "-1"),
        ("cpu_soft", "-1"),
        ("data_soft", "-1"),
        ("fsize_soft", "-1"),
        ("locks_soft", "-1"),
        ("rss_soft", "-1"),
        ("rttime_soft", "-1"),
        ("stack_soft", "8388608"),
        ("memlock_hard", "8388608"),
        ("nice", "0"),
        ("policy", "0"),
        ("ioprio", "0"),
        ("umask", "18"),
        ("groups", if host::is_root() { "0" } else { "-" }),
        ("blocked", "SigBlk:\t0000000000000000"),
        ("ignored", "SigIgn:\t0000000000000000"),
        ("oom", "500"),
        ("key", "-"),
        ("real_time", "EPERM"),
        ("negative_nice", "EACCES"),
    ] {
        // An ordinary user can't leave groups: inside they show as the overflow group.
        if value != "-" {
            assert_eq!(found.get(name), value, "{name} in {found:?}");
        }
    }
}

#[tokio::test]
async fn a_sandbox_starts_from_a_fixed_state_whatever_its_host_has() {
    let _turn = host::alone().await;
    let launcher = host::tool("state");
    let launcher = launcher.to_str().expect("UTF-8");
    in_a_process("state::in_an_ugly_host", &[launcher, "ugly"]);
    // The same from a host that has nothing special.
    let sandbox = host::guest().await;
    expect_fixed(&host::inside(&sandbox, "state", &["show"]).await);
    sandbox.close().await.expect("close");
}

/// Run by the test below, by a host of few processes.
#[tokio::test]
async fn in_a_host_of_few_processes() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let sandbox = support::default().await;
    let script = "sed -n 's/^Max processes *[0-9]* *\\([0-9]*\\).*/\\1/p' /proc/self/limits";
    let most = support::sh(&sandbox, script).await;
    let most: u64 = most.trim().parse().expect("a number");
    println!("most={most}");
    sandbox.close().await.expect("close");
    println!("the child is done");
}

#[tokio::test]
async fn a_host_with_few_processes_can_have_sandboxes_which_get_a_part_of_them() {
    let _turn = host::alone().await;
    for limit in ["3000", "4096"] {
        let limited = format!("--nproc={limit}");
        let said = in_a_process("state::in_a_host_of_few_processes", &["prlimit", &limited]);
        let most = said.split_once("most=").expect("a number").1;
        let most: u64 = most.lines().next().unwrap_or("").parse().expect("a number");
        let limit: u64 = limit.parse().expect("a number");
        // Root's guests are a user of their own, who takes nothing from the host's.
        let part = if host::is_root() { limit } else { limit / 2 };
        assert!(most > 100 && most <= part, "{most} of {limit}");
    }
}

/// Run by the test below, by a host of few descriptors.
#[tokio::test]
async fn in_a_host_of_few_descriptors() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let limit = getrlimit(Resource::Nofile).current.expect("a limit");
    let provider = LocalProvider::new(LocalConfig::default()).expect("a provider");
    let descriptors = || fs::read_dir("/proc/self/fd").expect("them").count();
    let mut live = vec![provider.create(SandboxSpec::new()).await.expect("one")];
    let before = descriptors();
    let error = loop {
        match provider.create(SandboxSpec::new()).await {
            Ok(sandbox) => live.push(sandbox),
            Err(error) => break error,
        }
        assert!((live.len() as u64) < limit, "no limit");
    };
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
    let hint = error.hint().unwrap_or_else(|| panic!("no hint: {error:?}"));
    let said = format!(" of this process's {limit} open files are left");
    assert!(hint.contains(&said) && hint.contains("ulimit -n"), "{hint}");
    assert!(
        !hint.contains("plain") && !hint.contains("unconfined"),
        "{hint}"
    );
    if limit >= 256 {
        let each = (descriptors() - before) as f64 / (live.len() - 1) as f64;
        println!("{} sandboxes, {each:.2} descriptors each", live.len());
        assert!(each < 3.2, "{each} for each idle sandbox");
        // Those that are there work, all of them and some at once.
        for sandboxes in live.chunks(2) {
            let mut work = tokio::task::JoinSet::new();
            for sandbox in sandboxes {
                let sandbox = sandbox.clone();
                work.spawn(async move {
                    sandbox.write("f", "content").await.expect("it writes");
                    assert_eq!(support::sh(&sandbox, "cat f").await, "content");
                });
            }
            work.join_all().await;
        }
        // And there is room again for what is closed.
        support::close(live.drain(..4)).await;
        let again = provider.create(SandboxSpec::new()).await;
        live.push(again.expect("room for one"));
        let error = loop {
            match live[0].fork_one().await {
                Ok(sandbox) => live.push(sandbox),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains(&said)));
        // By choice there are more.
        let config = LocalConfig::default().all_open_files(true);
        let provider = LocalProvider::new(config).expect("a provider");
        live.push(provider.create(SandboxSpec::new()).await.expect("more"));
        // They all live, and all write at once.
        while live.len() < 500 {
            live.push(provider.create(SandboxSpec::new()).await.expect("more"));
        }
        let mut work = tokio::task::JoinSet::new();
        for sandbox in &live {
            let sandbox = sandbox.clone();
            work.spawn(async move { sandbox.write("g", "content").await });
        }
        for written in work.join_all().await {
            written.expect("it writes");
        }
        for sandbox in &live {
            assert_eq!(support::sh(sandbox, "cat g").await, "content");
        }
        println!("{} sandboxes wrote at once and ran a command", live.len());
    }
    support::close(live).await;
    println!("the child is done");
}

/// Each of the small hosts runs out at another place of a start. The last has as many as most users have,
/// and more by choice.
#[tokio::test]
async fn out_of_descriptors_the_error_says_how_many_are_left() {
    let _turn = host::alone().await;
    for limit in (60..=70).chain([1024]) {
        let limit = format!("--nofile={limit}:4096");
        let said = in_a_process("state::in_a_host_of_few_descriptors", &["prlimit", &limit]);
        print!("{said}");
    }
}

#[tokio::test]
async fn a_guest_opens_its_own_streams_by_name() {
    let _turn = host::shared().await;
    const SCRIPT: &str = "cat /dev/stdin > /dev/stdout && echo err > /dev/stderr && \
        echo fd > /proc/self/fd/1";
    let sandbox = support::default().await;
    let command = Command::shell(SCRIPT).stdin("in\n");
    let output = sandbox.exec(command).await.expect("it runs");
    let stderr = output.stderr.to_string_lossy();
    assert!(output.success(), "{stderr}");
    assert_eq!(output.stdout.bytes, "in\nfd\n");
    assert_eq!(stderr, "err\n");
    sandbox.close().await.expect("close");
}
