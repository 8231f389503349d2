//! Sandboxes that start from an image.
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

use std::error::Error as _;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use sandbox_core::{
    Control, Error, ErrorKind, GuestUser, Mount, Provider as _, Resources, Sandbox,
    SandboxExt as _, SandboxSpec, Source,
};
use sandbox_local::{
    ImageEvent, ImageFault, ImageLimits, ImageProgress, LocalConfig, LocalProvider,
};
use sandbox_oci::ImageConfig;
use support::sh;

/// Counts what is unpacked.
#[derive(Debug, Default)]
struct Unpacked(AtomicUsize, Mutex<Vec<ImageEvent>>);

impl ImageProgress for Unpacked {
    fn event(&self, reference: &str, event: &ImageEvent) {
        let is_known = reference.starts_with("oci:") || reference.starts_with("snapshot ");
        assert!(is_known, "{reference}");
        if let ImageEvent::Ready { cached: false, .. } = event {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        self.1.lock().unwrap().push(event.clone());
    }
}

/// A place for an image, a cache and the state of providers.
struct Place {
    dir: image::Place,
    unpacked: Arc<Unpacked>,
}

impl Place {
    fn new() -> Self {
        Self {
            dir: image::place("sandbox-images"),
            unpacked: Arc::default(),
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// An image of busybox and these layers above it.
    fn image(&self, above: &[&Path], config: ImageConfig) -> SandboxSpec {
        let lowest = self.path("busybox");
        image::busybox(&lowest).unwrap();
        let layers: Vec<&Path> = std::iter::once(&*lowest)
            .chain(above.iter().copied())
            .collect();
        image::save(&self.path("image"), &layers, config).unwrap();
        self.spec()
    }

    fn spec(&self) -> SandboxSpec {
        let reference = format!("oci:{}", self.path("image").display());
        SandboxSpec::new().source(Source::Image(reference))
    }

    fn config(&self) -> LocalConfig {
        // Each provider its own state: what they share is the cache.
        LocalConfig::default()
            .images_dir(self.path("cache"))
            .snapshots_dir(self.path("snapshots"))
            .image_progress(self.unpacked.clone())
    }

    fn provider(&self) -> LocalProvider {
        LocalProvider::new(self.config()).unwrap()
    }

    async fn create(&self, spec: SandboxSpec) -> Arc<dyn Sandbox> {
        self.provider().create(spec).await.unwrap()
    }

    async fn refused(&self, config: LocalConfig, spec: SandboxSpec) -> Error {
        let provider = LocalProvider::new(config).unwrap();
        provider.create(spec).await.expect_err("it was created")
    }
}

/// Everything in the roots of the cached layers. The marks beside them are the cache's own: that a
/// layer is on the disk is noted in the background.
fn unpacked(place: &Place) -> Vec<String> {
    let mut lines = image::listing(&place.path("cache/layers"));
    lines.retain(|line| line.contains("/root"));
    lines
}

fn fault(error: &Error) -> Option<&ImageFault> {
    error.source().and_then(|source| source.downcast_ref())
}

#[tokio::test]
async fn the_configuration_of_an_image_is_in_force() {
    let place = Place::new();
    let mut config = ImageConfig::default();
    config.env = vec![
        "GREETING=hello there".into(),
        "PATH=/bin".into(),
        "broken".into(),
    ];
    config.working_dir = "/srv/app".into();
    config.user = "app".into();
    let spec = place.image(&[], config).env("MORE", "1");
    let sandbox = place.create(spec).await;
    let out = sh(
        &sandbox,
        "pwd; echo $GREETING; echo $PATH; echo $HOME; echo $MORE; id -u",
    )
    .await;
    assert_eq!(out, "/srv/app\nhello there\n/bin\n/home/app\n1\n1000\n");
    // A name for the number that commands run as, beside those that the image has.
    let passwd = sh(&sandbox, "cat /etc/passwd; id -un; cat /etc/hostname").await;
    assert!(passwd.contains("app:x:33:33"), "{passwd}");
    assert!(passwd.ends_with("sandbox\nsandbox\n"), "{passwd}");
    sandbox.close().await.unwrap();
    let spec = place
        .spec()
        .workdir("/elsewhere")
        .env("PATH", "/bin:/usr/bin");
    let sandbox = place.create(spec).await;
    assert_eq!(
        sh(&sandbox, "pwd; echo $PATH").await,
        "/elsewhere\n/bin:/usr/bin\n"
    );
    sandbox.close().await.unwrap();
}

#[tokio::test]
async fn layers_are_one_root_in_which_everything_may_be_written_and_nothing_reaches_the_cache() {
    let place = Place::new();
    let above = place.path("above");
    fs::create_dir_all(above.join("usr")).unwrap();
    fs::create_dir_all(above.join("data")).unwrap();
    fs::write(above.join("data/.wh..wh..opq"), "").unwrap();
    fs::write(above.join("data/new"), "new").unwrap();
    fs::write(above.join(".wh.gone"), "").unwrap();
    std::os::unix::fs::symlink("usr/lib", above.join("lib")).unwrap();
    let lowest = place.path("busybox");
    fs::create_dir_all(lowest.join("data")).unwrap();
    fs::write(lowest.join("data/old"), "old").unwrap();
    fs::write(lowest.join("gone"), "x").unwrap();
    let spec = place.image(&[&above], ImageConfig::default());
    let sandbox = place.create(spec).await;
    let cached = unpacked(&place);
    assert!(!cached.is_empty());
    assert_eq!(
        sh(&sandbox, "ls /data; test -e /gone || echo none").await,
        "new\nnone\n"
    );
    let script = "echo changed > /data/new && rm /bin/xargs && chmod 700 /usr && mkdir /lib/here && \
                  mv /home/app /home/moved && ln /bin/busybox /bin/another && \
                  touch /etc/passwd && rm -r /data && mkdir /data && ls /data | wc -l && \
                  ls /usr/lib && test ! -e /bin/xargs && echo done";
    assert_eq!(sh(&sandbox, script).await, "0\nhere\ndone\n");
    sandbox.write("/root/by-the-host", "x").await.unwrap();
    let fork = sandbox.fork(Default::default()).await.unwrap();
    assert_eq!(
        sh(&fork, "ls /usr/lib /root").await,
        "/root:\nby-the-host\n\n/usr/lib:\nhere\n"
    );
    fork.close().await.unwrap();
    sandbox.close().await.unwrap();
    assert_eq!(unpacked(&place), cached);
    // Another provider, with another user as root: the same layers, as they were.
    let other = place.create(place.spec()).await;
    assert_eq!(
        sh(&other, "cat /data/new; ls /usr/lib /root").await,
        "new/root:\n\n/usr/lib:\n"
    );
    other.close().await.unwrap();
    assert_eq!(
        place.unpacked.0.load(Ordering::Relaxed),
        2,
        "each layer is unpacked once"
    );
}

#[tokio::test]
async fn sandboxes_of_one_provider_have_the_settings_of_their_own_image_and_user() {
    let place = Place::new();
    let plain = place.image(&[], ImageConfig::default());
    let above = place.path("above");
    fs::create_dir_all(above.join("etc")).unwrap();
    fs::write(above.join("etc/passwd"), "other:x:7:7::/:/bin/sh\n").unwrap();
    image::save(
        &place.path("another"),
        &[&place.path("busybox"), &above],
        ImageConfig::default(),
    )
    .unwrap();
    let another = format!("oci:{}", place.path("another").display());
    let another = SandboxSpec::new().source(Source::Image(another));
    let root = plain.clone().user(GuestUser::Root);
    let provider = place.provider();
    // Each again after all the others; what one of them changed is its own.
    for round in 0..2 {
        for (spec, expected) in [
            (&plain, "root app sandbox"),
            (&another, "other sandbox"),
            (&root, "root app"),
        ] {
            let sandbox = provider.create(spec.clone()).await.unwrap();
            let sandbox: Arc<dyn Sandbox> = sandbox;
            let names = sh(
                &sandbox,
                "while IFS=: read n _; do printf '%s ' $n; done < /etc/passwd; cat /etc/hostname; \
                 echo changed > /etc/hostname; echo changed:x:1:1::/: > /etc/passwd",
            )
            .await;
            assert_eq!(names, format!("{expected} sandbox\n"), "round {round}");
            sandbox.close().await.unwrap();
        }
    }
}

#[tokio::test]
async fn many_sandboxes_of_several_providers_at_once_unpack_once() {
    let place = Place::new();
    let spec = place.image(&[], ImageConfig::default());
    let providers: Vec<_> = (0..3).map(|_| place.provider()).collect();
    let tasks = (0..9).map(|number| {
        let (provider, spec) = (providers[number % 3].clone(), spec.clone());
        tokio::spawn(async move {
            let sandbox = provider.create(spec).await.unwrap();
            let out = sh(
                &(sandbox.clone() as Arc<dyn Sandbox>),
                "echo > /f; ls /bin | wc -l",
            )
            .await;
            sandbox.close().await.unwrap();
            out
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        assert_eq!(task.await.unwrap().trim(), "31");
    }
    assert_eq!(place.unpacked.0.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn an_image_is_isolated_as_the_default_is_and_limited_as_it_is() {
    let place = Place::new();
    let spec = place.image(&[], ImageConfig::default());
    let spec = spec.resources(Resources::new().disk(8 << 20));
    let sandbox = place.create(spec).await;
    let report = sandbox.isolation().await.unwrap();
    for control in [
        Control::Filesystem,
        Control::Processes,
        Control::Network,
        Control::Ipc,
        Control::Privileges,
        Control::SystemCalls,
        Control::Disk,
    ] {
        assert!(report.is_enforced(control), "{control}: {report:?}");
    }
    let full = sandbox
        .sh("dd if=/dev/zero of=/big bs=1M count=20")
        .await
        .unwrap();
    assert!(!full.success());
    sandbox.close().await.unwrap();
}

#[tokio::test]
async fn what_is_wrong_with_an_image_is_told_by_its_kind_and_its_fault() {
    let place = Place::new();
    let spec = place.image(&[], ImageConfig::default());
    let from = |reference: String| SandboxSpec::new().source(Source::Image(reference));
    let missing = from(format!("oci:{}", place.path("nowhere").display()));
    let error = place.refused(place.config(), missing).await;
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert_eq!(error.host_path(), Some(&*place.path("nowhere")));
    let error = place
        .refused(place.config(), from("UPPER/case".into()))
        .await;
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    let bounded = place
        .config()
        .image_limits(ImageLimits::new().bytes(100_000));
    let error = place.refused(bounded, spec.clone()).await;
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
    assert!(
        matches!(fault(&error), Some(ImageFault::Limit { .. })),
        "{error:?}"
    );
    // A mount whose place the image has as a link would hide what the link leads to.
    let below = spec.clone().mount(Mount::read_only("/usr", "/bin/sh/x"));
    let error = place.refused(place.config(), below).await;
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(error.to_string().contains("/bin/sh is a link"), "{error}");
    // As a tool writes an image for another machine.
    let foreign = place.path("foreign");
    image::of_directory(&place.path("busybox"), &foreign).unwrap();
    let named = format!("{}:it", foreign.display());
    let made = std::process::Command::new("umoci")
        .args(["config", "--image", &named, "--architecture", "riscv64"])
        .status()
        .expect("Debian's umoci is installed: see .ci/run");
    assert!(made.success());
    let error = place
        .refused(place.config(), from(format!("oci:{named}")))
        .await;
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(
        matches!(fault(&error), Some(ImageFault::Platform { found, .. }) if *found == ["linux/riscv64"]),
        "{error:?}"
    );
    assert!(error.to_string().contains("linux/riscv64"), "{error}");
    let blobs = fs::read_dir(place.path("image/blobs/sha256"))
        .unwrap()
        .flatten();
    let largest = blobs
        .max_by_key(|blob| blob.metadata().unwrap().len())
        .unwrap()
        .path();
    let mut bytes = fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&largest, bytes).unwrap();
    let store = sandbox_local::LocalStore::open(&place.config()).unwrap();
    assert_eq!(store.collect_images(0).unwrap().layers, 1);
    let error = place.refused(place.config(), spec).await;
    assert!(
        matches!(error.kind(), ErrorKind::Other | ErrorKind::InvalidInput),
        "an altered layer: {error}"
    );
    assert_eq!(fs::read_dir(place.path("cache/layers")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(place.path("cache/making")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_sandbox_keeps_its_layers_from_being_collected() {
    let place = Place::new();
    let spec = place.image(&[], ImageConfig::default());
    let sandbox = place.create(spec).await;
    let layers = || fs::read_dir(place.path("cache/layers")).unwrap().count();
    let collect = || {
        let store = sandbox_local::LocalStore::open(&place.config()).unwrap();
        store.collect_images(0).unwrap().layers
    };
    assert_eq!((collect(), layers()), (0, 1));
    assert_eq!(sh(&sandbox, "echo alive").await, "alive\n");
    sandbox.close().await.unwrap();
    drop(sandbox);
    // The janitor gives the layer up in the background.
    while collect() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(layers(), 0);
}

/// Copies programs of the host and the libraries that they need into a root directory.
fn equip(root: &Path, programs: &[&str]) {
    for program in programs {
        let listed = std::process::Command::new("ldd").arg(program).output();
        let listed = String::from_utf8(listed.expect("libc-bin is installed").stdout).unwrap();
        let libraries = listed
            .split_whitespace()
            .filter(|word| word.starts_with('/'));
        for file in libraries.chain([*program]) {
            let to = root.join(file.trim_start_matches('/'));
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(file, to).unwrap();
        }
    }
}

/// Debian's own programs for packages, archives and users, on a package and an archive with owners that
/// there are none of.
#[tokio::test]
async fn programs_that_must_be_root_work_for_root_and_fail_without() {
    let place = Place::new();
    let root = place.path("busybox");
    image::busybox(&root).unwrap();
    let programs = [
        "/usr/bin/dpkg",
        "/usr/bin/dpkg-deb",
        "/usr/bin/dpkg-split",
        "/usr/bin/dpkg-query",
        "/usr/bin/tar",
        "/usr/bin/diff",
        "/usr/sbin/useradd",
        "/usr/sbin/groupadd",
        "/usr/bin/chown",
        "/sbin/ldconfig",
        "/sbin/start-stop-daemon",
    ];
    equip(&root, &programs);
    for dir in ["info", "updates", "triggers", "parts"] {
        fs::create_dir_all(root.join("var/lib/dpkg").join(dir)).unwrap();
    }
    for file in ["status", "available", "triggers/File", "triggers/Unincorp"] {
        fs::write(root.join("var/lib/dpkg").join(file), "").unwrap();
    }
    fs::write(root.join("etc/group"), "root:x:0:\napp:x:33:\n").unwrap();
    fs::write(root.join("etc/shadow"), "root:*:1:0:99999:7:::\n").unwrap();
    let package = place.path("package");
    fs::create_dir_all(package.join("DEBIAN")).unwrap();
    fs::create_dir_all(package.join("opt/thing")).unwrap();
    fs::write(package.join("opt/thing/file"), "of the package\n").unwrap();
    let control =
        "Package: thing\nVersion: 1\nArchitecture: all\nMaintainer: m <m@x.y>\nDescription: d\n";
    fs::write(package.join("DEBIAN/control"), control).unwrap();
    let script = "#!/bin/sh\nset -e\ngroupadd --system things\nuseradd --system -g things thing\n\
                  chown thing:things /opt/thing/file\nchmod 2640 /opt/thing/file\n";
    fs::write(package.join("DEBIAN/postinst"), script).unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(package.join("DEBIAN/postinst"), mode).unwrap();
    let tool = |command: &mut std::process::Command| {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{command:?}: {output:?}");
    };
    tool(
        std::process::Command::new("dpkg-deb")
            .args(["--root-owner-group", "-Zgzip", "-b"])
            .args([&package, &root.join("thing.deb")]),
    );
    tool(
        std::process::Command::new("tar")
            .args(["--owner=12:12", "--group=34:34", "-C"])
            .args([&package, Path::new("-cf")])
            .args([&root.join("foreign.tar"), Path::new("opt")]),
    );
    image::save(&place.path("image"), &[&root], ImageConfig::default()).unwrap();
    let spec = place.spec();
    // By their paths: this shell has programs of its own by some of these names.
    let scripts = [
        "/usr/bin/dpkg -i /thing.deb && cat /opt/thing/file",
        "mkdir /x && /usr/bin/tar --same-owner -xf /foreign.tar -C /x && cat /x/opt/thing/file",
        "/usr/sbin/useradd -m someone && /usr/bin/chown someone /home/someone && id someone",
    ];
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let without = place.create(spec.clone().env("PATH", path)).await;
    for script in scripts {
        let output = without.sh(script).await.unwrap();
        assert!(!output.success(), "no control: {script}: {output:?}");
    }
    without.close().await.unwrap();
    let spec = spec.env("PATH", path).user(GuestUser::Root);
    let sandbox = place.create(spec.clone()).await;
    for script in scripts {
        let output = sandbox.sh(script).await.unwrap();
        assert!(output.success(), "{script}: {output:?}");
    }
    assert_eq!(
        sh(&sandbox, "id -un; echo $USER $HOME").await,
        "root\nroot /root\n"
    );
    let found = sandbox
        .metadata(&"/opt/thing/file".into(), Default::default())
        .await
        .unwrap();
    assert_eq!(
        (found.uid, found.gid),
        (Some(0), Some(0)),
        "as the guest sees it"
    );
    // What was installed is used without root, and is the guest's there.
    let snapshot = sandbox.snapshot(Default::default()).await.unwrap();
    sandbox.close().await.unwrap();
    let spec = SandboxSpec::new().source(Source::Snapshot(snapshot.id.clone()));
    let provider = place.provider();
    let user: Arc<dyn Sandbox> = provider.create(spec).await.unwrap();
    assert_eq!(
        sh(&user, "id -u; cat /opt/thing/file").await,
        "1000\nof the package\n"
    );
    user.close().await.unwrap();
    provider.delete_snapshot(&snapshot.id).await.unwrap();
}

#[tokio::test]
async fn root_reaches_neither_the_init_nor_the_kernels_settings() {
    let place = Place::new();
    let spec = place
        .image(&[], ImageConfig::default())
        .user(GuestUser::Root);
    let sandbox = place.create(spec).await;
    // The control: root's own process, and a setting that by owner and mode is root's to write.
    let control = "cat /proc/self/environ /proc/self/maps > /dev/null && echo read && \
                   stat -c '%u %a' /proc/sys/kernel/msgmax";
    assert_eq!(sh(&sandbox, control).await, "read\n0 644\n");
    for script in [
        "echo 1 > /proc/sys/kernel/msgmax",
        "cat /proc/1/environ",
        "cat /proc/1/maps",
        "cat /proc/1/mem",
        "ls /proc/1/root/",
        "cat /proc/1/fd/3",
        "readlink /proc/1/exe",
    ] {
        let output = sandbox.sh(script).await.unwrap();
        assert!(!output.success(), "{script}: {output:?}");
    }
    sandbox.close().await.unwrap();
}
