//! Sandboxes from creation to their end, and the provider that keeps them.
//!
//! Invariant: after an end every operation is tried, not only the likely ones.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sandbox_core::{
    Command, Env, Error, ErrorKind, ForkOptions, Labels, Operation, Ran, Sandbox, SandboxExt as _,
    SandboxId, SnapshotOptions,
};

use super::tools::text;
use crate::kit::{Case, Cx, Failed, Verdict, cases, ensure, ensure_eq, eventually, refused};

cases! { "lifecycle":
    info_says_who_it_is,
    capabilities_are_the_providers_own,
    two_sandboxes_never_see_each_other,
    close_may_be_called_twice,
    close_may_be_called_at_once,
    info_works_after_close,
    every_call_after_close_says_closed,
    close_is_bounded_in_time [Exec],
    a_dropped_close_closes_all_the_same,
    fifty_sandboxes_at_once,
    a_dropped_sandbox_does_not_block [Exec],
    dropping_one_handle_leaves_the_other,
    an_invalid_spec_is_refused,
    dropping_the_provider_leaves_the_sandbox,
    list_has_the_open_ones [List],
    list_selects_by_labels [List],
    labels_of_a_fork_are_its_own [List, Fork],
    labels_that_are_too_long_are_refused [List],
    attach_gives_the_same_sandbox [Attach],
    attach_to_an_unknown_one_is_not_found [Attach],
    destroy_closes_for_all_handles [Attach],
    destroy_of_an_unknown_one_is_not_found [Attach],
    a_ttl_ends_an_unused_sandbox [Ttl],
    use_puts_the_ttl_off [Ttl],
}

/// The case that needs a fixture which can destroy a sandbox.
pub(super) const SABOTAGE: &[Case] = &[Case {
    name: "lifecycle::a_sandbox_destroyed_behind_its_handle_is_lost",
    needs: &[],
    lacks: None,
    sabotages: true,
    run: |cx| Box::pin(a_sandbox_destroyed_behind_its_handle_is_lost(cx)),
}];

async fn info_says_who_it_is(cx: Cx) -> Verdict {
    let info = cx.sandbox.info();
    ensure!(!info.id.as_str().is_empty(), "the identifier is empty");
    ensure_eq!(info.backend, cx.provider.backend(), "the backend");
    ensure_eq!(info.parent, None, "the parent");
    let age = info.created.elapsed().unwrap_or_default();
    ensure!(
        age < Duration::from_secs(24 * 3600),
        "it was created {age:?} ago"
    );
    ensure_eq!(cx.sandbox.info(), info, "info, asked again");
    Ok(())
}

async fn capabilities_are_the_providers_own(cx: Cx) -> Verdict {
    let declared = cx.fixture.capabilities();
    ensure_eq!(cx.provider.capabilities(), declared, "the provider's");
    ensure_eq!(cx.sandbox.capabilities(), declared, "the sandbox's");
    Ok(())
}

async fn two_sandboxes_never_see_each_other(cx: Cx) -> Verdict {
    let other = cx.another().await?;
    ensure!(
        other.info().id != cx.sandbox.info().id,
        "they have one identifier"
    );
    cx.sandbox.write("/tmp/f", "mine").await?;
    cx.sandbox.set_env(Env::new().set("KIT", "mine")).await?;
    ensure!(!other.exists("/tmp/f").await?, "the other sees the file");
    other.write("/tmp/f", "other").await?;
    let read = cx.sandbox.read_to_string("/tmp/f").await?;
    ensure_eq!(read, "mine", "the file after the other wrote its own");
    other.close().await?;
    let read = cx.sandbox.read_to_string("/tmp/f").await?;
    ensure_eq!(read, "mine", "the file after the other closed");
    Ok(())
}

async fn close_may_be_called_twice(cx: Cx) -> Verdict {
    for _ in 0..3 {
        cx.sandbox.close().await?;
    }
    Ok(())
}

async fn close_may_be_called_at_once(cx: Cx) -> Verdict {
    let mut closes = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let sandbox = cx.sandbox.clone();
        closes.spawn(async move { sandbox.close().await });
    }
    while let Some(done) = closes.join_next().await {
        done??;
    }
    Ok(())
}

async fn info_works_after_close(cx: Cx) -> Verdict {
    let before = cx.sandbox.info();
    cx.sandbox.close().await?;
    ensure_eq!(cx.sandbox.info().id, before.id, "the identifier");
    ensure_eq!(
        cx.sandbox.capabilities(),
        cx.fixture.capabilities(),
        "capabilities"
    );
    Ok(())
}

/// Tries every operation and gives what each said.
async fn every_call(
    cx: &Cx,
    sandbox: &dyn Sandbox,
) -> Verdict<Vec<(Operation, Result<(), Error>)>> {
    let host = cx.host_dir()?;
    std::fs::write(host.path().join("f"), "x")?;
    let path = "f".into();
    let out = host.path().join("out");
    let results = vec![
        (Operation::Isolation, sandbox.isolation().await.map(drop)),
        (
            Operation::Exec,
            sandbox.exec(Command::new("true")).await.map(drop),
        ),
        (
            Operation::Spawn,
            sandbox.spawn(Command::new("true")).await.map(drop),
        ),
        (Operation::WriteFiles, sandbox.write("f", "x").await),
        (Operation::ReadFile, sandbox.read("f").await.map(drop)),
        (Operation::ListDir, sandbox.list(".").await.map(drop)),
        (Operation::Metadata, sandbox.metadata(&path).await.map(drop)),
        (Operation::Remove, sandbox.remove_all("f").await),
        (
            Operation::CreateDir,
            sandbox.create_dir(&"d".into(), Default::default()).await,
        ),
        (
            Operation::Rename,
            sandbox.rename(&path, &"g".into(), Default::default()).await,
        ),
        (
            Operation::ImportDir,
            sandbox
                .import_dir(host.path(), &"in".into(), Default::default())
                .await
                .map(drop),
        ),
        (
            Operation::ExportDir,
            sandbox
                .export_dir(&".".into(), &out, Default::default())
                .await
                .map(drop),
        ),
        (
            Operation::SetWorkdir,
            sandbox.set_workdir(&"/".into()).await,
        ),
        (
            Operation::SetEnv,
            sandbox.set_env(Env::new().set("A", "b")).await,
        ),
        (
            Operation::Fork,
            sandbox.fork(ForkOptions::default()).await.map(drop),
        ),
        (
            Operation::Snapshot,
            sandbox.snapshot(SnapshotOptions::default()).await.map(drop),
        ),
    ];
    ensure!(!out.exists(), "something was exported");
    Ok(results)
}

/// Checks that every operation fails with one of these kinds. What the backend does not have at
/// all may say so instead.
async fn all_refused(cx: &Cx, kinds: &[ErrorKind]) -> Verdict {
    for (operation, result) in every_call(cx, &cx.sandbox).await? {
        let Err(error) = result else {
            return Err(Failed::new(format_args!("{operation} still works")));
        };
        let kind = error.kind();
        if kind == ErrorKind::Unsupported {
            continue;
        }
        ensure!(kinds.contains(&kind), "{operation} says {error:?}");
        refused::<()>(Err(error), &cx.sandbox, operation, kind).and_then(|error| {
            let runs = matches!(operation, Operation::Exec | Operation::Spawn);
            ensure!(
                !runs || error.ran() == Some(Ran::NotStarted),
                "the error should say that nothing ran: {error:?}"
            );
            Ok(())
        })?;
    }
    Ok(())
}

async fn every_call_after_close_says_closed(cx: Cx) -> Verdict {
    cx.sandbox.write("f", "x").await?;
    cx.sandbox.close().await?;
    all_refused(&cx, &[ErrorKind::Closed]).await
}

async fn a_sandbox_destroyed_behind_its_handle_is_lost(cx: Cx) -> Verdict {
    cx.sandbox.write("f", "x").await?;
    ensure!(
        cx.fixture.sabotage(&cx.sandbox).await,
        "the fixture could not destroy the sandbox"
    );
    all_refused(&cx, &[ErrorKind::Lost]).await?;
    Ok(cx.sandbox.close().await?)
}

async fn close_is_bounded_in_time(cx: Cx) -> Verdict {
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..5 {
        let sandbox = cx.sandbox.clone();
        running.spawn(async move { sandbox.sh("trap '' TERM; sleep 60").await });
    }
    cx.sh("true").await?;
    let start = Instant::now();
    cx.sandbox.close().await?;
    let passed = start.elapsed();
    ensure!(passed < Duration::from_secs(10), "closing took {passed:?}");
    while let Some(ran) = running.join_next().await {
        ensure!(ran?.is_err(), "a command outlived its sandbox");
    }
    Ok(())
}

async fn a_dropped_close_closes_all_the_same(cx: Cx) -> Verdict {
    // Polled once, so that the closing has begun, and dropped.
    let _ = tokio::time::timeout(Duration::from_micros(1), cx.sandbox.close()).await;
    eventually("the sandbox is closed", || async {
        let read = cx.sandbox.list(".").await;
        Ok(read.is_err_and(|error| error.kind() == ErrorKind::Closed))
    })
    .await?;
    Ok(cx.sandbox.close().await?)
}

async fn fifty_sandboxes_at_once(cx: Cx) -> Verdict {
    let mut created = tokio::task::JoinSet::new();
    for index in 0..50 {
        let cx = cx.clone();
        created.spawn(async move {
            let sandbox = cx.another().await?;
            sandbox.write("f", index.to_string()).await?;
            Ok::<_, Error>((index, sandbox))
        });
    }
    let mut sandboxes: Vec<(i32, Arc<dyn Sandbox>)> = Vec::new();
    while let Some(done) = created.join_next().await {
        sandboxes.push(done??);
    }
    for (index, sandbox) in &sandboxes {
        let read = sandbox.read_to_string("f").await?;
        ensure_eq!(read, index.to_string(), "the file of a sandbox");
    }
    let mut ids: Vec<_> = sandboxes.iter().map(|(_, s)| s.info().id).collect();
    ids.sort();
    ids.dedup();
    ensure_eq!(ids.len(), 50, "identifiers");
    Ok(())
}

async fn a_dropped_sandbox_does_not_block(cx: Cx) -> Verdict {
    // Not tracked: the only handle is dropped here.
    let sandbox = cx.provider.create(cx.fixture.spec()).await?;
    sandbox
        .sh("sleep 60 > /dev/null 2> /dev/null & printf up")
        .await?;
    let start = Instant::now();
    drop(sandbox);
    let passed = start.elapsed();
    ensure!(
        passed < Duration::from_millis(500),
        "dropping took {passed:?}"
    );
    Ok(())
}

async fn dropping_one_handle_leaves_the_other(cx: Cx) -> Verdict {
    let second = cx.sandbox.clone();
    second.write("f", "x").await?;
    drop(second);
    ensure_eq!(cx.sandbox.read_to_string("f").await?, "x", "the file");
    Ok(())
}

async fn an_invalid_spec_is_refused(cx: Cx) -> Verdict {
    for spec in [
        cx.fixture.spec().with_workdir("relative"),
        cx.fixture.spec().with_workdir(""),
        cx.fixture.spec().with_env("A=B", "x"),
        cx.fixture.spec().with_command_timeout(Duration::ZERO),
    ] {
        match cx.create(spec.clone()).await {
            Ok(_) => return Err(Failed::new(format_args!("created from {spec:?}"))),
            Err(error) => {
                ensure_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
                ensure_eq!(error.operation(), Operation::Create, "{error:?}");
            }
        }
    }
    Ok(())
}

async fn dropping_the_provider_leaves_the_sandbox(cx: Cx) -> Verdict {
    let provider = cx.fixture.provider().await?;
    let sandbox = cx.track(provider.create(cx.fixture.spec()).await?);
    drop(provider);
    sandbox.write("f", "x").await?;
    ensure_eq!(sandbox.read_to_string("f").await?, "x", "the file");
    Ok(())
}

/// A label that no other case uses.
fn label(cx: &Cx) -> (String, String) {
    (
        "kit".into(),
        cx.sandbox
            .info()
            .id
            .to_string()
            .chars()
            .rev()
            .take(60)
            .collect(),
    )
}

async fn list_has_the_open_ones(cx: Cx) -> Verdict {
    let id = cx.sandbox.info().id;
    let has = async |id: &SandboxId| -> Verdict<bool> {
        let listed = cx.provider.list(&Labels::new()).await?;
        Ok(listed.iter().any(|info| info.id == *id))
    };
    ensure!(has(&id).await?, "an open sandbox is not listed");
    cx.sandbox.close().await?;
    ensure!(!has(&id).await?, "a closed sandbox is listed");
    Ok(())
}

async fn list_selects_by_labels(cx: Cx) -> Verdict {
    let (key, value) = label(&cx);
    let spec = cx.fixture.spec().with_label(&key, &value);
    let first = cx.create(spec.clone().with_label("n", "1")).await?.info();
    let second = cx.create(spec.with_label("n", "2")).await?.info();
    let mut wanted = Labels::from([(key, value)]);
    let listed = cx.provider.list(&wanted).await?;
    let ids: Vec<_> = listed.iter().map(|info| info.id.clone()).collect();
    ensure_eq!(ids, [first.id, second.id.clone()], "both, oldest first");
    wanted.insert("n".into(), "2".into());
    let listed = cx.provider.list(&wanted).await?;
    let ids: Vec<_> = listed.iter().map(|info| info.id.clone()).collect();
    ensure_eq!(ids, [second.id], "the one that has all the labels");
    ensure_eq!(listed[0].labels, second.labels, "its labels");
    ensure_eq!(listed[0].labels.len(), 2, "how many");
    Ok(())
}

async fn labels_of_a_fork_are_its_own(cx: Cx) -> Verdict {
    let (key, value) = label(&cx);
    let parent = cx
        .create(cx.fixture.spec().with_label(&key, "parent"))
        .await?;
    let options = ForkOptions::default().with_label(&key, &value);
    let child = cx.track(parent.fork(options).await?);
    ensure_eq!(
        child.info().labels.get(&key),
        Some(&value),
        "the child's label"
    );
    let listed = cx.provider.list(&Labels::from([(key, value)])).await?;
    let ids: Vec<_> = listed.iter().map(|info| info.id.clone()).collect();
    ensure_eq!(ids, [child.info().id], "what has the child's label");
    Ok(())
}

async fn labels_that_are_too_long_are_refused(cx: Cx) -> Verdict {
    let spec = cx.fixture.spec().with_label("k", "v".repeat(64));
    match cx.create(spec).await {
        Ok(_) => Err(Failed::new("a label of 64 bytes was taken")),
        Err(error) => {
            ensure_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
            Ok(())
        }
    }
}

async fn attach_gives_the_same_sandbox(cx: Cx) -> Verdict {
    cx.sandbox.write("f", "x").await?;
    let id = cx.sandbox.info().id;
    let second = cx.provider.attach(&id).await?;
    ensure_eq!(second.info().id, id, "the identifier");
    ensure_eq!(second.read_to_string("f").await?, "x", "the file");
    second.write("g", "y").await?;
    ensure_eq!(
        cx.sandbox.read_to_string("g").await?,
        "y",
        "a file of the second"
    );
    drop(second);
    ensure_eq!(cx.sandbox.read_to_string("g").await?, "y", "after a drop");
    Ok(())
}

fn unknown<T>(result: Result<T, Error>, operation: Operation) -> Verdict {
    match result {
        Ok(_) => Err(Failed::new(format_args!(
            "{operation} found what is not there"
        ))),
        Err(error) => {
            ensure_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
            ensure_eq!(error.operation(), operation, "{error:?}");
            Ok(())
        }
    }
}

async fn attach_to_an_unknown_one_is_not_found(cx: Cx) -> Verdict {
    for id in ["no-such-sandbox", "", "../../etc", "a/b"] {
        unknown(
            cx.provider.attach(&SandboxId::new(id)).await,
            Operation::Attach,
        )?;
    }
    let id = cx.sandbox.info().id;
    cx.sandbox.close().await?;
    unknown(cx.provider.attach(&id).await, Operation::Attach)
}

async fn destroy_closes_for_all_handles(cx: Cx) -> Verdict {
    cx.provider.destroy(&cx.sandbox.info().id).await?;
    all_refused(&cx, &[ErrorKind::Closed, ErrorKind::Lost]).await
}

async fn destroy_of_an_unknown_one_is_not_found(cx: Cx) -> Verdict {
    let id = SandboxId::new("no-such-sandbox");
    unknown(cx.provider.destroy(&id).await, Operation::Destroy)?;
    cx.sandbox.write("f", "x").await?;
    Ok(())
}

async fn a_ttl_ends_an_unused_sandbox(cx: Cx) -> Verdict {
    let spec = cx.fixture.spec().with_ttl(Duration::from_secs(1));
    let sandbox = cx.create(spec).await?;
    sandbox.write("f", "x").await?;
    let id = sandbox.info().id;
    // Looking would be use: only the wait tells.
    tokio::time::sleep(Duration::from_secs(3)).await;
    match sandbox.read("f").await {
        Ok(_) => Err(Failed::new(format_args!("{id} outlived its time"))),
        Err(error) => {
            let gone = matches!(error.kind(), ErrorKind::Closed | ErrorKind::Lost);
            ensure!(gone, "{error:?}");
            Ok(())
        }
    }
}

async fn use_puts_the_ttl_off(cx: Cx) -> Verdict {
    let spec = cx.fixture.spec().with_ttl(Duration::from_secs(2));
    let sandbox = cx.create(spec).await?;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(4) {
        sandbox.write("f", "x").await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    if cx
        .fixture
        .capabilities()
        .has(sandbox_core::Capability::Exec)
    {
        let output = sandbox.sh("sleep 3; printf done").await?;
        ensure_eq!(
            text(&output),
            "done",
            "a command longer than the time to live"
        );
    }
    Ok(())
}
