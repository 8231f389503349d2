//! Settings of the host that a default root gets: found, and not copied yet.
//!
//! Reads no content: the copy decides by it, and leaves out what holds a secret.

use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::fs::{self, Metadata};
use std::hash::{Hash as _, Hasher as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use super::settings;

/// A file, link or directory of the host.
pub(super) struct Entry {
    /// Relative to the root.
    pub(super) path: PathBuf,
    pub(super) metadata: Metadata,
    /// Whether it is on the list itself, and not below something on it.
    pub(super) is_listed: bool,
}

/// Whether every user of the host may read it, and look into it if it is a directory.
pub(super) fn is_for_all(found: &Metadata) -> bool {
    let needed = if found.is_dir() { 0o005 } else { 0o004 };
    found.mode() & needed == needed
}

/// Finds what of a host's settings is on the list, and these paths besides; each directory before what is in
/// it. What vanishes meanwhile or has the name of a secret is left out.
pub(super) fn find(host: &Path, more: &[PathBuf]) -> Vec<Entry> {
    let mut found = Vec::new();
    for top in ["etc", "var/lib"] {
        find_listed(host, Path::new(top), &mut found);
    }
    for path in more {
        let path = path.strip_prefix("/").unwrap_or(path);
        find_all(host, path.to_owned(), true, &mut found);
    }
    found
}

fn find_listed(host: &Path, dir: &Path, found: &mut Vec<Entry>) {
    let entries = fs::read_dir(host.join(dir));
    for entry in entries.into_iter().flatten().flatten() {
        let path = dir.join(entry.file_name());
        if settings::is_shared(&path) {
            find_all(host, path, true, found);
        } else if settings::leads_to_shared(&path)
            && entry.file_type().is_ok_and(|kind| kind.is_dir())
        {
            find_listed(host, &path, found);
        }
    }
}

fn find_all(host: &Path, path: PathBuf, is_listed: bool, found: &mut Vec<Entry>) {
    let on_host = host.join(&path);
    if settings::has_secret_name(&path) {
        return;
    }
    let Ok(metadata) = fs::symlink_metadata(&on_host) else {
        return;
    };
    let enters = metadata.is_dir() && is_for_all(&metadata);
    found.push(Entry {
        path: path.clone(),
        metadata,
        is_listed,
    });
    if enters {
        for entry in fs::read_dir(on_host).into_iter().flatten().flatten() {
            find_all(host, path.join(entry.file_name()), false, found);
        }
    }
}

/// Digest of all that a base layer is made from: two with the same one have the same content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint(u64);

/// The code that makes a base layer of the entries that were found.
const CODE: [&str; 3] = [
    include_str!("base.rs"),
    include_str!("found.rs"),
    include_str!("settings.rs"),
];

/// A file that was changed so many seconds ago may change once more without another time of change: the
/// kernel's clock for files has steps.
const SETTLED: i64 = 2;

impl Fingerprint {
    /// Of these settings and links among the system directories; nothing if it could miss a change. It is
    /// another one after the next boot: what was not on the disk yet may be gone by then.
    pub(super) fn new(entries: &[Entry], system_dirs: &[PathBuf]) -> Option<Self> {
        let boot = fs::read("/proc/sys/kernel/random/boot_id").ok()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        let newest = i64::try_from(now.as_secs()).ok()? - SETTLED;
        let mut hasher = DefaultHasher::new();
        (boot, CODE).hash(&mut hasher);
        for dir in system_dirs {
            let is_dir = fs::symlink_metadata(dir).is_ok_and(|found| found.is_dir());
            (dir, is_dir, fs::read_link(dir).ok()).hash(&mut hasher);
        }
        for Entry { path, metadata, .. } in entries {
            if metadata.ctime() > newest {
                return None;
            }
            (path, metadata.mode(), metadata.len()).hash(&mut hasher);
            (metadata.dev(), metadata.ino()).hash(&mut hasher);
            (metadata.mtime(), metadata.mtime_nsec()).hash(&mut hasher);
            (metadata.ctime(), metadata.ctime_nsec()).hash(&mut hasher);
        }
        Some(Self(hasher.finish()))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Fingerprint {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}
