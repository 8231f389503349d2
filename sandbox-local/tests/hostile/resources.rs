//! Bombs: a limit stops them, the host and its other sandboxes go on (D 32).

use std::process;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sandbox_core::{
    Command, ErrorKind, ExitCause, Provider, Resources, Sandbox, SandboxExt, SandboxSpec,
};
use sandbox_local::{LocalConfig, LocalProvider};

use crate::{host, support};

/// Time that a bomb goes off.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Time that it may take to end on a busy machine, and that what begins meanwhile may take.
const GRACE: Duration = Duration::from_secs(120);

/// While a bomb goes off in one sandbox, another and the host work; and the bomb ends by its
/// timeout.
async fn goes_off(spec: SandboxSpec, args: &[&str]) -> Arc<dyn Sandbox> {
    let sandbox = support::create(spec).await;
    host::equip(&sandbox).await;
    let other = support::default().await;
    let bomb = host::command("bombs", args).timeout(TIMEOUT);
    let before = Instant::now();
    let running = tokio::spawn({
        let sandbox = sandbox.clone();
        async move { sandbox.exec(bomb).await }
    });
    // Not before it has gone off.
    tokio::time::sleep(TIMEOUT / 10).await;
    for _ in 0..3 {
        let start = Instant::now();
        let output = other
            .exec(Command::new("true").timeout(GRACE))
            .await
            .expect("another");
        assert!(
            output.success() && start.elapsed() < GRACE,
            "{:?}",
            start.elapsed()
        );
        let start = Instant::now();
        assert!(
            process::Command::new("true")
                .status()
                .expect("the host forks")
                .success()
        );
        assert!(start.elapsed() < GRACE, "{:?}", start.elapsed());
    }
    let error = running
        .await
        .expect("no panic")
        .expect_err("it does not end by itself");
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    let took = before.elapsed();
    assert!(took < TIMEOUT + GRACE, "{args:?} ended after {took:?}");
    let said = error
        .partial_output()
        .map(|output| output.stdout.to_string_lossy().into_owned());
    assert!(
        args == ["fork-bomb"] || said.is_some_and(|said| said.contains("end 0")),
        "{args:?}"
    );
    let after = sandbox
        .exec(Command::shell("echo alive").timeout(GRACE))
        .await;
    assert_eq!(
        after.expect("it goes on").stdout.bytes,
        "alive\n",
        "{args:?}"
    );
    support::until("no process is left", async || {
        let left = support::sh(&sandbox, "cat /proc/[0-9]*/comm | grep -c bombs; true").await;
        (left == "0\n").then_some(())
    })
    .await;
    other.close().await.expect("close");
    sandbox
}

fn few_processes() -> SandboxSpec {
    SandboxSpec::new().resources(Resources::new().pids(200))
}

#[tokio::test]
async fn a_fork_bomb_ends_and_takes_nobody_along() {
    let _turn = host::alone().await;
    for spec in [few_processes(), SandboxSpec::new()] {
        goes_off(spec, &["fork-bomb"])
            .await
            .close()
            .await
            .expect("close");
    }
}

#[tokio::test]
async fn processes_threads_and_zombies_are_limited() {
    let _turn = host::alone().await;
    for bomb in ["fork-many", "threads", "zombies"] {
        let sandbox = goes_off(few_processes(), &[bomb]).await;
        let again = host::command("bombs", &[bomb]).timeout(TIMEOUT);
        let error = sandbox.exec(again).await.expect_err("it stays");
        let said = error
            .partial_output()
            .expect("what it said")
            .stdout
            .to_string_lossy()
            .into_owned();
        let made = said
            .lines()
            .find_map(|line| line.strip_prefix("made ")?.parse::<u32>().ok());
        assert!(
            made.is_some_and(|made| (100..=200).contains(&made)),
            "{bomb}: {said}"
        );
        sandbox.close().await.expect("close");
    }
}

#[tokio::test]
async fn descriptors_are_limited() {
    let _turn = host::alone().await;
    goes_off(SandboxSpec::new(), &["files"])
        .await
        .close()
        .await
        .expect("close");
}

/// A sandbox with this limit on memory, where the host grants one: as root it must.
async fn with_memory(bytes: u64) -> Option<Arc<dyn Sandbox>> {
    let resources = Resources::new().memory(bytes);
    let provider = LocalProvider::new(LocalConfig::default()).expect("a provider");
    let made = provider
        .create(SandboxSpec::new().resources(resources))
        .await;
    match made {
        Ok(sandbox) => {
            host::equip(&sandbox).await;
            Some(sandbox)
        }
        // Refused and said so: the limit is not ignored.
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Isolation, "{error}");
            assert!(!host::is_root(), "{error}");
            None
        }
    }
}

#[tokio::test]
async fn a_little_more_than_the_limit_on_memory_is_not_to_be_had() {
    let _turn = host::shared().await;
    const LIMIT: u64 = 64 << 20;
    let more = (LIMIT + (32 << 20)).to_string();
    let outside = host::outside("bombs", &["touch", &more]);
    assert_eq!(outside.get("touch"), "ok", "the control");
    let Some(sandbox) = with_memory(LIMIT).await else {
        return;
    };
    let ended = sandbox
        .exec(host::command("bombs", &["touch", &more]))
        .await;
    let ended = ended.expect("its end");
    assert!(
        !ended.stdout.to_string_lossy().contains("touch ok"),
        "{ended:?}"
    );
    let less = (LIMIT / 2).to_string();
    let fits = host::inside(&sandbox, "bombs", &["touch", &less]).await;
    assert_eq!(fits.get("touch"), "ok");
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn a_memory_bomb_is_killed_where_cgroups_are_granted() {
    let _turn = host::alone().await;
    let Some(sandbox) = with_memory(256 << 20).await else {
        return;
    };
    for bomb in [&["memory"][..], &["fill", "1073741824", "/dev/shm/filled"]] {
        let output = sandbox
            .exec(host::command("bombs", bomb))
            .await
            .expect("its end");
        assert!(
            !output.stdout.to_string_lossy().contains("fill ok"),
            "{bomb:?}: {output:?}"
        );
        let after = sandbox
            .sh("rm -f /dev/shm/filled; echo alive")
            .await
            .expect("it goes on");
        assert_eq!(after.stdout.bytes, "alive\n", "{bomb:?}");
    }
    // The control: what fits is there to be had.
    let fits = host::inside(&sandbox, "bombs", &["fill", "67108864", "/dev/shm/fits"]).await;
    assert_eq!(fits.get("fill"), "ok");
    sandbox.close().await.expect("close");
}

/// Fills the limit on memory with what belongs to no process, so that ending one gives nothing back,
/// and goes on with commands: each ends as it should, or by the limit, and so does the sandbox.
pub(crate) async fn init_is_out_of_memory(provider: &LocalProvider) {
    let spec = SandboxSpec::new().resources(Resources::new().memory(64 << 20));
    let sandbox = provider.create(spec).await.expect("a sandbox");
    host::equip(&sandbox).await;
    let fill = host::command("charge", &["sysv-memory"]);
    let filled = sandbox.exec(fill).await.expect("its end");
    assert!(!filled.success(), "no control: {filled:?}");
    let (mut fine, mut killed, mut lost) = (0, 0, None);
    for _ in 0..50 {
        match sandbox.sh("x=$(seq 100000); echo ${#x}").await {
            Ok(output) if output.success() => fine += 1,
            Ok(output) => {
                let by_limit = output.cause == ExitCause::OutOfMemory;
                assert!(by_limit || !output.stderr.bytes.is_empty(), "{output:?}");
                killed += 1;
            }
            Err(error) if error.kind() == ErrorKind::Lost => {
                assert!(error.to_string().contains("memory"), "{error:?}");
                lost = Some(error);
                break;
            }
            // Not started for lack of it.
            Err(_) => killed += 1,
        }
    }
    println!("out of memory: {fine} commands fine, {killed} killed, then {lost:?}");
    assert!(killed > 0 || lost.is_some(), "memory did not run out");
    // Again if it says that it takes longer, which it does on an emulated machine.
    let deadline = Instant::now() + host::PATIENCE;
    while let Err(error) = sandbox.close().await {
        assert!(Instant::now() < deadline, "{error}");
    }
}

#[tokio::test]
async fn an_init_that_memory_ran_out_for_says_so() {
    let _turn = host::alone().await;
    // Whether cgroups are granted.
    let Some(sandbox) = with_memory(64 << 20).await else {
        return;
    };
    sandbox.close().await.expect("close");
    let state = host::public_dir();
    init_is_out_of_memory(&host::provider(state.path())).await;
}

#[tokio::test]
async fn a_full_disk_is_an_error_and_the_sandbox_goes_on() {
    let _turn = host::alone().await;
    let resources = Resources::new().disk(32 << 20);
    let sandbox = support::create(SandboxSpec::new().resources(resources)).await;
    host::equip(&sandbox).await;
    let found = host::inside(&sandbox, "bombs", &["fill", "1073741824", "filled"]).await;
    assert_eq!(found.get("fill"), "ENOSPC");
    assert!(found.number("written") < 32 << 20, "{found:?}");
    let error = sandbox
        .write("more", vec![1; 4 << 20])
        .await
        .expect_err("full");
    assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
    assert_eq!(support::sh(&sandbox, "echo alive").await, "alive\n");
    sandbox.remove_all("filled").await.expect("remove");
    sandbox.write("more", "fits").await.expect("room again");
    let shm = host::inside(
        &sandbox,
        "bombs",
        &["fill", "1073741824", "/dev/shm/filled"],
    )
    .await;
    assert_eq!(
        shm.get("fill"),
        "ENOSPC",
        "/dev/shm is limited without being asked"
    );
    support::sh(&sandbox, "rm /dev/shm/filled").await;
    // Files without content take no room, and still there can't be any number of them.
    for (limit, dir) in [("40000", "/workspace"), ("140000", "/dev/shm")] {
        let command = host::command("bombs", &["inodes", limit]).cwd(dir);
        let found = host::findings(&sandbox.exec(command).await.expect("its end"));
        assert_eq!(found.get("inodes"), "ENOSPC", "{dir}: {found:?}");
        sandbox
            .remove_all(format!("{dir}/inodes"))
            .await
            .expect("remove");
    }
    assert_eq!(support::sh(&sandbox, "echo alive").await, "alive\n");
    sandbox.close().await.expect("close");
}
