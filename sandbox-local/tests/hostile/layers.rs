//! Attacks on the overlay below a guest, which change nothing but its own view (A 4, 5, 18).

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use sandbox_core::{
    ErrorKind, FileBatch, Provider, Resources, Sandbox, SandboxExt, SandboxSpec, Source,
};
use sandbox_local::{LocalConfig, LocalProvider};

use crate::{host, support};

/// Everything that a sandbox sees in its workdir, with content.
async fn view(sandbox: &Arc<dyn Sandbox>) -> String {
    let script = "cd /workspace && find . | LC_ALL=C sort && \
        for f in $(find . -type f | LC_ALL=C sort); do echo \"$f: $(cat $f)\"; done";
    support::sh(sandbox, script).await
}

fn files() -> FileBatch {
    FileBatch::new()
        .file("dir/below", "below")
        .file("file", "file")
        .file("gone", "")
        .file("kept", "kept")
        .file("other", "other")
        .file("/srv/secret", "of the lower layer")
}

async fn disguises(spec: SandboxSpec) {
    let _turn = host::shared().await;
    let control = host::outside("layers", &["disguise", "/etc"]);
    for name in ["whiteout", "whiteout_in_memory", "whiteout_by_rename"] {
        assert_eq!(control.get(name), "ok", "no control");
    }
    let provider = LocalProvider::new(LocalConfig::default()).expect("a provider");
    let parent = provider.create(spec).await.expect("a sandbox");
    host::equip(&parent).await;
    parent.write_files(files()).await.expect("files");
    let before = view(&parent).await;
    let attacker = parent.fork_one().await.expect("the attacker");
    let neighbour = parent.fork_one().await.expect("a neighbour");
    let found = host::inside(&attacker, "layers", &["disguise", "/srv"]).await;
    for name in ["whiteout", "whiteout_in_memory"] {
        assert_eq!(found.get(name), "EPERM", "{name}");
    }
    assert_eq!(found.get("whiteout_by_rename"), "EINVAL");
    assert_eq!(found.get("trusted.overlay.opaque:dir"), "EPERM");
    assert_eq!(
        found.get("user.plain:file"),
        "ok",
        "no control: no attributes at all"
    );
    // Its own view is what it was, now and after its layer was frozen below a fork or copied.
    assert_eq!(view(&attacker).await, before);
    let child = attacker.fork_one().await.expect("a fork of the attacker");
    let (running, _) = host::start(&attacker, "escape", &["pause"]).await;
    let copied = attacker
        .fork_one()
        .await
        .expect("a fork of the busy attacker");
    running.kill().await.expect("kill");
    for sandbox in [&attacker, &child, &copied, &parent, &neighbour] {
        assert_eq!(view(sandbox).await, before);
    }
    for sandbox in [attacker, child, copied, parent, neighbour] {
        sandbox.close().await.expect("close");
    }
}

#[tokio::test]
async fn private_attributes_and_whiteouts_of_a_guest_mean_nothing() {
    disguises(SandboxSpec::new()).await;
}

#[tokio::test]
async fn nor_do_they_in_memory() {
    let resources = Resources::new().disk(64 << 20);
    disguises(SandboxSpec::new().resources(resources)).await;
}

#[tokio::test]
async fn nor_in_layers_that_were_merged() {
    let _turn = host::shared().await;
    let mut sandbox = host::guest().await;
    sandbox.write_files(files()).await.expect("files");
    let expected = view(&sandbox).await;
    for round in 0..50 {
        sandbox
            .write(format!("/tmp/{round}"), "x")
            .await
            .expect("write");
        host::inside(&sandbox, "layers", &["disguise", "/srv"]).await;
        let next = sandbox.fork_one().await.expect("a fork");
        sandbox.close().await.expect("close");
        sandbox = next;
    }
    assert_eq!(view(&sandbox).await, expected);
    assert_eq!(support::sh(&sandbox, "ls /tmp | wc -l").await, "50\n");
    sandbox.close().await.expect("close");
}

/// Names, kinds, modes and contents of a tree of the host.
fn tree(top: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut stack = vec![top.to_owned()];
    while let Some(dir) = stack.pop() {
        for entry in fs::read_dir(&dir).expect("a directory").flatten() {
            let stat = entry.metadata().expect("its metadata");
            let what = if stat.is_dir() {
                stack.push(entry.path());
                String::new()
            } else if stat.is_symlink() {
                format!("{:?}", fs::read_link(entry.path()))
            } else {
                fs::read_to_string(entry.path()).unwrap_or_default()
            };
            let kind = format!("{:?} {:?} {what}", stat.file_type(), stat.permissions());
            found.insert(entry.path().display().to_string(), kind);
        }
    }
    found
}

/// A root directory of static programs, which are all that it needs.
fn given_root(dir: &Path) -> std::path::PathBuf {
    let root = dir.join("root");
    for sub in ["opt/hostile", "etc", "workspace/dir", "tmp"] {
        fs::create_dir_all(root.join(sub)).expect("a directory");
    }
    for program in ["layers", "escape"] {
        fs::copy(host::tool(program), root.join("opt/hostile").join(program)).expect("a program");
    }
    for file in ["file", "gone", "kept", "other", "dir/below"] {
        fs::write(root.join("workspace").join(file), file).expect("a file");
    }
    root
}

#[tokio::test]
async fn a_given_root_directory_is_only_read() {
    let _turn = host::shared().await;
    let dir = host::public_dir();
    let root = given_root(dir.path());
    let before = tree(&root);
    let spec = SandboxSpec::new().source(Source::RootDir(root.clone()));
    let sandbox = support::create(spec).await;
    let found = host::inside(&sandbox, "layers", &["disguise", "/etc"]).await;
    assert_eq!(found.get("whiteout"), "EPERM");
    let child = sandbox.fork_one().await.expect("a fork");
    for sandbox in [&sandbox, &child] {
        let inside = sandbox.read("/workspace/dir/below").await;
        assert_eq!(inside.expect("the file"), "dir/below");
        sandbox.write("/workspace/file", "changed").await.ok();
        sandbox.remove_all("/workspace/dir").await.ok();
    }
    for sandbox in [child, sandbox] {
        sandbox.close().await.expect("close");
    }
    assert_eq!(tree(&root), before);
}

#[tokio::test]
async fn links_where_a_root_is_mounted_on_lead_nowhere() {
    let _turn = host::shared().await;
    let dir = host::public_dir();
    let outside = dir.path().join("outside");
    fs::create_dir_all(outside.join("shm")).expect("a directory");
    fs::write(outside.join("null"), "canary").expect("a canary");
    let target = outside.to_str().expect("UTF-8");
    let up = format!("../../../../../../../..{target}");
    let null = format!("{target}/null");
    // Each place that the set-up mounts on, as a link to the canaries.
    let traps: [(&str, &str); 10] = [
        ("dev", target),
        ("dev", up.as_str()),
        ("proc", target),
        ("proc", "/proc"),
        ("dev/null", &null),
        ("dev/pts", target),
        ("dev/shm", target),
        ("workspace", target),
        ("workspace", &up),
        ("etc", target),
    ];
    for (n, (place, to)) in traps.into_iter().enumerate() {
        let root = given_root(&dir.path().join(n.to_string()));
        fs::remove_dir_all(root.join(place)).ok();
        fs::create_dir_all(root.join(place).parent().expect("a parent")).expect("its parent");
        symlink(to, root.join(place)).expect("a link");
        let before = (tree(&outside), tree(&root));
        let provider = LocalProvider::new(LocalConfig::default()).expect("a provider");
        let spec = SandboxSpec::new().source(Source::RootDir(root.clone()));
        match provider.create(spec).await {
            Ok(sandbox) => {
                let found = host::inside(&sandbox, "escape", &["descriptors"]).await;
                assert_eq!(found.get("fds"), "0,1,2,", "{place} to {to}");
                for path in [
                    "/dev/null",
                    "/dev/pts/x",
                    "/dev/shm/x",
                    "/workspace/x",
                    "/etc/x",
                ] {
                    sandbox.write(path, "overwritten").await.ok();
                }
                for path in ["/dev/null", "/workspace/null", "/proc/null", "/etc/null"] {
                    let read = sandbox.read(path).await;
                    assert!(read.is_err(), "{place} to {to}: {path} is {read:?}");
                }
                sandbox.close().await.expect("close");
            }
            Err(error) => {
                let kinds = [
                    ErrorKind::Isolation,
                    ErrorKind::NotADirectory,
                    ErrorKind::AlreadyExists,
                ];
                assert!(kinds.contains(&error.kind()), "{place} to {to}: {error}");
            }
        }
        assert_eq!((tree(&outside), tree(&root)), before, "{place} to {to}");
    }
}
