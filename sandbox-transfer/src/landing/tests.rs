//! Each step of landing fails once, or for ever from there on, and nothing of the user's is lost.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::*;
use crate::fault::{self, Failing};

/// All files below a directory, by path.
fn files(top: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut todo = vec![top.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if fs::symlink_metadata(&path).unwrap().is_dir() {
                todo.push(path);
            } else {
                let content = fs::read_to_string(&path).unwrap_or_default();
                found.insert(path.strip_prefix(top).unwrap().to_owned(), content);
            }
        }
    }
    found
}

fn put(path: &Path, content: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// Prepares, builds and lands an export over a user's directory; the faults are set for the last.
fn attempt(
    existing: ExistingDir,
    failing: Failing,
    exchange: bool,
) -> (tempfile::TempDir, Result<()>, bool) {
    let host = tempfile::tempdir().unwrap();
    let to = host.path().join("out");
    put(&to.join("own"), "the user's");
    put(&to.join("sub/own"), "the user's");
    put(&to.join("sub/f"), "the user's");
    fault::set(Failing::Never, true);
    let landing = Landing::prepare(&to, existing).unwrap();
    put(&landing.path().join("f"), "new");
    put(&landing.path().join("sub/f"), "new");
    put(&landing.path().join("more/f"), "new");
    fault::set(failing, exchange);
    let landed = landing.land(0o755, None);
    let due = fault::was_due();
    fault::set(Failing::Never, true);
    (host, landed, due)
}

#[test]
fn replacing_loses_nothing_at_any_step() {
    for exchange in [true, false] {
        for failing in [Failing::Once as fn(u32) -> Failing, Failing::From] {
            let mut step = 0;
            loop {
                let (host, landed, due) = attempt(ExistingDir::Replace, failing(step), exchange);
                let all = files(host.path());
                let what = format!(
                    "exchange {exchange}, {:?}: {landed:?}, {all:?}",
                    failing(step)
                );
                let has = |name: &str| all.contains_key(Path::new(name));
                let new = has("out/f") && has("out/more/f") && !has("out/own");
                let old = has("out/own") && has("out/sub/own") && !has("out/f");
                match &landed {
                    Ok(()) => assert!(new, "{what}"),
                    // The export has landed; only the removal of the old one failed.
                    Err(error) if new => assert!(error.message().contains("in place"), "{what}"),
                    Err(_) if old => assert_eq!(all["out/sub/f".as_ref() as &Path], "the user's"),
                    // It could be put neither here nor back: whole, and the error says where.
                    Err(error) => {
                        let hint = error.hint().unwrap_or_default();
                        let at = all.keys().find(|path| path.ends_with("sub/own"));
                        let at = at.and_then(|path| path.iter().next()).expect(&what);
                        assert!(hint.contains(&*at.to_string_lossy()), "{what}");
                        assert!(!has("out/f"), "{what}");
                        for (name, text) in files(&host.path().join(at)) {
                            assert_eq!(text, "the user's", "{name:?}: {what}");
                        }
                        assert_eq!(files(&host.path().join(at)).len(), 3, "{what}");
                    }
                }
                if !due {
                    landed.unwrap();
                    assert_eq!(fs::read_dir(host.path()).unwrap().count(), 1, "beside it");
                    break;
                }
                step += 1;
            }
            assert!(step >= 2, "nothing was injected");
        }
    }
}

#[test]
fn merging_loses_nothing_at_any_step() {
    let mut step = 0;
    loop {
        let (host, landed, due) = attempt(ExistingDir::Merge, Failing::Once(step), true);
        let all = files(host.path());
        for own in ["out/own", "out/sub/own"] {
            assert_eq!(all[own.as_ref() as &Path], "the user's", "{landed:?}");
        }
        assert!(all.contains_key(Path::new("out/sub/f")), "{all:?}");
        if !due {
            landed.unwrap();
            assert_eq!(all.len(), 5, "{all:?}");
            break;
        }
        step += 1;
    }
    assert!(step >= 3, "nothing was injected");
}

#[test]
fn a_fresh_export_is_there_or_not() {
    for step in 0..4 {
        let host = tempfile::tempdir().unwrap();
        let to = host.path().join("out");
        fault::set(Failing::Never, true);
        let landing = Landing::prepare(&to, ExistingDir::MustBeEmpty).unwrap();
        put(&landing.path().join("f"), "new");
        fault::set(Failing::Once(step), true);
        let landed = landing.land(0o755, None);
        fault::set(Failing::Never, true);
        let left = fs::read_dir(host.path()).unwrap().count();
        assert_eq!(left, usize::from(landed.is_ok()), "{landed:?}");
        assert_eq!(to.exists(), landed.is_ok());
    }
}

#[test]
fn what_appears_meanwhile_is_not_replaced() {
    for what in ["file", "link", "full", "empty"] {
        let host = tempfile::tempdir().unwrap();
        let to = host.path().join("out");
        let landing = Landing::prepare(&to, ExistingDir::MustBeEmpty).unwrap();
        put(&landing.path().join("f"), "new");
        match what {
            "file" => fs::write(&to, "theirs").unwrap(),
            "link" => std::os::unix::fs::symlink("/etc", &to).unwrap(),
            "full" => put(&to.join("theirs"), "theirs"),
            _ => fs::create_dir(&to).unwrap(),
        }
        match landing.land(0o755, None) {
            Ok(()) => assert_eq!(what, "empty"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{what}"),
        }
        assert_eq!(to.join("f").exists(), what == "empty", "{what}");
        assert_eq!(fs::read_dir(host.path()).unwrap().count(), 1, "{what}");
    }
}

#[test]
fn a_merge_never_writes_through_a_link() {
    use std::os::unix::fs::symlink;
    let outside = tempfile::tempdir().unwrap();
    put(&outside.path().join("f"), "untouched");
    for (name, built, kind) in [
        // A directory where the destination has a link to one.
        ("d", "d/f", Some(ErrorKind::NotADirectory)),
        ("s/d", "s/d/f", Some(ErrorKind::NotADirectory)),
        // A file where it has a link to a file: the link goes, its target stays.
        ("l", "l", None),
    ] {
        let host = tempfile::tempdir().unwrap();
        let to = host.path().join("out");
        put(&to.join("kept"), "kept");
        fs::create_dir_all(to.join(name).parent().unwrap()).unwrap();
        let target = match name {
            "l" => outside.path().join("f"),
            _ => outside.path().to_owned(),
        };
        symlink(target, to.join(name)).unwrap();
        let landing = Landing::prepare(&to, ExistingDir::Merge).unwrap();
        put(&landing.path().join("a"), "new");
        put(&landing.path().join(built), "new");
        let landed = landing.land(0o755, None);
        assert_eq!(landed.err().map(|error| error.kind()), kind, "{name}");
        assert_eq!(
            fs::read_to_string(outside.path().join("f")).unwrap(),
            "untouched"
        );
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "{name}");
        // Refused before anything was moved.
        assert_eq!(to.join("a").exists(), kind.is_none(), "{name}");
        assert!(fs::read_dir(&to).unwrap().all(|entry| {
            !entry
                .unwrap()
                .file_name()
                .to_string_lossy()
                .contains("partial")
        }));
    }
}

#[test]
fn shut_directories_and_deep_trees_are_removed() {
    use std::os::unix::fs::PermissionsExt as _;
    let host = tempfile::tempdir().unwrap();
    let to = host.path().join("out");
    let deep = (0..450).fold(to.clone(), |path, _| path.join("d"));
    put(&deep.join("f"), "x");
    put(&to.join("shut/f"), "x");
    fs::set_permissions(to.join("shut"), fs::Permissions::from_mode(0o000)).unwrap();
    let landing = Landing::prepare(&to, ExistingDir::Replace).unwrap();
    landing.land(0o755, None).unwrap();
    assert_eq!(fs::read_dir(&to).unwrap().count(), 0);
    assert_eq!(fs::read_dir(host.path()).unwrap().count(), 1);
}
