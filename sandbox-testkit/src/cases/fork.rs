//! Forks and snapshots.
//!
//! Invariant: independence is checked in both directions.

use std::sync::Arc;

use sandbox_core::{
    Command, CreateDirOptions, Env, ErrorKind, FileBatch, FileKind, GuestPath, ImportOptions,
    Labels, Mode, Operation, RenameOptions, Sandbox, SandboxExt as _, SnapshotId, SnapshotOptions,
    Source,
};

use super::export::{same, times};
use super::tools::{appears, text};
use crate::kit::{Context, Failed, Verdict, cases, ensure, ensure_eq, refused, sh_on};

cases! { "fork":
    a_fork_sees_the_parents_files [Fork],
    a_fork_sees_modes_links_and_empty_directories [Fork, Exec, Symlinks, Modes],
    a_fork_keeps_times [Fork],
    a_fork_sees_deletions [Fork],
    an_inherited_directory_may_be_renamed [Fork],
    writes_after_the_fork_stay_on_their_side [Fork],
    deletions_after_the_fork_stay_on_their_side [Fork],
    every_directory_is_forked [Fork, Exec],
    a_fork_has_the_workdir [Fork],
    a_forks_workdir_is_its_own [Fork],
    a_fork_has_the_environment [Fork, Exec],
    a_forks_environment_is_its_own [Fork, Exec],
    a_fork_names_its_parent [Fork],
    the_parent_may_be_closed_first [Fork],
    the_child_may_be_closed_first [Fork],
    a_fork_of_a_fork [Fork],
    forks_a_hundred_deep [Fork],
    thirty_two_siblings_at_once [Fork],
    a_fork_while_a_command_runs [Fork, Exec],
    a_fork_beside_a_program_that_writes_is_of_one_moment [Fork, Spawn],
    processes_are_not_forked [Fork, Exec, Background],
    the_same_command_runs_in_each_fork [Fork, Exec],
    a_fork_while_files_are_written_is_of_one_moment [Fork],
    a_fork_of_many_files_is_complete [Fork],
    a_dropped_fork_leaves_the_parent_usable [Fork],
    a_fork_that_a_close_meets_is_whole_or_refused [Fork],
    a_snapshot_keeps_the_files [Snapshot],
    a_missing_snapshot_is_not_found [Snapshot],
    a_snapshot_is_listed_by_its_labels [Snapshot, SnapshotList],
    a_deleted_snapshot_is_gone [Snapshot, SnapshotDelete],
}

cases! { "fork" of_this_host:
    a_fork_beside_timers_that_continue_what_was_stopped_is_of_one_moment [Fork, Spawn, Exec],
}

async fn is(sandbox: &dyn Sandbox, path: &str, expected: &str, who: &str) -> Verdict {
    let read = sandbox.read_to_string(path).await?;
    ensure_eq!(read, expected, "{path} as {who} sees it");
    Ok(())
}

async fn a_fork_sees_the_parents_files(cx: Context) -> Verdict {
    let batch = FileBatch::new().file("f", "1").file("d/e/g", "2");
    cx.sandbox.write_files(batch).await?;
    let child = cx.fork(&cx.sandbox).await?;
    is(&child, "f", "1", "the child").await?;
    is(&child, "d/e/g", "2", "the child").await
}

async fn a_fork_sees_modes_links_and_empty_directories(cx: Context) -> Verdict {
    let batch = FileBatch::new().file_with_mode("f", "x", Mode::new(0o751));
    cx.sandbox.write_files(batch).await?;
    let options = CreateDirOptions::new().mode(Mode::new(0o700));
    cx.sandbox.create_dir(&"empty".into(), options).await?;
    cx.sh("ln -s f link; mkfifo fifo").await?;
    let child = cx.fork(&cx.sandbox).await?;
    let file = child.stat("f").await?;
    ensure_eq!(file.mode, Mode::new(0o751), "the file's mode");
    let dir = child.stat("empty").await?;
    ensure_eq!(dir.mode, Mode::new(0o700), "the directory's mode");
    let link = child.stat("link").await?;
    ensure_eq!(link.link_target, Some("f".into()), "the link");
    let fifo = child.stat("fifo").await?;
    ensure_eq!(fifo.kind, FileKind::Fifo, "the FIFO");
    ensure_eq!(child.list("empty").await?.len(), 0, "entries");
    Ok(())
}

/// A build that is up to date in the parent is so in the child.
async fn a_fork_keeps_times(cx: Context) -> Verdict {
    let host = cx.host_dir()?;
    let made = times(host.path(), cx.sandbox.capabilities())?;
    let options = ImportOptions::new();
    cx.sandbox
        .import_dir(host.path(), &"in".into(), options)
        .await?;
    let child = cx.fork(&cx.sandbox).await?;
    let grandchild = cx.fork(&child).await?;
    for (who, sandbox) in [("the child", child), ("the grandchild", grandchild)] {
        for (name, at) in &made {
            let path = GuestPath::from("in").join(*name);
            let found = sandbox.stat(path).await?.modified;
            ensure!(
                same(found, *at),
                "{name} as {who} sees it: {found:?}, not {at:?}"
            );
        }
    }
    Ok(())
}

async fn a_fork_sees_deletions(cx: Context) -> Verdict {
    let batch = FileBatch::new().file("f", "1").file("d/g", "2");
    cx.sandbox.write_files(batch).await?;
    let middle = cx.fork(&cx.sandbox).await?;
    middle.remove_all("f").await?;
    middle.remove_all("d").await?;
    middle.write("d/new", "3").await?;
    let last = cx.fork(&middle).await?;
    ensure!(!last.exists("f").await?, "a removed file is back");
    ensure!(
        !last.exists("d/g").await?,
        "a file of a removed directory is back"
    );
    is(&last, "d/new", "3", "the grandchild").await?;
    is(&cx.sandbox, "d/g", "2", "the parent").await
}

async fn an_inherited_directory_may_be_renamed(cx: Context) -> Verdict {
    cx.sandbox.write("d/e/f", "x").await?;
    let child = cx.fork(&cx.sandbox).await?;
    let options = RenameOptions::new();
    child.rename(&"d".into(), &"moved".into(), options).await?;
    is(&child, "moved/e/f", "x", "the child").await?;
    ensure!(!child.exists("d").await?, "the old name is still there");
    is(&cx.sandbox, "d/e/f", "x", "the parent").await
}

async fn writes_after_the_fork_stay_on_their_side(cx: Context) -> Verdict {
    cx.sandbox.write("f", "before").await?;
    let child = cx.fork(&cx.sandbox).await?;
    cx.sandbox.write("f", "parent").await?;
    cx.sandbox.write("of-parent", "").await?;
    is(&child, "f", "before", "the child").await?;
    child.write("f", "child").await?;
    child.write("of-child", "").await?;
    is(&cx.sandbox, "f", "parent", "the parent").await?;
    is(&child, "f", "child", "the child").await?;
    ensure!(
        !child.exists("of-parent").await?,
        "the child sees a new file of the parent"
    );
    ensure!(
        !cx.sandbox.exists("of-child").await?,
        "the parent sees a new file of the child"
    );
    Ok(())
}

async fn deletions_after_the_fork_stay_on_their_side(cx: Context) -> Verdict {
    let batch = FileBatch::new().file("a", "1").file("b", "2");
    cx.sandbox.write_files(batch).await?;
    let child = cx.fork(&cx.sandbox).await?;
    cx.sandbox.remove_all("a").await?;
    child.remove_all("b").await?;
    is(&child, "a", "1", "the child").await?;
    is(&cx.sandbox, "b", "2", "the parent").await?;
    ensure!(
        !cx.sandbox.exists("a").await?,
        "the parent's deletion is undone"
    );
    ensure!(!child.exists("b").await?, "the child's deletion is undone");
    Ok(())
}

async fn every_directory_is_forked(cx: Context) -> Verdict {
    let output = cx.sh("printf %s \"$HOME\"").await?;
    let home = text(&output);
    let mut dirs = vec![
        "/tmp", "/var/tmp", "/var/kit", "/opt", "/etc", "/run", "/dev/shm",
    ];
    if home.starts_with('/') && home.len() > 1 {
        dirs.push(&home);
    }
    let mut checked = Vec::new();
    for dir in dirs {
        let path = |name: &str| format!("{dir}/kit-{name}");
        match cx.sandbox.write(path("before"), "before").await {
            Ok(()) => checked.push(dir),
            // Where the guest may not write there is nothing to share.
            Err(error) if may_not(error.kind()) => {}
            Err(error) => return Err(error.into()),
        }
    }
    ensure!(
        checked.contains(&"/tmp") && checked.len() > 1,
        "the guest may write to {checked:?} only"
    );
    let child = cx.fork(&cx.sandbox).await?;
    for dir in checked {
        let path = |name: &str| format!("{dir}/kit-{name}");
        // Where files are in memory, as in these as a rule, they need not be copied; nor be shared.
        let in_memory = matches!(dir, "/dev/shm" | "/run");
        cx.sandbox.write(path("before"), "after").await?;
        cx.sandbox.write(path("of-parent"), "").await?;
        if !in_memory {
            is(&child, &path("before"), "before", "the child").await?;
        }
        ensure!(
            !child.exists(path("of-parent")).await?,
            "the child sees a file that its parent wrote to {dir} after the fork"
        );
        child.write(path("of-child"), "").await?;
        ensure!(
            !cx.sandbox.exists(path("of-child")).await?,
            "the parent sees a file that its child wrote to {dir}"
        );
    }
    Ok(())
}

fn may_not(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::PermissionDenied
            | ErrorKind::ReadOnly
            | ErrorKind::NotFound
            | ErrorKind::NotADirectory
            | ErrorKind::InvalidInput
    )
}

async fn a_fork_has_the_workdir(cx: Context) -> Verdict {
    cx.sandbox.write("d/f", "x").await?;
    cx.sandbox.set_workdir(&"d".into()).await?;
    let child = cx.fork(&cx.sandbox).await?;
    ensure_eq!(
        child.info().workdir,
        cx.sandbox.info().workdir,
        "the workdir of the child"
    );
    is(&child, "f", "x", "the child").await
}

async fn a_forks_workdir_is_its_own(cx: Context) -> Verdict {
    cx.sandbox.write("d/f", "x").await?;
    let before = cx.sandbox.info().workdir;
    let child = cx.fork(&cx.sandbox).await?;
    child.set_workdir(&"d".into()).await?;
    ensure_eq!(cx.sandbox.info().workdir, before, "the parent's workdir");
    is(&cx.sandbox, "d/f", "x", "the parent").await?;
    is(&child, "f", "x", "the child").await
}

async fn variable(sandbox: &dyn Sandbox) -> Verdict<String> {
    Ok(text(&sh_on(sandbox, "printf '%s' \"$KIT\"").await?))
}

async fn a_fork_has_the_environment(cx: Context) -> Verdict {
    cx.sandbox.set_env(Env::new().set("KIT", "parent")).await?;
    let child = cx.fork(&cx.sandbox).await?;
    ensure_eq!(variable(&child).await?, "parent", "the child's variable");
    Ok(())
}

async fn a_forks_environment_is_its_own(cx: Context) -> Verdict {
    cx.sandbox.set_env(Env::new().set("KIT", "before")).await?;
    let child = cx.fork(&cx.sandbox).await?;
    child.set_env(Env::new().set("KIT", "child")).await?;
    ensure_eq!(variable(&cx.sandbox).await?, "before", "the parent's");
    cx.sandbox.set_env(Env::new().set("KIT", "parent")).await?;
    ensure_eq!(variable(&child).await?, "child", "the child's");
    Ok(())
}

async fn a_fork_names_its_parent(cx: Context) -> Verdict {
    let parent = cx.sandbox.info();
    let child = cx.fork(&cx.sandbox).await?.info();
    ensure!(child.id != parent.id, "the two have the same identifier");
    ensure_eq!(child.parent, Some(parent.id), "the child's parent");
    ensure_eq!(child.backend, parent.backend, "the backend");
    ensure_eq!(child.labels.len(), 0, "labels");
    Ok(())
}

async fn the_parent_may_be_closed_first(cx: Context) -> Verdict {
    cx.sandbox.write("f", "x").await?;
    let child = cx.fork(&cx.sandbox).await?;
    cx.sandbox.close().await?;
    is(&child, "f", "x", "the child").await?;
    child.write("g", "y").await?;
    let grandchild = cx.fork(&child).await?;
    is(&grandchild, "f", "x", "the grandchild").await
}

async fn the_child_may_be_closed_first(cx: Context) -> Verdict {
    cx.sandbox.write("f", "x").await?;
    let child = cx.fork(&cx.sandbox).await?;
    child.write("f", "child").await?;
    child.close().await?;
    is(&cx.sandbox, "f", "x", "the parent").await?;
    let second = cx.fork(&cx.sandbox).await?;
    is(&second, "f", "x", "a second child").await
}

async fn a_fork_of_a_fork(cx: Context) -> Verdict {
    cx.sandbox.write("f", "0").await?;
    let child = cx.fork(&cx.sandbox).await?;
    child.write("f", "1").await?;
    let grandchild = cx.fork(&child).await?;
    grandchild.write("f", "2").await?;
    is(&cx.sandbox, "f", "0", "the first").await?;
    is(&child, "f", "1", "the second").await?;
    is(&grandchild, "f", "2", "the third").await
}

async fn forks_a_hundred_deep(cx: Context) -> Verdict {
    cx.sandbox.write("gen/0", "0").await?;
    let mut last = cx.sandbox.clone();
    for depth in 1..=100 {
        let next = cx.fork(&last).await?;
        next.write(format!("gen/{depth}"), depth.to_string())
            .await?;
        // Only the newest stays open, so that the chain is of closed parents.
        last.close().await?;
        last = next;
    }
    ensure_eq!(
        last.list("gen").await?.len(),
        101,
        "files of all generations"
    );
    is(&last, "gen/0", "0", "the last").await?;
    is(&last, "gen/50", "50", "the last").await
}

async fn thirty_two_siblings_at_once(cx: Context) -> Verdict {
    cx.sandbox.write("f", "common").await?;
    let mut forks = tokio::task::JoinSet::new();
    for index in 0..32 {
        let cx = cx.clone();
        forks.spawn(async move {
            let child = cx.fork(&cx.sandbox).await?;
            is(&child, "f", "common", "a child").await?;
            child.write("f", index.to_string()).await?;
            Ok::<_, Failed>((index, child))
        });
    }
    let mut children: Vec<(i32, Arc<dyn Sandbox>)> = Vec::new();
    while let Some(done) = forks.join_next().await {
        children.push(done??);
    }
    for (index, child) in &children {
        is(child, "f", &index.to_string(), "its writer").await?;
    }
    is(&cx.sandbox, "f", "common", "the parent").await
}

async fn a_fork_while_a_command_runs(cx: Context) -> Verdict {
    let sandbox = cx.sandbox.clone();
    let script = "touch started; while [ ! -e go ]; do sleep 0.02; done; printf went";
    let running = tokio::spawn(async move { sandbox.sh(script).await });
    appears(&*cx.sandbox, "started").await?;
    let child = cx.fork(&cx.sandbox).await?;
    ensure!(child.exists("started").await?, "the child misses a file");
    child.write("go", "").await?;
    ensure!(
        !running.is_finished(),
        "a file of the child was seen by the parent"
    );
    cx.sandbox.write("go", "").await?;
    ensure_eq!(text(&running.await??), "went", "what the command said");
    Ok(())
}

/// Forks while a program writes to one file and then to the other: the fork has as much of both, or
/// one write more of the first, or there is none.
async fn is_of_one_moment(cx: &Context) -> Verdict {
    match cx.sandbox.fork_one().await {
        Ok(child) => {
            cx.track(child.clone());
            let first = child.stat("first").await?.size;
            let second = child.stat("second").await?.size;
            ensure!(
                first == second || first == second + 1,
                "the fork has {first} writes of the one file and {second} of the next"
            );
            Ok(child.close().await?)
        }
        // It could not be held still: no fork is better than one of two moments.
        Err(error) if error.kind() == ErrorKind::Busy => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A program writes to one file and then to another, while one beside it lets it go on whenever it
/// was stopped: a copy that reads the first before the second must not see more in the second.
async fn a_fork_beside_a_program_that_writes_is_of_one_moment(cx: Context) -> Verdict {
    let mut between = FileBatch::new().file("first", "").file("second", "");
    for index in 0..200 {
        between.push(format!("g{index}"), "between the two");
    }
    cx.sandbox.write_files(between).await?;
    let script = "( while [ ! -e stop ]; do kill -CONT $$; done ) & \
                  while [ ! -e stop ]; do printf x >> first; printf x >> second; done";
    let process = cx.sandbox.spawn(Command::shell(script)).await?;
    super::tools::beating(&*cx.sandbox, "second").await?;
    for _ in 0..4 {
        is_of_one_moment(&cx).await?;
    }
    cx.sandbox.write("stop", "").await?;
    process.wait().await?;
    Ok(())
}

/// A program that writes to one file and then to another, and that the kernel continues for ten
/// seconds whenever it was stopped: by a timer for each moment (`timer_create(2)`), since a stop takes
/// back a signal that has not arrived and with it all later expiries of the same timer.
const CONTINUED: &str = "\
import ctypes, os, signal, struct, time
signal.signal(signal.SIGCONT, lambda *_: None)
libc = ctypes.CDLL(None, use_errno=True)
for n in range(1, 401):
    event = ctypes.create_string_buffer(struct.pack('qii', 0, signal.SIGCONT, 0), 64)
    timer = ctypes.c_void_p()
    when = (ctypes.c_long * 4)(0, 0, n // 40, n % 40 * 25000000)
    if libc.timer_create(1, event, ctypes.byref(timer)) or libc.timer_settime(timer, 0, when, None):
        raise OSError(ctypes.get_errno(), 'a timer')
first, second = (open(name, 'ab', buffering=0) for name in ('first', 'second'))
open('pid', 'w').write(str(os.getpid()))
while True:
    first.write(b'x')
    second.write(b'x')
    time.sleep(0.001)
";

/// The kernel lets a program go on that was stopped: a fork must see that it did, or hold it still by
/// other means.
async fn a_fork_beside_timers_that_continue_what_was_stopped_is_of_one_moment(
    cx: Context,
) -> Verdict {
    let python = Command::new("python3").args(["-c", CONTINUED]);
    let process = cx.sandbox.spawn(python).await?;
    super::tools::beating(&*cx.sandbox, "second").await?;
    // The control: a stop does not last.
    cx.sh("kill -STOP $(cat pid)").await?;
    super::tools::beating(&*cx.sandbox, "second").await?;
    for _ in 0..3 {
        is_of_one_moment(&cx).await?;
    }
    Ok(process.kill().await?)
}

async fn processes_are_not_forked(cx: Context) -> Verdict {
    if cx
        .fixture
        .capabilities()
        .has(sandbox_core::Capability::ForkMemory)
    {
        // Then they are, and the promise is another.
        return Ok(());
    }
    let heart = super::tools::daemon("beat");
    cx.sh(heart).await?;
    super::tools::beating(&*cx.sandbox, "beat").await?;
    let child = cx.fork(&cx.sandbox).await?;
    super::tools::stopped(&*child, "beat").await?;
    super::tools::beating(&*cx.sandbox, "beat").await
}

async fn the_same_command_runs_in_each_fork(cx: Context) -> Verdict {
    let a = cx.fork(&cx.sandbox).await?;
    let b = cx.fork(&cx.sandbox).await?;
    for sandbox in [&a, &b] {
        for round in 1..=2 {
            let command = Command::shell("printf x >> count; cat count");
            let output = sandbox.exec(command).await?;
            ensure_eq!(text(&output), "x".repeat(round), "how often it ran");
        }
    }
    ensure!(!cx.sandbox.exists("count").await?, "it ran in the parent");
    Ok(())
}

async fn a_fork_while_files_are_written_is_of_one_moment(cx: Context) -> Verdict {
    cx.sandbox
        .write_files(FileBatch::new().file("a", "0").file("b", "0"))
        .await?;
    let sandbox = cx.sandbox.clone();
    let writer = tokio::spawn(async move {
        for round in 1..=30 {
            let text = round.to_string();
            let batch = FileBatch::new().file("a", text.clone()).file("b", text);
            sandbox.write_files(batch).await?;
            tokio::task::yield_now().await;
        }
        Ok::<(), sandbox_core::Error>(())
    });
    for _ in 0..5 {
        let child = cx.fork(&cx.sandbox).await?;
        let a = child.read_to_string("a").await?;
        ensure_eq!(child.read_to_string("b").await?, a, "b beside a");
        child.close().await?;
        tokio::task::yield_now().await;
    }
    Ok(writer.await??)
}

async fn a_fork_of_many_files_is_complete(cx: Context) -> Verdict {
    let mut batch = FileBatch::new();
    for index in 0..2000 {
        batch.push(format!("d{}/{index}", index % 20), index.to_string());
    }
    cx.sandbox.write_files(batch).await?;
    let child = cx.fork(&cx.sandbox).await?;
    let options = sandbox_core::ListOptions::new().recursive(true);
    let found = child.list_dir(&".".into(), options).await?.len();
    ensure_eq!(found, 2020, "entries");
    is(&child, "d19/1999", "1999", "the child").await
}

async fn a_dropped_fork_leaves_the_parent_usable(cx: Context) -> Verdict {
    cx.sandbox.write("f", "x").await?;
    for micros in [0, 100, 1000, 5000] {
        let fork = cx.sandbox.fork_one();
        let limit = std::time::Duration::from_micros(micros);
        if let Ok(child) = tokio::time::timeout(limit, fork).await {
            cx.track(child?);
        }
    }
    is(&cx.sandbox, "f", "x", "the parent").await?;
    let child = cx.fork(&cx.sandbox).await?;
    is(&child, "f", "x", "the child").await
}

/// Closes the parent at one moment of a fork or another.
async fn a_fork_that_a_close_meets_is_whole_or_refused(cx: Context) -> Verdict {
    let mut batch = FileBatch::new();
    for index in 0..200 {
        batch.push(format!("d{}/{index}", index % 10), index.to_string());
    }
    for round in 0..6 {
        let parent = cx.another().await?;
        parent.write_files(batch.clone()).await?;
        let (cx, forked) = (cx.clone(), parent.clone());
        let fork = tokio::spawn(async move { cx.fork(&forked).await });
        if round > 0 {
            tokio::time::sleep(std::time::Duration::from_micros(200 << round)).await;
        }
        parent.close().await?;
        match fork.await? {
            Ok(child) => {
                let options = sandbox_core::ListOptions::new().recursive(true);
                let found = child.list_dir(&".".into(), options).await?.len();
                ensure_eq!(
                    found,
                    210,
                    "entries of a fork that was made while it was closed"
                );
            }
            error => drop(refused(error, &parent, Operation::Fork, ErrorKind::Closed)?),
        }
    }
    Ok(())
}

async fn a_snapshot_keeps_the_files(cx: Context) -> Verdict {
    let at = cx.at("f");
    cx.sandbox.write("f", "kept").await?;
    let snapshot = cx.sandbox.snapshot(SnapshotOptions::new()).await?;
    cx.sandbox.write("f", "changed").await?;
    let spec = cx.fixture.spec().source(Source::Snapshot(snapshot.id));
    cx.sandbox.close().await?;
    for _ in 0..2 {
        let sandbox = cx.create(spec.clone()).await?;
        let read = sandbox.read_to_string(&at).await?;
        ensure_eq!(read, "kept", "the file, also after another changed it");
        sandbox.write(&at, "changed again").await?;
    }
    Ok(())
}

async fn a_missing_snapshot_is_not_found(cx: Context) -> Verdict {
    let source = Source::Snapshot(SnapshotId::new("no-such-snapshot"));
    match cx.create(cx.fixture.spec().source(source)).await {
        Ok(_) => Err(Failed::new("created from a snapshot that does not exist")),
        Err(error) => {
            ensure_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
            ensure_eq!(error.operation(), Operation::Create, "{error:?}");
            Ok(())
        }
    }
}

async fn a_snapshot_is_listed_by_its_labels(cx: Context) -> Verdict {
    let provider = &cx.provider;
    let label = cx.sandbox.info().id.to_string();
    let options = SnapshotOptions::new().label("case", &label);
    let taken = cx.sandbox.snapshot(options).await?;
    let labels = Labels::from([("case".to_owned(), label)]);
    let found = provider.list_snapshots(&labels).await?;
    let ids: Vec<_> = found.iter().map(|found| &found.id).collect();
    ensure_eq!(ids, [&taken.id], "the snapshots with the label");
    ensure_eq!(found[0].labels, labels, "its labels");
    let other = Labels::from([("case".to_owned(), "another".to_owned())]);
    let none = provider.list_snapshots(&other).await?;
    ensure!(none.is_empty(), "another label finds {none:?}");
    Ok(())
}

async fn a_deleted_snapshot_is_gone(cx: Context) -> Verdict {
    let provider = &cx.provider;
    cx.sandbox.write("f", "kept").await?;
    let at = cx.at("f");
    let snapshot = cx.sandbox.snapshot(SnapshotOptions::new()).await?;
    let spec = cx
        .fixture
        .spec()
        .source(Source::Snapshot(snapshot.id.clone()));
    let made = cx.create(spec.clone()).await?;
    provider.delete_snapshot(&snapshot.id).await?;
    let read = made.read_to_string(&at).await?;
    ensure_eq!(read, "kept", "the file of a sandbox that was made from it");
    for missing in [
        provider.delete_snapshot(&snapshot.id).await.err(),
        provider.create(spec).await.err(),
    ] {
        let kind = missing.map(|error| error.kind());
        ensure_eq!(kind, Some(ErrorKind::NotFound), "a use after the deletion");
    }
    Ok(())
}
