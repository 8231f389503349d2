//! Specs that can not be.

use std::fs;
use std::path::Path;
use std::time::Duration;

use sandbox_core::{ErrorKind, Labels, Mount, Operation, Provider, Resources, SandboxSpec, Source};
use sandbox_local::{LocalConfig, LocalProvider};

#[tokio::test]
async fn specs_that_can_not_be() {
    let provider = LocalProvider::new(LocalConfig::default()).expect("a provider");
    let host = tempfile::tempdir().expect("a directory");
    let file = host.path().join("file");
    fs::write(&file, "x").expect("a file");
    let missing = host.path().join("missing");
    let new = SandboxSpec::new;
    let root = |path: &Path| new().source(Source::RootDir(path.into()));
    let mount = |guest: &str| new().mount(Mount::read_only(host.path(), guest));
    let cases = [
        (new().workdir("here"), ErrorKind::InvalidInput, "workdir"),
        (new().workdir("/a\0b"), ErrorKind::InvalidInput, "NUL"),
        (new().env("A=B", "c"), ErrorKind::InvalidInput, "variable"),
        (new().ttl(Duration::ZERO), ErrorKind::InvalidInput, "ttl"),
        (
            new().resources(Resources::new().pids(0)),
            ErrorKind::InvalidInput,
            "pids",
        ),
        (
            new().resources(Resources::new().cpus(-1.0)),
            ErrorKind::InvalidInput,
            "cpus",
        ),
        (new().label("", "x"), ErrorKind::InvalidInput, "label"),
        (
            new().source(Source::Image("Not A Name".into())),
            ErrorKind::InvalidInput,
            "reference",
        ),
        (
            new().source(Source::RootDir("x".into())),
            ErrorKind::InvalidInput,
            "relative",
        ),
        (root(&missing), ErrorKind::NotFound, "missing"),
        (root(&file), ErrorKind::NotADirectory, "/file"),
        (
            new().mount(Mount::read_only("x", "/x")),
            ErrorKind::InvalidInput,
            "host path",
        ),
        (
            new().mount(Mount::read_only(&missing, "/x")),
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
            mount("/opt/a").mount(Mount::read_only(&file, "/opt/../opt/a")),
            ErrorKind::InvalidInput,
            "same place",
        ),
        (
            mount(if Path::new("/bin").is_symlink() {
                "/bin/tool"
            } else {
                "/"
            }),
            ErrorKind::InvalidInput,
            "mount",
        ),
        (
            new().mount(Mount::read_only(&file, "/usr/bin")),
            ErrorKind::InvalidInput,
            "nor a file on a directory",
        ),
        (new().workdir("/usr/new"), ErrorKind::ReadOnly, "/usr/new"),
        (
            new().workdir("/etc/passwd"),
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
    let list = provider.list(&Labels::default()).await.expect("a list");
    assert!(list.is_empty(), "nothing was made");
    let sandbox = provider
        .create(new())
        .await
        .expect("the provider is usable");
    sandbox.close().await.expect("close");
}
