//! `/dev`: a read-only tmpfs with six harmless devices of the host, pseudoterminals and shared
//! memory of the sandbox's own.

use std::path::Path;

use sandbox_core::Resources;

use super::root::{self, ATTR_NODEV, ATTR_NOEXEC, ATTR_NOSUID, ATTR_RDONLY};
use crate::engine::{Dir, Plan, Slot};

const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty"];

const LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// What shared memory may hold, in bytes. It counts towards a limit on memory, of which half is
/// left to programs: with all of it in files nothing could be started to remove them.
fn shared_memory(resources: &Resources) -> u64 {
    const MOST: u64 = 512 << 20;
    resources
        .memory
        .map_or(MOST, |limit| MOST.min(limit / 2).max(4096))
}

/// Filesystems and devices, held before the host is let go.
pub(super) struct Held {
    dev: Slot,
    pts: Slot,
    shm: Slot,
    devices: Vec<(&'static str, Slot)>,
}

pub(super) fn hold(plan: &mut Plan, resources: &Resources) -> Held {
    let clone = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    let devices = DEVICES
        .iter()
        .map(|name| {
            let path = format!("/dev/{name}");
            let label = format!("take hold of {path}");
            (*name, plan.open_tree(label, Dir::Cwd, path, clone).result())
        })
        .collect();
    let plain = (ATTR_NOSUID | ATTR_NOEXEC) as u32;
    let no_devices = (ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC) as u32;
    let dev_options = [("mode", "0755"), ("size", "65536"), ("nr_inodes", "64")];
    let pts_options = [("ptmxmode", "0666"), ("mode", "0620"), ("max", "64")];
    let shared_memory = shared_memory(resources).to_string();
    let shm_options = [("mode", "1777"), ("size", shared_memory.as_str())];
    Held {
        dev: root::filesystem(plan, "tmpfs", &dev_options, plain),
        pts: root::filesystem(plan, "devpts", &pts_options, plain),
        shm: root::filesystem(plan, "tmpfs", &shm_options, no_devices),
        devices,
    }
}

pub(super) fn place(plan: &mut Plan, held: Held) {
    root::attach(plan, held.dev, Path::new("/dev"), "/dev");
    for (name, device) in held.devices {
        let path = format!("/dev/{name}");
        plan.mknod(
            format!("make {path}"),
            Dir::Cwd,
            &path,
            libc::S_IFREG | 0o666,
            0,
        );
        root::attach(plan, device, Path::new(&path), &path);
    }
    for (name, target) in LINKS {
        plan.symlink(
            format!("link /dev/{name}"),
            target,
            Dir::Cwd,
            format!("/dev/{name}"),
        );
    }
    for (name, tree) in [("/dev/pts", held.pts), ("/dev/shm", held.shm)] {
        plan.mkdir(format!("make {name}"), Dir::Cwd, name, 0o755);
        root::attach(plan, tree, Path::new(name), name);
    }
    plan.mount_setattr(
        "make /dev read-only",
        Dir::Cwd,
        "/dev",
        0,
        ATTR_RDONLY,
        0,
        0,
    );
}
