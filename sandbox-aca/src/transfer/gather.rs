//! Gathering of what goes into a guest: a directory of the host as one tar in a temporary file.
//!
//! Invariant: the host's side is `sandbox-transfer`'s alone.

use std::fs::File;
use std::io::Seek as _;
use std::path::Path;

use sandbox_core::{DirEntry, Error, ImportOptions, Operation, Result};
use sandbox_transfer::{Scan, pack};

const OP: Operation = Operation::ImportDir;

/// Size from which on the holes of a file are kept as holes in the tar.
const HOLES: u64 = 1 << 20;

/// A packed directory.
#[derive(Debug)]
pub(crate) struct Gathered {
    /// The tar, at its beginning.
    pub(crate) tar: File,
    pub(crate) scan: Scan,
}

impl Gathered {
    /// Entries that the guest's directory has and the host's does not, as `rm` takes them: children
    /// behind their parents.
    pub(crate) fn gone(&self, there: Vec<DirEntry>) -> Vec<Vec<u8>> {
        let gone = there.iter().filter(|entry| {
            self.scan
                .is_gone(entry.path.as_bytes(), entry.metadata.is_dir())
        });
        // `./` in front: a name may begin with a hyphen.
        let mut gone: Vec<_> = gone
            .map(|entry| [b"./", entry.path.as_bytes()].concat())
            .collect();
        gone.sort();
        gone
    }
}

/// Packs a directory. Blocks.
pub(crate) fn gather(from: &Path, options: &ImportOptions) -> Result<Gathered> {
    let mut tar = tempfile::tempfile().map_err(|e| Error::from_io(e, OP))?;
    let (scan, _) = pack(from, options, &tar, HOLES)?;
    tar.rewind().map_err(|e| Error::from_io(e, OP))?;
    Ok(Gathered { tar, scan })
}
