//! Images made by the tests themselves, and their layers.
#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, helpers too"
)]

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use sandbox_core::ImportOptions;
use sandbox_oci::{Blob, ImageConfig, Layout, NewImage};

/// A directory for images, caches and snapshots: in memory if there is room, as they are flushed to
/// the disk often.
pub(crate) fn place(prefix: &str) -> Place {
    const ROOM: u64 = 1 << 30;
    let make = |parent| tempfile::Builder::new().prefix(prefix).tempdir_in(parent);
    let suits = |dir: &tempfile::TempDir| {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(dir.path(), "user.image", b"x", flags).is_ok()
            && rustix::fs::statvfs(dir.path())
                .is_ok_and(|found| found.f_bavail * found.f_frsize > ROOM)
    };
    let in_memory = make("/dev/shm").ok().filter(suits);
    let dir = in_memory.unwrap_or_else(|| make("/var/tmp").expect("a temporary directory"));
    Place(dir)
}

/// A directory that is removed with this, also while a layer in it is just being noted as on the disk.
pub(crate) struct Place(tempfile::TempDir);

impl Place {
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Each layer is noted once, so that it ends.
        while fs::remove_dir_all(self.path())
            .is_err_and(|error| error.kind() == io::ErrorKind::DirectoryNotEmpty)
        {}
    }
}

/// An image with one layer, which has what is in a directory.
pub(crate) fn of_directory(from: &Path, to: &Path) -> io::Result<()> {
    save(to, &[from], ImageConfig::default())
}

/// An image with a layer for each of these directories, the lowest first, under the name `it`. An
/// empty file `.wh.NAME` in one deletes NAME of those below.
pub(crate) fn save(to: &Path, layers: &[&Path], config: ImageConfig) -> io::Result<()> {
    let layout = Layout::open(to)?;
    let in_use = layout.use_blobs()?;
    let mut blobs: Vec<Blob> = Vec::new();
    for layer in layers {
        let archive = tempfile::tempfile()?;
        sandbox_transfer::pack(layer, &ImportOptions::new(), &archive, u64::MAX)
            .map_err(io::Error::other)?;
        let mut writer = layout.write_blob(&in_use)?;
        let mut archive = archive;
        io::Seek::rewind(&mut archive)?;
        io::copy(&mut archive, &mut writer)?;
        writer.flush()?;
        blobs.push(writer.finish()?);
    }
    layout.save("it", NewImage::new(config, blobs), &in_use)?;
    Ok(())
}

/// A root directory with Debian's static busybox, its programs in `/bin`, and two users.
pub(crate) fn busybox(dir: &Path) -> io::Result<()> {
    for sub in ["bin", "etc", "root", "tmp", "usr/lib", "home/app"] {
        fs::create_dir_all(dir.join(sub))?;
    }
    fs::copy("/bin/busybox", dir.join("bin/busybox"))?;
    fs::set_permissions(dir.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    for program in [
        "sh",
        "cat",
        "ls",
        "mkdir",
        "rm",
        "touch",
        "sleep",
        "env",
        "id",
        "head",
        "pwd",
        "echo",
        "stat",
        "find",
        "sort",
        "chmod",
        "ln",
        "mv",
        "test",
        "sha256sum",
        "xargs",
        "readlink",
        "mkfifo",
        "dd",
        "true",
        "tail",
        "wc",
        "printf",
        "cp",
        "rmdir",
    ] {
        symlink("busybox", dir.join("bin").join(program))?;
    }
    fs::write(
        dir.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\napp:x:33:33::/home/app:/bin/sh\n",
    )
}

/// Everything below a directory: path, kind and mode, and content or target.
pub(crate) fn listing(dir: &Path) -> Vec<String> {
    use std::os::unix::fs::MetadataExt as _;
    let mut found = Vec::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(at) = pending.pop() {
        for entry in fs::read_dir(&at).into_iter().flatten().flatten() {
            let path = entry.path();
            let stat = fs::symlink_metadata(&path).expect("it is there");
            let what = if stat.is_dir() {
                pending.push(path.clone());
                String::new()
            } else if stat.is_symlink() {
                format!("{:?}", fs::read_link(&path).expect("a link"))
            } else {
                format!("{} bytes, {} names", stat.len(), stat.nlink())
            };
            let name = path
                .strip_prefix(dir)
                .unwrap_or(&path)
                .display()
                .to_string();
            found.push(format!("{name} {:o} {} {what}", stat.mode(), stat.mtime()));
        }
    }
    found.sort();
    found
}
