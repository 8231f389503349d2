//! Exporting: equality, what is skipped, how it lands.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use sandbox_core::{Error, ErrorKind, ExistingDir, ExportOptions, TransferReport};

use super::{Fixture, fails, mkfifo, mode, names, path, put, set_mode};
use crate::walk::Cancel;

fn export(f: &Fixture, to: &Path, existing: ExistingDir) -> Result<TransferReport, Error> {
    let options = ExportOptions::new().existing(existing);
    f.guest
        .export(&path("/w"), to, &options, &Cancel::default())
}

#[test]
fn a_tree_arrives_equal_without_what_is_dangerous() {
    let f = Fixture::new();
    f.put("w/d/run", "#!");
    set_mode(&f.root("w/d/run"), 0o6755);
    f.put("w/one", "same");
    fs::hard_link(f.root("w/one"), f.root("w/two")).unwrap();
    fs::create_dir(f.root("w/empty")).unwrap();
    set_mode(&f.root("w/empty"), 0o1777);
    mkfifo(&f.root("w/fifo"));
    let _socket = UnixListener::bind(f.root("w/socket")).unwrap();
    for (link, target) in [
        ("in", "d/run"),
        ("d/up", "../one"),
        ("absolute", "/etc/passwd"),
        ("out", "../secret"),
        ("d/out", "../../secret"),
        ("sly", "d/../../secret"),
    ] {
        symlink(target, f.root("w").join(link)).unwrap();
    }
    set_mode(&f.root("w"), 0o750);
    let to = f.host("out");
    let report = export(&f, &to, ExistingDir::MustBeEmpty).unwrap();
    assert_eq!(
        (report.files, report.directories, report.symlinks),
        (3, 2, 2)
    );
    let mut skipped: Vec<String> = report.skipped.iter().map(|s| s.path.to_string()).collect();
    skipped.sort();
    assert_eq!(
        skipped,
        ["absolute", "d/out", "fifo", "out", "sly", "socket"]
    );
    assert_eq!(names(&to), ["d", "empty", "in", "one", "two"]);
    assert_eq!(mode(&to), 0o750);
    assert_eq!(mode(&to.join("d/run")), 0o755);
    assert_eq!(mode(&to.join("empty")), 0o777);
    let inode = |name| fs::metadata(to.join(name)).unwrap().ino();
    assert_ne!(inode("one"), inode("two"));
    assert_eq!(fs::metadata(to.join("one")).unwrap().nlink(), 1);
    assert_eq!(names(&f.host("")), ["out"]);
}

#[test]
fn it_lands_on_nothing_or_an_empty_directory_only() {
    let f = Fixture::new();
    f.put("w/f", "new");
    fs::create_dir(f.host("empty")).unwrap();
    export(&f, &f.host("empty"), ExistingDir::MustBeEmpty).unwrap();
    let error = export(&f, &f.host("empty"), ExistingDir::MustBeEmpty).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(error.host_path(), Some(f.host("empty").as_path()));
    fs::write(f.host("file"), "").unwrap();
    symlink("empty", f.host("link")).unwrap();
    for existing in [
        ExistingDir::MustBeEmpty,
        ExistingDir::Merge,
        ExistingDir::Replace,
    ] {
        for taken in ["file", "link"] {
            let error = export(&f, &f.host(taken), existing).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        }
    }
    let error = export(&f, &f.host("no/parent"), ExistingDir::MustBeEmpty).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let error = export(&f, Path::new("/"), ExistingDir::MustBeEmpty).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(names(&f.host("")), ["empty", "file", "link"]);
}

#[test]
fn replace_takes_the_place_at_once_and_removes_the_old() {
    let f = Fixture::new();
    f.put("w/f", "new");
    put(&f.host("out/old/x"), "");
    export(&f, &f.host("out"), ExistingDir::Replace).unwrap();
    assert_eq!(names(&f.host("out")), ["f"]);
    export(&f, &f.host("other"), ExistingDir::Replace).unwrap();
    assert_eq!(names(&f.host("")), ["other", "out"]);
}

#[test]
fn merge_adds_and_follows_no_link_of_the_host() {
    let f = Fixture::new();
    f.put("w/d/f", "new");
    f.put("w/l", "new");
    f.put("w/fresh/x", "new");
    put(&f.host("out/d/f"), "old");
    put(&f.host("out/d/own"), "own");
    put(&f.host("victim/v"), "kept");
    symlink("../victim/v", f.host("out/l")).unwrap();
    export(&f, &f.host("out"), ExistingDir::Merge).unwrap();
    assert_eq!(names(&f.host("out")), ["d", "fresh", "l"]);
    assert_eq!(names(&f.host("out/d")), ["f", "own"]);
    for new in ["out/d/f", "out/l", "out/fresh/x"] {
        assert_eq!(fs::read_to_string(f.host(new)).unwrap(), "new");
    }
    assert_eq!(fs::read_to_string(f.host("victim/v")).unwrap(), "kept");
    // A link where a directory has to go is not followed either.
    fs::remove_dir_all(f.host("out/d")).unwrap();
    symlink("../victim", f.host("out/d")).unwrap();
    let error = export(&f, &f.host("out"), ExistingDir::Merge).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotADirectory);
    assert_eq!(names(&f.host("victim")), ["v"]);
}

#[test]
fn limits_and_cancelling_leave_nothing() {
    let f = Fixture::new();
    f.put("w/a/b", "0123456789");
    let run = |options: &ExportOptions, cancel: &Cancel| {
        f.guest.export(&path("/w"), &f.host("out"), options, cancel)
    };
    let go = Cancel::default();
    let options = ExportOptions::new();
    fails(
        run(&options.clone().max_bytes(9), &go),
        ErrorKind::LimitExceeded,
        "/w",
    );
    fails(
        run(&options.clone().max_entries(1), &go),
        ErrorKind::LimitExceeded,
        "/w",
    );
    let stop = Cancel::default();
    stop.cancel();
    assert!(run(&options, &stop).is_err());
    let sparse = fs::File::create(f.root("w/sparse")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    let started = std::time::Instant::now();
    fails(run(&options, &go), ErrorKind::LimitExceeded, "/w");
    assert!(started.elapsed() < std::time::Duration::from_secs(120));
    // A round that was done before it was cancelled shows nothing, and another follows.
    for n in 0..500 {
        f.put(&format!("w/many/{n}"), "content");
    }
    let error = (0..200).find_map(|_| {
        let cancel = Cancel::default();
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Once it has begun, so that there is something to leave behind.
                while names(&f.host("")).is_empty() && !ended.load(Ordering::Relaxed) {
                    std::thread::yield_now();
                }
                cancel.cancel();
            });
            let result = run(&options.clone().exclude("sparse"), &cancel);
            ended.store(true, Ordering::Relaxed);
            if result.is_ok() {
                fs::remove_dir_all(f.host("out")).unwrap();
            }
            result.err()
        })
    });
    let error = error.unwrap();
    assert!(error.message().contains("cancelled"), "{error}");
    assert!(names(&f.host("")).is_empty());
    fails(
        f.guest.export(&path("/no"), &f.host("out"), &options, &go),
        ErrorKind::NotFound,
        "/no",
    );
    f.put("file", "");
    fails(
        f.guest
            .export(&path("/file"), &f.host("out"), &options, &go),
        ErrorKind::NotADirectory,
        "/file",
    );
    run(&options.exclude("sparse"), &go).unwrap();
    assert_eq!(names(&f.host("out")), ["a", "many"]);
}

#[test]
fn directories_without_rights_for_the_owner_arrive_and_a_failed_export_of_them_goes() {
    let f = Fixture::new();
    f.put("w/ro/sub/f", "");
    set_mode(&f.root("w/ro/sub"), 0o555);
    set_mode(&f.root("w/ro"), 0o555);
    export(&f, &f.host("out"), ExistingDir::MustBeEmpty).unwrap();
    assert_eq!(mode(&f.host("out/ro")), 0o555);
    export(&f, &f.host("out"), ExistingDir::Replace).unwrap();
    set_mode(&f.root("w/ro"), 0o755);
    set_mode(&f.root("w/ro/sub"), 0o755);
    set_mode(&f.host("out/ro"), 0o755);
    set_mode(&f.host("out/ro/sub"), 0o755);
    assert_eq!(names(&f.host("")), ["out"]);
}
