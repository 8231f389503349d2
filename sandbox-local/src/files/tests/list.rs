//! Listing: order, kinds, names, bounds.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;

use sandbox_core::{DirEntry, ErrorKind, FileKind, GuestPath, ListOptions};

use super::{Fixture, fails, mkfifo, path, set_mode};

fn paths(entries: &[DirEntry]) -> Vec<String> {
    entries.iter().map(|entry| entry.path.to_string()).collect()
}

#[test]
fn entries_are_sorted_by_bytes_and_links_are_not_followed() {
    let f = Fixture::new();
    f.put("d/b/inner", "12345");
    f.put("d/a-b", "");
    f.put("d/a", "x");
    set_mode(&f.root("d/a"), 0o640);
    mkfifo(&f.root("d/p"));
    symlink("/d/b", f.root("d/link")).unwrap();
    symlink("d", f.root("through")).unwrap();
    let flat = f.guest.list(&path("/d"), &ListOptions::new()).unwrap();
    assert_eq!(paths(&flat), ["a", "a-b", "b", "link", "p"]);
    assert_eq!(flat[0].metadata.mode.bits(), 0o640);
    assert_eq!(flat[0].metadata.size, 1);
    assert!(flat[0].metadata.modified.is_some());
    assert_eq!(flat[2].metadata.kind, FileKind::Directory);
    assert_eq!(flat[3].metadata.kind, FileKind::Symlink);
    assert_eq!(flat[3].metadata.link_target, Some(path("/d/b")));
    assert_eq!(flat[4].metadata.kind, FileKind::Fifo);
    let deep = f
        .guest
        .list(&path("/through"), &ListOptions::new().recursive(true))
        .unwrap();
    assert_eq!(paths(&deep), ["a", "a-b", "b", "b/inner", "link", "p"]);
}

#[test]
fn any_name_that_linux_takes_comes_back() {
    let f = Fixture::new();
    fs::create_dir(f.root("d")).unwrap();
    let long = [b'n'; 255];
    let mut expected: Vec<&[u8]> = vec![b"new\nline", b"\xff\xfe", b"-rf", b"...", &long];
    for name in &expected {
        fs::write(f.root("d").join(OsStr::from_bytes(name)), "x").unwrap();
    }
    expected.sort();
    let entries = f.guest.list(&path("/d"), &ListOptions::new()).unwrap();
    let found: Vec<&[u8]> = entries.iter().map(|entry| entry.path.as_bytes()).collect();
    assert_eq!(found, expected);
    for name in expected {
        let read = f
            .guest
            .read(&GuestPath::from("/d").join(name), &Default::default());
        assert_eq!(read.unwrap(), "x");
    }
}

#[test]
fn errors_name_the_path_and_the_limit_is_exact() {
    let f = Fixture::new();
    f.put("file", "");
    mkfifo(&f.root("fifo"));
    for n in 0..10 {
        f.put(&format!("d/{n}"), "");
    }
    let list = |at: &str, limit| f.guest.list(&path(at), &ListOptions::new().limit(limit));
    fails(list("/missing", 9), ErrorKind::NotFound, "/missing");
    fails(list("/file", 9), ErrorKind::NotADirectory, "/file");
    fails(list("/fifo", 9), ErrorKind::NotADirectory, "/fifo");
    let error = fails(list("/d", 9), ErrorKind::LimitExceeded, "/d");
    assert!(error.message().contains('9'), "{error}");
    assert_eq!(list("/d", 10).unwrap().len(), 10);
}
