//! Killing, signalling and freezing whole trees.

use super::*;

#[tokio::test]
async fn a_signal_reaches_the_main_process_only() {
    let engine = engine().await;
    let script = "trap 'echo caught; exit 9' USR1; echo ready; while :; do sleep 0.01; done";
    let mut running = engine.spawn(shell(script)).await.unwrap();
    assert_eq!(within(read_line(&mut running.stdout)).await, "ready");
    running.tree.signal(libc::SIGUSR1).await.unwrap();
    let done = within(finish(running)).await.unwrap();
    assert_eq!((&done.out[..], done.exit.code), (&b"caught\n"[..], Some(9)));
}

/// Daemons that left their session and whose parents are gone, stubborn and
/// stopped ones.
fn stubborn(mark: &str) -> String {
    format!(
        "(setsid sh -c 'setsid sleep {mark} & ' &)
         (trap '' TERM HUP INT; sleep {mark}) &
         sh -c 'kill -STOP $$; sleep {mark}' &
         setsid sh -c 'kill -STOP $$; : {mark}' &
         while [ $(ls -d /proc/[0-9]* | wc -l) -lt 8 ]; do :; done
         echo ready"
    )
}

#[tokio::test]
async fn a_tree_dies_whole_and_alone() {
    let engine = engine().await;
    let (mark, other_mark) = (unique(), unique());
    let mut other = engine
        .spawn(shell(&format!("echo up; sleep {other_mark}")))
        .await
        .unwrap();
    assert_eq!(within(read_line(&mut other.stdout)).await, "up");
    for main_lives in [true, false] {
        let tail = if main_lives {
            format!("; sleep {mark}")
        } else {
            String::new()
        };
        let mut running = engine
            .spawn(shell(&(stubborn(&mark) + &tail)))
            .await
            .unwrap();
        assert_eq!(within(read_line(&mut running.stdout)).await, "ready");
        if !main_lives {
            assert_eq!(within(&mut running.exit).await.unwrap().code, Some(0));
        }
        until("the control: they live", || processes_with(&mark) >= 4).await;
        let killed = within(running.tree.kill()).await.unwrap();
        assert_eq!(killed, Killed::default());
        assert_eq!(processes_with(&mark), 0);
        let exit = within(running.exit).await.unwrap();
        assert_eq!(exit.signal, main_lives.then_some(libc::SIGKILL));
        assert_eq!(
            within(running.tree.kill()).await.unwrap(),
            Killed::default()
        );
    }
    until("the other exec's shell and sleep live", || {
        processes_with(&other_mark) == 2
    })
    .await;
    other.tree.kill_detached();
    assert_eq!(
        within(other.exit).await.unwrap().signal,
        Some(libc::SIGKILL)
    );
    until("the other's descendants die", || {
        processes_with(&other_mark) == 0
    })
    .await;
}

fn python() -> Option<&'static str> {
    ["/usr/bin/python3", "/usr/local/bin/python3"]
        .into_iter()
        .find(|path| Path::new(path).exists())
}

#[tokio::test]
async fn a_process_whose_first_thread_ended_is_found() {
    let Some(python) = python() else {
        println!("skipped: no python3");
        return;
    };
    let engine = engine().await;
    let mark = unique();
    let code = "import os,threading,ctypes,time
os.setsid() if os.fork()==0 else os._exit(0)
threading.Thread(target=lambda:(time.sleep(0.02),print('ready',flush=True),time.sleep(1000))).start()
ctypes.CDLL(None).syscall({'x86_64':60,'aarch64':93}[os.uname().machine],0)";
    let mut wanted = request(&["python3", "-c", code, &mark]);
    wanted.candidates = bytes(&[python]);
    let mut running = engine.spawn(wanted).await.unwrap();
    assert_eq!(within(&mut running.exit).await.unwrap().code, Some(0));
    let leader_gone = || {
        std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(Result::ok)
            .any(|entry| {
                let task = |name: &str| std::fs::read_to_string(entry.path().join(name));
                let own = entry.file_name().to_string_lossy().parse::<u32>().is_ok();
                own && task("stat").is_ok_and(|stat| stat.contains("(python3) Z"))
                    && std::fs::read_dir(entry.path().join("task")).is_ok_and(|dir| dir.count() > 1)
            })
    };
    until("the first thread has ended", leader_gone).await;
    let killed = within(running.tree.kill()).await.unwrap();
    assert_eq!(killed, Killed::default());
    assert!(!leader_gone());
    assert!(within(engine.is_idle()).await.unwrap());
}

fn limited() -> Plan {
    let mut plan = unconfined();
    plan.set_limit(
        "limit processes",
        rustix::process::Resource::Nproc,
        400,
        400,
    );
    confine(&mut plan);
    plan
}

async fn bomb(request: SpawnRequest) {
    let engine = start(config(limited())).await.unwrap().engine;
    let mut running = engine.spawn(request).await.unwrap();
    assert_eq!(within(read_line(&mut running.stdout)).await, "lit");
    let pid = engine.pid();
    let children = || {
        let path = format!("/proc/{pid}/task/{pid}/children");
        std::fs::read_to_string(path)
            .unwrap_or_default()
            .split_whitespace()
            .count()
    };
    until("it multiplies", || children() > 10).await;
    within(running.tree.kill()).await.unwrap();
    assert!(within(engine.is_idle()).await.unwrap());
    assert_eq!(
        run(&engine, shell("echo fine")).await.out,
        b"fine\n",
        "the sandbox still works"
    );
}

#[tokio::test]
async fn a_fork_bomb_does_not_outrun_the_kill() {
    bomb(shell(
        "echo lit; b() { (b &) ; (b &) ; (b &) ; }; while :; do b 2>/dev/null; done",
    ))
    .await;
}

#[tokio::test]
async fn a_fork_bomb_that_leaves_its_session_does_not_either() {
    let script =
        "echo lit 2>/dev/null; while :; do setsid sh -c \"$0\" \"$0\" >/dev/null 2>&1 & done";
    bomb(shell(script)).await;
}

#[tokio::test]
async fn a_fork_bomb_of_daemons_does_not_either() {
    let Some(python) = python() else {
        println!("skipped: no python3");
        return;
    };
    // Every process leaves its session and its parent; none lives for long.
    let code = "import os
print('lit', flush=True)
while True:
    try:
        if os.fork() == 0:
            os.setsid()
            if os.fork() and os.fork(): os._exit(0)
    except OSError:
        os._exit(0) if os.getpid() % 3 == 0 else None";
    let mut wanted = request(&["python3", "-c", code]);
    wanted.candidates = bytes(&[python]);
    bomb(wanted).await;
}

#[tokio::test]
async fn dropped_unconfirmed_spawns_leave_nothing() {
    let engine = engine().await;
    let mark = unique();
    for _ in 0..20 {
        let mut wanted = request(&["sleep", &mark]);
        wanted.confirm = true;
        let spawn = engine.spawn(wanted);
        // One poll sends the request, then interest is lost.
        let mut spawn = std::pin::pin!(spawn);
        std::future::poll_fn(|context| {
            let _ = spawn.as_mut().poll(context);
            std::task::Poll::Ready(())
        })
        .await;
    }
    assert!(within(engine.is_idle()).await.is_ok());
    until("they die", || processes_with(&mark) == 0).await;
}

#[tokio::test]
async fn idle_means_nobody_is_left() {
    let engine = engine().await;
    assert!(within(engine.is_idle()).await.unwrap());
    let running = engine.spawn(shell("setsid sleep 1000 &")).await.unwrap();
    let tree = &running.tree;
    assert_eq!(within(running.exit).await.unwrap().code, Some(0));
    assert!(!within(engine.is_idle()).await.unwrap());
    within(tree.kill()).await.unwrap();
    assert!(within(engine.is_idle()).await.unwrap());
}

#[tokio::test]
async fn a_freeze_stops_everything_but_keeps_the_stopped_stopped() {
    let engine = engine().await;
    let script = "sh -c 'kill -STOP $$; echo woken' & s=$!
        until grep -q 'State:.T' /proc/$s/status; do :; done
        echo ready; i=0; while :; do i=$((i+1)); echo $i; done";
    let mut running = engine.spawn(shell(script)).await.unwrap();
    assert_eq!(within(read_line(&mut running.stdout)).await, "ready");
    let frozen = within(engine.freeze()).await.unwrap();
    assert!(frozen.is_still());
    let mut buffer = vec![0; 1 << 20];
    // Whatever is in the pipe now is all there will be.
    let mut drained = 0;
    while let Ok(Ok(len)) =
        tokio::time::timeout(Duration::from_millis(50), running.stdout.read(&mut buffer)).await
    {
        drained += len;
        assert!(drained < 1 << 20, "it goes on writing");
    }
    let waiting = engine.spawn(shell("echo later"));
    let mut waiting = std::pin::pin!(waiting);
    let early = tokio::time::timeout(Duration::from_millis(20), waiting.as_mut()).await;
    assert!(early.is_err(), "spawns wait for the thaw");
    within(frozen.thaw()).await.unwrap();
    assert_eq!(
        finish(within(waiting).await.unwrap()).await.unwrap().out,
        b"later\n"
    );
    assert!(
        within(running.stdout.read(&mut buffer)).await.unwrap() > 0,
        "it goes on"
    );
    let text = String::from_utf8_lossy(&buffer);
    assert!(!text.contains("woken"), "who had stopped stays stopped");
    drop(within(engine.freeze()).await.unwrap());
    within(running.tree.kill()).await.unwrap();
}

#[tokio::test]
async fn a_guest_that_stops_its_neighbours_does_not_stop_the_agent() {
    let engine = engine().await;
    let script = "echo go; while :; do kill -STOP -1; done";
    let mut hostile = engine.spawn(shell(script)).await.unwrap();
    assert_eq!(within(read_line(&mut hostile.stdout)).await, "go");
    let mut running = Vec::new();
    for _ in 0..40 {
        running.push(engine.spawn(request(&["true"])).await.unwrap());
    }
    for tree in running
        .iter()
        .map(|running| &running.tree)
        .chain([&hostile.tree])
    {
        within(tree.kill()).await.unwrap();
    }
    assert_eq!(run(&engine, shell("echo fine")).await.out, b"fine\n");
}
