//! What a provider makes outside of its own directory, written down before it is made, so that the
//! next start can remove it should this process die.
//!
//! An entry is a link `KIND-NUMBER` to what it is about: it is there whole or not at all. Must never
//! have anything removed that does not bear a name of ours.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::walk;

/// How long the processes of a control group get to end, which were killed with their host.
const DYING: Duration = Duration::from_secs(5);

/// What something outside is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A control group, without processes once the sandbox is dead.
    Cgroup,
    /// A directory that was being written beside its final place.
    Partial,
    /// Entries of one directory whose names begin with the last part of this path.
    Staged,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Cgroup, Self::Partial, Self::Staged];

    const fn name(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::Partial => "partial",
            Self::Staged => "staged",
        }
    }

    /// What every name that is made of this kind has in it.
    const fn mark(self) -> &'static [u8] {
        match self {
            Self::Cgroup => b"sandbox-",
            Self::Partial => b".sandbox-partial-",
            Self::Staged => b".sandbox-stage-",
        }
    }
}

/// The entries of one provider.
#[derive(Debug)]
pub(crate) struct Journal {
    dir: PathBuf,
    next: AtomicU64,
}

impl Journal {
    /// Makes the directory of an empty journal.
    pub(super) fn make(dir: &Path) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(dir)
    }

    /// The journal in this directory.
    pub(crate) fn at(dir: PathBuf) -> Self {
        Self {
            dir,
            next: AtomicU64::new(0),
        }
    }

    /// Writes down what is about to be made; `path` is absolute. Drop the result when it is gone
    /// again, or is to stay.
    pub(crate) fn record(&self, kind: Kind, path: &Path) -> io::Result<Record> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let entry = self.dir.join(format!("{}-{number}", kind.name()));
        symlink(path, &entry)?;
        Ok(Record { entry })
    }
}

/// An entry; dropping it takes it out.
#[derive(Debug)]
pub(crate) struct Record {
    entry: PathBuf,
}

impl Drop for Record {
    fn drop(&mut self) {
        // What stays names something that is not there any more.
        let _ = fs::remove_file(&self.entry);
    }
}

/// Removes what a dead provider's journal names.
///
/// # Errors
/// Something is left; its entry stays.
pub(super) fn collect(dir: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    // As root, a guest's user owns the directory above.
    let own = rustix::process::geteuid().as_raw();
    if !found.is_dir() || found.uid() != own || found.mode() & 0o077 != 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "the journal is not this user's own",
        ));
    }
    let mut left = Ok(());
    for entry in fs::read_dir(dir)? {
        let entry = entry?.path();
        if let Err(error) = collect_entry(&entry) {
            tracing::warn!(entry = %entry.display(), %error, "could not be collected");
            left = Err(error);
        } else {
            fs::remove_file(&entry)?;
        }
    }
    left
}

fn collect_entry(entry: &Path) -> io::Result<()> {
    let name = entry.file_name().unwrap_or_default().as_bytes();
    let of = |kind: &Kind| name.starts_with(kind.name().as_bytes());
    let Some(kind) = Kind::ALL.into_iter().find(of) else {
        return Ok(());
    };
    let path = fs::read_link(entry)?;
    let last = path.file_name().unwrap_or_default().as_bytes();
    let mark = kind.mark();
    let is_ours = path.is_absolute() && last.windows(mark.len()).any(|part| part == mark);
    if !is_ours {
        return Ok(());
    }
    match kind {
        Kind::Partial => walk::remove(&path, None, None).map(drop),
        Kind::Staged => remove_staged(&path),
        Kind::Cgroup => remove_cgroup(&path),
    }
}

/// Removes the entries beside a path whose names begin with its last part.
fn remove_staged(prefix: &Path) -> io::Result<()> {
    let (Some(dir), Some(name)) = (prefix.parent(), prefix.file_name()) else {
        return Ok(());
    };
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().as_bytes().starts_with(name.as_bytes()) {
            walk::remove(&entry.path(), None, None)?;
        }
    }
    Ok(())
}

/// Removes a control group once it is empty, which it is a moment after its processes were killed.
fn remove_cgroup(path: &Path) -> io::Result<()> {
    let deadline = Instant::now() + DYING;
    loop {
        match fs::remove_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error)
                if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline =>
            {
                thread::sleep(Duration::from_millis(10));
            }
            result => return result,
        }
    }
}
