//! Collecting changes within limits, for backends.
//!
//! What would be beyond a limit must never be left out in silence: it is an error.

use std::collections::BTreeMap;

use sandbox_core::{
    Change, Changes, ChangesOptions, Error, ErrorKind, FileKind, FileVersion, GuestPath, Operation,
    Result, Skipped,
};

use crate::Excludes;

const OP: Operation = Operation::Changes;

/// Collects the changes of a directory: what a backend finds goes in, an answer within the caller's
/// limits comes out.
///
/// ```
/// use sandbox_core::{Change, ChangesOptions, FileKind, FileVersion, GuestPath, Mode};
/// use sandbox_transfer::changes::ChangeCollector;
/// let options = ChangesOptions::new().exclude("*.o");
/// let mut collector = ChangeCollector::new(&GuestPath::from("/work"), &options)?;
/// assert!(collector.is_excluded(b"main.o", false));
/// let added = FileVersion::new(FileKind::Directory, Mode::new(0o755), 0);
/// collector.push(Change::new("src", None, Some(added)))?;
/// assert_eq!(collector.finish().entries.len(), 1);
/// # Ok::<(), sandbox_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ChangeCollector {
    directory: GuestPath,
    excludes: Excludes,
    contents: bool,
    max_bytes: u64,
    max_entries: u64,
    bytes: u64,
    entries: Vec<Change>,
    skipped: Vec<Skipped>,
}

impl ChangeCollector {
    /// Collects for this directory, an absolute path.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for what is not an exclude pattern.
    pub fn new(directory: &GuestPath, options: &ChangesOptions) -> Result<Self> {
        Ok(Self {
            directory: directory.clone(),
            excludes: Excludes::new(&options.excludes, OP)?,
            contents: options.contents,
            max_bytes: options.max_bytes,
            max_entries: options.max_entries,
            bytes: 0,
            entries: Vec::new(),
            skipped: Vec::new(),
        })
    }

    /// Whether the entry at this path relative to the directory, or one above it, is left out.
    pub fn is_excluded(&self, path: &[u8], is_dir: bool) -> bool {
        self.excludes.excludes(path, is_dir)
    }

    /// Whether contents are kept.
    pub fn keeps_contents(&self) -> bool {
        self.contents
    }

    /// Counts bytes that are about to be read.
    ///
    /// # Errors
    /// [`LimitExceeded`](ErrorKind::LimitExceeded) with the path and the limit.
    pub fn reserve(&mut self, path: &[u8], bytes: u64) -> Result<()> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > self.max_bytes {
            return Err(Error::new(ErrorKind::LimitExceeded, OP)
                .with_message(format!(
                    "more than the limit of {} bytes to read",
                    self.max_bytes
                ))
                .with_path(self.directory.join(path))
                .with_hint("exclude what is not of interest, or raise max_bytes"));
        }
        Ok(())
    }

    /// Adds a change. One whose sides do not differ is none.
    ///
    /// # Errors
    /// [`LimitExceeded`](ErrorKind::LimitExceeded) beyond the number of entries.
    pub fn push(&mut self, mut change: Change) -> Result<()> {
        if change.before == change.after {
            return Ok(());
        }
        if self.entries.len() as u64 >= self.max_entries {
            return Err(Error::new(ErrorKind::LimitExceeded, OP)
                .with_message(format!(
                    "more than the limit of {} entries differ",
                    self.max_entries
                ))
                .with_path(self.directory.clone())
                .with_hint("exclude what is not of interest, or raise max_entries"));
        }
        if !self.contents {
            for side in [&mut change.before, &mut change.after]
                .into_iter()
                .flatten()
            {
                side.content = None;
            }
        }
        self.entries.push(change);
        Ok(())
    }

    /// Notes what could not be compared.
    pub fn skip(&mut self, path: impl Into<GuestPath>, reason: impl Into<String>) {
        self.skipped.push(Skipped::new(path, reason));
    }

    /// The changes, sorted.
    pub fn finish(self) -> Changes {
        Changes::new(self.directory)
            .entries(self.entries)
            .skipped(self.skipped)
    }
}

/// Compares two sets of entries, by paths relative to the directory, whose contents are at hand.
///
/// # Errors
/// Those of the collector.
pub fn compare(
    before: &BTreeMap<GuestPath, FileVersion>,
    after: &BTreeMap<GuestPath, FileVersion>,
    collector: &mut ChangeCollector,
) -> Result<()> {
    let is_dir = |version: Option<&FileVersion>| {
        version.is_some_and(|version| version.kind == FileKind::Directory)
    };
    let mut add = |path: &GuestPath, old: Option<&FileVersion>, new: Option<&FileVersion>| {
        let dir = is_dir(old) || is_dir(new);
        if old == new || collector.is_excluded(path.as_bytes(), dir) {
            return Ok(());
        }
        for side in [old, new].into_iter().flatten() {
            collector.reserve(path.as_bytes(), side.size)?;
        }
        collector.push(Change::new(path, old.cloned(), new.cloned()))
    };
    for (path, new) in after {
        add(path, before.get(path), Some(new))?;
    }
    for (path, old) in before {
        if !after.contains_key(path) {
            add(path, Some(old), None)?;
        }
    }
    Ok(())
}
