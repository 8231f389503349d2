//! Changes of a sandbox, with contents in base64.

use sandbox_core::{
    Change, Changes, ChangesOptions, FileKind, FileVersion, GuestPath, Mode, Skipped,
};
use serde::{Deserialize, Serialize};

use super::Base64;

#[derive(Serialize, Deserialize)]
pub(crate) struct Differ {
    pub(crate) path: GuestPath,
    #[serde(default)]
    pub(crate) options: ChangesOptions,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct WireChanges {
    directory: GuestPath,
    entries: Vec<WireChange>,
    #[serde(default)]
    skipped: Vec<Skipped>,
}

#[derive(Serialize, Deserialize)]
struct WireChange {
    path: GuestPath,
    #[serde(default)]
    before: Option<WireVersion>,
    #[serde(default)]
    after: Option<WireVersion>,
}

/// One side of a change.
#[derive(Serialize, Deserialize)]
struct WireVersion {
    kind: FileKind,
    mode: Mode,
    size: u64,
    #[serde(default)]
    link_target: Option<GuestPath>,
    #[serde(default)]
    content: Option<Base64>,
}

impl From<FileVersion> for WireVersion {
    fn from(version: FileVersion) -> Self {
        Self {
            kind: version.kind,
            mode: version.mode,
            size: version.size,
            link_target: version.link_target,
            content: version.content.map(Base64),
        }
    }
}

impl From<WireVersion> for FileVersion {
    fn from(wire: WireVersion) -> Self {
        let mut version = Self::new(wire.kind, wire.mode, wire.size);
        version.link_target = wire.link_target;
        version.content = wire.content.map(|content| content.0);
        version
    }
}

impl From<Changes> for WireChanges {
    fn from(changes: Changes) -> Self {
        let entry = |change: Change| WireChange {
            path: change.path,
            before: change.before.map(WireVersion::from),
            after: change.after.map(WireVersion::from),
        };
        Self {
            directory: changes.directory,
            entries: changes.entries.into_iter().map(entry).collect(),
            skipped: changes.skipped,
        }
    }
}

impl From<WireChanges> for Changes {
    fn from(wire: WireChanges) -> Self {
        let entry = |change: WireChange| {
            let before = change.before.map(FileVersion::from);
            Change::new(change.path, before, change.after.map(FileVersion::from))
        };
        Self::new(wire.directory)
            .entries(wire.entries.into_iter().map(entry).collect())
            .skipped(wire.skipped)
    }
}
