//! Removing: literal names, links, whole trees.

use std::fs;
use std::os::unix::fs::symlink;

use sandbox_core::{ErrorKind, RemoveOptions};

use super::{Fixture, fails, mkfifo, path, set_mode};

#[test]
fn files_links_and_empty_directories_go_by_their_literal_name() {
    let f = Fixture::new();
    for name in ["*", "a", "-rf"] {
        f.put(name, "");
    }
    fs::create_dir(f.root("dir")).unwrap();
    fs::write(f.host("kept"), "").unwrap();
    symlink("../host", f.root("link")).unwrap();
    mkfifo(&f.root("fifo"));
    let remove = |at| {
        f.guest
            .remove(&path(at), &RemoveOptions::new().recursive(true))
    };
    for at in ["/*", "/-rf", "/link", "/fifo", "/dir"] {
        remove(at).unwrap();
    }
    assert_eq!(f.names(""), ["a"]);
    assert!(f.host("kept").exists());
    fails(remove("/dir"), ErrorKind::NotFound, "/dir");
    fails(remove("/a/b"), ErrorKind::NotADirectory, "/a/b");
    fails(remove("/"), ErrorKind::InvalidInput, "/");
}

#[test]
fn a_tree_goes_only_when_asked_for_and_without_following_links() {
    let f = Fixture::new();
    for n in 0..300 {
        f.put(&format!("t/{}/{n}/f", n % 7), "");
    }
    fs::write(f.host("kept"), "").unwrap();
    symlink(f.host(""), f.root("t/3/out")).unwrap();
    fails(
        f.guest.remove(&path("/t"), &RemoveOptions::new()),
        ErrorKind::DirectoryNotEmpty,
        "/t",
    );
    assert_eq!(f.names("t").len(), 7);
    f.guest
        .remove(&path("/t"), &RemoveOptions::new().recursive(true))
        .unwrap();
    assert!(f.names("").is_empty());
    assert!(f.host("kept").exists());
}

#[test]
fn a_directory_that_its_owner_shut_goes_too() {
    let f = Fixture::new();
    f.put("t/shut/in/f", "");
    f.put("t/f", "");
    set_mode(&f.root("t/shut/in"), 0);
    set_mode(&f.root("t/shut"), 0);
    set_mode(&f.root("t"), 0o500);
    f.guest
        .remove(&path("/t"), &RemoveOptions::new().recursive(true))
        .unwrap();
    assert!(f.names("").is_empty());
}
