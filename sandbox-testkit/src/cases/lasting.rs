//! Lasting sandboxes: what stays when nothing has one open, and what does not.
//!
//! Invariant: a lasting sandbox that a case made is destroyed when the case is over, also when it failed.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sandbox_core::{
    Capability, ChangesOptions, Command, Env, ErrorKind, Labels, Operation, Sandbox,
    SandboxExt as _, SandboxId, SandboxSpec, SandboxStatus,
};

use super::tools::text;
use crate::kit::{Context, Verdict, cases, ensure, ensure_eq, eventually, sh_on};

cases! { "lasting":
    files_environment_and_workdir_stay [Lasting, Attach],
    it_can_be_stopped_again_and_again [Lasting, Attach],
    its_processes_are_gone [Lasting, Attach, Exec, Background],
    a_stopped_one_is_listed [Lasting, Attach, List],
    a_stopped_one_can_be_destroyed [Lasting, Attach],
    close_ends_it [Lasting, Attach],
    secret_variables_are_not_kept [Lasting, Attach],
    a_fork_of_it_does_not_last [Lasting, Attach, Fork],
    its_fork_lives_on_when_it_is_stopped_and_closed [Lasting, Attach, Fork],
    its_changes_are_those_since_its_creation [Lasting, Attach, Changes],
    what_was_not_to_last_ends_with_its_handle [Lasting, Attach],
}

/// Runs the body with a lasting sandbox whose only handle is the body's.
async fn with_lasting<F, T>(cx: &Context, spec: SandboxSpec, body: F) -> Verdict
where
    F: FnOnce(Context, Arc<dyn Sandbox>) -> T,
    T: Future<Output = Verdict>,
{
    let spec = match cx.fixture.capabilities().has(Capability::Ttl) {
        // Should this process be killed.
        true => spec.ttl(Duration::from_secs(600)),
        false => spec,
    };
    // Not tracked, which would be a handle.
    let sandbox = cx.provider.create(spec.lasting(true)).await?;
    let id = sandbox.info().id;
    let verdict = body(cx.clone(), sandbox).await;
    match cx.provider.destroy(&id).await {
        Err(error) if error.kind() != ErrorKind::NotFound && verdict.is_ok() => Err(error.into()),
        _ => verdict,
    }
}

/// Drops the only handle, and attaches anew.
async fn stopped(cx: &Context, sandbox: Arc<dyn Sandbox>) -> Verdict<Arc<dyn Sandbox>> {
    let id = sandbox.info().id;
    drop(sandbox);
    Ok(cx.provider.attach(&id).await?)
}

async fn not_found(cx: &Context, id: &SandboxId) -> Verdict {
    let attached = cx.provider.attach(id).await;
    let kind = attached.as_ref().err().map(sandbox_core::Error::kind);
    ensure_eq!(kind, Some(ErrorKind::NotFound), "attaching to it");
    ensure_eq!(
        attached.err().map(|error| error.operation()),
        Some(Operation::Attach),
        "the operation of the error"
    );
    Ok(())
}

async fn files_environment_and_workdir_stay(cx: Context) -> Verdict {
    let spec = cx.fixture.spec().env("KIT_SPEC", "spec");
    with_lasting(&cx, spec, |cx, sandbox| async move {
        ensure!(
            sandbox.info().lasting,
            "its info says that it does not last"
        );
        ensure_eq!(sandbox.info().restarted, None, "the time of a restart");
        sandbox.write("kept", "first").await?;
        sandbox
            .create_dir(&"/tmp/kit dir".into(), Default::default())
            .await?;
        sandbox.set_workdir(&"/tmp/kit dir".into()).await?;
        sandbox
            .set_env(Env::new().set("KIT_LATER", "later"))
            .await?;
        let before = sandbox.info();
        let kept = before.workdir.clone();
        ensure_eq!(kept, "/tmp/kit dir".into(), "the workdir");
        let sandbox = stopped(&cx, sandbox).await?;
        let info = sandbox.info();
        ensure_eq!(info.id, before.id, "the identifier");
        ensure_eq!(info.workdir, before.workdir, "the workdir");
        ensure_eq!(info.created, before.created, "the time of its creation");
        ensure_eq!(info.status, SandboxStatus::Open, "the status");
        ensure!(info.lasting, "its info says that it does not last any more");
        ensure!(
            info.restarted.is_some(),
            "its info does not say that it was started again"
        );
        if cx.fixture.capabilities().has(Capability::Exec) {
            let output = sh_on(
                &*sandbox,
                "printf '%s %s' \"$KIT_SPEC\" \"$KIT_LATER\"; pwd",
            )
            .await?;
            ensure_eq!(
                text(&output),
                "spec later/tmp/kit dir\n",
                "environment and directory"
            );
        }
        let file = cx.sandbox.info().workdir.join("kept");
        ensure_eq!(sandbox.read_to_string(file).await?, "first", "the file");
        Ok(())
    })
    .await
}

async fn it_can_be_stopped_again_and_again(cx: Context) -> Verdict {
    with_lasting(&cx, cx.fixture.spec(), |cx, mut sandbox| async move {
        for round in 0..4 {
            sandbox
                .write(format!("f{round}"), round.to_string())
                .await?;
            if round > 0 {
                sandbox.remove_all(format!("f{}", round - 1)).await?;
            }
            sandbox.write("same", round.to_string()).await?;
            sandbox = stopped(&cx, sandbox).await?;
            let read = sandbox.read_to_string("same").await?;
            ensure_eq!(
                read,
                round.to_string(),
                "a file that is written in each round"
            );
        }
        let mut names: Vec<_> = sandbox.list(".").await?;
        names.sort_by(|a, b| a.path.cmp(&b.path));
        let names: Vec<_> = names.iter().map(|entry| entry.path.to_string()).collect();
        ensure_eq!(names, ["f3", "same"], "what is there after four rounds");
        Ok(())
    })
    .await
}

async fn its_processes_are_gone(cx: Context) -> Verdict {
    with_lasting(&cx, cx.fixture.spec(), |cx, sandbox| async move {
        let script = "while :; do echo x >> ticks; sleep 0.05; done > /dev/null 2>&1 &";
        sh_on(&*sandbox, script).await?;
        eventually("the process in the background writes", || async {
            Ok(sandbox.exists("ticks").await?)
        })
        .await?;
        let sandbox = stopped(&cx, sandbox).await?;
        let before = sandbox.read("ticks").await?;
        sandbox.exec(Command::new("sleep").arg("0.5")).await?;
        let after = sandbox.read("ticks").await?;
        ensure_eq!(
            after.len(),
            before.len(),
            "what a process of before has written since"
        );
        Ok(())
    })
    .await
}

async fn a_stopped_one_is_listed(cx: Context) -> Verdict {
    let label = format!("{:?}", std::time::Instant::now());
    let label = format!(
        "kit{}",
        label
            .bytes()
            .filter(u8::is_ascii_digit)
            .map(char::from)
            .collect::<String>()
    );
    let spec = cx.fixture.spec().label("lasting", &label);
    with_lasting(&cx, spec, |cx, sandbox| async move {
        let labels = Labels::from([("lasting".to_owned(), label)]);
        let listed = |what: &'static str, status: SandboxStatus| {
            let (cx, labels) = (cx.clone(), labels.clone());
            async move {
                let found = cx.provider.list(&labels).await?;
                let found: Vec<_> = found
                    .iter()
                    .map(|info| (info.status, info.lasting))
                    .collect();
                ensure_eq!(found, [(status, true)], "{what}");
                Ok(())
            }
        };
        listed("an open one", SandboxStatus::Open).await?;
        let (id, workdir) = (sandbox.info().id, sandbox.info().workdir);
        drop(sandbox);
        // It is being put down for a moment.
        eventually("it is stopped", || async {
            let found = cx.provider.list(&labels).await?;
            Ok(found
                .iter()
                .any(|info| info.status == SandboxStatus::Stopped))
        })
        .await?;
        listed("a stopped one", SandboxStatus::Stopped).await?;
        let found = cx.provider.list(&labels).await?;
        let found = found
            .first()
            .map(|info| (info.id.clone(), info.workdir.clone()));
        ensure_eq!(found, Some((id.clone(), workdir)), "the stopped one");
        let _sandbox = cx.provider.attach(&id).await?;
        listed("one that was started again", SandboxStatus::Open).await
    })
    .await
}

async fn a_stopped_one_can_be_destroyed(cx: Context) -> Verdict {
    with_lasting(&cx, cx.fixture.spec(), |cx, sandbox| async move {
        let id = sandbox.info().id;
        drop(sandbox);
        cx.provider.destroy(&id).await?;
        not_found(&cx, &id).await?;
        let again = cx.provider.destroy(&id).await;
        let kind = again.err().map(|error| error.kind());
        ensure_eq!(kind, Some(ErrorKind::NotFound), "destroying it again");
        Ok(())
    })
    .await
}

async fn close_ends_it(cx: Context) -> Verdict {
    with_lasting(&cx, cx.fixture.spec(), |cx, sandbox| async move {
        sandbox.write("f", "x").await?;
        let sandbox = stopped(&cx, sandbox).await?;
        let id = sandbox.info().id;
        sandbox.close().await?;
        not_found(&cx, &id).await?;
        drop(sandbox);
        not_found(&cx, &id).await
    })
    .await
}

async fn secret_variables_are_not_kept(cx: Context) -> Verdict {
    let spec = cx
        .fixture
        .spec()
        .secret("KIT_SECRET", "t0p")
        .env("KIT_PLAIN", "here");
    with_lasting(&cx, spec, |cx, sandbox| async move {
        let script = "printf '%s %s' \"$KIT_SECRET\" \"$KIT_PLAIN\"";
        let runs = cx.fixture.capabilities().has(Capability::Exec);
        if runs {
            ensure_eq!(text(&sh_on(&*sandbox, script).await?), "t0p here", "before");
        }
        let sandbox = stopped(&cx, sandbox).await?;
        if runs {
            ensure_eq!(text(&sh_on(&*sandbox, script).await?), " here", "after");
        }
        Ok(())
    })
    .await
}

async fn a_fork_of_it_does_not_last(cx: Context) -> Verdict {
    with_lasting(&cx, cx.fixture.spec(), |cx, sandbox| async move {
        let fork = sandbox.fork_one().await?;
        ensure!(
            !fork.info().lasting,
            "the info of the fork says that it lasts"
        );
        let id = fork.info().id;
        drop(fork);
        not_found(&cx, &id).await?;
        // The control.
        stopped(&cx, sandbox).await.map(drop)
    })
    .await
}

async fn its_fork_lives_on_when_it_is_stopped_and_closed(cx: Context) -> Verdict {
    with_lasting(&cx, cx.fixture.spec(), |cx, sandbox| async move {
        sandbox.write("f", "of both").await?;
        let fork = cx.track(sandbox.fork_one().await?);
        sandbox.write("f", "parent's").await?;
        let sandbox = stopped(&cx, sandbox).await?;
        ensure_eq!(
            sandbox.read_to_string("f").await?,
            "parent's",
            "of the parent"
        );
        ensure_eq!(fork.read_to_string("f").await?, "of both", "of the fork");
        sandbox.close().await?;
        drop(sandbox);
        ensure_eq!(
            fork.read_to_string("f").await?,
            "of both",
            "of the fork, alone"
        );
        fork.write("f", "the fork's").await?;
        ensure_eq!(
            fork.read_to_string("f").await?,
            "the fork's",
            "what it writes"
        );
        Ok(())
    })
    .await
}

async fn its_changes_are_those_since_its_creation(cx: Context) -> Verdict {
    with_lasting(&cx, cx.fixture.spec(), |cx, sandbox| async move {
        sandbox.write("before", "x").await?;
        let sandbox = stopped(&cx, sandbox).await?;
        sandbox.write("after", "y").await?;
        let changes = sandbox.changes(&".".into(), ChangesOptions::new()).await?;
        let mut paths: Vec<_> = changes
            .entries
            .iter()
            .map(|change| change.path.to_string())
            .collect();
        paths.sort();
        ensure_eq!(paths, ["after", "before"], "the changes");
        Ok(())
    })
    .await
}

async fn what_was_not_to_last_ends_with_its_handle(cx: Context) -> Verdict {
    let sandbox = cx.provider.create(cx.fixture.spec()).await?;
    ensure!(!sandbox.info().lasting, "its info says that it lasts");
    let id = sandbox.info().id;
    drop(sandbox);
    not_found(&cx, &id).await
}
