//! Kernel objects that more than one sandbox, or the host, has to live with.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use sandbox_core::{EgressPolicy, EgressRule, Mount, Network, Provider as _, SandboxSpec};

use crate::{host, support};

#[tokio::test]
async fn only_the_netlink_that_lists_interfaces_is_there() {
    let _turn = host::shared().await;
    let control = host::outside::<&str>("objects", &[]);
    let sandbox = host::guest().await;
    let found = host::inside::<&str>(&sandbox, "objects", &[]).await;
    assert_eq!(found.get("netlink_route"), "ok");
    let others = [
        "usersock",
        "inet_diag",
        "xfrm",
        "audit",
        "fib_lookup",
        "netfilter",
        "uevent",
        "generic",
        "crypto",
        "high",
    ];
    let real = |name: &&&str| control.get(&format!("netlink_{name}")) == "ok";
    assert!(
        others.iter().filter(real).count() > 2,
        "no control: {control:?}"
    );
    assert_eq!(control.get("netlink_uevent"), "ok", "no control");
    for name in others {
        assert_eq!(
            found.get(&format!("netlink_{name}")),
            "EPROTONOSUPPORT",
            "{name}"
        );
    }
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn what_is_counted_for_the_whole_machine_cannot_be_taken() {
    let _turn = host::shared().await;
    let control = host::outside::<&str>("objects", &[]);
    let sandbox = host::guest().await;
    let found = host::inside::<&str>(&sandbox, "objects", &[]).await;
    assert_eq!(control.get("io_setup"), "ok", "no control");
    assert_eq!(found.get("io_setup"), "ENOSYS");
    assert_eq!(found.get("open_tree_attr"), "EPERM");
    assert_eq!(found.get("listns"), "EPERM");
    assert_eq!(control.get("chown_own"), "ok", "no control");
    // As a user without the right gets it, whether or not the number is one of the sandbox's.
    for call in ["chown_unmapped", "chown_unmapped_group", "chown_path"] {
        assert_eq!(found.get(call), "EPERM", "{call}");
    }
    for call in ["chown_own", "chown_none"] {
        assert_eq!(found.get(call), "ok", "{call}");
    }
    assert_eq!(found.get("queues"), "ok");
    assert_eq!(found.get("watchers"), "60");
    sandbox.close().await.expect("close");
}

/// In networks that were made ahead of time, which sandboxes of root have, in those that a sandbox
/// makes by itself, and in those in which the host listens.
#[tokio::test]
async fn every_network_of_a_sandbox_answers_its_own_echo_requests() {
    let _turn = host::shared().await;
    let state = host::public_dir();
    let provider = host::provider(state.path());
    let allowed = Network::Allow(EgressPolicy::new().rule(EgressRule::exact("example.com")));
    let mut live = Vec::new();
    for network in [Network::Off, allowed] {
        // What is made ahead is used up by some of them, and made again for others.
        for _ in 0..6 {
            let spec = SandboxSpec::new().network(network.clone());
            let sandbox = provider.create(spec).await.expect("a sandbox");
            host::equip(&sandbox).await;
            let found = host::inside::<&str>(&sandbox, "objects", &[]).await;
            assert_eq!(found.get("ping"), "ok", "{network:?}");
            live.push(sandbox);
        }
    }
    support::close(live).await;
}

#[tokio::test]
async fn a_mount_for_writing_gets_neither_leases_nor_whiteouts() {
    let _turn = host::shared().await;
    let dir = tempfile::tempdir_in("/var/tmp").expect("a directory");
    let control = host::outside("objects", &[dir.path()]);
    for call in ["lease", "whiteout", "noreplace", "lock"] {
        assert_eq!(control.get(call), "ok", "no control for {call}");
    }
    let spec = SandboxSpec::new().mount(Mount::read_write(dir.path(), "/mnt"));
    let sandbox = support::create(spec).await;
    host::equip(&sandbox).await;
    let found = host::inside(&sandbox, "objects", &["/mnt"]).await;
    for (call, refused) in [
        ("lease", "EPERM"),
        ("lease_high", "EPERM"),
        ("whiteout", "EINVAL"),
        ("noreplace", "ok"),
        ("lock", "ok"),
    ] {
        assert_eq!(found.get(call), refused, "{call}");
    }
    sandbox.close().await.expect("close");
    let left: Vec<_> = fs::read_dir(dir.path()).expect("it").collect();
    assert!(left.is_empty(), "{left:?}");
}

/// The times that a guest tries to give are 1970's: those of today are of programs of this host.
#[tokio::test]
async fn the_hosts_devices_keep_their_times() {
    let _turn = host::shared().await;
    let own = tempfile::NamedTempFile::new().expect("a file");
    let control = host::outside("objects", &[Path::new("device"), own.path()]);
    assert_eq!(control.get("touch"), "ok", "no control");
    let seconds = own.as_file().metadata().expect("its times").mtime();
    assert_eq!(seconds, 0, "no control");
    let sandbox = host::guest().await;
    for device in ["null", "zero", "full", "random", "urandom", "tty"] {
        let path = format!("/dev/{device}");
        let mode = fs::metadata(&path).expect("a device").mode();
        let found = host::inside(&sandbox, "objects", &["device", &path]).await;
        assert_eq!(found.get("touch"), "EROFS", "{path}");
        let written = ["null", "zero"].contains(&device);
        assert!(!written || found.get("write") == "ok", "{path}");
        support::sh(
            &sandbox,
            &format!("chmod 0 {path}; rm -f {path}; ls {path}"),
        )
        .await;
        let now = fs::metadata(&path).expect("a device");
        assert_eq!(now.mode(), mode, "{path}");
        assert_ne!(now.mtime(), 0, "{path}");
    }
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn what_proc_says_of_the_whole_machine_is_on_a_list() {
    let _turn = host::shared().await;
    let sandbox = support::default().await;
    for file in ["cmdline", "config.gz", "interrupts", "key-users", "keys"] {
        let path = format!("/proc/{file}");
        if fs::read(&path).is_ok_and(|text| !text.is_empty()) {
            let found = support::sh(&sandbox, &format!("cat {path} | wc -c")).await;
            assert_eq!(found, "0\n", "{path}");
        }
    }
    assert!(!fs::read("/proc/cmdline").expect("a control").is_empty());
    // Programs need these.
    let needed = "cat /proc/cpuinfo /proc/meminfo /proc/stat /proc/uptime /proc/loadavg \
        /proc/filesystems /proc/version /proc/self/mounts /proc/sys/kernel/osrelease >/dev/null && \
        ls /proc/sys/kernel/random /proc/self/fd /proc/net/ | wc -l";
    let lines: u32 = support::sh(&sandbox, needed)
        .await
        .trim()
        .parse()
        .expect("a number");
    assert!(lines > 10, "{lines}");
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn what_is_mounted_for_reading_belongs_to_the_guest_as_if_for_writing() {
    let _turn = host::shared().await;
    let dir = tempfile::tempdir_in("/var/tmp").expect("a directory");
    let made = std::process::Command::new("git")
        .args(["init", "-q", "."])
        .current_dir(&dir)
        .status();
    assert!(made.expect("git").success());
    for mount in [
        Mount::read_only(dir.path(), "/repo"),
        Mount::read_write(dir.path(), "/repo"),
    ] {
        let sandbox = support::create(SandboxSpec::new().mount(mount)).await;
        let said = support::sh(&sandbox, "cd /repo && git status --short && stat -c %u .").await;
        assert_eq!(said, "1000\n");
        sandbox.close().await.expect("close");
    }
}
