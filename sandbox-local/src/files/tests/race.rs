//! A guest that swaps a directory and a link out of its root all the time, while the host works
//! on a path through it. A naive host that checks and then opens must be seen to lose.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use sandbox_core::{
    ExportOptions, FileBatch, GuestPath, ImportOptions, ListOptions, MetadataOptions, ReadOptions,
    RemoveOptions,
};

use super::{Fixture, names, path, put};
use crate::walk::Cancel;

/// Time that each operation is attacked, if that is enough to have seen something.
const TIME: Duration = Duration::from_millis(400);
/// Time that a busy machine gets for that.
const AT_MOST: Duration = Duration::from_secs(60);
const SECRET: &str = "the host's";

/// Rounds of each operation at least: `SANDBOX_RACE_ROUNDS`, or a few.
fn least_rounds() -> u64 {
    let rounds = std::env::var("SANDBOX_RACE_ROUNDS").ok();
    rounds.and_then(|rounds| rounds.parse().ok()).unwrap_or(10)
}

/// Attacks `work`, and then finds the canary as it was.
fn attack(f: &Fixture, name: &str, work: impl FnMut() -> bool) {
    race(f, name, work);
    assert_eq!(names(&f.host("canary")), ["f", "sub"], "{name}");
    assert_eq!(names(&f.host("canary/sub")), ["g"], "{name}");
    assert_eq!(fs::read_to_string(f.host("canary/f")).unwrap(), SECRET);
}

/// Runs `work` until time is up, while `a` (a directory) and `b` (a link to the canary) swap. It
/// says whether it has seen what it is for.
fn race(f: &Fixture, name: &str, mut work: impl FnMut() -> bool) {
    put(&f.host("canary/f"), SECRET);
    put(&f.host("canary/sub/g"), SECRET);
    let stop = AtomicBool::new(false);
    let (mut rounds, mut seen, swaps) = (0_u64, false, AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let (a, b) = (f.root("a"), f.root("b"));
                let _ = renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE);
                swaps.fetch_add(1, Ordering::Relaxed);
            }
        });
        let _stop = Stop(&stop);
        let start = Instant::now();
        let least = least_rounds();
        let raced = |rounds: u64| rounds > 10 && swaps.load(Ordering::Relaxed) > 100;
        while start.elapsed() < TIME
            || rounds < least
            || start.elapsed() < AT_MOST && !(seen && raced(rounds))
        {
            seen |= work();
            rounds += 1;
        }
    });
    let swaps = swaps.into_inner();
    println!("{name}: {rounds} rounds against {swaps} swaps");
    assert!(rounds > 10 && swaps > 100, "{rounds} rounds, {swaps} swaps");
    assert!(seen, "{name}: it never went through");
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
    // If it never goes through, the attack does not work and the tests beside this show nothing.
    attack(&f, "control", || {
        let dir = f.root("a");
        fs::symlink_metadata(&dir).is_ok_and(|found| found.is_dir())
            && fs::read_to_string(dir.join("f")).is_ok_and(|text| text == SECRET)
    });
}

/// Looks at each name before it goes on by it, as a naive host would.
fn naive_walk(dir: &Path, on_file: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => naive_walk(&path, on_file),
            Ok(found) if found.is_file() => on_file(&path),
            _ => {}
        }
    }
}

#[test]
fn control_naive_removal_escapes() {
    let f = fixture();
    race(&f, "naive removal", || {
        naive_walk(&f.root("a"), &mut |file| drop(fs::remove_file(file)));
        let is_gone = !f.host("canary/f").exists() || !f.host("canary/sub/g").exists();
        for file in [
            f.root("a/f"),
            f.root("a/sub/g"),
            f.host("canary/f"),
            f.host("canary/sub/g"),
        ] {
            drop(fs::write(file, "again"));
        }
        is_gone
    });
}

#[test]
fn control_naive_export_escapes() {
    let f = fixture();
    race(&f, "naive export", || {
        let mut carries_secret = false;
        naive_walk(&f.root(""), &mut |file| {
            carries_secret |= fs::read_to_string(file).is_ok_and(|text| text == SECRET);
        });
        carries_secret
    });
}

#[test]
fn control_naive_import_escapes() {
    let f = fixture();
    race(&f, "naive import", || {
        let dir = f.root("a");
        if fs::symlink_metadata(&dir).is_ok_and(|found| found.is_dir()) {
            drop(fs::write(dir.join("new"), "brought"));
        }
        fs::remove_file(f.host("canary/new")).is_ok()
    });
}

#[test]
fn read_never_leaves_the_root() {
    let f = fixture();
    attack(&f, "read", || {
        let read = f.guest.read(&path("/a/f"), &ReadOptions::new());
        if let Ok(content) = &read {
            assert_eq!(content, "inside");
        }
        read.is_ok()
    });
}

#[test]
fn write_never_leaves_the_root() {
    let f = fixture();
    attack(&f, "write", || {
        let batch = FileBatch::new()
            .file("/a/f", "inside")
            .file("/a/new", "x")
            .file("/a/sub/deep/x", "x");
        // That a whole batch gets through is luck.
        let _ = f.write(batch);
        true
    });
}

#[test]
fn list_never_leaves_the_root() {
    let f = fixture();
    put(&f.host("canary/f"), SECRET);
    attack(&f, "list", || {
        let listed = f
            .guest
            .list(&path("/"), &ListOptions::new().recursive(true));
        let listed = listed.unwrap_or_default();
        for entry in &listed {
            // The link is there under one of the two names; nothing is ever below it.
            if entry.metadata.is_file() {
                assert_eq!(entry.metadata.size, "inside".len() as u64, "{entry:?}");
            }
        }
        !listed.is_empty()
    });
}

#[test]
fn remove_never_leaves_the_root() {
    let f = fixture();
    attack(&f, "remove", || {
        let recursive = RemoveOptions::new().recursive(true);
        let _ = f.guest.remove(&path("/a/f"), &recursive);
        let _ = f.guest.remove(&path("/a/sub"), &recursive);
        let _ = f.guest.remove(&path("/b/sub"), &recursive);
        // Put back whatever went, in whichever of the two is the directory.
        for dir in ["/a", "/b"] {
            if f.guest
                .metadata(&path(dir), &MetadataOptions::new())
                .is_ok_and(|found| found.is_dir())
            {
                let _ = f.write(FileBatch::new().file(format!("{dir}/sub/g"), "inside"));
            }
        }
        true
    });
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
        let start = Instant::now();
        let mut rounds = 0_u64;
        let least = least_rounds();
        while start.elapsed() < TIME || rounds < least || rounds <= 10 && start.elapsed() < AT_MOST
        {
            for n in 0..5 {
                let _ = fs::create_dir_all(f.root(&format!("t/d/{n}")));
                let _ = fs::write(f.root(&format!("t/e{n}")), "");
            }
            let _ = symlink("../../host/canary", f.root("l"));
            let _ = f
                .guest
                .remove(&path("/t"), &RemoveOptions::new().recursive(true));
            let _ = f
                .guest
                .remove(&path("/l"), &RemoveOptions::new().recursive(true));
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
        let options = ImportOptions::new().mirror(true);
        let _ = f.guest.import(&f.host("src"), &path("/a"), &options);
        let _ = f.guest.import(&f.host("src"), &path("/a/sub"), &options);
        let _ = f.guest.create_dir(&path("/a/x/y"), &Default::default());
        let _ = f.guest.rename(
            &path("/a/f"),
            &GuestPath::from("/a/sub/f"),
            &Default::default(),
        );
        true
    });
}

#[test]
fn export_never_leaves_the_root() {
    let f = fixture();
    let to = f.host("out");
    attack(&f, "export", || {
        let options = ExportOptions::new();
        let done = f
            .guest
            .export(&path("/"), &to, &options, &Cancel::default());
        if done.is_ok() {
            check_inside(&to);
            fs::remove_dir_all(&to).unwrap();
        }
        assert!(!to.exists());
        done.is_ok()
    });
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
