//! Trees that a guest makes to harm a walk.

use std::ffi::CString;
use std::fs::{self, Permissions};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, mkdirat, renameat_with};
use rustix::io::Errno;

use super::*;

/// In memory if there is some: directories on a disk take their time.
fn dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

fn open_top(path: &Path) -> OwnedFd {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).unwrap()
}

/// Makes directories one below the other; gives the innermost.
fn nest(top: &Path, depth: usize, name: &str) -> OwnedFd {
    let name = CString::new(name).unwrap();
    let mut at = open_top(top);
    for _ in 0..depth {
        mkdirat(&at, &*name, Mode::RWXU).unwrap();
        at = open_same_mount(&at, name.to_bytes(), DIR_PATH).unwrap();
    }
    at
}

fn gone(path: &Path) {
    assert_eq!(remove(path, None, None).unwrap(), Progress::Gone);
    assert!(fs::symlink_metadata(path).is_err());
}

/// Counts entries and directories.
#[derive(Default)]
struct Count {
    entries: u64,
    entered: u64,
    left: u64,
    deepest: usize,
    cancel_at: Option<(u64, Cancel)>,
}

impl Visitor for Count {
    type Error = Stop;

    fn stopped(&self, stop: Stop) -> Stop {
        stop
    }

    fn enter(&mut self, cursor: &mut Cursor, _name: Option<&[u8]>) -> Result<bool, Stop> {
        self.entered += 1;
        self.deepest = self.deepest.max(cursor.depth());
        Ok(true)
    }

    fn leave(&mut self, _cursor: &mut Cursor) -> Result<(), Stop> {
        self.left += 1;
        Ok(())
    }

    fn entry(&mut self, at: &At<'_>) -> Result<bool, Stop> {
        self.entries += 1;
        if let Some((at, cancel)) = &self.cancel_at
            && self.entries == *at
        {
            cancel.cancel();
        }
        let stat = stat_at(at.dir, at.name)?;
        Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    }
}

fn count(top: &Path, modes: Modes, limits: Limits) -> Result<Count, Stop> {
    let mut count = Count::default();
    let mut cursor = Cursor::layer(&open_top(top), modes)?;
    walk(&mut cursor, limits, &Cancel::default(), &mut count)?;
    Ok(count)
}

#[test]
fn every_directory_is_entered_and_left_once() {
    let dir = dir();
    for n in 0..20 {
        fs::create_dir_all(dir.path().join(format!("{n}/a/b"))).unwrap();
        fs::write(dir.path().join(format!("{n}/a/file")), "").unwrap();
    }
    symlink("/", dir.path().join("3/link")).unwrap();
    let count = count(dir.path(), Modes::Keep, Limits::DEFAULT).unwrap();
    assert_eq!((count.entries, count.entered, count.left), (81, 61, 61));
}

#[test]
fn depth_costs_time_in_proportion() {
    let measure = |depth: usize| {
        let dir = dir();
        nest(dir.path(), depth, "d");
        let start = Instant::now();
        let found = count(dir.path(), Modes::Keep, Limits::DEFAULT).unwrap();
        let took = start.elapsed();
        assert_eq!(found.deepest, depth);
        gone(&dir.keep());
        took
    };
    measure(1_000);
    // What else runs on the machine makes one of them longer, and not the shortest of some.
    let shortest = |depth| (0..5).map(|_| measure(depth)).min().unwrap();
    let (small, large) = (shortest(2_000), shortest(16_000));
    // Going down from the top for each directory, it would be 64 times as long.
    assert!(
        large < 25 * small,
        "{small:?} for 2,000, {large:?} for 16,000"
    );
}

#[test]
fn a_tree_that_is_too_deep_is_an_error_that_says_so() {
    let dir = dir();
    nest(dir.path(), limits::DEEPEST + 1, "d");
    let stop = count(dir.path(), Modes::Keep, Limits::DEFAULT)
        .err()
        .unwrap();
    assert_eq!(
        stop.to_string(),
        "the tree has more than 20000 directories one below the other"
    );
    gone(&dir.keep());
}

#[test]
fn entries_and_waiting_names_are_bounded() {
    let dir = dir();
    for n in 0..100 {
        fs::create_dir(dir.path().join(format!("{n:0>200}"))).unwrap();
    }
    let limited = |limits| {
        count(dir.path(), Modes::Keep, limits)
            .err()
            .unwrap()
            .to_string()
    };
    let few = Limits {
        entries: 99,
        ..Limits::DEFAULT
    };
    assert_eq!(limited(few), "the tree has more than 99 entries");
    let short = Limits {
        names: 10_000,
        ..Limits::DEFAULT
    };
    assert!(limited(short).contains("10000 bytes of names"));
    let enough = Limits {
        depth: 100,
        entries: 100,
        names: 100 * 202,
    };
    assert!(count(dir.path(), Modes::Keep, enough).is_ok());
}

#[test]
fn a_cancelled_walk_stops_at_once_and_gives_back_modes() {
    let dir = dir();
    fs::create_dir_all(dir.path().join("a/b/c/d")).unwrap();
    for n in 0..50 {
        fs::write(dir.path().join(format!("a/b/c/d/{n}")), "").unwrap();
    }
    for closed in ["a/b/c/d", "a/b/c", "a/b", "a"] {
        fs::set_permissions(dir.path().join(closed), Permissions::from_mode(0o100)).unwrap();
    }
    let cancel = Cancel::default();
    let mut stopped = Count {
        cancel_at: Some((20, cancel.clone())),
        ..Count::default()
    };
    let mut cursor = Cursor::layer(&open_top(dir.path()), Modes::Guard).unwrap();
    let result = walk(&mut cursor, Limits::DEFAULT, &cancel, &mut stopped);
    assert!(matches!(result, Err(Stop::Cancelled)), "{result:?}");
    assert_eq!(stopped.entries, 20);
    let mode = |path: &str| fs::metadata(dir.path().join(path)).unwrap().mode() & 0o7777;
    assert_ne!(mode("a"), 0o100, "it is opened up while the walk is in it");
    drop(cursor);
    for closed in ["a", "a/b", "a/b/c", "a/b/c/d"] {
        assert_eq!(mode(closed), 0o100, "{closed}");
    }
    assert_eq!(
        count(dir.path(), Modes::Guard, Limits::DEFAULT)
            .unwrap()
            .entries,
        54
    );
    assert_eq!(mode("a/b/c"), 0o100);
    gone(&dir.keep());
}

#[test]
fn what_is_mounted_below_is_not_entered() {
    // Every Linux has something mounted below `/proc`'s parent; entering it is an error.
    let mut cursor = Cursor::layer(&open_top(Path::new("/")), Modes::Keep).unwrap();
    assert_eq!(cursor.push(b"proc"), Err(Errno::XDEV));
    let top = open_top(Path::new("/"));
    let mut view = Cursor::new(top, DIR_READ, Mounts::Enter);
    assert_eq!(view.push(b"proc"), Ok(()));
}

/// Runs `work` while `a` (a directory that its owner may not read) and `b` (a link to the canary)
/// swap; gives the rounds.
fn attack(dir: &Path, mut work: impl FnMut() -> bool) -> u64 {
    let stop = AtomicBool::new(false);
    let mut rounds = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let (a, b) = (dir.join("tree/a"), dir.join("tree/b"));
                let _ = renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE);
            }
        });
        let start = Instant::now();
        while start.elapsed() < super::tests::race_time() && work() {
            rounds += 1;
        }
        stop.store(true, Ordering::Relaxed);
    });
    rounds
}

/// Time that a race goes on: `SANDBOX_RACE_SECONDS`, or a short time.
pub(crate) fn race_time() -> Duration {
    let seconds = std::env::var("SANDBOX_RACE_SECONDS").ok();
    let seconds = seconds.and_then(|seconds| seconds.parse().ok());
    Duration::from_secs_f64(seconds.unwrap_or(1.0))
}

/// A tree with a closed directory and a link to a directory and a file that are not the guest's.
fn trap() -> tempfile::TempDir {
    let dir = dir();
    fs::create_dir_all(dir.path().join("tree/a")).unwrap();
    fs::create_dir(dir.path().join("canary")).unwrap();
    fs::set_permissions(dir.path().join("tree/a"), Permissions::from_mode(0o4077)).unwrap();
    fs::set_permissions(dir.path().join("canary"), Permissions::from_mode(0o500)).unwrap();
    symlink("../canary", dir.path().join("tree/b")).unwrap();
    dir
}

fn canary(dir: &Path) -> u32 {
    fs::metadata(dir.join("canary")).unwrap().mode() & 0o7777
}

#[test]
fn control_a_mode_that_is_changed_by_name_is_the_link_s_target_s() {
    let dir = trap();
    let rounds = attack(dir.path(), || {
        let tree = open_top(&dir.path().join("tree"));
        let name = c"a";
        let stat = stat_at(&tree, name).unwrap();
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
            let open = mode | Mode::RWXU;
            let _ = rustix::fs::chmodat(&tree, name, open, AtFlags::empty());
            let _ = rustix::fs::chmodat(&tree, name, mode, AtFlags::empty());
        }
        canary(dir.path()) == 0o500
    });
    assert_ne!(canary(dir.path()), 0o500, "not within {rounds} rounds");
}

#[test]
fn a_walk_never_changes_the_mode_of_what_a_link_leads_to() {
    let dir = trap();
    let mut entered = 0;
    let rounds = attack(dir.path(), || {
        if let Ok(count) = count(&dir.path().join("tree"), Modes::Guard, Limits::DEFAULT) {
            entered += count.entered - 1;
        }
        canary(dir.path()) == 0o500
    });
    assert_eq!(canary(dir.path()), 0o500);
    assert!(rounds > 100 && entered > 10, "{entered} in {rounds} rounds");
    for name in ["a", "b"] {
        let found = fs::symlink_metadata(dir.path().join("tree").join(name)).unwrap();
        assert!(!found.is_dir() || found.mode() & 0o7777 == 0o4077);
    }
}

#[test]
fn a_removal_never_changes_the_mode_of_what_a_link_leads_to() {
    let dir = trap();
    let tree = dir.path().join("tree");
    let mut found = 0;
    let rounds = attack(dir.path(), || {
        // What a removal opens first, and what it does to what it moves.
        let top = open_top(&tree);
        if let Ok(opened) = super::beneath::open_dir(top.as_fd(), b"a", true) {
            found += 1;
            if let Some(mode) = opened.closed {
                set_mode(&opened.dir, mode).unwrap();
            }
        }
        canary(dir.path()) == 0o500
    });
    assert_eq!(canary(dir.path()), 0o500);
    assert!(rounds > 100 && found > 10, "{found} in {rounds} rounds");
    gone(&tree);
    assert!(dir.path().join("canary").exists());
}

#[test]
fn directories_without_permissions_are_removed() {
    let dir = dir();
    let top = dir.path().join("top");
    fs::create_dir_all(top.join("a/b")).unwrap();
    fs::write(top.join("a/b/c"), "x").unwrap();
    for locked in ["a/b", "a", ""] {
        fs::set_permissions(top.join(locked), Permissions::from_mode(0o0)).unwrap();
    }
    gone(&top);
}

#[test]
fn a_link_is_removed_and_its_target_stays() {
    let dir = dir();
    fs::create_dir(dir.path().join("target")).unwrap();
    symlink(dir.path().join("target"), dir.path().join("link")).unwrap();
    gone(&dir.path().join("link"));
    assert!(dir.path().join("target").exists());
}

#[test]
fn a_removal_of_any_depth_costs_neither_stack_nor_descriptors() {
    let dir = dir();
    let top = dir.path().join("top");
    fs::create_dir(&top).unwrap();
    let at = nest(&top, 40_000, "d");
    rustix::fs::symlinkat(c"/", &at, c"link").unwrap();
    gone(&top);
}

#[test]
fn a_wide_tree_is_removed_and_what_is_kept_goes_last() {
    let dir = dir();
    let top = dir.path().join("top");
    for n in 0..40 {
        fs::create_dir_all(top.join(format!("{n}/a/b"))).unwrap();
        fs::write(top.join(format!("{n}/a/file")), "x").unwrap();
    }
    fs::write(top.join("lease"), "x").unwrap();
    let keep = Some(c"lease");
    let mut slices = 0;
    while remove(&top, keep, Some(Instant::now())).unwrap() == Progress::Left {
        slices += 1;
        assert!(top.join("lease").exists() && slices < 1000);
    }
    assert!(slices > 50, "{slices}");
    assert!(!top.exists());
}
