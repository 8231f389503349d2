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
    Control, Error, ErrorKind, Mount, Provider as _, Resources, Sandbox, SandboxExt as _,
    SandboxSpec, Source,
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
        assert!(reference.starts_with("oci:"), "{reference}");
        if let ImageEvent::Ready { cached: false, .. } = event {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        self.1.lock().unwrap().push(event.clone());
    }
}

/// A place for an image, a cache and the state of providers.
struct Place {
    dir: tempfile::TempDir,
    unpacked: Arc<Unpacked>,
}

impl Place {
    fn new() -> Self {
        Self {
            dir: tempfile::Builder::new()
                .prefix("sandbox-images")
                .tempdir_in("/var/tmp")
                .unwrap(),
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
