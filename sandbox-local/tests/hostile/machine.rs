//! Attacks that only a machine of its own can show (`tests/vm/run`, described in CONTRIBUTING): a
//! core pattern that pipes to a program, and limits by cgroup v2.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process;
use std::sync::Arc;
use std::time::Instant;

use sandbox_core::{
    Command, ErrorKind, Provider, Resources, Sandbox, SandboxExt as _, SandboxSpec,
};
use sandbox_local::{LocalConfig, LocalProvider};

use crate::{host, resources, still, support};

/// Written by the machine's core handler, a line for each crash.
const CORES: &str = "/var/tmp/cores";
const CRASH: &str = "kill -SEGV $$";

fn cores() -> usize {
    fs::read_to_string(CORES)
        .expect("the machine's core handler has a file")
        .lines()
        .count()
}

/// A crash on the host whose limit on core dumps is this.
fn crash_outside(limit: u64) {
    let mut crash = process::Command::new("prlimit");
    crash.args([&format!("--core={limit}:{limit}"), "sh", "-c", CRASH]);
    let ended = crash.arg0("prlimit").status().expect("prlimit");
    assert!(!ended.success());
}

#[tokio::test]
#[ignore = "needs the machine of tests/vm/run"]
async fn a_crash_calls_no_program_of_the_host() {
    let _turn = host::alone().await;
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").expect("a pattern");
    assert!(pattern.starts_with('|'), "{pattern}");
    // The control: a limit of zero does not keep the handler from being called.
    let before = cores();
    crash_outside(0);
    assert!(
        host::within(host::PATIENCE, || cores() > before).await,
        "no control: the handler is not called"
    );
    let sandbox = support::default().await;
    let before = cores();
    for script in [CRASH, "sh -c 'kill -ABRT $$'; kill -QUIT $$"] {
        let output = support::run(&sandbox, Command::shell(script)).await;
        assert!(!output.success(), "{output:?}");
    }
    // What would have been called has been by now: the next crash outside is seen alone.
    crash_outside(0);
    assert!(host::within(host::PATIENCE, || cores() > before).await);
    assert_eq!(cores(), before + 1);
    close(&sandbox).await;
}

#[tokio::test]
#[ignore = "needs the machine of tests/vm/run"]
async fn memory_is_limited_by_cgroup_v2_and_the_sandbox_outlives_its_commands() {
    let _turn = host::alone().await;
    let cgroup = std::env::var("SANDBOX_VM_CGROUP").expect("the machine delegates a cgroup");
    let config = LocalConfig::default().cgroup(cgroup);
    let provider = LocalProvider::new(config).expect("a provider");
    let resources = Resources::new().memory(128 << 20);
    let spec = SandboxSpec::new().resources(resources);
    let sandbox = provider.create(spec).await.expect("a sandbox");
    host::equip(&sandbox).await;
    let report = sandbox.isolation().await.expect("a report").to_string();
    assert!(report.contains("cgroup v2"), "{report}");
    for bomb in [&["memory"][..], &["fill", "1073741824", "/dev/shm/filled"]] {
        let output = sandbox.exec(host::command("bombs", bomb)).await;
        let output = output.expect("its end");
        assert!(
            !output.stdout.to_string_lossy().contains("fill ok"),
            "{output:?}"
        );
        assert_eq!(
            support::sh(&sandbox, "rm -f /dev/shm/filled; echo alive").await,
            "alive\n"
        );
    }
    // The control: what fits is there to be had.
    let fits = host::inside(&sandbox, "bombs", &["fill", "33554432", "/dev/shm/fits"]).await;
    assert_eq!(fits.get("fill"), "ok");
    close(&sandbox).await;
}

/// Files in each of two directories that are copied: an emulated machine takes its time for them.
const FILES: &str = "300";

/// A sandbox without a group of its own can't be held still against its processes' will; one with a
/// group of v2 is frozen by the kernel.
#[tokio::test]
#[ignore = "needs the machine of tests/vm/run"]
async fn a_group_of_v2_is_forked_whole_whatever_its_processes_do() {
    let _turn = host::alone().await;
    let cgroup = std::env::var("SANDBOX_VM_CGROUP").expect("the machine delegates a cgroup");
    let state = host::fast_state();
    let config = || LocalConfig::default().cgroup(&cgroup);
    let provider = LocalProvider::new(config().state_dir(state.path().join("state")));
    let provider = provider.expect("a provider");
    let create = async |spec| {
        let sandbox = provider.create(spec).await.expect("a sandbox");
        host::equip(&sandbox).await;
        sandbox
    };
    // The control: without a group there is no way.
    let sandbox = create(SandboxSpec::new()).await;
    let process = still::start(&sandbox, "often", FILES).await;
    let error = sandbox.fork_one().await.expect_err("it moves");
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    drop(process);
    close(&sandbox).await;
    for mode in still::MODES {
        let limited = SandboxSpec::new().resources(Resources::new().memory(512 << 20));
        let sandbox = create(limited).await;
        let process = still::start(&sandbox, mode, FILES).await;
        // What is frozen once is where it was moved to; what is new is not.
        for _ in 0..2 {
            let child = sandbox.fork_one().await;
            let child = child.unwrap_or_else(|error| panic!("{mode}: {error}"));
            let found = support::sh(&child, "ls -d /workspace/[ab]/token | wc -l").await;
            assert_eq!(found, "1\n", "{mode}: the file that exists exactly once");
            close(&child).await;
        }
        let changes = sandbox
            .changes(&"/workspace".into(), Default::default())
            .await;
        let changes = changes.unwrap_or_else(|error| panic!("{mode}: {error}"));
        let tokens = changes
            .entries
            .iter()
            .filter(|entry| entry.path.as_bytes().ends_with(b"/token"));
        assert_eq!(tokens.count(), 1, "{mode}");
        // It goes on, and its limits hold where it was moved to.
        assert_eq!(
            support::sh(&sandbox, "pgrep -x still >/dev/null; echo $?").await,
            "0\n"
        );
        drop(process);
        close(&sandbox).await;
        println!("{mode}: whole");
    }
    drop(provider);
    let left = || fs::read_dir(&cgroup).expect("the cgroup").flatten();
    let of_ours =
        || left().filter(|entry| entry.file_name().to_string_lossy().starts_with("sandbox-"));
    assert!(
        host::within(host::PATIENCE, || of_ours().count() == 0).await,
        "groups are left"
    );
}

/// When the limit is used up by files there is no process to blame but the sandbox's first one.
#[tokio::test]
#[ignore = "needs the machine of tests/vm/run"]
async fn an_init_that_memory_ran_out_for_says_so_in_v2() {
    let _turn = host::alone().await;
    let cgroup = std::env::var("SANDBOX_VM_CGROUP").expect("the machine delegates a cgroup");
    let provider = LocalProvider::new(LocalConfig::default().cgroup(&cgroup)).expect("a provider");
    resources::init_is_out_of_memory(&provider).await;
}

/// Closes, again if it says that it takes longer: on an emulated machine dying takes time.
async fn close(sandbox: &Arc<dyn Sandbox>) {
    let deadline = Instant::now() + host::PATIENCE;
    while let Err(error) = sandbox.close().await {
        assert!(Instant::now() < deadline, "{error}");
    }
}

/// Kinds of kernel objects, as `charge.c` makes them.
const KINDS: &[&str] = &[
    "unix-stream",
    "unix-datagram",
    "udp",
    "tcp",
    "netlink-route",
    "pipe",
    "epoll-watch",
    "inotify-watch",
    "eventfd",
    "posix-timer",
    "sysv-memory",
    "sysv-semaphores",
    "sysv-messages",
    "posix-messages",
    "memfd",
    "page-table",
    "dentry",
    "file-lock",
    "process",
];

/// A field of a file of /proc or of a cgroup, in bytes.
fn bytes(path: &str, field: &str) -> i64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let line = line.unwrap_or("").trim_start_matches(':').trim();
    let (number, unit) = line.split_once(' ').unwrap_or((line, ""));
    let number: i64 = number.parse().unwrap_or(0);
    if unit == "kB" { number << 10 } else { number }
}

/// Objects that a process of a sandbox with 64 MiB can make of each kind, and how much of it the
/// limit sees: the lines that it prints are the table in SECURITY.md.
#[tokio::test]
#[ignore = "needs the machine of tests/vm/run"]
async fn kernel_objects_are_bounded() {
    let _turn = host::alone().await;
    let cgroup = std::env::var("SANDBOX_VM_CGROUP").expect("the machine delegates a cgroup");
    let config = LocalConfig::default().cgroup(&cgroup);
    let provider = LocalProvider::new(config).expect("a provider");
    for kind in KINDS {
        let resources = Resources::new().memory(64 << 20);
        let spec = SandboxSpec::new().resources(resources);
        let sandbox = provider.create(spec).await.expect("a sandbox");
        host::equip(&sandbox).await;
        let available = || bytes("/proc/meminfo", "MemAvailable");
        let before = available();
        let mut process = sandbox
            .spawn(host::command("charge", &[kind]))
            .await
            .expect("it starts");
        let mut said = String::new();
        if let Some(stdout) = &mut process.stdout {
            use tokio::io::AsyncReadExt;
            let mut chunk = [0; 256];
            while !said.contains("end 0") {
                match tokio::time::timeout(host::PATIENCE, stdout.read(&mut chunk)).await {
                    Ok(Ok(read)) if read > 0 => {
                        said.push_str(&String::from_utf8_lossy(&chunk[..read]));
                    }
                    _ => break,
                }
            }
        }
        let taken = before - available();
        // The largest: that of the sandbox before may still be on its way out.
        let group = fs::read_dir(&cgroup)
            .expect("the cgroup")
            .flatten()
            .filter_map(|entry| fs::read_to_string(entry.path().join("memory.current")).ok())
            .filter_map(|text| text.trim().parse::<i64>().ok())
            .max()
            .unwrap_or(0);
        assert!(
            taken < 256 << 20,
            "{kind}: {} MiB with a limit of 64",
            taken >> 20
        );
        println!(
            "charge | {kind} | {} | {} MiB charged | {} MiB taken",
            said.replace('\n', " ").trim(),
            group >> 20,
            taken >> 20
        );
        close(&sandbox).await;
    }
}
