//! Writing: contents, modes, refusals, all or nothing.

use std::fs;
use std::os::unix::fs::symlink;

use sandbox_core::{ErrorKind, FileBatch, Mode};

use super::{Fixture, fails, mkfifo, mode, set_mode};

#[test]
fn files_and_their_parents_are_made_with_default_or_given_modes() {
    let f = Fixture::new();
    f.put("there/already", "old");
    set_mode(&f.root("there/already"), 0o640);
    f.write(
        FileBatch::new()
            .file("there/already", "new")
            .file("there/x/y/z", "z")
            .file("there/x/w", "w")
            .file("top", "")
            .file_with_mode("there/run", "#!", Mode::new(0o777))
            .file_with_mode("fresh/ro", "r", Mode::new(0o400)),
    )
    .unwrap();
    assert_eq!(f.text("there/already").unwrap(), "new");
    assert_eq!(f.text("there/x/y/z").unwrap(), "z");
    assert_eq!(f.text("there/x/w").unwrap(), "w");
    for (path, expected) in [
        ("there/already", 0o640),
        ("there/x", 0o755),
        ("there/x/y", 0o755),
        ("there/x/y/z", 0o644),
        ("top", 0o644),
        ("there/run", 0o777),
        ("fresh/ro", 0o400),
    ] {
        assert_eq!(mode(&f.root(path)), expected, "{path}");
    }
    assert_eq!(f.names(""), ["fresh", "there", "top"]);
    assert_eq!(f.names("there"), ["already", "run", "x"]);
}

#[test]
fn a_link_at_the_name_is_replaced_and_links_among_the_parents_are_followed_inside() {
    let f = Fixture::new();
    f.put("real/target", "kept");
    fs::write(f.host("victim"), "kept").unwrap();
    symlink("target", f.root("real/link")).unwrap();
    symlink(f.host("victim"), f.root("real/out")).unwrap();
    symlink("/real", f.root("by")).unwrap();
    symlink("../host", f.root("escape")).unwrap();
    f.write(
        FileBatch::new()
            .file("by/link", "1")
            .file("real/out", "2")
            .file("by/new/x", "3")
            .file("real/new/y", "4"),
    )
    .unwrap();
    assert_eq!(f.text("real/target").unwrap(), "kept");
    assert_eq!(fs::read_to_string(f.host("victim")).unwrap(), "kept");
    assert_eq!(f.text("real/link").unwrap(), "1");
    assert_eq!(f.text("real/out").unwrap(), "2");
    assert_eq!(f.names("real/new"), ["x", "y"]);
    // A link to nothing (here because it would lead out) is no directory.
    fails(
        f.write(FileBatch::new().file("escape/x", "")),
        ErrorKind::NotADirectory,
        "/escape/x",
    );
    assert_eq!(super::names(&f.host("")), ["victim"]);
}

#[test]
fn what_cannot_be_replaced_has_its_own_kind() {
    let f = Fixture::new();
    fs::create_dir(f.root("dir")).unwrap();
    f.put("file", "");
    mkfifo(&f.root("fifo"));
    let write = |batch| f.write(batch);
    let new = FileBatch::new;
    fails(
        write(new().file("dir", "")),
        ErrorKind::IsADirectory,
        "/dir",
    );
    fails(
        write(new().file("file/x", "")),
        ErrorKind::NotADirectory,
        "/file/x",
    );
    fails(
        write(new().new_file("file", "")),
        ErrorKind::AlreadyExists,
        "/file",
    );
    fails(
        write(new().file("fifo", "")),
        ErrorKind::NotARegularFile,
        "/fifo",
    );
    write(new().new_file("made", "1")).unwrap();
    assert_eq!(f.text("made").unwrap(), "1");
}

#[test]
fn a_batch_that_fails_leaves_nothing_and_changes_nothing() {
    let f = Fixture::new();
    f.put("a", "old a");
    f.put("b", "old b");
    fs::create_dir(f.root("taken")).unwrap();
    let before = fs::metadata(f.root("a")).unwrap();
    // The last one is refused beforehand …
    let batch = FileBatch::new()
        .file("a", "new")
        .file("deep/er/c", "new")
        .file("taken", "x");
    fails(f.write(batch), ErrorKind::IsADirectory, "/taken");
    // … and this one only while putting in place: its directory exists twice in the batch.
    symlink("/", f.root("me")).unwrap();
    let batch = FileBatch::new()
        .file("a", "new")
        .file("b", "new")
        .file("deep/er/c", "new")
        .new_file("n", "first")
        .new_file("me/n", "second");
    fails(f.write(batch), ErrorKind::AlreadyExists, "/me/n");
    assert_eq!(f.text("a").unwrap(), "old a");
    assert_eq!(f.text("b").unwrap(), "old b");
    assert_eq!(f.names(""), ["a", "b", "me", "taken"]);
    use std::os::unix::fs::MetadataExt as _;
    assert_eq!(before.ino(), fs::metadata(f.root("a")).unwrap().ino());
}

#[test]
fn replaced_files_come_back_when_a_later_replacement_fails() {
    let f = Fixture::new();
    f.put("a", "old a");
    f.put("z/z", "old z");
    symlink("/z", f.root("me")).unwrap();
    // The same file twice: the second replaces the first's, then the third fails.
    let batch = FileBatch::new()
        .file("a", "new a")
        .file("z/z", "new z")
        .file("me/z", "newer z")
        .new_file("z/n", "")
        .new_file("me/n", "");
    fails(f.write(batch), ErrorKind::AlreadyExists, "/me/n");
    assert_eq!(f.text("a").unwrap(), "old a");
    assert_eq!(f.text("z/z").unwrap(), "old z");
    assert_eq!(f.names("z"), ["z"]);
}

#[test]
fn many_files_over_old_ones_and_in_many_directories() {
    let f = Fixture::new();
    let batch = |content: &str| {
        (0..600).fold(FileBatch::new(), |batch, n| {
            batch.file(format!("one/{n}"), content.to_owned())
        })
    };
    f.write(batch("1")).unwrap();
    f.write(batch("2")).unwrap();
    assert_eq!(f.names("one").len(), 600);
    assert!((0..600).all(|n| f.text(&format!("one/{n}")).unwrap() == "2"));
    for n in 0..600 {
        fs::create_dir_all(f.root(&format!("many/{n}"))).unwrap();
    }
    let spread = (0..600).fold(FileBatch::new(), |batch, n| {
        batch.file(format!("many/{n}/f"), "x")
    });
    f.write(spread.clone()).unwrap();
    f.write(spread).unwrap();
    assert!((0..600).all(|n| f.names(&format!("many/{n}")) == ["f"]));
}

#[test]
fn an_empty_batch_is_fine() {
    Fixture::new().write(FileBatch::new()).unwrap();
}
