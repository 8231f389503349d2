//! Cost of a sandbox, which must not grow with its host's memory: nothing here forks the host.
//!
//! Counted, not timed. A fork marks every page of the host as shared, and the host pays for that
//! with a page fault at each one's next write.
#![cfg(target_os = "linux")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, helpers too"
)]

mod support;

use std::os::unix::process::CommandExt as _;

use sandbox_core::{Command, FileBatch, Provider, SandboxExt, SandboxSpec};
use support::{provider, sh, state};

const PAGE: usize = 4096;
const PAGES: usize = 16_384;

/// Page faults of this thread so far that needed no disk.
fn faults() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("its own status");
    // The name, in parentheses, may contain anything.
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    let field = fields.split_whitespace().nth(7).expect("a tenth field");
    field.parse().expect("a number")
}

/// Writes to every page; how many faults that took.
fn touch(ballast: &mut [u8]) -> u64 {
    let before = faults();
    for page in ballast.chunks_mut(PAGE) {
        page[0] = page[0].wrapping_add(1);
    }
    faults() - before
}

#[tokio::test]
async fn no_operation_forks_the_host() {
    let mut ballast = vec![1_u8; PAGES * PAGE];
    touch(&mut ballast);
    // The control: a user to change to makes the standard library fork.
    let forked = std::process::Command::new("/bin/true")
        .uid(rustix::process::geteuid().as_raw())
        .status();
    assert!(forked.expect("it starts").success());
    let cost_of_a_fork = touch(&mut ballast);
    assert!(cost_of_a_fork > 16, "a fork is seen: {cost_of_a_fork}");

    let state = state();
    let provider = provider(state.path());
    let sandbox = provider
        .create(SandboxSpec::new())
        .await
        .expect("a sandbox");
    sh(&sandbox, "echo hello > file").await;
    let spawned = sandbox.spawn(Command::new("/bin/true")).await;
    spawned.expect("it starts").wait().await.expect("it ends");
    let batch = (0..100).fold(FileBatch::new(), |batch, n| {
        batch.file(format!("batch/{n}"), "x")
    });
    sandbox.write_files(batch).await.expect("it writes");
    sandbox.read("file").await.expect("it reads");
    let fork = sandbox.fork_one().await.expect("a fork");
    sh(&fork, "cat file").await;
    sh(&sandbox, "cat file").await;
    sandbox.isolation().await.expect("a report");
    fork.close().await.expect("it closes");
    sandbox.close().await.expect("it closes");
    let cost = touch(&mut ballast);
    assert!(
        cost < cost_of_a_fork / 4,
        "{cost} faults; a fork costs {cost_of_a_fork}"
    );
}
