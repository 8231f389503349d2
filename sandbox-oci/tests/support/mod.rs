//! Images made by the tests themselves.

#![allow(dead_code, reason = "not each test uses all of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, helpers too"
)]

use std::io::Write as _;
use std::path::{Path, PathBuf};

use sandbox_core::Result;
use sandbox_oci::{Cache, CachedImage, Digest, Image, Limits, Platform, Reference};
use serde_json::{Value, json};

/// A directory that is removed with this, also while a layer in it is just being noted as on the disk.
pub(crate) struct Place(tempfile::TempDir);

pub(crate) fn place() -> Place {
    Place(tempfile::tempdir().unwrap())
}

impl Place {
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Each layer is noted once, so that it ends.
        while std::fs::remove_dir_all(self.path())
            .is_err_and(|error| error.kind() == std::io::ErrorKind::DirectoryNotEmpty)
        {}
    }
}

/// A layer's archive, entry by entry.
pub(crate) struct Tar(tar::Builder<Vec<u8>>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn header(kind: tar::EntryType, mode: u32) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(1_000_000_000);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        header
    }

    /// With the name as it is given, whatever it is.
    fn add(mut self, mut header: tar::Header, name: &str, content: &[u8]) -> Self {
        if name.len() > 100 {
            let mut long = Self::header(tar::EntryType::GNULongName, 0o644);
            long.set_size(name.len() as u64 + 1);
            long.set_cksum();
            self.0
                .append(&long, &[name.as_bytes(), b"\0"].concat()[..])
                .unwrap();
        }
        let field = &mut header.as_old_mut().name;
        let length = name.len().min(100);
        field[..length].copy_from_slice(&name.as_bytes()[..length]);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    pub(crate) fn dir(self, name: &str, mode: u32) -> Self {
        self.add(Self::header(tar::EntryType::Directory, mode), name, b"")
    }

    pub(crate) fn file(self, name: &str, content: &str) -> Self {
        self.file_of(name, content, 0o644, (0, 0))
    }

    pub(crate) fn file_of(self, name: &str, content: &str, mode: u32, owner: (u64, u64)) -> Self {
        let mut header = Self::header(tar::EntryType::Regular, mode);
        header.set_uid(owner.0);
        header.set_gid(owner.1);
        self.add(header, name, content.as_bytes())
    }

    fn to(self, kind: tar::EntryType, name: &str, target: &str) -> Self {
        let mut header = Self::header(kind, 0o777);
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        self.add(header, name, b"")
    }

    pub(crate) fn link(self, name: &str, target: &str) -> Self {
        self.to(tar::EntryType::Symlink, name, target)
    }

    pub(crate) fn hard(self, name: &str, target: &str) -> Self {
        self.to(tar::EntryType::Link, name, target)
    }

    pub(crate) fn fifo(self, name: &str) -> Self {
        self.add(Self::header(tar::EntryType::Fifo, 0o600), name, b"")
    }

    pub(crate) fn device(self, name: &str, major: u32, minor: u32) -> Self {
        let mut header = Self::header(tar::EntryType::Char, 0o666);
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
        self.add(header, name, b"")
    }

    /// With extended headers of the next entry.
    pub(crate) fn pax(mut self, pairs: &[(&str, &[u8])]) -> Self {
        self.0.append_pax_extensions(pairs.iter().copied()).unwrap();
        self
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

/// A layout in a directory.
pub(crate) struct Layout {
    pub(crate) dir: PathBuf,
    manifests: Vec<Value>,
}

impl Layout {
    pub(crate) fn new(dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        std::fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Self {
            dir,
            manifests: Vec::new(),
        }
    }

    pub(crate) fn blob(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        std::fs::write(self.path(&digest), bytes).unwrap();
        digest
    }

    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.hex())
    }

    /// The descriptor of an image of layers, each with its uncompressed archive.
    pub(crate) fn manifest(&self, layers: &[(Vec<u8>, &[u8])], config: Value, arch: &str) -> Value {
        let diffs: Vec<_> = layers
            .iter()
            .map(|(_, tar)| Digest::of(tar).to_string())
            .collect();
        let config = json!({
            "architecture": arch, "os": "linux", "config": config,
            "rootfs": {"type": "layers", "diff_ids": diffs},
        });
        let config = config.to_string();
        let blobs = layers.iter().map(|(blob, _)| {
            json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": self.blob(blob).to_string(), "size": blob.len(),
            })
        });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": self.blob(config.as_bytes()).to_string(), "size": config.len(),
            },
            "layers": blobs.collect::<Vec<_>>(),
        });
        self.descriptor(&manifest, arch)
    }

    fn descriptor(&self, document: &Value, arch: &str) -> Value {
        let text = document.to_string();
        json!({
            "mediaType": document["mediaType"],
            "digest": self.blob(text.as_bytes()).to_string(), "size": text.len(),
            "platform": {"os": "linux", "architecture": arch},
        })
    }

    /// Names an image in the index.
    pub(crate) fn name(&mut self, name: &str, mut descriptor: Value) {
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        self.manifests.push(descriptor);
        self.index(&self.manifests);
    }

    pub(crate) fn index(&self, manifests: &[Value]) {
        let index = json!({"schemaVersion": 2, "manifests": manifests});
        std::fs::write(self.dir.join("index.json"), index.to_string()).unwrap();
    }

    /// An index of several images, as one blob.
    pub(crate) fn nested(&self, manifests: &[Value]) -> Value {
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": manifests,
        });
        self.descriptor(&index, "any")
    }
}

pub(crate) fn arch() -> String {
    Platform::host().architecture
}

/// A layout with one image of plain layers.
pub(crate) fn image(dir: &Path, layers: &[Vec<u8>]) -> Layout {
    let mut layout = Layout::new(dir);
    let layers: Vec<_> = layers.iter().map(|tar| (tar.clone(), &tar[..])).collect();
    let manifest = layout.manifest(&layers, json!({}), &arch());
    layout.name("it", manifest);
    layout
}

pub(crate) fn open(reference: &str) -> Result<Image> {
    let reference: Reference = reference.parse()?;
    Image::open(&reference, &Platform::host(), &Limits::new())
}

/// The owner that root gives to a cache.
pub(crate) fn owner() -> Option<(u32, u32)> {
    rustix::process::geteuid()
        .is_root()
        .then_some((1_950_000_000, 1_950_000_000))
}

pub(crate) fn cache(dir: &Path) -> Cache {
    Cache::open(dir, owner(), Limits::new(), u64::MAX).unwrap()
}

pub(crate) fn take(cache: &Cache, reference: &str) -> Result<CachedImage> {
    cache.take(reference, &open(reference)?, &|_| {}, &|| true)
}

/// Takes the image of a layout in `dir/image` through a cache in `dir/cache`.
pub(crate) fn unpacked(dir: &Path, layers: &[Vec<u8>]) -> Result<CachedImage> {
    image(&dir.join("image"), layers);
    take(
        &cache(&dir.join("cache")),
        &format!("oci:{}", dir.join("image").display()),
    )
}
