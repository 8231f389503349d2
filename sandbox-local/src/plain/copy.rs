//! Copies the tree of a sandbox into another: fork.
//!
//! It must never follow a link, and must keep modification times: build tools go by them.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use sandbox_core::FileKind;

use super::os;

/// Copies what is below `from` into the existing directory `to`. Absolute links that point below
/// `from` are made to point below `to`. What vanishes in the meantime is left out.
pub(super) fn tree(from: &Path, to: &Path) -> io::Result<()> {
    below(from, to, &Roots { from, to })
}

struct Roots<'a> {
    from: &'a Path,
    to: &'a Path,
}

fn below(from: &Path, to: &Path, roots: &Roots<'_>) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        match one(&entry.path(), &to.join(entry.file_name()), roots) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

fn one(from: &Path, to: &Path, roots: &Roots<'_>) -> io::Result<()> {
    let meta = fs::symlink_metadata(from)?;
    match os::kind(meta.file_type()) {
        FileKind::Directory => {
            fs::create_dir(to)?;
            below(from, to, roots)?;
            // Last: a directory that may not be written would refuse its entries.
            set_time(to, meta.modified());
            os::set_mode(to, os::mode(&meta))
        }
        FileKind::File => file(from, to, &meta),
        FileKind::Symlink => os::symlink(&target(&fs::read_link(from)?, roots), to),
        #[cfg(target_os = "linux")]
        FileKind::Fifo => {
            use rustix::fs::{CWD, FileType, Mode, mknodat};
            mknodat(CWD, to, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?;
            os::set_mode(to, os::mode(&meta))
        }
        _ => Ok(()),
    }
}

/// Copies a regular file with its mode and modification time.
fn file(from: &Path, to: &Path, meta: &fs::Metadata) -> io::Result<()> {
    fs::copy(from, to)?;
    set_time(to, meta.modified());
    os::set_mode(to, os::mode(meta))
}

/// Sets a modification time where the host lets us; a missing one costs a rebuild, no more.
pub(super) fn set_time(path: &Path, modified: io::Result<SystemTime>) {
    if let (Ok(modified), Ok(file)) = (modified, fs::File::open(path)) {
        let _ = file.set_modified(modified);
    }
}

fn target(target: &Path, roots: &Roots<'_>) -> OsString {
    match target.strip_prefix(roots.from) {
        Ok(below) => roots.to.join(below).into_os_string(),
        Err(_) => target.as_os_str().to_owned(),
    }
}
