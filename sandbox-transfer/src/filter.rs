//! Rules for what a transfer leaves out.
//!
//! Invariant: only the caller's patterns and ignore files within the directory count; never those
//! of directories above it, nor the user's git configuration. Patterns mean the same in both
//! directions and on every backend.

use std::borrow::Cow;
use std::path::Path;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use sandbox_core::{Error, ErrorKind, Operation, Result};

/// Limit of an ignore file, in bytes. Its patterns are compiled, which costs many times
/// that.
pub const MAX_IGNORE_FILE: u64 = 1 << 20;

/// The caller's patterns of gitignore(5), relative to the top directory.
#[derive(Clone, Debug)]
pub struct Excludes(Gitignore);

impl Excludes {
    /// Compiles patterns.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for what is not a pattern; the message quotes it.
    pub fn new(patterns: &[String], operation: Operation) -> Result<Self> {
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

    /// Whether the entry at `path`, or a directory above it, is left out. For entries that come
    /// in any order.
    pub fn excludes(&self, path: &[u8], is_dir: bool) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let ends = path.iter().enumerate().filter(|(_, b)| **b == b'/');
        for (end, _) in ends {
            if is_excluded(self, &[], path.get(..end).unwrap_or_default(), true) {
                return true;
            }
        }
        is_excluded(self, &[], path, is_dir)
    }
}

/// The ignore files of one directory.
#[derive(Clone, Debug)]
pub struct IgnoreFiles {
    /// The length of the directory's path with its slash.
    prefix: usize,
    git: Gitignore,
    other: Gitignore,
}

impl IgnoreFiles {
    /// Compiles those of the directory at `path`. `read` gives the content of `.gitignore` and
    /// `.ignore`, or nothing if there is no such file; it must follow no link, open nothing but regular
    /// files, and read no more than a byte beyond [`MAX_IGNORE_FILE`].
    ///
    /// # Errors
    /// What `read` says: what a file would leave out, secrets maybe, must not be taken because the file
    /// can't be read. [`LimitExceeded`](ErrorKind::LimitExceeded) for one that is larger, as `operation`.
    pub fn read(
        path: &[u8],
        operation: Operation,
        mut read: impl FnMut(&str) -> Result<Option<Vec<u8>>>,
    ) -> Result<Self> {
        let mut compiled = |name: &str| {
            let text = read(name)?.unwrap_or_default();
            if text.len() as u64 > MAX_IGNORE_FILE {
                let place = match path {
                    b"" => name.to_owned(),
                    path => format!("{}/{name}", String::from_utf8_lossy(path)),
                };
                let message = format!("the patterns of {place} take more than 1 MiB");
                return Err(Error::new(ErrorKind::LimitExceeded, operation)
                    .with_message(message)
                    .with_hint("make it smaller, or give what it leaves out as excludes"));
            }
            let mut builder = GitignoreBuilder::new("");
            for line in String::from_utf8_lossy(&text).lines() {
                // A line that is no pattern is passed over, as in git.
                let _ = builder.add_line(None, line);
            }
            Ok(builder.build().unwrap_or_else(|_| Gitignore::empty()))
        };
        Ok(Self {
            prefix: if path.is_empty() { 0 } else { path.len() + 1 },
            git: compiled(".gitignore")?,
            other: compiled(".ignore")?,
        })
    }

    /// The error where a file of patterns can't be read.
    pub fn unreadable(error: Error) -> Error {
        error
            .with_message("what this file leaves out is not known, since it can't be read")
            .with_hint("make it readable, or give what it leaves out as excludes")
    }
}

/// Whether an entry is left out. `ignore_files` are those of the directories above it, from the
/// top.
///
/// The caller's patterns decide first. Then `.ignore` goes before `.gitignore`, whichever is
/// deeper, as in ripgrep; among files of one kind the innermost that says something about the
/// entry decides.
pub fn is_excluded(
    excludes: &Excludes,
    ignore_files: &[&IgnoreFiles],
    path: &[u8],
    is_dir: bool,
) -> bool {
    let by = |matcher: &Gitignore, prefix: usize| {
        let path = path.get(prefix..).unwrap_or_default();
        match matcher.matched(as_path(path), is_dir) {
            Match::None => None,
            Match::Ignore(_) => Some(true),
            Match::Whitelist(_) => Some(false),
        }
    };
    let inner_first = || ignore_files.iter().rev();
    by(&excludes.0, 0)
        .or_else(|| inner_first().find_map(|files| by(&files.other, files.prefix)))
        .or_else(|| inner_first().find_map(|files| by(&files.git, files.prefix)))
        .unwrap_or(false)
}

#[cfg(unix)]
fn as_path(bytes: &[u8]) -> Cow<'_, Path> {
    use std::os::unix::ffi::OsStrExt as _;
    Cow::Borrowed(Path::new(std::ffi::OsStr::from_bytes(bytes)))
}

#[cfg(not(unix))]
fn as_path(bytes: &[u8]) -> Cow<'_, Path> {
    Cow::Owned(String::from_utf8_lossy(bytes).into_owned().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(path: &str, git: &str, other: &str) -> IgnoreFiles {
        let read = |name: &str| {
            let text = if name == ".ignore" { other } else { git };
            Ok(Some(text.as_bytes().to_vec()))
        };
        IgnoreFiles::read(path.as_bytes(), Operation::ImportDir, read).unwrap()
    }

    #[test]
    fn the_order_is_excludes_then_ignore_then_gitignore_and_the_innermost_first() {
        let none = Excludes::new(&[], Operation::ImportDir).unwrap();
        let top = files("", "a\nb\n", "!a\n");
        let inner = files("d", "a\n", "");
        // `.ignore` of the top goes before `.gitignore` of the directory itself.
        assert!(!is_excluded(&none, &[&top, &inner], b"d/a", false));
        assert!(is_excluded(&none, &[&top, &inner], b"d/b", false));
        let inner = files("d", "", "a\n!b\n");
        assert!(is_excluded(&none, &[&top, &inner], b"d/a", false));
        assert!(!is_excluded(&none, &[&top, &inner], b"d/b", false));
        let asked = ["a".to_owned(), "!b".to_owned()];
        let asked = Excludes::new(&asked, Operation::ImportDir).unwrap();
        assert!(is_excluded(&asked, &[&top], b"a", false));
        assert!(!is_excluded(&asked, &[&top], b"b", false));
    }

    #[test]
    fn what_is_below_an_excluded_directory_is_excluded() {
        let excludes = ["target/".to_owned(), "!keep".to_owned()];
        let excludes = Excludes::new(&excludes, Operation::ExportDir).unwrap();
        assert!(excludes.excludes(b"x/target/keep", false));
        assert!(excludes.excludes(b"target", true));
        assert!(!excludes.excludes(b"target", false));
        assert!(!excludes.excludes(b"targets/a", false));
    }

    #[test]
    fn what_is_not_a_pattern_is_refused() {
        let error = Excludes::new(&["[z-a]".to_owned()], Operation::ImportDir).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("[z-a]"), "{error}");
    }
}
