//! Directories between host and guest, as tar archives that are built and taken apart here.
//!
//! Invariant: patterns mean the same in both directions.

mod export;
mod import;

pub(crate) use export::export;
pub(crate) use import::import;

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use sandbox_core::{Error, ErrorKind, Operation, Result};

fn patterns(excludes: &[String], operation: Operation) -> Result<Gitignore> {
    let mut builder = GitignoreBuilder::new("");
    for pattern in excludes {
        builder.add_line(None, pattern).map_err(|error| {
            Error::new(ErrorKind::InvalidInput, operation)
                .with_message(format!("{pattern:?} is no pattern"))
                .with_source(error)
        })?;
    }
    builder.build().map_err(|error| {
        Error::new(ErrorKind::InvalidInput, operation)
            .with_message("the excludes can't be used together")
            .with_source(error)
    })
}
