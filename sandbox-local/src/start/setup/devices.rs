//! `/dev`: read-only, with six harmless devices of the host, pseudoterminals and shared memory of
//! the sandbox's own.
//!
//! Root makes a tmpfs with the devices once, which all its sandboxes mount. An ordinary user can't
//! make a device: a tmpfs for each sandbox then, with a mount for each device. Must never let
//! through what is not on the list.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::LazyLock;

use sandbox_core::Resources;

use super::inputs::Setup;
use super::root::{self, ATTR_NODEV, ATTR_NOEXEC, ATTR_NOSUID, ATTR_RDONLY};
use crate::engine::{Dir, Plan, Slot};
use crate::mutation::{self, Part};
use crate::start::dev::{self, DEVICES, DIRECTORIES, LINKS, MQUEUE, PTS, SHM};
use crate::start::failure::SetupError;

/// Limit of shared memory, in bytes. It counts towards a limit on memory, of which half is
/// left to programs: with all of it in files nothing could be started to remove them.
fn shared_memory(resources: &Resources) -> u64 {
    const MOST: u64 = 512 << 20;
    resources
        .memory
        .map_or(MOST, |limit| MOST.min(limit / 2).max(4096))
}

/// Limit of files in shared memory: without content they take no room, but memory of the
/// kernel's.
const SHARED_FILES: &str = "131072";

/// Filesystems and devices, held before the host is let go.
pub(super) struct Held {
    base: Base,
    pts: Slot,
    shm: Slot,
    /// The queues of the sandbox's own, where the kernel has any.
    mqueue: Option<Slot>,
}

/// Whether the kernel has POSIX message queues.
static HAS_QUEUES: LazyLock<bool> = LazyLock::new(|| {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let known = known.split_whitespace().any(|word| word == MQUEUE);
    // The host's namespace has them already, and is not the sandbox's to mount.
    known && !mutation::is_off(Part::Ipc)
});

enum Base {
    /// Root's.
    Shared(Slot),
    /// A tmpfs of its own, and what is to be mounted in it.
    Each(Slot, Vec<(&'static str, Slot)>),
}

pub(super) fn hold(plan: &mut Plan, setup: &Setup<'_>) -> Result<Held, SetupError> {
    let plain = (ATTR_NOSUID | ATTR_NOEXEC) as u32;
    let no_devices = (ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC) as u32;
    let pts_options = [("ptmxmode", "0666"), ("mode", "0620"), ("max", "64")];
    let shared_memory = shared_memory(setup.blueprint.resources()).to_string();
    let shm_options = [
        ("mode", "1777"),
        ("size", shared_memory.as_str()),
        ("nr_inodes", SHARED_FILES),
    ];
    let base = match setup.devices {
        Some(tmpfs) => Base::Shared(hold_shared(plan, tmpfs)?),
        None => hold_each(plan, plain),
    };
    Ok(Held {
        base,
        pts: root::filesystem(plan, "devpts", &pts_options, plain),
        shm: root::filesystem(plan, "tmpfs", &shm_options, no_devices),
        mqueue: HAS_QUEUES.then(|| root::filesystem(plan, MQUEUE, &[], no_devices)),
    })
}

fn hold_shared(plan: &mut Plan, tmpfs: BorrowedFd<'_>) -> Result<Slot, SetupError> {
    let tree = dev::clone(tmpfs).map_err(|errno| SetupError::Hold {
        host: "/dev".into(),
        errno,
    })?;
    let tree = plan.inherit(tree);
    let read_only = if mutation::is_off(Part::Devices) {
        0
    } else {
        ATTR_RDONLY
    };
    plan.mount_setattr(
        "restrict the mount of the devices",
        Dir::Slot(tree),
        "",
        libc::AT_EMPTY_PATH,
        read_only | ATTR_NOSUID | ATTR_NOEXEC,
        0,
        libc::MS_PRIVATE,
    );
    Ok(tree)
}

fn hold_each(plan: &mut Plan, attributes: u32) -> Base {
    let clone = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    let devices = DEVICES
        .iter()
        .map(|name| {
            let path = format!("/dev/{name}");
            let label = format!("take hold of {path}");
            (*name, plan.open_tree(label, Dir::Cwd, path, clone).result())
        })
        .collect();
    let options = [("mode", "0755"), ("size", "65536"), ("nr_inodes", "64")];
    Base::Each(
        root::filesystem(plan, "tmpfs", &options, attributes),
        devices,
    )
}

pub(super) fn place(plan: &mut Plan, held: Held) {
    let fill = matches!(held.base, Base::Each(..));
    match held.base {
        Base::Shared(tree) => root::attach(plan, tree, Path::new("/dev"), "/dev"),
        Base::Each(tmpfs, devices) => place_each(plan, tmpfs, devices),
    }
    if fill {
        for name in DIRECTORIES {
            let path = format!("/dev/{name}");
            plan.mkdir(format!("make {path}"), Dir::Cwd, &path, 0o755);
        }
        if mutation::is_off(Part::Devices) {
            return mount_points(plan, held.pts, held.shm, held.mqueue);
        }
        // With the host's devices that are mounted in it, whose times a guest must not change; a
        // device is written all the same.
        plan.mount_setattr(
            "make /dev read-only",
            Dir::Cwd,
            "/dev",
            libc::AT_RECURSIVE,
            ATTR_RDONLY,
            0,
            0,
        );
    }
    mount_points(plan, held.pts, held.shm, held.mqueue);
}

fn mount_points(plan: &mut Plan, pts: Slot, shm: Slot, mqueue: Option<Slot>) {
    let queues = mqueue.map(|tree| (MQUEUE, tree));
    for (name, tree) in [(PTS, pts), (SHM, shm)].into_iter().chain(queues) {
        let path = format!("/dev/{name}");
        root::attach(plan, tree, Path::new(&path), &path);
    }
}

fn place_each(plan: &mut Plan, tmpfs: Slot, devices: Vec<(&'static str, Slot)>) {
    root::attach(plan, tmpfs, Path::new("/dev"), "/dev");
    for (name, device) in devices {
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
        let path = format!("/dev/{name}");
        plan.symlink(format!("link {path}"), target, Dir::Cwd, path);
    }
}
