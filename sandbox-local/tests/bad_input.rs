//! What can't be: each a typed error that names the thing and the remedy, and the sandbox is
//! usable afterwards.
#![cfg(target_os = "linux")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, helpers too"
)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sandbox_core::{
    Command, CreateDirOptions, Env, Error, ErrorKind, ExportOptions, FileBatch, ForkOptions,
    GuestPath, ImportOptions, ListOptions, Mount, Operation, Provider, Ran, ReadOptions,
    RemoveOptions, RenameOptions, Resources, Sandbox, SandboxSpec, SnapshotOptions, Source,
};
use sandbox_local::LocalProvider;
use support::{is_root, sh};

/// What an error should have been and was not, all of it at once.
#[derive(Default)]
struct Wrong(std::cell::RefCell<Vec<String>>);

impl Wrong {
    /// Checks what an error says, and that the sandbox works still.
    async fn check<T>(
        &self,
        sandbox: &Arc<dyn Sandbox>,
        result: Result<T, Error>,
        kind: ErrorKind,
        words: &[&str],
    ) -> Option<Error> {
        let id = sandbox.info().id.to_string();
        let error = match result {
            Ok(_) => {
                self.0
                    .borrow_mut()
                    .push(format!("{kind:?} {words:?}: went through"));
                return None;
            }
            Err(error) => error,
        };
        let text = error.to_string();
        let said = words.iter().all(|word| text.contains(word)) && text.contains(&id);
        if error.kind() != kind || !said {
            self.0
                .borrow_mut()
                .push(format!("{kind:?} {words:?}: {:?}: {text}", error.kind()));
        }
        assert_eq!(
            sh(sandbox, "echo usable").await,
            "usable\n",
            "after: {text}"
        );
        Some(error)
    }
}

impl Drop for Wrong {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let wrong = self.0.take();
            assert!(wrong.is_empty(), "{wrong:#?}");
        }
    }
}

fn path(text: &str) -> GuestPath {
    GuestPath::from(text)
}

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
    let read = async |name: &str| sandbox.read_file(&path(name), ReadOptions::default()).await;
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
    let list = sandbox
        .list_dir(&path("file"), ListOptions::default())
        .await;
    wrong
        .check(
            &sandbox,
            list,
            ErrorKind::NotADirectory,
            &["/workspace/file"],
        )
        .await;
    let list = sandbox
        .list_dir(&path("closed"), ListOptions::default())
        .await;
    wrong
        .check(
            &sandbox,
            list,
            ErrorKind::PermissionDenied,
            &["/workspace/closed"],
        )
        .await;
    let metadata = sandbox.metadata(&path("file/x")).await;
    wrong
        .check(
            &sandbox,
            metadata,
            ErrorKind::NotADirectory,
            &["/workspace/file/x"],
        )
        .await;
    let remove = sandbox.remove(&path("dir"), RemoveOptions::default()).await;
    wrong
        .check(
            &sandbox,
            remove,
            ErrorKind::DirectoryNotEmpty,
            &["/workspace/dir"],
        )
        .await;
    let remove = sandbox
        .remove(&path("/"), RemoveOptions::default().recursive())
        .await;
    wrong
        .check(&sandbox, remove, ErrorKind::InvalidInput, &["root"])
        .await;
    for mounted in ["/proc", "/dev", "/usr"] {
        let remove = sandbox
            .remove(&path(mounted), RemoveOptions::default().recursive())
            .await;
        wrong
            .check(&sandbox, remove, ErrorKind::Busy, &[mounted, "mounted"])
            .await;
    }
    let create = sandbox
        .create_dir(&path("file"), CreateDirOptions::default())
        .await;
    wrong
        .check(
            &sandbox,
            create,
            ErrorKind::AlreadyExists,
            &["/workspace/file"],
        )
        .await;
    let rename = sandbox
        .rename(&path("file"), &path("dir/full/x"), RenameOptions::default())
        .await;
    wrong
        .check(
            &sandbox,
            rename,
            ErrorKind::AlreadyExists,
            &["dir/full/x", "replace"],
        )
        .await;
    let rename = sandbox
        .rename(&path("dir"), &path("dir/in"), RenameOptions::default())
        .await;
    wrong
        .check(&sandbox, rename, ErrorKind::InvalidInput, &["into itself"])
        .await;
    for (to, kind) in [
        ("missing", ErrorKind::NotFound),
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
        assert!(sandbox.metadata(&path("good")).await.is_err());
    }
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn two_gigabytes_are_refused_and_not_read() {
    let (sandbox, wrong) = (support::default().await, Wrong::default());
    sh(&sandbox, "truncate -s 2G huge; mkdir d; mv huge d").await;
    let read = sandbox
        .read_file(&path("d/huge"), ReadOptions::default())
        .await;
    let error = wrong
        .check(
            &sandbox,
            read,
            ErrorKind::LimitExceeded,
            &["/workspace/d/huge"],
        )
        .await;
    let limit = ReadOptions::default().limit.to_string();
    let states = error.is_none_or(|error| error.to_string().contains(&limit));
    assert!(states, "it does not state the limit of {limit}");
    let to = tempfile::tempdir().expect("a directory");
    let target = to.path().join("out");
    let options = ExportOptions::default().with_max_bytes(1 << 20);
    let export = sandbox.export_dir(&path("d"), &target, options).await;
    wrong
        .check(
            &sandbox,
            export,
            ErrorKind::LimitExceeded,
            &["huge", "1048576"],
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
    let import = async |from: &Path| {
        sandbox
            .import_dir(from, &path("in"), ImportOptions::default())
            .await
    };
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
    fs::set_permissions(tree.join("secret"), fs::Permissions::from_mode(0)).expect("chmod");
    if is_root() {
        import(&tree).await.expect("root may read it");
    } else {
        wrong
            .check(
                &sandbox,
                import(&tree).await,
                ErrorKind::PermissionDenied,
                &["tree/secret"],
            )
            .await;
        assert!(
            sandbox.metadata(&path("in/good")).await.is_err(),
            "all or nothing"
        );
    }
    let export = async |from: &str, to: &Path| {
        sandbox
            .export_dir(&path(from), to, ExportOptions::default())
            .await
    };
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
    let spec = SandboxSpec::new().with_resources(Resources::none().with_disk(4 << 20));
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
    let imported = sandbox
        .import_dir(&tree, &path("in"), ImportOptions::default())
        .await;
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
    // A full disk keeps nobody from looking, removing and closing.
    sandbox
        .remove(&path("fill"), RemoveOptions::default())
        .await
        .expect("removed");
    sandbox
        .write_files(FileBatch::new().file("small", "x"))
        .await
        .expect("room again");
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn specs_that_can_not_be() {
    let provider = LocalProvider::new().expect("a provider");
    let host = tempfile::tempdir().expect("a directory");
    let file = host.path().join("file");
    fs::write(&file, "x").expect("a file");
    let missing = host.path().join("missing");
    let new = SandboxSpec::new;
    let root = |path: &Path| new().with_source(Source::RootDir(path.into()));
    let mount = |guest: &str| new().with_mount(Mount::read_only(host.path(), guest));
    let cases = [
        (
            new().with_workdir("here"),
            ErrorKind::InvalidInput,
            "workdir",
        ),
        (new().with_workdir("/a\0b"), ErrorKind::InvalidInput, "NUL"),
        (
            new().with_env("A=B", "c"),
            ErrorKind::InvalidInput,
            "variable",
        ),
        (
            new().with_ttl(Duration::ZERO),
            ErrorKind::InvalidInput,
            "ttl",
        ),
        (
            new().with_resources(Resources::none().with_pids(0)),
            ErrorKind::InvalidInput,
            "pids",
        ),
        (
            new().with_resources(Resources::none().with_cpus(-1.0)),
            ErrorKind::InvalidInput,
            "cpus",
        ),
        (new().with_label("", "x"), ErrorKind::InvalidInput, "label"),
        (
            new().with_source(Source::Image("alpine".into())),
            ErrorKind::Unsupported,
            "image",
        ),
        (
            new().with_source(Source::RootDir("x".into())),
            ErrorKind::InvalidInput,
            "relative",
        ),
        (root(&missing), ErrorKind::NotFound, "missing"),
        (root(&file), ErrorKind::NotADirectory, "/file"),
        (
            new().with_mount(Mount::read_only("x", "/x")),
            ErrorKind::InvalidInput,
            "host path",
        ),
        (
            new().with_mount(Mount::read_only(&missing, "/x")),
            ErrorKind::NotFound,
            "missing",
        ),
        (mount("x"), ErrorKind::InvalidInput, "mount"),
        (mount("/"), ErrorKind::InvalidInput, "sandbox's own"),
        (mount("/proc"), ErrorKind::InvalidInput, "/proc"),
        (mount("/dev/shm"), ErrorKind::InvalidInput, "/dev/shm"),
        (mount("/a/../dev"), ErrorKind::InvalidInput, "/dev"),
        (mount("/proc/x"), ErrorKind::InvalidInput, "/proc/x"),
        (mount("/dev/null"), ErrorKind::InvalidInput, "/dev/null"),
        (
            mount("/usr/no-such-place"),
            ErrorKind::InvalidInput,
            "/usr/no-such-place",
        ),
        (mount("/a\0b"), ErrorKind::InvalidInput, "NUL"),
        (mount("/usr/bin/sh"), ErrorKind::InvalidInput, "/usr/bin/sh"),
        (
            new().with_workdir("/usr/new"),
            ErrorKind::ReadOnly,
            "/usr/new",
        ),
        (
            new().with_workdir("/etc/passwd"),
            ErrorKind::AlreadyExists,
            "/etc/passwd",
        ),
    ];
    let mut wrong = Vec::new();
    for (spec, kind, word) in cases {
        let said = format!("{kind:?} {word}: {:?} {:?}", spec.mounts, spec.source);
        match provider.create(spec).await {
            Ok(_) => wrong.push(format!("{said}: went through")),
            Err(error) => {
                let right = error.kind() == kind && error.operation() == Operation::Create;
                if !right || !error.to_string().contains(word) {
                    wrong.push(format!("{said}: {:?}: {error}", error.kind()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let list = provider
        .list(&sandbox_core::Labels::default())
        .await
        .expect("a list");
    assert!(list.is_empty(), "nothing was made");
    let sandbox = provider
        .create(new())
        .await
        .expect("the provider is usable");
    sandbox.close().await.expect("close");
}

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
