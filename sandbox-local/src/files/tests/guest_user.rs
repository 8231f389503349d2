//! A privileged host acts with the guest's rights. Run as an ordinary user these have nothing to
//! show: the kernel refuses the guest_user, and that is what is checked then.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;

use rustix::thread::{Gid, set_thread_groups};
use sandbox_core::{
    CreateDirOptions, ErrorKind, ExportOptions, FileBatch, GuestPath, ImportOptions, ListOptions,
    MetadataOptions, Operation, ReadOptions, RemoveOptions, RenameOptions, Unreadable,
};

use super::super::GuestRoot;
use super::{Fixture, fails, mode, open_root, path, put, set_mode};
use crate::guest_user::GuestUser;
use crate::walk::Cancel;

const GUEST: u32 = 123_456;

fn fixture() -> Option<Fixture> {
    let mut f = Fixture::new();
    let guest_user = GuestUser {
        uid: GUEST,
        gid: GUEST,
    };
    let root = open_root(&f.root(""));
    f.guest = GuestRoot::new(root, Some(guest_user));
    if !rustix::process::geteuid().is_root() {
        let error = f
            .guest
            .metadata(&path("/"), &MetadataOptions::new())
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Other);
        return None;
    }
    // The host's directory is one that the guest's user may not even pass.
    set_mode(&f.host(""), 0o700);
    chown(f.root(""), Some(GUEST), Some(GUEST)).unwrap();
    Some(f)
}

/// Puts this thread into root's group, which a service manager does not always do.
struct Groups(Vec<Gid>);

impl Groups {
    fn set() -> Self {
        let before = rustix::process::getgroups().unwrap();
        set_thread_groups(&[Gid::ROOT]).unwrap();
        Self(before)
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        set_thread_groups(&self.0).unwrap();
    }
}

fn owner(path: &Path) -> (u32, u32) {
    let found = fs::symlink_metadata(path).unwrap();
    (found.uid(), found.gid())
}

#[test]
fn as_root_all_that_is_made_belongs_to_the_guest() {
    let Some(f) = fixture() else { return };
    put(&f.host("src/d/f"), "x");
    set_mode(&f.host("src/d/f"), 0o600);
    let many = (0..200).fold(FileBatch::new(), |batch, n| {
        batch.file(format!("many/{n}"), "x")
    });
    f.write(many.file("w/d/f", "x")).unwrap();
    f.guest
        .create_dir(&path("/made/dir"), &CreateDirOptions::new())
        .unwrap();
    f.guest
        .import(&f.host("src"), &path("/imported"), &ImportOptions::new())
        .unwrap();
    for at in [
        "many/0",
        "many/199",
        "w",
        "w/d",
        "w/d/f",
        "made",
        "made/dir",
        "imported/d/f",
    ] {
        assert_eq!(owner(&f.root(at)), (GUEST, GUEST), "{at}");
    }
    let read = f.guest.read(&path("/imported/d/f"), &ReadOptions::new());
    assert_eq!(read.unwrap(), "x");
    f.guest
        .export(
            &path("/imported"),
            &f.host("out"),
            &ExportOptions::new(),
            &Cancel::default(),
        )
        .unwrap();
    assert_eq!(owner(&f.host("out/d/f")), (0, 0), "an export is the host's");
    assert_eq!(mode(&f.host("out/d/f")), 0o600);
    f.guest
        .remove(&path("/made"), &RemoveOptions::new().recursive(true))
        .unwrap();
}

#[test]
fn as_root_what_the_guest_may_not_do_is_denied() {
    let Some(f) = fixture() else { return };
    f.put("private/f", "root's");
    f.put("file", "root's");
    f.put("group", "root's group's");
    set_mode(&f.root("private"), 0o700);
    set_mode(&f.root("file"), 0o600);
    // The host's own groups must not help: the group has the right, the guest is not in it.
    set_mode(&f.root("group"), 0o040);
    let _groups = Groups::set();
    let denied = ErrorKind::PermissionDenied;
    let guest = &f.guest;
    let read = |at: &str| guest.read(&path(at), &ReadOptions::new());
    fails(read("/file"), denied, "/file");
    fails(read("/group"), denied, "/group");
    fails(read("/private/f"), denied, "/private/f");
    fails(
        guest.metadata(&path("/private/f"), &MetadataOptions::new()),
        denied,
        "/private/f",
    );
    let list = guest.list(&path("/private"), &ListOptions::new());
    fails(list, denied, "/private");
    fails(
        guest.check_dir(&path("/private"), Operation::SetWorkdir),
        denied,
        "/private",
    );
    // The directory is the guest's, so that renaming over the file would succeed.
    fails(f.write(FileBatch::new().file("file", "x")), denied, "/file");
    fails(
        f.write(FileBatch::new().file("ok", "x").file("file", "x")),
        denied,
        "/file",
    );
    fails(
        f.write(FileBatch::new().file("private/new", "x")),
        denied,
        "/private/new",
    );
    put(&f.host("src/file"), "x");
    let import = guest.import(&f.host("src"), &path("/"), &ImportOptions::new());
    fails(import, denied, "/file");
    let export = guest.export(
        &path("/"),
        &f.host("out"),
        &ExportOptions::new().unreadable(Unreadable::Fail),
        &Cancel::default(),
    );
    assert_eq!(export.unwrap_err().kind(), denied);
    let recursive = RemoveOptions::new().recursive(true);
    let remove = guest.remove(&path("/private"), &recursive);
    assert_eq!(remove.unwrap_err().kind(), denied);
    fails(
        guest.rename(
            &path("/private/f"),
            &GuestPath::from("/f"),
            &RenameOptions::new(),
        ),
        denied,
        "/private/f",
    );
    assert_eq!(f.text("file").unwrap(), "root's");
    assert_eq!(f.names(""), ["file", "group", "private"]);
    assert_eq!(super::names(&f.host("")), ["src"]);
}

#[test]
fn as_root_a_guest_may_replace_and_remove_what_it_owns() {
    let Some(f) = fixture() else { return };
    f.put("file", "old");
    f.put("shut/in/f", "");
    for at in ["file", "shut", "shut/in", "shut/in/f"] {
        chown(f.root(at), Some(GUEST), Some(GUEST)).unwrap();
    }
    set_mode(&f.root("shut/in"), 0);
    set_mode(&f.root("shut"), 0);
    f.write(FileBatch::new().file("file", "new")).unwrap();
    f.guest
        .remove(&path("/shut"), &RemoveOptions::new().recursive(true))
        .unwrap();
    assert_eq!(f.names(""), ["file"]);
}

#[test]
fn as_root_the_thread_is_itself_again_afterwards() {
    let Some(f) = fixture() else { return };
    let status = || {
        fs::read_to_string("/proc/thread-self/status")
            .unwrap()
            .lines()
            .filter(|line| {
                ["Uid:", "Gid:", "Groups:", "CapEff:"]
                    .iter()
                    .any(|field| line.starts_with(field))
            })
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let before = status();
    {
        let _guest = f.guest.as_guest(Operation::ReadFile).unwrap();
        assert!(
            status()[0].ends_with(&GUEST.to_string()),
            "{:?}",
            status()[0]
        );
        assert_ne!(before, status());
    }
    assert_eq!(before, status());
}
