//! Ends of sandboxes, providers and host processes, which leave nothing behind.
#![cfg(target_os = "linux")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, helpers too; a child process answers on stdout"
)]

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use sandbox_core::{Command, ErrorKind, Labels, Provider, SandboxExt, SandboxSpec};
use sandbox_local::{LocalConfig, LocalProvider};
use support::{STATE, count, provider, providers, sh, state, until};

/// Layers and work directories of a provider without a sandbox: the lowest layer of all, and two
/// pairs for the next to come.
const NO_SANDBOX: [usize; 2] = [3, 2];

fn directories(home: &Path) -> [usize; 2] {
    ["layers", "work"].map(|kind| count(&home.join(kind)))
}

/// A `sleep` that can be told from all others, and whether it runs anywhere on this host.
fn marked(number: u32) -> (String, impl Fn() -> bool) {
    let time = format!("{}.{number}", 100_000 + std::process::id());
    let mark = time.clone();
    let runs = move || {
        fs::read_dir("/proc")
            .expect("/proc")
            .flatten()
            .any(|process| {
                let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
                line.starts_with(b"sleep\0") && String::from_utf8_lossy(&line).contains(&mark)
            })
    };
    (time, runs)
}

#[tokio::test]
async fn dropping_frees_processes_layers_and_directories() {
    let state = state();
    let (time, runs) = marked(1);
    let provider = provider(state.path());
    let home = providers(state.path()).pop().expect("its directory");
    let sandbox = provider
        .create(SandboxSpec::new())
        .await
        .expect("a sandbox");
    sh(
        &sandbox,
        &format!("mkdir -p a/b; chmod 000 a; sleep {time} >/dev/null 2>&1 & echo"),
    )
    .await;
    let child = sandbox.fork_one().await.expect("a fork");
    until("the control: it runs", async || runs().then_some(())).await;
    assert!(directories(&home) > NO_SANDBOX);
    drop(sandbox);
    until("its processes are dead", async || (!runs()).then_some(())).await;
    sh(&child, "stat a").await;
    drop(child);
    until("its layers are gone", async || {
        (directories(&home) == NO_SANDBOX).then_some(())
    })
    .await;
    assert!(
        provider
            .list(&Labels::default())
            .await
            .expect("a list")
            .is_empty()
    );
    drop(provider);
    until("its directory is gone", async || {
        providers(state.path()).is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn how_a_command_ended_is_not_changed_by_its_deadline() {
    let provider = LocalProvider::new(LocalConfig::default()).expect("a provider");
    let sandbox = provider
        .create(SandboxSpec::new())
        .await
        .expect("a sandbox");
    let timeout = Duration::from_millis(500);
    let (time, runs) = marked(4);
    let script = format!("sleep {time} >/dev/null 2>&1 & exit 7");
    // A machine may be too busy to run it in time.
    for _ in 0..20 {
        let command = Command::shell(&script).timeout(timeout);
        let running = sandbox.spawn(command).await.expect("started");
        let Ok(first) = running.wait().await else {
            continue;
        };
        tokio::time::sleep(2 * timeout).await;
        let again = running.wait().await.expect("the same");
        assert_eq!(
            (first.status.code(), again.status.code()),
            (Some(7), Some(7))
        );
        let what = "what it left in the background lives on";
        until(what, async || runs().then_some(())).await;
        sandbox.close().await.expect("close");
        return;
    }
    panic!("it never ended in time");
}

#[tokio::test]
async fn sandboxes_outlive_their_provider() {
    let state = state();
    let provider = provider(state.path());
    let sandbox = provider
        .create(SandboxSpec::new())
        .await
        .expect("a sandbox");
    drop(provider);
    sh(&sandbox, "echo still > f").await;
    let child = sandbox.fork_one().await.expect("a fork");
    sandbox.close().await.expect("close");
    assert_eq!(sh(&child, "cat f").await, "still\n");
    child.close().await.expect("close");
    // A closed sandbox holds nothing, even while its handle is held.
    until("the directory is gone", async || {
        drop(child.info());
        providers(state.path())
            .iter()
            .all(|home| directories(home) == NO_SANDBOX)
            .then_some(())
    })
    .await;
    drop((sandbox, child));
    until("the directory is gone", async || {
        providers(state.path()).is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn after_its_time_to_live_without_use_a_sandbox_closes() {
    let provider = LocalProvider::new(LocalConfig::default()).expect("a provider");
    let spec = || SandboxSpec::new().ttl(Duration::from_millis(300));
    let sandbox = provider.create(spec()).await.expect("a sandbox");
    // A command that runs is use for as long as it runs.
    let (time, runs) = marked(2);
    let started = Instant::now();
    sh(&sandbox, "sleep 1").await;
    assert!(started.elapsed() > Duration::from_millis(900));
    sh(&sandbox, &format!("sleep {time} >/dev/null 2>&1 & echo")).await;
    // Asking how it is is none.
    until("it expires", async || {
        let _ = sandbox.isolation().await;
        drop(sandbox.info());
        provider
            .list(&Labels::default())
            .await
            .expect("a list")
            .is_empty()
            .then_some(())
    })
    .await;
    let error = sandbox
        .exec(Command::new("true"))
        .await
        .expect_err("it has expired");
    assert_eq!(error.kind(), ErrorKind::Expired, "{error}");
    until("its processes are dead", async || (!runs()).then_some(())).await;
    // A fork expires by itself.
    let sandbox = provider.create(spec()).await.expect("a sandbox");
    let child = sandbox.fork_one().await.expect("a fork");
    until("both expire", async || {
        provider
            .list(&Labels::default())
            .await
            .expect("a list")
            .is_empty()
            .then_some(())
    })
    .await;
    let error = child
        .exec(Command::new("true"))
        .await
        .expect_err("it has expired");
    assert_eq!(error.kind(), ErrorKind::Expired, "{error}");
}

const MARK: &str = "SANDBOX_TEST_MARK";

/// A test of this binary in a process of its own.
fn start(test: &str, state: &Path, mark: &str) -> (Child, BufReader<ChildStdout>) {
    let mut child = std::process::Command::new(std::env::current_exe().expect("this program"))
        .args([
            "--exact",
            test,
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(STATE, state)
        .env(MARK, mark)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let output = BufReader::new(child.stdout.take().expect("a pipe"));
    (child, output)
}

/// Reads up to a line that ends so.
fn expect_line(output: &mut BufReader<ChildStdout>, end: &str) {
    let mut line = String::new();
    loop {
        line.clear();
        assert_ne!(
            output.read_line(&mut line).expect("text"),
            0,
            "it ended before it said {end}"
        );
        if line.trim_end().ends_with(end) {
            return;
        }
    }
}

#[tokio::test]
#[ignore = "started by the tests that kill it"]
async fn child_that_waits() {
    let Some(state) = std::env::var_os(STATE) else {
        return;
    };
    let mark = std::env::var(MARK).expect("a mark");
    let sandbox = provider(Path::new(&state))
        .create(SandboxSpec::new())
        .await
        .expect("a sandbox");
    let script = format!("mkdir -p a/b; chmod 000 a/b a; sleep {mark} >/dev/null 2>&1 & echo");
    sh(&sandbox, &script).await;
    let child = sandbox.fork_one().await.expect("a fork");
    let running = child
        .spawn(Command::new("sleep").arg(&mark))
        .await
        .expect("started");
    println!("ready");
    for line in std::io::stdin().lines() {
        drop(line);
        sh(&sandbox, "test -d a").await;
        sh(&child, "test -d a").await;
        println!("alive");
    }
    drop(running);
}

#[tokio::test]
async fn a_killed_host_leaves_no_process_and_its_directory_is_collected_by_the_next() {
    let state = state();
    let (time, runs) = marked(3);
    let (mut host, mut output) = start("child_that_waits", state.path(), &time);
    expect_line(&mut output, "ready");
    until("the control: it runs", async || runs().then_some(())).await;
    let theirs = providers(state.path()).pop().expect("its directory");
    // While it lives, it is not collected.
    let own = provider(state.path());
    let sandbox = own.create(SandboxSpec::new()).await.expect("a sandbox");
    // The janitor works in order: when a layer is gone, collecting is done.
    sandbox.close().await.expect("close");
    assert!(theirs.join("lease").exists());
    let mut input = host.stdin.take().expect("a pipe");
    input.write_all(b"how are you\n").expect("it reads");
    expect_line(&mut output, "alive");
    host.kill().expect("killed");
    host.wait().expect("reaped");
    until("its processes are dead", async || (!runs()).then_some(())).await;
    assert!(theirs.exists(), "nobody could remove it");
    let next = provider(state.path());
    until("it is collected", async || (!theirs.exists()).then_some(())).await;
    assert_eq!(providers(state.path()).len(), 2, "those of the living stay");
    drop((own, next, sandbox));
    until("all is gone", async || {
        providers(state.path()).is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
#[ignore = "started by the test that counts"]
async fn child_that_counts() {
    let Some(state) = std::env::var_os(STATE) else {
        return;
    };
    let state = Path::new(&state);
    let provider = provider(state);
    let home = providers(state).pop().expect("its directory");
    let counts = || {
        let [layers, work] = directories(&home);
        let [fds, tasks] = ["fd", "task"].map(|of| count(&Path::new("/proc/self").join(of)));
        [fds, tasks, layers, work]
    };
    let round = async |number: usize| {
        let sandbox = provider
            .create(SandboxSpec::new())
            .await
            .expect("a sandbox");
        sandbox.sh("echo x > f").await.expect("a command");
        if number.is_multiple_of(8) {
            let child = sandbox.fork_one().await.expect("a fork");
            child.sh("cat f").await.expect("a command");
            match number % 16 {
                0 => child.close().await.expect("close"),
                _ => drop(child),
            }
        }
        sandbox.close().await.expect("close");
    };
    // Whatever is made once: threads for blocking work, the agent's image.
    for number in 0..20 {
        round(number).await;
    }
    let settled = |before: [usize; 4]| {
        until("nothing is left over", async move || {
            let now = counts();
            // Idle threads for blocking work come and go, and namespaces are made ahead: what leaks
            // even in every eighth round is far more.
            let fine =
                now[0] <= before[0] + 4 && now[1] <= before[1] + 4 && now[2..] <= before[2..];
            fine.then_some(())
        })
    };
    let before = counts();
    let [layers, work] = NO_SANDBOX;
    let least = [before[0], before[1], layers, work];
    settled(least).await;
    for number in 0..200 {
        round(number).await;
    }
    settled(least).await;
    println!("counted");
}

#[tokio::test]
async fn two_hundred_rounds_leave_nothing_behind() {
    let state = state();
    let (mut counting, mut output) = start("child_that_counts", state.path(), "");
    let read = tokio::task::spawn_blocking(move || {
        expect_line(&mut output, "counted");
        // The harness has a last word.
        std::io::copy(&mut output, &mut std::io::sink()).expect("its end");
    });
    let read = tokio::time::timeout(Duration::from_secs(300), read).await;
    let status = counting.wait().expect("it ends");
    assert!(matches!(read, Ok(Ok(()))) && status.success(), "{status}");
}

#[tokio::test]
async fn fifty_at_once() {
    let provider = LocalProvider::new(LocalConfig::default()).expect("a provider");
    let starting: Vec<_> = (0..50)
        .map(|number| {
            let provider = provider.clone();
            tokio::spawn(async move {
                let sandbox = provider
                    .create(SandboxSpec::new())
                    .await
                    .expect("a sandbox");
                let said = sh(&sandbox, &format!("echo {number} > f; cat f")).await;
                assert_eq!(said, format!("{number}\n"));
                sandbox
            })
        })
        .collect();
    let mut sandboxes = Vec::new();
    for started in starting {
        sandboxes.push(started.await.expect("no panic"));
    }
    assert_eq!(
        provider
            .list(&Labels::default())
            .await
            .expect("a list")
            .len(),
        50
    );
    for sandbox in sandboxes {
        sandbox.close().await.expect("close");
    }
    assert!(
        provider
            .list(&Labels::default())
            .await
            .expect("a list")
            .is_empty()
    );
}
