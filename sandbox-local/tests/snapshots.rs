//! Snapshots that last: restored by another provider, killed at any moment, read by other tools.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, helpers too"
)]

#[path = "support/image.rs"]
mod image;
#[path = "support/mod.rs"]
mod support;

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use sandbox_core::{
    Env, ErrorKind, GuestPath, Labels, Provider as _, Sandbox, SandboxExt as _, SandboxSpec,
    SnapshotOptions, Source,
};
use sandbox_local::{LocalConfig, LocalProvider, LocalStore};
use sandbox_oci::ImageConfig;
use support::sh;

/// Set in a process of these tests that is to take snapshots until it is killed.
const VICTIM: &str = "SANDBOX_SNAPSHOT_VICTIM";

fn place() -> image::Place {
    image::place("sandbox-snapshots")
}

fn config(dir: &Path) -> LocalConfig {
    LocalConfig::default()
        .snapshots_dir(dir.join("snapshots"))
        .images_dir(dir.join("cache"))
}

fn provider(dir: &Path) -> LocalProvider {
    LocalProvider::new(config(dir)).unwrap()
}

/// Scripts that fill a sandbox with each kind of entry that a snapshot must keep, and tell of it.
const FILL: &str = "mkdir -p d/e && echo one > d/f && ln d/f d/g && ln -s f d/l && chmod 750 d/f && \
                    mkfifo d/p && chmod 700 d/e && head -c 100 /dev/zero > 'odd name' && \
                    touch -d 2001-02-03T04:05:06Z d/f && truncate -s 200M sparse";
const TELL: &str = "cd /workspace && find . | sort | while read -r n; do \
                    stat -c '%n %F %a %Y' \"$n\"; done; \
                    find . -type f -exec stat -c '%n %s %h' {} + | sort; cat d/f d/l";

#[tokio::test]
async fn a_snapshot_is_restored_by_another_provider_with_everything_in_it() {
    let dir = place();
    let parent = provider(dir.path())
        .create(SandboxSpec::new())
        .await
        .unwrap();
    sh(&parent, FILL).await;
    sh(&parent, "mkdir -p deleted opaque/old && touch deleted/x").await;
    let middle = parent.fork(Default::default()).await.unwrap();
    // Deletions of what a frozen layer has, and a directory in the place of another.
    sh(
        &middle,
        "rm -r deleted opaque && mkdir opaque && touch opaque/new",
    )
    .await;
    middle
        .set_env(Env::new().set("KEPT", "yes").secret("TOKEN", "s3cr3t"))
        .await
        .unwrap();
    sh(&middle, "mkdir -p /opt/tool").await;
    middle.set_workdir(&"/opt/tool".into()).await.unwrap();
    let told = sh(&middle, TELL).await;
    let options = SnapshotOptions::new().label("stage", "filled");
    let snapshot = middle.snapshot(options).await.unwrap();
    sh(&middle, "echo later > /workspace/d/f").await;
    middle.close().await.unwrap();
    parent.close().await.unwrap();
    let sparse = snapshot.size.unwrap();
    assert!(sparse < 1 << 20, "holes were packed: {sparse} bytes");
    let again = provider(dir.path());
    let labels = Labels::from([("stage".to_owned(), "filled".to_owned())]);
    let listed = again.list_snapshots(&labels).await.unwrap();
    assert_eq!(
        listed.iter().map(|one| &one.id).collect::<Vec<_>>(),
        [&snapshot.id]
    );
    assert_eq!(
        (listed[0].size, &listed[0].labels),
        (snapshot.size, &labels)
    );
    let spec = SandboxSpec::new().source(Source::Snapshot(snapshot.id.clone()));
    let restored = again.create(spec.clone()).await.unwrap();
    assert_eq!(sh(&restored, TELL).await, told);
    assert_eq!(
        sh(&restored, "pwd; echo $KEPT; echo ${TOKEN-none}").await,
        "/opt/tool\nyes\nnone\n"
    );
    assert_eq!(
        sh(
            &restored,
            "ls /workspace/opaque; ls -d /workspace/deleted 2>&1 | wc -l"
        )
        .await,
        "new\n1\n"
    );
    // The value of a secret is nowhere on disk.
    let grep = Command::new("grep")
        .args(["-rqs", "s3cr3t"])
        .arg(dir.path())
        .status()
        .unwrap();
    assert_eq!(grep.code(), Some(1));
    // A second one of a chain writes only what is new.
    sh(&restored, "echo more > /workspace/more").await;
    let second = restored.snapshot(SnapshotOptions::new()).await.unwrap();
    restored.close().await.unwrap();
    again.delete_snapshot(&snapshot.id).await.unwrap();
    let error = again.create(spec).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let spec = SandboxSpec::new().source(Source::Snapshot(second.id));
    let third = again.create(spec).await.unwrap();
    assert!(sh(&third, TELL).await.contains("./more regular file"));
    third.close().await.unwrap();
}

#[tokio::test]
async fn a_sandbox_with_running_processes_is_snapshotted_and_goes_on() {
    let dir = place();
    let sandbox = provider(dir.path())
        .create(SandboxSpec::new())
        .await
        .unwrap();
    let running = sandbox
        .spawn(sandbox_core::Command::shell("echo up > up; sleep 1000"))
        .await
        .unwrap();
    // The file is there before it is written.
    while sh(&sandbox, "cat up || true").await != "up\n" {
        tokio::task::yield_now().await;
    }
    let snapshot = sandbox.snapshot(SnapshotOptions::new()).await.unwrap();
    assert_eq!(
        sh(&sandbox, "cat up; pgrep -c sleep || true").await,
        "up\n1\n"
    );
    drop(running);
    sandbox.close().await.unwrap();
    let spec = SandboxSpec::new().source(Source::Snapshot(snapshot.id));
    let restored = provider(dir.path()).create(spec).await.unwrap();
    assert_eq!(sh(&restored, "cat up").await, "up\n");
    restored.close().await.unwrap();
}

#[tokio::test]
async fn an_altered_snapshot_or_one_of_another_host_is_refused_before_anything_is_mounted() {
    let dir = place();
    let provider = provider(dir.path());
    let sandbox = provider.create(SandboxSpec::new()).await.unwrap();
    sh(&sandbox, "head -c 100000 /dev/urandom > f").await;
    let snapshot = sandbox.snapshot(SnapshotOptions::new()).await.unwrap();
    sandbox.close().await.unwrap();
    let spec = SandboxSpec::new().source(Source::Snapshot(snapshot.id));
    let blobs = fs::read_dir(dir.path().join("snapshots/blobs/sha256"))
        .unwrap()
        .flatten();
    let largest = blobs
        .max_by_key(|blob| blob.metadata().unwrap().len())
        .unwrap()
        .path();
    let sound = fs::read(&largest).unwrap();
    let mut altered = sound.clone();
    altered[sound.len() / 2] ^= 1;
    for bad in [altered, sound[..sound.len() - 10].to_vec()] {
        fs::write(&largest, bad).unwrap();
        provider
            .create(spec.clone())
            .await
            .expect_err("an altered snapshot was restored");
        assert_eq!(
            fs::read_dir(dir.path().join("cache/layers"))
                .unwrap()
                .count(),
            0
        );
    }
    fs::write(&largest, &sound).unwrap();
    provider
        .create(spec.clone())
        .await
        .unwrap()
        .close()
        .await
        .unwrap();
    // Restored where the system's directories are others.
    let other = LocalProvider::new(config(dir.path()).system_dir("/var/tmp")).unwrap();
    let error = other.create(spec).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(
        error.to_string().contains("/var/tmp"),
        "it names the difference: {error}"
    );
}

#[tokio::test]
async fn a_process_that_is_killed_in_a_snapshot_leaves_the_old_index_or_the_new() {
    if let Some(dir) = std::env::var_os(VICTIM) {
        let sandbox = provider(Path::new(&dir))
            .create(SandboxSpec::new())
            .await
            .unwrap();
        loop {
            sh(&sandbox, "head -c 3000000 /dev/urandom > f").await;
            sandbox.snapshot(SnapshotOptions::new()).await.unwrap();
        }
    }
    let dir = place();
    let own = provider(dir.path());
    let blobs = dir.path().join("snapshots/blobs/sha256");
    let count = |prefix: &str| {
        let entries = fs::read_dir(&blobs).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
            .count()
    };
    let mut before = 0;
    for round in 0..4 {
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "a_process_that_is_killed_in_a_snapshot_leaves_the_old_index_or_the_new",
            ])
            .env(VICTIM, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // While the first blob is written, or while those of a second snapshot are.
        let start = count("");
        while match round % 2 {
            0 => count(".new-") == 0,
            _ => count("") < start + 4,
        } {
            assert!(victim.try_wait().unwrap().is_none(), "it ended by itself");
            std::thread::yield_now();
        }
        victim.kill().unwrap();
        assert_eq!(victim.wait().unwrap().signal(), Some(9));
        let listed = own.list_snapshots(&Labels::new()).await.unwrap();
        assert!(listed.len() >= before, "a snapshot was lost");
        before = listed.len();
        if let Some(last) = listed.last() {
            let spec = SandboxSpec::new().source(Source::Snapshot(last.id.clone()));
            let restored = own.create(spec).await.unwrap();
            assert_eq!(sh(&restored, "stat -c %s f").await, "3000000\n");
            restored.close().await.unwrap();
        }
    }
    assert!(before > 0, "none was finished");
    for snapshot in own.list_snapshots(&Labels::new()).await.unwrap() {
        own.delete_snapshot(&snapshot.id).await.unwrap();
    }
    assert_eq!(
        fs::read_dir(&blobs).unwrap().count(),
        0,
        "blobs stay behind"
    );
}

/// Set in a process of these tests that has little room on its disk.
const CRAMPED: &str = "SANDBOX_CRAMPED";

/// A filesystem that has room for so many bytes until the result is removed.
fn leave(dir: &Path, bytes: u64) -> PathBuf {
    let path = dir.join("filler");
    let room = rustix::fs::statvfs(dir).unwrap();
    let free = room.f_bavail * room.f_frsize;
    let mut rest = vec![b'x'; usize::try_from(free - bytes).unwrap()];
    rest.push(b'x');
    fs::write(&path, rest).unwrap();
    path
}

#[tokio::test]
async fn a_full_disk_is_told_and_nothing_half_is_left_of_an_image_or_a_snapshot() {
    const NAME: &str = "a_full_disk_is_told_and_nothing_half_is_left_of_an_image_or_a_snapshot";
    let Some(dir) = std::env::var_os(CRAMPED) else {
        let dir = place();
        image::busybox(&dir.path().join("busybox")).unwrap();
        let image = dir.path().join("image");
        image::of_directory(&dir.path().join("busybox"), &image).unwrap();
        fs::create_dir(dir.path().join("small")).unwrap();
        // A disk of its own, which any user can have: mounted as the root of a namespace, used as an
        // ordinary user of another.
        let script = "mount -t tmpfs -o size=16m,mode=0755 none \"$1/small\" && \
                      exec unshare --user --map-user=1000 --map-group=1000 -- \
                      \"$2\" --exact \"$3\" --nocapture";
        let output = Command::new("unshare")
            .args([
                "--user",
                "--map-root-user",
                "--mount",
                "--",
                "sh",
                "-c",
                script,
                "sh",
            ])
            .arg(dir.path())
            .arg(std::env::current_exe().unwrap())
            .arg(NAME)
            .env(CRAMPED, dir.path())
            .env("SANDBOX_STATE_DIR", dir.path().join("state"))
            .output()
            .expect("util-linux is installed");
        let said = String::from_utf8_lossy(&output.stdout);
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}{complained}");
        assert!(said.contains("1 passed"), "no control: {said}");
        return;
    };
    let dir = Path::new(&dir);
    let small = dir.join("small");
    let provider = provider(&small);
    let image = format!("oci:{}", dir.join("image").display());
    let spec = SandboxSpec::new().source(Source::Image(image));
    let entries = |name: &str| fs::read_dir(small.join(name)).unwrap().count();
    let filler = leave(&small, 300_000);
    let error = provider.create(spec.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
    assert!(error.host_path().is_some(), "it names the place: {error}");
    assert_eq!((entries("cache/layers"), entries("cache/making")), (0, 0));
    fs::remove_file(filler).unwrap();
    let sandbox: Arc<dyn Sandbox> = provider.create(spec).await.unwrap();
    sh(&sandbox, "head -c 3000000 /dev/urandom > /f").await;
    let filler = leave(&small, 300_000);
    let error = sandbox.snapshot(SnapshotOptions::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
    assert!(error.host_path().is_some(), "it names the place: {error}");
    assert_eq!(provider.list_snapshots(&Labels::new()).await.unwrap(), []);
    assert_eq!(entries("snapshots/blobs/sha256"), 0);
    assert_eq!(
        sh(&sandbox, "stat -c %s /f").await,
        "3000000\n",
        "it goes on"
    );
    fs::remove_file(filler).unwrap();
    let snapshot = sandbox.snapshot(SnapshotOptions::new()).await.unwrap();
    sandbox.close().await.unwrap();
    let spec = SandboxSpec::new().source(Source::Snapshot(snapshot.id));
    let restored: Arc<dyn Sandbox> = provider.create(spec).await.unwrap();
    assert_eq!(sh(&restored, "stat -c %s /f").await, "3000000\n");
    restored.close().await.unwrap();
}

/// Runs a tool of the host that must succeed.
fn tool(command: &mut Command) -> String {
    let output = command
        .output()
        .expect("the tool is installed: see .ci/run");
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A snapshot of a sandbox from an image, and the image itself, are what umoci and skopeo take them
/// for, path by path.
#[tokio::test]
async fn umoci_skopeo_and_this_backend_agree_on_an_image_and_on_a_snapshot() {
    let dir = place();
    let at = |name: &str| dir.path().join(name);
    image::busybox(&at("busybox")).unwrap();
    let above = at("above");
    fs::create_dir_all(above.join("etc")).unwrap();
    fs::write(above.join("etc/.wh.passwd"), "").unwrap();
    fs::write(above.join("etc/added"), "x").unwrap();
    image::save(
        &at("image"),
        &[&at("busybox"), &above],
        ImageConfig::default(),
    )
    .unwrap();
    let from = format!("oci:{}:it", at("image").display());
    let spec = SandboxSpec::new().source(Source::Image(from.clone()));
    let sandbox: Arc<dyn Sandbox> = provider(dir.path()).create(spec).await.unwrap();
    sh(
        &sandbox,
        "mkdir -p /new/dir && echo text > /new/file && ln /new/file /new/again && \
                  ln -s file /new/link && rm -r /home/app && rm /bin/xargs && chmod 711 /new/dir",
    )
    .await;
    let snapshot = sandbox.snapshot(SnapshotOptions::new()).await.unwrap();
    let archive = at("snapshot.tar");
    let store = LocalStore::open(&config(dir.path())).unwrap();
    store.export_snapshot(&snapshot.id, &archive).unwrap();
    let error = store.export_snapshot(&snapshot.id, &archive).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    // skopeo copies it, and copies the image in the way of Docker.
    let copied = format!("oci:{}:it", at("copied").display());
    let exported = format!("oci-archive:{}", archive.display());
    let policy = "--insecure-policy";
    tool(Command::new("skopeo").args([policy, "copy", &exported, &copied]));
    let docker = at("docker.tar");
    let to = format!("docker-archive:{}:x/y:1", docker.display());
    tool(Command::new("skopeo").args([policy, "copy", &from, &to]));
    let unpack = |image: &Path, to: &Path| -> PathBuf {
        let mut umoci = Command::new("umoci");
        umoci
            .arg("unpack")
            .arg("--image")
            .arg(format!("{}:it", image.display()));
        if !rustix::process::geteuid().is_root() {
            umoci.arg("--rootless");
        }
        tool(umoci.arg(to));
        to.join("rootfs")
    };
    let by_umoci = unpack(&at("copied"), &at("bundle"));
    let plain = unpack(&at("image"), &at("plain"));
    // What a sandbox of each sees.
    let export = |sandbox: Arc<dyn Sandbox>, to: PathBuf| async move {
        let options = sandbox_core::ExportOptions::new().max_bytes(u64::MAX);
        fs::create_dir(&to).unwrap();
        for top in ["bin", "home", "root", "usr", "new"] {
            let guest: GuestPath = format!("/{top}").as_str().into();
            if sandbox.exists(guest.clone()).await.unwrap() {
                sandbox
                    .export_dir(&guest, &to.join(top), options.clone())
                    .await
                    .unwrap();
            }
        }
        sandbox.close().await.unwrap();
        to
    };
    let kept = |dir: &Path| -> Vec<String> {
        let tops = ["bin", "home", "root", "usr", "new"];
        let lines = image::listing(dir).into_iter();
        lines
            .filter(|line| tops.iter().any(|top| line.starts_with(top)))
            .map(|line| {
                let fields: Vec<&str> = line.split(' ').collect();
                // Path, kind and mode, and size or target: exports have times and names of their own.
                format!("{} {} {}", fields[0], fields[1], fields[3])
            })
            .collect()
    };
    for (source, theirs, name) in [
        (Source::Snapshot(snapshot.id.clone()), &by_umoci, "restored"),
        (
            Source::Image(format!("docker-archive:{}", docker.display())),
            &plain,
            "docker",
        ),
        (Source::Image(copied.clone()), &by_umoci, "skopeo"),
    ] {
        let spec = SandboxSpec::new().source(source);
        let seen = provider(dir.path()).create(spec).await.unwrap();
        let ours = export(seen, at(name)).await;
        assert_eq!(kept(&ours), kept(theirs), "{name}");
    }
    sandbox.close().await.unwrap();
}
