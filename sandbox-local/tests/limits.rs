//! Limits on a whole sandbox: that they hold, that the report says so, and what happens where the
//! host does not grant them.
#![cfg(target_os = "linux")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, helpers too"
)]

mod support;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sandbox_core::{
    Command, Control, Enforcement, ErrorKind, ExitCause, FileBatch, Network, Provider,
    RequiredIsolation, Resources, Sandbox, SandboxExt as _, SandboxSpec,
};
use sandbox_local::{LocalConfig, LocalProvider};
use support::{run, sh, until};

fn limited(resources: Resources) -> SandboxSpec {
    SandboxSpec::new().resources(resources)
}

/// Forks until the kernel refuses; prints how many processes there were, and the refusal.
const FORK: &str = r"
import os, signal, errno
children, why = [], 'never'
try:
    while len(children) < 500:
        pid = os.fork()
        if pid == 0:
            signal.pause()
        children.append(pid)
except OSError as error:
    why = errno.errorcode[error.errno]
for pid in children:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
print(len(children) + 1, why)
";

fn fork() -> Command {
    Command::new("/usr/bin/python3").arg("-c").arg(FORK)
}

#[tokio::test]
async fn no_more_processes_than_the_limit() {
    for limit in [3, 20] {
        let sandbox = support::create(limited(Resources::new().pids(limit))).await;
        for _ in 0..2 {
            let output = run(&sandbox, fork()).await;
            assert_eq!(output.stdout.to_string_lossy(), format!("{limit} EAGAIN\n"));
        }
        let report = sandbox.isolation().await.expect("a report");
        assert!(report.is_enforced(Control::Pids), "{report}");
        // The child's limit is its own.
        let child = sandbox.fork_one().await.expect("a fork");
        let (one, other) = tokio::join!(run(&sandbox, fork()), run(&child, fork()));
        for output in [one, other] {
            assert_eq!(output.stdout.to_string_lossy(), format!("{limit} EAGAIN\n"));
        }
        child.close().await.expect("close");
        sandbox.close().await.expect("close");
    }
}

#[tokio::test]
async fn a_command_beyond_the_limit_on_processes_is_refused_and_ran_not() {
    let sandbox = support::create(limited(Resources::new().pids(2))).await;
    let start = async || sandbox.spawn(Command::new("sleep").arg("100")).await.ok();
    let first = until("one process", start).await;
    let holder = until("another", start).await;
    let error = sandbox
        .exec(Command::new("true"))
        .await
        .expect_err("no more");
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
    assert_eq!(error.execution(), Some(sandbox_core::Execution::NotStarted));
    holder.kill().await.expect("killed");
    until("there is room again", async || {
        sandbox.exec(Command::new("true")).await.ok()
    })
    .await;
    drop((first, holder));
    sandbox.close().await.expect("close");
}

const MIB: usize = 1 << 20;

async fn write(sandbox: &Arc<dyn Sandbox>, name: &str, size: usize) -> sandbox_core::Result<()> {
    sandbox
        .write_files(FileBatch::new().file(name, vec![7; size]))
        .await
}

#[tokio::test]
async fn no_more_is_written_than_the_limit_on_disk() {
    let sandbox = support::create(limited(Resources::new().disk(8 << 20))).await;
    write(&sandbox, "kept", 3 * MIB)
        .await
        .expect("there is room");
    let error = write(&sandbox, "large", 6 * MIB)
        .await
        .expect_err("there is no room");
    assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
    assert_eq!(
        sh(&sandbox, "ls").await,
        "kept\n",
        "nothing of the batch stayed"
    );
    let fill = "dd if=/dev/zero of=fill bs=1M count=20 2>&1; rm fill";
    assert!(sh(&sandbox, fill).await.contains("No space left"));
    // Everywhere, not only in the working directory.
    let fill = "cat /dev/zero > /tmp/fill; stat -c %s /tmp/fill; rm /tmp/fill";
    let written: u64 = sh(&sandbox, fill).await.trim().parse().expect("a number");
    assert!(written < 8 << 20 && written > 4 << 20, "{written}");
    write(&sandbox, "again", 3 * MIB)
        .await
        .expect("it is usable still");
    let report = sandbox.isolation().await.expect("a report");
    assert!(report.is_enforced(Control::Disk), "{report}");
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn a_fork_of_a_sandbox_with_a_limit_on_disk_keeps_files_and_has_its_own_limit() {
    let sandbox = support::create(limited(Resources::new().disk(8 << 20))).await;
    write(&sandbox, "kept", 6 * MIB)
        .await
        .expect("there is room");
    sh(
        &sandbox,
        "rm -rf /home/sandbox; mkdir d; chmod 700 d; ln kept d/hard; ln -s kept link",
    )
    .await;
    let child = sandbox.fork_one().await.expect("a fork");
    let look = "stat -c '%n %s %h' kept; stat -c %a d; readlink link; test ! -e /home/sandbox && echo gone";
    assert_eq!(sh(&child, look).await, sh(&sandbox, look).await);
    // What the parent had written counts for the parent alone.
    assert!(write(&sandbox, "more", 4 * MIB).await.is_err());
    write(&child, "more", 4 * MIB)
        .await
        .expect("the child has room");
    let error = write(&child, "even-more", 6 * MIB)
        .await
        .expect_err("not more than its limit");
    assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
    let report = child.isolation().await.expect("a report");
    assert!(report.is_enforced(Control::Disk), "{report}");
    let grandchild = child.fork_one().await.expect("a fork");
    assert_eq!(
        sh(&grandchild, "cat kept more | wc -c").await.trim(),
        (10 * MIB).to_string()
    );
    for sandbox in [sandbox, child, grandchild] {
        sandbox.close().await.expect("close");
    }
}

/// Whether this host must grant a cgroup limit to us: root with a v1 hierarchy. Elsewhere it may.
fn must_be_granted(controller: &str) -> bool {
    support::is_root()
        && Path::new("/sys/fs/cgroup")
            .join(controller)
            .join("tasks")
            .exists()
}

/// Creates with a limit that needs a cgroup; without one, checks what the error says and what
/// happens when it is not required.
async fn with_cgroup(resources: Resources, control: Control) -> Option<Arc<dyn Sandbox>> {
    let provider = LocalProvider::new(LocalConfig::default()).expect("a provider");
    let controller = control.as_str();
    match provider.create(limited(resources.clone())).await {
        Ok(sandbox) => {
            let report = sandbox.isolation().await.expect("a report");
            assert!(report.is_enforced(control), "{report}");
            return Some(sandbox);
        }
        Err(error) => {
            assert!(!must_be_granted(controller), "{error}");
            assert_eq!(error.kind(), ErrorKind::Isolation, "{error}");
            let text = error.to_string();
            for word in [controller, "Delegate=yes", "LocalConfig", "root"] {
                assert!(text.contains(word), "{word} is not in: {text}");
            }
        }
    }
    let needed = RequiredIsolation::Only(vec![Control::Filesystem, Control::Privileges]);
    let spec = limited(resources).isolation(needed);
    let sandbox = provider.create(spec).await.expect("it is not required");
    let report = sandbox.isolation().await.expect("a report");
    assert!(
        matches!(report.get(control), Some(Enforcement::Absent { .. })),
        "{report}"
    );
    assert!(report.is_enforced(Control::Filesystem), "{report}");
    sh(&sandbox, "true").await;
    sandbox.close().await.expect("close");
    None
}

#[tokio::test]
async fn the_limit_of_processor_time_that_a_command_sets_itself_is_its_cause() {
    let provider = LocalProvider::new(LocalConfig::new()).expect("a provider");
    let sandbox = provider.create(SandboxSpec::new()).await.expect("created");
    let script = "ulimit -S -t 1; while :; do :; done";
    let ended = run(&sandbox, Command::shell(script)).await;
    assert_eq!(ended.cause, ExitCause::CpuLimit, "{}", ended.status);
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn no_more_memory_than_the_limit() {
    let resources = Resources::new().memory(96 << 20);
    let Some(sandbox) = with_cgroup(resources, Control::Memory).await else {
        return;
    };
    let take = |mib: usize| {
        let code = format!(
            "b = bytearray({mib} << 20); b[::4096] = b'x' * len(b[::4096]); print('taken')"
        );
        Command::new("/usr/bin/python3").arg("-c").arg(code)
    };
    assert_eq!(
        run(&sandbox, take(20)).await.stdout.to_string_lossy(),
        "taken\n"
    );
    let killed = run(&sandbox, take(300)).await;
    assert_eq!(killed.cause, ExitCause::OutOfMemory, "{}", killed.status);
    // The sandbox outlives it, and what the limit did before is not said of others.
    let own = run(&sandbox, Command::shell("kill -9 $$")).await;
    assert_eq!(own.cause, ExitCause::Unknown, "{}", own.status);
    assert_eq!(
        run(&sandbox, take(20)).await.stdout.to_string_lossy(),
        "taken\n"
    );
    // What is in shared memory counts as well, and leaves room for programs.
    let script = "head -c 200M /dev/zero > /dev/shm/fill";
    assert!(!run(&sandbox, Command::shell(script)).await.success());
    assert_eq!(
        sh(&sandbox, "stat -c %s /dev/shm/fill; rm /dev/shm/fill").await,
        "50331648\n"
    );
    // A fork has limits of its own, and a restarted parent is under its old ones.
    sh(&sandbox, "touch changed").await;
    let child = sandbox.fork_one().await.expect("a fork");
    for sandbox in [&sandbox, &child] {
        assert!(
            sandbox
                .isolation()
                .await
                .expect("a report")
                .is_enforced(Control::Memory)
        );
        assert!(!run(sandbox, take(300)).await.success());
    }
    let mut theirs = HashSet::new();
    for sandbox in [&sandbox, &child] {
        let pid = init(sandbox).await.as_raw_nonzero();
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its groups");
        let names = groups.split(['/', '\n']);
        let names = names.filter(|name| name.starts_with("sandbox-"));
        let before = theirs.len();
        theirs.extend(names.map(str::to_owned));
        assert!(theirs.len() > before, "one of its own: {groups}");
    }
    let left = || {
        let mut names = cgroups().into_iter();
        names.any(|dir| {
            dir.file_name()
                .is_some_and(|name| theirs.contains(&*name.to_string_lossy()))
        })
    };
    assert!(left(), "no control");
    child.close().await.expect("close");
    sandbox.close().await.expect("close");
    until("the cgroups are gone", async || (!left()).then_some(())).await;
}

/// The init of a sandbox: by its pid namespace, and by its name, which its commands don't have.
async fn init(sandbox: &Arc<dyn Sandbox>) -> rustix::process::Pid {
    let namespace = sh(sandbox, "readlink /proc/self/ns/pid").await;
    let found = support::inits().into_iter().find(|pid| {
        let link = std::fs::read_link(format!("/proc/{pid}/ns/pid"));
        link.is_ok_and(|link| link.to_string_lossy() == namespace.trim())
    });
    let pid = found.and_then(rustix::process::Pid::from_raw);
    pid.expect("its init")
}

/// The kernel ends an init as it ends any process, so that what it counted tells why: it can't be
/// made to choose the init, which is the smallest.
#[tokio::test]
async fn a_sandbox_that_the_limit_on_memory_ended_says_so() {
    for bombed in [false, true] {
        let resources = Resources::new().memory(48 << 20);
        let Some(sandbox) = with_cgroup(resources, Control::Memory).await else {
            return;
        };
        if bombed {
            let code = "b = bytearray(256 << 20); b[::4096] = b'x' * len(b[::4096])";
            let bomb = Command::new("/usr/bin/python3").arg("-c").arg(code);
            assert_eq!(run(&sandbox, bomb).await.cause, ExitCause::OutOfMemory);
        }
        let init = init(&sandbox).await;
        rustix::process::kill_process(init, rustix::process::Signal::KILL).expect("a kill");
        let error = until("the end is seen", async || {
            sandbox.exec(Command::new("true")).await.err()
        })
        .await;
        assert_eq!(error.kind(), ErrorKind::Lost, "{error:?}");
        let says = |text: &str| error.to_string().contains(text);
        assert_eq!(says("more memory than its limit"), bombed, "{error}");
        assert_eq!(says("Resources::memory"), bombed, "{error}");
        assert_eq!(says("killed from outside"), !bombed, "{error}");
        sandbox.close().await.expect("close");
    }
}

/// Too little for the sandbox itself: what is said is about memory, and nothing weaker is advised.
#[tokio::test]
async fn a_limit_on_memory_that_no_sandbox_fits_in_says_so() {
    let Some(sandbox) = with_cgroup(Resources::new().memory(48 << 20), Control::Memory).await
    else {
        return;
    };
    sandbox.close().await.expect("close");
    let provider = LocalProvider::new(LocalConfig::default()).expect("a provider");
    for bytes in [1, 4096, (1 << 20) - 1] {
        let made = provider.create(limited(Resources::new().memory(bytes)));
        let error = made.await.expect_err("no sandbox fits");
        assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
        let text = format!("{error} {error:?}").to_lowercase();
        assert!(text.contains("limit on memory"), "{text}");
        for weaker in ["plain", "unconfined", "seccomp", "privileged"] {
            assert!(!text.contains(weaker), "{weaker}: {text}");
        }
    }
}

/// Memory that no process holds is not given back by ending one, and still the sandbox stays.
#[tokio::test]
async fn shared_memory_up_to_the_limit_does_not_end_the_sandbox() {
    let resources = Resources::new().memory(48 << 20);
    let Some(sandbox) = with_cgroup(resources, Control::Memory).await else {
        return;
    };
    let code = "import ctypes\nc = ctypes.CDLL(None)\nc.shmat.restype = ctypes.c_void_p\n\
        i = c.shmget(0, 256 << 20, 0o1600)\na = c.shmat(i, None, 0)\nctypes.memset(a, 1, 256 << 20)";
    for _ in 0..3 {
        let fill = Command::new("/usr/bin/python3").arg("-c").arg(code);
        assert!(!run(&sandbox, fill).await.success());
    }
    // There is no room for a program, but for what makes room.
    let listed = sandbox.list_dir(&"/".into(), Default::default()).await;
    assert!(!listed.expect("files are there").is_empty());
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn a_limit_on_memory_limits_open_files_too() {
    let most = async |resources| {
        let sandbox = with_cgroup(resources, Control::Memory).await?;
        let most = sh(&sandbox, "ulimit -Hn").await.trim().parse::<u64>();
        sandbox.close().await.expect("close");
        Some(most.expect("a number"))
    };
    let control = support::default().await;
    let unlimited: u64 = sh(&control, "ulimit -Hn")
        .await
        .trim()
        .parse()
        .expect("a number");
    control.close().await.expect("close");
    for (memory, wanted) in [(48 << 20, 1024), (256 << 20, 4096)] {
        if let Some(most) = most(Resources::new().memory(memory)).await {
            assert_eq!(most, wanted.min(unlimited), "{memory}");
            assert!(most < unlimited, "no control");
        }
    }
}

/// Every cgroup of a sandbox on this host.
fn cgroups() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_string_lossy().starts_with("sandbox-") {
                    found.push(entry.path());
                }
                todo.push(entry.path());
            }
        }
    }
    found
}

#[tokio::test]
async fn no_more_processor_time_than_the_limit() {
    let resources = Resources::new().cpus(0.25);
    let Some(sandbox) = with_cgroup(resources, Control::Cpu).await else {
        return;
    };
    let code = "import time\nwhile time.process_time() < 0.4: pass";
    let started = Instant::now();
    run(
        &sandbox,
        Command::new("/usr/bin/python3").arg("-c").arg(code),
    )
    .await;
    // 0.4 s at a quarter of a core are 1.6 s; half of that leaves room for how quotas are given.
    assert!(
        started.elapsed() > Duration::from_millis(800),
        "{:?}",
        started.elapsed()
    );
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn what_the_caller_does_without_is_not_required() {
    let provider = LocalProvider::new(LocalConfig::default()).expect("a provider");
    for (network, required) in [
        (Network::Off, RequiredIsolation::Only(vec![])),
        (Network::Open, RequiredIsolation::Full),
        (Network::Off, RequiredIsolation::Full),
        (
            Network::Off,
            RequiredIsolation::Only(vec![Control::Network, Control::Ipc]),
        ),
    ] {
        let spec = SandboxSpec::new()
            .network(network.clone())
            .isolation(required);
        let sandbox = provider.create(spec.clone()).await.expect("a sandbox");
        let report = sandbox.isolation().await.expect("a report");
        assert_eq!(
            report.is_enforced(Control::Network),
            network == Network::Off,
            "{report}"
        );
        sandbox.close().await.expect("close");
    }
    // What no sandbox of this host can have is not handed out.
    let required = RequiredIsolation::Only(vec![Control::Network]);
    let spec = SandboxSpec::new()
        .network(Network::Open)
        .isolation(required);
    for _ in 0..2 {
        let error = provider
            .create(spec.clone())
            .await
            .expect_err("the network is open");
        assert_eq!(error.kind(), ErrorKind::Isolation, "{error}");
        assert!(error.to_string().contains("network is required"), "{error}");
    }
}

#[tokio::test]
async fn a_root_directory_has_the_full_isolation() {
    let root = support::small_root();
    let spec = SandboxSpec::new().source(sandbox_core::Source::RootDir(root.path().into()));
    let sandbox = support::create(spec).await;
    let report = sandbox.isolation().await.expect("a report");
    assert!(report.is_enforced(Control::Filesystem), "{report}");
    assert_eq!(
        sh(&sandbox, "echo hi > f; cat f; cat /kept").await,
        "hi\nof the host\n"
    );
    sh(&sandbox, "rm -f /kept; echo x > /made; true").await;
    assert!(root.path().join("kept").exists() && !root.path().join("made").exists());
    let read = sandbox.read("f").await;
    assert_eq!(read.expect("f"), "hi\n");
    sandbox.close().await.expect("close");
}
