//! Transfers that can not be, files that are too large, a full disk.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sandbox_core::{
    Command, ErrorKind, ExportOptions, FileBatch, ImportOptions, ReadOptions, RemoveOptions,
    Resources, SandboxExt, SandboxSpec, Unreadable,
};

use crate::{
    Wrong, path,
    support::{self, is_root, sh},
};

#[tokio::test]
async fn two_gigabytes_are_refused_and_not_read() {
    let (sandbox, wrong) = (support::default().await, Wrong::default());
    sh(&sandbox, "truncate -s 2G huge; mkdir d; mv huge d").await;
    let read = sandbox.read(path("d/huge")).await;
    let error = wrong
        .check(
            &sandbox,
            read,
            ErrorKind::LimitExceeded,
            &["/workspace/d/huge"],
        )
        .await;
    let limit = ReadOptions::new().limit.to_string();
    let states = error.is_none_or(|error| error.to_string().contains(&limit));
    assert!(states, "it does not state the limit of {limit}");
    let to = tempfile::tempdir().expect("a directory");
    let target = to.path().join("out");
    let options = ExportOptions::new().max_bytes(1 << 20);
    let export = sandbox.export_dir(&path("d"), &target, options).await;
    wrong
        .check(
            &sandbox,
            export,
            ErrorKind::LimitExceeded,
            &["/workspace/d", "1048576", "max_bytes"],
        )
        .await;
    assert_eq!(
        fs::read_dir(to.path()).expect("list").count(),
        0,
        "nothing landed"
    );
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn transfers_that_can_not_be() {
    let (sandbox, wrong) = (support::default().await, Wrong::default());
    sh(&sandbox, "mkdir dir; echo x > dir/x; echo x > file").await;
    let host = tempfile::tempdir().expect("a directory");
    let missing = host.path().join("missing");
    let import = async |from: &Path| sandbox.import(from, path("in")).await;
    let shown = missing.to_string_lossy().into_owned();
    wrong
        .check(
            &sandbox,
            import(&missing).await,
            ErrorKind::NotFound,
            &[&shown],
        )
        .await;
    let file = host.path().join("file");
    fs::write(&file, "x").expect("a file");
    wrong
        .check(
            &sandbox,
            import(&file).await,
            ErrorKind::NotADirectory,
            &["/file"],
        )
        .await;
    let tree = host.path().join("tree");
    fs::create_dir(&tree).expect("a directory");
    fs::write(tree.join("good"), "x").expect("a file");
    fs::write(tree.join("secret"), "x").expect("a file");
    fs::set_permissions(tree.join("secret"), fs::Permissions::from_mode(0o000)).expect("chmod");
    if is_root() {
        import(&tree).await.expect("root may read it");
    } else {
        let strict = ImportOptions::new().unreadable(Unreadable::Fail);
        wrong
            .check(
                &sandbox,
                sandbox.import_dir(&tree, &path("in"), strict).await,
                ErrorKind::PermissionDenied,
                &["tree/secret"],
            )
            .await;
        assert!(sandbox.stat("in/good").await.is_err(), "all or nothing");
        let report = import(&tree).await.expect("the rest is imported");
        assert_eq!((report.files, report.skipped_total), (1, 1));
        assert_eq!(report.skipped[0].path, path("secret"));
    }
    let export = async |from: &str, to: &Path| sandbox.export(path(from), to).await;
    let out = host.path().join("out");
    wrong
        .check(
            &sandbox,
            export("missing", &out).await,
            ErrorKind::NotFound,
            &["/workspace/missing"],
        )
        .await;
    wrong
        .check(
            &sandbox,
            export("file", &out).await,
            ErrorKind::NotADirectory,
            &["/workspace/file"],
        )
        .await;
    assert!(!out.exists());
    wrong
        .check(
            &sandbox,
            export("dir", &tree).await,
            ErrorKind::AlreadyExists,
            &["/tree"],
        )
        .await;
    let nowhere = host.path().join("no/where");
    wrong
        .check(
            &sandbox,
            export("dir", &nowhere).await,
            ErrorKind::NotFound,
            &["no/where"],
        )
        .await;
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn a_full_disk() {
    let spec = SandboxSpec::new().resources(Resources::new().disk(4 << 20));
    let (sandbox, wrong) = (support::create(spec).await, Wrong::default());
    let host = tempfile::tempdir().expect("a directory");
    fs::create_dir(host.path().join("tree")).expect("a directory");
    fs::write(host.path().join("tree/large"), vec![1; 6 << 20]).expect("a file");
    let batch = FileBatch::new().file("large", vec![1; 6 << 20]);
    let written = sandbox.write_files(batch).await;
    wrong
        .check(
            &sandbox,
            written,
            ErrorKind::StorageFull,
            &["/workspace/large"],
        )
        .await;
    let tree = host.path().join("tree");
    let imported = sandbox.import(&tree, path("in")).await;
    wrong
        .check(&sandbox, imported, ErrorKind::StorageFull, &["large"])
        .await;
    let full = sandbox
        .exec(Command::shell("cat /dev/zero > fill"))
        .await
        .expect("it runs");
    assert!(!full.success());
    assert!(
        full.stderr.to_string_lossy().contains("No space left"),
        "{full:?}"
    );
    // On a full disk, looking, removing and closing still work.
    sandbox
        .remove(&path("fill"), RemoveOptions::new())
        .await
        .expect("removed");
    sandbox
        .write_files(FileBatch::new().file("small", "x"))
        .await
        .expect("room again");
    sandbox.close().await.expect("close");
}
