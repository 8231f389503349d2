//! System calls that lead out or into the kernel (A 8, 9, 11, 13–17): each is tried outside first.

use std::sync::OnceLock;

use crate::host::{self, Findings};
use crate::support;

/// Refused by the filter whatever the rights.
const REFUSED: &[&str] = &[
    "open_tree",
    "fsopen",
    "fsconfig",
    "fsmount",
    "fspick",
    "move_mount",
    "mount_setattr",
    "umount",
    "remount",
    "bind",
    "mount",
    "mount_proc",
    "pivot_root",
    "chroot",
    "setns",
    "unshare_user",
    "unshare_again",
    "clone_user",
    "mknod_whiteout",
    "mknodat_whiteout",
    "perf_event_open",
    "userfaultfd",
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    "keyctl",
    "add_key",
    "request_key",
    "name_to_handle_at",
    "kcmp",
    "fanotify_init",
    "clock_settime",
    "tiocsti",
    "tiocsti_high",
    "bpf",
    "open_by_handle_at",
    "tioclinux",
];

/// Refused as well; outside, only root gets as far as another answer.
const REFUSED_TO_ROOT: &[&str] = &[
    "adjtimex",
    "clock_adjtime",
    "settimeofday",
    "reboot",
    "swapon",
    "swapoff",
    "acct",
    "syslog",
    "unshare_mnt",
    "unshare_net",
    "unshare_pid",
    "unshare_ipc",
    "unshare_uts",
    "unshare_cgroup",
    "mknod_block",
    "mknod_char",
    "mknodat_block",
    "mknodat_char",
];

const NOT_EVERYWHERE: &[&str] = &[
    "init_module",
    "finit_module",
    "delete_module",
    "kexec_load",
    "quotactl",
    "quotactl_fd",
    "open_tree_attr",
    "listns",
    #[cfg(target_arch = "x86_64")]
    "kexec_file_load",
    #[cfg(target_arch = "x86_64")]
    "iopl",
    #[cfg(target_arch = "x86_64")]
    "ioperm",
    #[cfg(target_arch = "x86_64")]
    "modify_ldt",
];

const FAMILIES: &[&str] = &[
    "af_alg",
    "af_vsock",
    "af_vsock_high",
    "af_packet",
    "af_key",
    "af_bluetooth",
    "af_can",
    "af_rds",
    "af_tipc",
    "af_xdp",
    "af_nfc",
];

fn control() -> &'static Findings {
    static CONTROL: OnceLock<Findings> = OnceLock::new();
    CONTROL.get_or_init(|| {
        let dir = host::public_dir();
        host::outside("calls", &[dir.path()])
    })
}

async fn guest() -> Findings {
    let _turn = host::shared().await;
    let sandbox = support::default().await;
    host::equip(&sandbox).await;
    let found = host::inside(&sandbox, "calls", &["."]).await;
    sandbox.close().await.expect("close");
    found
}

#[tokio::test]
async fn what_only_an_attacker_needs_is_refused() {
    let found = guest().await;
    for name in REFUSED {
        let outside = control().get(name);
        assert!(
            !["EPERM", "ENOSYS"].contains(&outside),
            "no control for {name}: {outside}"
        );
        assert_eq!(found.get(name), "EPERM", "{name}");
    }
    for name in REFUSED_TO_ROOT {
        let outside = control().get(name);
        // An ordinary user gets the same answer for want of a capability: that the number is right
        // is all that can be shown.
        let refused = if host::is_root() {
            &["EPERM", "ENOSYS"][..]
        } else {
            &["ENOSYS"]
        };
        assert!(
            !refused.contains(&outside),
            "no control for {name}: {outside}"
        );
        assert_eq!(found.get(name), "EPERM", "{name}");
    }
    // Not in every kernel: that the filter says so, and not the kernel, shows in the errno.
    for name in NOT_EVERYWHERE {
        assert_eq!(
            found.get(name),
            "EPERM",
            "{name}; outside {}",
            control().get(name)
        );
    }
}

#[tokio::test]
async fn a_user_namespace_cannot_be_had_by_clone3_and_programs_can_fall_back() {
    let found = guest().await;
    assert_eq!(control().get("clone3_user"), "ok");
    assert_eq!(found.get("clone3_user"), "ENOSYS");
}

#[tokio::test]
async fn socket_families_that_namespaces_do_not_cover_are_refused() {
    let found = guest().await;
    let real = FAMILIES
        .iter()
        .filter(|family| control().get(family) == "ok")
        .count();
    assert!(
        real > 0,
        "no control: this kernel has none of these families"
    );
    for family in FAMILIES {
        assert_eq!(found.get(family), "EAFNOSUPPORT", "{family}");
    }
    assert_eq!(found.get("raw_ip"), "EPERM");
    assert_eq!(
        control().get("raw_ip"),
        if host::is_root() { "ok" } else { "EPERM" }
    );
    assert_eq!(found.get("af_unix"), "ok");
}

#[tokio::test]
async fn no_device_can_be_made_and_a_fifo_can() {
    let found = guest().await;
    for call in ["mknod", "mknodat"] {
        for kind in ["fifo", "sock"] {
            assert_eq!(found.get(&format!("{call}_{kind}")), "ok");
        }
    }
    // Makes a device without mknod, where the filesystem knows how.
    assert_eq!(control().get("rename_whiteout"), "ok");
    assert_eq!(found.get("rename_whiteout"), "EINVAL");
}

#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn other_call_interfaces_do_not_get_past_the_filter() {
    let found = guest().await;
    assert_eq!(control().get("int80"), "ok");
    assert_eq!(found.get("int80"), "SIGSYS");
    // Most kernels are built without it, and then there is no control.
    assert_eq!(found.get("x32"), "ENOSYS");
}

#[tokio::test]
async fn limits_of_other_processes_cannot_be_changed() {
    let found = guest().await;
    assert_eq!(control().get("prlimit_parent"), "ok");
    assert_eq!(found.get("prlimit_parent"), "EPERM");
}
