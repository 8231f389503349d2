//! Root in a sandbox: what it may do there, and that it is root of nothing else.
//!
//! Invariant: a refusal counts only if the program that tries is there.

use std::sync::Arc;

use sandbox_core::{Command, Control, ForkOptions, GuestUser, Mount, Sandbox, SandboxExt as _};

use super::tools::text;
use crate::kit::{Context, Verdict, cases, ensure, ensure_eq};

cases! { "guest_root":
    root_is_user_0 [GuestRoot, Exec],
    no_mode_of_its_own_files_stops_root [GuestRoot, Exec, Modes],
    root_changes_owners [GuestRoot, Exec],
    a_fork_of_roots_sandbox_is_roots [GuestRoot, Exec, Fork],
    the_report_says_that_root_is_less_than_the_default [GuestRoot, Isolation],
    root_mounts_nothing_and_makes_no_namespace [GuestRoot, Exec, Isolation],
    what_is_only_read_stays_so_for_root [GuestRoot, Exec, Mounts],
}

async fn root(cx: &Context) -> Verdict<Arc<dyn Sandbox>> {
    Ok(cx.create(cx.fixture.spec().user(GuestUser::Root)).await?)
}

/// Runs a script that must succeed; its output.
async fn run(sandbox: &dyn Sandbox, script: &str) -> Verdict<String> {
    let output = sandbox.exec(Command::shell(script)).await?;
    ensure!(output.success(), "{script}: {output:?}");
    Ok(text(&output).trim().to_owned())
}

async fn root_is_user_0(cx: Context) -> Verdict {
    let sandbox = root(&cx).await?;
    ensure_eq!(
        run(&*sandbox, "id -u; id -g").await?,
        "0\n0",
        "user and group"
    );
    let home = run(&*sandbox, "cd && pwd && touch here && rm here").await?;
    ensure!(home.starts_with('/'), "the home is {home:?}");
    Ok(())
}

async fn no_mode_of_its_own_files_stops_root(cx: Context) -> Verdict {
    let sandbox = root(&cx).await?;
    let script = "printf inside > f && chmod 000 f && mkdir d && printf deep > d/g && chmod 000 d && \
                  cat f d/g && printf more >> f && cat f";
    ensure_eq!(
        run(&*sandbox, script).await?,
        "insidedeepinsidemore",
        "the files"
    );
    // Not a program without the bit.
    let output = sandbox
        .sh("printf '#!/bin/sh\\n' > p; chmod 644 p; ./p")
        .await?;
    ensure_eq!(
        output.status.code(),
        Some(126),
        "a program of mode 644: {output:?}"
    );
    Ok(())
}

async fn root_changes_owners(cx: Context) -> Verdict {
    let sandbox = root(&cx).await?;
    let script = "touch f && chown 1:1 f && chgrp 42 f && chown -R 33:33 . && chown root:root f && echo done";
    ensure_eq!(run(&*sandbox, script).await?, "done", "the script");
    Ok(())
}

async fn a_fork_of_roots_sandbox_is_roots(cx: Context) -> Verdict {
    let sandbox = root(&cx).await?;
    run(&*sandbox, "printf x > f; chmod 000 f").await?;
    let fork = sandbox.fork(ForkOptions::new()).await?;
    ensure_eq!(run(&*fork, "id -u; cat f").await?, "0\nx", "the fork");
    ensure_eq!(run(&*sandbox, "id -u; cat f").await?, "0\nx", "the parent");
    Ok(fork.close().await?)
}

async fn the_report_says_that_root_is_less_than_the_default(cx: Context) -> Verdict {
    let report = root(&cx).await?.isolation().await?;
    ensure!(
        !report.is_enforced(Control::Privileges),
        "{:?}",
        report.get(Control::Privileges)
    );
    let default = cx.sandbox.isolation().await?;
    for control in [
        Control::Filesystem,
        Control::Processes,
        Control::SystemCalls,
    ] {
        ensure_eq!(
            report.is_enforced(control),
            default.is_enforced(control),
            "{control}"
        );
    }
    Ok(())
}

async fn root_mounts_nothing_and_makes_no_namespace(cx: Context) -> Verdict {
    let sandbox = root(&cx).await?;
    run(&*sandbox, "mkdir -p m && command -v mount unshare").await?;
    for refused in [
        "mount -t tmpfs none m",
        "mount --bind / m",
        "unshare --user true",
        "unshare --mount true",
    ] {
        ensure!(!sandbox.sh(refused).await?.success(), "{refused} succeeded");
    }
    Ok(())
}

async fn what_is_only_read_stays_so_for_root(cx: Context) -> Verdict {
    let host = cx.host_dir()?;
    std::fs::write(host.path().join("f"), "kept")?;
    let spec = cx.fixture.spec().user(GuestUser::Root);
    let sandbox = cx
        .create(spec.mount(Mount::read_only(host.path(), "/given")))
        .await?;
    ensure_eq!(
        run(&*sandbox, "cat /given/f").await?,
        "kept",
        "as the control"
    );
    for refused in [
        "printf x > /given/f",
        "printf x > /given/new",
        "rm /given/f",
        "chmod 777 /given/f",
    ] {
        ensure!(!sandbox.sh(refused).await?.success(), "{refused} succeeded");
    }
    let kept = std::fs::read_to_string(host.path().join("f"))?;
    ensure_eq!(kept, "kept", "the host's file");
    Ok(())
}
