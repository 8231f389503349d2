//! Creating directories, renaming, describing, working directories.

use std::fs;
use std::os::unix::fs::symlink;

use sandbox_core::{
    CreateDirOptions, ErrorKind, FileKind, MetadataOptions, Mode, Operation, RenameOptions,
};

use super::{Fixture, fails, mode, path};

#[test]
fn create_makes_parents_and_is_content_with_what_is_there() {
    let f = Fixture::new();
    f.put("file", "");
    symlink("/a/b", f.root("link")).unwrap();
    symlink("../host/x", f.root("dangling")).unwrap();
    let create = |at: &str| {
        let options = CreateDirOptions::new().mode(Mode::new(0o1777));
        f.guest.create_dir(&path(at), &options)
    };
    create("/a/b/c").unwrap();
    assert_eq!(mode(&f.root("a")), 0o755);
    assert_eq!(mode(&f.root("a/b/c")), 0o1777);
    create("/a/b").unwrap();
    assert_eq!(
        mode(&f.root("a/b")),
        0o755,
        "an existing one keeps its mode"
    );
    create("/link/d").unwrap();
    assert_eq!(f.names("a/b"), ["c", "d"]);
    create("/link").unwrap();
    create("/").unwrap();
    fails(create("/file"), ErrorKind::AlreadyExists, "/file");
    fails(create("/file/x"), ErrorKind::NotADirectory, "/file/x");
    fails(create("/file/x/y"), ErrorKind::NotADirectory, "/file/x/y");
    fails(create("/dangling"), ErrorKind::AlreadyExists, "/dangling");
    fails(
        create("/dangling/y"),
        ErrorKind::NotADirectory,
        "/dangling/y",
    );
    assert!(super::names(&f.host("")).is_empty());
}

#[test]
fn create_exclusive_makes_exactly_one() {
    let f = Fixture::new();
    let create = |at: &str| {
        f.guest
            .create_dir(&path(at), &CreateDirOptions::new().recursive(false))
    };
    create("/a").unwrap();
    fails(create("/a"), ErrorKind::AlreadyExists, "/a");
    fails(create("/"), ErrorKind::AlreadyExists, "/");
    fails(create("/x/y"), ErrorKind::NotFound, "/x/y");
    let closed = CreateDirOptions::new().recursive(false).mode(Mode::new(0));
    f.guest.create_dir(&path("/closed"), &closed).unwrap();
    assert_eq!(mode(&f.root("closed")), 0);
}

#[test]
fn rename_replaces_only_when_asked_for() {
    let f = Fixture::new();
    f.put("a", "a");
    f.put("b", "b");
    f.put("full/x", "");
    f.put("dir/y", "");
    fs::create_dir(f.root("empty")).unwrap();
    symlink("nowhere", f.root("link")).unwrap();
    let rename = |from: &str, to: &str, replace: bool| {
        let mut options = RenameOptions::new();
        options.replace = replace;
        f.guest.rename(&path(from), &path(to), &options)
    };
    fails(rename("/a", "/b", false), ErrorKind::AlreadyExists, "/b");
    fails(rename("/no", "/c", false), ErrorKind::NotFound, "/no");
    fails(rename("/a", "/no/c", false), ErrorKind::NotFound, "/no/c");
    fails(rename("/a", "/b/c", true), ErrorKind::NotADirectory, "/b/c");
    fails(
        rename("/a", "/full", true),
        ErrorKind::IsADirectory,
        "/full",
    );
    fails(rename("/dir", "/a", true), ErrorKind::NotADirectory, "/a");
    fails(
        rename("/dir", "/full", true),
        ErrorKind::DirectoryNotEmpty,
        "/full",
    );
    fails(
        rename("/dir", "/dir/in", false),
        ErrorKind::InvalidInput,
        "/dir/in",
    );
    fails(rename("/", "/x", false), ErrorKind::InvalidInput, "/");
    rename("/a", "/b", true).unwrap();
    assert_eq!(f.text("b").unwrap(), "a");
    rename("/dir", "/empty", true).unwrap();
    assert_eq!(f.names("empty"), ["y"]);
    rename("/link", "/empty/link", false).unwrap();
    assert_eq!(f.names(""), ["b", "empty", "full"]);
    assert!(f.root("empty/link").is_symlink());
}

#[test]
fn metadata_describes_a_link_itself() {
    let f = Fixture::new();
    f.put("d/f", "12345");
    super::set_mode(&f.root("d/f"), 0o751);
    symlink("../outside", f.root("d/l")).unwrap();
    symlink("d", f.root("by")).unwrap();
    let metadata = |at: &str| f.guest.metadata(&path(at), &MetadataOptions::new());
    let file = metadata("/by/f").unwrap();
    assert_eq!((file.kind, file.size), (FileKind::File, 5));
    assert_eq!(file.mode.bits(), 0o751);
    let link = metadata("/d/l").unwrap();
    assert_eq!(link.kind, FileKind::Symlink);
    assert_eq!(link.link_target, Some(path("../outside")));
    assert!(metadata("/").unwrap().is_dir());
    fails(metadata("/no"), ErrorKind::NotFound, "/no");
    fails(metadata("/d/f/x"), ErrorKind::NotADirectory, "/d/f/x");
}

#[test]
fn only_a_directory_can_be_worked_in() {
    let f = Fixture::new();
    f.put("d/f", "");
    let check = |at: &str| f.guest.check_dir(&path(at), Operation::SetWorkdir);
    check("/d").unwrap();
    check("/").unwrap();
    fails(check("/no"), ErrorKind::NotFound, "/no");
    let error = fails(check("/d/f"), ErrorKind::NotADirectory, "/d/f");
    assert_eq!(error.operation(), Operation::SetWorkdir);
}
