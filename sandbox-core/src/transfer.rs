//! Directories between host and sandbox.

use std::fmt;
use std::sync::Arc;

use crate::GuestPath;

/// Counts of what an import or export has brought so far.
///
/// ```
/// use sandbox_core::TransferCount;
/// let count = TransferCount::default();
/// assert_eq!((count.files, count.bytes), (0, 0));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransferCount {
    /// Regular files.
    pub files: u64,
    /// Sum of their sizes.
    pub bytes: u64,
}

/// A function that is told how far an import or export is, file by file.
///
/// It is called on the thread that does the work, which waits for it. Counts only grow, and the last is
/// that of the [`TransferReport`], so that only a call that succeeded ends with it. A layer that tries
/// again begins anew. Where files go to a service as a whole, those are counted that were read of the
/// host.
///
/// ```
/// use sandbox_core::{ImportOptions, TransferProgress};
/// let progress = TransferProgress::new(|count| eprintln!("{} files", count.files));
/// let options = ImportOptions::new().progress(progress);
/// assert!(options.progress.is_some());
/// ```
#[derive(Clone)]
pub struct TransferProgress(Arc<dyn Fn(TransferCount) + Send + Sync>);

impl TransferProgress {
    /// Tells this function, which must neither block nor panic.
    pub fn new(tell: impl Fn(TransferCount) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    /// Tells what the report counts by now. For backends.
    pub fn tell(&self, report: &TransferReport) {
        (self.0)(TransferCount {
            files: report.files,
            bytes: report.bytes,
        });
    }
}

impl fmt::Debug for TransferProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransferProgress").finish_non_exhaustive()
    }
}

/// Treatment of an entry that can't be read.
///
/// ```
/// use sandbox_core::{ImportOptions, Unreadable};
/// let strict = ImportOptions::new().unreadable(Unreadable::Fail);
/// assert_eq!(strict.unreadable, Unreadable::Fail);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum Unreadable {
    /// Bring the rest, and name the entry in [`TransferReport::skipped`].
    #[default]
    Skip,
    /// Fail with [`PermissionDenied`](crate::ErrorKind::PermissionDenied). What was brought before it
    /// was met may stay.
    Fail,
}

/// Options of an import: a directory of the host is brought into a sandbox.
///
/// Regular files, directories and symbolic links are brought, with permission bits (never setuid,
/// setgid or sticky); what a link points to on the host is not followed. FIFOs, sockets and
/// devices are skipped and reported.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(default, deny_unknown_fields, rename_all = "kebab-case")
)]
///
/// ```
/// use sandbox_core::ImportOptions;
/// let options = ImportOptions::new()
///     .exclude("/target")
///     .ignore_files(true)
///     .mirror(true)
///     .max_bytes(1 << 30);
/// assert_eq!(options.excludes, ["/target"]);
/// ```
#[non_exhaustive]
pub struct ImportOptions {
    /// Patterns of gitignore(5) for what is left out, relative to the directory.
    pub excludes: Vec<String>,
    /// Whether `.gitignore` and `.ignore` files in the directory are heeded. `.git` itself is not
    /// left out by this. The excludes decide first; then any `.ignore` goes before any
    /// `.gitignore`, whichever is deeper, as in ripgrep; among files of one kind the innermost
    /// decides. One that can't be read, or has more than 1 MiB, is an error whatever
    /// [`unreadable`](Self::unreadable) says: what it leaves out is not known. Default: no.
    pub ignore_files: bool,
    /// Whether what is in the sandbox's directory and not in the host's is removed, so that an
    /// import repeated reflects deletions. What is excluded is left alone. Default: no.
    pub mirror: bool,
    /// The largest sum of file sizes, in bytes; holes count. Default: no limit.
    pub max_bytes: Option<u64>,
    /// Treatment of an entry of the host that can't be read. Default: skip it. Mirroring
    /// leaves alone what the sandbox has of it.
    pub unreadable: Unreadable,
    /// Function that is told how far it is. Default: none.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub progress: Option<TransferProgress>,
}

impl ImportOptions {
    /// The defaults: everything is brought, and nothing is removed.
    pub fn new() -> Self {
        Self::default()
    }

    /// Leaves out what matches this pattern.
    #[must_use]
    pub fn exclude(mut self, pattern: impl Into<String>) -> Self {
        self.excludes.push(pattern.into());
        self
    }

    crate::setters! {
        /// Sets whether `.gitignore` and `.ignore` files are heeded.
        ignore_files: bool,

        /// Sets whether what the host's directory lacks is removed from the sandbox's.
        mirror: bool,

        /// Sets the largest sum of file sizes, in bytes.
        max_bytes: Some(u64),

        /// Sets what to do about an entry that can't be read.
        unreadable: Unreadable,

        /// Sets what is told how far it is.
        progress: Some(TransferProgress),
    }
}

/// Treatment of a host directory that exists already.
///
/// ```
/// use sandbox_core::{ExistingDir, ExportOptions};
/// let once = ExportOptions::new().existing(ExistingDir::MustBeAbsent);
/// assert_eq!(ExportOptions::new().existing, ExistingDir::MustBeEmpty);
/// # let _ = once;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum ExistingDir {
    /// Fail with [`AlreadyExists`](crate::ErrorKind::AlreadyExists), even if it is empty: the name
    /// must be new.
    MustBeAbsent,
    /// Fail with [`AlreadyExists`](crate::ErrorKind::AlreadyExists), unless it is empty.
    #[default]
    MustBeEmpty,
    /// Add to it and replace files of the same name, each at once.
    Merge,
    /// Put the export in its place at once and remove what was there.
    Replace,
}

/// Options of an export: a directory of a sandbox is brought to the host.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(default, deny_unknown_fields, rename_all = "kebab-case")
)]
///
/// ```
/// use sandbox_core::{ExistingDir, ExportOptions};
/// let options = ExportOptions::new()
///     .existing(ExistingDir::Replace)
///     .exclude("*.o")
///     .max_entries(10_000);
/// assert_eq!(options.max_bytes, 4 << 30);
/// ```
#[non_exhaustive]
pub struct ExportOptions {
    /// Treatment of a host directory that exists already.
    pub existing: ExistingDir,
    /// Patterns of gitignore(5) for what is left out, relative to the directory.
    pub excludes: Vec<String>,
    /// The largest sum of file sizes, in bytes; holes count. Default: 4 GiB.
    pub max_bytes: u64,
    /// The largest number of entries; what is skipped counts, and so do directories that an archive
    /// only implies. Default: one million.
    pub max_entries: u64,
    /// Treatment of an entry that the sandbox's user can't read. Default: skip it.
    pub unreadable: Unreadable,
    /// Function that is told how far it is. Default: none.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub progress: Option<TransferProgress>,
}

impl Default for ExportOptions {
    fn default() -> Self {
        Self {
            existing: ExistingDir::MustBeEmpty,
            excludes: Vec::new(),
            max_bytes: 4 << 30,
            max_entries: 1_000_000,
            unreadable: Unreadable::Skip,
            progress: None,
        }
    }
}

impl ExportOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    crate::setters! {
        /// Sets what to do where the host's directory exists already.
        existing: ExistingDir,
    }

    /// Leaves out what matches this pattern.
    #[must_use]
    pub fn exclude(mut self, pattern: impl Into<String>) -> Self {
        self.excludes.push(pattern.into());
        self
    }

    crate::setters! {
        /// Sets the largest sum of file sizes, in bytes.
        max_bytes: u64,

        /// Sets the largest number of entries.
        max_entries: u64,

        /// Sets what to do about an entry that can't be read.
        unreadable: Unreadable,

        /// Sets what is told how far it is.
        progress: Some(TransferProgress),
    }
}

/// An entry that an import or export left behind, and why.
///
/// ```
/// use sandbox_core::Skipped;
/// let skipped = Skipped::new("run/control", "a socket");
/// assert_eq!(skipped.reason, "a socket");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub struct Skipped {
    /// Path relative to the directory.
    pub path: GuestPath,
    /// Why it was left: "a FIFO", "a link out of the directory", ….
    pub reason: String,
}

impl Skipped {
    /// Left at this path for this reason.
    pub fn new(path: impl Into<GuestPath>, reason: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            reason: reason.into(),
        }
    }
}

/// Report of an import or export. What excludes and ignore files leave out is not counted.
///
/// ```
/// use sandbox_core::TransferReport;
/// let mut report = TransferReport::default();
/// report.skip("pipe", "a FIFO");
/// assert_eq!((report.files, report.skipped_total), (0, 1));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub struct TransferReport {
    /// Regular files.
    pub files: u64,
    /// Directories, without the top one.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Sum of the files' sizes.
    pub bytes: u64,
    /// Entries removed by a mirroring import.
    pub removed: u64,
    /// Entries that were left behind; at most 1,000 are named.
    pub skipped: Vec<Skipped>,
    /// Number of entries that were left behind in all.
    pub skipped_total: u64,
}

impl TransferReport {
    /// Counts something left behind, and names it if there is room.
    pub fn skip(&mut self, path: impl Into<GuestPath>, reason: impl Into<String>) {
        const NAMED: usize = 1_000;
        self.skipped_total += 1;
        if self.skipped.len() < NAMED {
            self.skipped.push(Skipped::new(path, reason));
        }
    }
}
