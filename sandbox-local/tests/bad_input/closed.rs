//! A sandbox that is closed.

use sandbox_core::{
    Command, Env, Error, ErrorKind, FileBatch, Operation, RemoveOptions, SandboxExt,
    SnapshotOptions,
};

use crate::{
    path,
    support::{self},
};

#[tokio::test]
async fn a_closed_sandbox_says_so_to_everything() {
    let sandbox = support::default().await;
    sandbox.close().await.expect("close");
    sandbox.close().await.expect("once more is fine");
    let closed = |result: Result<(), Error>, operation| {
        let error = result.expect_err("it is closed");
        assert_eq!(
            (error.kind(), error.operation()),
            (ErrorKind::Closed, operation),
            "{error}"
        );
        assert!(
            error.to_string().contains(sandbox.info().id.as_str()),
            "{error}"
        );
    };
    let p = path("x");
    let host = tempfile::tempdir().expect("a directory");
    let out = host.path().join("out");
    closed(
        sandbox.exec(Command::new("true")).await.map(drop),
        Operation::Exec,
    );
    closed(
        sandbox.spawn(Command::new("true")).await.map(drop),
        Operation::Spawn,
    );
    closed(
        sandbox.write_files(FileBatch::new().file("x", "")).await,
        Operation::WriteFiles,
    );
    closed(sandbox.read(&p).await.map(drop), Operation::ReadFile);
    closed(sandbox.list(&p).await.map(drop), Operation::ListDir);
    closed(sandbox.stat(&p).await.map(drop), Operation::Metadata);
    closed(
        sandbox.remove(&p, RemoveOptions::new()).await,
        Operation::Remove,
    );
    closed(sandbox.create_dir_all(&p).await, Operation::CreateDir);
    closed(sandbox.move_to(&p, path("y")).await, Operation::Rename);
    let import = sandbox.import(host.path(), &p).await;
    closed(import.map(drop), Operation::ImportDir);
    let export = sandbox.export(&p, &out).await;
    closed(export.map(drop), Operation::ExportDir);
    closed(sandbox.set_workdir(&p).await, Operation::SetWorkdir);
    closed(sandbox.set_env(Env::new()).await, Operation::SetEnv);
    closed(sandbox.fork_one().await.map(drop), Operation::Fork);
    closed(
        sandbox.snapshot(SnapshotOptions::new()).await.map(drop),
        Operation::Snapshot,
    );
    closed(sandbox.isolation().await.map(drop), Operation::Isolation);
}
