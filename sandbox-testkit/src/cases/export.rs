//! Exports to the host.
//!
//! Invariant: what stands beside the exported directory is looked at too: nothing may be left.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use sandbox_core::{
    Capabilities, Capability, ErrorKind, ExistingDir, ExportOptions, FileBatch, ImportOptions,
    Mode, Operation, SandboxExt as _, Unreadable,
};

use super::transfer::{put, tree};
use crate::kit::{Context, HostDir, Verdict, cases, ensure, ensure_eq, refused, refused_at};

cases! { "transfer":
    export_brings_a_whole_tree [Exec, Symlinks, Modes],
    export_counts_what_it_brings,
    export_drops_setuid [Exec, Modes],
    export_skips_links_that_lead_out [Exec, Symlinks],
    export_lets_no_chain_of_links_out [Exec, Symlinks],
    export_merging_writes_through_no_link [Symlinks],
    export_leaves_out_what_cannot_be_read [Exec, Modes],
    export_keeps_times [Exec],
    export_keeps_holes,
    export_to_a_name_that_must_be_new,
    export_needs_the_directory_above,
    export_refuses_what_is_not_a_directory_in_every_mode,
    export_skips_and_reports_special_files [Exec],
    export_takes_excludes,
    export_into_an_existing_directory_fails,
    export_into_an_empty_directory_works,
    export_merges_when_asked,
    export_merges_into_closed_directories [Exec, Modes],
    export_replaces_when_asked,
    export_of_a_missing_directory_is_refused,
    export_of_a_file_is_refused,
    export_beyond_a_limit_leaves_nothing,
    a_cancelled_export_leaves_nothing_under_its_name,
}

async fn export_brings_a_whole_tree(cx: Context) -> Verdict {
    let batch = FileBatch::new()
        .file("d/a.txt", "one\n")
        .file_with_mode("d/run.sh", "#!/bin/sh\n", Mode::EXECUTABLE)
        .file_with_mode("d/sub/private", "p", Mode::new(0o600))
        .file("d/-odd name\n", "x");
    cx.sandbox.write_files(batch).await?;
    cx.sh("cd d && mkdir empty && ln -s run.sh link && ln -s ../a.txt sub/up && ln -s no dangling")
        .await?;
    let host = cx.host_dir()?;
    let to = host.path().join("out");
    let options = ExportOptions::new();
    cx.sandbox.export_dir(&"d".into(), &to, options).await?;
    let expected = [
        ("-odd name\n", "file 644 x"),
        ("a.txt", "file 644 one\\n"),
        ("dangling", "link to no"),
        ("empty", "directory 755"),
        ("link", "link to run.sh"),
        ("run.sh", "file 755 #!/bin/sh\\n"),
        ("sub", "directory 755"),
        ("sub/private", "file 600 p"),
        ("sub/up", "link to ../a.txt"),
    ];
    let expected: BTreeMap<_, _> = expected
        .iter()
        .map(|(name, what)| ((*name).to_owned(), (*what).to_owned()))
        .collect();
    ensure_eq!(tree(&to)?, expected, "the tree");
    ensure_eq!(fs::read_dir(host.path())?.count(), 1, "entries beside it");
    Ok(())
}

async fn export_counts_what_it_brings(cx: Context) -> Verdict {
    let batch = FileBatch::new().file("d/a", "12345").file("d/e/b", "123");
    cx.sandbox.write_files(batch).await?;
    let host = cx.host_dir()?;
    let to = host.path().join("out");
    let options = ExportOptions::new();
    let report = cx.sandbox.export_dir(&"d".into(), &to, options).await?;
    ensure_eq!(report.files, 2, "files");
    ensure_eq!(report.directories, 1, "directories, without the top one");
    ensure_eq!(report.bytes, 8, "bytes");
    ensure_eq!(report.skipped_total, 0, "skipped");
    Ok(())
}

async fn export_drops_setuid(cx: Context) -> Verdict {
    cx.sandbox.write("d/f", "x").await?;
    cx.sh("chmod 6755 d/f").await?;
    let inside = cx.sandbox.stat("d/f").await?.mode;
    ensure_eq!(inside.bits() & 0o777, 0o755, "the mode inside");
    let host = cx.host_dir()?;
    let to = host.path().join("out");
    let options = ExportOptions::new();
    cx.sandbox.export_dir(&"d".into(), &to, options).await?;
    let mode = fs::metadata(to.join("f"))?.permissions().mode() & 0o7777;
    ensure_eq!(mode, 0o755, "the mode on the host");
    Ok(())
}

async fn export_skips_links_that_lead_out(cx: Context) -> Verdict {
    cx.sandbox.write("d/f", "x").await?;
    cx.sh(
        "cd d && mkdir sub && ln -s /etc/passwd absolute && ln -s ../outside up && \
         ln -s ../f sub/fine && ln -s ../../x sub/out && ln -s sub/../../x around",
    )
    .await?;
    let host = cx.host_dir()?;
    let to = host.path().join("out");
    let options = ExportOptions::new();
    let report = cx.sandbox.export_dir(&"d".into(), &to, options).await?;
    let found: Vec<String> = tree(&to)?.into_keys().collect();
    ensure_eq!(found, ["f", "sub", "sub/fine"], "what was brought");
    let mut skipped: Vec<String> = report.skipped.iter().map(|s| s.path.to_string()).collect();
    skipped.sort();
    ensure_eq!(
        skipped,
        ["absolute", "around", "sub/out", "up"],
        "what was reported"
    );
    ensure!(
        report.skipped.iter().all(|s| !s.reason.is_empty()),
        "no reason given"
    );
    Ok(())
}

async fn export_lets_no_chain_of_links_out(cx: Context) -> Verdict {
    cx.sandbox.write("d/t/f", "x").await?;
    cx.sandbox.write("d/deep/er/f", "x").await?;
    // Their words stay inside; where they lead depends on other links. "later" is checked while
    // "dir" is a directory in the order of names, and leads through it when it is a link.
    cx.sh(
        "cd d && ln -s . t/d && ln -s d/d/d/../../../../../../../../../../../etc/hostname t/e && \
         ln -s .. deep/er/up && ln -s up/up/up/../../../../../../etc/hostname deep/er/over && \
         ln -s ./deep/er/../../../../../../../../etc/hostname dots && \
         ln -s dir/../../../../../../../etc/hostname later && ln -s t/d/d dir && \
         ln -s deep/er/f fine && ln -s //etc/hostname slashes",
    )
    .await?;
    let host = cx.host_dir()?;
    let to = host.path().join("a/b/out");
    fs::create_dir_all(to.parent().unwrap_or(&to))?;
    let options = ExportOptions::new();
    let report = cx.sandbox.export_dir(&"d".into(), &to, options).await?;
    let top = fs::canonicalize(&to)?;
    for (name, what) in tree(&to)? {
        if !what.starts_with("link") {
            continue;
        }
        if let Ok(leads) = fs::canonicalize(to.join(&name)) {
            ensure!(
                leads.starts_with(&top),
                "{name}, {what}, leads to {leads:?}"
            );
        }
    }
    let mut skipped: Vec<String> = report.skipped.iter().map(|s| s.path.to_string()).collect();
    skipped.sort();
    let expected = ["deep/er/over", "dots", "later", "slashes", "t/e"];
    ensure_eq!(skipped, expected, "what was reported");
    ensure!(
        to.join("fine").exists(),
        "a link within the directory is missing"
    );
    Ok(())
}

async fn export_merging_writes_through_no_link(cx: Context) -> Verdict {
    use std::os::unix::fs::symlink;
    let outside = cx.host_dir()?;
    put(outside.path(), "f", "untouched")?;
    let merge = || ExportOptions::new().existing(ExistingDir::Merge);
    // Where the export has a directory, the destination has a link to one.
    cx.sandbox.write("d/sub/f", "new").await?;
    cx.sandbox.write("d/a", "new").await?;
    let host = cx.host_dir()?;
    let to = host.path().join("out");
    put(&to, "own", "kept")?;
    symlink(outside.path(), to.join("sub"))?;
    let done = cx.sandbox.export_dir(&"d".into(), &to, merge()).await;
    let kind = ErrorKind::NotADirectory;
    refused(done, &cx.sandbox, Operation::ExportDir, kind)?;
    let left: Vec<String> = tree(&to)?.into_keys().collect();
    ensure_eq!(left, ["own", "sub"], "what a refused merge left");
    // Where it has a file, the destination has a link to one.
    cx.sandbox.write("e/l", "new").await?;
    symlink(outside.path().join("f"), to.join("l"))?;
    cx.sandbox.export_dir(&"e".into(), &to, merge()).await?;
    ensure_eq!(fs::read_to_string(to.join("l"))?, "new", "the file");
    ensure!(!to.join("l").is_symlink(), "the link is still there");
    let found = tree(outside.path())?;
    ensure_eq!(found.len(), 1, "entries behind the links");
    let text = fs::read_to_string(outside.path().join("f"))?;
    ensure_eq!(text, "untouched", "the file behind the links");
    Ok(())
}

async fn export_leaves_out_what_cannot_be_read(cx: Context) -> Verdict {
    let batch = FileBatch::new()
        .file("d/open", "1")
        .file("d/shut", "2")
        .file("d/closed/f", "3")
        .file("d/sub/open", "4");
    cx.sandbox.write_files(batch).await?;
    cx.sh("chmod 000 d/shut d/closed").await?;
    // A user that may read everything has nothing to leave out.
    let shell = sandbox_core::Command::shell("cat d/shut");
    let all = cx.sandbox.exec(shell).await?.success();
    let host = cx.host_dir()?;
    let to = host.path().join("out");
    let options = ExportOptions::new();
    let report = cx.sandbox.export_dir(&"d".into(), &to, options).await?;
    let text = fs::read_to_string(to.join("sub/open"))?;
    ensure_eq!(text, "4", "what can be read");
    let mut skipped: Vec<String> = report.skipped.iter().map(|s| s.path.to_string()).collect();
    skipped.sort();
    let expected: &[&str] = if all { &[] } else { &["closed", "shut"] };
    ensure_eq!(skipped, expected, "what was reported");
    ensure_eq!(report.files, if all { 4 } else { 2 }, "files");
    let again = host.path().join("again");
    let options = ExportOptions::new().unreadable(Unreadable::Fail);
    let done = cx.sandbox.export_dir(&"d".into(), &again, options).await;
    if all {
        done?;
    } else {
        let kind = ErrorKind::PermissionDenied;
        refused(done, &cx.sandbox, Operation::ExportDir, kind)?;
        ensure!(!again.exists(), "a refused export left something");
    }
    // So that the sandbox's end can remove them.
    cx.sh("chmod 700 d/shut d/closed").await?;
    Ok(())
}

async fn export_keeps_times(cx: Context) -> Verdict {
    // What is brought in with a time comes out with it.
    let host = cx.host_dir()?;
    let within = times(host.path(), cx.sandbox.capabilities())?;
    let from = host.path();
    fs::set_permissions(from, fs::Permissions::from_mode(0o750))?;
    let of_top = SystemTime::UNIX_EPOCH + Duration::from_secs(1_400_000_000);
    fs::File::open(from)?.set_modified(of_top)?;
    let options = ImportOptions::new();
    cx.sandbox.import_dir(from, &"in".into(), options).await?;
    let before = cx.sandbox.stat("in/before").await?.modified;
    ensure!(
        before.is_some_and(|at| at <= SystemTime::UNIX_EPOCH),
        "a time before 1970 inside: {before:?}"
    );
    for (name, at) in &within {
        let inside = cx
            .sandbox
            .stat(sandbox_core::GuestPath::from("in").join(*name))
            .await?
            .modified;
        ensure!(same(inside, *at), "{name} inside: {inside:?}, not {at:?}");
    }
    let out = cx.host_dir()?;
    let to = out.path().join("out");
    let options = ExportOptions::new();
    cx.sandbox.export_dir(&"in".into(), &to, options).await?;
    for (name, at) in &within {
        let outside = fs::symlink_metadata(to.join(name))?.modified().ok();
        ensure!(
            same(outside, *at),
            "{name} outside: {outside:?}, not {at:?}"
        );
    }
    // The directory itself is as it is inside.
    let (inside, outside) = (cx.sandbox.stat("in").await?, fs::metadata(&to)?);
    let at = outside.modified().ok();
    ensure!(
        inside.modified.is_some_and(|inside| same(at, inside)),
        "the directory outside: {at:?}, not {:?}",
        inside.modified
    );
    if cx.sandbox.capabilities().has(Capability::Modes) {
        ensure_eq!(
            outside.mode() & 0o777,
            inside.mode.bits() & 0o777,
            "its mode"
        );
    }
    Ok(())
}

/// Makes entries with times of their own.
pub(super) fn times(host: &Path, can: Capabilities) -> Verdict<Vec<(&'static str, SystemTime)>> {
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let made = vec![
        ("old", at(1_577_836_800)),
        ("new", at(1_577_923_200)),
        ("future", at(7_000_000_000)),
        ("dir", at(1_500_000_000)),
    ];
    for (name, time) in &made {
        if *name == "dir" {
            put(host, "dir/f", "x")?;
        } else {
            put(host, name, "x")?;
        }
        fs::File::open(host.join(name))?.set_modified(*time)?;
    }
    // Clamped by some filesystems, and never an error.
    put(host, "before", "x")?;
    let before = SystemTime::UNIX_EPOCH - Duration::from_secs(86_400);
    fs::File::open(host.join("before"))?.set_modified(before)?;
    if can.has(Capability::Symlinks) {
        std::os::unix::fs::symlink("old", host.join("link"))?;
    }
    Ok(made)
}

/// Archives carry whole seconds.
pub(super) fn same(found: Option<SystemTime>, expected: SystemTime) -> bool {
    let found = found.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
    let expected = expected.duration_since(SystemTime::UNIX_EPOCH).ok();
    found.map(|at| at.as_secs()) == expected.map(|at| at.as_secs())
}

async fn export_keeps_holes(cx: Context) -> Verdict {
    const SIZE: u64 = 48 << 20;
    let host = cx.host_dir()?;
    let file = fs::File::create_new(host.path().join("sparse"))?;
    file.write_all_at(b"begin", 0)?;
    file.write_all_at(b"middle", SIZE / 2)?;
    file.set_len(SIZE)?;
    let blocks = |path: &Path| fs::metadata(path).map(|found| (found.len(), found.blocks()));
    let (_, before) = blocks(&host.path().join("sparse"))?;
    ensure!(
        before < 1024,
        "this host's temporary directory has no holes"
    );
    let from = host.path();
    let options = ImportOptions::new();
    let report = cx.sandbox.import_dir(from, &"in".into(), options).await?;
    ensure_eq!(report.bytes, SIZE, "bytes");
    let out = cx.host_dir()?;
    let to = out.path().join("out");
    let options = ExportOptions::new();
    cx.sandbox.export_dir(&"in".into(), &to, options).await?;
    let (size, after) = blocks(&to.join("sparse"))?;
    ensure_eq!(size, SIZE, "the size");
    ensure!(
        after < 1024,
        "the holes were filled: {after} blocks of 512 bytes"
    );
    let (mut found, file) = ([0; 8], fs::File::open(to.join("sparse"))?);
    file.read_exact_at(&mut found, SIZE / 2)?;
    ensure_eq!(&found, b"middle\0\0", "what is between the holes");
    Ok(())
}

async fn export_to_a_name_that_must_be_new(cx: Context) -> Verdict {
    cx.sandbox.write("d/f", "x").await?;
    let host = cx.host_dir()?;
    let options = || ExportOptions::new().existing(ExistingDir::MustBeAbsent);
    let to = host.path().join("out");
    cx.sandbox.export_dir(&"d".into(), &to, options()).await?;
    ensure_eq!(fs::read(to.join("f"))?, b"x", "what is at the new name");
    let empty = host.path().join("empty");
    fs::create_dir(&empty)?;
    for there in [to, empty] {
        let before = tree(host.path())?;
        let done = cx.sandbox.export_dir(&"d".into(), &there, options()).await;
        let kind = ErrorKind::AlreadyExists;
        let error = refused(done, &cx.sandbox, Operation::ExportDir, kind)?;
        ensure_eq!(
            error.host_path(),
            Some(there.as_path()),
            "the host path named"
        );
        ensure_eq!(tree(host.path())?, before, "what is there");
    }
    Ok(())
}

async fn export_needs_the_directory_above(cx: Context) -> Verdict {
    cx.sandbox.write("d/f", "x").await?;
    let host = cx.host_dir()?;
    for existing in [
        ExistingDir::MustBeEmpty,
        ExistingDir::Merge,
        ExistingDir::Replace,
    ] {
        let to = host.path().join("no/such/out");
        let options = ExportOptions::new().existing(existing);
        let done = cx.sandbox.export_dir(&"d".into(), &to, options).await;
        let kind = ErrorKind::NotFound;
        let error = refused(done, &cx.sandbox, Operation::ExportDir, kind)?;
        ensure_eq!(error.host_path(), Some(to.as_path()), "the host path named");
        ensure_eq!(fs::read_dir(host.path())?.count(), 0, "what was made");
    }
    Ok(())
}

async fn export_refuses_what_is_not_a_directory_in_every_mode(cx: Context) -> Verdict {
    cx.sandbox.write("d/f", "new").await?;
    let host = cx.host_dir()?;
    put(host.path(), "real/own", "kept")?;
    put(host.path(), "file", "kept")?;
    std::os::unix::fs::symlink("real", host.path().join("link"))?;
    std::os::unix::fs::symlink("nowhere", host.path().join("dangling"))?;
    let before = tree(host.path())?;
    for existing in [
        ExistingDir::MustBeEmpty,
        ExistingDir::Merge,
        ExistingDir::Replace,
    ] {
        for name in ["file", "link", "dangling"] {
            let to = host.path().join(name);
            let options = ExportOptions::new().existing(existing);
            let done = cx.sandbox.export_dir(&"d".into(), &to, options).await;
            let kind = ErrorKind::AlreadyExists;
            let error = refused(done, &cx.sandbox, Operation::ExportDir, kind)?;
            ensure_eq!(error.host_path(), Some(to.as_path()), "the host path named");
            ensure_eq!(
                tree(host.path())?,
                before,
                "what is there, after {existing:?}"
            );
        }
    }
    Ok(())
}

async fn export_skips_and_reports_special_files(cx: Context) -> Verdict {
    cx.sandbox.write("d/f", "x").await?;
    cx.sh("mkfifo d/fifo").await?;
    let host = cx.host_dir()?;
    let to = host.path().join("out");
    let options = ExportOptions::new();
    let from = "d".into();
    let export = cx.sandbox.export_dir(&from, &to, options);
    let Ok(report) = tokio::time::timeout(Duration::from_secs(120), export).await else {
        return Err(crate::kit::Failed::new("exporting a FIFO hangs"));
    };
    let report = report?;
    ensure_eq!(report.skipped_total, 1, "skipped");
    let found: Vec<String> = tree(&to)?.into_keys().collect();
    ensure_eq!(found, ["f"], "what was brought");
    Ok(())
}

async fn export_takes_excludes(cx: Context) -> Verdict {
    let batch = FileBatch::new()
        .file("d/src/a", "1")
        .file("d/src/a.o", "2")
        .file("d/target/b", "3");
    cx.sandbox.write_files(batch).await?;
    let host = cx.host_dir()?;
    let to = host.path().join("out");
    let options = ExportOptions::new().exclude("/target").exclude("*.o");
    cx.sandbox.export_dir(&"d".into(), &to, options).await?;
    let found: Vec<String> = tree(&to)?.into_keys().collect();
    ensure_eq!(found, ["src", "src/a"], "what was brought");
    Ok(())
}

async fn export_into_an_existing_directory_fails(cx: Context) -> Verdict {
    let (_host, to) = existing(&cx).await?;
    let before = tree(&to)?;
    let options = ExportOptions::new();
    let done = cx.sandbox.export_dir(&"d".into(), &to, options).await;
    let kind = ErrorKind::AlreadyExists;
    let error = refused(done, &cx.sandbox, Operation::ExportDir, kind)?;
    ensure_eq!(error.host_path(), Some(to.as_path()), "the host path named");
    ensure_eq!(tree(&to)?, before, "the directory");
    Ok(())
}

async fn export_into_an_empty_directory_works(cx: Context) -> Verdict {
    cx.sandbox.write("d/f", "x").await?;
    let host = cx.host_dir()?;
    let to = host.path().join("out");
    fs::create_dir(&to)?;
    let options = ExportOptions::new();
    cx.sandbox.export_dir(&"d".into(), &to, options).await?;
    ensure_eq!(fs::read_to_string(to.join("f"))?, "x", "the file");
    Ok(())
}

async fn export_merges_when_asked(cx: Context) -> Verdict {
    let (host, to) = existing(&cx).await?;
    let options = ExportOptions::new().existing(ExistingDir::Merge);
    cx.sandbox.export_dir(&"d".into(), &to, options).await?;
    for (name, text) in [
        ("f", "new"),
        ("own", "kept"),
        ("sub/own", "kept"),
        ("sub/g", "new"),
    ] {
        ensure_eq!(fs::read_to_string(to.join(name))?, text, "{name}");
    }
    ensure_eq!(fs::read_dir(host.path())?.count(), 1, "entries beside it");
    Ok(())
}

/// Builders and package managers often close what they keep to writing.
async fn export_merges_into_closed_directories(cx: Context) -> Verdict {
    let batch = FileBatch::new().file("d/sub/f", "one").file("d/g", "one");
    cx.sandbox.write_files(batch).await?;
    let host = cx.host_dir()?;
    let to = host.path().join("out");
    let closed = |open: bool| -> Verdict {
        for dir in ["sub", "."] {
            let mode = if open { 0o755 } else { 0o2555 };
            fs::set_permissions(to.join(dir), fs::Permissions::from_mode(mode))?;
        }
        Ok(())
    };
    for text in ["one", "two", "three"] {
        let script = format!("chmod 755 d d/sub; printf {text} > d/sub/f; printf {text} > d/g");
        cx.sh(&format!("{script}; chmod 555 d/sub d")).await?;
        let options = ExportOptions::new().existing(ExistingDir::Merge);
        let done = cx.sandbox.export_dir(&"d".into(), &to, options).await;
        let modes = ["sub", "."].map(|dir| fs::metadata(to.join(dir)).map(|found| found.mode()));
        // So that they can be removed whatever happens.
        if to.exists() {
            closed(true)?;
        }
        done?;
        for name in ["sub/f", "g"] {
            ensure_eq!(fs::read_to_string(to.join(name))?, text, "{name}");
        }
        // Merging leaves the host's directories as they are; the first time they are made.
        for mode in modes {
            let kept = mode? & 0o7777 == 0o2555;
            ensure!(kept || text == "one", "a closed directory has another mode");
        }
        let left = fs::read_dir(&to)?.count() + fs::read_dir(to.join("sub"))?.count();
        ensure_eq!(left, 3, "entries");
        closed(false)?;
    }
    closed(true)?;
    cx.sh("chmod 755 d d/sub").await?;
    Ok(())
}

async fn export_replaces_when_asked(cx: Context) -> Verdict {
    let (host, to) = existing(&cx).await?;
    let options = ExportOptions::new().existing(ExistingDir::Replace);
    cx.sandbox.export_dir(&"d".into(), &to, options).await?;
    let found: Vec<String> = tree(&to)?.into_keys().collect();
    ensure_eq!(found, ["f", "sub", "sub/g"], "what is there");
    ensure_eq!(fs::read_to_string(to.join("f"))?, "new", "the file");
    ensure_eq!(fs::read_dir(host.path())?.count(), 1, "entries beside it");
    Ok(())
}

async fn export_of_a_missing_directory_is_refused(cx: Context) -> Verdict {
    let host = cx.host_dir()?;
    let to = host.path().join("out");
    let options = ExportOptions::new();
    let done = cx.sandbox.export_dir(&"nope".into(), &to, options).await;
    let kind = ErrorKind::NotFound;
    refused_at(done, &cx.sandbox, Operation::ExportDir, kind, "nope")?;
    ensure_eq!(fs::read_dir(host.path())?.count(), 0, "what was left");
    Ok(())
}

async fn export_of_a_file_is_refused(cx: Context) -> Verdict {
    cx.sandbox.write("f", "x").await?;
    let host = cx.host_dir()?;
    let to = host.path().join("out");
    let options = ExportOptions::new();
    let done = cx.sandbox.export_dir(&"f".into(), &to, options).await;
    let kind = ErrorKind::NotADirectory;
    refused_at(done, &cx.sandbox, Operation::ExportDir, kind, "f")?;
    ensure_eq!(fs::read_dir(host.path())?.count(), 0, "what was left");
    Ok(())
}

async fn export_beyond_a_limit_leaves_nothing(cx: Context) -> Verdict {
    let batch = FileBatch::new().file("d/a", "12345").file("d/b", "12345");
    cx.sandbox.write_files(batch).await?;
    let host = cx.host_dir()?;
    let to = host.path().join("out");
    for options in [
        ExportOptions::new().max_bytes(9),
        ExportOptions::new().max_entries(1),
    ] {
        let done = cx.sandbox.export_dir(&"d".into(), &to, options).await;
        let kind = ErrorKind::LimitExceeded;
        refused(done, &cx.sandbox, Operation::ExportDir, kind)?;
        ensure_eq!(fs::read_dir(host.path())?.count(), 0, "what was left");
    }
    let options = ExportOptions::new().max_bytes(10).max_entries(2);
    cx.sandbox.export_dir(&"d".into(), &to, options).await?;
    ensure_eq!(fs::read_dir(&to)?.count(), 2, "entries, at the limits");
    Ok(())
}

async fn a_cancelled_export_leaves_nothing_under_its_name(cx: Context) -> Verdict {
    let mut batch = FileBatch::new();
    for index in 0..500 {
        batch.push(format!("d/{}/{index}", index % 7), vec![b'x'; 5000]);
    }
    cx.sandbox.write_files(batch).await?;
    let whole = 500 + 7;
    for step in 0..12_u64 {
        let host = cx.host_dir()?;
        let to = host.path().join("out");
        let export = cx.sandbox.export("d", &to);
        // Later and later, until one comes through: somewhere on the way it is cut half way.
        let limit = Duration::from_micros(50 << step);
        let done = tokio::time::timeout(limit, export).await;
        if let Ok(done) = done {
            done?;
            ensure_eq!(tree(&to)?.len(), whole, "what a finished export left");
            return Ok(());
        }
        if to.exists() {
            ensure_eq!(tree(&to)?.len(), whole, "what a cancelled export left");
        }
    }
    Ok(())
}

/// A directory to export, and one of the host that has something in it.
async fn existing(cx: &Context) -> Verdict<(HostDir, std::path::PathBuf)> {
    let batch = FileBatch::new().file("d/f", "new").file("d/sub/g", "new");
    cx.sandbox.write_files(batch).await?;
    let host = cx.host_dir()?;
    let to = host.path().join("out");
    put(&to, "f", "old")?;
    put(&to, "own", "kept")?;
    put(&to, "sub/own", "kept")?;
    Ok((host, to))
}
