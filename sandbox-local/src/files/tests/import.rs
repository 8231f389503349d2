//! Importing: equality, excludes, mirroring, refusals.

use std::fs;
use std::os::unix::fs::symlink;

use sandbox_core::{ErrorKind, ImportOptions, TransferReport};

use super::{Fixture, fails, mkfifo, mode, path, put, set_mode};

fn import(f: &Fixture, to: &str, options: ImportOptions) -> TransferReport {
    f.guest.import(&f.host("src"), &path(to), &options).unwrap()
}

#[test]
fn a_tree_arrives_equal() {
    let f = Fixture::new();
    put(&f.host("src/a/b/run"), "#!");
    set_mode(&f.host("src/a/b/run"), 0o4755);
    put(&f.host("src/top"), "12345");
    put(&f.host("src/closed/f"), "");
    set_mode(&f.host("src/closed"), 0o555);
    fs::create_dir(f.host("src/empty")).unwrap();
    fs::write(f.host("src/large"), vec![7; 3 << 20]).unwrap();
    symlink("/etc/passwd", f.host("src/a/link")).unwrap();
    mkfifo(&f.host("src/fifo"));
    for to in ["/new/place", "/"] {
        let report = import(&f, to, ImportOptions::new());
        assert_eq!((report.files, report.directories), (4, 4), "{report:?}");
        assert_eq!((report.symlinks, report.skipped_total), (1, 1));
        assert_eq!(report.bytes, 2 + 5 + (3 << 20));
        assert_eq!(report.skipped[0].path, path("fifo"));
        let at = |rest: &str| f.root(&to[1..]).join(rest);
        assert_eq!(mode(&at("a/b/run")), 0o755, "no setuid bit");
        assert_eq!(mode(&at("closed")), 0o555);
        assert_eq!(fs::read(at("large")).unwrap(), vec![7; 3 << 20]);
        assert_eq!(
            fs::read_link(at("a/link")).unwrap().to_str(),
            Some("/etc/passwd")
        );
        assert!(super::names(&at("empty")).is_empty());
    }
    set_mode(&f.host("src/closed"), 0o755);
}

#[test]
fn importing_again_replaces_files_and_keeps_the_rest() {
    let f = Fixture::new();
    put(&f.host("src/d/f"), "1");
    import(&f, "/w", ImportOptions::new());
    f.put("w/d/own", "guest's");
    put(&f.host("src/d/f"), "22");
    put(&f.host("src/d/new/x"), "3");
    set_mode(&f.host("src/d/f"), 0o600);
    let report = import(&f, "/w", ImportOptions::new());
    assert_eq!(f.text("w/d/f").unwrap(), "22");
    assert_eq!(mode(&f.root("w/d/f")), 0o600);
    assert_eq!(f.names("w/d"), ["f", "new", "own"]);
    assert_eq!((report.files, report.removed), (2, 0));
}

#[test]
fn excludes_and_ignore_files_leave_out() {
    let f = Fixture::new();
    for file in [
        "a.log",
        "keep.log",
        "target/x",
        "src/target/x",
        "src/gen/y",
        "src/main.rs",
        ".git/config",
        "doc/b.tmp",
        "doc/c.txt",
    ] {
        put(&f.host("src").join(file), "");
    }
    // One above the directory must not count.
    fs::write(f.host(".gitignore"), "*.rs\n").unwrap();
    fs::write(f.host("src/.gitignore"), "*.log\n!keep.log\n/target\n").unwrap();
    fs::write(f.host("src/src/.gitignore"), "gen/\n").unwrap();
    fs::write(f.host("src/doc/.ignore"), "*.tmp\n").unwrap();
    import(
        &f,
        "/plain",
        ImportOptions::new().exclude("target").exclude(".git/"),
    );
    assert_eq!(
        f.names("plain"),
        [".gitignore", "a.log", "doc", "keep.log", "src"]
    );
    assert_eq!(f.names("plain/src"), [".gitignore", "gen", "main.rs"]);
    import(&f, "/git", ImportOptions::new().ignore_files(true));
    assert_eq!(
        f.names("git"),
        [".git", ".gitignore", "doc", "keep.log", "src"]
    );
    assert_eq!(f.names("git/src"), [".gitignore", "main.rs", "target"]);
    assert_eq!(f.names("git/doc"), [".ignore", "c.txt"]);
    let bad = ImportOptions::new().exclude("a{b");
    let error = f.guest.import(&f.host("src"), &path("/bad"), &bad);
    assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn mirroring_removes_what_is_gone_but_nothing_excluded() {
    let f = Fixture::new();
    put(&f.host("src/kept"), "");
    put(&f.host("src/was_dir"), "now a file");
    put(&f.host("src/was_file/x"), "");
    put(&f.host("src/.gitignore"), "*.o\n");
    f.put("w/gone", "");
    f.put("w/old/deep/er", "");
    f.put("w/half/target/obj", "");
    f.put("w/half/gone", "");
    f.put("w/half/m.o", "");
    f.put("w/target/obj", "");
    f.put("w/was_dir/x", "");
    f.put("w/was_file", "");
    symlink("../..", f.root("w/link")).unwrap();
    let options = ImportOptions::new()
        .exclude("target")
        .ignore_files(true)
        .mirror(true);
    let report = import(&f, "/w", options);
    assert_eq!(
        f.names("w"),
        [
            ".gitignore",
            "half",
            "kept",
            "target",
            "was_dir",
            "was_file"
        ]
    );
    assert_eq!(f.names("w/half"), ["m.o", "target"]);
    assert_eq!(f.text("w/was_dir").unwrap(), "now a file");
    assert_eq!(f.names("w/was_file"), ["x"]);
    // gone, old, old/deep, old/deep/er, half/gone, was_dir, was_dir/x, was_file, link
    assert_eq!(report.removed, 9);
    assert_eq!(super::names(&f.host("")), ["src"]);
}

#[test]
fn directories_that_their_owner_shut_are_written_and_mirrored_too() {
    let f = Fixture::new();
    put(&f.host("src/ro/f"), "1");
    put(&f.host("src/ro/in/f"), "1");
    set_mode(&f.host("src/ro"), 0o555);
    import(&f, "/w", ImportOptions::new());
    set_mode(&f.host("src/ro"), 0o755);
    fs::remove_dir_all(f.host("src/ro/in")).unwrap();
    put(&f.host("src/ro/f"), "2");
    put(&f.host("src/ro/g"), "2");
    set_mode(&f.host("src/ro"), 0o555);
    import(&f, "/w", ImportOptions::new());
    assert_eq!(f.text("w/ro/f").unwrap(), "2");
    assert_eq!(f.names("w/ro"), ["f", "g", "in"]);
    assert_eq!(mode(&f.root("w/ro")), 0o555);
    import(&f, "/w", ImportOptions::new().mirror(true));
    assert_eq!(f.names("w/ro"), ["f", "g"]);
    assert_eq!(mode(&f.root("w/ro")), 0o555);
    set_mode(&f.root("w/ro"), 0);
    set_mode(&f.host("src/ro"), 0o755);
    fs::remove_dir_all(f.host("src/ro")).unwrap();
    import(&f, "/w", ImportOptions::new().mirror(true));
    assert!(f.names("w").is_empty());
}

#[test]
fn errors_of_the_host_name_the_host_path_before_anything_is_written() {
    let f = Fixture::new();
    fs::write(f.host("file"), "").unwrap();
    for (from, kind) in [
        ("missing", ErrorKind::NotFound),
        ("file", ErrorKind::NotADirectory),
    ] {
        let error = f
            .guest
            .import(&f.host(from), &path("/to"), &ImportOptions::new())
            .unwrap_err();
        assert_eq!(error.kind(), kind);
        assert_eq!(error.host_path(), Some(f.host(from).as_path()));
    }
    assert!(f.names("").is_empty());
    put(&f.host("src/ten"), "0123456789");
    let limited = ImportOptions::new().max_bytes(9);
    let error = f.guest.import(&f.host("src"), &path("/to"), &limited);
    assert_eq!(error.unwrap_err().kind(), ErrorKind::LimitExceeded);
    assert!(f.names("to").is_empty());
}

#[test]
fn what_is_in_the_way_is_an_error_and_links_are_not_followed() {
    let f = Fixture::new();
    put(&f.host("src/x/y"), "");
    f.put("w/x", "a file");
    let import = |to: &str| {
        f.guest
            .import(&f.host("src"), &path(to), &ImportOptions::new())
    };
    fails(import("/w"), ErrorKind::NotADirectory, "/w/x");
    f.put("v/x/y/z", "a directory");
    fails(import("/v"), ErrorKind::IsADirectory, "/v/x/y");
    fs::create_dir(f.root("elsewhere")).unwrap();
    fs::create_dir(f.root("u")).unwrap();
    symlink("/elsewhere", f.root("u/x")).unwrap();
    fails(import("/u"), ErrorKind::NotADirectory, "/u/x");
    assert!(f.names("elsewhere").is_empty());
    assert_eq!(f.names("w"), ["x"]);
}
