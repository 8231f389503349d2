//! Files in a sandbox: batches to write, entries to list, what to read.

use std::fmt;
use std::time::SystemTime;

use bytes::Bytes;

use crate::{Error, ErrorKind, GuestPath, Operation, Result};

/// Default limit of [`read_file`](crate::Sandbox::read_file), in bytes: 64 MiB.
pub const DEFAULT_READ_LIMIT: u64 = 64 << 20;

/// Default limit of [`list_dir`](crate::Sandbox::list_dir), in entries.
pub const DEFAULT_LIST_LIMIT: usize = 100_000;

/// Permission bits: the lower nine (`rwxrwxrwx`), sticky, setgid and setuid.
///
/// ```
/// use sandbox_core::Mode;
/// assert_eq!(Mode::new(0o100_755), Mode::EXECUTABLE);
/// assert_eq!(format!("{:?}", Mode::FILE), "0o644");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub struct Mode(u32);

impl Mode {
    /// `rw-r--r--`, the default of a file.
    pub const FILE: Self = Self(0o644);
    /// `rwxr-xr-x`, the default of a directory and of a program.
    pub const EXECUTABLE: Self = Self(0o755);

    /// The bits `0o7777` of `bits`; the file type is cut off.
    pub const fn new(bits: u32) -> Self {
        Self(bits & 0o7777)
    }

    /// The bits.
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl fmt::Debug for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#o}", self.0)
    }
}

/// Treatment of a file that exists already.
///
/// ```
/// use sandbox_core::{FileBatch, WriteMode};
/// let batch = FileBatch::new().new_file("lock", "");
/// assert_eq!(batch.files()[0].write_mode, WriteMode::CreateNew);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum WriteMode {
    /// Replace it: readers see the old or the new file, never a part.
    #[default]
    Replace,
    /// Fail the batch with [`ErrorKind::AlreadyExists`].
    CreateNew,
}

/// One file of a batch.
///
/// ```
/// use sandbox_core::{FileBatch, Mode};
/// let mut batch = FileBatch::new();
/// batch.push("bin/tool", "#!/bin/sh\n").mode = Some(Mode::EXECUTABLE);
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct FileWrite {
    /// Path of the file; missing parents are created with mode 755.
    pub path: GuestPath,
    /// Content of the file.
    pub content: Bytes,
    /// Permission bits. `None`: those of the file that is replaced, or `0o644`.
    pub mode: Option<Mode>,
    /// Treatment of a file that exists already.
    pub write_mode: WriteMode,
}

impl fmt::Debug for FileWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileWrite")
            .field("path", &self.path)
            .field("content", &format_args!("{} bytes", self.content.len()))
            .field("mode", &self.mode)
            .field("write_mode", &self.write_mode)
            .finish()
    }
}

/// Files to write at once: all of them or none.
///
/// ```
/// use sandbox_core::{FileBatch, Mode};
/// let batch = FileBatch::new()
///     .file("src/main.rs", "fn main() {}\n")
///     .file_with_mode("run.sh", "#!/bin/sh\ncargo run\n", Mode::EXECUTABLE);
/// assert_eq!(batch.files().len(), 2);
/// ```
#[derive(Clone, Debug, Default)]
pub struct FileBatch {
    files: Vec<FileWrite>,
}

impl FileBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file, replacing what is there, with the replaced file's mode or `0o644`.
    #[must_use]
    pub fn file(mut self, path: impl Into<GuestPath>, content: impl Into<Bytes>) -> Self {
        self.push(path, content);
        self
    }

    /// Adds a file with these permission bits.
    #[must_use]
    pub fn file_with_mode(
        mut self,
        path: impl Into<GuestPath>,
        content: impl Into<Bytes>,
        mode: Mode,
    ) -> Self {
        self.push(path, content).mode = Some(mode);
        self
    }

    /// Adds a file that must not exist yet.
    #[must_use]
    pub fn new_file(mut self, path: impl Into<GuestPath>, content: impl Into<Bytes>) -> Self {
        self.push(path, content).write_mode = WriteMode::CreateNew;
        self
    }

    /// Adds a file and gives it back to be changed.
    pub fn push(
        &mut self,
        path: impl Into<GuestPath>,
        content: impl Into<Bytes>,
    ) -> &mut FileWrite {
        self.files.push(FileWrite {
            path: path.into(),
            content: content.into(),
            mode: None,
            write_mode: WriteMode::Replace,
        });
        let last = self.files.len() - 1;
        &mut self.files[last]
    }

    /// The files, in the order in which they were added.
    pub fn files(&self) -> &[FileWrite] {
        &self.files
    }

    /// Resolves every path and refuses what can't be a batch: the shared first step of every
    /// backend.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] with the path: an invalid path, the root, the same path twice,
    /// a path below another of the batch, setuid, setgid or sticky bits.
    pub fn resolve(&self, workdir: &GuestPath) -> Result<Vec<(GuestPath, &FileWrite)>> {
        const OP: Operation = Operation::WriteFiles;
        let invalid = |why: &str, path: &GuestPath| {
            Error::new(ErrorKind::InvalidInput, OP)
                .with_message(why)
                .with_path(path)
        };
        let mut resolved = Vec::with_capacity(self.files.len());
        for file in &self.files {
            let path = file.path.resolve(workdir, OP)?;
            if path == GuestPath::root() {
                return Err(invalid("the root is not a file", &path));
            }
            if file.path.as_bytes().last() == Some(&b'/') {
                return Err(invalid(
                    "a path with a trailing slash names a directory",
                    &file.path,
                ));
            }
            if file.mode.is_some_and(|mode| mode.bits() & !0o777 != 0) {
                return Err(invalid(
                    "setuid, setgid and sticky bits are not written",
                    &path,
                ));
            }
            resolved.push((path, file));
        }
        let mut sorted: Vec<&GuestPath> = resolved.iter().map(|(path, _)| path).collect();
        // By components, so that "a", "a/b" stand together and "a-b" does not come between.
        sorted.sort_by(|a, b| a.components().cmp(b.components()));
        for pair in sorted.windows(2) {
            if pair[0] == pair[1] {
                return Err(invalid("the batch has this path twice", pair[1]));
            }
            if pair[1].strip_prefix(pair[0]).is_some() {
                return Err(invalid(
                    "the batch has a file below another of its files",
                    pair[1],
                ));
            }
        }
        Ok(resolved)
    }
}

/// Options of reading a file.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(default, deny_unknown_fields, rename_all = "kebab-case")
)]
///
/// ```
/// use sandbox_core::ReadOptions;
/// let options = ReadOptions::new().limit(1 << 20);
/// assert_eq!(options.limit, 1_048_576);
/// ```
#[non_exhaustive]
pub struct ReadOptions {
    /// The largest file that is read, in bytes; a larger one is
    /// [`ErrorKind::LimitExceeded`]. Default: [`DEFAULT_READ_LIMIT`].
    pub limit: u64,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            limit: DEFAULT_READ_LIMIT,
        }
    }
}

impl ReadOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    crate::setters! {
        /// Sets the largest file that is read, in bytes.
        limit: u64,
    }
}

/// Options of listing a directory.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(default, deny_unknown_fields, rename_all = "kebab-case")
)]
///
/// ```
/// use sandbox_core::ListOptions;
/// let options = ListOptions::new().recursive(true).limit(500);
/// assert!(options.recursive);
/// ```
#[non_exhaustive]
pub struct ListOptions {
    /// Whether to descend into directories (never through links). Default: no.
    pub recursive: bool,
    /// The largest number of entries; more is [`ErrorKind::LimitExceeded`]. Default:
    /// [`DEFAULT_LIST_LIMIT`].
    pub limit: usize,
}

impl Default for ListOptions {
    fn default() -> Self {
        Self {
            recursive: false,
            limit: DEFAULT_LIST_LIMIT,
        }
    }
}

impl ListOptions {
    /// The defaults: one level, [`DEFAULT_LIST_LIMIT`] entries.
    pub fn new() -> Self {
        Self::default()
    }

    crate::setters! {
        /// Sets whether to descend into directories.
        recursive: bool,

        /// Sets the largest number of entries.
        limit: usize,
    }
}

/// Options of a removal.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(default, deny_unknown_fields, rename_all = "kebab-case")
)]
///
/// ```
/// use sandbox_core::RemoveOptions;
/// let like_rm_rf = RemoveOptions::new().recursive(true).ignore_missing(true);
/// assert!(like_rm_rf.recursive && like_rm_rf.ignore_missing);
/// ```
#[non_exhaustive]
pub struct RemoveOptions {
    /// Whether a directory is removed with everything in it. Default: no.
    pub recursive: bool,
    /// Whether it is a success if nothing is there, as with `rm -f`. Default: no.
    pub ignore_missing: bool,
}

impl RemoveOptions {
    /// The defaults: a directory must be empty.
    pub fn new() -> Self {
        Self::default()
    }

    crate::setters! {
        /// Sets whether a directory is removed with everything in it.
        recursive: bool,

        /// Sets whether it is a success if nothing is there.
        ignore_missing: bool,
    }

    /// The result of a removal under these options: the last step of a backend's
    /// [`remove`](crate::Sandbox::remove).
    ///
    /// # Errors
    /// The removal's own, except [`ErrorKind::NotFound`] if that is accepted.
    ///
    /// ```
    /// use sandbox_core::{Error, ErrorKind, Operation, RemoveOptions};
    /// let missing = || Err(Error::new(ErrorKind::NotFound, Operation::Remove));
    /// assert!(RemoveOptions::new().settle(missing()).is_err());
    /// assert!(RemoveOptions::new().ignore_missing(true).settle(missing()).is_ok());
    /// ```
    pub fn settle(&self, removed: Result<()>) -> Result<()> {
        match removed {
            Err(error) if self.ignore_missing && error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}

/// Options of creating a directory.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(default, deny_unknown_fields, rename_all = "kebab-case")
)]
///
/// ```
/// use sandbox_core::{CreateDirOptions, Mode};
/// let exclusive = CreateDirOptions::new().recursive(false).mode(Mode::new(0o700));
/// assert_eq!(exclusive.mode.bits(), 0o700);
/// ```
#[non_exhaustive]
pub struct CreateDirOptions {
    /// Whether missing parents are created and an existing directory is accepted, as `mkdir -p`
    /// and [`std::fs::DirBuilder::recursive`] do. Without it the parent must exist and the
    /// directory must not. Default: yes.
    pub recursive: bool,
    /// Permission bits of the directory itself. Default: `0o755`.
    pub mode: Mode,
}

impl Default for CreateDirOptions {
    fn default() -> Self {
        Self {
            recursive: true,
            mode: Mode::EXECUTABLE,
        }
    }
}

impl CreateDirOptions {
    /// The defaults: missing parents are created, mode `0o755`.
    pub fn new() -> Self {
        Self::default()
    }

    crate::setters! {
        /// Sets whether missing parents are created and an existing directory is accepted.
        recursive: bool,

        /// Sets the permission bits of the directory itself.
        mode: Mode,
    }
}

/// Options of a rename.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(default, deny_unknown_fields, rename_all = "kebab-case")
)]
///
/// ```
/// use sandbox_core::RenameOptions;
/// assert!(RenameOptions::new().replace(true).replace);
/// ```
#[non_exhaustive]
pub struct RenameOptions {
    /// Whether a file (or an empty directory, by a directory) at the new name is replaced.
    /// Default: no.
    pub replace: bool,
}

impl RenameOptions {
    /// The defaults: nothing is replaced.
    pub fn new() -> Self {
        Self::default()
    }

    crate::setters! {
        /// Sets whether a file or an empty directory at the new name is replaced.
        replace: bool,
    }
}

/// Kind of a directory entry.
///
/// ```no_run
/// # use sandbox_core::{FileKind, Result, Sandbox, SandboxExt as _};
/// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
/// let is_link = sandbox.stat("current").await?.kind == FileKind::Symlink;
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A FIFO.
    Fifo,
    /// A socket.
    Socket,
    /// A character or block device.
    Device,
}

/// Options of asking for metadata.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(default, deny_unknown_fields, rename_all = "kebab-case")
)]
///
/// ```
/// use sandbox_core::MetadataOptions;
/// assert!(MetadataOptions::new().follow(true).follow);
/// ```
#[non_exhaustive]
pub struct MetadataOptions {
    /// Whether a link at the path itself is followed, as `stat` does and `lstat` does not; what is
    /// described is then never a link. Default: no.
    pub follow: bool,
}

impl MetadataOptions {
    /// The defaults: a link itself is described.
    pub fn new() -> Self {
        Self::default()
    }

    crate::setters! {
        /// Sets whether a link at the path itself is followed.
        follow: bool,
    }
}

/// Metadata of an entry. A link is described itself, not what it points to.
///
/// ```
/// use sandbox_core::{FileKind, Metadata, Mode};
/// let link = Metadata::new(FileKind::Symlink, 6, Mode::new(0o777)).link_target("target");
/// assert!(!link.is_file());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub struct Metadata {
    /// Kind of the entry.
    pub kind: FileKind,
    /// Length in bytes (of a link: of its target's name; of a directory: unspecified).
    pub size: u64,
    /// Permission bits.
    pub mode: Mode,
    /// The owner's number as the guest sees it, where known: programs compare it with `id -u`.
    pub uid: Option<u32>,
    /// The group's number as the guest sees it, where known: programs compare it with `id -g`.
    pub gid: Option<u32>,
    /// Last change of the content, where known.
    pub modified: Option<SystemTime>,
    /// Target of a link, exactly as it is written in the link.
    pub link_target: Option<GuestPath>,
}

impl Metadata {
    /// An entry of this kind, size and mode.
    pub fn new(kind: FileKind, size: u64, mode: Mode) -> Self {
        Self {
            kind,
            size,
            mode,
            uid: None,
            gid: None,
            modified: None,
            link_target: None,
        }
    }

    /// Sets the numbers of owner and group as the guest sees them.
    ///
    /// ```
    /// use sandbox_core::{FileKind, Metadata, Mode};
    /// let file = Metadata::new(FileKind::File, 0, Mode::FILE).owner(1000, 100);
    /// assert_eq!((file.uid, file.gid), (Some(1000), Some(100)));
    /// ```
    #[must_use]
    pub fn owner(mut self, uid: u32, gid: u32) -> Self {
        self.uid = Some(uid);
        self.gid = Some(gid);
        self
    }

    crate::setters! {
        /// Sets the time of the last change.
        modified: Some(SystemTime),

        /// Sets the target of a link.
        link_target: Some(into GuestPath),
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind == FileKind::File
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }
}

/// An entry of a directory.
///
/// ```no_run
/// # use sandbox_core::{Result, Sandbox, SandboxExt as _};
/// # async fn example(sandbox: &dyn Sandbox) -> Result<()> {
/// for entry in sandbox.list("src").await? {
///     println!("{} {}", entry.path, entry.metadata.size);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub struct DirEntry {
    /// Path relative to the directory that was listed: a name, or more when recursive.
    pub path: GuestPath,
    /// Kind of the entry.
    pub metadata: Metadata,
}

impl DirEntry {
    /// An entry at this path.
    pub fn new(path: impl Into<GuestPath>, metadata: Metadata) -> Self {
        Self {
            path: path.into(),
            metadata,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(batch: &FileBatch) -> Option<ErrorKind> {
        batch
            .resolve(&GuestPath::from("/w"))
            .err()
            .map(|error| error.kind())
    }

    #[test]
    fn a_batch_refuses_what_cannot_be_put_in_place_at_once() {
        let invalid = Some(ErrorKind::InvalidInput);
        assert_eq!(
            kind(&FileBatch::new().file("a", "").file("./a", "")),
            invalid
        );
        assert_eq!(
            kind(
                &FileBatch::new()
                    .file("a", "")
                    .file("a-b", "")
                    .file("a/b", "")
            ),
            invalid
        );
        assert_eq!(kind(&FileBatch::new().file("a/", "")), invalid);
        assert_eq!(kind(&FileBatch::new().file("..", "")), invalid);
        assert_eq!(
            kind(&FileBatch::new().file_with_mode("a", "", Mode::new(0o4755))),
            invalid
        );
        assert_eq!(
            kind(
                &FileBatch::new()
                    .file("a", "")
                    .file("ab", "")
                    .file("b/a", "")
            ),
            None
        );
    }
}
