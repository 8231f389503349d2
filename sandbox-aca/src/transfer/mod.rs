//! The host's side of import and export, whatever the guest is.
//!
//! Nothing here touches the guest.

mod gather;
mod receive;

use std::path::Path;

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use sandbox_core::{Error, ErrorKind, FileKind, Operation, Result};

pub(crate) use gather::gather;
pub(crate) use receive::{Wanted, build, decide, names};

/// Compiles patterns of gitignore(5), relative to `top`.
fn patterns(top: &Path, excludes: &[String], op: Operation) -> Result<Gitignore> {
    let invalid = |why: String| Error::new(ErrorKind::InvalidInput, op).with_message(why);
    let mut builder = GitignoreBuilder::new(top);
    for pattern in excludes {
        builder.add_line(None, pattern).map_err(|e| {
            invalid(format!("not a pattern of gitignore: {pattern:?}")).with_source(e)
        })?;
    }
    builder
        .build()
        .map_err(|e| invalid("the patterns do not fit together".into()).with_source(e))
}

/// Why an entry of this kind is left behind.
fn skipped(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Fifo => "a FIFO",
        FileKind::Socket => "a socket",
        FileKind::Device => "a device",
        _ => "of no kind that can be moved",
    }
}
