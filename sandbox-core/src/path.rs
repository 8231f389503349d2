//! Paths inside a sandbox: byte strings, never host paths.
//!
//! Invariant: nothing here touches a filesystem. Resolution is lexical, so that every backend
//! agrees on what a path names before any of them looks at a link.

use std::borrow::Cow;
use std::fmt;

use crate::{Error, ErrorKind, Operation, Result};

/// Longest path accepted, in bytes, without its terminating NUL (`PATH_MAX` of Linux).
const MAX_LEN: usize = 4095;

/// A path inside a sandbox (the *guest*).
///
/// Guest paths are bytes, as on Linux: they need not be UTF-8. The separator is always `/`,
/// whatever the host uses. Relative paths are taken from the sandbox's workdir. A host path is a
/// [`std::path::Path`]; the two types do not convert into each other.
///
/// Building one never fails; an empty path or one with a NUL byte is refused by the operation
/// that is given it, with [`ErrorKind::InvalidInput`].
///
/// ```
/// use sandbox_core::GuestPath;
/// let path = GuestPath::from("src").join("main.rs");
/// assert_eq!(path.to_string(), "src/main.rs");
/// assert_eq!(path.file_name(), Some(&b"main.rs"[..]));
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuestPath(Vec<u8>);

impl GuestPath {
    /// A path of these bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The root directory, `/`.
    pub fn root() -> Self {
        Self(b"/".to_vec())
    }

    /// The path as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path as text if it is UTF-8.
    pub fn to_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The path as text, with U+FFFD for what is not UTF-8.
    pub fn to_string_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }

    /// Whether the path starts at the root.
    pub fn is_absolute(&self) -> bool {
        self.0.first() == Some(&b'/')
    }

    /// Joins `tail` below this path; an absolute `tail` replaces it.
    pub fn join(&self, tail: impl Into<GuestPath>) -> Self {
        let tail = tail.into();
        if tail.is_absolute() || self.0.is_empty() {
            return tail;
        }
        let mut bytes = self.0.clone();
        if bytes.last() != Some(&b'/') {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(&tail.0);
        Self(bytes)
    }

    /// The last component; `None` for the root and the empty path.
    pub fn file_name(&self) -> Option<&[u8]> {
        self.components().next_back()
    }

    /// The path without its last component; `None` for the root and for a single relative name.
    pub fn parent(&self) -> Option<Self> {
        let end = self.0.iter().rposition(|b| *b != b'/')?;
        let slash = self.0[..=end].iter().rposition(|b| *b == b'/')?;
        let keep = self.0[..slash]
            .iter()
            .rposition(|b| *b != b'/')
            .map_or(0, |i| i + 1);
        Some(if keep == 0 {
            Self::root()
        } else {
            Self(self.0[..keep].to_vec())
        })
    }

    /// The components: what stands between slashes, without empty ones. `.` and `..` are kept.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/').filter(|part| !part.is_empty())
    }

    /// Rest of this path below `base`, or `None` if it is not below it.
    ///
    /// Both have to be resolved. The result is relative, and empty if the two are equal.
    pub fn strip_prefix(&self, base: &GuestPath) -> Option<Self> {
        if base.0 == b"/" {
            return self.is_absolute().then(|| Self(self.0[1..].to_vec()));
        }
        let rest = self.0.strip_prefix(base.0.as_slice())?;
        match rest.first() {
            None => Some(Self(Vec::new())),
            Some(b'/') => Some(Self(rest[1..].to_vec())),
            Some(_) => None,
        }
    }

    /// The absolute path that this one names: relative to `workdir`, with `.`, `..`, repeated and
    /// trailing slashes taken out. `..` at the root stays at the root.
    ///
    /// This is lexical: `link/..` is the directory that holds `link`. Every backend resolves its
    /// arguments with it, so that all agree.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for an empty path, one with a NUL byte, or one longer than
    /// 4,095 bytes; the error carries `operation` and the path.
    ///
    /// ```
    /// use sandbox_core::{GuestPath, Operation};
    /// let workdir = GuestPath::from("/workspace");
    /// let path = GuestPath::from("../../a//./b/").resolve(&workdir, Operation::ReadFile)?;
    /// assert_eq!(path.as_bytes(), b"/a/b");
    /// # Ok::<(), sandbox_core::Error>(())
    /// ```
    pub fn resolve(&self, workdir: &GuestPath, operation: Operation) -> Result<GuestPath> {
        let invalid = |why: &str| {
            Error::new(ErrorKind::InvalidInput, operation)
                .with_message(why)
                .with_path(self.clone())
        };
        if self.0.is_empty() {
            return Err(invalid("the path is empty").with_hint("use \".\" for the workdir"));
        }
        if self.0.contains(&0) {
            return Err(invalid("the path has a NUL byte"));
        }
        let mut parts: Vec<&[u8]> = Vec::new();
        let base = if self.is_absolute() {
            &[][..]
        } else {
            workdir.as_bytes()
        };
        for part in base
            .split(|b| *b == b'/')
            .chain(self.0.split(|b| *b == b'/'))
        {
            match part {
                b"" | b"." => {}
                b".." => {
                    parts.pop();
                }
                _ => parts.push(part),
            }
        }
        let mut bytes = Vec::with_capacity(base.len() + self.0.len() + 2);
        for part in &parts {
            bytes.push(b'/');
            bytes.extend_from_slice(part);
        }
        if bytes.is_empty() {
            bytes.push(b'/');
        }
        if bytes.len() > MAX_LEN {
            return Err(invalid("the path is longer than 4095 bytes"));
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for GuestPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_string_lossy())
    }
}

impl fmt::Debug for GuestPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

macro_rules! from_bytes {
    ($($source:ty),*) => {$(
        impl From<$source> for GuestPath {
            fn from(source: $source) -> Self {
                Self(source.into())
            }
        }
    )*};
}
from_bytes!(&str, String, &[u8], Vec<u8>);

impl<const N: usize> From<&[u8; N]> for GuestPath {
    fn from(source: &[u8; N]) -> Self {
        Self(source.to_vec())
    }
}

impl From<&GuestPath> for GuestPath {
    fn from(source: &GuestPath) -> Self {
        source.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(path: &str) -> String {
        GuestPath::from(path)
            .resolve(&GuestPath::from("/w/d"), Operation::ReadFile)
            .map_or_else(|e| format!("{:?}", e.kind()), |p| p.to_string())
    }

    #[test]
    fn resolution_is_lexical_and_stays_below_the_root() {
        for (path, expected) in [
            ("a", "/w/d/a"),
            ("./a/../b", "/w/d/b"),
            ("..", "/w"),
            ("../../../../etc", "/etc"),
            ("/", "/"),
            ("//x///y/", "/x/y"),
            ("/..", "/"),
            ("-rf", "/w/d/-rf"),
            ("", "InvalidInput"),
            ("a\0b", "InvalidInput"),
        ] {
            assert_eq!(resolve(path), expected, "{path:?}");
        }
    }

    #[test]
    fn a_path_longer_than_path_max_is_refused() {
        assert_eq!(resolve(&"a/".repeat(2048)), "InvalidInput");
    }

    #[test]
    fn parent_and_name() {
        for (path, parent, name) in [
            ("/a/b", Some("/a"), Some("b")),
            ("/a", Some("/"), Some("a")),
            ("/", None, None),
            ("a", None, Some("a")),
            ("a/b/", Some("a"), Some("b")),
        ] {
            let path = GuestPath::from(path);
            assert_eq!(
                path.parent().map(|p| p.to_string()).as_deref(),
                parent,
                "{path}"
            );
            assert_eq!(path.file_name(), name.map(str::as_bytes), "{path}");
        }
    }

    #[test]
    fn strip_prefix_needs_a_whole_component() {
        let below = |path: &str, base: &str| {
            GuestPath::from(path)
                .strip_prefix(&base.into())
                .map(|p| p.to_string())
        };
        assert_eq!(below("/a/b", "/a").as_deref(), Some("b"));
        assert_eq!(below("/ab", "/a"), None);
        assert_eq!(below("/a", "/a").as_deref(), Some(""));
        assert_eq!(below("/a", "/").as_deref(), Some("a"));
    }
}
