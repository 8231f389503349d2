//! Sandboxes from creation to their end.
//!
//! Invariant: after an end every operation is tried, not only the likely ones.

use std::future::Future as _;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use sandbox_core::{
    Capability, Command, Control, Env, Error, ErrorKind, Execution, Network, Operation, Sandbox,
    SandboxExt as _, SnapshotOptions,
};

use crate::kit::{Case, Context, Failed, Verdict, cases, ensure, ensure_eq, eventually, refused};

cases! { "lifecycle":
    info_names_sandbox_and_backend,
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
    a_network_that_is_off_where_possible_is_accepted,
    dropping_the_provider_leaves_the_sandbox,
    outside_of_a_runtime_nothing_panics,
    another_runtime_may_use_a_sandbox [Exec],
    after_its_runtime_a_sandbox_works_or_is_lost [Exec],
}

/// The case that needs a fixture which can destroy a sandbox.
pub(super) const SABOTAGE: &[Case] = &[Case {
    name: "lifecycle::a_sandbox_destroyed_behind_its_handle_is_lost",
    needs: &[],
    lacks: None,
    of_this_host: false,
    sabotages: true,
    run: |cx| Box::pin(a_sandbox_destroyed_behind_its_handle_is_lost(cx)),
}];

async fn a_network_that_is_off_where_possible_is_accepted(cx: Context) -> Verdict {
    let spec = cx.fixture.spec().network(Network::OffWherePossible);
    let sandbox = cx.create(spec).await?;
    let capabilities = cx.fixture.capabilities();
    if capabilities.has(Capability::NetworkOff) && capabilities.has(Capability::Isolation) {
        let off = cx.create(cx.fixture.spec().network(Network::Off)).await?;
        let (found, off) = (sandbox.isolation().await?, off.isolation().await?);
        let control = Control::Network;
        ensure_eq!(
            found.get(control),
            off.get(control),
            "the network's control"
        );
    }
    Ok(())
}

async fn info_names_sandbox_and_backend(cx: Context) -> Verdict {
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
    let limit = Duration::from_secs(77);
    let limited = cx.create(cx.fixture.spec().command_timeout(limit)).await?;
    ensure_eq!(
        limited.info().command_timeout,
        Some(limit),
        "the timeout of the spec, which layers go by"
    );
    Ok(())
}

async fn capabilities_are_the_providers_own(cx: Context) -> Verdict {
    let declared = cx.fixture.capabilities();
    ensure_eq!(cx.provider.capabilities(), declared, "the provider's");
    ensure_eq!(cx.sandbox.capabilities(), declared, "the sandbox's");
    Ok(())
}

async fn two_sandboxes_never_see_each_other(cx: Context) -> Verdict {
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

async fn close_may_be_called_twice(cx: Context) -> Verdict {
    for _ in 0..3 {
        cx.sandbox.close().await?;
    }
    Ok(())
}

async fn close_may_be_called_at_once(cx: Context) -> Verdict {
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

async fn info_works_after_close(cx: Context) -> Verdict {
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
    cx: &Context,
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
        (Operation::Metadata, sandbox.stat(&path).await.map(drop)),
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
        (Operation::Fork, sandbox.fork_one().await.map(drop)),
        (
            Operation::Snapshot,
            sandbox.snapshot(SnapshotOptions::new()).await.map(drop),
        ),
    ];
    ensure!(!out.exists(), "something was exported");
    Ok(results)
}

/// Checks that every operation fails with one of these kinds. What the backend does not have at
/// all may say so instead.
pub(super) async fn all_refused(cx: &Context, kinds: &[ErrorKind]) -> Verdict {
    for (operation, result) in every_call(cx, &cx.sandbox).await? {
        let Err(error) = result else {
            // What only the handle keeps needs no sandbox, and so may not notice that it is gone.
            if operation == Operation::SetEnv && kinds.contains(&ErrorKind::Lost) {
                continue;
            }
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
                !runs || error.execution() == Some(Execution::NotStarted),
                "the error should say that nothing ran: {error:?}"
            );
            Ok(())
        })?;
    }
    Ok(())
}

async fn every_call_after_close_says_closed(cx: Context) -> Verdict {
    cx.sandbox.write("f", "x").await?;
    cx.sandbox.close().await?;
    all_refused(&cx, &[ErrorKind::Closed]).await
}

async fn a_sandbox_destroyed_behind_its_handle_is_lost(cx: Context) -> Verdict {
    cx.sandbox.write("f", "x").await?;
    ensure!(
        cx.fixture.sabotage(&cx.sandbox).await,
        "the fixture could not destroy the sandbox"
    );
    // Until the backend has noticed, a command may be on its way: whether it ran is unknown.
    eventually("the loss is noticed", || async {
        let found = cx.sandbox.stat("f").await;
        Ok(found.is_err_and(|error| error.kind() == ErrorKind::Lost))
    })
    .await?;
    all_refused(&cx, &[ErrorKind::Lost]).await?;
    Ok(cx.sandbox.close().await?)
}

async fn close_is_bounded_in_time(cx: Context) -> Verdict {
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..5 {
        let sandbox = cx.sandbox.clone();
        running.spawn(async move { sandbox.sh("trap '' TERM; sleep 60").await });
    }
    // They begin meanwhile. No command: where only one runs at a time it would wait for theirs.
    cx.sandbox.list(".").await?;
    let start = Instant::now();
    cx.sandbox.close().await?;
    let passed = start.elapsed();
    ensure!(passed < Duration::from_secs(60), "closing took {passed:?}");
    while let Some(ran) = running.join_next().await {
        ensure!(ran?.is_err(), "a command outlived its sandbox");
    }
    Ok(())
}

async fn a_dropped_close_closes_all_the_same(cx: Context) -> Verdict {
    // Polled once, so that the closing has begun, and dropped.
    let _ = tokio::time::timeout(Duration::from_micros(1), cx.sandbox.close()).await;
    eventually("the sandbox is closed", || async {
        let read = cx.sandbox.list(".").await;
        Ok(read.is_err_and(|error| error.kind() == ErrorKind::Closed))
    })
    .await?;
    Ok(cx.sandbox.close().await?)
}

async fn fifty_sandboxes_at_once(cx: Context) -> Verdict {
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

async fn a_dropped_sandbox_does_not_block(cx: Context) -> Verdict {
    let mut passed = Duration::ZERO;
    // What blocks does so every time; a busy host takes this thread's processor only now and then.
    for _ in 0..5 {
        // Not tracked: the only handle is dropped here.
        let sandbox = cx.provider.create(cx.fixture.spec()).await?;
        sandbox
            .sh("sleep 60 > /dev/null 2> /dev/null & printf up")
            .await?;
        let start = Instant::now();
        drop(sandbox);
        passed = start.elapsed();
        if passed < Duration::from_millis(500) {
            return Ok(());
        }
    }
    Err(Failed::new(format_args!("dropping took {passed:?}")))
}

async fn dropping_one_handle_leaves_the_other(cx: Context) -> Verdict {
    let second = cx.sandbox.clone();
    second.write("f", "x").await?;
    drop(second);
    ensure_eq!(cx.sandbox.read_to_string("f").await?, "x", "the file");
    Ok(())
}

async fn an_invalid_spec_is_refused(cx: Context) -> Verdict {
    for spec in [
        cx.fixture.spec().workdir("relative"),
        cx.fixture.spec().workdir(""),
        cx.fixture.spec().env("A=B", "x"),
        cx.fixture.spec().command_timeout(Duration::ZERO),
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

async fn dropping_the_provider_leaves_the_sandbox(cx: Context) -> Verdict {
    let provider = cx.fixture.provider().await?;
    let sandbox = cx.track(provider.create(cx.fixture.spec()).await?);
    drop(provider);
    sandbox.write("f", "x").await?;
    ensure_eq!(sandbox.read_to_string("f").await?, "x", "the file");
    Ok(())
}

/// A program may poll what it got wherever it is: an error, or an answer where no runtime is needed.
async fn outside_of_a_runtime_nothing_panics(cx: Context) -> Verdict {
    // A connection that is there already must not hide what a new one needs.
    cx.sandbox.write("f", "kept").await?;
    let (provider, sandbox, spec) = (cx.provider.clone(), cx.sandbox.clone(), cx.fixture.spec());
    let host = cx.host_dir()?;
    let from = host.path().to_owned();
    // Each polled once: nothing is there to wake them.
    let polled = move || {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let mut made = Vec::new();
        if let Poll::Ready(created) = pin!(provider.create(spec)).poll(&mut context) {
            made.push(created);
        }
        let mut errors = Vec::new();
        if let Poll::Ready(Err(error)) = pin!(sandbox.exec(Command::new("true"))).poll(&mut context)
        {
            errors.push(error.kind());
        }
        if let Poll::Ready(Err(error)) = pin!(sandbox.read("f")).poll(&mut context) {
            errors.push(error.kind());
        }
        if let Poll::Ready(Err(error)) = pin!(sandbox.write("g", "x")).poll(&mut context) {
            errors.push(error.kind());
        }
        if let Poll::Ready(Err(error)) = pin!(sandbox.import(&from, "in")).poll(&mut context) {
            errors.push(error.kind());
        }
        if let Poll::Ready(Err(error)) =
            pin!(sandbox.export(".", from.join("out"))).poll(&mut context)
        {
            errors.push(error.kind());
        }
        if let Poll::Ready(Err(error)) = pin!(sandbox.isolation()).poll(&mut context)
            && error.kind() != ErrorKind::Unsupported
        {
            errors.push(error.kind());
        }
        (made, errors)
    };
    let thread = std::thread::spawn(polled);
    let ended = tokio::task::spawn_blocking(move || thread.join()).await?;
    let Ok((made, mut errors)) = ended else {
        return Err(Failed::new("a call that no runtime polls panics"));
    };
    for created in made {
        match created {
            Ok(sandbox) => drop(cx.track(sandbox)),
            Err(error) => errors.push(error.kind()),
        }
    }
    for kind in errors {
        ensure_eq!(kind, ErrorKind::InvalidInput, "the error without a runtime");
    }
    let read = cx.sandbox.read_to_string("f").await?;
    ensure_eq!(read, "kept", "the sandbox, afterwards");
    Ok(())
}

/// A program has more than one runtime: one for each test, or one for each thread.
async fn another_runtime_may_use_a_sandbox(cx: Context) -> Verdict {
    cx.sandbox.write("f", "one").await?;
    for _ in 0..2 {
        let sandbox = cx.sandbox.clone();
        let used = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let read = sandbox.read_to_string("f").await?;
                ensure_eq!(read, "one", "the file, in another runtime");
                let output = sandbox.sh("cat f").await?;
                ensure_eq!(output.stdout.bytes, "one", "a command, in another runtime");
                Verdict::Ok(())
            })
        };
        // Its connections end with it.
        let thread = std::thread::spawn(used);
        match tokio::task::spawn_blocking(move || thread.join()).await? {
            Ok(verdict) => verdict?,
            Err(_) => return Err(Failed::new("a sandbox used in another runtime panics")),
        }
    }
    let output = cx.sandbox.sh("cat f").await?;
    ensure_eq!(
        output.stdout.bytes,
        "one",
        "a command in its own runtime, afterwards"
    );
    Ok(())
}

/// The runtime of a test, or of a call from code that is not asynchronous, ends before its program.
async fn after_its_runtime_a_sandbox_works_or_is_lost(cx: Context) -> Verdict {
    let (provider, spec) = (cx.provider.clone(), cx.fixture.spec());
    let made = move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let sandbox = provider.create(spec).await?;
            sandbox.write("f", "one").await?;
            sandbox.sh("cat f").await?;
            Verdict::Ok(sandbox)
        })
    };
    let thread = std::thread::spawn(made);
    let sandbox = match tokio::task::spawn_blocking(move || thread.join()).await? {
        Ok(made) => cx.track(made?),
        Err(_) => return Err(Failed::new("creating in a runtime of its own panics")),
    };
    let calls = [
        sandbox.sh("cat f").await.map(drop),
        sandbox.read("f").await.map(drop),
        sandbox.write("g", "x").await,
        sandbox.list(".").await.map(drop),
    ];
    for done in calls {
        if let Err(error) = done {
            ensure_eq!(error.kind(), ErrorKind::Lost, "the error: {error:?}");
        }
    }
    sandbox.close().await?;
    // What it shared with others serves them still, or again.
    let read = cx.sandbox.sh("echo usable").await?;
    ensure_eq!(read.stdout.bytes, "usable\n", "another sandbox, afterwards");
    let output = cx.another().await?.sh("echo usable").await?;
    ensure_eq!(output.stdout.bytes, "usable\n", "a new one, afterwards");
    Ok(())
}
