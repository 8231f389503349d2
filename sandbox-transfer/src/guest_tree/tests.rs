//! Tests of what the conformance kit can't reach from outside: failures of the host half way, and a
//! guest that changes the tree meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sandbox_core::{
    ErrorKind, ExportOptions, FileBatch, GuestPath, ImportOptions, ListOptions, Mode, Operation,
    ReadOptions, RemoveOptions, RenameOptions,
};

use super::{Cancel, GuestTree};
use crate::fault::{self, Failing};

fn tree() -> (tempfile::TempDir, GuestTree) {
    let dir = tempfile::tempdir().unwrap();
    let tree = GuestTree::create(dir.path()).unwrap();
    (dir, tree)
}

fn path(path: &str) -> GuestPath {
    GuestPath::from(path)
}

/// Every file with its content, every directory with none.
fn all(tree: &GuestTree) -> BTreeMap<String, Option<String>> {
    let everything = ListOptions::new().recursive(true);
    tree.list(&GuestPath::root(), &everything)
        .unwrap()
        .into_iter()
        .map(|entry| {
            let content = entry.metadata.is_file().then(|| {
                let at = path("/").join(&entry.path);
                let bytes = tree.read(&at, &ReadOptions::default()).unwrap();
                String::from_utf8(bytes.to_vec()).unwrap()
            });
            (entry.path.to_string(), content)
        })
        .collect()
}

#[test]
fn links_lead_into_the_tree_only() {
    let (dir, tree) = tree();
    fs::write(dir.path().join("secret"), "of the host").unwrap();
    fs::write(tree.root().join("secret"), "of the guest").unwrap();
    for target in ["/secret", "../../secret", "../../../../../secret"] {
        symlink(target, tree.root().join("link")).unwrap();
        let read = tree.read(&path("/link"), &ReadOptions::default()).unwrap();
        assert_eq!(read, "of the guest", "{target}");
        fs::remove_file(tree.root().join("link")).unwrap();
    }
    symlink("/proc/self/root", tree.root().join("magic")).unwrap();
    let read = tree.read(&path("/magic/etc/passwd"), &ReadOptions::default());
    assert_eq!(read.unwrap_err().kind(), ErrorKind::NotFound);
    symlink("round", tree.root().join("round")).unwrap();
    let read = tree.read(&path("/round"), &ReadOptions::default());
    assert_eq!(read.unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_batch_that_fails_at_any_step_leaves_what_was_there() {
    let (_dir, tree) = tree();
    let workdir = path("/w");
    let before = FileBatch::new().file("kept", "old").file("d/kept", "old");
    tree.write(&before, &workdir).unwrap();
    let before = all(&tree);
    let batch = FileBatch::new()
        .file("kept", "new")
        .new_file("made/new", "new")
        .file_with_mode("d/kept", "new", Mode::EXECUTABLE)
        .file("made/deep/er", "new");
    let mut failures = 0;
    for step in 0.. {
        fault::set(Failing::Once(step), true);
        let written = tree.write(&batch, &workdir);
        let was_due = fault::was_due();
        fault::set(Failing::Never, true);
        match written {
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::StorageFull, "{error:?}");
                assert_eq!(all(&tree), before, "after the failure of step {step}");
                failures += 1;
            }
            // What could not be cleaned up is no failure of the batch.
            Ok(()) if was_due => {
                assert!(
                    tree.remove(&path("/w"), &RemoveOptions::new().recursive(true))
                        .is_ok()
                );
                let again = FileBatch::new().file("kept", "old").file("d/kept", "old");
                tree.write(&again, &workdir).unwrap();
            }
            Ok(()) => break,
        }
    }
    assert!(failures >= 8, "{failures} steps failed");
    assert_eq!(all(&tree).get("w/made/deep/er"), Some(&Some("new".into())));
}

#[test]
fn a_guest_that_swaps_a_directory_for_a_link_leads_nobody_out() {
    let (dir, tree) = tree();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("f"), "of the host").unwrap();
    let inside = tree.root().join("d");
    fs::create_dir(&inside).unwrap();
    fs::write(inside.join("f"), "of the guest").unwrap();
    symlink(&outside, tree.root().join("l")).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use rustix::fs::{CWD, RenameFlags, renameat_with};
            while !done.load(Ordering::Relaxed) {
                let (one, other) = (tree.root().join("d"), tree.root().join("l"));
                renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).unwrap();
            }
        });
        let start = Instant::now();
        let mut read = 0;
        while start.elapsed() < Duration::from_millis(300) {
            if let Ok(found) = tree.read(&path("/d/f"), &ReadOptions::default()) {
                assert_eq!(found, "of the guest");
                read += 1;
            }
            let batch = FileBatch::new().file("/d/g", "x");
            let _ = tree.write(&batch, &GuestPath::root());
            let _ = tree.list(&path("/d"), &ListOptions::new());
            let from = dir.path().join("outside");
            let options = ImportOptions::new().exclude("f");
            let _ = tree.import(&from, &path("/d"), &options, &Cancel::new());
            let _ = tree.remove(&path("/d/g"), &RemoveOptions::new());
        }
        done.store(true, Ordering::Relaxed);
        assert!(read > 0, "nothing was read");
    });
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(fs::read(outside.join("f")).unwrap(), b"of the host");
}

#[test]
fn a_tree_that_is_seen_elsewhere_has_nothing_beside_it() {
    let (_dir, tree) = tree();
    let tree = tree.seen_at(path("/home/guest"));
    let batch = FileBatch::new().file("/home/guest/d/f", "x");
    tree.write(&batch, &GuestPath::root()).unwrap();
    let read = |at: &str| tree.read(&path(at), &ReadOptions::default());
    assert_eq!(read("/home/guest/d/f").unwrap(), "x");
    for at in ["/d/f", "/home/f", "/home/guest-2/d/f", "/"] {
        let kind = read(at).unwrap_err().kind();
        assert_eq!(kind, ErrorKind::NotFound, "{at}");
    }
    assert!(tree.root().join("d/f").is_file());
    let beside = FileBatch::new().file("/home/other", "x");
    let refused = tree.write(&beside, &GuestPath::root()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound);
}

#[test]
fn a_transfer_that_is_given_up_ends_and_leaves_no_export() {
    let (dir, tree) = tree();
    let batch = FileBatch::new().file("/d/a", "1").file("/d/b", "2");
    tree.write(&batch, &GuestPath::root()).unwrap();
    let cancel = Cancel::new();
    cancel.set();
    let to = dir.path().join("out");
    assert!(
        tree.export(&path("/d"), &to, &ExportOptions::new(), &cancel)
            .is_err()
    );
    assert!(!to.exists());
    let (_other_dir, other) = self::tree();
    assert!(tree.copy_to(&other, &cancel).is_err());
    let from = tree.root().join("d");
    let import = other.import(&from, &path("/d"), &ImportOptions::new(), &cancel);
    assert_eq!(import.unwrap_err().operation(), Operation::ImportDir);
}

#[test]
fn a_rename_names_the_path_that_is_in_the_way() {
    let (_dir, tree) = tree();
    let batch = FileBatch::new()
        .file("/a", "1")
        .file("/d/b", "2")
        .file("/e/c", "3");
    tree.write(&batch, &GuestPath::root()).unwrap();
    let rename = |from: &str, to: &str, replace| {
        let options = RenameOptions::new().replace(replace);
        let error = tree.rename(&path(from), &path(to), &options).unwrap_err();
        (error.kind(), error.path().map(|path| path.to_string()))
    };
    let said = |kind, at: &str| (kind, Some(at.to_owned()));
    assert_eq!(rename("/no", "/x", false), said(ErrorKind::NotFound, "/no"));
    assert_eq!(
        rename("/a", "/d/b", false),
        said(ErrorKind::AlreadyExists, "/d/b")
    );
    assert_eq!(
        rename("/d", "/e", true),
        said(ErrorKind::DirectoryNotEmpty, "/e")
    );
    assert_eq!(
        rename("/d", "/d/x", true),
        said(ErrorKind::InvalidInput, "/d/x")
    );
}

/// Makes a chain of directories; gives the innermost.
fn deep(tree: &GuestTree, depth: usize, name: &str) -> crate::sys::Dir {
    let mut dir = tree.top.try_clone().unwrap();
    for _ in 0..depth {
        dir.make_dir(name.as_ref()).unwrap();
        dir = dir.open_dir(name.as_ref()).unwrap();
    }
    dir
}

/// Answers of each walk to a tree.
fn walked(tree: &GuestTree) -> [Option<ErrorKind>; 3] {
    let dir = tempfile::tempdir().unwrap();
    let everything = ListOptions::new().recursive(true).limit(1_000_000);
    let listed = tree.list(&GuestPath::root(), &everything).map(drop);
    let (options, cancel) = (ExportOptions::new(), Cancel::new());
    let to = dir.path().join("out");
    let exported = tree.export(&GuestPath::root(), &to, &options, &cancel);
    let other = dir.path().join("other");
    fs::create_dir(&other).unwrap();
    let copied = tree.copy_to(&GuestTree::create(&other).unwrap(), &cancel);
    let walked = [listed, exported.map(drop), copied];
    walked.map(|walked| walked.err().map(|error| error.kind()))
}

#[test]
fn a_tree_that_a_guest_made_deep_is_walked_or_refused() {
    let limit = Some(ErrorKind::LimitExceeded);
    for (depth, expected) in [(400, [None; 3]), (1_010, [limit; 3])] {
        let (_dir, tree) = tree();
        let bottom = deep(&tree, depth, "d");
        bottom.create_file("f".as_ref()).unwrap();
        assert_eq!(walked(&tree), expected, "{depth}");
        let all = RemoveOptions::new().recursive(true);
        tree.remove(&path("/d"), &all).unwrap();
    }
}

#[test]
fn the_paths_of_a_tree_that_a_guest_made_are_bounded() {
    let limit = Some(ErrorKind::LimitExceeded);
    for (wide, expected) in [(20, [None; 3]), (2_500, [limit; 3])] {
        let (_dir, tree) = tree();
        let bottom = deep(&tree, 50, &"n".repeat(200));
        for number in 0..wide {
            bottom.make_dir(format!("d{number}").as_ref()).unwrap();
        }
        assert_eq!(walked(&tree), expected, "{wide}");
    }
}

#[test]
fn no_more_is_listed_than_was_allowed() {
    let (_dir, tree) = tree();
    for number in 0..50 {
        fs::write(tree.root().join(number.to_string()), "").unwrap();
    }
    for (limit, listed) in [(49, None), (50, Some(50))] {
        let options = ListOptions::new().limit(limit);
        let found = tree.list(&GuestPath::root(), &options);
        assert_eq!(found.ok().map(|found| found.len()), listed);
    }
    assert!(tree.top.names_within(49).unwrap().is_none());
}

/// A header of a few bytes may claim any length.
#[test]
fn an_archive_with_a_path_that_is_too_long_is_refused() {
    for (length, refused) in [(60_000, false), (70_000, true)] {
        let name = "d/".repeat(length / 2);
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.set_mode(0o755);
        header.set_entry_type(tar::EntryType::Directory);
        archive.append_data(&mut header, &name, &b""[..]).unwrap();
        let archive = archive.into_inner().unwrap();
        let read = crate::read_archive(&archive[..], |_| Ok(()));
        assert_eq!(read.is_err(), refused, "{length}");
    }
}

#[test]
fn a_wide_and_deep_tree_is_removed_whole() {
    let (dir, tree) = tree();
    let bottom = deep(&tree, 300, "d");
    for number in 0..200 {
        bottom.create_file(format!("f{number}").as_ref()).unwrap();
        bottom.make_dir(format!("d{number}").as_ref()).unwrap();
        fs::write(tree.root().join(number.to_string()), "").unwrap();
    }
    bottom.set_mode_of("d7".as_ref(), 0).unwrap();
    crate::remove_tree(tree.root()).unwrap();
    assert!(!dir.path().join("root").exists());
}
