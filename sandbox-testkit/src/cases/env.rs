//! Environment and workdir.
//!
//! Invariant: a variable that must not be there is looked for next to one that must.

use std::time::Duration;

use sandbox_core::{Command, Env, ErrorKind, Execution, Operation, SandboxExt as _};

use super::tools::text;
use crate::kit::{Context, Verdict, cases, ensure, ensure_eq, refused, refused_at};

cases! { "env":
    a_variable_of_the_command_is_seen [Exec],
    odd_values_arrive_verbatim [Exec],
    a_variable_of_one_command_is_gone_in_the_next [Exec],
    a_variable_may_be_taken_out_for_one_command [Exec],
    variables_of_the_spec_are_seen [Exec],
    set_env_lasts [Exec],
    set_env_refuses_all_if_one_is_invalid [Exec],
    an_invalid_variable_of_a_command_is_refused [Exec],
    nothing_of_the_hosts_environment_is_there [Exec],
    a_secret_arrives_and_is_not_shown [Exec],
    there_is_a_path_to_find_programs_by [Exec],
    the_workdir_of_the_spec_is_created,
    set_workdir_lasts [Exec],
    set_workdir_changes_what_relative_means,
    set_workdir_to_a_missing_directory_is_refused,
    set_workdir_to_a_file_is_refused,
}

/// Value of a variable as a program sees it, in brackets; empty if it is unset.
async fn seen(cx: &Context, command: Command) -> Verdict<String> {
    let output = cx.sandbox.exec(command).await?;
    ensure!(output.success(), "it ended with {}", output.status);
    Ok(text(&output))
}

/// The lines of `env`.
async fn lines(cx: &Context, command: Command) -> Verdict<Vec<String>> {
    let text = seen(cx, command).await?;
    Ok(text.lines().map(str::to_owned).collect())
}

fn has(lines: &[String], line: &str) -> bool {
    lines.iter().any(|known| known == line)
}

async fn a_variable_of_the_command_is_seen(cx: Context) -> Verdict {
    let found = lines(&cx, Command::new("env").env("KIT_A", "1").env("KIT_B", "")).await?;
    ensure!(has(&found, "KIT_A=1"), "KIT_A is not there: {found:?}");
    ensure!(
        has(&found, "KIT_B="),
        "an empty variable is not there: {found:?}"
    );
    Ok(())
}

async fn odd_values_arrive_verbatim(cx: Context) -> Verdict {
    for value in ["a b", "a=b=c", "one\ntwo\n", "'\"`$HOME\\", "ü🦀", " ", "*"] {
        let command = Command::shell("printf '<%s>' \"$KIT\"").env("KIT", value);
        ensure_eq!(seen(&cx, command).await?, format!("<{value}>"), "the value");
    }
    let command = Command::shell("printf '%s' \"$KIT\"").env("KIT", &b"\xff\xfe"[..]);
    let output = cx.sandbox.exec(command).await?;
    ensure_eq!(
        output.stdout.bytes,
        &b"\xff\xfe"[..],
        "bytes that are not UTF-8"
    );
    Ok(())
}

async fn a_variable_of_one_command_is_gone_in_the_next(cx: Context) -> Verdict {
    let first = lines(&cx, Command::new("env").env("KIT", "1")).await?;
    ensure!(has(&first, "KIT=1"), "KIT is not there: {first:?}");
    let second = lines(&cx, Command::new("env")).await?;
    ensure!(
        !second.iter().any(|line| line.starts_with("KIT=")),
        "KIT is still there"
    );
    cx.sh("KIT=2; export KIT").await?;
    let third = lines(&cx, Command::new("env")).await?;
    ensure!(
        !third.iter().any(|line| line.starts_with("KIT=")),
        "a shell's export lasts"
    );
    Ok(())
}

async fn a_variable_may_be_taken_out_for_one_command(cx: Context) -> Verdict {
    cx.sandbox.set_env(Env::new().set("KIT", "1")).await?;
    let without = lines(&cx, Command::new("env").env_remove("KIT")).await?;
    ensure!(
        !without.iter().any(|line| line.starts_with("KIT=")),
        "KIT is there"
    );
    let with = lines(&cx, Command::new("env")).await?;
    ensure!(has(&with, "KIT=1"), "KIT is gone for all: {with:?}");
    Ok(())
}

async fn variables_of_the_spec_are_seen(cx: Context) -> Verdict {
    let spec = cx.fixture.spec().env("KIT", "of the spec");
    let sandbox = cx.create(spec).await?;
    for _ in 0..2 {
        let output = sandbox.sh("printf '%s' \"$KIT\"").await?;
        ensure_eq!(text(&output), "of the spec", "the variable");
    }
    let output = sandbox
        .exec(Command::shell("printf '%s' \"$KIT\"").env("KIT", "of the command"))
        .await?;
    ensure_eq!(text(&output), "of the command", "the command's own");
    Ok(())
}

async fn set_env_lasts(cx: Context) -> Verdict {
    let changes = Env::new().set("KIT_A", "1").set("KIT_B", "2");
    cx.sandbox.set_env(changes).await?;
    for _ in 0..2 {
        let found = lines(&cx, Command::new("env")).await?;
        ensure!(
            has(&found, "KIT_A=1") && has(&found, "KIT_B=2"),
            "{found:?}"
        );
    }
    let changes = Env::new().unset("KIT_A").set("KIT_B", "3");
    cx.sandbox.set_env(changes).await?;
    let found = lines(&cx, Command::new("env")).await?;
    ensure!(
        !found.iter().any(|line| line.starts_with("KIT_A=")),
        "KIT_A is there"
    );
    ensure!(has(&found, "KIT_B=3"), "KIT_B was not changed: {found:?}");
    Ok(())
}

async fn set_env_refuses_all_if_one_is_invalid(cx: Context) -> Verdict {
    for name in ["", "A=B", "A\0B"] {
        let changes = Env::new().set("KIT_GOOD", "1").set(name, "s3cret-value");
        let done = cx.sandbox.set_env(changes).await;
        let kind = ErrorKind::InvalidInput;
        let error = refused(done, &cx.sandbox, Operation::SetEnv, kind)?;
        ensure!(
            !format!("{error} {error:?}").contains("s3cret-value"),
            "the error shows the value: {error:?}"
        );
    }
    let found = lines(&cx, Command::new("env")).await?;
    ensure!(
        !has(&found, "KIT_GOOD=1"),
        "a part of a refused change was made"
    );
    Ok(())
}

async fn an_invalid_variable_of_a_command_is_refused(cx: Context) -> Verdict {
    let command = Command::shell("touch ran").env("A=B", "x");
    let ran = cx.sandbox.exec(command).await;
    let kind = ErrorKind::InvalidInput;
    let error = refused(ran, &cx.sandbox, Operation::Exec, kind)?;
    ensure_eq!(
        error.execution(),
        Some(Execution::NotStarted),
        "whether it ran"
    );
    ensure!(!cx.sandbox.exists("ran").await?, "it ran");
    Ok(())
}

async fn nothing_of_the_hosts_environment_is_there(cx: Context) -> Verdict {
    // Variables that any system may have with the same value by chance.
    const COMMON: [&str; 12] = [
        "PATH", "HOME", "PWD", "OLDPWD", "SHLVL", "_", "LANG", "TERM", "USER", "SHELL", "LOGNAME",
        "TMPDIR",
    ];
    let host: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| !COMMON.contains(&name.as_str()))
        .collect();
    // Cargo always sets some; without any the case would prove nothing.
    ensure!(
        !host.is_empty(),
        "the host has no variable of its own: run this under cargo"
    );
    let found = lines(&cx, Command::new("env").env("KIT_CONTROL", "seen")).await?;
    ensure!(
        has(&found, "KIT_CONTROL=seen"),
        "env shows nothing: {found:?}"
    );
    for (name, value) in host {
        let line = format!("{name}={}", value.lines().next().unwrap_or(""));
        ensure!(!has(&found, &line), "the host's {name} is in the sandbox");
    }
    Ok(())
}

async fn a_secret_arrives_and_is_not_shown(cx: Context) -> Verdict {
    const SECRET: &str = "s3cret-of-the-kit";
    let spec = cx.fixture.spec().secret("KIT_SECRET", SECRET);
    ensure!(!format!("{spec:?}").contains(SECRET), "the spec shows it");
    let sandbox = cx.create(spec).await?;
    let output = sandbox.sh("printf '%s' \"$KIT_SECRET\"").await?;
    ensure_eq!(text(&output), SECRET, "what the program sees");
    let shown = format!(
        "{sandbox:?} {:?} {:?}",
        sandbox.info(),
        sandbox.capabilities()
    );
    ensure!(!shown.contains(SECRET), "the sandbox shows it");
    let command = Command::new("no-such-program")
        .env("KIT", SECRET)
        .arg(SECRET);
    ensure!(
        !format!("{command:?}").contains(SECRET),
        "the command shows it"
    );
    if let Err(error) = sandbox.exec(command).await {
        ensure!(
            !format!("{error} {error:?}").contains(SECRET),
            "the error shows it: {error:?}"
        );
    }
    Ok(())
}

async fn there_is_a_path_to_find_programs_by(cx: Context) -> Verdict {
    let output = cx.sh("printf '%s' \"$PATH\"").await?;
    ensure!(!output.stdout.bytes.is_empty(), "PATH is empty");
    let output = cx.sandbox.exec(Command::new("cat").stdin("x")).await?;
    ensure_eq!(text(&output), "x", "cat, found by name");
    Ok(())
}

async fn the_workdir_of_the_spec_is_created(cx: Context) -> Verdict {
    let spec = cx.fixture.spec().workdir("/tmp/kit/deep/workdir");
    let sandbox = cx.create(spec).await?;
    ensure_eq!(
        sandbox.info().workdir,
        "/tmp/kit/deep/workdir".into(),
        "info"
    );
    sandbox.write("f", "x").await?;
    let read = sandbox.read_to_string("/tmp/kit/deep/workdir/f").await?;
    ensure_eq!(read, "x", "the file");
    let own = cx.sandbox.info().workdir;
    let metadata = cx.sandbox.stat(&own).await?;
    ensure!(metadata.is_dir(), "the default workdir is not there");
    Ok(())
}

async fn set_workdir_lasts(cx: Context) -> Verdict {
    cx.sandbox.write("d/e/marker", "found").await?;
    cx.sandbox.set_workdir(&"d".into()).await?;
    cx.sandbox.set_workdir(&"e".into()).await?;
    for _ in 0..2 {
        let output = cx.sandbox.sh("cat marker; cd /").await?;
        ensure_eq!(text(&output), "found", "a file of the new workdir");
    }
    let info = cx.sandbox.info().workdir.to_string();
    ensure!(info.ends_with("/d/e"), "info says {info}");
    let command = Command::new("cat").arg("marker").cwd(".");
    let command = command.timeout(Duration::from_secs(120));
    let output = cx.sandbox.exec(command).await?;
    ensure_eq!(text(&output), "found", "a relative cwd starts there");
    Ok(())
}

async fn set_workdir_changes_what_relative_means(cx: Context) -> Verdict {
    let first = cx.sandbox.info().workdir;
    cx.sandbox.write("d/f", "in d").await?;
    cx.sandbox.write("f", "above").await?;
    cx.sandbox.set_workdir(&"d".into()).await?;
    ensure_eq!(cx.sandbox.read_to_string("f").await?, "in d", "f");
    ensure_eq!(cx.sandbox.read_to_string("../f").await?, "above", "../f");
    ensure_eq!(cx.sandbox.list(".").await?.len(), 1, "entries");
    cx.sandbox.set_workdir(&first).await?;
    ensure_eq!(cx.sandbox.read_to_string("f").await?, "above", "f again");
    Ok(())
}

async fn set_workdir_to_a_missing_directory_is_refused(cx: Context) -> Verdict {
    let before = cx.sandbox.info().workdir;
    let done = cx.sandbox.set_workdir(&"nope".into()).await;
    let kind = ErrorKind::NotFound;
    refused_at(done, &cx.sandbox, Operation::SetWorkdir, kind, "nope")?;
    ensure_eq!(cx.sandbox.info().workdir, before, "the workdir");
    Ok(())
}

async fn set_workdir_to_a_file_is_refused(cx: Context) -> Verdict {
    let before = cx.sandbox.info().workdir;
    cx.sandbox.write("f", "").await?;
    let done = cx.sandbox.set_workdir(&"f".into()).await;
    let kind = ErrorKind::NotADirectory;
    refused_at(done, &cx.sandbox, Operation::SetWorkdir, kind, "f")?;
    ensure_eq!(cx.sandbox.info().workdir, before, "the workdir");
    Ok(())
}
