//! A sandbox that is closed.

use sandbox_core::{
    Command, CreateDirOptions, Env, Error, ErrorKind, ExportOptions, FileBatch, ForkOptions,
    ImportOptions, ListOptions, Operation, ReadOptions, RemoveOptions, RenameOptions,
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
    closed(
        sandbox
            .read_file(&p, ReadOptions::default())
            .await
            .map(drop),
        Operation::ReadFile,
    );
    closed(
        sandbox.list_dir(&p, ListOptions::default()).await.map(drop),
        Operation::ListDir,
    );
    closed(sandbox.metadata(&p).await.map(drop), Operation::Metadata);
    closed(
        sandbox.remove(&p, RemoveOptions::default()).await,
        Operation::Remove,
    );
    closed(
        sandbox.create_dir(&p, CreateDirOptions::default()).await,
        Operation::CreateDir,
    );
    closed(
        sandbox
            .rename(&p, &path("y"), RenameOptions::default())
            .await,
        Operation::Rename,
    );
    let import = sandbox
        .import_dir(host.path(), &p, ImportOptions::default())
        .await;
    closed(import.map(drop), Operation::ImportDir);
    let export = sandbox.export_dir(&p, &out, ExportOptions::default()).await;
    closed(export.map(drop), Operation::ExportDir);
    closed(sandbox.set_workdir(&p).await, Operation::SetWorkdir);
    closed(sandbox.set_env(Env::new()).await, Operation::SetEnv);
    closed(
        sandbox.fork(ForkOptions::default()).await.map(drop),
        Operation::Fork,
    );
    closed(
        sandbox.snapshot(SnapshotOptions::default()).await.map(drop),
        Operation::Snapshot,
    );
    closed(sandbox.isolation().await.map(drop), Operation::Isolation);
}
