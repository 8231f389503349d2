//! Patches against git itself, and changes put in place on the host.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use sandbox_core::{Change, Changes, ErrorKind, FileKind, FileVersion, Mode};
use tempfile::TempDir;

use super::*;

fn file(content: impl Into<Vec<u8>>) -> FileVersion {
    let content = content.into();
    FileVersion::new(FileKind::File, Mode::FILE, content.len() as u64).content(content)
}

fn runnable(content: &str) -> FileVersion {
    let mut file = file(content);
    file.mode = Mode::EXECUTABLE;
    file
}

fn link(target: &str) -> FileVersion {
    FileVersion::new(FileKind::Symlink, Mode::new(0o777), 0).link_target(target)
}

fn dir() -> FileVersion {
    FileVersion::new(FileKind::Directory, Mode::new(0o755), 0)
}

/// Every kind of change that a patch can say, with what the names and contents make hard.
fn all_sorts() -> Vec<(Change, &'static str)> {
    let many: String = (0..400).map(|n| format!("line {n}\n")).collect();
    let edited = many
        .replace("line 7\n", "seven\n")
        .replace("line 300\n", "");
    let binary: Vec<u8> = (0..5_000_u32).map(|n| (n * n % 251) as u8).collect();
    let mut other = binary.clone();
    other[100] = 0;
    let with = |path: &str, before, after| Change::new(path, before, after);
    vec![
        (with("added", None, Some(file("a\nb\n"))), ""),
        (with("deep/er/added", None, Some(file("x"))), ""),
        (with("empty", None, Some(file(""))), ""),
        (with("emptied", Some(file("x\n")), Some(file(""))), ""),
        (with("filled", Some(file("")), Some(file("x\n"))), ""),
        (with("gone", Some(file("x\ny")), None), ""),
        (with("gone-empty", Some(file("")), None), ""),
        (with("edited", Some(file(many)), Some(file(edited))), ""),
        (with("no-newline", Some(file("a")), Some(file("a\nb"))), ""),
        (with("mode", Some(file("x\n")), Some(runnable("x\n"))), ""),
        (
            with("mode-too", Some(file("x\n")), Some(runnable("y\n"))),
            "",
        ),
        (
            with("binary", Some(file(binary.clone())), Some(file(other))),
            "",
        ),
        (with("binary-added", None, Some(file(binary.clone()))), ""),
        (with("binary-gone", Some(file(binary)), None), ""),
        (
            with(
                "latin",
                Some(file(b"gr\xfc\xdfe\n".to_vec())),
                Some(file("x\n")),
            ),
            "",
        ),
        (
            with("crlf", Some(file("a\r\nb\r\n")), Some(file("a\nb\r\n"))),
            "",
        ),
        (with("link", None, Some(link("added"))), ""),
        (with("link-moved", Some(link("a")), Some(link("b"))), ""),
        (with("link-gone", Some(link("a")), None), ""),
        (
            with("file-to-link", Some(file("x\n")), Some(link("added"))),
            "",
        ),
        (with("a b/c d", Some(file("x\n")), Some(file("y\n"))), ""),
        (with("tab\tnew\nline", None, Some(file("x\n"))), ""),
        (
            with("quote\"back\\slash", Some(file("x\n")), Some(file("y\n"))),
            "",
        ),
        (
            Change::new(&b"not \xff utf8"[..], None, Some(file("x\n"))),
            "",
        ),
        (with("ends/in/blank ", None, Some(file("x\n"))), ""),
        (with("-rf", None, Some(file("x\n"))), ""),
    ]
}

fn git(dir: &Path, args: &[&str]) -> String {
    let mut command = Command::new("git");
    command
        .current_dir(dir)
        .args(args)
        .env("GIT_CONFIG_NOSYSTEM", "1");
    command
        .env("HOME", dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null");
    let output = command.output().expect("git is needed for this test");
    assert!(
        output.status.success(),
        "git {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A directory that has one side of the changes.
fn side(changes: &Changes, after: bool) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for change in &changes.entries {
        let side = if after { &change.after } else { &change.before };
        let Some(side) = side else { continue };
        let at = dir
            .path()
            .join(std::ffi::OsStr::from_encoded_bytes_checked(&change.path));
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        match side.kind {
            FileKind::Symlink => {
                let target = side.link_target.clone().unwrap();
                symlink(target.to_str().unwrap(), at).unwrap();
            }
            FileKind::Directory => std::fs::create_dir_all(at).unwrap(),
            _ => {
                std::fs::write(&at, side.content.as_deref().unwrap()).unwrap();
                let mode = std::fs::Permissions::from_mode(side.mode.bits());
                std::fs::set_permissions(at, mode).unwrap();
            }
        }
    }
    dir
}

trait FromBytes {
    fn from_encoded_bytes_checked(path: &sandbox_core::GuestPath) -> &std::ffi::OsStr;
}

impl FromBytes for std::ffi::OsStr {
    fn from_encoded_bytes_checked(path: &sandbox_core::GuestPath) -> &std::ffi::OsStr {
        std::os::unix::ffi::OsStrExt::from_bytes(path.as_bytes())
    }
}

/// Every entry with its kind, mode and content, but for git's own directory.
fn contents(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(at) = todo.pop() {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let meta = std::fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(dir).unwrap().to_owned();
            if name == Path::new(".git") {
                continue;
            }
            if meta.is_dir() {
                todo.push(path);
            } else if meta.is_symlink() {
                found.push(format!(
                    "{name:?} -> {:?}",
                    std::fs::read_link(path).unwrap()
                ));
            } else {
                let run = meta.permissions().mode() & 0o100 != 0;
                found.push(format!("{name:?} {run} {:?}", std::fs::read(path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn git_applies_every_patch_and_the_result_is_the_other_side() {
    let all = all_sorts().into_iter().map(|(change, _)| change).collect();
    applies(&Changes::new("/w").entries(all), "all of them");
}

fn applies(changes: &Changes, what: &str) {
    let (before, after) = (side(changes, false), side(changes, true));
    let patch = git_patch(changes).unwrap();
    assert_eq!(patch.left_out, [], "{what}");
    git(before.path(), &["init", "-q"]);
    let written = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(written.path(), &patch.text).unwrap();
    let path = written.path().to_str().unwrap();
    git(before.path(), &["apply", "--check", path]);
    git(before.path(), &["apply", "--whitespace=nowarn", path]);
    assert_eq!(contents(before.path()), contents(after.path()), "{what}");
    // And back again, for which binary files have both of their sides in it.
    git(before.path(), &["apply", "--whitespace=nowarn", "-R", path]);
    assert_eq!(
        contents(before.path()),
        contents(side(changes, false).path()),
        "{what}"
    );
}

#[test]
fn what_a_patch_can_not_say_is_listed() {
    let mut private = file("x");
    private.mode = Mode::new(0o600);
    let fifo = FileVersion::new(FileKind::Fifo, Mode::FILE, 0);
    let changes = Changes::new("/w").entries(vec![
        Change::new("dir", None, Some(dir())),
        Change::new("fifo", None, Some(fifo)),
        Change::new("private", Some(file("x")), Some(private)),
    ]);
    let patch = git_patch(&changes).unwrap();
    assert!(patch.text.is_empty());
    let left: Vec<String> = patch
        .left_out
        .iter()
        .map(|left| left.path.to_string())
        .collect();
    assert_eq!(left, ["dir", "fifo", "private"]);
    let without = FileVersion::new(FileKind::File, Mode::FILE, 1);
    let changes = Changes::new("/w").entries(vec![Change::new("a", None, Some(without))]);
    assert_eq!(
        git_patch(&changes).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
}

fn apply(changes: Vec<Change>, dir: &Path) -> ApplyReport {
    apply_to_dir(
        &Changes::new("/w").entries(changes),
        dir,
        &ApplyOptions::new(),
    )
    .unwrap()
}

#[test]
fn changes_come_to_a_directory_and_a_second_time_is_nothing() {
    let mut entries: Vec<Change> = all_sorts().into_iter().map(|(change, _)| change).collect();
    for made in ["deep", "deep/er", "ends", "ends/in"] {
        entries.push(Change::new(made, None, Some(dir())));
    }
    let changes = Changes::new("/w").entries(entries);
    let (before, after) = (side(&changes, false), side(&changes, true));
    // What is not of the changes stays.
    std::fs::write(before.path().join("other"), "kept").unwrap();
    std::fs::write(after.path().join("other"), "kept").unwrap();
    let count = changes.entries.len();
    let report = apply_to_dir(&changes, before.path(), &ApplyOptions::new()).unwrap();
    assert_eq!(report.conflicts, []);
    assert_eq!(report.left_out, []);
    assert_eq!(report.applied.len(), count);
    assert_eq!(contents(before.path()), contents(after.path()));
    let report = apply_to_dir(&changes, before.path(), &ApplyOptions::new()).unwrap();
    assert_eq!((report.applied.len(), report.unchanged.len()), (0, count));
}

#[test]
fn kinds_change_places() {
    let entries = vec![
        Change::new("d", Some(dir()), Some(file("now a file"))),
        Change::new("d/a", Some(file("1")), None),
        Change::new("d/e", Some(dir()), None),
        Change::new("d/e/b", Some(file("2")), None),
        Change::new("f", Some(file("3")), Some(dir())),
        Change::new("f/inside", None, Some(file("4"))),
    ];
    let changes = Changes::new("/w").entries(entries);
    let before = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(before.path().join("d/e")).unwrap();
    std::fs::write(before.path().join("d/a"), "1").unwrap();
    std::fs::write(before.path().join("d/e/b"), "2").unwrap();
    std::fs::write(before.path().join("f"), "3").unwrap();
    let report = apply_to_dir(&changes, before.path(), &ApplyOptions::new()).unwrap();
    assert_eq!(report.conflicts, []);
    assert_eq!(contents(before.path()).len(), 2);
    assert_eq!(
        std::fs::read(before.path().join("d")).unwrap(),
        b"now a file"
    );
    assert_eq!(std::fs::read(before.path().join("f/inside")).unwrap(), b"4");
}

/// An entry that the changes don't know of would be in the way when half of the rest is gone.
#[test]
fn a_directory_that_becomes_a_file_and_has_something_else_in_it_is_a_conflict() {
    let changes = || {
        vec![
            Change::new("d", Some(dir()), Some(file("now a file"))),
            Change::new("d/a", Some(file("1")), None),
            Change::new("d/e", Some(dir()), None),
            Change::new("d/e/b", Some(file("2")), None),
        ]
    };
    for other in ["d/theirs", "d/e/theirs", "d/.envrc"] {
        let target = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(target.path().join("d/e")).unwrap();
        std::fs::write(target.path().join("d/a"), "1").unwrap();
        std::fs::write(target.path().join("d/e/b"), "2").unwrap();
        std::fs::write(target.path().join(other), "3").unwrap();
        let before = contents(target.path());
        let mut changes = changes();
        if other == "d/.envrc" {
            // Known, and left out.
            changes.push(Change::new(other, Some(file("3")), None));
        }
        let report = apply(changes, target.path());
        assert_eq!(report.conflicts.len(), 1, "{other}: {report:?}");
        assert!(
            report.conflicts[0].reason.contains("something else in it"),
            "{report:?}"
        );
        assert_eq!(contents(target.path()), before, "{other}");
    }
}

/// Untrusted code decides how many entries change their kind.
#[test]
fn many_directories_that_become_files_take_time_by_their_number() {
    let number = 20_000;
    let mut changes = Vec::new();
    for at in 0..number {
        changes.push(Change::new(format!("d{at}"), Some(dir()), Some(file(""))));
        changes.push(Change::new(format!("e{at}"), Some(file("")), None));
    }
    let take: Vec<&Change> = changes.iter().collect();
    let cleared = super::plan::Cleared::of(&take);
    let start = std::time::Instant::now();
    let has = take.iter().filter(|change| cleared.has(change)).count();
    let below = take
        .iter()
        .filter(|change| cleared.is_below(change))
        .count();
    assert_eq!((has, below), (number, 0));
    assert!(start.elapsed() < std::time::Duration::from_secs(20));
}

#[test]
fn a_conflict_is_listed_and_nothing_is_written() {
    let target = tempfile::tempdir().unwrap();
    let at = |name: &str| target.path().join(name);
    std::fs::write(at("edited"), "theirs\n").unwrap();
    std::fs::write(at("in-the-way"), "x").unwrap();
    std::fs::write(at("same"), "a\n").unwrap();
    std::fs::write(at("mode"), "y\n").unwrap();
    std::fs::create_dir(at("a-dir")).unwrap();
    symlink("/etc", at("linked")).unwrap();
    let before = contents(target.path());
    let report = apply(
        vec![
            Change::new("edited", Some(file("a\n")), Some(file("b\n"))),
            Change::new("in-the-way", None, Some(file("b\n"))),
            Change::new("missing", Some(file("a\n")), Some(file("b\n"))),
            Change::new("mode", Some(file("x\n")), Some(runnable("x\n"))),
            Change::new("a-dir", None, Some(file("b\n"))),
            Change::new("linked/passwd", None, Some(file("b\n"))),
            Change::new("no-such/f", None, Some(file("b\n"))),
            Change::new("same", Some(file("a\n")), Some(file("b\n"))),
        ],
        target.path(),
    );
    let paths: Vec<String> = report
        .conflicts
        .iter()
        .map(|c| c.path.to_string())
        .collect();
    let expected = [
        "a-dir",
        "edited",
        "in-the-way",
        "linked/passwd",
        "missing",
        "mode",
        "no-such/f",
    ];
    assert_eq!(paths, expected);
    assert_eq!(contents(target.path()), before, "something was written");
}

#[test]
fn what_is_hostile_never_comes() {
    let target = tempfile::tempdir().unwrap();
    let outside = target.path().join("outside");
    std::fs::create_dir_all(outside.join("in")).unwrap();
    let inner = target.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    let fifo = FileVersion::new(FileKind::Fifo, Mode::FILE, 0);
    let device = FileVersion::new(FileKind::Device, Mode::FILE, 0);
    let report = apply(
        vec![
            Change::new("../outside/x", None, Some(file("b"))),
            Change::new("a/../../outside/x", None, Some(file("b"))),
            Change::new("/etc/x", None, Some(file("b"))),
            Change::new("a\0b", None, Some(file("b"))),
            Change::new("", None, Some(file("b"))),
            Change::new("abs", None, Some(link("/etc/passwd"))),
            Change::new("up", None, Some(link("../outside"))),
            Change::new("fifo", None, Some(fifo)),
            Change::new("device", None, Some(device)),
        ],
        &inner,
    );
    assert_eq!(report.left_out.len(), 9);
    assert_eq!(report.applied, []);
    assert_eq!(contents(target.path()), Vec::<String>::new());
    // A link that was harmless, and then has something put through it.
    let report = apply(
        vec![
            Change::new("l", None, Some(link("in"))),
            Change::new("l/x", None, Some(file("b"))),
        ],
        &outside,
    );
    assert_eq!(report.conflicts.len(), 1, "{report:?}");
}

#[test]
fn no_set_user_id_bit_comes_to_the_host() {
    let target = tempfile::tempdir().unwrap();
    let mut setuid = file("x");
    setuid.mode = Mode::new(0o6755);
    let report = apply(vec![Change::new("s", None, Some(setuid))], target.path());
    assert_eq!(report.applied.len(), 1);
    let mode = std::fs::metadata(target.path().join("s"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o755);
}

#[test]
fn hooks_and_ci_files_come_only_if_asked_for() {
    let target = tempfile::tempdir().unwrap();
    let changes = Changes::new("/w").entries(vec![
        Change::new(".git", None, Some(dir())),
        Change::new(".git/hooks", None, Some(dir())),
        Change::new(".git/hooks/pre-commit", None, Some(runnable("#!/bin/sh\n"))),
        Change::new(".envrc", None, Some(file("x"))),
        Change::new("ok", None, Some(file("x"))),
    ]);
    let report = apply_to_dir(&changes, target.path(), &ApplyOptions::new()).unwrap();
    assert_eq!((report.applied.len(), report.automation.len()), (1, 4));
    assert_eq!(contents(target.path()).len(), 1);
    let options = ApplyOptions::new().automation(true);
    let report = apply_to_dir(&changes, target.path(), &options).unwrap();
    assert_eq!((report.applied.len(), report.unchanged.len()), (4, 1));
}

#[test]
fn a_dry_run_writes_nothing() {
    let target = tempfile::tempdir().unwrap();
    let changes = Changes::new("/w").entries(vec![Change::new("a", None, Some(file("x")))]);
    let options = ApplyOptions::new().dry_run(true);
    let report = apply_to_dir(&changes, target.path(), &options).unwrap();
    assert_eq!(report.applied.len(), 1);
    assert_eq!(contents(target.path()), Vec::<String>::new());
}

/// Whichever call fails: each entry has its old content or its new one, and a second time does the
/// rest.
#[test]
fn a_failure_leaves_nothing_by_half() {
    use crate::fault::{Failing, set, was_due};
    for exchange in [true, false] {
        // Every call, and some where the platform can't exchange.
        let step = if exchange { 1 } else { 7 };
        for n in (0..).step_by(step) {
            let entries: Vec<Change> = all_sorts()
                .into_iter()
                .map(|(change, _)| change)
                .filter(|change| change.path.parent().is_none())
                .collect();
            let changes = Changes::new("/w").entries(entries);
            let (target, before) = (side(&changes, false), side(&changes, false));
            let after = side(&changes, true);
            set(Failing::Once(n), exchange);
            let applied = apply_to_dir(&changes, target.path(), &ApplyOptions::new());
            let due = was_due();
            set(Failing::Never, true);
            let (old, new) = (contents(before.path()), contents(after.path()));
            let is_stage = |line: &String| line.starts_with("\".sandbox-apply-");
            for line in contents(target.path())
                .iter()
                .filter(|line| !is_stage(line))
            {
                assert!(old.contains(line) || new.contains(line), "call {n}: {line}");
            }
            if !due {
                assert!(applied.is_ok());
                break;
            }
            let report = apply_to_dir(&changes, target.path(), &ApplyOptions::new()).unwrap();
            assert_eq!(report.conflicts, [], "call {n}");
            let mut now = contents(target.path());
            now.retain(|line| !is_stage(line));
            assert_eq!(now, new, "call {n}");
        }
    }
}
