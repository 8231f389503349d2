//! Lasting sandboxes: taken up by another provider and after a host that was killed at any moment.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, helpers too; a child process answers on stdout"
)]

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sandbox_core::{
    Env, ErrorKind, Labels, Provider, Resources, Sandbox, SandboxExt as _, SandboxId, SandboxSpec,
    SandboxStatus, SnapshotOptions, Source,
};
use sandbox_local::LocalProvider;
use support::{STATE, provider, sh, state, until};

fn lasting() -> SandboxSpec {
    SandboxSpec::new().lasting(true)
}

/// Directories of providers and of lasting sandboxes.
fn directories(state: &Path, start: &str) -> usize {
    let entries = fs::read_dir(state).unwrap().flatten();
    let names = entries.map(|entry| entry.file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(start)).count()
}

/// Attaches once the holder before, in this process, has let go.
async fn attach(provider: &LocalProvider, id: &SandboxId) -> Arc<dyn Sandbox> {
    provider.attach(id).await.unwrap()
}

async fn statuses(provider: &LocalProvider) -> Vec<SandboxStatus> {
    let found = provider.list(&Labels::new()).await.unwrap();
    found.iter().map(|info| info.status).collect()
}

#[tokio::test]
async fn another_provider_takes_it_up_when_nothing_has_it_open() {
    let dir = state();
    let (first, second) = (provider(dir.path()), provider(dir.path()));
    let sandbox = first.create(lasting().label("user", "ada")).await.unwrap();
    let id = sandbox.info().id;
    sh(
        &sandbox,
        "mkdir -p d && echo one > d/f && chmod 700 d && mkfifo p && ln -s d/f l",
    )
    .await;
    assert_eq!(statuses(&second).await, [SandboxStatus::OpenElsewhere]);
    // In another process it would be refused at once; this one is given the time to let go.
    let error = second.attach(&id).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    assert!(
        error.to_string().contains("this process still has it open"),
        "{error}"
    );
    drop(sandbox);
    let sandbox = attach(&second, &id).await;
    assert_eq!(
        sh(&sandbox, "cat l && stat -c '%n %F %a' d p").await,
        "one\nd directory 700\np fifo 644\n"
    );
    assert_eq!(statuses(&first).await, [SandboxStatus::OpenElsewhere]);
    assert_eq!(sandbox.info().labels["user"], "ada");
    sandbox.close().await.unwrap();
    drop(sandbox);
    assert!(first.list(&Labels::new()).await.unwrap().is_empty());
    until("its directory is gone", async || {
        (directories(dir.path(), "k-") == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_chain_of_layers_that_was_merged_is_taken_up() {
    let dir = state();
    let own = provider(dir.path());
    let sandbox = own.create(lasting()).await.unwrap();
    let id = sandbox.info().id;
    let mut fork = None;
    for n in 0..60 {
        sandbox.write(format!("f{n}"), n.to_string()).await.unwrap();
        sandbox.write("last", n.to_string()).await.unwrap();
        // Freezes what was written, and renews the run with the next write.
        fork = Some(sandbox.fork_one().await.unwrap());
    }
    drop((sandbox, fork));
    let sandbox = attach(&own, &id).await;
    assert_eq!(sandbox.read_to_string("last").await.unwrap(), "59");
    assert_eq!(
        sh(&sandbox, "ls | wc -l && cat f0 f30 f59").await,
        "61\n03059"
    );
    let layers = dir.path().join(format!("k-{id}/layers"));
    until("no layer is left that it has not", async || {
        (fs::read_dir(&layers).unwrap().count() < 60).then_some(())
    })
    .await;
    sandbox.close().await.unwrap();
}

#[tokio::test]
async fn what_can_not_last_is_refused() {
    let dir = state();
    let own = provider(dir.path());
    let spec = lasting().resources(Resources::new().disk(1 << 20));
    let error = own.create(spec).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert_eq!(directories(dir.path(), "k-"), 0);
    for id in [
        "../../etc",
        "",
        "k-0",
        "0123456789abcdef",
        "0123456789abcdeg",
    ] {
        let error = own.attach(&SandboxId::new(id)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{id}: {error}");
    }
}

#[tokio::test]
async fn an_environment_that_could_not_be_read_again_is_refused_and_nothing_is_lost() {
    let dir = state();
    let provider = provider(dir.path());
    let large = || Env::new().set("LARGE", "x".repeat(20 << 20));
    let spec = lasting().env("LARGE", "x".repeat(20 << 20));
    let refused = provider.create(spec).await.map(drop).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::LimitExceeded, "{refused}");
    assert_eq!(statuses(&provider).await, []);
    let sandbox = provider.create(lasting()).await.unwrap();
    let id = sandbox.info().id;
    sandbox.write("f", "kept").await.unwrap();
    sandbox
        .set_env(Env::new().set("SMALL", "value"))
        .await
        .unwrap();
    let refused = sandbox.set_env(large()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::LimitExceeded, "{refused}");
    assert_eq!(refused.sandbox(), Some(&id));
    drop(sandbox);
    let sandbox = attach(&provider, &id).await;
    assert_eq!(
        sh(&sandbox, "cat f; printf %s $SMALL$LARGE").await,
        "keptvalue"
    );
    // Values are no part of what is shown of a sandbox, in letters or as numbers.
    let shown = format!("{sandbox:?}");
    let numbers = format!("{:?}", b"value");
    assert!(
        !shown.contains("value\"") && !shown.contains(&numbers),
        "{shown}"
    );
}

#[tokio::test]
async fn the_record_has_no_secret_and_is_the_hosts_users_alone() {
    let dir = state();
    let own = provider(dir.path());
    let sandbox = own
        .create(lasting().secret("TOKEN", "t0ps3cret"))
        .await
        .unwrap();
    sandbox
        .set_env(Env::new().secret("OTHER", "t0ps3cret").set("PLAIN", "here"))
        .await
        .unwrap();
    let record = dir.path().join(format!("k-{}/kept", sandbox.info().id));
    let text = fs::read_to_string(&record).unwrap();
    assert!(
        !text.contains("t0ps3cret") && !text.contains("TOKEN"),
        "{text}"
    );
    let bytes = format!("{:?}", b"t0ps3cret").replace(' ', "");
    assert!(
        !text
            .replace(' ', "")
            .contains(bytes.trim_matches(['[', ']'])),
        "{text}"
    );
    assert_eq!(
        fs::metadata(&record).unwrap().permissions().mode() & 0o777,
        0o600
    );
    sandbox.close().await.unwrap();
}

#[tokio::test]
async fn a_snapshot_that_a_lasting_sandbox_lies_on_is_not_deleted() {
    let dir = state();
    let own = provider(dir.path());
    let base = own.create(SandboxSpec::new()).await.unwrap();
    base.write("f", "below").await.unwrap();
    let snapshot = base.snapshot(SnapshotOptions::new()).await.unwrap().id;
    base.close().await.unwrap();
    let spec = lasting().source(Source::Snapshot(snapshot.clone()));
    let sandbox = own.create(spec).await.unwrap();
    let id = sandbox.info().id;
    sandbox.write("g", "above").await.unwrap();
    drop(sandbox);
    let error = own.delete_snapshot(&snapshot).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    let sandbox = attach(&own, &id).await;
    assert_eq!(sh(&sandbox, "cat f g").await, "belowabove");
    sandbox.close().await.unwrap();
    drop(sandbox);
    own.delete_snapshot(&snapshot).await.unwrap();
}

#[tokio::test]
async fn one_whose_time_has_passed_is_collected_and_no_other() {
    let dir = state();
    let own = provider(dir.path());
    let ttl = Duration::from_secs(3600);
    let mut ids = Vec::new();
    for spec in [lasting().ttl(ttl), lasting().ttl(ttl), lasting()] {
        ids.push(own.create(spec).await.unwrap().info().id);
    }
    until("all are stopped", async || {
        let all = [SandboxStatus::Stopped; 3];
        (statuses(&own).await == all).then_some(())
    })
    .await;
    // The first was used longer ago than that; the last may stay for ever.
    for (id, age) in ids.iter().zip([3 * ttl, ttl, 3 * ttl]) {
        let lease = dir.path().join(format!("k-{id}/lease"));
        let lease = fs::File::options().write(true).open(lease).unwrap();
        lease.set_modified(SystemTime::now() - age).unwrap();
    }
    let next = provider(dir.path());
    until("the first is collected", async || {
        (directories(dir.path(), "k-") == 2).then_some(())
    })
    .await;
    let error = next.attach(&ids[0]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    for id in &ids[1..] {
        attach(&next, id).await.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_damaged_record_is_an_error_and_nothing_is_collected() {
    let dir = state();
    let own = provider(dir.path());
    let sandbox = own.create(lasting()).await.unwrap();
    let id = sandbox.info().id;
    drop(sandbox);
    until("it is stopped", async || {
        (statuses(&own).await == [SandboxStatus::Stopped]).then_some(())
    })
    .await;
    let record = dir.path().join(format!("k-{id}/kept"));
    let whole = fs::read(&record).unwrap();
    fs::write(&record, &whole[..whole.len() / 2]).unwrap();
    let error = own.attach(&id).await.unwrap_err();
    assert!(error.to_string().contains("record"), "{error}");
    assert!(own.list(&Labels::new()).await.unwrap().is_empty());
    drop(provider(dir.path()));
    fs::write(&record, &whole).unwrap();
    attach(&own, &id).await.close().await.unwrap();
}

/// Work of a host that is killed in the middle of it.
#[tokio::test]
#[ignore = "the host that another test kills"]
async fn host_that_is_killed() {
    let state = std::env::var_os(STATE).expect("a state directory");
    let own = provider(Path::new(&state));
    println!("begun");
    let sandbox = own.create(lasting()).await.unwrap();
    println!("id {}", sandbox.info().id);
    for n in 1_u32.. {
        sandbox.write("n", n.to_string()).await.unwrap();
        sandbox
            .set_env(Env::new().set("N", n.to_string()))
            .await
            .unwrap();
        if n % 3 == 0 {
            // Freezes, and renews with the next write.
            drop(sandbox.fork_one().await.unwrap());
        }
        println!("n {n}");
    }
}

#[tokio::test]
async fn a_host_that_is_killed_at_any_moment_leaves_it_whole_or_collected() {
    let dir = state();
    let rounds: u64 = std::env::var("SANDBOX_LASTING_KILLS").map_or(8, |n| n.parse().unwrap());
    let mut whole = 0;
    for round in 0..rounds {
        let mut host = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "host_that_is_killed", "--ignored", "--nocapture"])
            .env(STATE, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(host.stdout.take().unwrap())
            .lines()
            .map(Result::unwrap);
        // Some while it is being created, the others later and later.
        let wait_for = if round % 4 == 0 { "begun" } else { "id " };
        let mut seen: Vec<String> = Vec::new();
        for line in lines.by_ref() {
            let is_it = line.starts_with(wait_for);
            seen.push(line);
            if is_it {
                break;
            }
        }
        let moment = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 57;
        tokio::time::sleep(Duration::from_millis(moment)).await;
        host.kill().unwrap();
        host.wait().unwrap();
        seen.extend(lines);
        let last = |name: &str| {
            let found = seen.iter().rev().find_map(|line| line.strip_prefix(name));
            found.map(str::to_owned)
        };
        let next = provider(dir.path());
        let listed = next.list(&Labels::new()).await.unwrap();
        if let Some(id) = last("id ") {
            assert_eq!(listed.len(), 1, "{seen:?}");
            assert_eq!(listed[0].id.as_str(), id);
        }
        for info in &listed {
            assert_eq!(info.status, SandboxStatus::Stopped);
            let sandbox = attach(&next, &info.id).await;
            whole += 1;
            if let Some(n) = last("n ") {
                let acknowledged: u32 = n.parse().unwrap();
                let file: u32 = sandbox.read_to_string("n").await.unwrap().parse().unwrap();
                let env: u32 = sh(&sandbox, "printf %s \"$N\"").await.parse().unwrap();
                assert!(
                    file >= acknowledged && file <= acknowledged + 1,
                    "{file} of {n}"
                );
                assert!(
                    env >= acknowledged && env <= acknowledged + 1,
                    "{env} of {n}"
                );
            }
            sandbox.write("n", "after").await.unwrap();
            sandbox.close().await.unwrap();
        }
        until("nothing is left", async || {
            let left = directories(dir.path(), "k-") + directories(dir.path(), "new-");
            (left == 0 && directories(dir.path(), "p-") == 1).then_some(())
        })
        .await;
    }
    assert!(whole >= rounds / 2, "only {whole} of {rounds} were created");
}
