//! The real setting: a root in another mount namespace, with mounts and an overlay in it.
//!
//! Needs the right to make a mount namespace: as root, or as a user with user namespaces.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use sandbox_core::{
    ErrorKind, ExportOptions, FileBatch, ImportOptions, ListOptions, MetadataOptions, ReadOptions,
    RemoveOptions, RenameOptions,
};

use super::super::GuestRoot;
use super::{Fixture, fails, mode, open_root, path, put};
use crate::walk::Cancel;

/// A process that keeps a mount namespace; its end is the namespace's.
pub(super) struct Namespace(Child);

impl Namespace {
    /// Runs this script in a new namespace and keeps it.
    pub(super) fn new(dir: &Path, script: &str) -> Self {
        let flags = if rustix::process::geteuid().is_root() {
            "-m"
        } else {
            "-rm"
        };
        let mut child = Command::new("unshare")
            .args([flags, "sh", "-ec"])
            .arg(format!("{script}\necho ready; read wait"))
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "ready\n", "the namespace could not be set up");
        Self(child)
    }

    /// The path from here of what has this path inside.
    pub(super) fn path(&self, dir: &Path) -> PathBuf {
        format!("/proc/{}/root{}", self.0.id(), dir.display()).into()
    }

    /// A directory as it is inside.
    fn root(&self, dir: &Path) -> GuestRoot {
        GuestRoot::new(open_root(&self.path(dir)), None)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) fn write(guest: &GuestRoot, batch: &FileBatch) -> sandbox_core::Result<()> {
    guest.write(&batch.resolve(&path("/")).unwrap())
}

#[test]
fn what_is_mounted_in_the_guest_is_neither_removed_nor_renamed_nor_replaced() {
    let f = Fixture::new();
    f.put("d/mnt/x", "");
    fs::remove_file(f.root("d/mnt/x")).unwrap();
    f.put("d/file", "below");
    f.put("d/other", "");
    f.put("d/sub/f", "");
    fs::create_dir(f.root("naive")).unwrap();
    let namespace = Namespace::new(
        f.dir.path(),
        "mount -t tmpfs none root/d/mnt; mount -t tmpfs none root/naive
         mount --bind root/d/other root/d/file; touch root/d/mnt/inside root/naive/inside",
    );
    let guest = namespace.root(&f.root(""));
    let recursive = RemoveOptions::new().recursive(true);
    let busy = ErrorKind::Busy;
    for at in ["/d/mnt", "/d/file"] {
        fails(guest.remove(&path(at), &recursive), busy, at);
        let away = guest.rename(&path(at), &path("/x"), &RenameOptions::new());
        fails(away, busy, at);
        let over = guest.rename(
            &path("/d/other"),
            &path(at),
            &RenameOptions::new().replace(true),
        );
        fails(over, busy, at);
    }
    fails(
        write(&guest, &FileBatch::new().file("/d/file", "")),
        busy,
        "/d/file",
    );
    let whole = guest.remove(&path("/d"), &recursive).unwrap_err();
    assert_eq!(whole.kind(), busy);
    let listed = guest
        .list(&path("/d"), &ListOptions::new().recursive(true))
        .unwrap();
    assert!(listed.iter().any(|entry| entry.path == path("mnt/inside")));
    // Other mounts can be worked in, and not be moved into at once.
    write(&guest, &FileBatch::new().file("/d/mnt/new/f", "1")).unwrap();
    let across = guest.rename(&path("/d/mnt/new"), &path("/new"), &RenameOptions::new());
    fails(across, ErrorKind::InvalidInput, "/new");
    // The control: from outside, the kernel itself does not mind.
    assert_eq!(
        guest
            .metadata(&path("/naive/inside"), &MetadataOptions::new())
            .unwrap()
            .size,
        0
    );
    fs::remove_dir(f.root("naive")).unwrap();
    assert!(
        guest
            .metadata(&path("/naive"), &MetadataOptions::new())
            .is_err()
    );
}

#[test]
fn what_the_kernel_makes_up_is_listed_and_not_entered() {
    let f = Fixture::new();
    f.put("file", "1");
    fs::create_dir(f.root("proc")).unwrap();
    let namespace = Namespace::new(f.dir.path(), "mount --rbind /proc root/proc");
    let guest = namespace.root(&f.root(""));
    let list = |at: &str, options: ListOptions| guest.list(&path(at), &options).unwrap();
    let all = list("/", ListOptions::new().recursive(true));
    let names: Vec<_> = all.iter().map(|entry| entry.path.to_string()).collect();
    assert_eq!(names, ["file", "proc"]);
    let proc = list("/proc", ListOptions::new());
    assert!(proc.iter().any(|entry| entry.path == path("version")));
    let options = ExportOptions::new();
    let report = guest
        .export(&path("/"), &f.host("out"), &options, &Cancel::default())
        .unwrap();
    assert_eq!((report.files, report.skipped_total), (1, 1));
    assert_eq!(report.skipped[0].path, path("proc"));
    assert_eq!(super::names(&f.host("out")), ["file"]);
    let into = write(&guest, &FileBatch::new().file("/proc/x", ""));
    fails(into, ErrorKind::PermissionDenied, "/proc/x");
}

#[test]
fn everything_works_on_an_overlay_with_files_of_lower_layers() {
    let f = Fixture::new();
    for dir in ["lower/d/sub", "upper", "work", "merged"] {
        fs::create_dir_all(f.host(dir)).unwrap();
    }
    put(&f.host("lower/d/f"), "lower");
    put(&f.host("lower/d/g"), "lower");
    put(&f.host("lower/d/sub/h"), "lower");
    put(&f.host("lower/gone/x/y"), "lower");
    put(&f.host("lower/dir/deep/f"), "lower");
    put(&f.host("lower/taken/f"), "lower");
    super::set_mode(&f.host("lower/dir/deep"), 0o510);
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
    let file = fs::File::open(f.host("lower/dir/deep/f")).unwrap();
    file.set_modified(old).unwrap();
    super::set_mode(&f.host("lower/d/f"), 0o751);
    let namespace = Namespace::new(
        f.dir.path(),
        "o=lowerdir=host/lower,upperdir=host/upper,workdir=host/work
         mount -t overlay overlay -o $o,userxattr host/merged",
    );
    let guest = namespace.root(&f.host("merged"));
    let read = |at: &str| guest.read(&path(at), &ReadOptions::new());
    let batch = FileBatch::new()
        .file("/d/f", "new")
        .file("/d/g", "new")
        .file("/d/n", "new")
        .file("/tree/a/b", "new");
    write(&guest, &batch).unwrap();
    for at in ["/d/f", "/d/g", "/d/n", "/tree/a/b"] {
        assert_eq!(read(at).unwrap(), "new", "{at}");
    }
    assert_eq!(read("/d/sub/h").unwrap(), "lower");
    assert_eq!(
        guest
            .metadata(&path("/d/f"), &MetadataOptions::new())
            .unwrap()
            .mode
            .bits(),
        0o751
    );
    let failing = FileBatch::new()
        .file("/d/sub/h", "no")
        .file("/gone/x", "no");
    fails(write(&guest, &failing), ErrorKind::IsADirectory, "/gone/x");
    assert_eq!(read("/d/sub/h").unwrap(), "lower");
    let recursive = RemoveOptions::new().recursive(true);
    guest.remove(&path("/gone"), &recursive).unwrap();
    fails(read("/gone/x/y"), ErrorKind::NotFound, "/gone/x/y");
    guest
        .rename(&path("/tree"), &path("/moved"), &RenameOptions::new())
        .unwrap();
    guest
        .rename(&path("/d/sub/h"), &path("/h"), &RenameOptions::new())
        .unwrap();
    // A directory of a lower layer, which the overlay itself refuses to rename.
    let rename = |from: &str, to: &str, options: RenameOptions| {
        guest.rename(&path(from), &path(to), &options)
    };
    let taken = rename("/dir", "/taken", RenameOptions::new());
    fails(taken, ErrorKind::AlreadyExists, "/taken");
    let full = rename("/dir", "/taken", RenameOptions::new().replace(true));
    fails(full, ErrorKind::DirectoryNotEmpty, "/taken");
    let over = rename("/dir", "/h", RenameOptions::new().replace(true));
    fails(over, ErrorKind::NotADirectory, "/h");
    assert_eq!(read("/dir/deep/f").unwrap(), "lower");
    rename("/dir", "/d/dir", RenameOptions::new()).unwrap();
    fails(
        guest.metadata(&path("/dir"), &MetadataOptions::new()),
        ErrorKind::NotFound,
        "/dir",
    );
    assert_eq!(read("/d/dir/deep/f").unwrap(), "lower");
    let moved = guest
        .metadata(&path("/d/dir/deep/f"), &MetadataOptions::new())
        .unwrap();
    assert_eq!(moved.modified, Some(old));
    let deep = guest
        .metadata(&path("/d/dir/deep"), &MetadataOptions::new())
        .unwrap();
    assert_eq!(deep.mode.bits(), 0o510);
    let staged = guest.list(&path("/"), &ListOptions::new().recursive(true));
    let staged = staged.unwrap();
    assert!(!staged.iter().any(|e| e.path.to_string().contains("stage")));
    put(&f.host("src/d/f"), "imported");
    put(&f.host("src/new/f"), "imported");
    let mirror = ImportOptions::new().mirror(true);
    let report = guest.import(&f.host("src"), &path("/"), &mirror).unwrap();
    // d/g, d/n, d/sub, d/dir, d/dir/deep, d/dir/deep/f, h, moved, moved/a, moved/a/b, taken,
    // taken/f
    assert_eq!((report.files, report.removed), (2, 12));
    guest
        .export(
            &path("/"),
            &f.host("out"),
            &ExportOptions::new(),
            &Cancel::default(),
        )
        .unwrap();
    assert_eq!(super::names(&f.host("out")), ["d", "new"]);
    assert_eq!(mode(&f.host("out/d/f")), 0o644);
    assert_eq!(
        fs::read_to_string(f.host("lower/d/f")).unwrap(),
        "lower",
        "a lower layer is never written"
    );
}
