//! The root: an overlay, with the host's system directories over it.
//!
//! References: mount_namespaces(7), pivot_root(2), open_tree(2), move_mount(2), mount_setattr(2),
//! Documentation/filesystems/overlayfs.rst.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;
use sandbox_core::GuestPath;

use super::inputs::{Setup, Upper};
use crate::engine::{Arg, Dir, Plan, Slot};
use crate::layers::IMAGES;
use crate::mutation::{self, Part};
use crate::start::failure::SetupError;
use crate::start::idmap::IdmapError;
use crate::start::mounts::Bind;

/// Relative to the layers' directory: empty on disk, the root of every sandbox in its own mount
/// namespace.
const MOUNT: &str = "../mnt";

pub(super) const ATTR_RDONLY: u64 = 0x1;
pub(super) const ATTR_NOSUID: u64 = 0x2;
pub(super) const ATTR_NODEV: u64 = 0x4;
pub(super) const ATTR_NOEXEC: u64 = 0x8;

/// Bytes of a limit on disk that allow for one file; a file with content takes more.
const PER_FILE: u64 = 2048;
const FEWEST_FILES: u64 = 4096;

const MOVE_FROM_EMPTY: u32 = 0x4; // MOVE_MOUNT_F_EMPTY_PATH
const MOVE_TO_EMPTY: u32 = 0x40; // MOVE_MOUNT_T_EMPTY_PATH

/// A mount taken from the host and not yet in its place.
pub(super) struct Held {
    tree: Slot,
    at: PathBuf,
    what: String,
}

/// Mounts the overlay where the root will be, out of the host's reach.
pub(super) fn mount(
    plan: &mut Plan,
    setup: &Setup<'_>,
    view: Option<OwnedFd>,
    images: Option<OwnedFd>,
) {
    let private = libc::MS_REC | libc::MS_PRIVATE;
    plan.mount("keep mounts to ourselves", None, "/", None, private, None);
    if let (Some(view), Some(at)) = (view, setup.layers_dir.parent()) {
        let view = plan.inherit(view);
        plan.move_mount(
            "mount the layers as the guest's own",
            (Dir::Slot(view), Path::new("")),
            (Dir::Cwd, at),
            MOVE_FROM_EMPTY,
        );
        plan.close("close the mount of the layers", view);
        if let Some(images) = images {
            let images = plan.inherit(images);
            let place = at.join(IMAGES);
            plan.move_mount(
                "mount the images as the guest's own",
                (Dir::Slot(images), Path::new("")),
                (Dir::Cwd, &place),
                MOVE_FROM_EMPTY,
            );
            plan.close("close the mount of the images", images);
        }
    }
    plan.chdir("enter the state directory", setup.layers_dir);
    let flags = libc::MS_NOSUID | libc::MS_NODEV;
    let (upper, work) = match setup.upper {
        Upper::Layer { name, work } => (name.to_owned(), work.to_owned()),
        Upper::Tmpfs { bytes, mode } => {
            // An empty file takes no room, but a kibibyte of the kernel's memory.
            let files = (bytes / PER_FILE).max(FEWEST_FILES);
            let id = setup.blueprint.guest_id();
            let options = format!("size={bytes},nr_inodes={files},mode=0755,uid={id},gid={id}");
            plan.mount(
                "mount a tmpfs for the disk limit",
                Some(Path::new("tmpfs")),
                MOUNT,
                Some("tmpfs"),
                flags,
                Some(&options),
            );
            let upper = format!("{MOUNT}/upper");
            let work = format!("{MOUNT}/work");
            plan.mkdir("make the upper layer", Dir::Cwd, &upper, mode);
            plan.mkdir("make the work directory", Dir::Cwd, &work, 0o700);
            let open = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
            let slot = plan
                .open("open the upper layer", Dir::Cwd, &upper, open, 0)
                .result();
            plan.export(slot);
            (upper, work)
        }
    };
    let options = format!(
        "lowerdir={},upperdir={upper},workdir={work},userxattr,volatile",
        setup.lower_dirs
    );
    plan.mount(
        "mount the root overlay",
        Some(Path::new("overlay")),
        MOUNT,
        Some("overlay"),
        flags,
        Some(&options),
    );
}

/// Takes hold of the host's directories that the guest will see, and of its own `/proc` (the
/// kernel grants one only where another is in full view).
pub(super) fn hold_host(plan: &mut Plan, setup: &Setup<'_>) -> Result<Vec<Held>, SetupError> {
    let mut held = Vec::new();
    for bind in &setup.blueprint.binds {
        let tree = hold(plan, bind, setup)?;
        let is_read_only = bind.read_only && !mutation::is_off(Part::ReadOnly);
        let rights = if is_read_only { ATTR_RDONLY } else { 0 };
        plan.mount_setattr(
            format!("restrict the mount of {}", bind.host.display()),
            Dir::Slot(tree),
            "",
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            rights | ATTR_NOSUID | ATTR_NODEV,
            0,
            libc::MS_PRIVATE,
        );
        held.push(Held {
            tree,
            at: guest_path(&bind.guest),
            what: bind.host.display().to_string(),
        });
    }
    // By depth, so that no mount hides one that was put in place before it.
    held.sort_by_key(|held| held.at.components().count());
    let attributes = (ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC) as u32;
    let tree = filesystem(plan, "proc", &[], attributes);
    held.push(Held {
        tree,
        at: "/proc".into(),
        what: "/proc".into(),
    });
    Ok(held)
}

fn guest_path(path: &GuestPath) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(path.as_bytes()))
}

/// Opens the directory on the host for root's set-up, whose user may not get to it; an
/// ordinary user's set-up runs as that user and opens it itself.
fn hold(plan: &mut Plan, bind: &Bind, setup: &Setup<'_>) -> Result<Slot, SetupError> {
    if let Some(guest_user) = setup.guest_user {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE;
        match rustix::mount::open_tree(rustix::fs::CWD, &bind.host, flags) {
            Ok(tree) => {
                if bind.is_guests {
                    match setup.idmaps.translate(&tree, guest_user) {
                        // Then its owners show as the overflow user; what all may read can be read.
                        Err(IdmapError::Translate(errno)) if bind.read_only => {
                            let host = bind.host.display();
                            tracing::debug!(%host, %errno, "owners are not translated");
                        }
                        translated => translated.map_err(|source| SetupError::Owner {
                            host: bind.host.clone(),
                            source,
                        })?,
                    }
                }
                return Ok(plan.inherit(tree));
            }
            // Root without the right to mount, as in a container. What is only read needs none.
            Err(Errno::PERM) if bind.read_only => {}
            Err(errno) => {
                return Err(SetupError::Hold {
                    host: bind.host.clone(),
                    errno,
                });
            }
        }
    }
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_RECURSIVE as u32;
    let label = format!("take hold of {}", bind.host.display());
    Ok(plan.open_tree(label, Dir::Cwd, &bind.host, flags).result())
}

/// A new filesystem, mounted nowhere yet.
pub(super) fn filesystem(
    plan: &mut Plan,
    kind: &'static str,
    options: &[(&str, &str)],
    attributes: u32,
) -> Slot {
    const CLOEXEC: u32 = 1; // FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC
    let fs = plan
        .fsopen(format!("open a {kind} filesystem"), kind, CLOEXEC)
        .result();
    for (key, value) in options {
        plan.fsconfig_string(
            format!("set {key} of the {kind} filesystem"),
            fs,
            key,
            value,
        );
    }
    plan.fsconfig_create(format!("create a {kind} filesystem"), fs);
    let mount = plan.fsmount(
        format!("mount a {kind} filesystem"),
        fs,
        CLOEXEC,
        attributes,
    );
    let mount = mount.result();
    plan.close("close the filesystem's context", fs);
    mount
}

/// Makes the overlay the root; the host's mounts are gone after this.
pub(super) fn turn(plan: &mut Plan) {
    plan.chdir("enter the root overlay", MOUNT);
    plan.pivot_root("make the overlay the root", ".", ".");
    plan.umount("let go of the host's root", ".", libc::MNT_DETACH);
    plan.chdir("enter the new root", "/");
}

/// Puts what was held in its place. A place that is a link, or below one, is refused.
pub(super) fn place(plan: &mut Plan, held: Vec<Held>) {
    for Held { tree, at, what } in held {
        attach(plan, tree, &at, &what);
    }
}

/// Attaches a mount at a place resolved without following links.
pub(super) fn attach(plan: &mut Plan, tree: Slot, at: &Path, what: &str) {
    const NO_SYMLINKS: u64 = 0x04; // RESOLVE_NO_SYMLINKS
    // struct open_how: flags, mode, resolve.
    let how: Vec<u8> = [(libc::O_PATH | libc::O_CLOEXEC) as u64, 0, NO_SYMLINKS]
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect();
    let label = format!("find the place for {what}");
    let path = plan.path(at);
    let how: Arg = plan.data(&how).into();
    let args = [Arg::from(libc::AT_FDCWD), path.into(), how, 24_u64.into()];
    let place = plan.call(label, libc::SYS_openat2, &args).result();
    let empty = Path::new("");
    plan.move_mount(
        format!("mount {what} at {}", at.display()),
        (Dir::Slot(tree), empty),
        (Dir::Slot(place), empty),
        MOVE_FROM_EMPTY | MOVE_TO_EMPTY,
    );
    plan.close("close the place", place);
    plan.close("close the mount", tree);
}
