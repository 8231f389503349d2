//! A guest that swaps a directory and a link out of its root all the time, while the host works
//! on a path through it. A naive host that checks and then opens must be seen to lose.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use sandbox_core::{
    ExportOptions, FileBatch, GuestPath, ImportOptions, ListOptions, ReadOptions, RemoveOptions,
};

use super::super::CancelFlag;
use super::{Fixture, names, path, put};

/// How long each operation is attacked.
const TIME: Duration = Duration::from_millis(400);
const SECRET: &str = "the host's";

/// Runs `work` until time is up, while `a` (a directory) and `b` (a link to the canary) swap.
fn attack(f: &Fixture, name: &str, mut work: impl FnMut()) {
    put(&f.host("canary/f"), SECRET);
    put(&f.host("canary/sub/g"), SECRET);
    let stop = AtomicBool::new(false);
    let (mut rounds, mut swaps) = (0_u64, 0_u64);
    std::thread::scope(|scope| {
        let swapper = scope.spawn(|| {
            let mut swaps = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                let (a, b) = (f.root("a"), f.root("b"));
                let _ = renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE);
                swaps += 1;
            }
            swaps
        });
        let stopping = Stop(&stop);
        let end = Instant::now() + TIME;
        while Instant::now() < end {
            work();
            rounds += 1;
        }
        drop(stopping);
        swaps = swapper.join().unwrap();
    });
    println!("{name}: {rounds} rounds against {swaps} swaps");
    assert!(rounds > 10 && swaps > 100, "{rounds} rounds, {swaps} swaps");
    assert_eq!(names(&f.host("canary")), ["f", "sub"], "{name}");
    assert_eq!(names(&f.host("canary/sub")), ["g"], "{name}");
    assert_eq!(fs::read_to_string(f.host("canary/f")).unwrap(), SECRET);
}

/// Ends the attack, also when a check has failed.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn fixture() -> Fixture {
    let f = Fixture::fast();
    f.put("a/f", "inside");
    f.put("a/sub/g", "inside");
    symlink("../host/canary", f.root("b")).unwrap();
    f
}

#[test]
fn control_check_then_open_escapes() {
    let f = fixture();
    let mut escapes = 0_u64;
    let end = Instant::now() + Duration::from_secs(4);
    while escapes == 0 && Instant::now() < end {
        attack(&f, "control", || {
            let dir = f.root("a");
            if fs::symlink_metadata(&dir).is_ok_and(|found| found.is_dir())
                && fs::read_to_string(dir.join("f")).is_ok_and(|text| text == SECRET)
            {
                escapes += 1;
            }
        });
    }
    println!("control: {escapes} escapes");
    assert!(
        escapes > 0,
        "the attack does not work, so the tests beside it show nothing"
    );
}

#[test]
fn read_never_leaves_the_root() {
    let f = fixture();
    let mut inside = 0_u64;
    attack(&f, "read", || {
        if let Ok(content) = f.guest.read(&path("/a/f"), &ReadOptions::default()) {
            assert_eq!(content, "inside");
            inside += 1;
        }
    });
    assert!(inside > 0);
}

#[test]
fn write_never_leaves_the_root() {
    let f = fixture();
    let mut written = 0_u64;
    attack(&f, "write", || {
        let batch = FileBatch::new()
            .file("/a/f", "inside")
            .file("/a/new", "x")
            .file("/a/sub/deep/x", "x");
        written += u64::from(f.write(batch).is_ok());
    });
    println!("write: {written} batches written");
}

#[test]
fn list_never_leaves_the_root() {
    let f = fixture();
    put(&f.host("canary/f"), SECRET);
    let mut seen = 0_u64;
    attack(&f, "list", || {
        let listed = f
            .guest
            .list(&path("/"), &ListOptions::default().recursive());
        for entry in listed.unwrap_or_default() {
            // The link is there under one of the two names; nothing is ever below it.
            seen += 1;
            if entry.metadata.is_file() {
                assert_eq!(entry.metadata.size, "inside".len() as u64, "{entry:?}");
            }
        }
    });
    assert!(seen > 0);
}

#[test]
fn remove_never_leaves_the_root() {
    let f = fixture();
    let mut removed = 0_u64;
    attack(&f, "remove", || {
        let recursive = RemoveOptions::default().recursive();
        let _ = f.guest.remove(&path("/a/f"), &recursive);
        let _ = f.guest.remove(&path("/a/sub"), &recursive);
        let _ = f.guest.remove(&path("/b/sub"), &recursive);
        removed += 1;
        // Put back whatever went, in whichever of the two is the directory.
        for dir in ["/a", "/b"] {
            if f.guest
                .metadata(&path(dir))
                .is_ok_and(|found| found.is_dir())
            {
                let _ = f.write(FileBatch::new().file(format!("{dir}/sub/g"), "inside"));
            }
        }
    });
    assert!(removed > 0);
}

#[test]
fn a_recursive_removal_never_leaves_the_tree() {
    let f = Fixture::fast();
    put(&f.host("canary/f"), SECRET);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let (a, b) = (f.root("t/d"), f.root("l"));
                let _ = renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE);
            }
        });
        let _stop = Stop(&stop);
        let end = Instant::now() + TIME;
        let mut rounds = 0_u64;
        while Instant::now() < end {
            for n in 0..5 {
                let _ = fs::create_dir_all(f.root(&format!("t/d/{n}")));
                let _ = fs::write(f.root(&format!("t/e{n}")), "");
            }
            let _ = symlink("../../host/canary", f.root("l"));
            let _ = f
                .guest
                .remove(&path("/t"), &RemoveOptions::default().recursive());
            let _ = f
                .guest
                .remove(&path("/l"), &RemoveOptions::default().recursive());
            rounds += 1;
            // The fixture's own setting up follows the link when it is under `t/d`.
            for n in 0..5 {
                let _ = fs::remove_dir(f.host(&format!("canary/{n}")));
            }
        }
        println!("recursive removal: {rounds} rounds");
        assert!(rounds > 10);
    });
    assert_eq!(fs::read_to_string(f.host("canary/f")).unwrap(), SECRET);
}

#[test]
fn import_and_create_never_leave_the_root() {
    let f = fixture();
    put(&f.host("src/f"), "inside");
    put(&f.host("src/sub/deep/g"), "inside");
    attack(&f, "import", || {
        let options = ImportOptions::default().mirror();
        let _ = f.guest.import(&f.host("src"), &path("/a"), &options);
        let _ = f.guest.import(&f.host("src"), &path("/a/sub"), &options);
        let _ = f.guest.create_dir(&path("/a/x/y"), &Default::default());
        let _ = f.guest.rename(
            &path("/a/f"),
            &GuestPath::from("/a/sub/f"),
            &Default::default(),
        );
    });
}

#[test]
fn export_never_leaves_the_root() {
    let f = fixture();
    let to = f.host("out");
    let mut landed = 0_u64;
    attack(&f, "export", || {
        let options = ExportOptions::default();
        let done = f
            .guest
            .export(&path("/"), &to, &options, &CancelFlag::new());
        if done.is_ok() {
            check_inside(&to);
            fs::remove_dir_all(&to).unwrap();
            landed += 1;
        }
        assert!(!to.exists());
    });
    assert!(landed > 0);
    assert_eq!(names(&f.host("")), ["canary"], "leftovers");
}

fn check_inside(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let found = fs::symlink_metadata(&path).unwrap();
        assert!(!found.is_symlink(), "{path:?} came along");
        if found.is_dir() {
            check_inside(&path);
        } else {
            assert_eq!(fs::read_to_string(&path).unwrap(), "inside");
        }
    }
}
