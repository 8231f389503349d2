//! Objects that the kernel shares between a sandbox and its host's user beyond namespaces: what it
//! counts by user, who may slow whom down, and the image of the agent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sandbox_core::{Command, ErrorKind, Provider, Sandbox, SandboxExt as _, SandboxSpec};
use sandbox_local::{LocalConfig, LocalProvider};

use crate::{host, support};

/// A guest takes all that it gets; what the host's user has left is compared with before.
async fn exhausts(what: &str, least_left: i64) {
    let _turn = host::alone().await;
    let sandbox = host::guest().await;
    let before = host::outside("quota", &[what, "probe"]).number("count");
    assert!(before > 0, "no control: the host's user has none of {what}");
    let (running, taken) = host::start(&sandbox, "quota", &[what]).await;
    assert!(taken.number("count") > 0, "the guest gets none of {what}");
    let after = host::outside("quota", &[what, "probe"]).number("count");
    assert!(
        after * 100 >= before * least_left,
        "{what}: {before} before, {after} left"
    );
    running.kill().await.expect("kill");
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn a_guest_cannot_take_all_timers_of_the_hosts_user() {
    exhausts("timers", 80).await;
}

#[tokio::test]
async fn a_guest_cannot_take_all_inotify_instances_of_the_hosts_user() {
    // Half: a web project's watchers take dozens, and there are only 128 by default. Other programs
    // of the host's user have some, which are missing twice.
    exhausts("inotify", 40).await;
}

#[tokio::test]
async fn a_guest_cannot_take_all_message_queues_of_the_hosts_user() {
    exhausts("queues", 70).await;
}

/// Descriptors on their way through sockets are counted by user and checked against the limit on
/// open files of the one that sends: of the host, and of every sandbox that starts.
#[tokio::test]
async fn descriptors_in_flight_do_not_stop_the_other_sandboxes() {
    let _turn = host::alone().await;
    let own = getrlimit(Resource::Nofile);
    let modest = Rlimit {
        current: Some(1024),
        maximum: own.maximum,
    };
    let provider = LocalProvider::new(LocalConfig::default()).expect("a provider");
    let attacker = provider
        .create(SandboxSpec::new())
        .await
        .expect("the attacker");
    host::equip(&attacker).await;
    let victim = attacker.fork_one().await.expect("the victim");
    let (running, taken) = host::start(&attacker, "quota", &["in-flight"]).await;
    assert_eq!(taken.get("refused"), "ETOOMANYREFS");
    assert!(taken.number("count") > 256, "{taken:?}");
    setrlimit(Resource::Nofile, modest).expect("a modest limit");
    for sandbox in [&victim, &attacker] {
        assert_eq!(support::sh(sandbox, "echo alive").await, "alive\n");
    }
    let fork = victim.fork_one().await.expect("a fork");
    let other = provider
        .create(SandboxSpec::new())
        .await
        .expect("a new sandbox");
    for sandbox in [&fork, &other] {
        assert_eq!(support::sh(sandbox, "echo alive").await, "alive\n");
    }
    assert_eq!(
        getrlimit(Resource::Nofile).current,
        Some(1024),
        "the host's own limit stays"
    );
    setrlimit(Resource::Nofile, own).expect("the old limit");
    running.kill().await.expect("kill");
    for sandbox in [attacker, victim, fork, other] {
        sandbox.close().await.expect("close");
    }
}

/// Pages in pipes are counted for each user of the host, in all namespaces together: as root each
/// sandbox is a user of its own.
#[tokio::test]
async fn pages_in_pipes_are_not_shared_by_sandboxes_of_root() {
    let _turn = host::alone().await;
    let provider = LocalProvider::new(LocalConfig::default()).expect("a provider");
    let attacker = provider
        .create(SandboxSpec::new())
        .await
        .expect("the attacker");
    host::equip(&attacker).await;
    let victim = attacker.fork_one().await.expect("the victim");
    let before = host::inside(&victim, "quota", &["pipe", "probe"]).await;
    assert_eq!(before.number("count"), 65_536, "no control");
    let (running, taken) = host::start(&attacker, "quota", &["pipes"]).await;
    assert!(
        taken.number("count") < 65_536,
        "no control: pages are not counted"
    );
    let other = provider
        .create(SandboxSpec::new())
        .await
        .expect("a new sandbox");
    host::equip(&other).await;
    let fork = victim.fork_one().await.expect("a fork");
    for sandbox in [&victim, &other, &fork] {
        let found = host::inside(sandbox, "quota", &["pipe", "probe"]).await;
        if host::is_root() {
            assert_eq!(found.number("count"), 65_536);
        } else {
            // An ordinary user's sandboxes are all that user: pipes are small then, but there.
            assert!(found.number("count") >= 4096, "{found:?}");
        }
    }
    running.kill().await.expect("kill");
    for sandbox in [attacker, victim, other, fork] {
        sandbox.close().await.expect("close");
    }
}

#[tokio::test]
async fn init_cannot_be_slowed_down() {
    let _turn = host::alone().await;
    let sandbox = host::guest().await;
    let own = host::inside(&sandbox, "quota", &["slow", "0"]).await;
    let found = host::inside(&sandbox, "quota", &["slow", "1"]).await;
    let calls = [
        "sched_setscheduler",
        "sched_setattr",
        "sched_setaffinity",
        "setpriority",
        "ioprio_set",
    ];
    for call in calls {
        assert_eq!(own.get(call), "ok", "no control for {call}");
        assert_eq!(found.get(call), "EPERM", "{call}");
    }
    let spin = "for i in $(seq 100); do /opt/hostile/bombs spin & done; wait";
    let timeout = Duration::from_secs(1);
    let before = Instant::now();
    let error = sandbox
        .exec(Command::shell(spin).timeout(timeout))
        .await
        .expect_err("a timeout");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let grace = Duration::from_secs(60);
    assert!(before.elapsed() < timeout + grace, "{:?}", before.elapsed());
    sandbox.close().await.expect("close");
}

/// Processes that run an image, as a program of the guest catches them while something is done.
async fn caught(sandbox: &Arc<dyn Sandbox>, image: &str, something: impl AsyncFn()) -> String {
    let catcher = host::command("quota", &["image", "2000", image]);
    let catcher = sandbox.spawn(catcher).await.expect("a catcher");
    let until = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < until {
        something().await;
    }
    catcher
        .signal(sandbox_core::Signal::TERMINATE)
        .await
        .expect("a signal");
    let output = catcher.wait_with_output(Default::default()).await;
    let output = output.expect("its end");
    output.stdout.to_string_lossy().into_owned()
}

/// A probe has the guest's user: a program that saw it could stop it, trace it, or open its image.
#[tokio::test]
async fn no_program_of_a_guest_meets_a_probe() {
    let _turn = host::alone().await;
    let sandbox = host::guest().await;
    let control = caught(&sandbox, "bombs", async || {
        let spin = host::command("bombs", &["spin"]).timeout(Duration::from_millis(100));
        sandbox.exec(spin).await.expect_err("it ends by its time");
    })
    .await;
    assert!(control.contains("caught ok"), "no control: {control}");
    let found = caught(&sandbox, "sandbox-agent", async || {
        sandbox.isolation().await.expect("a probe");
    })
    .await;
    assert!(!found.contains("caught"), "{found}");
    sandbox.close().await.expect("close");
}
