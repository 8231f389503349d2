//! Imports from the host, and trees there and back.
//!
//! Invariant: trees are compared whole, with content, modes and links, never by a sample.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use sandbox_core::{
    ErrorKind, ExportOptions, ImportOptions, Mode, Operation, SandboxExt as _, TransferCount,
    TransferProgress, TransferReport, Unreadable,
};

use crate::kit::{Context, Verdict, cases, ensure, ensure_eq, refused};

cases! { "transfer":
    import_brings_a_whole_tree [Symlinks, Modes],
    import_drops_setuid [Modes],
    import_counts_what_it_brings,
    import_follows_no_link [Symlinks],
    import_skips_and_reports_special_files,
    import_takes_excludes,
    import_heeds_ignore_files_when_asked,
    import_again_reflects_changes,
    import_replaces_what_may_not_be_written [Modes],
    import_fills_closed_directories [Exec, Modes],
    import_leaves_out_what_cannot_be_read [Exec, Modes],
    import_takes_ignore_before_gitignore,
    import_is_refused_where_ignore_files_are_not_known,
    import_leaves_what_is_there_unless_asked,
    import_mirrors_deletions_when_asked,
    import_mirror_leaves_what_is_excluded,
    import_of_a_missing_directory_is_refused,
    import_of_a_file_is_refused,
    import_beyond_the_limit_is_refused,
    what_goes_in_comes_out,
    progress_is_told_file_by_file,
}

/// Something that keeps what it is told.
fn told() -> (TransferProgress, Arc<Mutex<Vec<TransferCount>>>) {
    let counts = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&counts);
    let tell = move |count| {
        kept.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(count)
    };
    (TransferProgress::new(tell), counts)
}

/// Fails unless the counts grow and end with the report.
fn grows(told: &Mutex<Vec<TransferCount>>, report: &TransferReport) -> Verdict {
    let told = told.lock().unwrap_or_else(PoisonError::into_inner);
    ensure_eq!(told.len() as u64, report.files, "calls: {told:?}");
    for pair in told.windows(2) {
        ensure_eq!(pair[1].files, pair[0].files + 1, "files: {told:?}");
        ensure!(pair[1].bytes >= pair[0].bytes, "bytes: {told:?}");
    }
    let last = told.last().map(|count| (count.files, count.bytes));
    ensure_eq!(
        last,
        Some((report.files, report.bytes)),
        "the last: {told:?}"
    );
    Ok(())
}

async fn progress_is_told_file_by_file(cx: Context) -> Verdict {
    let (host, out) = (cx.host_dir()?, cx.host_dir()?);
    for (name, size) in [("a", 1), ("d/b", 70_000), ("d/e/c", 0), ("f", 10)] {
        put(host.path(), name, &"x".repeat(size))?;
    }
    // Twice: the second finds everything there.
    for _ in 0..2 {
        let (progress, counts) = told();
        let options = ImportOptions::new().mirror(true).progress(progress);
        let report = cx
            .sandbox
            .import_dir(host.path(), &"p".into(), options)
            .await?;
        ensure_eq!((report.files, report.bytes), (4, 70_011), "the import");
        grows(&counts, &report)?;
    }
    let (progress, counts) = told();
    let options = ExportOptions::new().progress(progress);
    let to = out.path().join("out");
    let report = cx.sandbox.export_dir(&"p".into(), &to, options).await?;
    ensure_eq!((report.files, report.bytes), (4, 70_011), "the export");
    grows(&counts, &report)
}

/// A tree of the host: path to a description of what is there.
pub(super) fn tree(top: &Path) -> Verdict<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let mut todo = vec![top.to_path_buf()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            let metadata = fs::symlink_metadata(&path)?;
            let mode = metadata.permissions().mode() & 0o7777;
            let what = if metadata.is_dir() {
                todo.push(path.clone());
                format!("directory {mode:o}")
            } else if metadata.is_symlink() {
                format!("link to {}", fs::read_link(&path)?.display())
            } else {
                let content = fs::read(&path)?;
                format!("file {mode:o} {}", content.escape_ascii())
            };
            let name = path.strip_prefix(top).unwrap_or(&path);
            found.insert(name.display().to_string(), what);
        }
    }
    Ok(found)
}

pub(super) fn put(top: &Path, name: &str, content: &str) -> Verdict {
    let path = top.join(name);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    Ok(fs::write(path, content)?)
}

fn chmod(top: &Path, name: &str, mode: u32) -> Verdict {
    let permissions = fs::Permissions::from_mode(mode);
    Ok(fs::set_permissions(top.join(name), permissions)?)
}

async fn import_brings_a_whole_tree(cx: Context) -> Verdict {
    let host = cx.host_dir()?;
    put(host.path(), "a.txt", "one\n")?;
    put(host.path(), "d/run.sh", "#!/bin/sh\n")?;
    put(host.path(), "d/e/deep", "\u{0}\u{1}")?;
    put(host.path(), "-odd name\n", "x")?;
    put(host.path(), "empty-file", "")?;
    fs::create_dir(host.path().join("empty"))?;
    chmod(host.path(), "d/run.sh", 0o755)?;
    chmod(host.path(), "a.txt", 0o600)?;
    chmod(host.path(), "empty", 0o700)?;
    symlink("d/e", host.path().join("link"))?;
    symlink("nowhere", host.path().join("dangling"))?;
    cx.sandbox.import(host.path(), "in").await?;
    let out = cx.host_dir()?;
    let to = out.path().join("out");
    cx.sandbox.export("in", &to).await?;
    ensure_eq!(tree(&to)?, tree(host.path())?, "the tree, there and back");
    let mode = cx.sandbox.stat("in/d/run.sh").await?.mode;
    ensure_eq!(mode, Mode::new(0o755), "a mode, inside");
    let link = cx.sandbox.stat("in/link").await?.link_target;
    ensure_eq!(link, Some("d/e".into()), "a link, inside");
    Ok(())
}

async fn import_drops_setuid(cx: Context) -> Verdict {
    let host = cx.host_dir()?;
    put(host.path(), "f", "x")?;
    chmod(host.path(), "f", 0o6755)?;
    let options = ImportOptions::new();
    cx.sandbox
        .import_dir(host.path(), &"in".into(), options)
        .await?;
    let mode = cx.sandbox.stat("in/f").await?.mode;
    ensure_eq!(mode, Mode::new(0o755), "the mode");
    Ok(())
}

async fn import_counts_what_it_brings(cx: Context) -> Verdict {
    let host = cx.host_dir()?;
    put(host.path(), "a", "12345")?;
    put(host.path(), "d/b", "123")?;
    let options = ImportOptions::new();
    let report = cx
        .sandbox
        .import_dir(host.path(), &"in".into(), options)
        .await?;
    ensure_eq!(report.files, 2, "files");
    ensure_eq!(report.directories, 1, "directories, without the top one");
    ensure_eq!(report.bytes, 8, "bytes");
    ensure_eq!(report.removed, 0, "removed");
    ensure_eq!(report.skipped_total, 0, "skipped");
    Ok(())
}

async fn import_follows_no_link(cx: Context) -> Verdict {
    let outside = cx.host_dir()?;
    put(outside.path(), "secret/f", "of the host")?;
    let host = cx.host_dir()?;
    symlink(outside.path().join("secret"), host.path().join("dir"))?;
    symlink(outside.path().join("secret/f"), host.path().join("file"))?;
    let options = ImportOptions::new();
    cx.sandbox
        .import_dir(host.path(), &"in".into(), options)
        .await?;
    for path in ["in/file", "in/dir/f"] {
        let read = cx.sandbox.read(path).await;
        ensure!(read.is_err(), "{path} was brought from behind a link");
    }
    Ok(())
}

async fn import_skips_and_reports_special_files(cx: Context) -> Verdict {
    let host = cx.host_dir()?;
    put(host.path(), "f", "x")?;
    // A socket is the one special file that can be made without help.
    let _socket = std::os::unix::net::UnixListener::bind(host.path().join("socket"))?;
    let options = ImportOptions::new();
    let report = cx
        .sandbox
        .import_dir(host.path(), &"in".into(), options)
        .await?;
    ensure_eq!(report.files, 1, "files");
    ensure_eq!(report.skipped_total, 1, "skipped");
    let named = report
        .skipped
        .first()
        .map(|skipped| skipped.path.to_string());
    ensure_eq!(named.as_deref(), Some("socket"), "what was skipped");
    ensure_eq!(cx.sandbox.list("in").await?.len(), 1, "entries");
    Ok(())
}

async fn names(cx: &Context, path: &str) -> Verdict<Vec<String>> {
    let options = sandbox_core::ListOptions::new().recursive(true);
    let entries = cx.sandbox.list_dir(&path.into(), options).await?;
    let files = entries.iter().filter(|entry| !entry.metadata.is_dir());
    Ok(files.map(|entry| entry.path.to_string()).collect())
}

fn project(host: &Path) -> Verdict {
    put(host, "src/main.rs", "fn main() {}")?;
    put(host, "src/main.o", "")?;
    put(host, "target/debug/big", "x")?;
    put(host, "node_modules/a/b", "x")?;
    put(host, "keep.log", "x")?;
    put(host, "drop.log", "x")
}

async fn import_takes_excludes(cx: Context) -> Verdict {
    let host = cx.host_dir()?;
    project(host.path())?;
    let options = ImportOptions::new()
        .exclude("target/")
        .exclude("/node_modules")
        .exclude("*.o")
        .exclude("*.log")
        .exclude("!keep.log");
    let report = cx
        .sandbox
        .import_dir(host.path(), &"in".into(), options)
        .await?;
    let found = names(&cx, "in").await?;
    ensure_eq!(found, ["keep.log", "src/main.rs"], "what was brought");
    ensure_eq!(report.files, 2, "files, as reported");
    ensure_eq!(report.skipped_total, 0, "what is excluded is not counted");
    Ok(())
}

async fn import_heeds_ignore_files_when_asked(cx: Context) -> Verdict {
    let host = cx.host_dir()?;
    project(host.path())?;
    put(host.path(), ".gitignore", "target\n*.log\n!keep.log\n")?;
    put(host.path(), ".ignore", "node_modules\n")?;
    put(host.path(), "src/.gitignore", "*.o\n")?;
    put(host.path(), ".git/HEAD", "ref")?;
    let options = ImportOptions::new().ignore_files(true);
    cx.sandbox
        .import_dir(host.path(), &"in".into(), options)
        .await?;
    let found = names(&cx, "in").await?;
    let expected = [
        ".git/HEAD",
        ".gitignore",
        ".ignore",
        "keep.log",
        "src/.gitignore",
        "src/main.rs",
    ];
    ensure_eq!(found, expected, "what was brought");
    let options = ImportOptions::new();
    cx.sandbox
        .import_dir(host.path(), &"all".into(), options)
        .await?;
    let found = names(&cx, "all").await?;
    ensure_eq!(
        found.len(),
        10,
        "what is brought when nobody asked: {found:?}"
    );
    Ok(())
}

async fn import_again_reflects_changes(cx: Context) -> Verdict {
    let host = cx.host_dir()?;
    put(host.path(), "f", "one")?;
    for text in ["one", "twotwo", "3"] {
        put(host.path(), "f", text)?;
        let options = ImportOptions::new();
        cx.sandbox
            .import_dir(host.path(), &"in".into(), options)
            .await?;
        ensure_eq!(cx.sandbox.read_to_string("in/f").await?, text, "the file");
    }
    Ok(())
}

async fn import_replaces_what_may_not_be_written(cx: Context) -> Verdict {
    let host = cx.host_dir()?;
    // The objects of a git repository are such.
    put(host.path(), "objects/ab/cdef", "one")?;
    chmod(host.path(), "objects/ab/cdef", 0o444)?;
    for (text, mirror) in [("one", false), ("two", false), ("three", true)] {
        let at = host.path().join("objects/ab");
        fs::write(at.join("new"), text)?;
        fs::rename(at.join("new"), at.join("cdef"))?;
        chmod(host.path(), "objects/ab/cdef", 0o444)?;
        let options = ImportOptions::new().mirror(mirror);
        cx.sandbox
            .import_dir(host.path(), &"in".into(), options)
            .await?;
        let file = "in/objects/ab/cdef";
        ensure_eq!(cx.sandbox.read_to_string(file).await?, text, "the file");
        let mode = cx.sandbox.stat(file).await?.mode;
        ensure_eq!(mode, Mode::new(0o444), "the mode");
    }
    Ok(())
}

async fn import_fills_closed_directories(cx: Context) -> Verdict {
    let host = cx.host_dir()?;
    put(host.path(), "fixed/f", "0")?;
    put(host.path(), "closed/fixed/f", "0")?;
    // A root of the host reads what its user may not. Parents come last.
    let all = [("fixed", 0o500), ("closed/fixed", 0o500), ("closed", 0)];
    let turn = |open: bool| {
        let mut order = all;
        if open {
            order.reverse();
        }
        order
            .iter()
            .try_for_each(|(name, mode)| chmod(host.path(), name, if open { 0o700 } else { *mode }))
    };
    turn(false)?;
    let root = fs::read_dir(host.path().join("closed")).is_ok();
    for text in ["one", "two"] {
        turn(true)?;
        put(host.path(), "fixed/f", text)?;
        put(host.path(), "closed/fixed/f", text)?;
        turn(false)?;
        let options = ImportOptions::new();
        let done = cx
            .sandbox
            .import_dir(host.path(), &"in".into(), options)
            .await;
        turn(true)?;
        let report = done?;
        ensure_eq!(report.files, if root { 2 } else { 1 }, "files");
        ensure_eq!(
            report.skipped.len(),
            usize::from(!root),
            "what was left out"
        );
        ensure_eq!(
            cx.sandbox.read_to_string("in/fixed/f").await?,
            text,
            "the file"
        );
        let mode = cx.sandbox.stat("in/fixed").await?.mode;
        ensure_eq!(mode, Mode::new(0o500), "the mode of its directory");
        if root {
            let mode = cx.sandbox.stat("in/closed").await?.mode;
            ensure_eq!(mode, Mode::new(0), "the mode of what is closed");
            cx.sh("chmod 700 in/closed").await?;
            let file = "in/closed/fixed/f";
            ensure_eq!(
                cx.sandbox.read_to_string(file).await?,
                text,
                "the file in it"
            );
            cx.sh("chmod 000 in/closed").await?;
        }
    }
    // So that the sandbox's end can remove them.
    let found = if root {
        "in/closed in/closed/fixed"
    } else {
        ""
    };
    cx.sh(&format!("chmod 700 in/fixed {found}")).await?;
    Ok(())
}

async fn import_leaves_out_what_cannot_be_read(cx: Context) -> Verdict {
    let host = cx.host_dir()?;
    put(host.path(), "open", "1")?;
    put(host.path(), "shut", "2")?;
    put(host.path(), "sub/open", "3")?;
    chmod(host.path(), "shut", 0o000)?;
    // A host's root may read everything, and leaves nothing out.
    let all = fs::read(host.path().join("shut")).is_ok();
    if !all {
        put(host.path(), "closed/f", "4")?;
        chmod(host.path(), "closed", 0o000)?;
    }
    let from = host.path();
    let options = ImportOptions::new();
    let done = cx.sandbox.import_dir(from, &"in".into(), options).await;
    let options = ImportOptions::new().unreadable(Unreadable::Fail);
    let strict = cx.sandbox.import_dir(from, &"strict".into(), options).await;
    if !all {
        chmod(host.path(), "closed", 0o700)?;
    }
    let report = done?;
    let mut skipped: Vec<String> = report.skipped.iter().map(|s| s.path.to_string()).collect();
    skipped.sort();
    let expected: &[&str] = if all { &[] } else { &["closed", "shut"] };
    ensure_eq!(skipped, expected, "what was reported");
    ensure_eq!(report.files, if all { 3 } else { 2 }, "files");
    let text = cx.sandbox.read_to_string("in/sub/open").await?;
    ensure_eq!(text, "3", "what can be read");
    if all {
        strict?;
    } else {
        let kind = ErrorKind::PermissionDenied;
        refused(strict, &cx.sandbox, Operation::ImportDir, kind)?;
    }
    if all {
        // So that the sandbox's end can remove them.
        cx.sh("chmod 700 in/shut strict/shut").await?;
    }
    Ok(())
}

async fn import_takes_ignore_before_gitignore(cx: Context) -> Verdict {
    let host = cx.host_dir()?;
    put(host.path(), ".ignore", "!wanted\nunwanted\n")?;
    put(host.path(), "d/.gitignore", "wanted\n!unwanted\nexcluded\n")?;
    for name in ["d/wanted", "d/unwanted", "d/excluded", "d/plain"] {
        put(host.path(), name, "x")?;
    }
    let options = ImportOptions::new().ignore_files(true).exclude("!excluded");
    cx.sandbox
        .import_dir(host.path(), &"in".into(), options)
        .await?;
    let found = names(&cx, "in").await?;
    let expected = [
        ".ignore",
        "d/.gitignore",
        "d/excluded",
        "d/plain",
        "d/wanted",
    ];
    ensure_eq!(found, expected, "what was brought");
    Ok(())
}

/// Secrets that they name must not be brought because they can't be read.
async fn import_is_refused_where_ignore_files_are_not_known(cx: Context) -> Verdict {
    let host = cx.host_dir()?;
    put(host.path(), "d/secret", "x")?;
    let text = format!("secret\n#{}\n", "x".repeat(1 << 20));
    put(host.path(), "d/.gitignore", &text)?;
    let to = "in".into();
    let import = || {
        let options = ImportOptions::new().ignore_files(true);
        cx.sandbox.import_dir(host.path(), &to, options)
    };
    let kind = ErrorKind::LimitExceeded;
    refused(import().await, &cx.sandbox, Operation::ImportDir, kind)?;
    put(host.path(), "d/.gitignore", "secret\n")?;
    chmod(host.path(), "d/.gitignore", 0o000)?;
    // A host's root may read everything.
    if fs::read(host.path().join("d/.gitignore")).is_err() {
        let kind = ErrorKind::PermissionDenied;
        refused(import().await, &cx.sandbox, Operation::ImportDir, kind)?;
    }
    chmod(host.path(), "d/.gitignore", 0o600)?;
    import().await?;
    let found = names(&cx, "in").await?;
    ensure_eq!(found, ["d/.gitignore"], "what was brought");
    Ok(())
}

async fn import_leaves_what_is_there_unless_asked(cx: Context) -> Verdict {
    let host = cx.host_dir()?;
    put(host.path(), "f", "x")?;
    cx.sandbox.write("in/own", "kept").await?;
    let options = ImportOptions::new();
    cx.sandbox
        .import_dir(host.path(), &"in".into(), options)
        .await?;
    ensure_eq!(names(&cx, "in").await?, ["f", "own"], "entries");
    Ok(())
}

async fn import_mirrors_deletions_when_asked(cx: Context) -> Verdict {
    let host = cx.host_dir()?;
    put(host.path(), "a", "1")?;
    put(host.path(), "d/b", "2")?;
    put(host.path(), "turns/file", "3")?;
    let mirror = || ImportOptions::new().mirror(true);
    cx.sandbox
        .import_dir(host.path(), &"in".into(), mirror())
        .await?;
    cx.sandbox.write("in/own/deep", "x").await?;
    fs::remove_dir_all(host.path().join("d"))?;
    fs::remove_dir_all(host.path().join("turns"))?;
    put(host.path(), "turns", "into a file")?;
    let report = cx
        .sandbox
        .import_dir(host.path(), &"in".into(), mirror())
        .await?;
    ensure_eq!(names(&cx, "in").await?, ["a", "turns"], "files");
    ensure!(
        !cx.sandbox.exists("in/d").await?,
        "a removed directory is there"
    );
    ensure!(
        report.removed >= 2,
        "removed, as reported: {}",
        report.removed
    );
    cx.sandbox.write("beside", "x").await?;
    Ok(())
}

async fn import_mirror_leaves_what_is_excluded(cx: Context) -> Verdict {
    let host = cx.host_dir()?;
    put(host.path(), "src", "1")?;
    let options = ImportOptions::new().mirror(true).exclude("target");
    cx.sandbox.write("in/target/built", "x").await?;
    cx.sandbox.write("in/old", "x").await?;
    cx.sandbox
        .import_dir(host.path(), &"in".into(), options)
        .await?;
    ensure_eq!(names(&cx, "in").await?, ["src", "target/built"], "files");
    Ok(())
}

async fn import_of_a_missing_directory_is_refused(cx: Context) -> Verdict {
    let host = cx.host_dir()?;
    let from = host.path().join("nope");
    let done = cx.sandbox.import(&from, "in").await;
    let kind = ErrorKind::NotFound;
    let error = refused(done, &cx.sandbox, Operation::ImportDir, kind)?;
    ensure_eq!(
        error.host_path(),
        Some(from.as_path()),
        "the host path named"
    );
    ensure!(!cx.sandbox.exists("in").await?, "something was created");
    Ok(())
}

async fn import_of_a_file_is_refused(cx: Context) -> Verdict {
    let host = cx.host_dir()?;
    put(host.path(), "f", "x")?;
    let from = host.path().join("f");
    let done = cx.sandbox.import(&from, "in").await;
    let kind = ErrorKind::NotADirectory;
    let error = refused(done, &cx.sandbox, Operation::ImportDir, kind)?;
    ensure_eq!(
        error.host_path(),
        Some(from.as_path()),
        "the host path named"
    );
    ensure!(!cx.sandbox.exists("in").await?, "something was created");
    Ok(())
}

async fn import_beyond_the_limit_is_refused(cx: Context) -> Verdict {
    let host = cx.host_dir()?;
    put(host.path(), "f", "1234567890")?;
    for (limit, fits) in [(10, true), (9, false)] {
        let options = ImportOptions::new().max_bytes(limit);
        let done = cx
            .sandbox
            .import_dir(host.path(), &"in".into(), options)
            .await;
        if fits {
            done?;
        } else {
            let kind = ErrorKind::LimitExceeded;
            let error = refused(done, &cx.sandbox, Operation::ImportDir, kind)?;
            ensure!(
                error.to_string().contains('9'),
                "the limit is not stated: {error}"
            );
        }
    }
    Ok(())
}

async fn what_goes_in_comes_out(cx: Context) -> Verdict {
    let host = cx.host_dir()?;
    for index in 0..300 {
        put(
            host.path(),
            &format!("d{}/f{index}", index % 9),
            &"x".repeat(index * 31),
        )?;
    }
    let report = cx.sandbox.import(host.path(), "in").await?;
    ensure_eq!(report.files, 300, "files");
    let out = cx.host_dir()?;
    let to = out.path().join("out");
    cx.sandbox.export("in", &to).await?;
    ensure_eq!(tree(&to)?.len(), tree(host.path())?.len(), "entries");
    ensure!(tree(&to)? == tree(host.path())?, "the trees differ");
    Ok(())
}
