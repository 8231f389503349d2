//! Plain mode through its public API: what it does, what it refuses, what it leaves behind.
#![cfg(unix)]
#![allow(clippy::unwrap_used)] // A test fails by panicking, in its helpers too.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sandbox_core::{
    Capability, Command, Control, ErrorKind, Execution, FileBatch, GuestPath, ImportOptions, Mode,
    Mount, Network, Provider, RequiredIsolation, Resources, Sandbox, SandboxExt, SandboxSpec,
    Signal, Source,
};
use sandbox_local::{PlainConfig, PlainProvider};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn spec() -> SandboxSpec {
    SandboxSpec::new().network(Network::Open)
}

async fn sandbox() -> Arc<dyn Sandbox> {
    let provider = PlainProvider::new(PlainConfig::default()).unwrap();
    provider.create(spec()).await.unwrap()
}

fn root(sandbox: &dyn Sandbox) -> PathBuf {
    let workdir = sandbox.info().workdir;
    PathBuf::from(workdir.parent().unwrap().to_str().unwrap())
}

async fn eventually(what: &str, check: impl Fn() -> bool) {
    let started = Instant::now();
    while !check() {
        assert!(started.elapsed() < Duration::from_secs(120), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn alive(pid: &str) -> bool {
    // A zombie that is not waited for is dead too.
    std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
        .is_ok_and(|stat| !stat.contains(") Z "))
}

#[tokio::test]
async fn what_cannot_be_honoured_is_refused() {
    let provider = PlainProvider::new(PlainConfig::default()).expect("a provider");
    let unsupported = [
        SandboxSpec::new(),
        spec().resources(Resources::new().memory(1 << 30)),
        spec().resources(Resources::new().pids(8)),
        spec().mount(Mount::read_only("/usr", "/usr")),
        spec().source(Source::RootDir("/".into())),
        spec().source(Source::Image("alpine".into())),
        spec().ttl(Duration::from_secs(1)),
        spec().workdir("/workspace"),
    ];
    for spec in unsupported {
        let error = provider.create(spec.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{spec:?}");
    }
    let only = RequiredIsolation::Only(vec![Control::Filesystem]);
    let error = provider.create(spec().isolation(only)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Isolation);
    assert!(error.to_string().contains("filesystem"), "{error}");
    assert!(error.hint().is_some());
}

#[tokio::test]
async fn it_says_that_nothing_is_enforced() {
    let sandbox = sandbox().await;
    let report = sandbox.isolation().await.unwrap();
    for control in Control::ALL {
        assert!(report.get(*control).is_some(), "{control}");
        assert!(!report.is_enforced(*control), "{control}");
    }
    assert!(!sandbox.capabilities().has(Capability::Isolation));
    sandbox.close().await.unwrap();
}

#[tokio::test]
async fn a_command_gets_its_arguments_and_nothing_of_the_host() {
    let sandbox = sandbox().await;
    let command = Command::new("/bin/sh")
        .args(["-c", "printf '%s|' \"$@\"; env; echo e >&2; exit 7", "sh"])
        .args(["a b", "$x", "`y`", "z\n"])
        .env("LINE", "1=2\n3");
    let output = sandbox.exec(command).await.unwrap();
    let stdout = output.stdout.to_string_lossy().into_owned();
    assert!(stdout.starts_with("a b|$x|`y`|z\n|"), "{stdout}");
    assert!(stdout.contains("LINE=1=2\n3\n"), "{stdout}");
    assert!(!stdout.contains("CARGO"), "{stdout}");
    assert_eq!(output.stderr.bytes, "e\n");
    assert_eq!(output.status.code(), Some(7));
    let output = sandbox
        .exec(Command::new("cat").stdin(vec![b'x'; 1 << 20]))
        .await
        .unwrap();
    assert_eq!(output.stdout.total, 1 << 20);
    let output = sandbox.sh("kill -TERM $$").await.unwrap();
    assert_eq!(output.status.signal(), Some(15));
    sandbox.close().await.unwrap();
}

#[tokio::test]
async fn what_does_not_start_says_so() {
    let sandbox = sandbox().await;
    sandbox
        .write_files(
            FileBatch::new()
                .file("data", "x")
                .file_with_mode("script", "#!/no/such\n", Mode::EXECUTABLE)
                .file_with_mode("garbage", "\x7fELF", Mode::EXECUTABLE),
        )
        .await
        .unwrap();
    for (command, kind) in [
        (Command::new("no-such-program"), ErrorKind::CommandNotFound),
        (Command::new("./nothing"), ErrorKind::CommandNotFound),
        (Command::new("./data"), ErrorKind::NotExecutable),
        (Command::new("./script"), ErrorKind::NotExecutable),
        (Command::new("./garbage"), ErrorKind::NotExecutable),
        (Command::new("true").cwd("nowhere"), ErrorKind::NotFound),
        (Command::new("true").cwd("data"), ErrorKind::NotADirectory),
        (Command::new("true").user("nobody"), ErrorKind::Unsupported),
        (
            Command::new("true").args(vec!["x".repeat(1 << 17); 64]),
            ErrorKind::LimitExceeded,
        ),
    ] {
        let error = sandbox.exec(command).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(error.execution(), Some(Execution::NotStarted), "{error}");
        assert!(error.sandbox().is_some(), "{error}");
    }
    sandbox.close().await.unwrap();
}

#[tokio::test]
async fn a_program_that_is_still_open_for_writing_is_waited_for_and_no_longer_than_a_moment() {
    let sandbox = sandbox().await;
    let program = FileBatch::new().file_with_mode("x", "#!/bin/sh\necho ran\n", Mode::EXECUTABLE);
    sandbox.write_files(program).await.unwrap();
    let file = PathBuf::from(sandbox.info().workdir.to_str().unwrap()).join("x");
    let hold = || std::fs::File::options().append(true).open(&file).unwrap();
    let mut waited = None;
    // Once is enough; but a machine may be too busy to let go within the moment.
    for _ in 0..5 {
        let held = hold();
        let (ran, ()) = tokio::join!(sandbox.exec(Command::new("./x")), async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            drop(held);
        });
        waited = Some(ran);
        if matches!(waited, Some(Ok(_))) {
            break;
        }
    }
    assert_eq!(waited.unwrap().unwrap().stdout.bytes, "ran\n");
    let _held = hold();
    let error = sandbox.exec(Command::new("./x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    assert_eq!(error.execution(), Some(Execution::NotStarted), "{error}");
    assert!(error.hint().is_some());
    sandbox.close().await.unwrap();
}

#[tokio::test]
async fn a_timeout_kills_the_group_and_keeps_the_output() {
    let sandbox = sandbox().await;
    let started = Instant::now();
    let command = Command::shell("sleep 600 & echo $!; sleep 600");
    let error = sandbox
        .exec(command.timeout(Duration::from_secs(3)))
        .await
        .unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(120));
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(error.execution(), Some(Execution::Interrupted));
    let pid = error.partial_output().unwrap().stdout.to_string_lossy();
    assert!(!pid.is_empty(), "it has said whom it started");
    eventually("the child is dead", || !alive(&pid)).await;
    sandbox.close().await.unwrap();
}

#[tokio::test]
async fn a_grandchild_does_not_hold_the_output_and_dies_with_the_sandbox() {
    let sandbox = sandbox().await;
    let started = Instant::now();
    for script in ["sleep 600 & echo $!", "yes 2>/dev/null & echo $!"] {
        let output = sandbox.sh(script).await.unwrap();
        assert!(started.elapsed() < Duration::from_secs(120), "{script}");
        if script.starts_with("sleep") {
            let pid = output.stdout.to_string_lossy().into_owned();
            assert!(alive(&pid));
            sandbox.write("pid", pid).await.unwrap();
        }
    }
    let pid = sandbox.read_to_string("pid").await.unwrap();
    sandbox.close().await.unwrap();
    eventually("the background process is dead", || !alive(&pid)).await;
}

#[tokio::test]
async fn a_spawned_command_streams_takes_input_and_signals() {
    let sandbox = sandbox().await;
    let mut process = sandbox
        .spawn(Command::new("cat").stdin_piped())
        .await
        .unwrap();
    let mut stdin = process.stdin.take().unwrap();
    let stdout = process.stdout.as_mut().unwrap();
    stdin.write_all(b"one").await.unwrap();
    let mut buffer = [0; 3];
    stdout.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"one");
    process.signal(Signal::USER_1).await.unwrap();
    let exit = process.wait().await.unwrap();
    assert_eq!(exit.status.signal(), Some(10));
    process.kill().await.unwrap();
    process.signal(Signal::TERMINATE).await.unwrap();

    let mut process = sandbox
        .spawn(Command::shell("echo $$; sleep 60"))
        .await
        .unwrap();
    let mut pid = [0; 16];
    let read = process
        .stdout
        .as_mut()
        .unwrap()
        .read(&mut pid)
        .await
        .unwrap();
    let pid = String::from_utf8_lossy(&pid[..read]).into_owned();
    drop(process);
    eventually("the dropped command is dead", || !alive(&pid)).await;
    sandbox.close().await.unwrap();
}

#[tokio::test]
async fn a_batch_is_written_whole_or_not_at_all() {
    let sandbox = sandbox().await;
    sandbox.write("old", "old").await.unwrap();
    sandbox
        .write_files(FileBatch::new().file_with_mode("bin/x", "", Mode::new(0o700)))
        .await
        .unwrap();
    let batch = FileBatch::new()
        .file("old", "new")
        .file("deep/er/new", "x")
        .new_file("bin/x", "y");
    let error = sandbox.write_files(batch).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    // A dangling link among the parents is found only when the others are in place.
    sandbox.sh("ln -s nowhere dangling").await.unwrap();
    let batch = FileBatch::new()
        .file("a/b/c", "x")
        .file("old", "new")
        .file("dangling/x", "y");
    let error = sandbox.write_files(batch).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotADirectory, "{error}");
    assert_eq!(sandbox.read("old").await.unwrap(), "old");
    assert!(!sandbox.exists("deep").await.unwrap());
    assert!(!sandbox.exists("a").await.unwrap());
    let mode = sandbox.stat("bin/x").await.unwrap().mode;
    assert_eq!(mode, Mode::new(0o700));
    let error = sandbox.write("bin", "x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::IsADirectory);
    assert_eq!(sandbox.list(".").await.unwrap().len(), 3);
    sandbox.close().await.unwrap();
}

#[tokio::test]
async fn paths_stay_in_the_sandbox() {
    let sandbox = sandbox().await;
    sandbox
        .sh("ln -s /etc out; ln -s /etc/passwd pw; mkfifo ff")
        .await
        .unwrap();
    for path in ["/etc/passwd", "../../../../etc/passwd", "pw", "out/passwd"] {
        let error = sandbox.read(path).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{path}");
    }
    let error = sandbox.write("out/x", "").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(error.hint().is_some());
    let error = sandbox.read("ff").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotARegularFile);
    let error = sandbox.remove_all("/").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    sandbox.remove_all("out").await.unwrap();
    sandbox.close().await.unwrap();
}

#[tokio::test]
async fn a_fork_is_a_copy_with_its_own_home() {
    let parent = sandbox().await;
    parent
        .sh("mkdir d; echo 1 >d/f; ln -s $PWD/d abs")
        .await
        .unwrap();
    parent.set_workdir(&"d".into()).await.unwrap();
    parent
        .set_env(sandbox_core::Env::new().set("X", "y"))
        .await
        .unwrap();
    let child = parent.fork_one().await.unwrap();
    parent.write("f", "parent").await.unwrap();
    let output = child.sh("cat f ../abs/f; echo $X $HOME").await.unwrap();
    let home = root(&*child).join("../home");
    let home = home.canonicalize().unwrap_or(home);
    let stdout = output.stdout.to_string_lossy().into_owned();
    assert_eq!(stdout, format!("1\n1\ny {}\n", home.display()));
    assert_eq!(child.info().parent, Some(parent.info().id));
    parent.close().await.unwrap();
    assert_eq!(child.read("f").await.unwrap(), "1\n");
    child.close().await.unwrap();
}

#[tokio::test]
async fn import_and_export_carry_a_tree_and_leave_out_what_is_asked() {
    let host = tempfile::tempdir().unwrap();
    let from = host.path().join("from");
    for (path, text) in [
        ("a", "a"),
        ("d/b", "b"),
        ("d/skip.o", ""),
        ("ignored", ""),
        (".gitignore", "ignored\n"),
    ] {
        let path = from.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    std::os::unix::fs::symlink("d/b", from.join("link")).unwrap();
    let sandbox = sandbox().await;
    let options = ImportOptions::new()
        .ignore_files(true)
        .exclude("*.o")
        .mirror(true);
    let to = GuestPath::from("in");
    let report = sandbox
        .import_dir(&from, &to, options.clone())
        .await
        .unwrap();
    assert_eq!(
        (report.files, report.directories, report.symlinks),
        (3, 1, 1)
    );
    assert!(!sandbox.exists("in/ignored").await.unwrap());
    assert!(!sandbox.exists("in/d/skip.o").await.unwrap());
    sandbox.write("in/d/keep.o", "").await.unwrap();
    std::fs::remove_file(from.join("d/b")).unwrap();
    let report = sandbox.import_dir(&from, &to, options).await.unwrap();
    assert_eq!(report.removed, 1);
    assert!(sandbox.exists("in/d/keep.o").await.unwrap());

    sandbox
        .sh("cd in; mkfifo p; ln -s /etc/passwd abs; ln -s ../../.. up; chmod 4755 a")
        .await
        .unwrap();
    let out = host.path().join("out");
    let report = sandbox.export(&to, &out).await.unwrap();
    assert_eq!(report.skipped_total, 3);
    assert_eq!(std::fs::read(out.join("a")).unwrap(), b"a");
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(out.join("a")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o7777, 0o755);
    let error = sandbox.export(&to, &out).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read_dir(host.path()).unwrap().count(), 2);
    sandbox.close().await.unwrap();
}

#[tokio::test]
async fn closing_kills_removes_and_is_told_to_later_calls() {
    let sandbox = sandbox().await;
    let dir = root(&*sandbox);
    sandbox.sh("mkdir -p x/y; chmod 0 x").await.unwrap();
    let running = tokio::spawn({
        let sandbox = Arc::clone(&sandbox);
        async move { sandbox.sh("echo said; : >started; sleep 60").await }
    });
    let begun = PathBuf::from(sandbox.info().workdir.to_str().unwrap()).join("started");
    eventually("the command has said it", || begun.exists()).await;
    sandbox.close().await.unwrap();
    sandbox.close().await.unwrap();
    assert!(!dir.exists());
    let error = running.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert_eq!(error.partial_output().unwrap().stdout.bytes, "said\n");
    assert_eq!(
        sandbox.sh("true").await.unwrap_err().kind(),
        ErrorKind::Closed
    );
    assert_eq!(
        sandbox.read("x").await.unwrap_err().kind(),
        ErrorKind::Closed
    );
}

#[tokio::test]
async fn dropping_the_last_handle_leaves_nothing() {
    let sandbox = sandbox().await;
    let dir = root(&*sandbox);
    let output = sandbox.sh("sleep 60 & echo $!").await.unwrap();
    let pid = output.stdout.to_string_lossy().into_owned();
    drop(sandbox);
    eventually("the process is dead", || !alive(&pid)).await;
    eventually("the directory is gone", || !dir.exists()).await;
}

/// As under nohup(1), and as a shell's background command.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_the_host_ignores_a_command_does_not() {
    const AGAIN: &str = "SANDBOX_TEST_IGNORING_HOST";
    if std::env::var_os(AGAIN).is_none() {
        let again = std::process::Command::new("sh")
            .args(["-c", r#"trap "" HUP INT TERM USR1; exec "$0" "$@""#])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "what_the_host_ignores_a_command_does_not"])
            .env(AGAIN, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&again.stdout);
        assert!(
            again.status.success() && said.contains("1 passed"),
            "{said}"
        );
        return;
    }
    let sandbox = sandbox().await;
    let ignored = sandbox.sh("grep SigIgn /proc/self/status").await.unwrap();
    assert_eq!(
        ignored.stdout.to_string_lossy(),
        "SigIgn:\t0000000000000000\n"
    );
    // Nothing else is different: what the kernel can't execute is not given to a shell.
    let batch = FileBatch::new().file_with_mode("f", "\x7fELF\n touch ran\n", Mode::EXECUTABLE);
    sandbox.write_files(batch).await.unwrap();
    let error = sandbox.exec(Command::new("./f")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotExecutable);
    assert!(!sandbox.exists("ran").await.unwrap());
    sandbox.close().await.unwrap();
}
