//! Writing down what is made on the host under names of ours, outside of the state directory:
//! should this process die, the next start removes it.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sandbox_core::{Error, GuestPath, Operation, Result};

use super::GuestRoot;
use crate::layers::{Journal, Kind, Record};

/// The journal, and what of the host a guest may write.
#[derive(Debug)]
pub(crate) struct Outside {
    pub(crate) journal: Arc<Journal>,
    /// Directories that the guest may write, and where they are on the host.
    pub(crate) mounts: Vec<(GuestPath, PathBuf)>,
}

impl GuestRoot {
    /// Adds a journal of what is made outside.
    pub(crate) fn with_outside(self, outside: Outside) -> Self {
        Self {
            outside: Some(outside),
            ..self
        }
    }

    /// Whether the guest may write directories of the host.
    pub(super) fn writes_to_host(&self) -> bool {
        self.outside
            .as_ref()
            .is_some_and(|outside| !outside.mounts.is_empty())
    }

    /// Writes down a directory that is being made on the host. Not with the guest's rights.
    pub(super) fn record_partial(&self, path: &Path) -> Result<Option<Record>> {
        let Some(outside) = &self.outside else {
            return Ok(None);
        };
        let recorded =
            std::path::absolute(path).and_then(|path| outside.journal.record(Kind::Partial, &path));
        recorded
            .map(Some)
            .map_err(|error| failed(error, Operation::ExportDir))
    }

    /// Writes down that names with this prefix will be made in a directory, if that is one of the
    /// host. Not with the guest's rights.
    pub(super) fn record_staged(&self, dir: impl AsFd, prefix: &str) -> Result<Option<Record>> {
        let Some(outside) = &self.outside else {
            return Ok(None);
        };
        let link = format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd());
        let recorded = std::fs::read_link(link).and_then(|path| {
            let host = outside.host_path(path.as_os_str().as_bytes());
            host.map(|host| outside.journal.record(Kind::Staged, &host.join(prefix)))
                .transpose()
        });
        recorded.map_err(|error| failed(error, Operation::WriteFiles))
    }
}

impl GuestRoot {
    /// Writes down that names with this prefix will be made in a directory of the guest's and below
    /// it, where that is on the host. Not with the guest's rights.
    pub(super) fn record_staged_below(&self, dir: &GuestPath, prefix: &str) -> Result<Vec<Record>> {
        let Some(outside) = &self.outside else {
            return Ok(Vec::new());
        };
        let below = |(mount, host): &(GuestPath, PathBuf)| {
            mount.strip_prefix(dir).is_some().then(|| host.clone())
        };
        let within = outside.host_path(dir.as_bytes());
        let places = within
            .into_iter()
            .chain(outside.mounts.iter().filter_map(below));
        let record = |host: PathBuf| {
            let recorded = outside
                .journal
                .record(Kind::StagedBelow, &host.join(prefix));
            recorded.map_err(|error| failed(error, Operation::ImportDir))
        };
        places.map(record).collect()
    }
}

fn failed(error: io::Error, operation: Operation) -> Error {
    Error::from_io(error, operation)
        .with_message("the journal in the state directory could not be written")
        .with_hint("make room in the state directory, or choose another with SANDBOX_STATE_DIR")
}

impl Outside {
    /// Path on the host of a path of the guest, if it is in one of the mounts.
    fn host_path(&self, guest: &[u8]) -> Option<PathBuf> {
        let below = |mount: &GuestPath| {
            let rest = guest.strip_prefix(mount.as_bytes())?;
            (rest.is_empty() || rest.starts_with(b"/")).then_some(rest)
        };
        let mounts = self.mounts.iter();
        let found = mounts.filter_map(|(mount, host)| Some((below(mount)?, host)));
        let (rest, host) = found.min_by_key(|(rest, _)| rest.len())?;
        let rest = rest.strip_prefix(b"/").unwrap_or(rest);
        Some(host.join(OsStr::from_bytes(rest)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_in_a_mount_is_found_on_the_host() {
        let dir = tempfile::tempdir().unwrap();
        let outside = Outside {
            journal: Arc::new(Journal::at(dir.path().to_owned())),
            mounts: vec![
                ("/work".into(), "/host/a".into()),
                ("/work/in".into(), "/host/b".into()),
            ],
        };
        let host = |guest: &str| outside.host_path(guest.as_bytes());
        assert_eq!(host("/work/x"), Some("/host/a/x".into()));
        assert_eq!(host("/work"), Some("/host/a".into()));
        assert_eq!(host("/work/in/x/y"), Some("/host/b/x/y".into()));
        assert_eq!(host("/workspace"), None);
    }
}
