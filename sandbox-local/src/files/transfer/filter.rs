//! What is left out of a transfer.
//!
//! Invariant: only the caller's patterns and ignore files within the directory count; never the
//! parents' or the user's git configuration.

use std::ffi::OsStr;
use std::io::Read as _;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use rustix::fs::OFlags;
use sandbox_core::{Error, ErrorKind, Operation, Result};

use super::super::resolve::{open_same_mount, reopen};
use super::super::stat::stat_fd;

/// How much of an ignore file is read. Its patterns are compiled, which costs many times that.
const MAX_IGNORE_FILE: u64 = 1 << 20;

/// The caller's patterns, relative to the top directory.
#[derive(Clone, Debug)]
pub(super) struct Excludes(Gitignore);

impl Excludes {
    pub(super) fn new(patterns: &[String], operation: Operation) -> Result<Self> {
        let invalid = |pattern: &str, error: ignore::Error| {
            Error::new(ErrorKind::InvalidInput, operation)
                .with_message(format!("the exclude pattern {pattern:?} is not valid"))
                .with_source(error)
        };
        let mut builder = GitignoreBuilder::new("");
        for pattern in patterns {
            builder
                .add_line(None, pattern)
                .map_err(|error| invalid(pattern, error))?;
        }
        builder
            .build()
            .map(Self)
            .map_err(|error| invalid(&patterns.join("\n"), error))
    }
}

/// The ignore files of one directory.
#[derive(Clone, Debug)]
pub(super) struct IgnoreFiles {
    /// The length of the directory's path with its slash.
    prefix: usize,
    git: Gitignore,
    other: Gitignore,
}

impl IgnoreFiles {
    /// Reads those of this directory, which has this path relative to the top.
    pub(super) fn read(dir: BorrowedFd<'_>, path: &[u8]) -> Self {
        Self {
            prefix: if path.is_empty() { 0 } else { path.len() + 1 },
            git: read(dir, b".gitignore"),
            other: read(dir, b".ignore"),
        }
    }
}

/// Whether an entry is left out. `ignore_files` are those of the directories above it, from the
/// top; the innermost pattern that says something about the entry decides.
pub(super) fn is_excluded(
    excludes: &Excludes,
    ignore_files: &[&IgnoreFiles],
    path: &[u8],
    is_dir: bool,
) -> bool {
    let by = |matcher: &Gitignore, prefix: usize| {
        let path = path.get(prefix..).unwrap_or_default();
        match matcher.matched(Path::new(OsStr::from_bytes(path)), is_dir) {
            Match::None => None,
            Match::Ignore(_) => Some(true),
            Match::Whitelist(_) => Some(false),
        }
    };
    let inner_first = || ignore_files.iter().rev();
    // `.ignore` goes before `.gitignore`, as in ripgrep.
    by(&excludes.0, 0)
        .or_else(|| inner_first().find_map(|files| by(&files.other, files.prefix)))
        .or_else(|| inner_first().find_map(|files| by(&files.git, files.prefix)))
        .unwrap_or(false)
}

/// An ignore file that can't be read, or a line that is no pattern, excludes nothing, as in git.
fn read(dir: BorrowedFd<'_>, name: &[u8]) -> Gitignore {
    let mut text = Vec::new();
    let read = open_same_mount(dir, name, OFlags::PATH)
        .and_then(|file| match stat_fd(&file) {
            Ok(stat) if stat.is_file() => reopen(&file, OFlags::RDONLY),
            Ok(_) => Err(rustix::io::Errno::INVAL),
            Err(errno) => Err(errno),
        })
        .map(|file| {
            std::fs::File::from(file)
                .take(MAX_IGNORE_FILE)
                .read_to_end(&mut text)
        });
    let mut builder = GitignoreBuilder::new("");
    if matches!(read, Ok(Ok(_))) {
        for line in String::from_utf8_lossy(&text).lines() {
            let _ = builder.add_line(None, line);
        }
    }
    builder.build().unwrap_or_else(|_| Gitignore::empty())
}
