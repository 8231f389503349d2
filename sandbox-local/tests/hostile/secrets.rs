//! Secrets of the host: environment, files, sockets, what init was started with
//! (B 19, 20).

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process;

use sandbox_core::{Command, ErrorKind, FileKind, Provider as _, SandboxExt, SandboxSpec};
use sandbox_local::{LocalConfig, LocalProvider};

use crate::{host, support};

/// Prints every environment that it may read.
const ENVIRONMENTS: &str = "env; for f in /proc/[0-9]*/environ /proc/[0-9]*/cmdline; do \
    cat $f 2>/dev/null | tr '\\0' '\\n'; done";

/// Run by the test below as a process of its own, whose environment has a canary.
#[tokio::test]
async fn in_a_child_with_a_canary() {
    let Some(canary) = std::env::var_os("HOSTILE_CANARY") else {
        return;
    };
    let sandbox = support::default().await;
    let command = Command::shell(ENVIRONMENTS).env("OF_THE_GUEST", "its own");
    let output = sandbox.exec(command).await.expect("the script");
    let found = output.stdout.to_string_lossy();
    assert!(
        found.contains("OF_THE_GUEST=its own"),
        "no control: {found}"
    );
    let canary = canary.to_string_lossy();
    assert!(!found.contains(&*canary), "{found}");
    let passed = support::run(&sandbox, Command::shell(ENVIRONMENTS).env("X", &*canary)).await;
    assert!(
        passed.stdout.to_string_lossy().contains(&*canary),
        "no control"
    );
    sandbox.close().await.expect("close");
    println!("the child has looked");
}

#[tokio::test]
async fn the_hosts_environment_is_nowhere() {
    let _turn = host::shared().await;
    let ran = process::Command::new(std::env::current_exe().expect("this program"))
        .args([
            "--exact",
            "secrets::in_a_child_with_a_canary",
            "--nocapture",
        ])
        .env("HOSTILE_CANARY", format!("canary-{}", process::id()))
        .output()
        .expect("this program runs");
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(
        ran.status.success() && said.contains("the child has looked"),
        "{said}"
    );
}

#[tokio::test]
async fn init_gives_nothing_of_the_host_away() {
    let _turn = host::shared().await;
    let sandbox = support::default().await;
    let cmdline = support::sh(&sandbox, "cat /proc/1/cmdline | tr '\\0' ' '").await;
    assert_eq!(cmdline, "sandbox-agent ");
    for file in [
        "environ", "maps", "smaps", "auxv", "mem", "stack", "syscall", "io",
    ] {
        let script = format!("cat /proc/1/{file}; true");
        let output = support::run(&sandbox, Command::shell(script)).await;
        assert_eq!(output.stdout.bytes, "", "/proc/1/{file}");
        let why = output.stderr.to_string_lossy();
        assert!(
            why.contains("denied") || why.contains("not permitted"),
            "/proc/1/{file}: {why}"
        );
    }
    for link in ["exe", "root", "cwd", "ns/mnt", "ns/user", "fd/0"] {
        let script = format!("readlink /proc/1/{link}; ls /proc/1/{link}/; true");
        let output = support::run(&sandbox, Command::shell(script)).await;
        assert_eq!(output.stdout.bytes, "", "/proc/1/{link}");
    }
    // The control: the same on itself is not empty.
    let own = "for f in environ maps auxv io mountinfo; do cat /proc/$$/$f | wc -c; done; \
        readlink /proc/$$/exe /proc/$$/root /proc/$$/ns/mnt";
    let own = support::sh(&sandbox, own).await;
    assert_eq!(own.lines().filter(|line| *line != "0").count(), 8, "{own}");
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn the_mount_table_does_not_say_where_the_host_keeps_it() {
    let _turn = host::shared().await;
    let state = host::public_dir();
    let provider = host::provider(state.path());
    let sandbox = sandbox_core::Provider::create(&provider, SandboxSpec::new())
        .await
        .expect("new");
    let table = support::sh(&sandbox, "cat /proc/self/mountinfo /proc/mounts").await;
    assert!(table.contains("overlay"), "no control: {table}");
    let state = state.path().to_str().expect("UTF-8");
    assert!(!table.contains(state), "{table}");
    sandbox.close().await.expect("close");
}

/// A file with a secret, in a place of the host's user.
struct Canary {
    file: tempfile::NamedTempFile,
    text: String,
}

impl Canary {
    fn in_dir(dir: PathBuf) -> Self {
        let mut file = tempfile::Builder::new()
            .prefix("canary-")
            .tempfile_in(&dir)
            .expect("a file");
        let text = format!("secret of {}", dir.display());
        file.write_all(text.as_bytes()).expect("write");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        fs::set_permissions(file.path(), mode).expect("its mode");
        Self { file, text }
    }
}

#[tokio::test]
async fn the_hosts_files_and_sockets_are_not_there() {
    let _turn = host::shared().await;
    let sandbox = host::guest().await;
    let home = std::env::var_os("HOME").map_or_else(std::env::temp_dir, PathBuf::from);
    let dirs = [home, "/tmp".into(), "/var/tmp".into(), "/dev/shm".into()];
    for dir in dirs {
        let canary = Canary::in_dir(dir);
        let path = canary.file.path().to_str().expect("UTF-8");
        assert_eq!(fs::read_to_string(path).expect("the control"), canary.text);
        let error = sandbox.read(path).await.expect_err(path);
        assert_eq!(error.kind(), sandbox_core::ErrorKind::NotFound, "{path}");
        let tried = format!("cat {path} /proc/*/root{path} /proc/*/cwd{path}");
        let output = sandbox.sh(&tried).await.expect("sh");
        assert_eq!(
            (output.stdout.bytes.len(), output.success()),
            (0, false),
            "{path}"
        );
    }
    for path in [
        "/etc/shadow",
        "/etc/gshadow",
        "/etc/sudoers",
        "/etc/ssh",
        "/boot",
    ] {
        assert!(!sandbox.exists(path).await.expect(path), "{path}");
    }
    assert!(fs::symlink_metadata("/etc/shadow").is_ok(), "no control");
    assert_eq!(
        support::sh(&sandbox, "ls -A /home /root /var/tmp /tmp /run /dev/shm")
            .await
            .trim(),
        HOMES
    );
    let user = rustix::process::geteuid().as_raw();
    let state = format!("/var/tmp/sandbox-local-{user}");
    assert!(fs::metadata(&state).is_ok(), "no control");
    assert!(!sandbox.exists(state.as_str()).await.expect("exists"));
    let dir = host::public_dir();
    let socket = dir.path().join("docker.sock");
    let _listener = UnixListener::bind(&socket).expect("a listener");
    let socket = socket.to_str().expect("UTF-8");
    assert_eq!(host::outside("net", &["unix", socket]).get("unix"), "ok");
    assert_eq!(
        host::inside(&sandbox, "net", &["unix", socket])
            .await
            .get("unix"),
        "ENOENT"
    );
    sandbox.close().await.expect("close");
}

/// Nothing but the guest's own home.
const HOMES: &str = "/dev/shm:\n\n/home:\nsandbox\n\n/root:\n\n/run:\n\n/tmp:\n\n/var/tmp:";

/// Files that every root has of its own, whatever the host's are.
const OWN_FILES: &[&str] = &[
    "/etc/group",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/shells",
];

/// Whatever the host is that this runs on.
#[tokio::test]
async fn what_the_root_shows_of_settings_everybody_may_read_on_the_host() {
    let _turn = host::shared().await;
    let sandbox = support::default().await;
    // The host's programs and their links lead out of it; links are not followed.
    let found = support::sh(
        &sandbox,
        "find /etc /var/lib ! -type d -print0 | tr '\\0' '\\n'",
    )
    .await;
    let (mut files, mut links) = (0, 0);
    for path in found.lines() {
        let metadata = sandbox.stat(path).await.expect(path);
        if metadata.kind == FileKind::Symlink {
            links += 1;
            continue;
        }
        assert!(metadata.is_file(), "{path}: {metadata:?}");
        files += 1;
        let content = sandbox.read(path).await.expect(path);
        if OWN_FILES.contains(&path) {
            continue;
        }
        for place in std::path::Path::new(path).ancestors() {
            let mode = fs::metadata(place).expect(path).permissions();
            let mode = std::os::unix::fs::PermissionsExt::mode(&mode);
            let needed = if place.is_dir() { 0o001 } else { 0o004 };
            assert!(mode & needed != 0, "{path}: {} is shut", place.display());
        }
        assert_eq!(fs::read(path).expect(path), content, "{path}");
        for secret in [
            "PRIVATE KEY-----",
            "<password>",
            "_authToken=",
            "$6$",
            "$y$",
        ] {
            let shown = memchr::memmem::find(&content, secret.as_bytes());
            assert_eq!(shown, None, "{secret} in {path}");
        }
    }
    assert!(files > 100 && links > 10, "no control: {files}, {links}");
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn a_setting_that_is_named_comes_along_without_its_secrets() {
    let _turn = host::shared().await;
    let dir = host::public_dir();
    let put = |name: &str, text: &str, mode: u32| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("it");
        fs::write(&path, text).expect("a file");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(&path, mode).expect("its mode");
        path
    };
    put("site/conf.d/a.conf", "shown", 0o644);
    put("site/shut", "hidden", 0o600);
    put("site/server.key", "hidden", 0o644);
    put("site/all.pem", "-----BEGIN PRIVATE KEY-----", 0o644);
    put("beside", "hidden", 0o644);
    let one = put("one.ini", "one", 0o644);
    let config = || LocalConfig::default().setting(dir.path().join("site"));
    let provider = LocalProvider::new(config().setting(&one)).expect("a provider");
    let sandbox = provider.create(SandboxSpec::new()).await.expect("new");
    let script = format!(
        "cd {}; find . -type f -exec grep -H '' {{}} + | sort",
        dir.path().display()
    );
    let found = support::sh(&sandbox, &script).await;
    assert_eq!(found, "./one.ini:one\n./site/conf.d/a.conf:shown\n");
    // The guest's own: the host's stays as it is.
    support::sh(
        &sandbox,
        &format!("cd {} && (echo x > one.ini)", dir.path().display()),
    )
    .await;
    assert_eq!(fs::read_to_string(&one).expect("it"), "one");
    sandbox.close().await.expect("close");
    let shut = put("shut.ini", "x", 0o600);
    let secret = put("id_rsa", "x", 0o644);
    let key = put("key.ini", "-----BEGIN PRIVATE KEY-----", 0o644);
    let refused = [
        (dir.path().join("missing"), ErrorKind::NotFound),
        (shut, ErrorKind::InvalidInput),
        (secret, ErrorKind::InvalidInput),
        (key, ErrorKind::InvalidInput),
        ("relative".into(), ErrorKind::InvalidInput),
        (dir.path().join("site/../one.ini"), ErrorKind::InvalidInput),
        // The sandbox has its own.
        ("/etc/passwd".into(), ErrorKind::InvalidInput),
    ];
    for (path, kind) in refused {
        let error = LocalProvider::new(config().setting(&path)).expect_err("it is refused");
        assert_eq!(error.kind(), kind, "{}: {error}", path.display());
        let named = error.host_path().is_some_and(|named| named == path);
        assert!(named, "{}: {error}", path.display());
    }
}
