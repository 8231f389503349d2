//! Trees made to exhaust the host: too deep, too many.

use std::os::fd::AsFd as _;

use rustix::fs::{Mode, OFlags, mkdirat, openat};
use rustix::process::{Resource, getrlimit, setrlimit};
use sandbox_core::{ErrorKind, ExportOptions, ListOptions, RemoveOptions};

use super::{Fixture, fails, path};
use crate::walk::Cancel;

const DEEP: usize = 4096;

fn dig(f: &Fixture, depth: usize, name: &str) {
    std::fs::create_dir(f.root("deep")).unwrap();
    let mut dir = super::open_root(&f.root("deep"));
    for _ in 0..depth {
        mkdirat(dir.as_fd(), name, Mode::RWXU).unwrap();
        dir = openat(
            dir.as_fd(),
            name,
            OFlags::PATH | OFlags::DIRECTORY,
            Mode::empty(),
        )
        .unwrap();
    }
}

/// Leaves the process the descriptors that it has by default: far fewer than the tree is deep.
fn limit_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = Some(1024);
    setrlimit(Resource::Nofile, limit).unwrap();
}

#[test]
fn a_tree_of_4096_levels_is_refused_by_list_and_export_and_removed() {
    let f = Fixture::fast();
    dig(&f, DEEP, "d");
    limit_descriptors();
    let list = f
        .guest
        .list(&path("/deep"), &ListOptions::new().recursive(true));
    fails(list, ErrorKind::LimitExceeded, "/deep");
    let export = f.guest.export(
        &path("/deep"),
        &f.host("out"),
        &ExportOptions::new(),
        &Cancel::default(),
    );
    fails(export, ErrorKind::LimitExceeded, "/deep");
    assert!(super::names(&f.host("")).is_empty(), "leftovers");
    f.guest
        .remove(&path("/deep"), &RemoveOptions::new().recursive(true))
        .unwrap();
    assert!(f.names("").is_empty());
}

#[test]
fn long_names_at_many_levels_are_removed() {
    let f = Fixture::fast();
    dig(&f, 200, &"n".repeat(255));
    f.guest
        .remove(&path("/deep"), &RemoveOptions::new().recursive(true))
        .unwrap();
    assert!(f.names("").is_empty());
}

#[test]
fn a_directory_of_many_entries_meets_the_limit() {
    let f = Fixture::fast();
    std::fs::create_dir(f.root("d")).unwrap();
    for n in 0..4_000 {
        mkdirat(super::open_root(&f.root("d")), format!("{n}"), Mode::RWXU).unwrap();
    }
    let list = f
        .guest
        .list(&path("/"), &ListOptions::new().recursive(true).limit(2_000));
    fails(list, ErrorKind::LimitExceeded, "/");
    let mut options = ExportOptions::new();
    options.max_entries = 2_000;
    let export = f
        .guest
        .export(&path("/d"), &f.host("out"), &options, &Cancel::default());
    fails(export, ErrorKind::LimitExceeded, "/d");
    assert!(super::names(&f.host("")).is_empty(), "leftovers");
    f.guest
        .remove(&path("/d"), &RemoveOptions::new().recursive(true))
        .unwrap();
    assert!(f.names("").is_empty());
}

#[test]
fn what_is_not_waited_for_any_more_stops() {
    let f = Fixture::new();
    std::fs::create_dir_all(f.root("d/e")).unwrap();
    std::fs::write(f.root("d/e/f"), "x").unwrap();
    let cancel = Cancel::default();
    let list = |cancel: &Cancel| {
        let options = ListOptions::new().recursive(true);
        f.guest.list_until(&path("/d"), &options, cancel.clone())
    };
    assert_eq!(list(&cancel).unwrap().len(), 2, "no control");
    drop(cancel.on_drop());
    let error = list(&cancel).unwrap_err();
    assert!(error.to_string().contains("cancelled"), "{error}");
    let all = RemoveOptions::new().recursive(true);
    let error = f.guest.remove_until(&path("/d"), &all, cancel).unwrap_err();
    assert!(error.to_string().contains("cancelled"), "{error}");
    assert!(f.root("d/e/f").exists());
}
