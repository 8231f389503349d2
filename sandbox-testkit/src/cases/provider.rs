//! Cases about providers: lists, labels, attaching, destroying, times to live.
//!
//! Invariant: cases of other sandboxes run at the same time; only labels of a case's own select.

use std::time::{Duration, Instant};

use sandbox_core::{Error, ErrorKind, ForkOptions, Labels, Operation, SandboxExt as _, SandboxId};

use super::lifecycle::all_refused;
use super::tools::text;
use crate::kit::{Context, Failed, Verdict, cases, ensure, ensure_eq};

cases! { "provider":
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

async fn list_has_the_open_ones(cx: Context) -> Verdict {
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

async fn list_selects_by_labels(cx: Context) -> Verdict {
    let (key, value) = label(&cx);
    let spec = cx.fixture.spec().label(&key, &value);
    let first = cx.create(spec.clone().label("n", "1")).await?.info();
    let second = cx.create(spec.label("n", "2")).await?.info();
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

async fn labels_of_a_fork_are_its_own(cx: Context) -> Verdict {
    let (key, value) = label(&cx);
    let parent = cx.create(cx.fixture.spec().label(&key, "parent")).await?;
    let options = ForkOptions::new().label(&key, &value);
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

async fn labels_that_are_too_long_are_refused(cx: Context) -> Verdict {
    let spec = cx.fixture.spec().label("k", "v".repeat(64));
    match cx.create(spec).await {
        Ok(_) => Err(Failed::new("a label of 64 bytes was taken")),
        Err(error) => {
            ensure_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
            Ok(())
        }
    }
}

async fn attach_gives_the_same_sandbox(cx: Context) -> Verdict {
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

async fn attach_to_an_unknown_one_is_not_found(cx: Context) -> Verdict {
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

async fn destroy_closes_for_all_handles(cx: Context) -> Verdict {
    cx.provider.destroy(&cx.sandbox.info().id).await?;
    all_refused(&cx, &[ErrorKind::Closed, ErrorKind::Lost]).await
}

async fn destroy_of_an_unknown_one_is_not_found(cx: Context) -> Verdict {
    let id = SandboxId::new("no-such-sandbox");
    unknown(cx.provider.destroy(&id).await, Operation::Destroy)?;
    cx.sandbox.write("f", "x").await?;
    Ok(())
}

async fn a_ttl_ends_an_unused_sandbox(cx: Context) -> Verdict {
    let (mut ttl, mut began) = (Duration::from_secs(1), Instant::now());
    let mut sandbox = cx.create(cx.fixture.spec().ttl(ttl)).await?;
    while let Err(error) = sandbox.write("f", "x").await {
        if began.elapsed() < ttl || ttl > Duration::from_secs(10) {
            return Err(error.into());
        }
        // A busy host was slower than that.
        (ttl, began) = (ttl * 4, Instant::now());
        sandbox = cx.create(cx.fixture.spec().ttl(ttl)).await?;
    }
    let id = sandbox.info().id;
    // Looking would be use: only the wait tells.
    tokio::time::sleep(ttl + Duration::from_secs(2)).await;
    match sandbox.read("f").await {
        Ok(_) => Err(Failed::new(format_args!("{id} outlived its time"))),
        Err(error) => {
            ensure_eq!(error.kind(), ErrorKind::Expired, "{error:?}");
            Ok(())
        }
    }
}

async fn use_puts_the_ttl_off(cx: Context) -> Verdict {
    let mut used = Instant::now();
    let ttl = Duration::from_secs(2);
    match use_for_long(&cx, ttl, &mut used).await {
        // A busy host let it lie unused for so long: this proves nothing.
        Err(_) if used.elapsed() >= ttl => use_for_long(&cx, ttl * 4, &mut used).await,
        verdict => verdict,
    }
}

/// Uses a sandbox for longer than its time to live, again and again and then by one command; says
/// when it was last used.
async fn use_for_long(cx: &Context, ttl: Duration, used: &mut Instant) -> Verdict {
    *used = Instant::now();
    let sandbox = cx.create(cx.fixture.spec().ttl(ttl)).await?;
    let start = Instant::now();
    while start.elapsed() < ttl * 2 {
        let now = Instant::now();
        sandbox.write("f", "x").await?;
        *used = now;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    if cx
        .fixture
        .capabilities()
        .has(sandbox_core::Capability::Exec)
    {
        let script = format!("sleep {}; printf done", ttl.as_secs() + 1);
        let output = sandbox.sh(script).await?;
        ensure_eq!(
            text(&output),
            "done",
            "a command longer than the time to live"
        );
    }
    Ok(())
}

/// A label that no other case uses.
fn label(cx: &Context) -> (String, String) {
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
