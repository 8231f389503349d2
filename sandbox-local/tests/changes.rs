//! Changes of the local backend: what the kit can't see.
#![cfg(target_os = "linux")]
#![allow(clippy::expect_used, clippy::panic)]

mod support;

use sandbox_core::{
    Change, Changes, ChangesOptions, Command, ErrorKind, FileBatch, Mount, Resources, Sandbox,
    SandboxExt as _, SandboxSpec, Usage,
};
use sandbox_transfer::changes::{ApplyOptions, apply_to_sandbox, changes_between};
use support::{create, default, sh};

async fn paths(sandbox: &dyn Sandbox, dir: &str) -> Vec<String> {
    let changes = sandbox.changes_in(dir).await.expect("compared");
    changes
        .entries
        .iter()
        .map(|change| change.path.to_string())
        .collect()
}

#[tokio::test]
async fn a_mount_of_the_host_is_named_or_refused() {
    let host = tempfile::tempdir().expect("a directory");
    let sandbox =
        create(SandboxSpec::new().mount(Mount::read_write(host.path(), "/mnt/host"))).await;
    sandbox.write("/mnt/host/f", "x").await.expect("written");
    sandbox.write("/mnt/other", "x").await.ok();
    let changes = sandbox.changes_in("/mnt").await.expect("compared");
    assert_eq!(changes.skipped.len(), 1, "{changes:?}");
    assert_eq!(changes.skipped[0].path.to_string(), "host");
    assert!(changes.get("host/f").is_none());
    let refused = sandbox.changes_in("/mnt/host").await.expect_err("a mount");
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    sandbox.close().await.expect("closed");
}

#[tokio::test]
async fn what_a_limited_disk_holds_is_compared_too() {
    let spec = SandboxSpec::new().resources(Resources::new().disk(64 << 20));
    let sandbox = create(spec).await;
    sandbox.write("d/f", "1").await.expect("written");
    assert_eq!(paths(&*sandbox, ".").await, ["d", "d/f"]);
    let fork = sandbox.fork_one().await.expect("a fork");
    assert_eq!(paths(&*fork, ".").await, Vec::<String>::new());
    fork.write("d/g", "2").await.expect("written");
    assert_eq!(paths(&*fork, ".").await, ["d/g"]);
    fork.close().await.expect("closed");
    sandbox.close().await.expect("closed");
}

/// The system's own files are a beginning too.
#[tokio::test]
async fn files_of_the_base_layer_are_compared() {
    let sandbox = default().await;
    sh(
        &sandbox,
        "mkdir -p ~/.config; echo x > ~/.config/f; echo x > /tmp/t",
    )
    .await;
    assert_eq!(
        paths(&*sandbox, "/home/sandbox").await,
        [".config", ".config/f"]
    );
    assert_eq!(paths(&*sandbox, "/tmp").await, ["t"]);
    assert_eq!(paths(&*sandbox, "/usr").await, Vec::<String>::new());
    sandbox.close().await.expect("closed");
}

/// A sparse file of a guest costs the host nothing but an error.
#[tokio::test]
async fn a_huge_file_is_an_error_and_costs_nothing() {
    let sandbox = default().await;
    let fork = sandbox.fork_one().await.expect("a fork");
    sh(&fork, "truncate -s 1T huge").await;
    let error = fork.changes_in(".").await.expect_err("too much");
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    let without = ChangesOptions::new().contents(false);
    let changes = fork.changes(&".".into(), without).await.expect("compared");
    assert_eq!(changes.entries.len(), 1);
    fork.close().await.expect("closed");
    sandbox.close().await.expect("closed");
}

/// The comparison of two sandboxes, for backends that keep no beginning, tells the same.
#[tokio::test]
async fn both_ways_to_compare_tell_the_same() {
    let parent = default().await;
    let batch = FileBatch::new()
        .file("p/a", "1")
        .file("p/b", "2")
        .file("p/d/c", "3");
    parent.write_files(batch).await.expect("written");
    let fork = parent.fork_one().await.expect("a fork");
    sh(
        &fork,
        "cd p; echo 4 > a; rm b; mv d e; chmod 700 .; ln -s a l; mkdir empty; touch e/c",
    )
    .await;
    let own = fork.changes_in("p").await.expect("compared");
    let options = ChangesOptions::new();
    let path = "p".into();
    let other = changes_between(&*parent, &*fork, &path, &options)
        .await
        .expect("compared");
    assert_eq!(own.entries, other.entries);
    // And into the parent, which then has what the fork has.
    let report = apply_to_sandbox(&own, &*parent, &path, &ApplyOptions::new())
        .await
        .expect("applied");
    assert_eq!(
        (report.conflicts.len(), report.left_out.len()),
        (0, 0),
        "{report:?}"
    );
    let now = changes_between(&*parent, &*fork, &path, &options)
        .await
        .expect("compared");
    assert_eq!(now.entries, []);
    let again = apply_to_sandbox(&own, &*parent, &path, &ApplyOptions::new())
        .await
        .expect("applied");
    assert_eq!(again.applied, []);
    fork.close().await.expect("closed");
    parent.close().await.expect("closed");
}

/// As on the host: no link of the target is followed, and nothing else is taken away.
#[tokio::test]
async fn what_a_sandbox_has_in_the_way_is_a_conflict() {
    let parent = default().await;
    sh(
        &parent,
        "mkdir -p p/d p/elsewhere; echo 1 > p/d/a; echo 2 > p/f",
    )
    .await;
    let fork = parent.fork_one().await.expect("a fork");
    sh(
        &fork,
        "cd p; rm -r d; echo 3 > d; rm f; mkdir f; echo 4 > f/x",
    )
    .await;
    let changes = fork.changes_in("p").await.expect("compared");
    for (in_the_way, path, reason) in [
        ("echo theirs > d/b", "d", "something else in it"),
        ("rm d/b f; ln -s elsewhere f", "f", "another kind"),
    ] {
        sh(&parent, &format!("cd p; {in_the_way}")).await;
        let options = ApplyOptions::new();
        let report = apply_to_sandbox(&changes, &*parent, &"p".into(), &options).await;
        let report = report.expect("compared");
        let found = report.conflicts.iter();
        let found: Vec<_> = found
            .filter(|conflict| conflict.path == path.into())
            .collect();
        assert_eq!(found.len(), 1, "{report:?}");
        assert!(found[0].reason.contains(reason), "{report:?}");
        assert_eq!(sh(&parent, "cat p/d/a; ls -A p/elsewhere").await, "1\n");
    }
    let below = Change::new(
        "f/y",
        None,
        changes.entries.last().and_then(|last| last.after.clone()),
    );
    let below = Changes::new("/workspace/p").entries(vec![below]);
    let report = apply_to_sandbox(&below, &*parent, &"p".into(), &ApplyOptions::new()).await;
    let report = report.expect("compared");
    assert_eq!(report.conflicts.len(), 1, "a link is followed: {report:?}");
    fork.close().await.expect("closed");
    parent.close().await.expect("closed");
}

#[tokio::test]
async fn usage_is_of_the_whole_sandbox() {
    let sandbox = default().await;
    let burn = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
    sh(&sandbox, burn).await;
    let used = |usage: &Usage| usage.cpu.expect("known").as_millis();
    let usage = sandbox.usage().await.expect("known");
    assert!(used(&usage) >= 10, "{usage:?}");
    assert_eq!(usage.memory_peak, None, "nothing counts it");
    assert_eq!((usage.network_sent, usage.network_received), (None, None));
    // What was used before a fork renewed the run is not forgotten.
    let fork = sandbox.fork_one().await.expect("a fork");
    sh(&sandbox, "true").await;
    support::until("the old run is counted", async || {
        let now = sandbox.usage().await.expect("known");
        (used(&now) >= used(&usage)).then_some(())
    })
    .await;
    let hold = Command::shell("printf x > begun; exec sleep 60");
    let process = sandbox.spawn(hold).await.expect("started");
    support::until("it runs", async || {
        sandbox.exists("begun").await.expect("asked").then_some(())
    })
    .await;
    let usage = sandbox.usage().await.expect("known");
    assert_eq!(usage.processes, Some(1), "{usage:?}");
    process.kill().await.expect("killed");
    fork.close().await.expect("closed");
    sandbox.close().await.expect("closed");
}
