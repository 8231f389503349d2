//! Host directories that a guest may write, as root and as an ordinary user.
#![cfg(target_os = "linux")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, helpers too"
)]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use sandbox_core::{
    Command, Control, Enforcement, ErrorKind, FileBatch, Mount, Provider, SandboxExt as _,
    SandboxSpec,
};
use sandbox_local::{LocalConfig, LocalProvider};
use support::{is_root, run, sh};

fn writable(host: &Path) -> SandboxSpec {
    SandboxSpec::new().mount(Mount::read_write(host, "/mnt/host"))
}

/// Gives a directory to an ordinary user, if we may.
fn give_to(path: &Path, owner: u32) -> u32 {
    if is_root() {
        std::os::unix::fs::chown(path, Some(owner), Some(owner)).expect("root may chown");
        return owner;
    }
    fs::metadata(path).expect("it is there").uid()
}

#[tokio::test]
async fn what_the_guest_creates_belongs_to_the_owner_of_the_mounted_directory() {
    for owner in [0, 4711] {
        let host = tempfile::tempdir().expect("a directory");
        fs::write(host.path().join("there"), "before").expect("a file");
        give_to(&host.path().join("there"), owner);
        let owner = give_to(host.path(), owner);
        let sandbox = support::create(writable(host.path())).await;
        let script = "cd /mnt/host && id -un && echo new > made && echo more >> there && \
            mkdir d && ln -s made link && mv made d/moved && stat -c %U there d/moved link";
        let said = sh(&sandbox, script).await;
        assert_eq!(said, "sandbox\nsandbox\nsandbox\nsandbox\n");
        let batch = FileBatch::new()
            .file("/mnt/host/by-api", "x")
            .file("/mnt/host/there", "after");
        sandbox.write_files(batch).await.expect("the batch");
        for name in ["d", "d/moved", "link", "by-api", "there"] {
            let found = fs::symlink_metadata(host.path().join(name)).expect(name);
            assert_eq!((found.uid(), found.gid()), (owner, found.gid()), "{name}");
            if is_root() {
                assert_eq!(found.gid(), owner, "{name}");
            }
        }
        assert_eq!(
            fs::read(host.path().join("d/moved")).expect("moved"),
            b"new\n"
        );
        assert_eq!(
            fs::read(host.path().join("there")).expect("there"),
            b"after"
        );
        // The mount is made again for a fork and for the restarted parent.
        let child = sandbox.fork_one().await.expect("a fork");
        sh(&sandbox, "echo parent > /mnt/host/parent").await;
        sh(
            &child,
            "cat /mnt/host/parent && echo child > /mnt/host/child",
        )
        .await;
        assert_eq!(
            fs::metadata(host.path().join("child"))
                .expect("child")
                .uid(),
            owner
        );
        child.close().await.expect("close");
        sandbox.close().await.expect("close");
        assert_eq!(fs::metadata(host.path()).expect("still there").uid(), owner);
    }
}

#[tokio::test]
async fn files_of_others_below_the_mount_stay_theirs() {
    if !is_root() {
        // An ordinary user can make no file of another user.
        return;
    }
    let host = tempfile::tempdir().expect("a directory");
    let theirs = host.path().join("theirs");
    fs::write(&theirs, "secret").expect("a file");
    fs::set_permissions(&theirs, fs::Permissions::from_mode(0o600)).expect("chmod");
    give_to(&theirs, 4712);
    give_to(host.path(), 4711);
    let sandbox = support::create(writable(host.path())).await;
    let said = sh(
        &sandbox,
        "cd /mnt/host; stat -c %U theirs; cat theirs; chmod 777 theirs; true",
    );
    assert_eq!(said.await, "nobody\n");
    let found = fs::metadata(&theirs).expect("still there");
    assert_eq!((found.uid(), found.mode() & 0o777), (4712, 0o600));
    sandbox.close().await.expect("close");
}

/// Every way to such a bit, in C: programs of a shell know only some.
const SET_ID: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
static void tell(const char *what, long result) {
    printf("%s %s\n", what, result < 0 ? strerrorname_np(errno) : "went through");
    errno = 0;
}
int main(void) {
    int fd = open("plain", O_CREAT | O_RDWR, 0755);
    unsigned long how[3] = {O_CREAT | O_WRONLY, 04755, 0};
    tell("chmod", syscall(SYS_chmod, "plain", 04755));
    tell("fchmod", fchmod(fd, 02755));
    tell("fchmodat", syscall(SYS_fchmodat, AT_FDCWD, "plain", 06755));
    tell("fchmodat2", syscall(452, AT_FDCWD, "plain", 04755, 0));
    tell("open", syscall(SYS_open, "opened", O_CREAT | O_WRONLY, 04755));
    tell("openat", syscall(SYS_openat, AT_FDCWD, "opened", O_CREAT | O_WRONLY, 02755));
    tell("tmpfile", syscall(SYS_openat, AT_FDCWD, ".", O_TMPFILE | O_WRONLY, 04755));
    tell("creat", syscall(SYS_creat, "created", 04755));
    tell("mknod", syscall(SYS_mknod, "node", S_IFREG | 04755, 0));
    tell("mknodat", syscall(SYS_mknodat, AT_FDCWD, "node", S_IFREG | 02755, 0));
    tell("openat2", syscall(SYS_openat2, AT_FDCWD, "opened", how, sizeof how));
    return 0;
}
"#;

#[tokio::test]
async fn no_set_id_bit_reaches_the_host() {
    let host = tempfile::tempdir().expect("a directory");
    let sandbox = support::create(writable(host.path())).await;
    let said = sh(
        &sandbox,
        "cd /mnt/host; cp /bin/true program; chmod u+s program && echo u; chmod 2755 program && \
         echo g; chmod 1755 program; install -m 4755 /bin/true installed && echo installed; true",
    );
    assert_eq!(said.await, "");
    if cfg!(target_arch = "x86_64") {
        let source = FileBatch::new().file("set-id.c", SET_ID);
        sandbox.write_files(source).await.expect("the source");
        sh(&sandbox, "gcc -o set-id set-id.c").await;
        let said = sh(&sandbox, "cd /mnt/host && /workspace/set-id").await;
        assert_eq!(said.lines().count(), 11, "{said}");
        for line in said.lines() {
            let refused = if line.starts_with("openat2") {
                " ENOSYS"
            } else {
                " EPERM"
            };
            assert!(line.ends_with(refused), "{line}");
        }
    }
    for entry in fs::read_dir(host.path()).expect("list") {
        let found = entry.expect("entry").metadata().expect("metadata");
        assert_eq!(found.mode() & 0o6000, 0);
    }
    // Toolchains don't notice.
    sh(
        &sandbox,
        "cd /mnt/host && mkdir -m 1777 t && git init -q r && touch r/f && git -C r add f",
    )
    .await;
    sandbox.close().await.expect("close");
    // Without such a mount the bits are the guest's own affair.
    let own = support::default().await;
    assert_eq!(
        sh(&own, "touch f && chmod 4755 f && stat -c %a f").await,
        "4755\n"
    );
    own.close().await.expect("close");
}

#[tokio::test]
async fn a_filesystem_that_maps_no_owners_is_an_error_with_the_remedy() {
    if !is_root() {
        return;
    }
    let provider = LocalProvider::new(LocalConfig::default()).expect("a provider");
    let error = provider
        .create(writable(Path::new("/proc/tty")))
        .await
        .expect_err("no owners there");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    let text = error.to_string();
    for word in ["/proc/tty", "mount read-only", "ext4"] {
        assert!(text.contains(word), "{text}");
    }
    // It can be read all the same.
    let spec = SandboxSpec::new().mount(Mount::read_only("/etc/ssl", "/mnt/ssl"));
    let sandbox = provider.create(spec).await.expect("a sandbox");
    sh(&sandbox, "ls /mnt/ssl && ! touch /mnt/ssl/x").await;
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn a_single_file_can_be_mounted_for_writing() {
    let host = tempfile::tempdir().expect("a directory");
    let file = host.path().join("file");
    fs::write(&file, "old").expect("a file");
    let spec = SandboxSpec::new().mount(Mount::read_write(&file, "/mnt/file"));
    let sandbox = support::create(spec).await;
    sh(&sandbox, "printf new > /mnt/file").await;
    assert_eq!(fs::read(&file).expect("the file"), b"new");
    let report = sandbox.isolation().await.expect("a report");
    let filesystem = report.get(Control::Filesystem);
    assert!(
        matches!(filesystem, Some(Enforcement::Partial { .. })),
        "{filesystem:?}"
    );
    let removed = run(&sandbox, Command::shell("rm /mnt/file")).await;
    assert!(!removed.success());
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn a_mount_within_another_is_put_in_its_place() {
    let host = tempfile::tempdir().expect("a directory");
    fs::set_permissions(host.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    for dir in ["outer/in", "inner"] {
        fs::create_dir_all(host.path().join(dir)).expect("a directory");
    }
    fs::write(host.path().join("inner/f"), "inner\n").expect("a file");
    fs::write(host.path().join("outer/f"), "outer\n").expect("a file");
    let spec = SandboxSpec::new()
        .mount(Mount::read_only(
            host.path().join("inner"),
            "/mnt/x/../o/in",
        ))
        .mount(Mount::read_only(host.path().join("outer"), "/mnt/o"))
        .mount(Mount::read_only(
            host.path().join("inner"),
            "/usr/share/man",
        ));
    let sandbox = support::create(spec).await;
    let said = sh(&sandbox, "cat /mnt/o/f /mnt/o/in/f; ls /usr/share/man").await;
    assert_eq!(said, "outer\ninner\nf\n");
    sandbox.close().await.expect("close");
}
