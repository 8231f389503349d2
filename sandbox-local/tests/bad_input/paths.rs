//! Paths and batches of files that can not be.

use sandbox_core::{Env, ErrorKind, FileBatch, GuestUser, RemoveOptions, SandboxExt, SandboxSpec};

use crate::{
    Wrong, path,
    support::{self, sh},
};

#[tokio::test]
async fn paths_that_can_not_be() {
    let (sandbox, wrong) = (support::default().await, Wrong::default());
    sh(
        &sandbox,
        "echo x > file; mkdir -p dir/full; touch dir/full/x; mkfifo fifo; mkdir -m 000 closed; \
         echo x > unreadable; chmod 000 unreadable; ln -s loop loop; ln -s /nowhere dangling",
    )
    .await;
    let long = "n".repeat(300);
    let read = async |name: &str| sandbox.read(path(name)).await;
    for (name, kind, word) in [
        ("missing", ErrorKind::NotFound, "/workspace/missing"),
        ("dangling", ErrorKind::NotFound, "/workspace/dangling"),
        ("dir", ErrorKind::IsADirectory, "/workspace/dir"),
        (
            "file/below",
            ErrorKind::NotADirectory,
            "/workspace/file/below",
        ),
        ("fifo", ErrorKind::NotARegularFile, "/workspace/fifo"),
        ("/dev/null", ErrorKind::NotARegularFile, "/dev/null"),
        (
            "unreadable",
            ErrorKind::PermissionDenied,
            "/workspace/unreadable",
        ),
        (
            "closed/x",
            ErrorKind::PermissionDenied,
            "/workspace/closed/x",
        ),
        ("loop", ErrorKind::InvalidInput, "too many symbolic links"),
        (&long, ErrorKind::InvalidInput, "name is too long"),
        ("a\0b", ErrorKind::InvalidInput, "NUL"),
    ] {
        wrong.check(&sandbox, read(name).await, kind, &[word]).await;
    }
    let list = sandbox.list(path("file")).await;
    wrong
        .check(
            &sandbox,
            list,
            ErrorKind::NotADirectory,
            &["/workspace/file"],
        )
        .await;
    let list = sandbox.list(path("closed")).await;
    wrong
        .check(
            &sandbox,
            list,
            ErrorKind::PermissionDenied,
            &["/workspace/closed"],
        )
        .await;
    let metadata = sandbox.stat("file/x").await;
    wrong
        .check(
            &sandbox,
            metadata,
            ErrorKind::NotADirectory,
            &["/workspace/file/x"],
        )
        .await;
    let remove = sandbox.remove(&path("dir"), RemoveOptions::new()).await;
    wrong
        .check(
            &sandbox,
            remove,
            ErrorKind::DirectoryNotEmpty,
            &["/workspace/dir"],
        )
        .await;
    let remove = sandbox.remove_all(path("/")).await;
    wrong
        .check(&sandbox, remove, ErrorKind::InvalidInput, &["root"])
        .await;
    for mounted in ["/proc", "/dev", "/usr"] {
        let remove = sandbox.remove_all(path(mounted)).await;
        wrong
            .check(&sandbox, remove, ErrorKind::Busy, &[mounted, "mounted"])
            .await;
    }
    let create = sandbox.create_dir_all(path("file")).await;
    wrong
        .check(
            &sandbox,
            create,
            ErrorKind::AlreadyExists,
            &["/workspace/file"],
        )
        .await;
    let rename = sandbox.move_to(path("file"), path("dir/full/x")).await;
    wrong
        .check(
            &sandbox,
            rename,
            ErrorKind::AlreadyExists,
            &["dir/full/x", "replace"],
        )
        .await;
    let rename = sandbox.move_to(path("dir"), path("dir/in")).await;
    wrong
        .check(&sandbox, rename, ErrorKind::InvalidInput, &["into itself"])
        .await;
    for (to, kind) in [
        ("missing", ErrorKind::NotFound),
        ("dangling", ErrorKind::NotFound),
        ("file", ErrorKind::NotADirectory),
        ("closed", ErrorKind::PermissionDenied),
    ] {
        let result = sandbox.set_workdir(&path(to)).await;
        wrong
            .check(&sandbox, result, kind, &["/workspace/", to])
            .await;
    }
    let result = sandbox.set_env(Env::new().set("A=B", "c")).await;
    wrong
        .check(&sandbox, result, ErrorKind::InvalidInput, &["variable"])
        .await;
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn batches_that_can_not_be_leave_nothing() {
    let (sandbox, wrong) = (support::default().await, Wrong::default());
    sh(
        &sandbox,
        "echo x > file; mkdir dir; mkdir -m 555 fixed; ln -s /proc/self p",
    )
    .await;
    let before = sh(&sandbox, "ls -lAR --time-style=full-iso").await;
    for (name, kind, word) in [
        ("dir", ErrorKind::IsADirectory, "/workspace/dir"),
        (
            "file/below",
            ErrorKind::NotADirectory,
            "/workspace/file/below",
        ),
        (
            "fixed/new",
            ErrorKind::PermissionDenied,
            "/workspace/fixed/new",
        ),
        ("a\0b", ErrorKind::InvalidInput, "NUL"),
        ("", ErrorKind::InvalidInput, "file"),
        ("/", ErrorKind::InvalidInput, "/"),
        (
            &"n".repeat(300),
            ErrorKind::InvalidInput,
            "name is too long",
        ),
    ] {
        let batch = FileBatch::new()
            .file("good", "x")
            .file(name, "y")
            .file("deep/good", "z");
        wrong
            .check(&sandbox, sandbox.write_files(batch).await, kind, &[word])
            .await;
        assert_eq!(
            sh(&sandbox, "ls -lAR --time-style=full-iso").await,
            before,
            "{name}"
        );
    }
    let batch = FileBatch::new().file("twice", "x").file("./twice", "y");
    wrong
        .check(
            &sandbox,
            sandbox.write_files(batch).await,
            ErrorKind::InvalidInput,
            &["twice"],
        )
        .await;
    for name in ["/proc/x", "/dev/x", "/usr/x", "/etc/../usr/bin/sh"] {
        let batch = FileBatch::new().file("good", "x").file(name, "y");
        let error = sandbox.write_files(batch).await.expect_err(name);
        let denied = [
            ErrorKind::ReadOnly,
            ErrorKind::PermissionDenied,
            ErrorKind::NotFound,
        ];
        assert!(denied.contains(&error.kind()), "{error}");
        assert!(sandbox.stat("good").await.is_err());
    }
    sandbox.close().await.expect("close");
}

/// Commands of root are stopped by no mode of their own files; the API acts as the files' owner.
#[tokio::test]
async fn for_the_api_a_mode_that_shuts_the_owner_out_holds_in_roots_sandbox_too() {
    let sandbox = support::create(SandboxSpec::new().user(GuestUser::Root)).await;
    let script = "echo x > f; chmod 000 f; mkdir d; echo y > d/g; chmod 000 d; cat f d/g";
    assert_eq!(sh(&sandbox, script).await, "x\ny\n", "the control");
    for shut in ["f", "d/g"] {
        let error = sandbox.read(shut).await.map(drop).expect_err(shut);
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        assert!(error.to_string().contains(&format!("/workspace/{shut}")));
    }
    let error = sandbox.write("d/new", "x").await.expect_err("it is shut");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    sh(&sandbox, "chmod 600 f; chmod 700 d").await;
    assert_eq!(sandbox.read_to_string("f").await.expect("open"), "x\n");
    assert_eq!(sandbox.read_to_string("d/g").await.expect("open"), "y\n");
    sandbox.close().await.expect("close");
}
