//! Watch of what changes below a directory.
//!
//! Invariant: that something is told, or is not, is decided by what is told of a later change, never
//! by a pause.

use std::collections::BTreeSet;
use std::time::Duration;

use sandbox_core::{
    ErrorKind, FileEvent, FileWatch, ForkOptions, Operation, SandboxExt as _, WatchOptions,
};

use crate::kit::{
    Context, Failed, Verdict, cases, ensure, ensure_eq, patience, refused, refused_at,
};

cases! { "watch":
    a_written_file_is_told [Watch],
    what_a_program_does_is_told [Watch, Exec],
    a_removal_is_told [Watch],
    a_changed_mode_is_told [Watch, Exec, Modes],
    a_rename_is_a_removal_and_a_creation [Watch],
    a_directory_that_appears_is_watched [Watch],
    a_directory_that_appears_full_is_told_whole [Watch],
    a_directory_that_was_moved_out_is_watched_no_more [Watch],
    only_the_directory_is_watched [Watch],
    what_was_before_is_not_told [Watch],
    a_link_is_not_followed [Watch, Exec, Symlinks],
    names_are_bytes [Watch, NonUtf8Names],
    more_events_than_the_bound_are_a_rescan [Watch],
    a_larger_tree_than_the_limit_is_refused [Watch],
    a_tree_that_grows_beyond_the_limit_ends_the_watch [Watch],
    two_watches_are_told_the_same [Watch],
    a_watch_goes_on_after_a_fork [Watch, Fork],
    a_fork_is_not_watched [Watch, Fork],
    a_watch_ends_with_its_directory [Watch],
    a_watch_ends_with_its_sandbox [Watch],
    only_a_directory_is_watched [Watch],
    a_closed_sandbox_is_not_watched [Watch],
}

fn created(path: &str) -> FileEvent {
    FileEvent::Created(path.into())
}

fn removed(path: &str) -> FileEvent {
    FileEvent::Removed(path.into())
}

async fn next(watch: &mut FileWatch) -> Verdict<Result<Vec<FileEvent>, sandbox_core::Error>> {
    match tokio::time::timeout(patience(), watch.next()).await {
        Ok(events) => Ok(events),
        Err(_) => Err(Failed::new("nothing was told")),
    }
}

/// Takes events up to the one of this path.
async fn up_to(watch: &mut FileWatch, path: &str) -> Verdict<BTreeSet<FileEvent>> {
    let mut told = BTreeSet::new();
    loop {
        told.extend(next(watch).await??);
        let is_there = |event: &FileEvent| event.path().is_some_and(|told| *told == path.into());
        if told.iter().any(is_there) {
            ensure!(
                !told.contains(&FileEvent::Rescan),
                "events were lost: {told:?}"
            );
            return Ok(told);
        }
    }
}

/// Takes events up to the end.
async fn end(watch: &mut FileWatch) -> Verdict<sandbox_core::Error> {
    loop {
        if let Err(error) = next(watch).await? {
            return Ok(error);
        }
    }
}

/// Everything that is told of what has happened so far.
async fn told(cx: &Context, watch: &mut FileWatch, top: &str) -> Verdict<BTreeSet<FileEvent>> {
    cx.sandbox.write(format!("{top}/last").as_str(), "").await?;
    let mut told = up_to(watch, "last").await?;
    ensure!(
        told.remove(&created("last")),
        "the last file is told as {told:?}"
    );
    Ok(told)
}

async fn a_written_file_is_told(cx: Context) -> Verdict {
    cx.sandbox.create_dir_all("top").await?;
    let mut watch = cx.sandbox.watch_dir("top").await?;
    cx.sandbox.write("top/file", "x").await?;
    let told_of = up_to(&mut watch, "file").await?;
    ensure!(told_of.contains(&created("file")), "told: {told_of:?}");
    // In the place of the first, or into it.
    cx.sandbox.write("top/file", "y").await?;
    let told_of = up_to(&mut watch, "file").await?;
    ensure!(!told_of.contains(&removed("file")), "told: {told_of:?}");
    Ok(())
}

async fn what_a_program_does_is_told(cx: Context) -> Verdict {
    cx.sandbox
        .sh("mkdir top; echo a > top/old; echo b > top/gone")
        .await?;
    let mut watch = cx.sandbox.watch_dir("top").await?;
    let script = "echo more >> top/old; rm top/gone; echo c > top/new";
    cx.sandbox.sh(script).await?;
    let told = told(&cx, &mut watch, "top").await?;
    for expected in [
        FileEvent::Modified("old".into()),
        removed("gone"),
        created("new"),
    ] {
        ensure!(
            told.contains(&expected),
            "{expected:?} is not told: {told:?}"
        );
    }
    Ok(())
}

async fn a_removal_is_told(cx: Context) -> Verdict {
    cx.sandbox.write("top/dir/file", "x").await?;
    cx.sandbox.write("top/other", "x").await?;
    let mut watch = cx.sandbox.watch_dir("top").await?;
    cx.sandbox.remove_one("top/other").await?;
    cx.sandbox.remove_all("top/dir").await?;
    let told = told(&cx, &mut watch, "top").await?;
    for expected in [removed("dir"), removed("other")] {
        ensure!(
            told.contains(&expected),
            "{expected:?} is not told: {told:?}"
        );
    }
    Ok(())
}

async fn a_changed_mode_is_told(cx: Context) -> Verdict {
    cx.sandbox.write("top/file", "x").await?;
    let mut watch = cx.sandbox.watch_dir("top").await?;
    cx.sandbox.sh("chmod 700 top/file").await?;
    let told = told(&cx, &mut watch, "top").await?;
    ensure!(
        told.contains(&FileEvent::Modified("file".into())),
        "told: {told:?}"
    );
    Ok(())
}

async fn a_rename_is_a_removal_and_a_creation(cx: Context) -> Verdict {
    cx.sandbox.write("top/a/file", "x").await?;
    let mut watch = cx.sandbox.watch_dir("top").await?;
    cx.sandbox.move_to("top/a", "top/b").await?;
    let told = told(&cx, &mut watch, "top").await?;
    for expected in [removed("a"), created("b"), created("b/file")] {
        ensure!(
            told.contains(&expected),
            "{expected:?} is not told: {told:?}"
        );
    }
    Ok(())
}

async fn a_directory_that_appears_is_watched(cx: Context) -> Verdict {
    cx.sandbox.create_dir_all("top").await?;
    let mut watch = cx.sandbox.watch_dir("top").await?;
    cx.sandbox.create_dir_all("top/new").await?;
    up_to(&mut watch, "new").await?;
    cx.sandbox.create_dir_all("top/new/deep").await?;
    up_to(&mut watch, "new/deep").await?;
    cx.sandbox.write("top/new/deep/file", "x").await?;
    up_to(&mut watch, "new/deep/file").await?;
    cx.sandbox.remove_one("top/new/deep/file").await?;
    let told = up_to(&mut watch, "new/deep/file").await?;
    ensure!(told.contains(&removed("new/deep/file")), "told: {told:?}");
    Ok(())
}

async fn a_directory_that_appears_full_is_told_whole(cx: Context) -> Verdict {
    cx.sandbox.write("full/dir/file", "x").await?;
    cx.sandbox.create_dir_all("top").await?;
    let mut watch = cx.sandbox.watch_dir("top").await?;
    cx.sandbox.move_to("full", "top/full").await?;
    let told = told(&cx, &mut watch, "top").await?;
    for expected in ["full", "full/dir", "full/dir/file"].map(created) {
        ensure!(
            told.contains(&expected),
            "{expected:?} is not told: {told:?}"
        );
    }
    Ok(())
}

async fn a_directory_that_was_moved_out_is_watched_no_more(cx: Context) -> Verdict {
    cx.sandbox.write("top/dir/file", "x").await?;
    let mut watch = cx.sandbox.watch_dir("top").await?;
    cx.sandbox.move_to("top/dir", "out").await?;
    up_to(&mut watch, "dir").await?;
    cx.sandbox.write("out/new", "x").await?;
    let told = told(&cx, &mut watch, "top").await?;
    ensure_eq!(
        told,
        BTreeSet::new(),
        "told of a directory that is elsewhere"
    );
    Ok(())
}

async fn only_the_directory_is_watched(cx: Context) -> Verdict {
    cx.sandbox.create_dir_all("top").await?;
    cx.sandbox.write("beside/file", "x").await?;
    let mut watch = cx.sandbox.watch_dir("top").await?;
    cx.sandbox.write("beside/file", "y").await?;
    cx.sandbox.write("beside/new", "y").await?;
    let told = told(&cx, &mut watch, "top").await?;
    ensure_eq!(
        told,
        BTreeSet::new(),
        "told of what is beside the directory"
    );
    Ok(())
}

async fn what_was_before_is_not_told(cx: Context) -> Verdict {
    cx.sandbox.write("top/dir/file", "x").await?;
    let mut watch = cx.sandbox.watch_dir("top").await?;
    let told = told(&cx, &mut watch, "top").await?;
    ensure_eq!(told, BTreeSet::new(), "told of what was there");
    Ok(())
}

async fn a_link_is_not_followed(cx: Context) -> Verdict {
    cx.sandbox
        .sh("mkdir top out; ln -s ../out top/before")
        .await?;
    let mut watch = cx.sandbox.watch_dir("top").await?;
    cx.sandbox.sh("ln -s ../out top/after").await?;
    up_to(&mut watch, "after").await?;
    cx.sandbox.write("out/file", "x").await?;
    let told = told(&cx, &mut watch, "top").await?;
    ensure_eq!(told, BTreeSet::new(), "told of what a link leads to");
    Ok(())
}

async fn names_are_bytes(cx: Context) -> Verdict {
    cx.sandbox.create_dir_all("top").await?;
    let mut watch = cx.sandbox.watch_dir("top").await?;
    cx.sandbox.write(b"top/\xff\n", "x").await?;
    let told = told(&cx, &mut watch, "top").await?;
    let expected = FileEvent::Created(b"\xff\n".into());
    ensure!(
        told.contains(&expected),
        "{expected:?} is not told: {told:?}"
    );
    Ok(())
}

async fn more_events_than_the_bound_are_a_rescan(cx: Context) -> Verdict {
    cx.sandbox.create_dir_all("top").await?;
    let options = WatchOptions::new().events(4);
    let mut watch = cx.sandbox.watch(&"top".into(), options).await?;
    for n in 0..20 {
        cx.sandbox.write(format!("top/{n}").as_str(), "x").await?;
    }
    let mut told = BTreeSet::new();
    // One more now and then: what was lost in silence must not be waited for.
    for n in 0..60 {
        match tokio::time::timeout(Duration::from_secs(1), watch.next()).await {
            Ok(events) => told.extend(events?),
            Err(_) if n < 10 => {
                cx.sandbox
                    .write(format!("top/last{n}").as_str(), "")
                    .await?
            }
            Err(_) => {}
        }
        if told.contains(&FileEvent::Rescan) {
            return goes_on(&cx, &mut watch).await;
        }
        let is_last = |event: &FileEvent| {
            event
                .path()
                .is_some_and(|path| path.as_bytes().starts_with(b"last"))
        };
        ensure!(!told.iter().any(is_last), "lost in silence: {told:?}");
    }
    Err(Failed::new(format_args!("no rescan is told: {told:?}")))
}

/// Checks that events come after a rescan; what was lost with it may end in another one.
async fn goes_on(cx: &Context, watch: &mut FileWatch) -> Verdict {
    for n in 0..100 {
        let name = format!("after{n}");
        cx.sandbox
            .write(format!("top/{name}").as_str(), "x")
            .await?;
        if next(watch).await??.contains(&created(&name)) {
            return Ok(());
        }
    }
    Err(Failed::new("nothing new is told after a rescan"))
}

async fn a_larger_tree_than_the_limit_is_refused(cx: Context) -> Verdict {
    for dir in ["top/a", "top/b"] {
        cx.sandbox.create_dir_all(dir).await?;
    }
    let (path, options) = ("top".into(), WatchOptions::new());
    let watch = cx
        .sandbox
        .watch(&path, options.clone().directories(2))
        .await;
    let kind = ErrorKind::LimitExceeded;
    refused_at(watch, &*cx.sandbox, Operation::Watch, kind, "top")?;
    cx.sandbox.watch(&path, options.directories(3)).await?;
    Ok(())
}

async fn a_tree_that_grows_beyond_the_limit_ends_the_watch(cx: Context) -> Verdict {
    cx.sandbox.create_dir_all("top/a").await?;
    let options = WatchOptions::new().directories(2);
    let mut watch = cx.sandbox.watch(&"top".into(), options).await?;
    cx.sandbox.create_dir_all("top/b").await?;
    let error = end(&mut watch).await?;
    let kind = ErrorKind::LimitExceeded;
    refused(Err::<(), _>(error), &*cx.sandbox, Operation::Watch, kind)?;
    Ok(())
}

async fn two_watches_are_told_the_same(cx: Context) -> Verdict {
    cx.sandbox.create_dir_all("top/dir").await?;
    let mut all = cx.sandbox.watch_dir("top").await?;
    let mut part = cx.sandbox.watch_dir("top/dir").await?;
    cx.sandbox.write("top/dir/file", "x").await?;
    up_to(&mut all, "dir/file").await?;
    up_to(&mut part, "file").await?;
    drop(all);
    cx.sandbox.write("top/dir/other", "x").await?;
    up_to(&mut part, "other").await?;
    Ok(())
}

/// Waits until this is told, by itself or by a rescan.
async fn known(watch: &mut FileWatch, path: &str) -> Verdict {
    loop {
        let told = next(watch).await??;
        if told.contains(&FileEvent::Rescan) || told.contains(&created(path)) {
            return Ok(());
        }
    }
}

async fn a_watch_goes_on_after_a_fork(cx: Context) -> Verdict {
    cx.sandbox.write("top/file", "x").await?;
    let mut watch = cx.sandbox.watch_dir("top").await?;
    for round in ["1", "2"] {
        let fork = cx.sandbox.fork(ForkOptions::new()).await?;
        let path = format!("top/after{round}");
        cx.sandbox.write(path.as_str(), "x").await?;
        known(&mut watch, &format!("after{round}")).await?;
        // Nothing is lost of what comes later.
        cx.sandbox
            .write(format!("{path}-later").as_str(), "x")
            .await?;
        known(&mut watch, &format!("after{round}-later")).await?;
        fork.close().await?;
    }
    Ok(())
}

async fn a_fork_is_not_watched(cx: Context) -> Verdict {
    cx.sandbox.create_dir_all("top").await?;
    let mut watch = cx.sandbox.watch_dir("top").await?;
    let fork = cx.sandbox.fork(ForkOptions::new()).await?;
    fork.write("top/of-the-fork", "x").await?;
    cx.sandbox.write("top/of-the-parent", "x").await?;
    known(&mut watch, "of-the-parent").await?;
    fork.write("top/of-the-fork-too", "x").await?;
    cx.sandbox.write("top/last", "x").await?;
    let mut told = BTreeSet::new();
    while !told.contains(&created("last")) && !told.contains(&FileEvent::Rescan) {
        told.extend(next(&mut watch).await??);
    }
    for other in ["of-the-fork", "of-the-fork-too"].map(created) {
        ensure!(!told.contains(&other), "{other:?} is told of the parent");
    }
    Ok(())
}

async fn a_watch_ends_with_its_directory(cx: Context) -> Verdict {
    for gone in ["removed", "renamed"] {
        cx.sandbox
            .write(format!("{gone}/file").as_str(), "x")
            .await?;
        let mut watch = cx.sandbox.watch_dir(gone).await?;
        match gone {
            "removed" => cx.sandbox.remove_all(gone).await?,
            _ => cx.sandbox.move_to(gone, "elsewhere").await?,
        }
        let error = end(&mut watch).await?;
        let kind = ErrorKind::NotFound;
        refused_at(
            Err::<(), _>(error),
            &*cx.sandbox,
            Operation::Watch,
            kind,
            gone,
        )?;
    }
    Ok(())
}

async fn a_watch_ends_with_its_sandbox(cx: Context) -> Verdict {
    cx.sandbox.create_dir_all("top").await?;
    let mut watch = cx.sandbox.watch_dir("top").await?;
    cx.sandbox.close().await?;
    let error = end(&mut watch).await?;
    let kind = ErrorKind::Closed;
    refused(Err::<(), _>(error), &*cx.sandbox, Operation::Watch, kind)?;
    Ok(())
}

async fn only_a_directory_is_watched(cx: Context) -> Verdict {
    cx.sandbox.write("file", "x").await?;
    for (path, kind) in [
        ("file", ErrorKind::NotADirectory),
        ("missing", ErrorKind::NotFound),
    ] {
        let watch = cx.sandbox.watch_dir(path).await;
        refused_at(watch, &*cx.sandbox, Operation::Watch, kind, path)?;
    }
    Ok(())
}

async fn a_closed_sandbox_is_not_watched(cx: Context) -> Verdict {
    cx.sandbox.close().await?;
    let watch = cx.sandbox.watch_dir(".").await;
    refused(watch, &*cx.sandbox, Operation::Watch, ErrorKind::Closed)?;
    Ok(())
}
