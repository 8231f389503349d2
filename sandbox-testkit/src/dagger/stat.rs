//! Lookup of paths: the entry at a path, and the paths that match a pattern.
//!
//! Invariant: a link is followed within its tree, never to the host's files.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use globset::{GlobBuilder, GlobMatcher};
use sandbox_core::{ErrorKind, FileKind, GuestPath, Sandbox, SandboxExt};
use serde_json::{Value, json};

use super::directory::below;
use super::engine::Failure;

/// Limit of links that lead to each other.
const MAX_LINKS: usize = 40;

/// Entry at a path.
#[derive(Clone, Debug)]
pub(super) struct Stat {
    name: String,
    kind: &'static str,
    size: u64,
    mode: u32,
}

impl Stat {
    /// Whether it is of this kind; anything is if none is asked for.
    pub(super) fn is(&self, kind: Option<&str>) -> bool {
        kind.is_none_or(|kind| kind.strip_suffix("_TYPE") == Some(self.kind))
    }

    /// A field of it.
    pub(super) fn field(&self, name: &str) -> Option<Value> {
        Some(match name {
            "name" => json!(self.name),
            "fileType" => json!(self.kind),
            "size" => json!(self.size),
            "permissions" => json!(self.mode),
            _ => return None,
        })
    }
}

/// The end of the message about a path at which nothing is.
pub(super) const MISSING: &str = "no such file or directory";

fn missing(path: &str) -> Failure {
    Failure::text(format_args!("stat {path}: {MISSING}"))
}

/// Looks up a path of a container.
pub(super) async fn of_guest(
    state: &dyn Sandbox,
    asked: &str,
    follow: bool,
) -> Result<Stat, Failure> {
    let mut path = GuestPath::from(asked);
    for _ in 0..MAX_LINKS {
        let found = state.stat(&path).await;
        let found = found.map_err(|error| match error.kind() {
            ErrorKind::NotFound => missing(asked),
            ErrorKind::NotADirectory => {
                Failure::text(format_args!("lstat {asked}: not a directory"))
            }
            _ => error.into(),
        })?;
        match found.link_target {
            Some(target) if follow => {
                path = path.parent().unwrap_or_else(GuestPath::root).join(target);
            }
            _ => {
                return Ok(Stat {
                    name: String::from_utf8_lossy(path.file_name().unwrap_or(b"/")).into_owned(),
                    kind: match found.kind {
                        FileKind::File => "REGULAR",
                        FileKind::Directory => "DIRECTORY",
                        FileKind::Symlink => "SYMLINK",
                        _ => "UNKNOWN",
                    },
                    size: found.size,
                    // As the engine has it: without setuid, setgid and the sticky bit.
                    mode: found.mode.bits() & 0o777,
                });
            }
        }
    }
    Err(Failure::text("too many links"))
}

/// Looks up a path of a tree on the host.
pub(super) fn of_tree(tree: &Path, asked: &str, follow: bool) -> Result<Stat, Failure> {
    let tree = tree.canonicalize()?;
    let mut at = below(&tree, asked);
    let real = if follow { Some(&*at) } else { at.parent() };
    let real = real.map(Path::canonicalize).transpose();
    let real = real.map_err(|_| missing(asked))?.unwrap_or_default();
    if at != tree && !real.starts_with(&tree) {
        return Err(Failure::text(
            "the double follows no link that leaves a directory",
        ));
    }
    if follow {
        at = real;
    }
    let found = fs::symlink_metadata(&at).map_err(|_| missing(asked))?;
    let kind = match found.file_type() {
        kind if kind.is_file() => "REGULAR",
        kind if kind.is_dir() => "DIRECTORY",
        kind if kind.is_symlink() => "SYMLINK",
        _ => "UNKNOWN",
    };
    let name = at.file_name().unwrap_or_default();
    Ok(Stat {
        name: name.to_string_lossy().into_owned(),
        kind,
        size: found.len(),
        mode: found.permissions().mode() & 0o777,
    })
}

/// The paths of a tree that match a pattern, directories with a slash behind.
pub(super) fn glob(tree: &Path, pattern: &str) -> Result<Vec<String>, Failure> {
    let glob = GlobBuilder::new(pattern)
        .literal_separator(true)
        .build()
        .map_err(Failure::text)?;
    let mut found = Vec::new();
    walk(tree, "", &glob.compile_matcher(), &mut found)?;
    Ok(found)
}

fn walk(dir: &Path, before: &str, glob: &GlobMatcher, found: &mut Vec<String>) -> io::Result<()> {
    let mut entries = fs::read_dir(dir)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = format!("{before}{}", entry.file_name().to_string_lossy());
        let is_dir = entry.file_type()?.is_dir();
        if glob.is_match(&path) {
            found.push(format!("{path}{}", if is_dir { "/" } else { "" }));
        }
        if is_dir {
            walk(&entry.path(), &format!("{path}/"), glob, found)?;
        }
    }
    Ok(())
}
