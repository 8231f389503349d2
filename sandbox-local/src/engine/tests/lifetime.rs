//! The end of the host, of the agent, of the runtime: no caller hangs, nothing
//! stays.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use super::*;

#[tokio::test]
async fn a_killed_agent_is_told_to_everybody_at_once() {
    let engine = engine().await;
    let mut running = engine.spawn(shell("echo up; sleep 1000")).await.unwrap();
    assert_eq!(within(read_line(&mut running.stdout)).await, "up");
    let pid = rustix::process::Pid::from_raw(engine.pid().cast_signed()).unwrap();
    let kill = async {
        tokio::task::yield_now().await;
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    };
    let waiting = engine.freeze();
    let (_, exit, out) =
        within(async { tokio::join!(kill, &mut running.exit, read_all(&mut running.stdout)) })
            .await;
    drop(waiting);
    assert_eq!(exit, Err(ExitError::Lost(Lost::Ended)));
    assert_eq!(out, b"");
    assert!(matches!(
        within(engine.spawn(shell(":"))).await,
        Err(SpawnError::Lost(Lost::Ended))
    ));
    assert_eq!(within(engine.is_idle()).await, Err(Lost::Ended));
    assert_eq!(within(running.tree.kill()).await, Err(Lost::Ended));
    assert_eq!(engine.lost(), Some(Lost::Ended));
    within(engine.gone()).await;
}

#[tokio::test]
async fn shutdown_leaves_no_process_and_no_zombie() {
    let engine = engine().await;
    let mark = unique();
    let mut running = engine
        .spawn(shell(&format!("setsid sleep {mark} & echo up")))
        .await
        .unwrap();
    assert_eq!(within(read_line(&mut running.stdout)).await, "up");
    let pid = engine.pid();
    assert!(within(engine.killer().shut_down()).await);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    assert_eq!(processes_with(&mark), 0);
    assert!(within(engine.killer().shut_down()).await, "again");
}

#[tokio::test]
async fn dropping_the_engine_kills_and_reaps() {
    let engine = engine().await;
    let pid = engine.pid();
    let running = engine.spawn(shell("sleep 1000")).await.unwrap();
    drop(engine);
    assert_eq!(
        within(running.exit).await,
        Err(ExitError::Lost(Lost::GivenUp))
    );
    until("the agent is reaped", || {
        !Path::new(&format!("/proc/{pid}")).exists()
    })
    .await;
}

#[test]
fn a_runtime_that_ends_takes_its_sandboxes_along() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let first = runtime();
    let (engine, running) = first.block_on(async {
        let engine = engine().await;
        let running = engine.spawn(shell("sleep 1000")).await.unwrap();
        (engine, running)
    });
    let pid = engine.pid();
    drop(first);
    let second = runtime();
    second.block_on(async {
        assert_eq!(
            within(running.exit).await,
            Err(ExitError::Lost(Lost::RuntimeEnded))
        );
        assert!(matches!(
            within(engine.spawn(shell(":"))).await,
            Err(SpawnError::Lost(Lost::RuntimeEnded))
        ));
        until("it dies", || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z")
        })
        .await;
        assert!(within(engine.killer().shut_down()).await);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    });
}

/// Not a test of its own: the host that the next one kills.
#[tokio::test]
#[ignore = "the victim of a_killed_host_leaves_nothing"]
async fn victim() {
    if !is_alone() {
        return;
    }
    let engine = engine().await;
    let mark = std::env::var("ENGINE_TEST_MARK").unwrap();
    let script =
        format!("trap '' TERM; setsid sleep {mark} & echo up; while :; do sleep {mark}; done");
    let mut running = engine.spawn(shell(&script)).await.unwrap();
    assert_eq!(read_line(&mut running.stdout).await, "up");
    println!("\nagent {}", engine.pid());
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_killed_host_leaves_nothing() {
    for _ in 0..10 {
        let mark = unique();
        let mut host = Victim(
            alone("engine::tests::lifetime::victim")
                .env("ENGINE_TEST_MARK", &mark)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap(),
        );
        let lines = BufReader::new(host.0.stdout.take().unwrap()).lines();
        let agent: u32 = lines
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("agent ").and_then(|pid| pid.parse().ok()))
            .expect("the host tells its agent");
        until("the control: they do live", || processes_with(&mark) >= 2).await;
        host.0.kill().unwrap();
        host.0.wait().unwrap();
        until("all die", || {
            processes_with(&mark) == 0
                && std::fs::read_to_string(format!("/proc/{agent}/stat"))
                    .map_or(true, |stat| stat.contains(") Z"))
        })
        .await;
    }
}

#[tokio::test]
async fn a_thousand_execs_leak_no_descriptor() {
    if !is_alone() {
        let test = "engine::tests::lifetime::a_thousand_execs_leak_no_descriptor";
        let done = alone(test).output().unwrap();
        let text = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let engine = engine().await;
    let count = |pid: &str| std::fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count);
    let agent = engine.pid().to_string();
    let burst = async |n: usize| {
        for i in 0..n {
            let mut wanted = request(if i % 3 == 0 { &["no-such"] } else { &["true"] });
            wanted.confirm = i % 2 == 0;
            wanted.stdin = if i % 4 == 0 {
                Stdin::Piped
            } else {
                Stdin::Null
            };
            if i % 10 == 0 {
                wanted
                    .env
                    .push([b"X=".to_vec(), vec![b'x'; 70_000]].concat());
            }
            if let Ok(running) = engine.spawn(wanted).await {
                let _ = within(finish(running)).await;
            }
        }
    };
    burst(20).await;
    let before = (count("self").unwrap(), count(&agent).ok());
    burst(1000).await;
    assert_eq!((count("self").unwrap(), count(&agent).ok()), before);
    if is_root() {
        let status = std::fs::read_to_string(format!("/proc/{agent}/status")).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS"))
            .unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(kib < 1024, "{line}");
    }
    for _ in 0..20 {
        let other = super::engine().await;
        assert!(within(other.killer().shut_down()).await);
    }
    until("the sandboxes' descriptors are closed", || {
        count("self").unwrap() == before.0
    })
    .await;
}

/// Not a test of its own: as `victim`, with a child that was forked and executes nothing.
#[tokio::test]
#[ignore = "the victim of a_killed_host_with_a_forked_child_leaves_nothing"]
#[allow(unsafe_code)]
async fn victim_with_child() {
    use std::os::unix::process::CommandExt;
    if !is_alone() {
        return;
    }
    let engine = engine().await;
    let mark = std::env::var("ENGINE_TEST_MARK").unwrap();
    let mut running = engine
        .spawn(shell(&format!("echo up; exec sleep {mark}")))
        .await
        .unwrap();
    assert_eq!(read_line(&mut running.stdout).await, "up");
    let guard = std::ffi::CString::new(std::env::var("ENGINE_TEST_GUARD").unwrap()).unwrap();
    let mut child = Command::new("/bin/true");
    // SAFETY: the closure makes only system calls on memory prepared before.
    unsafe {
        child.pre_exec(move || {
            while libc::access(guard.as_ptr(), libc::F_OK) == 0 {
                libc::usleep(1000);
            }
            Ok(())
        });
    }
    // It returns when the child has executed its program, which is never.
    std::thread::spawn(move || child.status());
    until("the child is there", || {
        let children = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let children = children
            .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
            .flat_map(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>())
            .filter(|pid| pid.parse() != Ok(engine.pid()) && !pid.is_empty());
        children.count() > 0
    })
    .await;
    println!("\nagent {}", engine.pid());
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_killed_host_with_a_forked_child_leaves_nothing() {
    let mark = unique();
    let guard = tempfile::NamedTempFile::new().unwrap();
    let mut host = Victim(
        alone("engine::tests::lifetime::victim_with_child")
            .env("ENGINE_TEST_MARK", &mark)
            .env("ENGINE_TEST_GUARD", guard.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let lines = BufReader::new(host.0.stdout.take().unwrap()).lines();
    lines
        .map_while(Result::ok)
        .find(|line| line.starts_with("agent "))
        .expect("the host tells its agent");
    assert_eq!(processes_with(&mark), 1, "the control: it lives");
    host.0.kill().unwrap();
    host.0.wait().unwrap();
    until("the guest is dead", || processes_with(&mark) == 0).await;
    drop(guard);
}
