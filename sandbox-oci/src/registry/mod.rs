//! Images from registries: fetched into a cache, each byte compared with its digest; and into them.
//!
//! A registry is untrusted. Must never speak plain HTTP to anything but this machine's loopback, send
//! credentials to a place that they were not given for, follow a redirect from a registry elsewhere
//! to this machine, or read without a bound.
//!
//! References: OCI distribution specification 1.1; distribution's documentation, "Token
//! Authentication Specification".

mod push;

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode, Url};
use sandbox_core::backend::FileLock;
use sandbox_core::{Error, ErrorKind, Operation, Result, Secret};
use serde::Deserialize;
use tokio::runtime::Handle;

use crate::blobs::{Blobs, DOCUMENT, verify};
use crate::cache::{Cache, Event, lock_file, replace, wait_for};
use crate::digest::Digest;
use crate::fault::{ImageFault, io as io_fault, malformed};
use crate::hashing::HashingWriter;
use crate::image::{Image, Platform, blob, for_platform, parse};
use crate::model::{DOCKER_LIST, DOCKER_MANIFEST, Descriptor, Document, INDEX, MANIFEST, Manifest};
use crate::reference::RegistryName;

/// Redirects that one request follows.
const REDIRECTS: usize = 5;
/// The largest answer of a token server, in bytes.
const TOKEN: u64 = 64 << 10;
/// Time in which a connection must be made.
const CONNECT: Duration = Duration::from_secs(15);
/// Time in which something more must come.
const IDLE: Duration = Duration::from_secs(60);
/// Time that an answer may take besides what its bytes take.
const PATIENCE: Duration = Duration::from_secs(120);
/// Bytes of an answer that must come in each second, taken together.
const SLOWEST: u64 = 4 << 10;
/// Pause between two looks at whether an image is wanted still.
const LOOK: Duration = Duration::from_millis(100);
/// Bytes between two events.
const STEP: u64 = 1 << 20;

/// Access to registries. By default anonymous, from the registries themselves.
///
/// ```
/// use sandbox_core::Secret;
/// use sandbox_oci::Registries;
/// let registries = Registries::new()
///     .credentials("ghcr.io", "me", Secret::new("token"))
///     .mirror("docker.io", "mirror.example.org");
/// assert!(!format!("{registries:?}").contains("token"));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Registries {
    credentials: Vec<(String, String, Secret)>,
    mirrors: Vec<(String, String)>,
}

impl Registries {
    /// Anonymous access, without mirrors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Uses a name and password (or token) for the registry at this host, and for no other.
    #[must_use]
    pub fn credentials(
        mut self,
        host: impl Into<String>,
        user: impl Into<String>,
        password: Secret,
    ) -> Self {
        self.credentials.push((host.into(), user.into(), password));
        self
    }

    /// Asks another host for the images of a registry. What it answers is verified as the
    /// registry's is, but which image a tag means is for it to say.
    #[must_use]
    pub fn mirror(mut self, host: impl Into<String>, mirror: impl Into<String>) -> Self {
        self.mirrors.push((host.into(), mirror.into()));
        self
    }

    /// Fetches an image into a cache, without the layers that are unpacked there already, and opens
    /// it: the one for this machine. A tag that was resolved before is not asked for again, unless `fresh`. Blocks: the
    /// requests are made in the runtime, which must have I/O and time enabled.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound), [`Unauthenticated`](ErrorKind::Unauthenticated),
    /// [`PermissionDenied`](ErrorKind::PermissionDenied), [`RateLimited`](ErrorKind::RateLimited),
    /// [`Unavailable`](ErrorKind::Unavailable), and those of [`Image::open`].
    pub fn pull(
        &self,
        name: &RegistryName,
        cache: &Cache,
        fresh: bool,
        runtime: &Handle,
        event: &(dyn Fn(Event) + Sync),
        wanted: &(dyn Fn() -> bool + Sync),
    ) -> Result<Image> {
        let platform = &Platform::host();
        let known = cache.resolved(&name.to_string());
        if let Some(manifest) = known.filter(|_| !fresh)
            && let Ok(image) = opened(cache, manifest, platform)
            && cache.has_layers(&image)
        {
            return Ok(image);
        }
        let client = Client::new(self, name, "pull")?;
        let pulled = client.pull(platform, cache, event, wanted);
        cancellable(runtime, wanted, pulled)
    }
}

/// Does what is wanted in the runtime, as long as it is.
fn cancellable<T>(
    runtime: &Handle,
    wanted: &(dyn Fn() -> bool + Sync),
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    runtime.block_on(async {
        let mut work = std::pin::pin!(work);
        loop {
            match tokio::time::timeout(LOOK, &mut work).await {
                Ok(done) => return done,
                Err(_) if wanted() => {}
                Err(_) => return Err(unwanted()),
            }
        }
    })
}

/// An image whose documents are in the cache.
fn opened(cache: &Cache, manifest: Descriptor, platform: &Platform) -> Result<Image> {
    let blobs = Blobs::directory(cache.dir())?;
    Image::of_descriptor(blobs, manifest, platform, cache.limits())
}

/// One image of one registry.
struct Client<'a> {
    http: reqwest::Client,
    /// For what is sent for long, with nothing to be read meanwhile.
    sending: reqwest::Client,
    /// Actions that it asks the right to.
    actions: &'static str,
    name: &'a RegistryName,
    base: Url,
    credentials: Option<(&'a str, &'a Secret)>,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let address = host.parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn address(host: &str) -> Result<Url> {
    let host = match host {
        "docker.io" | "index.docker.io" => "registry-1.docker.io",
        host => host,
    };
    let parsed = |scheme: &str| {
        Url::parse(&format!("{scheme}://{host}/v2/")).map_err(|error| {
            malformed(format!("{host:?} can't be the host of a registry: {error}"))
        })
    };
    let plain = parsed("http")?;
    match is_loopback(&plain) {
        true => Ok(plain),
        false => parsed("https"),
    }
}

impl<'a> Client<'a> {
    fn new(
        registries: &'a Registries,
        name: &'a RegistryName,
        actions: &'static str,
    ) -> Result<Self> {
        // The process may have one of its own.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = || {
            reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(CONNECT)
        };
        let failed = |error| unavailable(name, &error);
        let http = builder().read_timeout(IDLE).build().map_err(failed)?;
        let sending = builder().build().map_err(failed)?;
        let mirror = registries
            .mirrors
            .iter()
            .find(|(host, _)| *host == name.host);
        let host = mirror.map_or(&name.host, |(_, mirror)| mirror);
        let mut given = registries.credentials.iter();
        let credentials = given.find(|(of, ..)| of == host);
        Ok(Self {
            http,
            sending,
            actions,
            name,
            base: address(host)?,
            credentials: credentials.map(|(_, user, password)| (&**user, password)),
        })
    }

    async fn pull(
        &self,
        platform: &Platform,
        cache: &Cache,
        event: &(dyn Fn(Event) + Sync),
        wanted: &(dyn Fn() -> bool + Sync),
    ) -> Result<Image> {
        let mut access = None;
        let digest = self.name.digest.as_ref();
        let version = self.name.version();
        let (mut descriptor, bytes) = self.manifest(&version, digest, None, &mut access).await?;
        keep(cache, &descriptor.digest, &bytes)?;
        let mut document: Document = parse(&version, &bytes)?;
        let top = descriptor.clone();
        if let Document::Index(index) = &document {
            descriptor = for_platform(index, platform)?;
            let (digest, size) = (descriptor.digest.clone(), descriptor.size);
            let version = digest.to_string();
            let (_, bytes) = self
                .manifest(&version, Some(&digest), Some(size), &mut access)
                .await?;
            keep(cache, &digest, &bytes)?;
            document = parse(&version, &bytes)?;
        }
        let Document::Manifest(manifest) = document else {
            return Err(malformed("its indexes lie too deep in one another"));
        };
        if manifest.config.size > DOCUMENT {
            return Err(ImageFault::Limit {
                what: "bytes in one document",
                limit: DOCUMENT,
            }
            .into_error());
        }
        let nothing = |_| {};
        self.blob(&manifest.config, cache, &mut access, &nothing, wanted)
            .await?;
        // Its platform, its layers and their number are checked before any of them is fetched.
        let image = opened(cache, descriptor, platform)?;
        self.layers(&manifest, &image, cache, &mut access, event, wanted)
            .await?;
        cache.resolve(&self.name.to_string(), &top)?;
        Ok(image)
    }

    async fn layers(
        &self,
        manifest: &Manifest,
        image: &Image,
        cache: &Cache,
        access: &mut Option<String>,
        event: &(dyn Fn(Event) + Sync),
        wanted: &(dyn Fn() -> bool + Sync),
    ) -> Result<()> {
        for (described, layer) in manifest.layers.iter().zip(&image.layers) {
            if cache.has_layer(&layer.chain) {
                continue;
            }
            let told = |done| {
                event(Event::Fetching {
                    blob: described.digest.clone(),
                    done,
                    total: described.size,
                });
            };
            self.blob(described, cache, access, &told, wanted).await?;
        }
        Ok(())
    }

    /// Fetches a manifest or an index; its descriptor, and its bytes.
    async fn manifest(
        &self,
        version: &str,
        digest: Option<&Digest>,
        size: Option<u64>,
        access: &mut Option<String>,
    ) -> Result<(Descriptor, Vec<u8>)> {
        let path = format!("{}/manifests/{version}", self.name.repository);
        let mut response = self.get(&path, access).await?;
        let (mut bytes, mut pace) = (Vec::new(), Pace::begin());
        while let Some(chunk) = self.chunk(&mut response, &mut pace).await? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > DOCUMENT {
                return Err(ImageFault::Limit {
                    what: "bytes in one document",
                    limit: DOCUMENT,
                }
                .into_error());
            }
        }
        let found = Digest::of(&bytes);
        if let Some(digest) = digest {
            let what = format!("the manifest {version}");
            verify(&what, digest, size, &found, bytes.len() as u64)?;
        }
        let descriptor = Descriptor {
            media_type: String::new(),
            digest: found,
            size: bytes.len() as u64,
            urls: Vec::new(),
            annotations: Default::default(),
            platform: None,
        };
        Ok((descriptor, bytes))
    }

    /// Fetches a blob into the cache; what another process is fetching is waited for.
    async fn blob(
        &self,
        described: &Descriptor,
        cache: &Cache,
        access: &mut Option<String>,
        told: &(dyn Fn(u64) + Sync),
        wanted: &(dyn Fn() -> bool + Sync),
    ) -> Result<()> {
        let digest = &described.digest;
        let failed = |error: std::io::Error| {
            io_fault(error, "a part of the image can't be kept").with_host_path(cache.dir())
        };
        let to = cache.dir().join(blob(digest));
        let held = cache
            .dir()
            .join("locks")
            .join(format!("blob-{}", digest.hex()));
        // This thread is for blocking work.
        let alone = || FileLock::try_exclusive(lock_file(&held)?);
        let _alone = wait_for(alone, wanted).map_err(failed)?;
        if fs::metadata(&to).is_ok_and(|found| found.len() == described.size) {
            return Ok(());
        }
        let fresh = to.with_extension("part");
        let path = format!("{}/blobs/{digest}", self.name.repository);
        let mut response = self.get(&path, access).await?;
        let file = File::create(&fresh).map_err(failed)?;
        let part = Part(fresh);
        let mut out = HashingWriter::new(BufWriter::new(file));
        let (mut done, mut pace) = (0, Pace::begin());
        while let Some(chunk) = self.chunk(&mut response, &mut pace).await? {
            done += chunk.len() as u64;
            if done > described.size {
                return Err(ImageFault::Size {
                    what: format!("the blob {digest}"),
                    expected: described.size,
                    found: done,
                }
                .into_error());
            }
            if !wanted() {
                return Err(unwanted());
            }
            out.write_all(&chunk).map_err(failed)?;
            if (done - chunk.len() as u64) / STEP != done / STEP || done == described.size {
                told(done);
            }
        }
        let (out, found, bytes) = out.finish();
        let what = format!("the blob {digest}");
        verify(&what, digest, Some(described.size), &found, bytes)?;
        let file = out
            .into_inner()
            .map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)?;
        fs::rename(&part.0, &to).map_err(failed)
    }

    async fn chunk(
        &self,
        response: &mut Response,
        pace: &mut Pace,
    ) -> Result<Option<bytes::Bytes>> {
        let chunk = response.chunk().await;
        let chunk = chunk.map_err(|error| unavailable(self.name, &error))?;
        let length = chunk.as_ref().map_or(0, |chunk| chunk.len());
        match pace.keeps_up(length as u64, Instant::now()) {
            true => Ok(chunk),
            false => Err(self
                .wrong("it sends less than 4 KiB in a second")
                .with_retryable(true)),
        }
    }

    fn url(&self, path: &str) -> Result<Url> {
        let url = self.base.join(path);
        url.map_err(|error| malformed(format!("{path:?} can't be a path: {error}")))
    }

    /// Gets what is at a path of the registry; asks for access once.
    async fn get(&self, path: &str, access: &mut Option<String>) -> Result<Response> {
        let url = self.url(path)?;
        let response = self.follow(url.clone(), access.as_deref()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return self.accepted(response);
        }
        *access = Some(self.access(response.headers()).await?);
        let response = self.follow(url, access.as_deref()).await?;
        self.accepted(response)
    }

    /// Follows redirects. What gives access is sent to the registry alone.
    async fn follow(&self, url: Url, access: Option<&str>) -> Result<Response> {
        let mut at = url.clone();
        for _ in 0..=REDIRECTS {
            let accept = [MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_LIST].join(", ");
            let mut request = self.http.get(at.clone()).header(ACCEPT, accept);
            if let Some(access) = access
                && at.origin() == url.origin()
            {
                request = request.header(AUTHORIZATION, access);
            }
            let response = request.send().await;
            let response = response.map_err(|error| unavailable(self.name, &error))?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let to = response
                .headers()
                .get(LOCATION)
                .and_then(|to| to.to_str().ok());
            let to = to.and_then(|to| at.join(to).ok());
            at = to.ok_or_else(|| self.wrong("it redirects to nowhere"))?;
            self.check(&at)?;
        }
        Err(self.wrong(&format!("it redirects more than {REDIRECTS} times")))
    }

    /// Whether a registry may send this client to an address.
    fn check(&self, url: &Url) -> Result<()> {
        match (url.scheme(), is_loopback(&self.base), is_loopback(url)) {
            ("https", _, false) | ("http" | "https", true, true) => Ok(()),
            _ => Err(self.wrong("it redirects to an address that is not reached by HTTPS")),
        }
    }

    fn wrong(&self, why: &str) -> Error {
        let message = format!("the registry {} can't be used: {why}", self.name.host);
        Error::new(ErrorKind::Other, Operation::Create).with_message(message)
    }

    fn accepted(&self, response: Response) -> Result<Response> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let name = self.name;
        let (kind, hint) = match status {
            StatusCode::UNAUTHORIZED => (
                ErrorKind::Unauthenticated,
                "give credentials for this registry, or check the name: a private image and one that \
                 is not there are often answered alike",
            ),
            StatusCode::FORBIDDEN => (
                ErrorKind::PermissionDenied,
                match self.actions {
                    "pull" => "ask for the right to pull it",
                    _ => "ask for the right to push there",
                },
            ),
            StatusCode::NOT_FOUND => (ErrorKind::NotFound, "check the name and the tag"),
            StatusCode::TOO_MANY_REQUESTS => (ErrorKind::RateLimited, "wait, or give credentials"),
            status if status.is_server_error() => (ErrorKind::Unavailable, "try again later"),
            _ => (ErrorKind::Other, "check the name"),
        };
        let mut message = format!("{name}: the registry answered {status}");
        if let Some(after) = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|after| after.to_str().ok())
        {
            let after: String = after.chars().filter(|c| !c.is_control()).take(40).collect();
            message = format!("{message}, and to come back after {after}");
        }
        let retryable = matches!(kind, ErrorKind::RateLimited | ErrorKind::Unavailable);
        Err(Error::new(kind, Operation::Create)
            .with_message(message)
            .with_hint(hint)
            .with_retryable(retryable))
    }

    /// Gets what gives access, in the way that the registry asks for.
    async fn access(&self, headers: &HeaderMap) -> Result<String> {
        let basic = || {
            self.credentials.map(|(user, password)| {
                let pair = [user.as_bytes(), b":", password.expose()].concat();
                format!("Basic {}", STANDARD.encode(pair))
            })
        };
        let asked = headers
            .get(WWW_AUTHENTICATE)
            .and_then(|asked| asked.to_str().ok());
        let asked = asked.unwrap_or_default();
        let (scheme, fields) = asked.split_once(' ').unwrap_or((asked, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return basic().ok_or_else(|| self.no_credentials());
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(self.wrong("it asks for access in a way that is not known"));
        }
        let realm = field(fields, "realm").and_then(|realm| Url::parse(&realm).ok());
        let mut url = realm.ok_or_else(|| self.wrong("it names no server for tokens"))?;
        self.check(&url)?;
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = field(fields, "service") {
                query.append_pair("service", &service);
            }
            let scope = format!("repository:{}:{}", self.name.repository, self.actions);
            query.append_pair("scope", &scope);
        }
        let mut request = self.http.get(url);
        if let Some(basic) = basic() {
            request = request.header(AUTHORIZATION, basic);
        }
        let response = request.send().await;
        let response = response.map_err(|error| unavailable(self.name, &error))?;
        let mut response = self.accepted(response)?;
        let (mut bytes, mut pace) = (Vec::new(), Pace::begin());
        while let Some(chunk) = self.chunk(&mut response, &mut pace).await? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > TOKEN {
                return Err(self.wrong("its token is too long"));
            }
        }
        let token: Token = serde_json::from_slice(&bytes)
            .map_err(|_| self.wrong("the answer of its token server can't be understood"))?;
        let token = token.token.or(token.access_token);
        let token = token.filter(|token| !token.bytes().any(|b| b.is_ascii_control()));
        match token {
            Some(token) => Ok(format!("Bearer {token}")),
            None => Err(self.wrong("its token server gave no token")),
        }
    }

    fn no_credentials(&self) -> Error {
        let message = format!(
            "the registry {} wants a name and a password",
            self.name.host
        );
        Error::new(ErrorKind::Unauthenticated, Operation::Create)
            .with_message(message)
            .with_hint("give credentials for this host in the configuration; none are looked for elsewhere")
    }
}

/// A field of a challenge: `name="value"` between commas.
fn field(fields: &str, name: &str) -> Option<String> {
    let mut rest = fields;
    while let Some((key, after)) = rest.split_once('=') {
        let key = key.trim_matches(|c: char| c == ',' || c.is_whitespace());
        let (value, left) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(',').unwrap_or((after, "")),
        };
        if key.eq_ignore_ascii_case(name) {
            return Some(value.to_owned());
        }
        rest = left;
    }
    None
}

/// The pace of an answer: one that drips would be read for ever, though something comes now and then.
struct Pace {
    began: Instant,
    bytes: u64,
}

impl Pace {
    fn begin() -> Self {
        Self {
            began: Instant::now(),
            bytes: 0,
        }
    }

    /// Counts what came, and says whether it came in time.
    fn keeps_up(&mut self, bytes: u64, now: Instant) -> bool {
        self.bytes += bytes;
        let least = Duration::from_secs(self.bytes / SLOWEST);
        now.saturating_duration_since(self.began) <= PATIENCE + least
    }
}

fn unwanted() -> Error {
    Error::new(ErrorKind::Other, Operation::Create).with_message("fetching the image was cancelled")
}

/// A blob that is not whole; dropping it removes the file, unless it has its name by then.
struct Part(PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn keep(cache: &Cache, digest: &Digest, bytes: &[u8]) -> Result<()> {
    let to = cache.dir().join(blob(digest));
    replace(&to, bytes).map_err(|error| {
        io_fault(error, "a part of the image can't be kept").with_host_path(cache.dir())
    })
}

fn unavailable(name: &RegistryName, error: &reqwest::Error) -> Error {
    // Without the address: it may have a token of a storage in it.
    let mut why = String::new();
    let mut next: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(error) = next {
        why = format!("{why}: {error}");
        next = error.source();
    }
    Error::new(ErrorKind::Unavailable, Operation::Create)
        .with_message(format!(
            "the registry {} could not be reached{why}",
            name.host
        ))
        .with_retryable(true)
}

impl Cache {
    /// The manifest or index that a name in a registry was resolved to.
    pub(crate) fn resolved(&self, name: &str) -> Option<Descriptor> {
        let path = self
            .dir()
            .join("used")
            .join(format!("tag-{}", Digest::of(name.as_bytes()).hex()));
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    fn resolve(&self, name: &str, manifest: &Descriptor) -> Result<()> {
        let path = self
            .dir()
            .join("used")
            .join(format!("tag-{}", Digest::of(name.as_bytes()).hex()));
        let bytes = serde_json::to_vec(manifest).unwrap_or_default();
        replace(&path, &bytes).map_err(|error| io_fault(error, "the image could not be noted"))
    }

    /// Whether all layers of an image are unpacked, or can be.
    fn has_layers(&self, image: &Image) -> bool {
        image.layers.iter().all(|layer| {
            let blob = layer
                .blob
                .as_ref()
                .map(|digest| self.dir().join(blob(digest)));
            self.has_layer(&layer.chain) || blob.is_some_and(|blob| blob.exists())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_taken_apart() {
        let asked = r#"realm="https://auth.example/token",service="reg, istry",scope="a:b,c""#;
        assert_eq!(
            field(asked, "realm").as_deref(),
            Some("https://auth.example/token")
        );
        assert_eq!(field(asked, "service").as_deref(), Some("reg, istry"));
        assert_eq!(field(asked, "error"), None);
        assert_eq!(field("realm=x, service=y", "service").as_deref(), Some("y"));
        assert_eq!(field("realm=\"x", "realm"), None);
    }

    #[test]
    fn an_answer_that_drips_is_given_up_and_a_slow_one_is_not() {
        let second = Duration::from_secs(1);
        // A byte in each second.
        let mut pace = Pace::begin();
        let ends = (1..1000).find(|n| !pace.keeps_up(1, pace.began + *n * second));
        assert_eq!(ends, Some(121));
        // A slow connection, all day.
        let mut pace = Pace::begin();
        assert!((1..100_000).all(|n| pace.keeps_up(5000, pace.began + n * second)));
    }

    #[test]
    fn only_this_machine_is_spoken_to_in_plain() {
        for (host, url) in [
            ("docker.io", "https://registry-1.docker.io/v2/"),
            ("ghcr.io", "https://ghcr.io/v2/"),
            ("10.0.0.1:5000", "https://10.0.0.1:5000/v2/"),
            ("localhost:5000", "http://localhost:5000/v2/"),
            ("127.0.0.1:5000", "http://127.0.0.1:5000/v2/"),
            ("[::1]:5000", "http://[::1]:5000/v2/"),
            (
                "localhost.example:5000",
                "https://localhost.example:5000/v2/",
            ),
        ] {
            assert_eq!(address(host).unwrap().as_str(), url);
        }
    }
}
