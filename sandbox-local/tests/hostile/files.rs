//! Files that are no files, that never end, or that are too many (C 26–29, 31).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use sandbox_core::{
    Command, ErrorKind, ExportOptions, GuestPath, ListOptions, Provider, ReadOptions, SandboxExt,
    SandboxSpec,
};

use crate::{host, support};

/// Time that an operation must not exceed, whatever a guest does.
const AT_ONCE: Duration = Duration::from_secs(120);

#[tokio::test]
async fn what_is_no_regular_file_is_an_error_at_once() {
    let _turn = host::alone().await;
    let sandbox = host::guest().await;
    let made = host::inside(&sandbox, "layers", &["special"]).await;
    assert_eq!((made.get("fifo"), made.get("socket")), ("ok", "ok"));
    let not_regular = [
        "fifo",
        "socket",
        "/dev/zero",
        "/dev/null",
        "/dev/random",
        "/dev/tty",
        "/proc/self/mem",
        "/proc/1/environ",
        "/proc/kmsg",
        "/proc/self/maps",
        "/proc/version",
    ];
    for path in not_regular {
        let before = Instant::now();
        let error = sandbox.read(path).await.expect_err(path);
        let kinds = [
            ErrorKind::NotARegularFile,
            ErrorKind::PermissionDenied,
            ErrorKind::NotFound,
        ];
        assert!(kinds.contains(&error.kind()), "{path}: {error}");
        assert!(
            before.elapsed() < AT_ONCE,
            "{path} took {:?}",
            before.elapsed()
        );
    }
    for path in [
        "loop",
        "descriptor",
        "magic",
        "/proc/self/fd/0",
        "/proc/self/exe",
    ] {
        sandbox.read(path).await.expect_err(path);
    }
    // The control: what is one, is read, also by a link that stays inside.
    assert_eq!(sandbox.read("setuid").await.expect("read"), "");
    let passwd = sandbox.read("/etc/passwd").await.expect("read");
    for link in ["absolute", "outward"] {
        assert_eq!(
            sandbox.read(link).await.expect(link),
            passwd,
            "{link} stays inside"
        );
    }
    // What blocks its opener is not opened for writing either.
    let before = Instant::now();
    let error = sandbox.write("fifo", "x").await.expect_err("a FIFO");
    assert_eq!(error.kind(), ErrorKind::NotARegularFile);
    assert!(before.elapsed() < AT_ONCE);
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn huge_and_growing_files_are_bounded() {
    let _turn = host::alone().await;
    let sandbox = host::guest().await;
    host::inside(&sandbox, "layers", &["special"]).await;
    let resident = host::resident();
    let before = Instant::now();
    let error = sandbox.read("sparse").await.expect_err("1 TiB");
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    let unlimited = ReadOptions::new().limit(u64::MAX);
    let error = sandbox
        .read_file(&"sparse".into(), unlimited)
        .await
        .expect_err("1 TiB");
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
    assert!(before.elapsed() < AT_ONCE, "{:?}", before.elapsed());
    let growing = host::command("layers", &["grow", "growing", "60000"]);
    let running = sandbox.spawn(growing).await.expect("it grows");
    let limit = ReadOptions::new().limit(1 << 20);
    let (mut read, mut refused) = (0, 0);
    let before = Instant::now();
    while before.elapsed().as_secs() < 1 || refused == 0 && before.elapsed().as_secs() < 20 {
        match sandbox.read_file(&"growing".into(), limit.clone()).await {
            Ok(content) => {
                assert!(content.len() <= 1 << 20);
                read += 1;
            }
            Err(error) if error.kind() == ErrorKind::LimitExceeded => refused += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
        }
    }
    assert!(refused > 0, "no control: {read} reads, none too large");
    let grown = host::resident().saturating_sub(resident);
    assert!(grown < 64 << 20, "{grown} bytes more");
    running.kill().await.expect("kill");
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn an_export_carries_nothing_that_is_dangerous() {
    let _turn = host::shared().await;
    let sandbox = host::guest().await;
    let made = host::inside(&sandbox, "layers", &["special"]).await;
    for name in [
        "setuid", "hardlink", "absolute", "outward", "magic", "inside",
    ] {
        assert_eq!(made.get(name), "ok", "no control for {name}");
    }
    support::sh(&sandbox, "rm sparse && echo x >setuid && chmod 7755 setuid").await;
    let dir = host::public_dir();
    let to = dir.path().join("export");
    let report = sandbox.export(".", &to).await;
    let report = report.expect("the export");
    let mut skipped: Vec<String> = report.skipped.iter().map(|s| s.path.to_string()).collect();
    skipped.sort();
    assert_eq!(
        skipped,
        [
            "absolute",
            "descriptor",
            "fifo",
            "magic",
            "outward",
            "socket"
        ],
        "{report:?}"
    );
    let mut names: Vec<_> = fs::read_dir(&to)
        .expect("the export")
        .flatten()
        .map(|entry| entry.file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    assert_eq!(names, ["hardlink", "inside", "loop", "setuid"]);
    for file in ["setuid", "hardlink"] {
        assert_eq!(
            fs::metadata(to.join(file)).expect(file).mode() & 0o7777,
            0o755,
            "{file}"
        );
    }
    assert_eq!(
        fs::read_link(to.join("inside")).expect("a link").to_str(),
        Some("setuid")
    );
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn many_entries_and_deep_trees_are_bounded() {
    let _turn = host::alone().await;
    let state = host::fast_state();
    let provider = host::provider(state.path());
    let sandbox = provider
        .create(SandboxSpec::new())
        .await
        .expect("a sandbox");
    host::equip(&sandbox).await;
    let mut many = host::command("layers", &["many", "100001"]).cwd("/tmp");
    many.timeout = Some(Duration::from_secs(300));
    let output = sandbox.exec(many).await.expect("many files");
    assert_eq!(host::findings(&output).get("many"), "ok");
    let resident = host::resident();
    let error = sandbox.list("/tmp").await.expect_err("too many");
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    let more = ListOptions::new().limit(100_001);
    assert_eq!(
        sandbox
            .list_dir(&"/tmp".into(), more)
            .await
            .expect("list")
            .len(),
        100_001
    );
    let dir = host::public_dir();
    let to = dir.path().join("export");
    let few = ExportOptions::new().max_entries(1000);
    let error = sandbox
        .export_dir(&"/tmp".into(), &to, few)
        .await
        .expect_err("too many");
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    assert_eq!(
        fs::read_dir(dir.path()).expect("the parent").count(),
        0,
        "something is left"
    );
    let made = host::inside(&sandbox, "layers", &["deep", "1900"]).await;
    assert_eq!(made.number("depth"), 1900);
    let listed = sandbox
        .list_dir(&".".into(), ListOptions::new().recursive(true))
        .await;
    assert_eq!(listed.expect("list").len(), 1901);
    let grown = host::resident().saturating_sub(resident);
    assert!(grown < 256 << 20, "{grown} bytes more");
    let report = sandbox.export(".", &to).await;
    assert_eq!(report.expect("export").directories, 1900);
    sandbox.remove_all("d").await.expect("remove");
    assert!(sandbox.list(".").await.expect("list").is_empty());
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn hostile_names_make_the_round_trip_or_a_typed_error() {
    let _turn = host::shared().await;
    let sandbox = support::default().await;
    let long = [b'n'; 255];
    let names: [&[u8]; 12] = [
        b"new\nline",
        b"\xff\xfe\x80",
        &long,
        b"-rf",
        b"--",
        b" ",
        b"*",
        b"$(reboot)",
        b"..x",
        b"\x1b[31m",
        b"a\\b",
        b"'\"",
    ];
    for name in names {
        let path = GuestPath::from(name);
        sandbox
            .write(path.clone(), name.to_vec())
            .await
            .expect("write");
        assert_eq!(sandbox.read(path.clone()).await.expect("read"), name);
        let output = sandbox
            .exec(Command::new("cat").arg("--").arg(name))
            .await
            .expect("cat");
        assert_eq!(output.stdout.bytes, name, "the guest sees the same name");
    }
    let listed = sandbox.list(".").await.expect("list");
    assert_eq!(listed.len(), names.len());
    let dir = host::public_dir();
    let to = dir.path().join("export");
    let report = sandbox.export(".", &to).await;
    assert_eq!(report.expect("export").files, names.len() as u64);
    assert_eq!(fs::read_dir(&to).expect("the export").count(), names.len());
    for name in names {
        sandbox
            .remove_all(GuestPath::from(name))
            .await
            .expect("remove");
    }
    assert!(
        sandbox.list(".").await.expect("list").is_empty(),
        "no name is a pattern"
    );
    let too_long = [b'n'; 256];
    for bad in [&b"a\0b"[..], b"", b"..", b"/", &too_long] {
        let error = sandbox
            .write(GuestPath::from(bad), "x")
            .await
            .expect_err("refused");
        let kinds = [ErrorKind::InvalidInput, ErrorKind::IsADirectory];
        assert!(kinds.contains(&error.kind()), "{bad:?}: {error}");
        assert!(!error.to_string().contains('\0'));
    }
    sandbox.close().await.expect("close");
}
