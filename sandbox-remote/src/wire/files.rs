//! Files and what is known of them.

use sandbox_core::{DirEntry, FileBatch, FileKind, GuestPath, Metadata, Mode, WriteMode};
use serde::{Deserialize, Serialize};

use super::{Base64, Time};

/// One file of a batch.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WireFile {
    path: GuestPath,
    content: Base64,
    #[serde(default)]
    mode: Option<Mode>,
    #[serde(default)]
    write_mode: WriteMode,
}

#[cfg(feature = "client")]
pub(crate) fn files(batch: &FileBatch) -> Vec<WireFile> {
    let each = batch.files().iter().map(|file| WireFile {
        path: file.path.clone(),
        content: Base64(file.content.clone()),
        mode: file.mode,
        write_mode: file.write_mode,
    });
    each.collect()
}

#[cfg(feature = "server")]
pub(crate) fn batch(files: Vec<WireFile>) -> FileBatch {
    let mut batch = FileBatch::new();
    for file in files {
        let added = batch.push(file.path, file.content.0);
        added.mode = file.mode;
        added.write_mode = file.write_mode;
    }
    batch
}

/// Metadata that is known of an entry.
#[derive(Serialize, Deserialize)]
pub(crate) struct WireMetadata {
    kind: FileKind,
    size: u64,
    mode: Mode,
    #[serde(default)]
    uid: Option<u32>,
    #[serde(default)]
    gid: Option<u32>,
    #[serde(default)]
    modified: Option<Time>,
    #[serde(default)]
    link_target: Option<GuestPath>,
}

impl From<Metadata> for WireMetadata {
    fn from(metadata: Metadata) -> Self {
        Self {
            kind: metadata.kind,
            size: metadata.size,
            mode: metadata.mode,
            uid: metadata.uid,
            gid: metadata.gid,
            modified: metadata.modified.map(Time::from),
            link_target: metadata.link_target,
        }
    }
}

impl From<WireMetadata> for Metadata {
    fn from(wire: WireMetadata) -> Self {
        let mut metadata = Self::new(wire.kind, wire.size, wire.mode);
        metadata.uid = wire.uid;
        metadata.gid = wire.gid;
        metadata.modified = wire.modified.and_then(Time::system);
        metadata.link_target = wire.link_target;
        metadata
    }
}

/// An entry of a directory.
#[derive(Serialize, Deserialize)]
pub(crate) struct Entry {
    path: GuestPath,
    #[serde(flatten)]
    metadata: WireMetadata,
}

impl From<DirEntry> for Entry {
    fn from(entry: DirEntry) -> Self {
        Self {
            path: entry.path,
            metadata: entry.metadata.into(),
        }
    }
}

impl From<Entry> for DirEntry {
    fn from(entry: Entry) -> Self {
        Self::new(entry.path, entry.metadata.into())
    }
}
