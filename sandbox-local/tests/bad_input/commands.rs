//! Commands that can not be started.

use std::time::Duration;

use sandbox_core::{Command, ErrorKind, Ran};

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
    ];
    for (command, kind, word) in cases {
        let error = wrong
            .check(&sandbox, sandbox.exec(command.clone()).await, kind, &[word])
            .await;
        let ran = error.map(|error| error.ran());
        assert!(matches!(ran, None | Some(Some(Ran::NotStarted))), "{ran:?}");
        let error = wrong
            .check(&sandbox, sandbox.spawn(command).await, kind, &[word])
            .await;
        let ran = error.map(|error| error.ran());
        assert!(matches!(ran, None | Some(Some(Ran::NotStarted))), "{ran:?}");
    }
    sandbox.close().await.expect("close");
}
