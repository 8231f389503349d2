//! Images from registries: Debian's own, and one that lies.
#![cfg(all(feature = "registry", target_os = "linux"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, helpers too"
)]

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sandbox_core::{Error, ErrorKind, Result, Secret};
use sandbox_oci::{Cache, Event, Image, ImageConfig, NewImage, Reference, Registries};
use serde_json::{Value, json};
use support::*;

/// Pulls and unpacks, on a thread for blocking work as a backend does; gives the events.
async fn pull(
    registries: &Registries,
    cache: &Path,
    reference: &str,
    fresh: bool,
) -> Result<(Image, Vec<Event>)> {
    let (registries, dir) = (registries.clone(), cache.to_owned());
    let reference = reference.to_owned();
    let work = move || {
        let cache: Cache = cache_at(&dir);
        let Reference::Registry(name) = reference.parse()? else {
            panic!("{reference} is not of a registry");
        };
        let events = Mutex::new(Vec::new());
        let event = |event| events.lock().unwrap().push(event);
        let runtime = tokio::runtime::Handle::current();
        let image = registries.pull(&name, &cache, fresh, &runtime, &event, &|| true)?;
        cache.take(&reference, &image, &event, &|| true)?;
        Ok((image, events.into_inner().unwrap()))
    };
    tokio::task::spawn_blocking(work).await.unwrap()
}

fn cache_at(dir: &Path) -> Cache {
    cache(dir)
}

/// Debian's registry on a port of its own; ends with this.
struct Server(std::process::Child, u16);

impl Server {
    fn start(dir: &Path) -> Self {
        let config = dir.join("config.yml");
        let storage = dir.join("storage");
        std::fs::create_dir_all(&storage).unwrap();
        let text = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:0'}}\n",
            storage.display()
        );
        std::fs::write(&config, text).unwrap();
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(config)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("Debian's docker-registry is installed");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let port = lines.find_map(|line| {
            let line = line.unwrap();
            let after = line.split("listening on 127.0.0.1:").nth(1)?;
            let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().ok()
        });
        // What it says later must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self(child, port.expect("it listens"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_debians_registry_is_pulled_once_and_then_needs_no_network() {
    let dir = support::place();
    let server = Server::start(&dir.path().join("server"));
    let layers = [
        Tar::new().file("one", &"1".repeat(3 << 20)).finish(),
        Tar::new().file("two", "2").finish(),
    ];
    let layout = image(&dir.path().join("image"), &layers);
    let reference = format!("127.0.0.1:{}/some/base:1", server.1);
    let copied = Command::new("skopeo")
        .args(["--insecure-policy", "copy", "--dest-tls-verify=false"])
        .arg(format!("oci:{}:it", layout.dir.display()))
        .arg(format!("docker://{reference}"))
        .output()
        .expect("Debian's skopeo is installed");
    assert!(
        copied.status.success(),
        "{}",
        String::from_utf8_lossy(&copied.stderr)
    );
    let (registries, cache) = (Registries::new(), dir.path().join("cache"));
    let (pulled, events) = pull(&registries, &cache, &reference, false).await.unwrap();
    let fetched = |events: &[Event]| {
        let is_whole =
            |event: &&Event| matches!(event, Event::Fetching { done, total, .. } if done == total);
        events.iter().filter(is_whole).count()
    };
    assert_eq!((pulled.layers.len(), fetched(&events)), (2, 2));
    let missing = format!("127.0.0.1:{}/some/base:2", server.1);
    let error = pull(&registries, &cache, &missing, false)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let (again, events) = pull(&registries, &cache, &reference, true).await.unwrap();
    assert_eq!((&again.digest, fetched(&events)), (&pulled.digest, 0));
    drop(server);
    let (again, _) = pull(&registries, &cache, &reference, false).await.unwrap();
    assert_eq!(again.digest, pulled.digest);
    let error = pull(&registries, &cache, &reference, true)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.is_retryable());
}

/// Puts an image of a layout into a registry, on a thread for blocking work.
async fn push(dir: &Path, image: &'static str, to: String) -> Result<String> {
    let dir = dir.to_owned();
    let work = move || {
        let Reference::Registry(name) = to.parse()? else {
            panic!("{to} is not of a registry");
        };
        let runtime = tokio::runtime::Handle::current();
        let layout = sandbox_oci::Layout::open(dir).unwrap();
        let pushed = Registries::new().push(&layout, image, &name, &runtime, &|| true);
        pushed.map(|digest| digest.to_string())
    };
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pushed_and_comes_back_as_it_was() {
    let dir = support::place();
    let server = Server::start(&dir.path().join("server"));
    let kept = dir.path().join("layout");
    let layout = sandbox_oci::Layout::open(&kept).unwrap();
    let in_use = layout.use_blobs().unwrap();
    // The second one is the first with a layer more.
    let noise: String = (0..3_000_000_u32)
        .map(|n| char::from((n.wrapping_mul(7919) % 94) as u8 + 33))
        .collect();
    let mut layers = Vec::new();
    for (name, file) in [("one", &*noise), ("two", "2")] {
        let mut writer = layout.write_blob(&in_use).unwrap();
        let layer = Tar::new().file(name, file).finish();
        writer.write_all(&layer).unwrap();
        layers.push(writer.finish().unwrap());
        let image = NewImage::new(ImageConfig::default(), layers.clone());
        layout.save(name, image, &in_use).unwrap();
    }
    drop(in_use);
    let port = server.1;
    let at = |version: &str| format!("127.0.0.1:{port}/some/base{version}");
    for (image, layers) in [("one", 1), ("two", 2)] {
        let digest = push(&kept, image, at(":it")).await.unwrap();
        // The tag has moved with the second one.
        let cache = dir.path().join(format!("cache-{image}"));
        let (pulled, _) = pull(&Registries::new(), &cache, &at(":it"), true)
            .await
            .unwrap();
        assert_eq!(
            (pulled.digest.to_string(), pulled.layers.len()),
            (digest, layers)
        );
    }
    // The official tool reads it too.
    let seen = Command::new("skopeo")
        .args(["inspect", "--tls-verify=false"])
        .arg(format!("docker://{}", at(":it")))
        .output()
        .expect("Debian's skopeo is installed");
    let seen: Value = serde_json::from_slice(&seen.stdout).unwrap();
    assert_eq!(seen["Layers"].as_array().unwrap().len(), 2, "{seen}");

    let error = push(&kept, "absent", at(":it")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let digest = format!("@sha256:{}", "0".repeat(64));
    let error = push(&kept, "one", at(&digest)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    // A blob that is damaged is refused there, and the name stays what it was.
    let damaged = kept.join("blobs/sha256").join(layers[0].digest.hex());
    let mut bytes = std::fs::read(&damaged).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&damaged, bytes).unwrap();
    let other = format!("127.0.0.1:{port}/other:it");
    push(&kept, "one", other.clone()).await.unwrap_err();
    let error = pull(&Registries::new(), &dir.path().join("cache"), &other, true)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    drop(server);
    let error = push(&kept, "two", at(":it")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.is_retryable());
}

/// An answer of the double: status, headers and body.
#[derive(Clone)]
struct Answer(u16, Vec<(String, String)>, Body);

#[derive(Clone)]
enum Body {
    Bytes(Vec<u8>),
    /// Without an end.
    Endless,
    /// Announced, and never sent.
    Silent,
}

fn answer(status: u16, body: impl Into<Vec<u8>>) -> Answer {
    Answer(status, Vec::new(), Body::Bytes(body.into()))
}

impl Answer {
    fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.1.push((name.into(), value.into()));
        self
    }
}

/// A request to the double: its path, and what it is to be let in by.
type Seen = (String, Option<String>);
type Routes = Arc<dyn Fn(&str, Option<&str>) -> Answer + Send + Sync>;

/// A registry that answers what a test wants.
struct Double {
    port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Double {
    fn start(routes: impl Fn(&str, Option<&str>) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (seen, routes): (Arc<Mutex<Vec<Seen>>>, Routes) = (Arc::default(), Arc::new(routes));
        let noted = seen.clone();
        // Ends with the process: a test that is over has no more requests.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (noted, routes) = (noted.clone(), routes.clone());
                std::thread::spawn(move || {
                    let _ = serve(stream, &noted, &routes);
                });
            }
        });
        Self { port, seen }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, seen: &Mutex<Vec<Seen>>, routes: &Routes) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    reader.by_ref().take(10_000).read_line(&mut first)?;
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut access = None;
    loop {
        let mut line = String::new();
        reader.by_ref().take(10_000).read_line(&mut line)?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("authorization")
        {
            access = Some(value.to_owned());
        }
    }
    seen.lock().unwrap().push((path.clone(), access.clone()));
    let Answer(status, headers, body) = routes(&path, access.as_deref());
    write!(stream, "HTTP/1.1 {status} X\r\nConnection: close\r\n")?;
    for (name, value) in headers {
        write!(stream, "{name}: {value}\r\n")?;
    }
    match body {
        Body::Bytes(bytes) => {
            write!(stream, "Content-Length: {}\r\n\r\n", bytes.len())?;
            stream.write_all(&bytes)
        }
        Body::Silent => {
            write!(stream, "Content-Length: 10\r\n\r\n")?;
            // Until the client has gone.
            reader.read_to_end(&mut Vec::new()).map(drop)
        }
        Body::Endless => {
            write!(stream, "\r\n")?;
            loop {
                stream.write_all(&[b' '; 65536])?;
            }
        }
    }
}

/// The files of an image as a registry has them, by path.
fn files(dir: &Path) -> (BTreeMap<String, Vec<u8>>, Value) {
    let layer = Tar::new().file("f", "content").finish();
    let layout = Layout::new(dir);
    let ours = layout.manifest(&[(gzip(&layer), &layer)], json!({}), &arch());
    let theirs = layout.manifest(&[(gzip(&layer), &layer)], json!({}), "s390x");
    let index = layout.nested(&[theirs, ours]);
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir.join("blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let bytes = std::fs::read(path).unwrap();
        for kind in ["blobs", "manifests"] {
            files.insert(format!("/v2/x/y/{kind}/sha256:{name}"), bytes.clone());
        }
    }
    let digest = index["digest"].as_str().unwrap().to_owned();
    let bytes = files[&format!("/v2/x/y/manifests/{digest}")].clone();
    files.insert("/v2/x/y/manifests/latest".into(), bytes);
    (files, index)
}

fn plain(files: &BTreeMap<String, Vec<u8>>, path: &str) -> Answer {
    match files.get(path) {
        Some(bytes) => answer(200, bytes.clone()),
        None => answer(404, "{}"),
    }
}

async fn from(registries: &Registries, port: u16) -> Result<Image> {
    let dir = support::place();
    let reference = format!("127.0.0.1:{port}/x/y");
    let pulled = pull(registries, dir.path(), &reference, false).await;
    if pulled.is_err() {
        let layers = std::fs::read_dir(dir.path().join("layers")).unwrap();
        assert_eq!(layers.count(), 0, "something of it was used");
        let parts = std::fs::read_dir(dir.path().join("blobs/sha256"))
            .unwrap()
            .flatten();
        let is_part = |entry: std::fs::DirEntry| entry.path().extension().is_some();
        assert_eq!(
            parts.map(is_part).filter(|part| *part).count(),
            0,
            "half a blob stays"
        );
    }
    pulled.map(|(image, _)| image)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_got_and_given_to_the_registry_alone() {
    let dir = support::place();
    let (files, _) = files(dir.path());
    let storage = {
        let files = files.clone();
        Double::start(move |path, _| plain(&files, path))
    };
    let elsewhere = storage.port;
    let tokens = Double::start(|path, access| match access {
        Some("Basic bWU6czNjcjN0") if path.contains("scope=repository%3Ax%2Fy%3Apull") => {
            answer(200, r#"{"access_token": "the-token"}"#)
        }
        _ => answer(401, "{}"),
    });
    let realm = format!("http://127.0.0.1:{}/token", tokens.port);
    let registry = Double::start(move |path, access| {
        if access != Some("Bearer the-token") {
            let asked = format!("Bearer realm=\"{realm}\",service=\"double\",scope=\"any\"");
            return answer(401, "{}").with("WWW-Authenticate", asked);
        }
        match path.contains("/blobs/") {
            true => {
                let to = format!("http://127.0.0.1:{elsewhere}{path}");
                answer(307, "").with("Location", to)
            }
            false => plain(&files, path),
        }
    });
    let host = format!("127.0.0.1:{}", registry.port);
    let mine = Registries::new().credentials(&host, "me", Secret::new("s3cr3t"));
    let image = from(&mine, registry.port).await.unwrap();
    assert_eq!(image.layers.len(), 1);
    assert!(storage.seen().len() >= 2, "{:?}", storage.seen());
    assert!(
        storage.seen().iter().all(|(_, access)| access.is_none()),
        "{:?}",
        storage.seen()
    );
    assert!(
        registry
            .seen()
            .iter()
            .all(|(_, access)| access.as_deref() != Some("Basic bWU6czNjcjN0"))
    );
    // Credentials of another host are not used for this one.
    let other = Registries::new().credentials("ghcr.io", "me", Secret::new("s3cr3t"));
    let before = tokens.seen().len();
    let error = from(&other, registry.port).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    assert!(
        tokens.seen()[before..]
            .iter()
            .all(|(_, access)| access.is_none())
    );
    assert!(!format!("{error:?}").contains("s3cr3t"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_asks_for_a_password_gets_the_one_that_was_given_for_it() {
    let dir = support::place();
    let (files, _) = files(dir.path());
    let registry = Double::start(move |path, access| match access {
        Some("Basic bWU6czNjcjN0") => plain(&files, path),
        _ => answer(401, "{}").with("WWW-Authenticate", "Basic realm=\"x\""),
    });
    let host = format!("127.0.0.1:{}", registry.port);
    let mine = Registries::new().credentials(&host, "me", Secret::new("s3cr3t"));
    from(&mine, registry.port).await.unwrap();
    let error = from(&Registries::new(), registry.port).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    // As a mirror of another, under its own name.
    let dir = support::place();
    let mirrored = mine.mirror("registry.example", &host);
    pull(&mirrored, dir.path(), "registry.example/x/y", false)
        .await
        .unwrap();
}

/// Each lie, and what it is told as; the control is the same registry without it.
#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_lies_is_not_believed() {
    type Lie = fn(&str, &[u8]) -> Option<Answer>;
    let lies: [(&str, Lie, &[ErrorKind]); 11] = [
        ("nothing", |_, _| None, &[]),
        (
            "another blob",
            |path, bytes| {
                path.contains("/blobs/").then(|| {
                    let mut other = bytes.to_vec();
                    other[5] ^= 1;
                    answer(200, other)
                })
            },
            &[ErrorKind::Other],
        ),
        (
            "a longer blob",
            |path, bytes| {
                path.contains("/blobs/")
                    .then(|| answer(200, [bytes, b"x"].concat()))
            },
            &[ErrorKind::Other],
        ),
        (
            "a shorter blob",
            |path, bytes| {
                path.contains("/blobs/")
                    .then(|| answer(200, &bytes[..bytes.len() - 1]))
            },
            &[ErrorKind::Other],
        ),
        (
            "a blob without an end",
            |path, _| {
                path.contains("/blobs/")
                    .then(|| Answer(200, vec![], Body::Endless))
            },
            &[ErrorKind::Other],
        ),
        (
            "a manifest without an end",
            |path, _| {
                path.contains("/manifests/")
                    .then(|| Answer(200, vec![], Body::Endless))
            },
            &[ErrorKind::LimitExceeded],
        ),
        (
            "another manifest than the index names",
            |path, bytes| {
                path.contains("/manifests/sha256")
                    .then(|| answer(200, [bytes, b" "].concat()))
            },
            &[ErrorKind::Other],
        ),
        (
            "a loop of redirects",
            |path, _| {
                path.contains("/blobs/")
                    .then(|| answer(302, "").with("Location", path))
            },
            &[ErrorKind::Other],
        ),
        (
            "a redirect to a service of the network",
            |path, _| {
                path.contains("/blobs/")
                    .then(|| answer(302, "").with("Location", "http://169.254.169.254/latest/"))
            },
            &[ErrorKind::Other],
        ),
        (
            "too many requests",
            |_, _| Some(answer(429, "").with("Retry-After", "30")),
            &[ErrorKind::RateLimited],
        ),
        (
            "something that is no manifest",
            |path, _| path.contains("/manifests/").then(|| answer(200, "<html>")),
            &[ErrorKind::InvalidInput],
        ),
    ];
    let dir = support::place();
    let (files, _) = files(dir.path());
    for (what, lie, kinds) in lies {
        let files = files.clone();
        let registry = Double::start(move |path, _| {
            let bytes = files.get(path).map(Vec::as_slice).unwrap_or_default();
            lie(path, bytes).unwrap_or_else(|| plain(&files, path))
        });
        let pulled: std::result::Result<Image, Error> =
            from(&Registries::new(), registry.port).await;
        match pulled {
            Ok(_) => assert!(kinds.is_empty(), "{what} was believed"),
            Err(error) => {
                assert!(
                    kinds.contains(&error.kind()),
                    "{what}: {:?} {error}",
                    error.kind()
                );
                assert!(
                    registry.seen().len() < 20,
                    "{what}: {}",
                    registry.seen().len()
                );
            }
        }
    }
}

/// Such a layer would fill the disk before its digest could be wrong.
#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_is_said_to_be_larger_than_allowed_is_not_fetched() {
    let dir = support::place();
    let (files, _) = files(dir.path());
    let is_ours = |bytes: &&Vec<u8>| {
        let manifest: Option<Value> = serde_json::from_slice(bytes).ok();
        manifest.is_some_and(|manifest| manifest["layers"].is_array())
    };
    let manifests = files.values().filter(is_ours);
    let mut refused = 0;
    for manifest in manifests {
        let mut manifest: Value = serde_json::from_slice(manifest).unwrap();
        manifest["layers"][0]["size"] = json!(1_u64 << 50);
        let layer = manifest["layers"][0]["digest"].as_str().unwrap().to_owned();
        let (files, manifest) = (files.clone(), manifest.to_string());
        let registry = Double::start(move |path, _| match path {
            path if path.ends_with("/latest") => answer(200, manifest.clone()),
            path => plain(&files, path),
        });
        let error = from(&Registries::new(), registry.port).await.unwrap_err();
        let fetched = registry.seen();
        let fetched = fetched.iter().any(|(path, _)| path.ends_with(&layer));
        assert!(!fetched, "{error}");
        refused += usize::from(error.kind() == ErrorKind::LimitExceeded);
    }
    assert_eq!(
        refused, 2,
        "one of this machine's is in it, twice by its paths"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_is_not_wanted_any_more_ends_while_the_registry_is_silent() {
    let dir = support::place();
    let (files, _) = files(&dir.path().join("image"));
    for silent in ["/manifests/latest", "/manifests/sha256:", "/blobs/sha256:"] {
        let files = files.clone();
        let (asked, was_asked) = std::sync::mpsc::channel();
        let double = Double::start(move |path, _| {
            if !path.contains(silent) {
                return plain(&files, path);
            }
            let _ = asked.send(());
            Answer(200, Vec::new(), Body::Silent)
        });
        let cache = cache_at(&dir.path().join(silent.replace(['/', ':'], "-")));
        let name = format!("127.0.0.1:{}/x/y:latest", double.port);
        let Ok(Reference::Registry(name)) = name.parse() else {
            panic!("{name} is not of a registry");
        };
        let is_wanted = Arc::new(AtomicBool::new(true));
        let wanted = Arc::clone(&is_wanted);
        let runtime = tokio::runtime::Handle::current();
        let pulling = tokio::task::spawn_blocking(move || {
            let wanted = || wanted.load(Ordering::Relaxed);
            Registries::new().pull(&name, &cache, true, &runtime, &|_| {}, &wanted)
        });
        tokio::task::spawn_blocking(move || was_asked.recv().unwrap())
            .await
            .unwrap();
        is_wanted.store(false, Ordering::Relaxed);
        let ended = tokio::time::timeout(Duration::from_secs(20), pulling).await;
        let error = ended.expect("it goes on").unwrap().unwrap_err();
        assert!(error.to_string().contains("cancelled"), "{error}");
    }
}
