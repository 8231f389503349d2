//! Many watches at once, which take little of what the host's user may have.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, helpers too"
)]

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::inotify;
use rustix::io::Errno;
use sandbox_core::{FileEvent, FileWatch, Provider, Sandbox, SandboxExt as _, SandboxSpec};
use sandbox_local::{LandlockConfig, LandlockProvider, LocalConfig, LocalProvider};

/// Number of watches: more than the kernel's default of instances for a user, which is 128.
const MANY: usize = 200;

/// The instances are counted for the whole process, and its user.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Number of inotify instances that this process has.
fn instances() -> usize {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
    let links = descriptors.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    links
        .filter(|link| link.as_os_str() == "anon_inode:inotify")
        .count()
}

/// Waits for an event of this path, and says whether events were lost before it.
async fn told(watch: &mut FileWatch, path: &str) -> bool {
    let waited = tokio::time::timeout(Duration::from_secs(120), async {
        let mut lost = false;
        loop {
            let events = watch.next().await.unwrap();
            lost |= events.contains(&FileEvent::Rescan);
            if events.contains(&FileEvent::Created(path.into())) {
                return lost;
            }
        }
    });
    waited
        .await
        .unwrap_or_else(|_| panic!("{path} is not told"))
}

async fn sandboxes() -> Vec<Arc<dyn Sandbox>> {
    let local = LocalProvider::new(LocalConfig::default()).unwrap();
    let fenced = LandlockProvider::new(LandlockConfig::default()).unwrap();
    let mut made = Vec::new();
    for _ in 0..2 {
        made.push(local.create(SandboxSpec::new()).await.unwrap());
        made.push(fenced.create(SandboxSpec::new()).await.unwrap());
    }
    made
}

#[tokio::test]
async fn two_hundred_watches_take_one_instance_of_the_hosts_user() {
    let _alone = ALONE.lock().await;
    let sandboxes = sandboxes().await;
    let mut watches = Vec::new();
    for number in 0..MANY {
        let sandbox = &sandboxes[number % sandboxes.len()];
        // Some watch a directory of their own, and some the same.
        let dir = format!("d{}", number % (MANY / 2));
        sandbox.create_dir_all(dir.as_str()).await.unwrap();
        watches.push(sandbox.watch_dir(dir.as_str()).await.unwrap());
    }
    assert_eq!(instances(), 1);
    for (number, watch) in watches.iter_mut().enumerate() {
        let dir = number % (MANY / 2);
        let sandbox = &sandboxes[number % sandboxes.len()];
        let name = format!("f{number}");
        sandbox
            .write(format!("d{dir}/{name}").as_str(), "")
            .await
            .unwrap();
        assert!(!told(watch, &name).await, "{number}");
    }
    // The end of one is its own alone.
    let mut last = watches.split_off(MANY - 1);
    drop(watches);
    let (sandbox, dir) = (&sandboxes[(MANY - 1) % 4], (MANY - 1) % (MANY / 2));
    sandbox
        .write(format!("d{dir}/after").as_str(), "")
        .await
        .unwrap();
    assert!(!told(&mut last[0], "after").await);
    drop(last);
    let gone = async {
        while instances() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), gone).await;
    waited.expect("the instance ends with the last watch");
    for sandbox in sandboxes {
        sandbox.close().await.unwrap();
    }
    // Control: so many instances of one user are refused, where the kernel's default is in force.
    let limit = std::fs::read_to_string("/proc/sys/fs/inotify/max_user_instances").unwrap();
    if limit.trim().parse::<usize>().unwrap() < MANY {
        let made: Result<Vec<OwnedFd>, Errno> = (0..MANY)
            .map(|_| inotify::init(inotify::CreateFlags::CLOEXEC))
            .collect();
        assert_eq!(made.unwrap_err(), Errno::MFILE);
    }
}

#[tokio::test]
async fn what_nothing_takes_holds_up_no_other_watch() {
    let _alone = ALONE.lock().await;
    let provider = LocalProvider::new(LocalConfig::default()).unwrap();
    let (noisy, quiet) = (
        provider.create(SandboxSpec::new()).await.unwrap(),
        provider.create(SandboxSpec::new()).await.unwrap(),
    );
    for sandbox in [&noisy, &quiet] {
        sandbox.create_dir_all("d").await.unwrap();
    }
    // Its events are never taken.
    let mut slow = noisy.watch_dir("d").await.unwrap();
    let mut other = quiet.watch_dir("d").await.unwrap();
    let script = "echo; while :; do for i in 1 2 3 4 5 6 7 8 9; do : > d/$i; done; rm -f d/*; done";
    let process = noisy
        .spawn(sandbox_core::Command::shell(script))
        .await
        .unwrap();
    for number in 0..100 {
        let name = format!("f{number}");
        quiet.write(format!("d/{name}").as_str(), "").await.unwrap();
        // On a machine that is very busy the kernel may have dropped it, which every watch is told.
        told_or_lost(&mut other, &name).await;
    }
    process.kill().await.unwrap();
    noisy.write("d/last", "").await.unwrap();
    told_or_lost(&mut slow, "last").await;
    for sandbox in [noisy, quiet] {
        sandbox.close().await.unwrap();
    }
}

/// Waits for an event of this path, or for the word that everything is to be looked at.
async fn told_or_lost(watch: &mut FileWatch, path: &str) {
    let waited = tokio::time::timeout(Duration::from_secs(120), async {
        loop {
            let events = watch.next().await.unwrap();
            if events.contains(&FileEvent::Rescan)
                || events.contains(&FileEvent::Created(path.into()))
            {
                return;
            }
        }
    });
    waited.await.expect("what happened is told");
}
