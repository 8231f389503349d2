//! Number of queries of each operation; that the engine's cache shares no execution, and that a
//! sandbox may be used for ever.
#![cfg(target_os = "linux")]

mod support;

use std::time::SystemTime;

use sandbox_core::{
    Command, ErrorKind, FileBatch, ListOptions, Provider as _, ReadOptions, Sandbox as _,
    SandboxExt as _,
};
use support::{Outcome, Rig, spec};

#[tokio::test(flavor = "multi_thread")]
async fn each_operation_costs_what_the_readme_says() -> Outcome {
    let rig = Rig::new().await?;
    let sandbox = &rig.sandbox;
    let mut before = (0, 0);
    // Queries, and containers that were run.
    let mut cost = || {
        let now = (rig.double.queries(), rig.double.executions());
        let then = std::mem::replace(&mut before, now);
        (now.0 - then.0, now.1 - then.1)
    };
    cost();
    sandbox.exec(Command::new("true")).await?;
    assert_eq!(cost(), (1, 1), "exec");
    sandbox.write("one", "1").await?;
    assert_eq!(
        cost(),
        (2, 0),
        "a text: what is there, and the file put there"
    );
    sandbox.write("one", "2").await?;
    assert_eq!(
        cost(),
        (3, 0),
        "a text over another, whose mode is asked for"
    );
    sandbox.write("bytes", b"\xff".as_slice()).await?;
    assert_eq!(cost(), (2, 0), "bytes: as a text");
    assert_eq!(sandbox.read("bytes").await?, b"\xff".as_slice());
    cost();
    let many = |count: usize| {
        (0..count).fold(FileBatch::new(), |batch, number| {
            batch.file(format!("many/{}/{number}", number % 10), number.to_string())
        })
    };
    sandbox.write_files(many(9)).await?;
    let one = cost();
    assert_eq!(
        one,
        (2, 1),
        "many files: the staged directory, and the command that puts them in place"
    );
    sandbox.write_files(many(1_000)).await?;
    assert_eq!(cost(), one, "a thousand files cost as many as nine");
    let options = ReadOptions::new();
    assert_eq!(
        sandbox.read_file(&"many/7/997".into(), options).await?,
        "997"
    );
    assert_eq!(cost(), (2, 0), "read: no container");
    sandbox.set_workdir(&"many/7".into()).await?;
    assert_eq!(cost(), (1, 0), "set_workdir: no container");
    sandbox.set_workdir(&"../..".into()).await?;
    cost();
    let missing = sandbox.read("no-such").await.map_err(|error| error.kind());
    assert_eq!(missing, Err(ErrorKind::NotFound));
    assert_eq!(cost(), (2, 1), "the guest says why there is nothing");
    let recursive = ListOptions::new().recursive(true);
    assert_eq!(
        sandbox.list_dir(&"many".into(), recursive).await?.len(),
        1_010
    );
    assert_eq!(cost(), (1, 1), "list");
    sandbox.stat("one").await?;
    assert_eq!(cost(), (1, 1), "metadata");
    sandbox.move_to("one", "two").await?;
    assert_eq!(cost(), (1, 1), "rename");
    sandbox.remove_all("two").await?;
    assert_eq!(cost(), (1, 1), "remove");
    let fork = sandbox.fork_one().await?;
    fork.close().await?;
    assert_eq!(cost(), (0, 0), "fork and close");
    let next = rig.provider.create(spec()).await?;
    assert_eq!(
        cost(),
        (2, 0),
        "the next that begins the same: no container"
    );
    next.exec(Command::new("true")).await?;
    assert!(!next.exists("many").await?, "it has nothing of the other");
    rig.double.forget();
    let after = rig.provider.create(spec()).await?;
    assert!(
        after.sh("true").await?.success(),
        "what the engine forgot is made anew"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_was_there_before_is_as_new_as_it_is() -> Outcome {
    let rig = Rig::new().await?;
    let seconds = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    rig.sandbox.write("f", "text").await?;
    let first = seconds()?.as_secs();
    while seconds()?.as_secs() == first {
        tokio::task::yield_now().await;
    }
    // The engine has this text already, from a second before.
    rig.sandbox.write("g", "text").await?;
    let modified = rig.sandbox.stat("g").await?.modified;
    let modified = modified.ok_or("no time")?;
    assert!(modified.duration_since(SystemTime::UNIX_EPOCH)?.as_secs() > first);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn small_texts_end_as_a_command_would_have_them() -> Outcome {
    let rig = Rig::new().await?;
    let sandbox = &rig.sandbox;
    sandbox
        .sh("mkdir -m 700 d; ln -s d to-d; echo old >f; chmod 750 f; ln -s f to-f; mkfifo pipe")
        .await?;
    let before = rig.double.executions();
    sandbox.write("d/a", "1").await?;
    sandbox.write("f", "2").await?;
    assert_eq!(rig.double.executions(), before, "without a command");
    // What only the guest can do right.
    sandbox.write("to-d/b", "3").await?;
    sandbox.write("to-f", "4").await?;
    let over = sandbox
        .write("pipe", "5")
        .await
        .map_err(|error| error.kind());
    assert_eq!(over, Err(ErrorKind::NotARegularFile));
    assert_eq!(rig.double.executions(), before + 3, "with a command");
    let said = sandbox
        .sh("stat -c '%n %F %a' d d/a d/b f to-f pipe; cat d/a d/b f to-f")
        .await?;
    assert_eq!(
        said.stdout.to_string_lossy(),
        "d directory 700\nd/a regular file 644\nd/b regular file 644\n\
         f regular file 750\nto-f regular file 644\npipe fifo 644\n1324"
    );
    let new = FileBatch::new().new_file("f", "6");
    for (batch, kind) in [
        (FileBatch::new().file("d", "x"), ErrorKind::IsADirectory),
        (FileBatch::new().file("f/x", "x"), ErrorKind::NotADirectory),
        (new, ErrorKind::AlreadyExists),
    ] {
        let batch = batch.file("beside", "x");
        let refused = sandbox.write_files(batch).await;
        assert_eq!(refused.map_err(|error| error.kind()), Err(kind));
        assert!(!sandbox.exists("beside").await?, "{kind:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn forks_that_run_the_same_command_run_it_twice() -> Outcome {
    let rig = Rig::new().await?;
    let other = rig.sandbox.fork_one().await?;
    let before = rig.double.executions();
    let script = "cat /proc/sys/kernel/random/uuid";
    let one = rig.sandbox.sh(script).await?;
    let two = other.sh(script).await?;
    assert_ne!(one.stdout.bytes, two.stdout.bytes);
    assert_eq!(rig.double.executions() - before, 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_of_one_letter_spoils_no_answer() -> Outcome {
    let rig = Rig::new().await?;
    for secret in ["a", "1", "=", "a:b", "***"] {
        let mut command = Command::shell("printf %s \"$S\"; printf %s \"$S\" >&2; exit 11");
        command.env = command.env.secret("S", secret);
        let output = rig.sandbox.exec(command).await?;
        assert_eq!(output.stdout.bytes, secret);
        assert_eq!(output.stderr.bytes, secret);
        assert_eq!(output.status.code(), Some(11));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_not_part_of_what_is_sent_to_run() -> Outcome {
    let rig = Rig::new().await?;
    let command = Command::shell("printf %s \"$TOKEN\"");
    let mut secret = command.clone();
    secret.env = secret.env.secret("TOKEN", "s3cret\" $x");
    let output = rig.sandbox.exec(secret).await?;
    // The engine takes secrets out of plain output; the supervisor's answer is encoded.
    assert_eq!(output.stdout.bytes, "s3cret\" $x");
    assert_eq!(rig.double.queries_with("s3cret"), 1, "only setSecret");
    assert_eq!(rig.double.queries_with("setSecret"), 1);
    assert_eq!(rig.sandbox.exec(command).await?.stdout.bytes, "");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn few_connections_serve_any_number_of_sandboxes() -> Outcome {
    let rig = Rig::new().await?;
    for _ in 0..5 {
        let sandbox = rig.provider.create(spec()).await?;
        assert!(sandbox.sh("true").await?.success());
        sandbox.close().await?;
    }
    // One that is not back in the pool yet is not waited for.
    let (connections, queries) = (rig.double.connections(), rig.double.queries());
    assert!(
        connections * 2 <= queries,
        "{connections} for {queries} queries"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_a_failed_command_are_kept() -> Outcome {
    let rig = Rig::new().await?;
    for (name, ending) in [("a", "exit 1"), ("b", "exit 150"), ("c", "kill -9 $$")] {
        let output = rig.sandbox.sh(format!("echo x >{name}; {ending}")).await?;
        assert!(!output.success());
        assert!(rig.sandbox.exists(name).await?, "{ending}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_operations_on_one_sandbox() -> Outcome {
    let rig = Rig::new().await?;
    let sandbox = &rig.sandbox;
    let mut deepest = None;
    // Most of them are the cheapest there are: what is tested is their number.
    for number in 0..2_000_u32 {
        if number == 20 {
            // Each operation was used once.
            deepest = Some(rig.double.deepest());
        }
        match number % 20 {
            0 => sandbox.write("kept", format!("{number}")).await?,
            1 => {
                let read = sandbox.read_to_string("kept").await?;
                assert_eq!(read, format!("{}", number - 1));
            }
            2 => {
                let output = sandbox.sh("cat kept; echo more >>log").await?;
                assert_eq!(output.stdout.bytes, format!("{}", number - 2));
            }
            _ => {
                sandbox
                    .create_dir(&format!("d{}", number % 16).into(), Default::default())
                    .await?
            }
        }
    }
    let log = sandbox.read_to_string("log").await?;
    assert_eq!(
        log.lines().count(),
        100,
        "nothing was lost when layers were put together"
    );
    assert_eq!(
        Some(rig.double.deepest()),
        deepest,
        "no query became deeper"
    );
    Ok(())
}
