//! Removes a tree that a guest has written.
//!
//! A guest can take its own directories' permission bits away, and overlayfs leaves a directory of
//! mode 000: as an ordinary user both have to be opened up first. A guest can also nest directories
//! without end, which recursion would pay for with stack and descriptors of the host: directories
//! are moved up instead, so that a tree is flat before it is removed. Never follows a link. The
//! guest is dead, so nothing moves meanwhile.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, chmodat, openat, statat, unlinkat};
use rustix::io::{Errno, Result as Sys};

use super::random_hex;

/// Removes a directory with all that is in it, or a link.
pub(super) fn tree(path: &Path) -> io::Result<()> {
    let is_dir = match fs::symlink_metadata(path) {
        Ok(found) => found.is_dir(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !is_dir {
        return fs::remove_file(path);
    }
    let top = open(CWD, path)?;
    let mut flat = Flat {
        top: top.as_fd(),
        prefix: random_hex()?,
        moved: 0,
    };
    while flat.pass()? {}
    fs::remove_dir(path)
}

/// A tree that is being flattened into its top directory.
struct Flat<'a> {
    top: BorrowedFd<'a>,
    /// What directories are called that were moved up: nothing that is there already.
    prefix: String,
    moved: u64,
}

impl Flat<'_> {
    /// Removes the files of the top directory, and its directories after those in them were moved
    /// up. False if there was nothing left.
    fn pass(&mut self) -> Sys<bool> {
        let mut any = false;
        for entry in Dir::read_from(self.top)? {
            let entry = entry?;
            let name = entry.file_name();
            if is_dots(name) {
                continue;
            }
            any = true;
            if is_dir(self.top, name, entry.file_type())? {
                self.directory(name)?;
            } else {
                unlinkat(self.top, name, AtFlags::empty())?;
            }
        }
        Ok(any)
    }

    fn directory(&mut self, name: &CStr) -> Sys<()> {
        let dir = open(self.top, name)?;
        loop {
            for entry in Dir::read_from(&dir)? {
                let entry = entry?;
                let below = entry.file_name();
                if is_dots(below) {
                    continue;
                }
                if is_dir(dir.as_fd(), below, entry.file_type())? {
                    self.move_up(dir.as_fd(), below)?;
                } else {
                    unlinkat(&dir, below, AtFlags::empty())?;
                }
            }
            match unlinkat(self.top, name, AtFlags::REMOVEDIR) {
                // A filesystem may leave entries out while others are being removed.
                Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                result => return result,
            }
        }
    }

    fn move_up(&mut self, from: BorrowedFd<'_>, name: &CStr) -> Sys<()> {
        self.moved += 1;
        let to = format!("{}-{}", self.prefix, self.moved);
        match rustix::fs::renameat(from, name, self.top, to.as_str()) {
            // Its own `..` changes, for which it must be writable.
            Err(Errno::ACCESS) => {
                chmodat(from, name, Mode::RWXU, AtFlags::empty())?;
                rustix::fs::renameat(from, name, self.top, to)
            }
            result => result,
        }
    }
}

/// Opens a directory so that its entries can be removed.
fn open(parent: impl AsFd, name: impl rustix::path::Arg + Copy) -> Sys<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(parent.as_fd(), name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            chmodat(parent.as_fd(), name, Mode::RWXU, AtFlags::empty())?;
            openat(parent, name, flags, Mode::empty())
        }
        Ok(dir) => {
            let mode = rustix::fs::fstat(&dir)?.st_mode;
            if mode & Mode::RWXU.as_raw_mode() != Mode::RWXU.as_raw_mode() {
                rustix::fs::fchmod(&dir, Mode::RWXU)?;
            }
            Ok(dir)
        }
        result => result,
    }
}

fn is_dots(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

fn is_dir(parent: BorrowedFd<'_>, name: &CStr, kind: FileType) -> Sys<bool> {
    match kind {
        FileType::Unknown => {
            let mode = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode;
            Ok(FileType::from_raw_mode(mode) == FileType::Directory)
        }
        kind => Ok(kind == FileType::Directory),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn directories_without_permissions_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        fs::create_dir_all(top.join("a/b")).unwrap();
        fs::write(top.join("a/b/c"), "x").unwrap();
        for locked in ["a/b", "a"] {
            fs::set_permissions(top.join(locked), Permissions::from_mode(0o0)).unwrap();
        }
        tree(&top).unwrap();
        assert!(!top.exists());
    }

    #[test]
    fn a_link_is_removed_and_its_target_stays() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("target")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("target"), dir.path().join("link")).unwrap();
        tree(&dir.path().join("link")).unwrap();
        assert!(dir.path().join("target").exists());
        assert!(!dir.path().join("link").exists());
    }

    #[test]
    fn depth_costs_neither_stack_nor_descriptors() {
        // In memory if there is some: twenty thousand directories take a disk half a minute.
        let dir = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .unwrap();
        let top = dir.path().join("top");
        fs::create_dir(&top).unwrap();
        let mut at = open(CWD, top.as_path()).unwrap();
        for _ in 0..20_000 {
            rustix::fs::mkdirat(&at, c"d", Mode::RWXU).unwrap();
            at = open(&at, c"d").unwrap();
        }
        rustix::fs::symlinkat(c"/", &at, c"link").unwrap();
        tree(&top).unwrap();
        assert!(!top.exists());
    }

    #[test]
    fn a_wide_tree_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        for n in 0..40 {
            fs::create_dir_all(top.join(format!("{n}/a/b"))).unwrap();
            fs::write(top.join(format!("{n}/a/file")), "x").unwrap();
        }
        fs::write(top.join("file"), "x").unwrap();
        tree(&top).unwrap();
        assert!(!top.exists());
    }
}
