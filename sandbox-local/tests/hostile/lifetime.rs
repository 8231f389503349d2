//! Programs that will not die (D 34, 36–38), and directories that will not go.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sandbox_core::{ErrorKind, Provider, Sandbox, SandboxExt, SandboxSpec};

use crate::{host, support};

/// Time that anything may outlive its end on a busy machine; nothing here ends by itself.
const GRACE: Duration = Duration::from_secs(120);

/// The host's processes in a pid namespace, by its link.
fn in_namespace(namespace: &str) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let numbers = processes.filter_map(|p| p.file_name().to_str()?.parse().ok());
    numbers
        .filter(|pid: &u32| is_alive(*pid))
        .filter(|pid| {
            let link = fs::read_link(format!("/proc/{pid}/ns/pid"));
            link.is_ok_and(|link| link.to_str() == Some(namespace))
        })
        .collect()
}

/// Whether a process of the host has not ended; who should reap it may take its time.
fn is_alive(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status"));
    status.is_ok_and(|status| !status.contains("State:\tZ") && !status.contains("State:\tX"))
}

async fn namespace(sandbox: &Arc<dyn Sandbox>) -> String {
    support::sh(sandbox, "readlink /proc/self/ns/pid")
        .await
        .trim()
        .to_owned()
}

/// Counts our programs that are alive in a sandbox.
async fn alive(sandbox: &Arc<dyn Sandbox>) -> usize {
    let states = "for p in /proc/[0-9]*; do grep -qsx -e bombs -e undead $p/comm && \
        grep -s ^State $p/status; done; true";
    let found = support::sh(sandbox, states).await;
    found.lines().filter(|line| !line.contains('Z')).count()
}

#[tokio::test]
async fn what_ignores_stops_or_spins_is_dead_soon_after_its_timeout() {
    let _turn = host::alone().await;
    let sandbox = host::guest().await;
    for (program, processes, seconds) in [("ignore", 1, 3), ("tree", 82, 6), ("spin", 1, 3)] {
        let mut timeout = Duration::from_secs(seconds);
        let mut most = 0;
        // A busy machine may take longer to start them all: then there was no control yet.
        while most < processes {
            assert!(timeout < GRACE, "no control: {most} of {program}");
            let command = host::command("bombs", &[program]).timeout(timeout);
            let before = Instant::now();
            let running = tokio::spawn({
                let sandbox = sandbox.clone();
                async move { sandbox.exec(command).await }
            });
            while !running.is_finished() && most < processes {
                most = most.max(alive(&sandbox).await);
            }
            let error = running.await.expect("no panic").expect_err("a timeout");
            assert_eq!(error.kind(), ErrorKind::Timeout);
            assert!(
                before.elapsed() < timeout + GRACE,
                "{program}: {:?}",
                before.elapsed()
            );
            assert_eq!(alive(&sandbox).await, 0, "{program}");
            timeout *= 3;
        }
    }
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn a_daemon_dies_with_its_command_and_with_its_sandbox() {
    let _turn = host::alone().await;
    let sandbox = host::guest().await;
    // The control: outside it survives the end of its process group.
    let mut leader = process::Command::new("sh")
        .args(["-c", "\"$0\" daemon undead; exec sleep 60"])
        .arg(host::tool("bombs"))
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("a leader");
    let undead = || {
        let entries = fs::read_dir("/proc").expect("/proc").flatten();
        entries.into_iter().find_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let name = fs::read_to_string(entry.path().join("comm")).ok()?;
            (name.trim() == "undead" && is_alive(pid)).then_some(pid)
        })
    };
    assert!(
        host::within(GRACE, || undead().is_some()).await,
        "no control: no daemon"
    );
    let kill = |who: String| {
        let killed = process::Command::new("kill")
            .args(["-9", "--", &who])
            .status();
        assert!(killed.expect("kill").success(), "kill {who}");
    };
    kill(format!("-{}", leader.id()));
    leader.wait().expect("wait");
    kill(
        undead()
            .expect("no control: killing the group killed the daemon")
            .to_string(),
    );
    assert!(host::within(GRACE, || undead().is_none()).await);
    // Inside: by the timeout of its command,
    let script = "/opt/hostile/bombs daemon undead; exec sleep 60";
    let command = sandbox_core::Command::shell(script).timeout(Duration::from_millis(500));
    let error = sandbox.exec(command).await.expect_err("a timeout");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(alive(&sandbox).await, 0);
    // and by the end of its sandbox.
    support::sh(&sandbox, "/opt/hostile/bombs daemon undead").await;
    support::until("the control: background programs live on", async || {
        (alive(&sandbox).await == 1).then_some(())
    })
    .await;
    let namespace = namespace(&sandbox).await;
    assert!(!in_namespace(&namespace).is_empty(), "no control");
    sandbox.close().await.expect("close");
    assert!(host::within(GRACE, || in_namespace(&namespace).is_empty()).await);
    assert_eq!(undead(), None);
}

#[tokio::test]
async fn a_dropped_exec_is_the_same_as_a_timeout() {
    let _turn = host::alone().await;
    let sandbox = host::guest().await;
    let command = sandbox_core::Command::shell("/opt/hostile/bombs daemon undead; exec sleep 60");
    let running = tokio::spawn({
        let sandbox = sandbox.clone();
        async move { sandbox.exec(command).await }
    });
    let deadline = Instant::now() + GRACE;
    while alive(&sandbox).await == 0 {
        assert!(Instant::now() < deadline, "no control: it never ran");
    }
    running.abort();
    let dropped = Instant::now();
    while alive(&sandbox).await > 0 {
        assert!(dropped.elapsed() < GRACE, "it lives on");
    }
    sandbox.close().await.expect("close");
}

/// Run by the test below as a process of its own, to be killed.
#[tokio::test]
async fn in_a_child_that_is_killed() {
    let Some(state) = std::env::var_os("HOSTILE_STATE") else {
        return;
    };
    let provider = host::provider(Path::new(&state));
    let sandbox = provider
        .create(SandboxSpec::new())
        .await
        .expect("a sandbox");
    host::equip(&sandbox).await;
    let locked =
        "/opt/hostile/bombs daemon undead && mkdir -p a/b && echo x >a/b/c && chmod 0 a/b a";
    support::sh(&sandbox, locked).await;
    println!("namespace={}", namespace(&sandbox).await);
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn when_the_host_is_killed_nothing_lives_on_and_the_next_start_cleans_up() {
    let _turn = host::alone().await;
    let dir = host::public_dir();
    let state = dir.path().join("state");
    let mut child = process::Command::new(std::env::current_exe().expect("this program"))
        .args([
            "--exact",
            "lifetime::in_a_child_that_is_killed",
            "--nocapture",
        ])
        .env("HOSTILE_STATE", dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program runs");
    let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let line = lines
        .map_while(Result::ok)
        .find_map(|line| Some(line.split_once("namespace=")?.1.to_owned()));
    let namespace = line.expect("no control: the child has no sandbox");
    assert!(
        in_namespace(&namespace).len() >= 2,
        "no control: init and a daemon"
    );
    let left = entries(&state);
    assert_eq!(left.len(), 1, "no control: {left:?}");
    child.kill().expect("kill");
    assert!(
        host::within(GRACE, || in_namespace(&namespace).is_empty()).await,
        "it lives on"
    );
    child.wait().expect("wait");
    let provider = host::provider(dir.path());
    let collected = || !entries(&state).contains(&left[0]);
    assert!(
        host::within(GRACE * 2, collected).await,
        "{:?}",
        entries(&state)
    );
    drop(provider);
    assert!(
        host::within(GRACE * 2, || entries(&state).is_empty()).await,
        "{:?}",
        entries(&state)
    );
}

/// The entries of a state directory, except the base layers that wait for the next provider.
fn entries(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().display().to_string());
    names.filter(|name| name != "base").collect()
}

/// Deeper than descriptors, path names and stacks go.
#[tokio::test]
async fn a_bottomless_tree_is_removed_with_its_sandbox() {
    let _turn = host::alone().await;
    let dir = host::fast_state();
    let provider = host::provider(dir.path());
    let sandbox = provider
        .create(SandboxSpec::new())
        .await
        .expect("a sandbox");
    host::equip(&sandbox).await;
    let made = host::inside(&sandbox, "layers", &["deep", "15000"]).await;
    assert_eq!(made.number("depth"), 15_000);
    support::sh(&sandbox, "chmod 0 d/d/d d/d d").await;
    let error = sandbox.read("d/d/d/d").await.expect_err("locked");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    sandbox.close().await.expect("close");
    drop((sandbox, provider));
    let state = dir.path().join("state");
    let gone = host::within(Duration::from_secs(120), || entries(&state).is_empty()).await;
    if !gone {
        // It must not be removed by recursion either.
        std::mem::forget(dir);
    }
    assert!(gone, "{:?}", entries(&state));
}

/// A command's process that is killed and does not end: it would in the end, but not now.
#[tokio::test]
async fn a_kill_that_leaves_something_alive_says_so() {
    let _turn = host::shared().await;
    let sandbox = host::guest().await;
    let mark = format!("held-{}", process::id());
    let (held, _) = host::start(&sandbox, "escape", &["pause", &mark]).await;
    let pid = host::find_process(&mark).expect("the host sees it");
    let mut holder = process::Command::new(host::tool("hold"))
        .arg(pid.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a holder");
    let said = BufReader::new(holder.stdout.take().expect("a stdout")).lines();
    let mut said = said.map(|line| line.expect("a line"));
    assert_eq!(said.next().as_deref(), Some("seize ok"), "no control");
    assert_eq!(said.next().as_deref(), Some("end 0"));
    let error = held.kill().await.expect_err("it lives on");
    assert_eq!(said.next().as_deref(), Some("exits ok"), "no control");
    assert!(is_alive(pid), "no control");
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(
        error.to_string().contains("1 of the command's processes"),
        "{error}"
    );
    drop(holder.stdin.take());
    holder.wait().expect("the holder ends");
    held.kill().await.expect("now it is dead");
    assert!(!is_alive(pid));
    sandbox.close().await.expect("close");
}
