//! Changes of a sandbox: what differs from the files that it began with.
//!
//! Invariant: what is told is compared with what was done, entry by entry, so that nothing more and
//! nothing less is told.

use sandbox_core::{
    ChangeKind, Changes, ChangesOptions, Command, CreateDirOptions, ErrorKind, FileBatch, FileKind,
    GuestPath, Mode, Operation, RenameOptions, Sandbox, SandboxExt as _, SandboxSpec,
    SnapshotOptions, Source,
};

use crate::kit::{Context, Verdict, cases, ensure, ensure_eq, refused_at, sh_on};

cases! { "changes":
    a_fork_begins_without_changes [Changes, Fork],
    additions_are_told [Changes, Fork],
    modifications_are_told_with_both_contents [Changes, Fork],
    deletions_are_told_with_what_was_there [Changes, Fork],
    everything_since_the_creation_is_told [Changes],
    what_is_put_back_does_not_differ [Changes, Fork],
    a_touched_file_does_not_differ [Changes, Fork, Exec],
    changed_modes_are_told [Changes, Fork, Exec, Modes],
    changed_links_are_told [Changes, Fork, Exec, Symlinks],
    an_entry_of_another_kind_is_replaced [Changes, Fork],
    a_deleted_directory_is_listed_whole [Changes, Fork],
    a_directory_made_anew_has_lost_its_files [Changes, Fork],
    a_renamed_directory_is_gone_and_there [Changes, Fork],
    a_special_file_is_told_by_its_kind [Changes, Fork, Exec],
    one_of_two_hard_links_differs [Changes, Fork, Exec],
    a_fork_of_a_fork_begins_at_its_parent [Changes, Fork],
    the_parents_changes_are_not_the_forks [Changes, Fork],
    a_parent_that_was_forked_keeps_its_beginning [Changes, Fork],
    changes_through_forty_forks [Changes, Fork],
    a_snapshot_is_a_beginning [Changes, Snapshot],
    only_the_directory_is_looked_at [Changes, Fork],
    excluded_entries_are_left_out [Changes, Fork],
    contents_may_be_left_out [Changes, Fork],
    more_entries_than_the_limit_is_an_error [Changes, Fork],
    more_bytes_than_the_limit_is_an_error [Changes, Fork],
    odd_names_are_told [Changes, Fork, NonUtf8Names],
    a_missing_directory_is_not_found [Changes],
    a_file_is_not_a_directory [Changes],
    a_link_is_not_followed [Changes, Exec, Symlinks],
    a_running_command_goes_on [Changes, Fork, Spawn],
    files_that_the_guest_closed_are_compared [Changes, Fork, Exec, Modes],
    the_sandbox_works_on_afterwards [Changes, Exec],
}

/// The changes as `kind path`, in order.
fn told(changes: &Changes) -> Vec<String> {
    let line = |change: &sandbox_core::Change| {
        let kind = match change.kind() {
            ChangeKind::Added => '+',
            ChangeKind::Deleted => '-',
            ChangeKind::Modified => 'm',
            ChangeKind::Mode => 'p',
            ChangeKind::Replaced => 'r',
            _ => '?',
        };
        format!("{kind}{}", change.path)
    };
    changes.entries.iter().map(line).collect()
}

async fn are(sandbox: &dyn Sandbox, expected: &[&str]) -> Verdict<Changes> {
    let changes = sandbox.changes_in(".").await?;
    let told = told(&changes);
    ensure_eq!(told, expected, "what differs");
    Ok(changes)
}

fn content(changes: &Changes, path: &str, after: bool) -> Option<Vec<u8>> {
    let change = changes.get(path)?;
    let side = if after { &change.after } else { &change.before };
    side.as_ref()?
        .content
        .as_ref()
        .map(|content| content.to_vec())
}

async fn a_fork_begins_without_changes(cx: Context) -> Verdict {
    let batch = FileBatch::new().file("f", "1").file("d/e/g", "2");
    cx.sandbox.write_files(batch).await?;
    let child = cx.fork(&cx.sandbox).await?;
    let changes = are(&child, &[]).await?;
    ensure!(changes.is_empty(), "it is not empty");
    ensure_eq!(changes.directory, child.info().workdir, "the directory");
    Ok(())
}

async fn additions_are_told(cx: Context) -> Verdict {
    cx.sandbox.write("old", "1").await?;
    let child = cx.fork(&cx.sandbox).await?;
    child.write("new/deep/f", "2").await?;
    child.create_dir_all("empty").await?;
    let changes = are(&child, &["+empty", "+new", "+new/deep", "+new/deep/f"]).await?;
    ensure_eq!(
        content(&changes, "new/deep/f", true),
        Some(b"2".to_vec()),
        "its content"
    );
    let dir = changes.get("empty").and_then(|change| change.after.clone());
    ensure_eq!(
        dir.map(|dir| dir.kind),
        Some(FileKind::Directory),
        "the kind"
    );
    Ok(())
}

async fn modifications_are_told_with_both_contents(cx: Context) -> Verdict {
    let batch = FileBatch::new()
        .file("longer", "1")
        .file("same-size", "a")
        .file("not", "x");
    cx.sandbox.write_files(batch).await?;
    let child = cx.fork(&cx.sandbox).await?;
    let batch = FileBatch::new().file("longer", "12").file("same-size", "b");
    child.write_files(batch).await?;
    let changes = are(&child, &["mlonger", "msame-size"]).await?;
    ensure_eq!(
        content(&changes, "longer", false),
        Some(b"1".to_vec()),
        "before"
    );
    ensure_eq!(
        content(&changes, "longer", true),
        Some(b"12".to_vec()),
        "after"
    );
    ensure_eq!(
        content(&changes, "same-size", false),
        Some(b"a".to_vec()),
        "before"
    );
    ensure_eq!(
        content(&changes, "same-size", true),
        Some(b"b".to_vec()),
        "after"
    );
    Ok(())
}

async fn deletions_are_told_with_what_was_there(cx: Context) -> Verdict {
    let batch = FileBatch::new().file("f", "1").file("d/g", "2");
    cx.sandbox.write_files(batch).await?;
    let child = cx.fork(&cx.sandbox).await?;
    child.remove_all("f").await?;
    child.remove_all("d/g").await?;
    let changes = are(&child, &["-d/g", "-f"]).await?;
    ensure_eq!(content(&changes, "f", false), Some(b"1".to_vec()), "before");
    ensure_eq!(content(&changes, "f", true), None, "after");
    Ok(())
}

async fn everything_since_the_creation_is_told(cx: Context) -> Verdict {
    cx.sandbox.write("d/f", "1").await?;
    let changes = cx.sandbox.changes_in("d").await?;
    ensure_eq!(told(&changes), ["+f"], "what differs");
    Ok(())
}

async fn what_is_put_back_does_not_differ(cx: Context) -> Verdict {
    cx.sandbox.write("d/f", "1").await?;
    let child = cx.fork(&cx.sandbox).await?;
    child.write("d/f", "2").await?;
    child.write("d/f", "1").await?;
    child.write("passing", "x").await?;
    child.remove_all("passing").await?;
    child.remove_all("d").await?;
    child.write("d/f", "1").await?;
    are(&child, &[]).await?;
    Ok(())
}

async fn a_touched_file_does_not_differ(cx: Context) -> Verdict {
    cx.sandbox.write("d/f", "1").await?;
    let child = cx.fork(&cx.sandbox).await?;
    sh_on(&child, "touch d/f d; printf 1 > d/f; touch d/f").await?;
    are(&child, &[]).await?;
    Ok(())
}

async fn changed_modes_are_told(cx: Context) -> Verdict {
    let batch = FileBatch::new()
        .file("f", "1")
        .file("g", "2")
        .file("d/h", "3");
    cx.sandbox.write_files(batch).await?;
    let child = cx.fork(&cx.sandbox).await?;
    sh_on(
        &child,
        "chmod 755 f; chmod 700 d; chmod 600 g; printf x > g",
    )
    .await?;
    let changes = are(&child, &["pd", "pf", "mg"]).await?;
    let mode = |side: &Option<sandbox_core::FileVersion>| side.as_ref().map(|side| side.mode);
    let f = changes.get("f").cloned();
    ensure_eq!(
        f.as_ref().and_then(|f| mode(&f.before)),
        Some(Mode::FILE),
        "before"
    );
    ensure_eq!(
        f.as_ref().and_then(|f| mode(&f.after)),
        Some(Mode::EXECUTABLE),
        "after"
    );
    Ok(())
}

async fn changed_links_are_told(cx: Context) -> Verdict {
    cx.sh("ln -s a kept; ln -s a moved; ln -s a gone").await?;
    let child = cx.fork(&cx.sandbox).await?;
    sh_on(&child, "rm moved gone; ln -s b moved; ln -s /etc new").await?;
    let changes = are(&child, &["-gone", "mmoved", "+new"]).await?;
    let moved = changes.get("moved").cloned();
    let target = |side: Option<sandbox_core::FileVersion>| side.and_then(|side| side.link_target);
    let (before, after) = moved.map_or((None, None), |moved| (moved.before, moved.after));
    ensure_eq!(target(before), Some(GuestPath::from("a")), "before");
    ensure_eq!(target(after), Some(GuestPath::from("b")), "after");
    Ok(())
}

async fn an_entry_of_another_kind_is_replaced(cx: Context) -> Verdict {
    let batch = FileBatch::new().file("f", "1").file("d/g", "2");
    cx.sandbox.write_files(batch).await?;
    let child = cx.fork(&cx.sandbox).await?;
    child.remove_all("f").await?;
    child.write("f/inside", "3").await?;
    child.remove_all("d").await?;
    child.write("d", "4").await?;
    are(&child, &["rd", "-d/g", "rf", "+f/inside"]).await?;
    Ok(())
}

async fn a_deleted_directory_is_listed_whole(cx: Context) -> Verdict {
    let batch = FileBatch::new()
        .file("d/a", "1")
        .file("d/e/b", "2")
        .file("kept", "3");
    cx.sandbox.write_files(batch).await?;
    let child = cx.fork(&cx.sandbox).await?;
    child.remove_all("d").await?;
    let changes = are(&child, &["-d", "-d/a", "-d/e", "-d/e/b"]).await?;
    ensure_eq!(
        content(&changes, "d/e/b", false),
        Some(b"2".to_vec()),
        "what was there"
    );
    Ok(())
}

async fn a_directory_made_anew_has_lost_its_files(cx: Context) -> Verdict {
    let batch = FileBatch::new()
        .file("d/a", "1")
        .file("d/e/b", "2")
        .file("d/e/c", "3");
    cx.sandbox.write_files(batch).await?;
    let child = cx.fork(&cx.sandbox).await?;
    child.remove_all("d").await?;
    child.write("d/e/c", "3").await?;
    child.write("d/new", "4").await?;
    are(&child, &["-d/a", "-d/e/b", "+d/new"]).await?;
    Ok(())
}

async fn a_renamed_directory_is_gone_and_there(cx: Context) -> Verdict {
    cx.sandbox.write("d/f", "1").await?;
    let child = cx.fork(&cx.sandbox).await?;
    child
        .rename(&"d".into(), &"e".into(), RenameOptions::new())
        .await?;
    let changes = are(&child, &["-d", "-d/f", "+e", "+e/f"]).await?;
    ensure_eq!(
        content(&changes, "e/f", true),
        Some(b"1".to_vec()),
        "its content"
    );
    Ok(())
}

async fn a_special_file_is_told_by_its_kind(cx: Context) -> Verdict {
    let child = cx.fork(&cx.sandbox).await?;
    sh_on(&child, "mkfifo pipe").await?;
    let changes = are(&child, &["+pipe"]).await?;
    let kind = changes.get("pipe").and_then(|change| change.after.clone());
    ensure_eq!(kind.map(|side| side.kind), Some(FileKind::Fifo), "the kind");
    Ok(())
}

async fn one_of_two_hard_links_differs(cx: Context) -> Verdict {
    cx.sh("printf 1 > a; ln a b").await?;
    let child = cx.fork(&cx.sandbox).await?;
    // By a rename, so that it holds wherever names of a file are files of their own.
    sh_on(&child, "printf 2 > c; mv c a").await?;
    are(&child, &["ma"]).await?;
    Ok(())
}

async fn a_fork_of_a_fork_begins_at_its_parent(cx: Context) -> Verdict {
    cx.sandbox.write("f", "1").await?;
    let middle = cx.fork(&cx.sandbox).await?;
    middle.write("f", "2").await?;
    middle.write("of-middle", "x").await?;
    let last = cx.fork(&middle).await?;
    are(&last, &[]).await?;
    last.write("f", "1").await?;
    let changes = are(&last, &["mf"]).await?;
    ensure_eq!(
        content(&changes, "f", false),
        Some(b"2".to_vec()),
        "the parent's content"
    );
    Ok(())
}

async fn the_parents_changes_are_not_the_forks(cx: Context) -> Verdict {
    cx.sandbox.write("f", "1").await?;
    let child = cx.fork(&cx.sandbox).await?;
    cx.sandbox.write("f", "parent").await?;
    cx.sandbox.write("of-parent", "").await?;
    are(&child, &[]).await?;
    child.write("of-child", "").await?;
    are(&child, &["+of-child"]).await?;
    Ok(())
}

async fn a_parent_that_was_forked_keeps_its_beginning(cx: Context) -> Verdict {
    cx.sandbox.write("base", "1").await?;
    let work = cx.fork(&cx.sandbox).await?;
    work.write("first", "1").await?;
    let attempt = cx.fork(&work).await?;
    attempt.write("elsewhere", "1").await?;
    are(&work, &["+first"]).await?;
    work.write("second", "2").await?;
    work.remove_all("base").await?;
    are(&work, &["-base", "+first", "+second"]).await?;
    Ok(())
}

async fn changes_through_forty_forks(cx: Context) -> Verdict {
    cx.sandbox.write("base", "1").await?;
    let work = cx.fork(&cx.sandbox).await?;
    let mut expected = Vec::new();
    for round in 10..60 {
        work.write(format!("f{round}"), "x").await?;
        expected.push(format!("+f{round}"));
        // Each fork is a point in the work; what comes after it is in another layer, say.
        work.fork(sandbox_core::ForkOptions::new())
            .await?
            .close()
            .await?;
    }
    let changes = work.changes_in(".").await?;
    ensure_eq!(told(&changes), expected, "what differs");
    Ok(())
}

async fn a_snapshot_is_a_beginning(cx: Context) -> Verdict {
    cx.sandbox.write("d/f", "1").await?;
    let snapshot = cx.sandbox.snapshot(SnapshotOptions::new()).await?;
    let workdir = cx.sandbox.info().workdir;
    let spec: SandboxSpec = cx.fixture.spec().source(Source::Snapshot(snapshot.id));
    let from = cx.create(spec).await?;
    let dir = workdir.join("d");
    ensure!(
        from.changes_in(dir.clone()).await?.is_empty(),
        "it begins with changes"
    );
    from.write(dir.join("g"), "2").await?;
    let changes = from.changes_in(dir).await?;
    ensure_eq!(told(&changes), ["+g"], "what differs");
    Ok(())
}

async fn only_the_directory_is_looked_at(cx: Context) -> Verdict {
    cx.sandbox.write("d/f", "1").await?;
    let child = cx.fork(&cx.sandbox).await?;
    child.write("d/g", "2").await?;
    child.write("dd/h", "3").await?;
    let changes = child.changes_in("d").await?;
    ensure_eq!(told(&changes), ["+g"], "what differs");
    ensure_eq!(changes.directory, cx.at("d"), "the directory");
    Ok(())
}

async fn excluded_entries_are_left_out(cx: Context) -> Verdict {
    cx.sandbox.write("target/a", "1").await?;
    let child = cx.fork(&cx.sandbox).await?;
    let batch = FileBatch::new()
        .file("target/b", "2")
        .file("x.o", "3")
        .file("x.c", "4");
    child.write_files(batch).await?;
    let options = ChangesOptions::new()
        .exclude("/target")
        .exclude("*.o")
        .max_entries(1);
    let changes = child.changes(&".".into(), options).await?;
    ensure_eq!(told(&changes), ["+x.c"], "what differs");
    Ok(())
}

async fn contents_may_be_left_out(cx: Context) -> Verdict {
    let batch = FileBatch::new().file("same-size", "a").file("not", "b");
    cx.sandbox.write_files(batch).await?;
    let child = cx.fork(&cx.sandbox).await?;
    let batch = FileBatch::new()
        .file("same-size", "b")
        .file("not", "b")
        .file("new", "c");
    child.write_files(batch).await?;
    let options = ChangesOptions::new().contents(false);
    let changes = child.changes(&".".into(), options).await?;
    ensure_eq!(told(&changes), ["+new", "msame-size"], "what differs");
    ensure_eq!(changes.bytes(), 0, "bytes of contents");
    Ok(())
}

async fn more_entries_than_the_limit_is_an_error(cx: Context) -> Verdict {
    let child = cx.fork(&cx.sandbox).await?;
    let batch = FileBatch::new().file("a", "").file("b", "").file("c", "");
    child.write_files(batch).await?;
    let options = ChangesOptions::new().max_entries(2);
    let found = child.changes(&".".into(), options).await;
    let text = found
        .as_ref()
        .err()
        .map(ToString::to_string)
        .unwrap_or_default();
    let kind = found.err().map(|error| error.kind());
    ensure_eq!(kind, Some(ErrorKind::LimitExceeded), "the kind");
    ensure!(
        text.contains("limit of 2"),
        "the limit is not stated: {text}"
    );
    let options = ChangesOptions::new().max_entries(3);
    ensure_eq!(
        child.changes(&".".into(), options).await?.entries.len(),
        3,
        "entries"
    );
    Ok(())
}

async fn more_bytes_than_the_limit_is_an_error(cx: Context) -> Verdict {
    let child = cx.fork(&cx.sandbox).await?;
    child.write("f", "0123456789").await?;
    let options = ChangesOptions::new().max_bytes(9);
    let found = child.changes(&".".into(), options).await;
    let text = found
        .as_ref()
        .err()
        .map(ToString::to_string)
        .unwrap_or_default();
    let kind = found.err().map(|error| error.kind());
    ensure_eq!(kind, Some(ErrorKind::LimitExceeded), "the kind");
    ensure!(
        text.contains("limit of 9"),
        "the limit is not stated: {text}"
    );
    let options = ChangesOptions::new().max_bytes(10);
    ensure_eq!(
        child.changes(&".".into(), options).await?.bytes(),
        10,
        "bytes"
    );
    Ok(())
}

async fn odd_names_are_told(cx: Context) -> Verdict {
    let child = cx.fork(&cx.sandbox).await?;
    let names: [&[u8]; 4] = [b"a b", b"line\nfeed", b"\xff\xfe", b"-rf"];
    for name in names {
        child.write(name, "x").await?;
    }
    let changes = child.changes_in(".").await?;
    let mut told: Vec<&[u8]> = changes.entries.iter().map(|c| c.path.as_bytes()).collect();
    let mut expected = names.to_vec();
    told.sort_unstable();
    expected.sort_unstable();
    ensure_eq!(told, expected, "names");
    Ok(())
}

async fn a_missing_directory_is_not_found(cx: Context) -> Verdict {
    let found = cx.sandbox.changes_in("missing/deep").await;
    refused_at(
        found,
        &*cx.sandbox,
        Operation::Changes,
        ErrorKind::NotFound,
        "missing/deep",
    )?;
    Ok(())
}

async fn a_file_is_not_a_directory(cx: Context) -> Verdict {
    cx.sandbox.write("f", "x").await?;
    let found = cx.sandbox.changes_in("f").await;
    refused_at(
        found,
        &*cx.sandbox,
        Operation::Changes,
        ErrorKind::NotADirectory,
        "f",
    )?;
    Ok(())
}

async fn a_link_is_not_followed(cx: Context) -> Verdict {
    cx.sh("mkdir d; ln -s d link").await?;
    let found = cx.sandbox.changes_in("link").await;
    refused_at(
        found,
        &*cx.sandbox,
        Operation::Changes,
        ErrorKind::NotADirectory,
        "link",
    )?;
    Ok(())
}

async fn a_running_command_goes_on(cx: Context) -> Verdict {
    let child = cx.fork(&cx.sandbox).await?;
    let script = "printf 1 > begun; while [ ! -e end ]; do sleep 0.02; done; printf 2 > done";
    let process = child.spawn(Command::shell(script)).await?;
    super::tools::appears(&child, "begun").await?;
    let changes = child.changes_in(".").await?;
    ensure!(
        changes.get("begun").is_some(),
        "what the command wrote is not told"
    );
    child.write("end", "").await?;
    ensure!(
        process.wait().await?.status.success(),
        "the command did not go on"
    );
    ensure_eq!(child.read_to_string("done").await?, "2", "its last file");
    Ok(())
}

async fn files_that_the_guest_closed_are_compared(cx: Context) -> Verdict {
    let options = CreateDirOptions::new();
    cx.sandbox.create_dir(&"shut".into(), options).await?;
    cx.sandbox.write("shut/f", "1").await?;
    cx.sh("chmod 000 shut/f shut").await?;
    let child = cx.fork(&cx.sandbox).await?;
    are(&child, &[]).await?;
    sh_on(
        &child,
        "chmod 700 shut; rm -f shut/f; printf 2 > shut/f; chmod 000 shut/f shut",
    )
    .await?;
    let changes = are(&child, &["mshut/f"]).await?;
    ensure_eq!(
        content(&changes, "shut/f", false),
        Some(b"1".to_vec()),
        "before"
    );
    ensure_eq!(
        child.stat("shut").await?.mode,
        Mode::new(0),
        "the guest's mode afterwards"
    );
    // So that what cleans up may go in.
    sh_on(&child, "chmod 700 shut").await?;
    cx.sh("chmod 700 shut").await?;
    Ok(())
}

async fn the_sandbox_works_on_afterwards(cx: Context) -> Verdict {
    cx.sandbox.write("f", "1").await?;
    for _ in 0..3 {
        cx.sandbox.changes_in(".").await?;
        cx.sh("printf x >> f").await?;
    }
    ensure_eq!(cx.sandbox.read_to_string("f").await?, "1xxx", "the file");
    Ok(())
}
