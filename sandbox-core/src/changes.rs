//! Changes of a sandbox: the difference between its files and those that it started with.
//!
//! A difference must never be cut short in silence: what is beyond a limit is an error, and what is
//! left out is named.

use bytes::Bytes;

use crate::{FileKind, GuestPath, Mode, Skipped};

/// Options of [`changes`](crate::Sandbox::changes).
///
/// ```
/// use sandbox_core::ChangesOptions;
/// let options = ChangesOptions::new().exclude("/target").max_bytes(256 << 20);
/// assert!(options.contents);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(default, deny_unknown_fields, rename_all = "kebab-case")
)]
#[non_exhaustive]
pub struct ChangesOptions {
    /// Patterns of gitignore(5) for what is left out, relative to the directory. An excluded entry
    /// is neither read nor counted.
    pub excludes: Vec<String>,
    /// Whether the contents of files are kept, before and after: a patch and
    /// applying the changes need them. Default: yes.
    pub contents: bool,
    /// The largest number of bytes of contents that are read, before and after together; holes
    /// count. Default: 64 MiB.
    pub max_bytes: u64,
    /// The largest number of changed entries. Default: 100,000.
    pub max_entries: u64,
}

impl Default for ChangesOptions {
    fn default() -> Self {
        Self {
            excludes: Vec::new(),
            contents: true,
            max_bytes: 64 << 20,
            max_entries: 100_000,
        }
    }
}

impl ChangesOptions {
    /// The defaults: everything, with contents.
    pub fn new() -> Self {
        Self::default()
    }

    /// Leaves out what matches this pattern.
    #[must_use]
    pub fn exclude(mut self, pattern: impl Into<String>) -> Self {
        self.excludes.push(pattern.into());
        self
    }

    /// Sets whether the contents of files are kept.
    #[must_use]
    pub fn contents(mut self, contents: bool) -> Self {
        self.contents = contents;
        self
    }

    /// Sets the largest number of bytes of contents that are read.
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Sets the largest number of changed entries.
    #[must_use]
    pub fn max_entries(mut self, entries: u64) -> Self {
        self.max_entries = entries;
        self
    }
}

/// One side of a change: an entry as it was, or as it is.
///
/// ```
/// use sandbox_core::{FileKind, FileVersion, Mode};
/// let script = FileVersion::new(FileKind::File, Mode::EXECUTABLE, 5).content(&b"true\n"[..]);
/// assert_eq!(script.content.as_deref(), Some(&b"true\n"[..]));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub struct FileVersion {
    /// Kind of the entry.
    pub kind: FileKind,
    /// Permission bits, with setuid, setgid and sticky as they are in the sandbox.
    pub mode: Mode,
    /// Length in bytes of a regular file; otherwise 0.
    pub size: u64,
    /// Target of a link, exactly as it is written in the link.
    #[cfg_attr(feature = "serde", serde(default))]
    pub link_target: Option<GuestPath>,
    /// Content of a regular file, if contents were asked for.
    #[cfg_attr(feature = "serde", serde(default, with = "crate::wire::bytes_or_none"))]
    pub content: Option<Bytes>,
}

impl FileVersion {
    /// An entry of this kind, mode and size.
    pub fn new(kind: FileKind, mode: Mode, size: u64) -> Self {
        Self {
            kind,
            mode,
            size,
            link_target: None,
            content: None,
        }
    }

    /// Sets the target of a link.
    #[must_use]
    pub fn link_target(mut self, target: impl Into<GuestPath>) -> Self {
        self.link_target = Some(target.into());
        self
    }

    /// Sets the content of a regular file.
    #[must_use]
    pub fn content(mut self, content: impl Into<Bytes>) -> Self {
        self.content = Some(content.into());
        self
    }

    /// Whether both are of the same kind and hold the same, whatever their modes.
    pub fn holds_the_same(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.size == other.size
            && self.link_target == other.link_target
            && self.content == other.content
    }
}

/// Kind of a change.
///
/// A renamed entry is a deleted one and an added one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum ChangeKind {
    /// An entry that was not there.
    Added,
    /// A file with other bytes, or a link with another target. The mode may differ too.
    Modified,
    /// An entry that is gone.
    Deleted,
    /// The permission bits differ, and nothing else. (Without contents such a file counts as modified.)
    Mode,
    /// An entry of another kind is in its place: a link where a file was.
    Replaced,
}

/// One entry that differs.
///
/// ```
/// use sandbox_core::{Change, ChangeKind, FileKind, FileVersion, Mode};
/// let old = FileVersion::new(FileKind::File, Mode::FILE, 1).content("a");
/// let new = FileVersion::new(FileKind::File, Mode::EXECUTABLE, 1).content("a");
/// assert_eq!(Change::new("run", Some(old), Some(new)).kind(), ChangeKind::Mode);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub struct Change {
    /// Path relative to the directory that was asked about.
    pub path: GuestPath,
    /// The entry that the sandbox started with; `None` if it was not there.
    #[cfg_attr(feature = "serde", serde(default))]
    pub before: Option<FileVersion>,
    /// The entry as it is; `None` if it is gone.
    #[cfg_attr(feature = "serde", serde(default))]
    pub after: Option<FileVersion>,
}

impl Change {
    /// A change of the entry at this path.
    pub fn new(
        path: impl Into<GuestPath>,
        before: Option<FileVersion>,
        after: Option<FileVersion>,
    ) -> Self {
        Self {
            path: path.into(),
            before,
            after,
        }
    }

    /// The kind of the change.
    pub fn kind(&self) -> ChangeKind {
        match (&self.before, &self.after) {
            (None, _) => ChangeKind::Added,
            (Some(_), None) => ChangeKind::Deleted,
            (Some(before), Some(after)) if before.kind != after.kind => ChangeKind::Replaced,
            (Some(before), Some(after)) => {
                let is_known = before.kind != FileKind::File || before.content.is_some();
                match is_known && before.holds_the_same(after) {
                    true => ChangeKind::Mode,
                    false => ChangeKind::Modified,
                }
            }
        }
    }
}

/// Changes of a directory of a sandbox since the sandbox began, sorted by path bytes.
///
/// An entry that was only touched, or written with the bytes that it had, is no change. A directory
/// that was added or deleted is listed with everything in it.
///
/// ```no_run
/// # use sandbox_core::{ChangeKind, Result, Sandbox, SandboxExt as _};
/// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
/// for change in &sandbox.changes_in("project").await?.entries {
///     println!("{:?} {}", change.kind(), change.path);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub struct Changes {
    /// The directory that was asked about, as an absolute path.
    pub directory: GuestPath,
    /// Entries that differ, sorted by path bytes.
    pub entries: Vec<Change>,
    /// Entries that could not be compared, and why: a mount of the host's directory, say.
    #[cfg_attr(feature = "serde", serde(default))]
    pub skipped: Vec<Skipped>,
}

impl Changes {
    /// No change in this directory.
    pub fn new(directory: impl Into<GuestPath>) -> Self {
        Self {
            directory: directory.into(),
            entries: Vec::new(),
            skipped: Vec::new(),
        }
    }

    /// Sets the entries that differ.
    #[must_use]
    pub fn entries(mut self, mut entries: Vec<Change>) -> Self {
        entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        self.entries = entries;
        self
    }

    /// Sets what could not be compared.
    #[must_use]
    pub fn skipped(mut self, skipped: Vec<Skipped>) -> Self {
        self.skipped = skipped;
        self
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The change of the entry at this path relative to the directory, if it differs.
    pub fn get(&self, path: impl Into<GuestPath>) -> Option<&Change> {
        let path = path.into();
        self.entries.iter().find(|change| change.path == path)
    }

    /// Sum of the contents' bytes that are kept.
    pub fn bytes(&self) -> u64 {
        let sides = self
            .entries
            .iter()
            .flat_map(|change| [&change.before, &change.after]);
        sides
            .flatten()
            .filter_map(|side| side.content.as_ref())
            .map(|content| content.len() as u64)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &'static str) -> FileVersion {
        FileVersion::new(FileKind::File, Mode::FILE, content.len() as u64).content(content)
    }

    #[test]
    fn the_kind_follows_from_both_sides() {
        let link = FileVersion::new(FileKind::Symlink, Mode::new(0o777), 0).link_target("a");
        let mut executable = file("a");
        executable.mode = Mode::EXECUTABLE;
        let kind = |before, after| Change::new("x", before, after).kind();
        assert_eq!(kind(None, Some(file("a"))), ChangeKind::Added);
        assert_eq!(kind(Some(file("a")), None), ChangeKind::Deleted);
        assert_eq!(kind(Some(file("a")), Some(file("b"))), ChangeKind::Modified);
        assert_eq!(kind(Some(file("a")), Some(executable)), ChangeKind::Mode);
        assert_eq!(kind(Some(file("a")), Some(link)), ChangeKind::Replaced);
    }

    #[test]
    fn entries_are_sorted_by_bytes() {
        let change = |path: &str| Change::new(path, None, Some(file("")));
        let changes = Changes::new("/w").entries(vec![change("b"), change("a/b"), change("a")]);
        let paths: Vec<String> = changes.entries.iter().map(|c| c.path.to_string()).collect();
        assert_eq!(paths, ["a", "a/b", "b"]);
        assert!(changes.get("a/b").is_some());
    }
}
