//! An image: its manifest and configuration, verified, and its layers where they lie.

use std::io::{self, Read};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::{fmt, thread};

use sandbox_core::{Error, ErrorKind, Operation, Result};
use serde::Deserialize;

use crate::blobs::{Blobs, verify};
use crate::decompress::decompress;
use crate::digest::Digest;
use crate::fault::{ImageFault, io, malformed};
use crate::hashing::Hashing;
use crate::model::{Configuration, Descriptor, Document, ImageConfig, Index, REF_NAME};
use crate::reference::Reference;

/// Indexes that lie in one another.
const NESTED: usize = 3;

/// Operating system and processor that an image is for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Platform {
    /// Operating system: `linux`.
    pub os: String,
    /// Architecture as Go names it: `amd64`, `arm64`.
    pub architecture: String,
}

impl Platform {
    /// Linux on this architecture, as Go names it.
    pub fn linux(architecture: impl Into<String>) -> Self {
        Self {
            os: "linux".into(),
            architecture: architecture.into(),
        }
    }

    /// The platform of this process.
    pub fn host() -> Self {
        Self::linux(match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        })
    }

    fn is(&self, os: &str, architecture: &str) -> bool {
        // What says nothing is not refused.
        (os.is_empty() || os == self.os)
            && (architecture.is_empty() || architecture == self.architecture)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}

/// Cost that an image may have for the host.
///
/// ```
/// use sandbox_oci::Limits;
/// let limits = Limits::new().bytes(4 << 30).entries(200_000);
/// assert_eq!(limits.layers, 256);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Layers. Default: 256, which overlayfs takes with room for what a sandbox adds.
    pub layers: u64,
    /// Entries of one layer. Default: 4 million.
    pub entries: u64,
    /// Bytes of one layer, compressed or not. Default: 32 GiB.
    pub bytes: u64,
    /// Bytes of the names of the directories of one layer, which are kept in memory. Default: 256
    /// MiB.
    pub names: u64,
    /// Names that are looked up for one layer, each in the layers below it too: a few minutes of work at
    /// most, where a small archive could ask for weeks of it. Default: 100 million.
    pub lookups: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            layers: 256,
            entries: 4_000_000,
            bytes: 32 << 30,
            names: 256 << 20,
            lookups: 100_000_000,
        }
    }
}

impl Limits {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Limits the bytes of one layer, compressed or not.
    #[must_use]
    pub fn bytes(mut self, most: u64) -> Self {
        self.bytes = most;
        self
    }

    /// Limits the names that are looked up for one layer.
    #[must_use]
    pub fn lookups(mut self, most: u64) -> Self {
        self.lookups = most;
        self
    }

    /// Limits the entries of one layer.
    #[must_use]
    pub fn entries(mut self, most: u64) -> Self {
        self.entries = most;
        self
    }
}

/// A layer of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageLayer {
    /// Digest of the blob, compressed as it may be; Docker's archives do not say it.
    pub blob: Option<Digest>,
    /// Size of the blob in bytes.
    pub size: u64,
    /// Digest of the layer when it is not compressed.
    pub diff: Digest,
    /// Identifier of the layer together with all below it.
    pub chain: Digest,
    /// Name of the blob where it lies.
    file: String,
}

/// An image, opened. Its documents are verified and in memory; its layers lie where they were.
#[derive(Debug)]
pub struct Image {
    /// Digest of the manifest; of the configuration in Docker's archives.
    pub digest: Digest,
    /// Settings for running its programs.
    pub config: ImageConfig,
    /// The layers, the lowest first.
    pub layers: Vec<ImageLayer>,
    /// Annotations of the manifest.
    pub annotations: std::collections::BTreeMap<String, String>,
    blobs: Blobs,
}

impl Image {
    /// Opens an image of the host's disk. Reads its documents and none of its layers.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) for a path or name that is not there,
    /// [`Unsupported`](ErrorKind::Unsupported) for another platform or a registry,
    /// [`InvalidInput`](ErrorKind::InvalidInput) for what is no image,
    /// [`LimitExceeded`](ErrorKind::LimitExceeded), and [`Other`](ErrorKind::Other) for a digest that
    /// is not right; the source is an [`ImageFault`].
    pub fn open(reference: &Reference, platform: &Platform, limits: &Limits) -> Result<Self> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |error: Error| match error.host_path() {
                Some(_) => error,
                None => error.with_host_path(path),
            }
        };
        match reference {
            Reference::Layout { path, name } => Blobs::directory(path)
                .and_then(|blobs| Self::of_layout(blobs, name.as_deref(), platform, limits))
                .map_err(at(path)),
            Reference::LayoutArchive { path, name } => Blobs::archive(path)
                .and_then(|blobs| Self::of_layout(blobs, name.as_deref(), platform, limits))
                .map_err(at(path)),
            Reference::DockerArchive { path, name } => Blobs::archive(path)
                .and_then(|blobs| Self::of_docker(blobs, name.as_deref(), platform, limits))
                .map_err(at(path)),
            Reference::Registry(name) => {
                let why = format!("the image {name} is in a registry and was not pulled");
                Err(Error::new(ErrorKind::Unsupported, Operation::Create).with_message(why))
            }
        }
    }

    fn of_layout(
        blobs: Blobs,
        name: Option<&str>,
        platform: &Platform,
        limits: &Limits,
    ) -> Result<Self> {
        let index: Index = parse("index.json", &blobs.document("index.json", None)?)?;
        let chosen = named(&index, name, platform)?;
        Self::of_descriptor(blobs, chosen, platform, limits)
    }

    /// The image of a descriptor: of a manifest, or an index of them.
    pub(crate) fn of_descriptor(
        blobs: Blobs,
        mut chosen: Descriptor,
        platform: &Platform,
        limits: &Limits,
    ) -> Result<Self> {
        for _ in 0..NESTED {
            let name = blob(&chosen.digest);
            let bytes = blobs.document(&name, Some((&chosen.digest, Some(chosen.size))))?;
            match parse(&name, &bytes)? {
                Document::Index(index) => chosen = for_platform(&index, platform)?,
                Document::Manifest(manifest) => {
                    let name = blob(&manifest.config.digest);
                    let expected = (&manifest.config.digest, Some(manifest.config.size));
                    let bytes = blobs.document(&name, Some(expected))?;
                    let config: Configuration = parse(&name, &bytes)?;
                    let files = manifest.layers.iter().map(|layer| {
                        supported(layer)?;
                        Ok((Some(layer.digest.clone()), layer.size, blob(&layer.digest)))
                    });
                    let files = files.collect::<Result<Vec<_>>>()?;
                    let mut image =
                        Self::new(chosen.digest, config, files, blobs, platform, limits)?;
                    image.annotations = manifest.annotations;
                    return Ok(image);
                }
            }
        }
        Err(malformed("its indexes lie too deep in one another"))
    }

    fn of_docker(
        blobs: Blobs,
        name: Option<&str>,
        platform: &Platform,
        limits: &Limits,
    ) -> Result<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Saved {
            config: String,
            repo_tags: Option<Vec<String>>,
            layers: Vec<String>,
        }
        let all: Vec<Saved> = parse("manifest.json", &blobs.document("manifest.json", None)?)?;
        let is_named = |saved: &&Saved, name: &str| {
            let mut tags = saved.repo_tags.iter().flatten();
            tags.any(|tag| tag == name || tag.strip_suffix(":latest") == Some(name))
        };
        let chosen = match (name, &all[..]) {
            (Some(name), all) => all.iter().find(|saved| is_named(saved, name)),
            (None, [one]) => Some(one),
            (None, _) => None,
        };
        let Some(chosen) = chosen else {
            let tags = all.iter().filter_map(|saved| saved.repo_tags.as_ref());
            let names: Vec<&str> = tags.flatten().map(String::as_str).collect();
            return Err(not_named(name, &names));
        };
        let bytes = blobs.document(&chosen.config, None)?;
        let digest = Digest::of(&bytes);
        // Its name is its digest: `HEX.json`, or `blobs/sha256/HEX`.
        let last = chosen.config.rsplit('/').next().unwrap_or_default();
        let said = format!("sha256:{}", last.trim_end_matches(".json"));
        if let Ok(said) = said.parse::<Digest>() {
            verify(&chosen.config, &said, None, &digest, bytes.len() as u64)?;
        }
        let config: Configuration = parse(&chosen.config, &bytes)?;
        let files = chosen.layers.iter().map(|name| {
            let (_, size) = blobs.open(name)?;
            let last = name.rsplit('/').next().unwrap_or_default();
            Ok((format!("sha256:{last}").parse().ok(), size, name.clone()))
        });
        let files = files.collect::<Result<Vec<_>>>()?;
        Self::new(digest, config, files, blobs, platform, limits)
    }

    fn new(
        digest: Digest,
        config: Configuration,
        files: Vec<(Option<Digest>, u64, String)>,
        blobs: Blobs,
        platform: &Platform,
        limits: &Limits,
    ) -> Result<Self> {
        if !platform.is(&config.os, &config.architecture) {
            return Err(ImageFault::Platform {
                wanted: platform.to_string(),
                found: vec![format!("{}/{}", config.os, config.architecture)],
            }
            .into_error());
        }
        let diffs = config.rootfs.diff_ids;
        if diffs.len() != files.len() {
            let why = format!(
                "its configuration has {} layers and its manifest {}",
                diffs.len(),
                files.len()
            );
            return Err(malformed(why));
        }
        if files.len() as u64 > limits.layers {
            return Err(ImageFault::Limit {
                what: "layers",
                limit: limits.layers,
            }
            .into_error());
        }
        let mut layers: Vec<ImageLayer> = Vec::with_capacity(files.len());
        for ((blob, size, file), diff) in files.into_iter().zip(diffs) {
            // What a registry says of it bounds what is fetched.
            if size > limits.bytes {
                return Err(ImageFault::Limit {
                    what: "bytes in a layer's blob",
                    limit: limits.bytes,
                }
                .into_error());
            }
            let chain = Digest::chain(layers.last().map(|layer| &layer.chain), &diff);
            layers.push(ImageLayer {
                blob,
                size,
                diff,
                chain,
                file,
            });
        }
        Ok(Self {
            digest,
            config: config.config.unwrap_or_default(),
            layers,
            annotations: Default::default(),
            blobs,
        })
    }

    /// Reads a layer, uncompressed, on a thread of its own, and gives it to `take`. The digests of
    /// the blob and of its content are compared before this returns successfully; what `take` made
    /// of it must not be used before.
    pub(crate) fn read_layer<T>(
        &self,
        layer: &ImageLayer,
        limits: &Limits,
        read: &(dyn Fn(u64) -> bool + Sync),
        take: impl FnOnce(&mut dyn Read) -> Result<T>,
    ) -> Result<T> {
        let (blob, _) = self.blobs.open(&layer.file)?;
        let what = match &layer.blob {
            Some(digest) => format!("the layer {digest}"),
            None => format!("the layer {}", layer.diff),
        };
        let compressed = Hashing::new(
            Counted { from: blob, read },
            layer.size,
            "bytes in a layer's blob",
        );
        thread::scope(|scope| {
            let (send, receive) = sync_channel(8);
            let producer = scope.spawn(move || produce(compressed, &send));
            let mut content = Hashing::new(
                Chunks::new(receive),
                limits.bytes,
                "bytes in one layer, uncompressed",
            );
            let taken = take(&mut content);
            let content = match &taken {
                Ok(_) => content.finish().map(Some),
                // Dropped, so that the producer ends.
                Err(_) => {
                    drop(content);
                    Ok(None)
                }
            };
            let produced = producer.join();
            let taken = taken?;
            let unreadable = |error| io(error, &format!("{what} can't be read"));
            let content = content.map_err(unreadable)?;
            let (found, bytes) = match produced {
                Ok(produced) => produced.map_err(unreadable)?,
                Err(_) => return Err(malformed(format!("{what} can't be uncompressed"))),
            };
            if let Some(expected) = &layer.blob {
                verify(&what, expected, Some(layer.size), &found, bytes)?;
            }
            let (found, bytes) = content.unwrap_or((found, bytes));
            let what = format!("the content of {what}");
            verify(&what, &layer.diff, None, &found, bytes)?;
            Ok(taken)
        })
    }
}

/// Uncompresses a blob into a channel; its digest and size.
fn produce(
    compressed: Hashing<impl Read>,
    send: &SyncSender<io::Result<Vec<u8>>>,
) -> io::Result<(Digest, u64)> {
    let mut compressed = compressed;
    let produced = (|| {
        let mut content = decompress(&mut compressed)?;
        loop {
            let mut chunk = Vec::with_capacity(CHUNK);
            (&mut content).take(CHUNK as u64).read_to_end(&mut chunk)?;
            if chunk.is_empty() || send.send(Ok(chunk)).is_err() {
                return Ok(());
            }
        }
    })();
    if let Err(error) = produced {
        // The other end tells of it; it may be gone.
        let _ = send.send(Err(error));
        return Ok((Digest::of(b""), 0));
    }
    compressed.finish()
}

const CHUNK: usize = 256 << 10;

/// A channel, as a reader.
struct Chunks {
    receive: Receiver<io::Result<Vec<u8>>>,
    chunk: Vec<u8>,
    at: usize,
}

impl Chunks {
    fn new(receive: Receiver<io::Result<Vec<u8>>>) -> Self {
        Self {
            receive,
            chunk: Vec::new(),
            at: 0,
        }
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.chunk.len() {
            match self.receive.recv() {
                Ok(chunk) => (self.chunk, self.at) = (chunk?, 0),
                Err(_) => return Ok(0),
            }
        }
        let read = self.chunk.get(self.at..).unwrap_or_default().read(buffer)?;
        self.at += read;
        Ok(read)
    }
}

/// Tells how much was read, and stops when it is told to.
struct Counted<'a, R> {
    from: R,
    read: &'a (dyn Fn(u64) -> bool + Sync),
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        match (self.read)(read as u64) {
            true => Ok(read),
            false => Err(io::Error::other("it is not wanted any more")),
        }
    }
}

/// Name of a blob in a layout.
pub(crate) fn blob(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

pub(crate) fn parse<T: for<'de> Deserialize<'de>>(name: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| malformed(format!("{name} can't be understood: {error}")))
}

fn supported(layer: &Descriptor) -> Result<()> {
    let kind = &layer.media_type;
    let refused = ["nondistributable", "foreign", "encrypted"];
    if refused.iter().any(|word| kind.contains(word)) || !layer.urls.is_empty() {
        let what = format!("a layer of the type {kind} (or with an address of its own)");
        return Err(ImageFault::Unsupported { what }.into_error());
    }
    Ok(())
}

/// The error for a name that is missing, or needed.
fn not_named(name: Option<&str>, names: &[&str]) -> Error {
    let has = match names {
        [] => "it names none".to_owned(),
        names => format!("it has {}", names.join(", ")),
    };
    match name {
        Some(name) => {
            let what = format!("the image {name}");
            ImageFault::NotFound { what }.into_error().with_hint(has)
        }
        None => malformed("several images are in it, and none was named").with_hint(has),
    }
}

/// The image with a name in a layout's index.
fn named(index: &Index, name: Option<&str>, platform: &Platform) -> Result<Descriptor> {
    let all = &index.manifests;
    // The same image for several platforms.
    let is_one_of_many =
        |one: &Descriptor| one.platform.is_some() && !one.annotations.contains_key(REF_NAME);
    if let Some(name) = name {
        let is_named = |one: &&Descriptor| {
            one.annotations.get(REF_NAME).map(String::as_str) == Some(name)
                || one.digest.to_string() == name
        };
        let mut found = all.iter().filter(is_named);
        if let Some(first) = found.next() {
            return Ok(first.clone());
        }
    }
    match &all[..] {
        [one] if name.is_none() => Ok(one.clone()),
        [] if name.is_none() => Err(malformed("its index is empty")),
        all if name.is_none() && all.iter().all(is_one_of_many) => for_platform(index, platform),
        all => {
            let names = all.iter().filter_map(|one| one.annotations.get(REF_NAME));
            let names: Vec<&str> = names.map(String::as_str).take(20).collect();
            Err(not_named(name, &names))
        }
    }
}

/// The manifest of an index that is for a platform.
pub(crate) fn for_platform(index: &Index, wanted: &Platform) -> Result<Descriptor> {
    let is_for = |one: &&Descriptor| {
        let platform = one.platform.as_ref();
        platform.is_none_or(|platform| wanted.is(&platform.os, &platform.architecture))
    };
    if let Some(one) = index.manifests.iter().find(is_for) {
        return Ok(one.clone());
    }
    let platforms = index
        .manifests
        .iter()
        .filter_map(|one| one.platform.as_ref());
    let found = platforms
        .filter(|platform| platform.os != "unknown")
        .map(|platform| format!("{}/{}", platform.os, platform.architecture))
        .take(20)
        .collect();
    Err(ImageFault::Platform {
        wanted: wanted.to_string(),
        found,
    }
    .into_error())
}
