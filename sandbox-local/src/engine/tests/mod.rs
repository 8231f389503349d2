//! Promises of the engine, shown on real processes. Needs user namespaces; run
//! it as root and as an ordinary user, the plan differs.
//!
//! Nothing here may sleep to wait: conditions are polled against a deadline.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

mod lifetime;
mod measure;
mod output;
mod start;
mod streams;
mod trees;

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;

use super::connection::Killed;
use super::error::PlanError;
use super::stream::Output;
use super::*;

/// Longest that anything here may take.
const DEADLINE: Duration = Duration::from_secs(120);

/// Grace as by default.
const GRACE: Duration = Duration::from_millis(100);

/// A test-only plan: the host's files as they are, but its own proc mount, and
/// the agent as the lead of no privilege that its guests could inherit.
fn plan() -> Plan {
    let mut plan = unconfined();
    confine(&mut plan);
    plan
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn unconfined() -> Plan {
    let mut plan = Plan::new();
    let private = libc::MS_REC | libc::MS_PRIVATE;
    plan.mount("make mounts private", None, "/", None, private, None);
    plan.mount(
        "mount proc",
        Some(Path::new("proc")),
        "/proc",
        Some("proc"),
        0,
        None,
    );
    if is_root() {
        plan.clear_groups("clear groups");
        plan.setgid("become the guest's group", 1000);
        plan.setuid("become the guest's user", 1000);
    }
    plan
}

fn confine(plan: &mut Plan) {
    plan.chdir("enter /", "/");
    plan.prctl("hide the agent", libc::PR_SET_DUMPABLE, [0; 4]);
    // SECBIT_NOROOT and its lock.
    plan.prctl("no root", libc::PR_SET_SECUREBITS, [3, 0, 0, 0]);
    let clear = libc::PR_CAP_AMBIENT_CLEAR_ALL as u64;
    plan.prctl("clear ambient", libc::PR_CAP_AMBIENT, [clear, 0, 0, 0]);
    plan.capset("nothing to inherit", (1 << 41) - 1, (1 << 41) - 1, 0);
    plan.prctl("no new privileges", libc::PR_SET_NO_NEW_PRIVS, [1, 0, 0, 0]);
}

fn config(plan: Plan) -> StartConfig {
    let run_as = if is_root() {
        RunAs::Mapped {
            uid: 65534,
            gid: 65534,
        }
    } else {
        RunAs::Own
    };
    StartConfig {
        guest_id: 1000,
        plan,
        run_as,
        isolate_network: true,
        born_in: None,
        timeout: DEADLINE,
        taken: None,
    }
}

struct Up {
    engine: Engine,
    root: OwnedFd,
    exported: Vec<OwnedFd>,
}

async fn start(config: StartConfig) -> Result<Up, StartError> {
    let start = move || super::start(config);
    let started = tokio::task::spawn_blocking(start).await.unwrap()?;
    Ok(Up {
        engine: Engine::new(started.init, GRACE)?,
        root: started.root,
        exported: started.exported,
    })
}

async fn engine() -> Engine {
    start(config(plan()))
        .await
        .expect("the sandbox starts")
        .engine
}

fn bytes(strings: &[&str]) -> Vec<Vec<u8>> {
    strings
        .iter()
        .map(|string| string.as_bytes().to_vec())
        .collect()
}

fn request(argv: &[&str]) -> SpawnRequest {
    SpawnRequest {
        candidates: bytes(&[
            &format!("/usr/bin/{}", argv[0]),
            &format!("/bin/{}", argv[0]),
        ]),
        argv: bytes(argv),
        env: bytes(&["PATH=/usr/bin:/bin"]),
        cwd: b"/".to_vec(),
        ..SpawnRequest::default()
    }
}

fn shell(script: &str) -> SpawnRequest {
    request(&["sh", "-c", script, script])
}

async fn read_all(output: &mut Output) -> Vec<u8> {
    let mut bytes = Vec::new();
    output
        .read_to_end(&mut bytes)
        .await
        .expect("a pipe can be read");
    bytes
}

/// Reads the first line, without waiting for the end.
async fn read_line(output: &mut Output) -> String {
    let mut line = Vec::new();
    while let Ok(byte) = output.read_u8().await {
        if byte == b'\n' {
            break;
        }
        line.push(byte);
    }
    String::from_utf8(line).unwrap()
}

struct Done {
    out: Vec<u8>,
    err: Vec<u8>,
    exit: Exit,
}

async fn finish(mut running: Running) -> Result<Done, ExitError> {
    let (out, err, exit) = tokio::join!(
        read_all(&mut running.stdout),
        read_all(running.stderr.as_mut().expect("pipes")),
        running.exit
    );
    Ok(Done {
        out,
        err,
        exit: exit?,
    })
}

async fn run(engine: &Engine, request: SpawnRequest) -> Done {
    let running = engine.spawn(request).await.expect("it spawns");
    within(finish(running)).await.expect("it runs")
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("within the deadline")
}

/// Waits until `condition` holds.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "{what} within the deadline");
        tokio::task::yield_now().await;
        std::thread::yield_now();
    }
}

/// Host processes whose command line contains `text`.
fn processes_with(text: &str) -> usize {
    let own = std::process::id().to_string();
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_str() != Some(&own))
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .filter(|line| {
            line.windows(text.len())
                .any(|window| window == text.as_bytes())
        })
        .count()
}

/// A text that no other test puts on a command line.
fn unique() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Digits only, so that it can be a duration for sleep(1).
    format!(
        "7{:06}{:03}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// Runs the named test of this binary in a process of its own.
fn alone(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        test,
        "--include-ignored",
        "--nocapture",
        "--test-threads=1",
    ]);
    command.env("ENGINE_TEST_ALONE", "1");
    command
}

/// A process that does not outlive a failed test.
struct Victim(std::process::Child);

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether this process was made by [`alone`].
fn is_alone() -> bool {
    std::env::var_os("ENGINE_TEST_ALONE").is_some()
}

fn memory_with(content: &[u8]) -> OwnedFd {
    super::wire::sealed("test", &[content]).unwrap()
}
