//! Commands that can not be started.

use std::time::Duration;

use sandbox_core::{
    Command, ErrorKind, Execution, FileBatch, Mode, Network, Process, Provider, SandboxExt,
    SandboxSpec,
};
use sandbox_local::{PlainConfig, PlainProvider};
use tokio::io::AsyncReadExt;

use crate::{
    Wrong,
    support::{self, sh},
};

#[tokio::test]
async fn commands_that_can_not_be() {
    let (sandbox, wrong) = (support::default().await, Wrong::default());
    sh(
        &sandbox,
        "echo data > data; mkdir dir; echo x > script; chmod +x script; \
         printf '#!/no/such\\n' > interp; chmod +x interp; mkdir -m 000 closed",
    )
    .await;
    let cases = [
        (
            Command::new("no-such-program"),
            ErrorKind::CommandNotFound,
            "no-such-program",
        ),
        (
            Command::new("./missing"),
            ErrorKind::CommandNotFound,
            "./missing",
        ),
        (
            Command::new("./interp"),
            ErrorKind::CommandNotFound,
            "interpreter",
        ),
        (Command::new("./data"), ErrorKind::NotExecutable, "./data"),
        // The same where it is found by name.
        (
            Command::new("data").env("PATH", "/workspace"),
            ErrorKind::NotExecutable,
            "data",
        ),
        (Command::new("./dir"), ErrorKind::NotExecutable, "./dir"),
        (
            Command::new("./script"),
            ErrorKind::NotExecutable,
            "#!/bin/sh",
        ),
        (
            Command::new("true").cwd("/missing"),
            ErrorKind::NotFound,
            "/missing",
        ),
        (
            Command::new("true").cwd("data"),
            ErrorKind::NotADirectory,
            "/workspace/data",
        ),
        (
            Command::new("true").cwd("closed"),
            ErrorKind::PermissionDenied,
            "/workspace/closed",
        ),
        (
            Command::new("true").cwd("a\0b"),
            ErrorKind::InvalidInput,
            "NUL",
        ),
        (Command::new(""), ErrorKind::InvalidInput, "program"),
        (Command::new("tr\0ue"), ErrorKind::InvalidInput, "NUL"),
        (
            Command::new("true").arg("a\0b"),
            ErrorKind::InvalidInput,
            "NUL",
        ),
        (
            Command::new("true").env("A=B", "c"),
            ErrorKind::InvalidInput,
            "variable",
        ),
        (
            Command::new("true").env("A", "b\0c"),
            ErrorKind::InvalidInput,
            "NUL",
        ),
        (
            Command::new("true").timeout(Duration::ZERO),
            ErrorKind::InvalidInput,
            "timeout",
        ),
        (
            Command::new("true").user("root"),
            ErrorKind::Unsupported,
            "user",
        ),
        (
            Command::new("true").arg("x".repeat(4 << 20)),
            ErrorKind::LimitExceeded,
            "stdin or in a file",
        ),
        (
            Command::new("true").arg("x".repeat(40 << 20)),
            ErrorKind::LimitExceeded,
            "stdin or in a file",
        ),
        // More than the kernel takes for one variable (MAX_ARG_STRLEN: 128 KiB).
        (
            Command::new("true").env("BIG", "x".repeat(140_000)),
            ErrorKind::LimitExceeded,
            "stdin or in a file",
        ),
    ];
    for (command, kind, word) in cases {
        let error = wrong
            .check(&sandbox, sandbox.exec(command.clone()).await, kind, &[word])
            .await;
        let ran = error.map(|error| error.execution());
        assert!(
            matches!(ran, None | Some(Some(Execution::NotStarted))),
            "{ran:?}"
        );
        let error = wrong
            .check(&sandbox, sandbox.spawn(command).await, kind, &[word])
            .await;
        let ran = error.map(|error| error.execution());
        assert!(
            matches!(ran, None | Some(Some(Execution::NotStarted))),
            "{ran:?}"
        );
    }
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn a_program_that_is_still_open_for_writing_is_waited_for_and_no_longer_than_a_moment() {
    let (sandbox, wrong) = (support::default().await, Wrong::default());
    let program =
        FileBatch::new().file_with_mode("program", "#!/bin/sh\necho ran\n", Mode::EXECUTABLE);
    sandbox.write_files(program).await.expect("written");
    let hold = async || -> Process {
        let script = Command::shell("exec 3>>program; echo held; read line").stdin_piped();
        let mut holder = sandbox.spawn(script).await.expect("a holder");
        let stdout = holder.stdout.as_mut().expect("its output");
        let mut said = [0; 5];
        stdout.read_exact(&mut said).await.expect("it holds");
        holder
    };
    let mut waited = None;
    // Once is enough; but a machine may be too busy to let go within the moment.
    for _ in 0..5 {
        let mut holder = hold().await;
        let (ran, ()) = tokio::join!(sandbox.exec(Command::new("./program")), async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            drop(holder.stdin.take());
        });
        holder.kill().await.expect("killed");
        waited = Some(ran);
        if matches!(waited, Some(Ok(_))) {
            break;
        }
    }
    let ran = waited.expect("an attempt").expect("it was waited for");
    assert_eq!(ran.stdout.bytes, "ran\n");
    let holder = hold().await;
    for command in [
        Command::new("./program"),
        Command::new("program").env("PATH", "."),
    ] {
        let result = sandbox.exec(command).await;
        let words = ["program", "open for writing"];
        let error = wrong.check(&sandbox, result, ErrorKind::Busy, &words).await;
        assert!(error.is_none_or(|error| error.execution() == Some(Execution::NotStarted)));
    }
    holder.kill().await.expect("killed");
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn a_binary_that_is_broken_or_for_another_machine_is_not_executable() {
    let whole = std::fs::read("/bin/true").expect("a binary");
    let mut other = whole.clone();
    // e_machine: IBM System/390.
    other[18] = 22;
    let cases = [
        ("other", other),
        ("short", whole[..100].to_vec()),
        ("shorter", whole[..20].to_vec()),
        ("text", b"\x7fELF\n touch ran\n".to_vec()),
    ];
    let plain = SandboxSpec::new().network(Network::Open);
    let plain = PlainProvider::new(PlainConfig::default())
        .expect("a provider")
        .create(plain)
        .await
        .expect("plain");
    for sandbox in [support::default().await, plain] {
        for (name, content) in &cases {
            let batch = FileBatch::new().file_with_mode(*name, content.clone(), Mode::EXECUTABLE);
            sandbox.write_files(batch).await.expect("written");
            let error = sandbox.exec(Command::new(format!("./{name}"))).await;
            let error = error.expect_err("it can't run");
            assert_eq!(error.kind(), ErrorKind::NotExecutable, "{name}: {error}");
            assert_eq!(error.execution(), Some(Execution::NotStarted), "{name}");
        }
        let ran = sandbox.stat("ran").await;
        assert_eq!(ran.expect_err("it ran").kind(), ErrorKind::NotFound);
        sandbox.close().await.expect("close");
    }
}
