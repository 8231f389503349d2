//! Sandboxes from snapshots: which archive or image an identifier names.
//!
//! Invariant: an identifier names nothing outside of the place that the configuration says.

use sandbox_core::{Error, ErrorKind, Operation, Result, SnapshotId};

use crate::config::options::Snapshots;
use crate::guest::stage::OwnDir;
use crate::provider::base::Start;
use crate::sandbox::shared::Shared;

/// Finds the snapshot that an identifier names.
pub(crate) fn find(shared: &Shared, id: &SnapshotId) -> Result<Start> {
    let text = id.as_str();
    let dir = match &shared.config.snapshots {
        Snapshots::Registry(repository) => {
            let ours = text.strip_prefix(repository.as_str());
            return match ours.is_some_and(|rest| rest.starts_with([':', '@'])) {
                true => Ok(Start::Image(text.to_owned())),
                false => Err(missing(id)),
            };
        }
        Snapshots::Tarballs(dir) => Some(dir.as_path()),
        Snapshots::Temporary => shared.temporary.get().map(OwnDir::path),
    };
    let name = text.strip_suffix(".tar").unwrap_or_default();
    let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let file = dir.filter(|_| plain).map(|dir| dir.join(text));
    match file.filter(|file| file.is_file()) {
        Some(file) => Ok(Start::Tarball(file)),
        None => Err(missing(id)),
    }
}

/// Error for a snapshot that does not exist.
pub(crate) fn missing(id: &SnapshotId) -> Error {
    Error::new(ErrorKind::NotFound, Operation::Create)
        .with_message(format!("there is no snapshot {:?}", id.as_str()))
        .with_hint("it is looked for where DaggerConfig::snapshots says")
}
